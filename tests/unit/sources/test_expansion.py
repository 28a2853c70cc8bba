"""Folders of files with many times each."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from source_rasters import UTM, write_cube

from pipelines.errors import RequestError
from pipelines.scene import Band
from pipelines.sources.folder import FolderSource
from pipelines.sources.layers import BandRequest

DAY = 17532  # 2018-01-01, in days since 1970


def folder(path: Path, bands: tuple[str, ...] = ("v",), pattern: str = "{date:%Y%m%d}.nc", **request: object) -> FolderSource:
    requested = BandRequest(tuple(map(Band, bands)), **request)
    return FolderSource(path, requested, pattern, variable="{band}" if len(bands) > 1 else "v")


def values(*days: float) -> np.ndarray:
    """Every plane holds its day."""
    return np.array([np.full(UTM.shape_yx, day, "f4") for day in days])


def write(path: Path, *days: float, bands: tuple[str, ...] = ("v",)) -> None:
    write_cube(path, {name: values(*days) for name in bands}, list(days))


def test_every_step_of_every_file_is_a_scene_at_its_time(tmp_path):
    write(tmp_path / "20180101.nc", 0, 0.25, 0.5)
    write(tmp_path / "20180102.nc", 1)
    write(tmp_path / "20180103.nc", 2, 2.5, 3)
    source = folder(tmp_path)
    listing = source.list_scenes()
    days = [(scene.observed_utc.astype("datetime64[s]").astype(int) / 86400) - DAY for scene in listing.scenes]
    assert days == [0, 0.25, 0.5, 1, 2, 2.5, 3]
    assert [scene.id for scene in listing.scenes][1:4] == ["20180101_20180101T060000", "20180101_20180101T120000", "20180102"]
    assert listing.notes == ["the files hold several times each: 3 files are 7 scenes, dated by their time coordinates"]
    read = [source.read(scene, source.native_grid(), ("v",), "nearest")[0] for scene in listing.scenes]
    assert [plane.min() for plane in read] == [plane.max() for plane in read] == days
    assert source.remarks(listing.scenes)[0] == []


def test_ids_stay_when_a_file_grows(tmp_path):
    write(tmp_path / "20180101.nc", 0, 1)
    before = [scene.id for scene in folder(tmp_path).list_scenes().scenes]
    (tmp_path / "20180101.nc").unlink()
    write(tmp_path / "20180101.nc", 0, 0.5, 1)
    assert set(before) < {scene.id for scene in folder(tmp_path).list_scenes().scenes}


def test_bands_that_are_variables_share_the_times(tmp_path):
    write(tmp_path / "20180101.nc", 0, 1, bands=("a", "b"))
    source = folder(tmp_path, ("a", "b"))
    scenes = source.list_scenes().scenes
    assert len(scenes) == 2
    np.testing.assert_array_equal(source.read(scenes[1], source.native_grid(), ("a", "b"), "nearest"), values(1, 1))


@pytest.mark.parametrize(("pattern", "is_right"), [("s{date:%Y%m%d}.nc", False), ("s{date:%Y%m}*.nc", True)])
def test_the_date_of_the_name_must_be_that_of_a_step(tmp_path, pattern, is_right):
    write(tmp_path / "s20180105.nc", 1, 2)
    listing = folder(tmp_path, pattern=pattern).list_scenes()
    assert len(listing.scenes) == (2 if is_right else 0)
    if not is_right:
        assert "name says 2018-01-05T00:00:00, its times are 2018-01-02T00:00:00 to 2018-01-03" in listing.refused[0].detail


def test_times_that_cannot_be_read_refuse_their_file_alone(tmp_path):
    write(tmp_path / "20180101.nc", 0, 1)
    write(tmp_path / "20180103.nc", 2, 3)
    with h5py.File(tmp_path / "20180101.nc", "r+") as file:
        file["time"].attrs["units"] = "moons since 2018-01-01"
    listing = folder(tmp_path).list_scenes()
    assert len(listing.scenes) == 2
    (refusal,) = listing.refused
    assert (refusal.scene_id, refusal.reason) == ("20180101", "no-date")
    assert "cannot be read as dates" in refusal.detail


def test_a_number_of_a_plane_is_still_that_plane(tmp_path):
    write(tmp_path / "20180101.nc", 0, 1)
    source = folder(tmp_path, in_file={"v": "2"})
    (scene,) = source.list_scenes().scenes
    assert source.read(scene, source.native_grid(), ("v",), "nearest").min() == 1


def test_planes_of_no_time_axis_are_refused_as_before(tmp_path):
    write(tmp_path / "20180101.nc", 0, 1)
    with h5py.File(tmp_path / "20180101.nc", "r+") as file:
        del file["time"].attrs["units"]
        file.move("time", "level")
    with pytest.raises(RequestError, match="has 2 planes, the config names 1"):
        folder(tmp_path).native_grid()
