import numpy as np
import pytest
import torch

from pipelines.cube.store import bands_of
from pipelines.errors import ArtefactDamaged, RequestError
from pipelines.samples.cache import build_samples
from pipelines.samples.prepare import Moments, channel_statistics, read_windows
from pipelines.samples.variables import Variable, decode


def test_only_training_pixels_and_dates_count(cube, plan, ndvi):
    found = channel_statistics(cube, plan, ndvi)
    x, valid = decode(cube.image.values, cube.valid.values, bands_of(cube), ndvi)
    inside = np.zeros(valid.shape, bool)
    for window in plan.of_part("train"):
        inside[: int((cube.time.values < np.datetime64("2016-06-01")).sum()), window.tile.rows, window.tile.columns] = True
    seen = x[:, 0][inside & valid].astype(np.float64)
    assert found.count == len(seen)
    np.testing.assert_allclose(found.mean, seen.mean(), rtol=1e-12)
    np.testing.assert_allclose(found.std, seen.std(), rtol=1e-12)


def test_pixels_outside_training_have_no_effect(cube, plan, ndvi):
    before = channel_statistics(cube, plan, ndvi)
    changed = cube.copy(deep=True)
    changed["image"][20:] = 9999
    for window in plan.of_part("test"):
        changed["image"][:, :, window.tile.rows, window.tile.columns] = 1
    assert channel_statistics(changed, plan, ndvi) == before


def test_log1p_is_applied_first(cube, plan):
    plain, logged = (Variable("red", "band", ("red",), transform=t) for t in ("none", "log1p"))
    assert channel_statistics(cube, plan, (logged,)).mean[0] < np.log1p(channel_statistics(cube, plan, (plain,)).mean[0])


def test_moments_keep_their_digits_far_from_zero():
    values = np.random.default_rng(0).normal(1e6, 1e-2, (3000, 1))
    moments = Moments()
    for part in np.array_split(values, 7):
        moments.add(part)
    np.testing.assert_allclose(np.sqrt(moments.squares / moments.count), values.std(axis=0), rtol=1e-6)


def test_a_training_part_without_valid_pixels_is_refused(cube, plan, ndvi):
    with pytest.raises(RequestError, match="no pixel of the training part is valid on any of its 17 dates"):
        channel_statistics(cube.assign(valid=cube.valid & False), plan, ndvi)


def test_a_plan_of_another_cube_is_refused(cube, plan, ndvi):
    with pytest.raises(ArtefactDamaged, match=r"30 dates.*the cube has 29"):
        channel_statistics(cube.isel(time=slice(1, None)), plan, ndvi)
    with pytest.raises(ArtefactDamaged, match=r"raster of \(31, 29\), the cube has \(30, 29\)"):
        channel_statistics(cube.isel(y=slice(1, None)), plan, ndvi)


def test_a_constant_series_has_a_std_to_divide_by(cube, plan):
    constant = cube.copy(deep=True)
    constant["image"][:] = 123
    assert channel_statistics(constant, plan, (Variable("red", "band", ("red",)),)).std == (1.0,)


def test_windows_equal_those_of_the_cache(cube, plan, ndvi, tmp_path):
    cache = build_samples(cube, "S1", tmp_path, plan, ndvi)
    for part in ("train", "validation", "test"):
        cached = {(w.tile, float(w.target_days_K[0])): w for w in cache.windows(part)}
        read = list(read_windows(cube, plan, ndvi, part))
        assert read
        assert len(read) <= len(cached)
        for window in read:
            twin = cached[window.tile, float(window.target_days_K[0])]
            for name in (*window.arguments(), "target_KCHW", "target_valid_KHW"):
                assert torch.equal(getattr(window, name), getattr(twin, name)), name
