import tracemalloc
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from rio_cogeo import cog_validate

from pipelines.calendar import to_days
from pipelines.errors import ArtefactDamaged
from pipelines.grid import Grid
from pipelines.products.cog import Lineage, sidecar, write_layers
from pipelines.products.layers import CHANGE_LAYERS, MONITOR_LAYERS, NO_DATE, Class, Layer, LayerBand, as_calendar, as_code
from pipelines.products.polygons import outline_changes

LINEAGE = Lineage("SNAP", "DETECTOR", "CONFIG", "0.1.0", "2020-06-05T00:00:00Z", ("scene a",))
DAY = 18_262.4375  # 2020-01-01T10:30


def monitored(shape_yx=(4, 5)) -> dict[str, np.ndarray]:
    """Changed at (1, 2) and (2, 2), not monitored at (0, 0), nothing found elsewhere."""
    layers = {
        "change_day": np.full(shape_yx, np.nan),
        "detected_day": np.full(shape_yx, np.nan),
        "recovered_day": np.full(shape_yx, np.nan),
        "magnitude": np.zeros(shape_yx, np.float32),
        "direction": np.zeros(shape_yx, np.int8),
        "confidence": np.full(shape_yx, 0.25, np.float32),
        "score": np.ones(shape_yx, np.float32),
        "status": np.ones(shape_yx, np.uint8),
    }
    for row, sign in ((1, -1), (2, 1)):
        layers["change_day"][row, 2], layers["detected_day"][row, 2] = DAY, DAY + 31
        layers["magnitude"][row, 2], layers["direction"][row, 2] = 0.3 * sign, sign
        layers["confidence"][row, 2], layers["score"][row, 2], layers["status"][row, 2] = 0.99, 12.5, 2
    layers["status"][0, 0] = 0
    return layers


def grid(shape_yx=(4, 5)) -> Grid:
    return Grid("EPSG:32635", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), shape_yx)


@pytest.fixture
def cogs(tmp_path):
    return write_layers(monitored(), MONITOR_LAYERS, grid(), "1", LINEAGE, tmp_path)


def test_every_layer_is_a_valid_cog_with_its_place_and_lineage(cogs, tmp_path):
    assert list(cogs) == [layer.name for layer in MONITOR_LAYERS]
    for layer in MONITOR_LAYERS:
        assert cog_validate(str(cogs[layer.name]), strict=True) == (True, [], [])
        with rasterio.open(cogs[layer.name]) as raster:
            assert raster.crs.to_epsg() == 32635
            assert raster.transform == grid().affine
            assert raster.descriptions == tuple(band.name for band in layer.bands)
            assert set(raster.dtypes) == {layer.dtype}
            assert raster.tags()["DRIFTLINE_MODEL_HASH"] == "DETECTOR"
            assert raster.tags(1)["DESCRIPTION"] == layer.bands[0].description
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_dates_are_days_and_calendar_numbers_and_nothing_else_is(cogs):
    with rasterio.open(cogs["change_date"]) as raster:
        days, calendar = raster.read()
        assert raster.units == ("d", None)
        assert raster.nodata == NO_DATE
        assert (raster.read_masks(1) > 0).sum() == 2
    assert days[1, 2] == 18_262
    assert calendar[1, 2] == 20200101
    assert set(np.unique(days)) == {NO_DATE, 18_262}
    with rasterio.open(cogs["detected_date"]) as raster:
        assert raster.read(2)[2, 2] == 20200201


def test_numbers_come_back_and_are_nodata_where_nothing_was_monitored(cogs):
    for name, unit in (("magnitude", "1"), ("confidence", "1"), ("score", "1")):
        expected = monitored()[name].copy()
        expected[0, 0] = np.nan
        with rasterio.open(cogs[name]) as raster:
            np.testing.assert_array_equal(raster.read(1), expected)
            assert np.isnan(raster.nodata)
            assert raster.units == (unit,)


def test_names_of_classes_are_printable_in_tags_and_beside_the_file(tmp_path):
    classes = (Class(0, "none", "", "#888888", is_nodata=True), Class(1, "re\x1b[31md\nx", "", "#ff0000"))
    layer = Layer("class", "", "class", "uint8", 0, (LayerBand("class", "", "", as_code),), classes)
    written = write_layers({"class": np.ones((4, 5), np.uint8)}, [layer], grid(), "\x1b[2J", LINEAGE, tmp_path)
    with rasterio.open(written["class"]) as raster:
        assert raster.tags()["CLASS_1"] == "re\\x1b[31md\\nx"
    names = [entry.text for entry in ElementTree.parse(sidecar(written["class"])).iter("Category")]
    assert names == ["none", "re\\x1b[31md\\nx"]


def test_classes_carry_colours_and_names(cogs):
    with rasterio.open(cogs["status"]) as raster:
        np.testing.assert_array_equal(raster.read(1), monitored()["status"])
        assert raster.nodata == 0
        assert raster.colormap(1)[2] == (0xD5, 0x5E, 0x00, 255)
        assert raster.colormap(1)[1][3] == 255
        assert raster.tags()["CLASS_2"] == "changed"
    with rasterio.open(cogs["direction"]) as raster:
        codes = raster.read(1)
        assert (codes[1, 2], codes[2, 2], codes[3, 3], codes[0, 0]) == (1, 2, 0, 255)
        assert raster.nodata == 255
    names = [entry.text for entry in ElementTree.parse(sidecar(cogs["status"])).iter("Category")]
    assert names == ["not-monitored", "nothing-found", "changed"]
    names = [entry.text for entry in ElementTree.parse(sidecar(cogs["direction"])).iter("Category")]
    assert (len(names), names[2], names[100], names[255]) == (256, "increase", None, "not-monitored")


def test_the_magnitude_has_the_variables_unit(tmp_path):
    paths = write_layers(monitored(), MONITOR_LAYERS, grid(), "K", LINEAGE, tmp_path)
    with rasterio.open(paths["magnitude"]) as raster, rasterio.open(paths["confidence"]) as other:
        assert (raster.units, other.units) == (("K",), ("1",))


def test_a_pair_has_probability_and_mask(tmp_path):
    probability = np.array([[0.1, 0.9], [np.nan, 0.5]], np.float32)
    mask = np.array([[0, 1], [255, 0]], np.uint8)
    arrays: dict[str, np.ndarray] = {"probability": probability, "mask": mask}
    paths = write_layers(arrays, CHANGE_LAYERS, grid((2, 2)), "", LINEAGE, tmp_path, prefix="paris_")
    assert [path.name for path in paths.values()] == ["paris_probability.tif", "paris_mask.tif"]
    with rasterio.open(paths["probability"]) as raster:
        np.testing.assert_array_equal(raster.read(1), probability)
    with rasterio.open(paths["mask"]) as raster:
        np.testing.assert_array_equal(raster.read(1, masked=True).mask, mask == 255)
        np.testing.assert_array_equal(raster.read(1), mask)


def test_large_layers_are_the_same_bytes_each_time_and_overviews_hold_codes_only(tmp_path):
    shape = (1100, 1300)
    status = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    arrays = {"status": status, "change_day": np.where(status == 2, DAY, np.nan)}
    one, other = (write_layers(arrays, MONITOR_LAYERS, grid(shape), "1", LINEAGE, tmp_path / name) for name in ("one", "other"))
    assert list(one) == list(other) == ["status", "change_date"]
    assert [path.read_bytes() for path in one.values()] == [path.read_bytes() for path in other.values()]
    with rasterio.open(one["status"], overview_level=0) as raster:
        assert set(np.unique(raster.read(1))) <= {0, 1, 2}
    with rasterio.open(one["change_date"], overview_level=0) as raster:
        assert set(np.unique(raster.read(2))) == {NO_DATE, 20200101}


def test_a_memory_map_gives_the_same_file_as_an_array(tmp_path):
    arrays = monitored((600, 70))
    mapped = {}
    for name, values in arrays.items():
        np.save(tmp_path / f"{name}.npy", values)
        mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    folder = grid((600, 70))
    one = write_layers(arrays, MONITOR_LAYERS, folder, "1", LINEAGE, tmp_path / "one")
    other = write_layers(mapped, MONITOR_LAYERS, folder, "1", LINEAGE, tmp_path / "other")
    assert all(one[name].read_bytes() == other[name].read_bytes() for name in one)


class Generated:
    """A raster that is nowhere in memory."""

    def __init__(self, shape, value, dtype):
        self.shape, self.value, self.dtype = shape, value, dtype

    def __getitem__(self, rows):
        return np.full((rows.stop - rows.start, self.shape[1]), self.value, self.dtype)


def test_memory_does_not_grow_with_the_raster(tmp_path):
    peaks = []
    for height in (512, 4096):
        shape = (height, 256)
        arrays = {"status": Generated(shape, 1, np.uint8), "change_day": Generated(shape, np.nan, np.float64)}
        tracemalloc.start()
        write_layers(arrays, MONITOR_LAYERS, grid(shape), "1", LINEAGE, tmp_path / str(height))
        assert len(outline_changes(Generated(shape, 0, np.uint8), grid(shape))) == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def test_layers_of_another_shape_are_refused(tmp_path):
    with pytest.raises(ArtefactDamaged, match=r"layer change_day is \(4, 5\), the grid is \(4, 6\)"):
        write_layers(monitored(), MONITOR_LAYERS, grid((4, 6)), "1", LINEAGE, tmp_path)


@pytest.mark.parametrize("text", ["1969-12-31", "1970-01-01", "2000-02-29", "2020-12-31", "1899-03-01"])
def test_calendar_numbers_are_dates(text):
    day = to_days(np.array([text], "datetime64[ns]"))
    assert as_calendar(day, np.ones(1, bool))[0] == int(text.replace("-", ""))


def test_an_independent_reader_sees_the_place_and_the_missing(cogs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rioxarray = pytest.importorskip("rioxarray")
    with rioxarray.open_rasterio(cogs["magnitude"], masked=True) as image:
        np.testing.assert_allclose(image.x.values, grid().centres("x"))
        assert np.isnan(image.values[0, 0, 0])
