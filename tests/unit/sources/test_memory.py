"""Datasets in memory as scenes: what is accepted, what is refused and with which remedy, and what reaches the cube."""

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import bands_of, grid_of, open_cube
from pipelines.errors import RequestError
from pipelines.sources.memory import memory_source

DATES = np.array(["2020-01-01", "2020-01-11", "2020-01-25"], "datetime64[ns]")
X, Y = 500_005 + 10 * np.arange(5.0), 4_999_995 - 10 * np.arange(4.0)
WKT = 'LOCAL_CS["drawing",UNIT["metre",1]]'


def series(dtype: str = "float64", **replaced: object) -> xr.Dataset:
    """`red` and `nir` (3, 4, 5); coordinates can be replaced."""
    values = np.arange(60).reshape(3, 4, 5).astype(dtype)
    coordinates = {"time": DATES, "y": Y, "x": X, **replaced}
    axes = ("time", "y", "x")
    return xr.Dataset({"red": (axes, values), "nir": (axes, values + 1)}, coordinates).assign_coords(spatial_ref=mapping())


def mapping(crs: str = "EPSG:32635") -> xr.Variable:
    from pipelines.grid import parse_crs

    return xr.Variable((), 0, {"crs_wkt": parse_crs(crs).to_wkt()})


def cube_of(data: xr.Dataset | xr.DataArray, folder: Path, **options: object) -> xr.Dataset:
    ingest(memory_source(data, **options), None, str(folder / "cube"), None, IngestSettings())
    return open_cube(str(folder / "cube"))


def test_a_dataset_becomes_the_cube_that_it_describes(tmp_path: Path) -> None:
    data = series()
    data["nir"][1, 2, 3] = np.nan
    cube = cube_of(data, tmp_path)
    assert grid_of(cube).crs == "EPSG:32635"
    np.testing.assert_allclose(cube["x"], X)
    np.testing.assert_allclose(cube["y"], Y)
    np.testing.assert_array_equal(cube["time"], DATES)
    np.testing.assert_array_equal(cube["image"].sel(band="red"), data["red"].astype("float32"))
    assert not cube["valid"][1, 2, 3]
    assert int(cube["valid"].sum()) == 59


def test_packed_values_stay_packed(tmp_path: Path) -> None:
    data = series("uint16")
    for image in data.data_vars.values():
        image.attrs |= {"scale_factor": 0.001, "_FillValue": 7, "units": "1"}
    cube = cube_of(data, tmp_path)
    assert cube["image"].dtype == "uint16"
    assert [(band.scale, band.nodata, band.unit) for band in bands_of(cube)] == [(0.001, 7.0, "1")] * 2
    assert not cube["valid"].values[(data["red"] == 7) | (data["nir"] == 7)].any()


@pytest.mark.parametrize("dtype", ["int64", "bool", "float64"])
def test_other_numbers_are_stored_as_float32(dtype: str) -> None:
    assert memory_source(series(dtype), ["red"]).dtype() == np.float32


def test_rows_from_the_south_keep_their_order(tmp_path: Path) -> None:
    data = series(y=Y[::-1])
    cube = cube_of(data, tmp_path)
    np.testing.assert_allclose(cube["y"], Y[::-1])
    np.testing.assert_array_equal(cube["image"].sel(band="red"), data["red"].astype("float32"))


def test_a_date_without_data_is_left_out(tmp_path: Path) -> None:
    data = series()
    data["red"][1] = np.nan
    np.testing.assert_array_equal(memory_source(data).usable_times(), DATES[[0, 2]])
    np.testing.assert_array_equal(cube_of(data, tmp_path)["time"], DATES[[0, 2]])


def test_the_same_dataset_again_changes_nothing_and_a_new_date_is_added(tmp_path: Path) -> None:
    uri, settings = str(tmp_path / "cube"), IngestSettings()
    first = ingest(memory_source(series().isel(time=[0, 1])), None, uri, None, settings)
    again = ingest(memory_source(series().isel(time=[0, 1])), None, uri, None, settings)
    grown = ingest(memory_source(series()), None, uri, None, settings)
    assert again.snapshot == first.snapshot
    assert grown.added == ("memory_20200125",)


def test_a_data_array_has_bands_by_its_coordinate_or_its_name() -> None:
    stacked = series().to_dataarray("band").transpose("time", "band", "y", "x")
    assert [band.name for band in memory_source(stacked).bands] == ["red", "nir"]
    assert [band.name for band in memory_source(stacked.isel(band=0, drop=True).rename("ndvi")).bands] == ["ndvi"]
    assert [band.name for band in memory_source(series(), ["nir"]).bands] == ["nir"]


def test_a_crs_is_given_where_there_is_none_and_may_not_contradict_the_data() -> None:
    assert memory_source(series().drop_vars("spatial_ref"), crs="EPSG:3035").crs == "EPSG:3035"
    assert memory_source(series(), crs=32635).crs == "EPSG:32635"
    with pytest.raises(RequestError, match="crs=3035 is not the CRS that the data state, EPSG:32635: leave crs out"):
        memory_source(series(), crs=3035)
    with pytest.raises(RequestError, match="file names are not read"):  # GDAL would open it
        memory_source(series(), crs="/etc/passwd")


REFUSED = {
    "no axis time": (series().isel(time=0), r"no axis `time` \(their axes: y, x\).*expand_dims"),
    "numbers for dates": (series(time=[1, 2, 3]), "needs dates .datetime64., it has int64"),
    "no date": (series(time=np.array(["2020-01-01", "NaT", "2020-01-03"], "datetime64[ns]")), r"time\[1\] is not a date"),
    "unsorted dates": (series(time=DATES[[0, 2, 1]]), r'not sorted: 2020-01-11.* follows 2020-01-25.*sortby\("time"\)'),
    "a date twice": (series(time=DATES[[0, 1, 1]]), r'2020-01-11T00:00:00.0+ is there twice: .*drop_duplicates\("time"\)'),
    "uneven x": (series(x=[0.0, 10.0, 20.0, 30.0, 45.0]), "coordinate x is not evenly spaced: 30 is followed by 45"),
    "one column": (series().isel(x=[0]), "axis x has 1 pixel"),
    "no coordinate": (series().drop_vars("y"), "no coordinate y"),
    "metres in degrees": (series().assign_coords(spatial_ref=mapping("EPSG:4326")), "EPSG:4326 is in degrees, .* x from 500005"),
    "degrees in metres": (series(x=25 + X / 1e9, y=45 + Y / 1e9), 'EPSG:32635 is in metre, .* look like degrees: .*"EPSG:4326"'),
    "other names": (series().rename(x="easting", y="northing"), r"no variable has the axes \(time, y, x\).*rename"),
    "no CRS": (series().drop_vars("spatial_ref"), r'no CRS .*crs="EPSG:32635".*rio.write_crs'),
    "text": (series().assign(red=series()["red"].astype(str)), "red holds <U.*, expected numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_run_could_not_use_is_refused_with_the_remedy(case: str) -> None:
    data, message = REFUSED[case]
    with pytest.raises(RequestError, match=message):
        memory_source(data)


def test_an_unknown_band_is_refused_with_those_there_are() -> None:
    with pytest.raises(RequestError, match=re.escape("no variable (time, y, x) is called blue; there are: red, nir")):
        memory_source(series(), "blue")
    with pytest.raises(RequestError, match=re.escape('did you mean nir? dataset.rename({"nir": "NIR"})')):
        memory_source(series(), ["NIR"])
    with pytest.raises(RequestError, match=re.escape('the DataArray has no name: array.rename("ndvi")')):
        memory_source(series()["red"].rename(None), ["ndvi"])


@pytest.mark.parametrize("names", [("latitude", "longitude"), ("lat", "lon")])
def test_latitude_and_longitude_are_y_and_x_as_float32_rounds_them(names: tuple[str, str]) -> None:
    lat, lon = names
    places = {"y": (45 - 1e-4 * np.arange(4)).astype("float32"), "x": (25 + 1e-4 * np.arange(5)).astype("float32")}
    data = series(**places).assign_coords(spatial_ref=mapping("EPSG:4326")).rename(y=lat, x=lon)
    grid = memory_source(data).native_grid()
    assert grid.crs == "EPSG:4326"
    np.testing.assert_allclose(grid.resolution_xy, (1e-4, -1e-4), rtol=0.02)


def test_a_scale_that_stays_on_values_of_floating_point_is_said() -> None:
    data = series()
    data["red"].attrs = {"scale_factor": 0.001}
    assert memory_source(data).notes == ("red: scale_factor 0.001 of its attributes was applied",)
    assert memory_source(data.astype("uint16")).notes == ()
