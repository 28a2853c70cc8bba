"""`driftline.ingest`: what is refused before anything is written, and what is said of dates that are left out or replaced."""

from pathlib import Path

import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr

import driftline
from pipelines.cube.store import head_snapshot
from pipelines.errors import CubeMismatch, RequestError

DATES = np.datetime64("2020-01-01", "ns") + np.arange(4) * np.timedelta64(10, "D")
AXES = {"time": DATES, "y": 4_999_995 - 10 * np.arange(4.0), "x": 500_005 + 10 * np.arange(5.0)}


def series(**replaced: np.ndarray) -> xr.Dataset:
    values = np.arange(80.0).reshape(4, 4, 5)
    return xr.Dataset({"ndvi": (("time", "y", "x"), values)}, {**AXES, **replaced}).rio.write_crs(32635)


OTHERS = {
    "flipped": (series().sortby("y"), r'axis y .* runs against .*sortby\("y", ascending=False\); nothing was written'),
    "flipped lat": (series().sortby("y").rename(y="lat", x="lon"), r'axis lat .*sortby\("lat", ascending=False\)'),
    "subset": (
        series().isel(x=slice(1, None)),
        r"4 x 4 pixels .*x 500010 to .*; the cube .*4 x 5 .*x 500000 to .*reproject_match",
    ),
    "shifted": (series(x=AXES["x"] + 0.02), r"x 500000.02 to .* x 500000 to "),
    "another CRS": (series().rio.write_crs(32636), "dataset is in EPSG:32636, the cube at .* in EPSG:32635: .*reproject_match"),
    "another dtype": (series().astype("int16"), "stores float32, the dataset gives int16"),
    "another band": (series().rename(ndvi="evi"), "has the bands .*'ndvi'.*the dataset has .*'evi'"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_dataset_that_does_not_fit_the_cube_is_refused_and_nothing_is_written(case: str, tmp_path: Path) -> None:
    path, (other, message) = str(tmp_path / "cube"), OTHERS[case]
    driftline.ingest(series(), path)
    snapshot = head_snapshot(path)
    with pytest.raises(CubeMismatch, match=message):
        driftline.ingest(other, path)
    assert head_snapshot(path) == snapshot


def test_the_remedy_for_another_grid_brings_the_dataset_there(tmp_path: Path) -> None:
    cube = driftline.ingest(series(), tmp_path / "cube")
    moved = series().isel(x=slice(1, None)).rio.reproject_match(cube).assign_coords(time=DATES + np.timedelta64(1, "D"))
    assert driftline.ingest(moved, tmp_path / "cube").sizes["time"] == 8


def test_dates_left_out_replaced_and_dropped_are_said(tmp_path: Path) -> None:
    data = series()
    data["ndvi"][1] = np.nan
    with pytest.warns(UserWarning, match="without a usable pixel left out: 1 date .2020-01-11.") as said:
        cube = driftline.ingest(data, tmp_path / "cube")
    assert cube.attrs["notes"] == "without a usable pixel left out: 1 date (2020-01-11)"
    assert len(said) == 1
    changed = data.isel(time=[2, 3]) + 1
    changed["ndvi"][1] = np.nan
    with pytest.warns(UserWarning, match="2020-01-31.*2020-01-21"):
        cube = driftline.ingest(changed, tmp_path / "cube", crs=32635)
    assert "dropped from the cube, without a usable pixel now: 1 date (2020-01-31)" in cube.attrs["notes"]
    assert "replaced in the cube: 1 date (2020-01-21)" in cube.attrs["notes"]
    np.testing.assert_array_equal(cube["time"], DATES[[0, 2]])


def test_nothing_is_said_of_dates_that_are_new_or_the_same(tmp_path: Path) -> None:
    driftline.ingest(series().isel(time=[0, 1]), tmp_path / "cube")  # warnings are errors here
    cube = driftline.ingest(series(), tmp_path / "cube")
    assert "notes" not in cube.attrs
    assert list(cube.data_vars) == ["image", "valid"]
    assert list(cube.coords)[:5] == ["time", "band", "y", "x", "scene_id"]


def test_a_cube_is_read_in_physical_values_with_its_mask(tmp_path: Path) -> None:
    stored = (series() * 100).fillna(0).astype("int16")
    stored["ndvi"].attrs = {"scale_factor": 0.01, "_FillValue": 0, "units": "1"}
    packed = driftline.ingest(stored, tmp_path / "packed", crs=32635)
    again = driftline.ingest(packed, tmp_path / "again")
    expected = series()["ndvi"].where(lambda v: v != 0)
    np.testing.assert_allclose(again["image"][:, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(again["valid"], packed["valid"])
    for part in (packed["image"], packed[["image"]]):
        with pytest.raises(RequestError, match="pass the cube, the Dataset of open_cube"):
            driftline.ingest(part, tmp_path / "third")
