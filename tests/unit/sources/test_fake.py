import pickle

import numpy as np
import pytest

from pipelines.errors import SceneRefused
from pipelines.scene import Band
from pipelines.sources.fake import CLOUD, FakeSource


def test_scenes_do_not_depend_on_the_order_of_reading():
    source = FakeSource(dates=3)
    scenes = source.list_scenes().scenes
    forward = [source.read(scene, source.native_grid(), ("red", "nir", "SCL"), "nearest") for scene in scenes]
    again = pickle.loads(pickle.dumps(source))
    backward = [again.read(scene, source.native_grid(), ("red", "nir", "SCL"), "nearest") for scene in reversed(scenes)]
    for one, other in zip(forward, reversed(backward), strict=True):
        np.testing.assert_array_equal(one, other)


def test_scenes_are_dated_cloudy_and_seasonal():
    source = FakeSource()
    scenes = source.list_scenes().scenes
    assert len(scenes) == 24
    assert scenes[1].observed_utc - scenes[0].observed_utc == np.timedelta64(10, "D")
    stack = np.stack([source.read(scene, source.native_grid(), ("red", "nir", "SCL"), "nearest") for scene in scenes])
    is_cloud = stack[:, 2] == CLOUD
    assert 0.05 < is_cloud.mean() < 0.4
    ndvi = (stack[:, 1].astype(float) - stack[:, 0]) / (stack[:, 1].astype(float) + stack[:, 0])
    summer, winter = np.nanmean(np.where(is_cloud, np.nan, ndvi)[17:19]), np.nanmean(np.where(is_cloud, np.nan, ndvi)[:2])
    assert summer > winter + 0.3


def test_rows_equal_rows_of_the_whole():
    source = FakeSource(bands=(Band("red"),), dates=1)
    (scene,) = source.list_scenes().scenes
    whole = source.read(scene, source.native_grid(), ("red",), "nearest")
    part = source.read(scene, source.native_grid(), ("red",), "nearest", slice(5, 9))
    np.testing.assert_array_equal(part, whole[:, 5:9])


def test_other_grids_and_bands_are_refused():
    source = FakeSource(dates=1)
    (scene,) = source.list_scenes().scenes
    grid = source.native_grid()
    with pytest.raises(SceneRefused, match="wrong-grid"):
        source.read(scene, grid.window(slice(1, 9), slice(0, 9)), ("red",), "nearest")
    with pytest.raises(SceneRefused, match="requested 'blue'"):
        source.read(scene, grid, ("blue",), "nearest")
