import warnings

import numpy as np
import pytest
import rasterio
from rio_cogeo import cog_validate

from pipelines.errors import ArtefactDamaged
from pipelines.grid import Grid
from pipelines.products.cog import date_for_name, write_forecast_cogs


@pytest.mark.parametrize("shape_yx", [(40, 60), (700, 1100)])
def test_the_files_are_valid_cogs_with_the_right_pixels(make_staged, dates, lineage, tmp_path, shape_yx):
    staged, grid = make_staged(shape_yx)
    paths = write_forecast_cogs(staged, grid, dates, {"ndvi": "1"}, lineage, tmp_path / "products", interval=0.9)
    assert [path.name for path in paths] == ["forecast_2020-06-15.tif", "forecast_2020-06-25T1005.tif"]
    assert sorted(path.name for path in (tmp_path / "products").iterdir()) == [path.name for path in paths]  # no drafts left
    for k, path in enumerate(paths):
        assert cog_validate(str(path), strict=True) == (True, [], [])
        with rasterio.open(path) as raster:
            assert raster.descriptions == ("ndvi", "ndvi_lower", "ndvi_upper")
            assert raster.units == ("1", "1", "1")
            assert raster.dtypes == ("float32",) * 3
            assert np.isnan(raster.nodata)
            assert raster.crs.to_epsg() == 32635
            assert raster.transform == grid.affine
            for number, field in enumerate(staged.fields[3 * k : 3 * k + 3], start=1):
                np.testing.assert_array_equal(raster.read(number), staged.read(field, slice(None)))
            tags = raster.tags()
    assert tags["DRIFTLINE_CUBE_SNAPSHOT"] == "SNAP"
    assert tags["DRIFTLINE_MODEL_HASH"] == "MODEL"
    assert tags["DRIFTLINE_CONFIG_HASH"] == "CONFIG"
    assert tags["DRIFTLINE_ISSUED_UTC"] == "2020-06-05T00:00:00Z"
    assert tags["DRIFTLINE_TARGET_UTC"] == "2020-06-25T10:05:00Z"
    assert tags["DRIFTLINE_INTERVAL"] == "0.9"


def test_the_same_fields_give_the_same_bytes(make_staged, dates, lineage, tmp_path):
    staged, grid = make_staged((600, 530))
    one, other = (write_forecast_cogs(staged, grid, dates, {}, lineage, tmp_path / name) for name in ("one", "other"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_an_independent_reader_sees_the_place(make_staged, dates, lineage, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rioxarray = pytest.importorskip("rioxarray")
    staged, grid = make_staged()
    path = write_forecast_cogs(staged, grid, dates, {}, lineage, tmp_path)[0]
    with rioxarray.open_rasterio(path, masked=True) as image:
        assert image.rio.crs.to_epsg() == 32635
        np.testing.assert_allclose(image.x.values, grid.centres("x"))
        np.testing.assert_allclose(image.y.values, grid.centres("y"))
        np.testing.assert_array_equal(image.values[1], staged.read(staged.fields[1], slice(None)))


def test_fields_of_another_shape_are_refused(make_staged, dates, lineage, tmp_path):
    staged, grid = make_staged()
    other = Grid(grid.crs, grid.transform, (41, 60))
    with pytest.raises(ArtefactDamaged, match=r"fields are \(40, 60\), the grid is \(41, 60\)"):
        write_forecast_cogs(staged, other, dates, {}, lineage, tmp_path)


@pytest.mark.parametrize(
    ("date", "name"),
    [("2020-06-15", "2020-06-15"), ("2020-06-15T10:05", "2020-06-15T1005"), ("2020-06-15T00:00:30", "2020-06-15")],
)
def test_names_hold_the_date(date, name):
    assert date_for_name(np.datetime64(date, "ns")) == name
