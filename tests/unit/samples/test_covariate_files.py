"""Covariates in files: rasters of any CRS, tables and netCDF series, and what is refused of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine

from pipelines.errors import RequestError
from pipelines.grid import Grid
from pipelines.samples.covariate_files import DriverFile, StaticFile, load
from pipelines.tiles import Box

GRID = Grid("EPSG:32635", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (8, 8))  # at 27 E, 45.15 N


def write(
    path: Path, values: np.ndarray, crs="EPSG:32635", transform=(20.0, 0, 499_980.0, 0, -20.0, 5_000_020.0), **options
) -> Path:
    shape = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": values.dtype, **options}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=Affine(*transform), **shape) as file:
        file.write(values, 1)
    return path


def series(path: Path, text: str, **how) -> DriverFile:
    path.write_text(text)
    return DriverFile("rain", path, **how)


def load_driver(file: DriverFile):
    return load((), (file,), GRID).drivers[0]


def test_numbers_and_classes_of_another_grid_lie_on_that_of_the_cube(tmp_path):
    codes = np.repeat(np.array([[0, 1, 1, 3, 3, 9]], "uint8"), 6, axis=0)
    cover = StaticFile("cover", write(tmp_path / "cover.tif", codes, nodata=0), classes=(1, 3))
    lonlat = write(
        tmp_path / "dem.tif", np.full((20, 20), 7, "int16"), "EPSG:4326", (0.001, 0, 26.99, 0, -0.001, 45.16), nodata=-1
    )
    found = load((cover, StaticFile("elevation", lonlat)), (), GRID)
    assert found.channels == ("cover=1", "cover=3", "elevation")
    assert found.static[0].values_SHW[:, 0].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]]
    assert (found.static[1].values_SHW == 7).all()


@pytest.mark.parametrize(("changes", "message"), [
    ({"max_missing": 0.2}, r"cover has no value for 25% of the cube's pixels .* raise max_missing"),
    ({"classes": (4, 5)}, r"holds none of its classes \[4, 5\] here, but 1, 3"),
    ({"unit": "m"}, None),
    ({"crs": None}, r"c.tif has no CRS, so nothing says where it lies: write .* gdal_edit.py"),
])  # fmt: skip
def test_a_layer_that_does_not_fit_is_refused_with_what_is_wrong(tmp_path, changes, message):
    codes = np.repeat(np.array([[0, 0, 1, 3, 3, 9]], "uint8"), 6, axis=0)
    crs = {"crs": "EPSG:32635", **changes}["crs"]
    changes = {name: value for name, value in changes.items() if name != "crs"}
    path = write(tmp_path / "c.tif", codes, crs, nodata=0)
    file = StaticFile("cover", path, max_missing=0.5, resampling="nearest")
    if message is None:
        assert load((replace(file, **changes),), (), GRID).units == {"cover": "m"}, "the file states none"
        return
    with pytest.raises(RequestError, match=message):
        load((replace(file, **changes),), (), GRID)


def test_of_a_raster_with_several_bands_the_one_that_is_stated_is_read(tmp_path):
    path = write(tmp_path / "terrain.tif", np.full((6, 6), 7, "int16"), count=2)
    with rasterio.open(path, "r+") as file:
        file.write(np.full((6, 6), 30, "int16"), 2)
    with pytest.raises(RequestError, match=r"terrain.tif holds 2 bands: state the number of the one that is meant as `band`"):
        load((StaticFile("slope", path),), (), GRID)
    assert (load((StaticFile("slope", path, band=2),), (), GRID).static[0].values_SHW == 30).all()
    with pytest.raises(RequestError, match=r"terrain.tif has no band 3, only 2"):
        load((StaticFile("slope", path, band=3),), (), GRID)
    opaque = write(tmp_path / "alpha.tif", np.full((6, 6), 7, "uint8"), count=2, alpha="yes", photometric="minisblack")
    with rasterio.open(opaque, "r+") as file:
        file.write(np.full((6, 6), 255, "uint8"), 2)
    assert (load((StaticFile("elevation", opaque),), (), GRID).static[0].values_SHW == 7).all()


def test_a_table_of_days_counts_for_the_day_after_and_is_read_again_when_it_changes(tmp_path):
    rain = series(tmp_path / "rain.csv", "date;value\n2020-01-02;3\n2020-01-01;1\n2020-01-03;\n")
    found = load_driver(rain)
    assert found.days_L.tolist() == [18263, 18264, 18265], "2020-01-01 is day 18262, known when it has ended"
    assert found.values_LG.ravel().tolist() == pytest.approx([1, 3, np.nan], nan_ok=True)
    assert (found.last_date, found.span) == ("2020-01-02", "2020-01-01 to 2020-01-02")
    longer = load_driver(series(rain.path, rain.path.read_text() + "2020-01-04;5\n"))
    assert longer.last_date == "2020-01-04"
    hourly = series(tmp_path / "hours.csv", "date,value\n2020-06-01T12:00,1\n2020-06-01T12:00+00:00,2\n", zone="Europe/Bucharest")
    assert ((load_driver(hourly).days_L % 1) * 24).tolist() == pytest.approx([9, 12])
    assert load_driver(replace(rain, delay_days=0.0)).days_L[0] == 18262


@pytest.mark.parametrize(("text", "how", "message"), [
    ("date,value\n2020-01-01,1\n2020-13-01,2\n", {}, "line 3: expected a date such as 2020-06-30"),
    ("date,value\n2020-01-01,1\n2020-01-01,2\n", {}, "two values of 2020-01-01: keep one"),
    ("date,mm\n2020-01-01,1\n", {}, "no column 'value', only date, mm; name the columns in date_column and value_column"),
    ("date,value\n2020-01-01,1\n2020-01-01T06:00,1\n", {}, "line 3: dates with and without a time of day"),
    ("date,value\n2020-01-02T00:00,1\n2020-01-03T00:00,1\n2020-01-04T00:00,1\n2020-01-04T06:00,1\n", {},
     "are 1 day apart, after 2020-01-04 6 hours: bring them to one step"),
    ("date,value\n2020-01-01,1\n", {}, "at least two are needed"),
    ("date,value\n2020-01-01,\n2020-01-02,\n", {}, "rain.csv holds 0 times with values"),
    ("date,value\n2020-01-01,1\n2020-01-02,-9999\n2020-01-03,2\n", {}, "holds -9999 on 1 of 3 lines, as if for a missing"),
    ("date,value\n2020-01-01,1e39\n", {}, "line 2: '2020-01-01' and '1e39' are no date and number"),
    ("date,value\n2020-01-01,1\n", {"zone": "Mars/Base"}, "no time zone 'Mars/Base'"),
])  # fmt: skip
def test_a_table_that_cannot_be_read_is_refused_by_its_line(tmp_path, text, how, message):
    with pytest.raises(RequestError, match=message):
        load_driver(series(tmp_path / "rain.csv", text, **how))


def write_weather(path: Path, west: float = 26.0) -> Path:
    """Two days on a grid of 1 degree, packed, in mm, dates of noon."""
    times = np.array(["2020-01-01T12", "2020-01-02T12"], "datetime64[ns]")
    values = np.arange(2 * 3 * 3, dtype=float).reshape(2, 3, 3)
    axes = {"time": times, "lat": ("lat", [46.0, 45.0, 44.0], {"units": "degrees_north"})}
    axes["lon"] = ("lon", west + np.arange(3.0), {"units": "degrees_east"})
    data = xr.Dataset({"tp": (("time", "lat", "lon"), values, {"units": "mm"})}, axes)
    data.to_netcdf(path, engine="h5netcdf", encoding={"tp": {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1}})
    return path


def test_a_series_on_a_grid_is_cut_to_the_place_and_its_unit_compared(tmp_path):
    file = DriverFile("rain", write_weather(tmp_path / "era5.nc"), "tp", unit="mm")
    found = load((), (file,), GRID)
    rain = found.drivers[0]
    assert rain.days_L.tolist() == [18262.5, 18263.5], "times of day: known at once"
    days = np.array([18262.6])
    given = found.of(Box((0, 0), (2, 2)), days, days + 1)
    assert given["past_TDHW"].shape == (1, 1, 2, 2)
    assert set(given["past_TDHW"].ravel().tolist()) == {4.0}, "the cell at 45 N, 27 E"
    with pytest.raises(RequestError, match="is in 'mm' by its file, the config says 'm'"):
        load((), (replace(file, unit="m"),), GRID)
    with pytest.raises(RequestError, match=r"does not cover the cube: its grid of 3 x 3 cells ends"):
        load((), (replace(file, path=write_weather(tmp_path / "far.nc", west=60.0)),), GRID)
    with pytest.raises(RequestError, match=r"no data set 'rain' .* there are: .*tp"):
        load((), (replace(file, variable="rain"),), GRID)
