"""Windows that see more than they are scored on."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from models.baselines.moving_field import MovingField
from models.baselines.pointwise import Persistence
from pipelines.samples.audit import audit
from pipelines.samples.cache import build_samples
from pipelines.samples.plan import PARTS, Sampling, Split, from_json, to_json
from pipelines.samples.prepare import SampleSettings, read_windows
from pipelines.samples.refit import windows_before
from pipelines.samples.variables import Variable
from pipelines.samples.windows import plan_windows

MARGIN = 5


@pytest.fixture
def wide(plan):
    return replace(plan, split=replace(plan.split, margin_px=MARGIN))


def test_a_plan_without_a_margin_is_written_as_before_and_one_with_it_is_read_again(plan, wide):
    assert "margin_px" not in json.loads(to_json(plan))["rule"]
    assert from_json(to_json(wide)) == wide


def test_a_window_sees_the_margin_and_has_targets_in_its_tile_alone(cube, plan, wide, ndvi, tmp_path):
    narrow, wider = (build_samples(cube, "S1", tmp_path / name, one, ndvi) for name, one in (("a", plan), ("b", wide)))
    for part in PARTS:
        for before, after in zip(narrow.windows(part), wider.windows(part), strict=True):
            box = wide.box_of(before.tile)
            inside = before.tile.within(box)
            assert after.x_NCHW.shape[2:] == box.shape
            assert torch.equal(after.x_NCHW[..., *inside], before.x_NCHW)
            assert torch.equal(after.target_valid_KHW[:, *inside], before.target_valid_KHW)
            assert after.target_valid_KHW.sum() == before.target_valid_KHW.sum()
            assert torch.equal(after.target_KCHW[..., *inside], before.target_KCHW)
    of_training, directly = wider.part("train"), read_windows(cube, wide, ndvi, "train")
    of_window = {(window.tile, int(window.context_T[-1])): window.target_valid_KHW for window in directly}
    for index, window in enumerate(wide.of_part("train")):
        batch = of_training.gather([index])
        assert torch.equal(batch["target_valid_KHW"][0], of_window[window.tile, window.issue])


def test_what_depends_on_a_pixel_alone_has_the_same_error_with_a_margin(cube, plan, wide, ndvi):
    def error(one):
        total = 0.0
        for window in read_windows(cube, one, ndvi, "test"):
            missed_KCHW = (Persistence().forecast(**window.arguments()) - window.target_KCHW).abs()
            total += float(torch.where(window.target_valid_KHW[:, None], missed_KCHW, 0.0).double().sum())
        return total

    assert error(plan) == pytest.approx(error(wide), rel=1e-9)


@pytest.mark.parametrize("margin_px", [1, MARGIN, 100])
def test_no_target_of_a_later_part_is_seen_or_forecast_by_an_earlier_one(plan, margin_px):
    """Counted anew, pixel by pixel; the audit agrees."""
    wide = replace(plan, split=replace(plan.split, margin_px=margin_px))
    seen, targets = ({part: np.zeros((len(plan.times), *plan.shape), bool) for part in PARTS} for _ in range(2))
    for window in wide.windows:
        dates = {*window.context_T, *np.flatnonzero(wide.usable(window)).tolist()} - {-1}
        seen[window.part][(sorted(dates), *wide.box_of(window.tile).slices)] = True
        targets[window.part][(sorted({*window.target_K} - {-1}), *window.tile.slices)] = True
    for number, earlier in enumerate(PARTS):
        for later in PARTS[number + 1 :]:
            assert not (targets[later] & (seen[earlier] | targets[earlier])).any()
    assert (seen["train"] & seen["test"]).any(), "the margins do overlap: only targets are kept apart"
    assert audit(wide).ok


@pytest.mark.parametrize("part", ["context_T", "target_K"])
def test_a_leak_through_the_margin_is_found(wide, part):
    """A training window next to a test tile that sees, or forecasts, a date of the test."""
    test = wide.of_part("test")[0]
    near = next(w for w in wide.of_part("train") if wide.box_of(w.tile).overlaps(test.tile))
    leaking = replace(wide, windows=(*wide.windows, replace(near, **{part: test.target_K})))
    assert any("pixel-dates are in train and in test windows" in problem for problem in audit(leaking).problems)


def test_rain_that_comes_from_outside_the_tile_is_forecast_with_a_margin(new_cube):
    cube = new_cube((64, 64), dates=16)
    pattern = ndimage.gaussian_filter(np.random.default_rng(0).random((200, 200)), 2.5)
    frames = [ndimage.shift(pattern, (0, 3 * n), order=1)[68:132, 68:132] for n in range(16)]
    cube["image"].values[:] = (20_000 * np.stack(frames))[:, None]
    cube["valid"].values[:] = True
    split = Split(16, 1, np.datetime64("2015-09-01"), np.datetime64("2016-01-01"))
    plan = plan_windows(cube.time.values, (64, 64), split, Sampling(), context=3, horizon=2)
    red = (Variable("red", "band", ("red",)),)

    def error(margin_px):
        one = replace(plan, split=replace(split, margin_px=margin_px))
        missed = [
            (MovingField().forecast(**window.arguments()) - window.target_KCHW).abs()[window.target_valid_KHW[:, None]]
            for window in read_windows(cube, one, red, "test")
        ]
        return float(torch.cat(missed).mean())

    assert error(12) < 0.3 * error(0)


def test_the_margin_takes_no_window_from_the_fit_of_a_baseline(cube, plan, ndvi):
    """The share of valid targets is that of the tile: pixels of the margin are no targets that are missing."""
    settings = SampleSettings(ndvi, plan.split, Sampling(), 3, 2, min_valid_fraction=0.8)
    wider = replace(settings, split=replace(plan.split, margin_px=MARGIN))
    narrow, wide = (list(windows_before(cube, one, plan.split.test_from)) for one in (settings, wider))
    assert len(narrow) == len(wide) > 0
