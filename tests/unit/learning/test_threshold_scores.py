"""Scores of events on frames that are written out, and whether a field moves."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.baselines.moving_field import MovingField
from models.baselines.pointwise import Climatology, Persistence
from pipelines.learning.field_motion import FieldMotion, measure_motion
from pipelines.learning.threshold_scores import Thresholds, ThresholdTally


def window(truth_HW, day: float, valid_HW=None) -> SimpleNamespace:
    truth_HW = torch.as_tensor(truth_HW, dtype=torch.float32)
    valid_HW = torch.ones_like(truth_HW, dtype=torch.bool) if valid_HW is None else torch.as_tensor(valid_HW)
    return SimpleNamespace(
        target_KCHW=truth_HW[None, None], target_valid_KHW=valid_HW[None], target_days_K=torch.tensor([day], dtype=torch.float64)
    )


def scores_of(pairs, near_px: int = 3) -> dict:
    """Of (truth, forecast) frames, one a day, at 6 mm/h of values in mm in 5 minutes."""
    tally = ThresholdTally(Thresholds((6.0,), 12.0, "mm/h", near_px))
    for day, (truth_HW, y_HW, valid_HW) in enumerate(pairs):
        tally.add(window(truth_HW, float(day), valid_HW), {"method": np.asarray(y_HW, np.float32)[None, None]})
    (found,) = tally.to_json(0.9)["methods"]["method"]
    return found


def test_counts_are_pooled_and_in_the_unit_of_the_thresholds():
    truth, y = np.zeros((6, 6)), np.zeros((6, 6))
    truth[0, :4], y[0, 2:6] = 0.5, 0.6  # 2 hits, 2 misses, 2 false alarms; 0.49 mm is no event
    y[5, 5] = 0.49
    whole = scores_of([(truth, y, None), (truth, truth, None)])["overall"]
    assert whole["csi"] == pytest.approx(6 / 10)  # pooled over both days: (2 + 4) / (6 + 4)
    assert (whole["bias"], whole["events"], whole["csi_low"]) == (1.0, 8, None)


def test_pixels_that_are_not_valid_count_nowhere():
    truth, y, valid = np.zeros((5, 5)), np.ones((5, 5)), np.zeros((5, 5), bool)
    valid[2, 2], truth[2, 2] = True, 1.0
    whole = scores_of([(truth, y, valid)])["overall"]
    assert (whole["csi"], whole["fss"], whole["bias"]) == (1.0, 1.0, 1.0)


def test_fss_forgives_a_shift_that_csi_does_not():
    truth, y = np.zeros((20, 20)), np.zeros((20, 20))
    truth[8:12, 8:12], y[8:12, 12:16] = 1, 1
    near, far = (scores_of([(truth, y, None)], near_px=side)["overall"] for side in (1, 15))
    assert near["csi"] == near["fss"] == 0
    assert far["fss"] > 0.7


def test_an_event_that_never_came_has_no_score_and_an_interval_lies_around_its_value():
    nothing = scores_of([(np.zeros((4, 4)), np.zeros((4, 4)), None)])["overall"]
    assert nothing["csi"] is nothing["fss"] is nothing["bias"] is None
    rng = np.random.default_rng(0)
    whole = scores_of([(rng.random((9, 9)), rng.random((9, 9)), None) for _ in range(8)])["overall"]
    assert whole["csi_low"] < whole["csi"] < whole["csi_high"]


def moving_window(step: float, seed: int) -> SimpleNamespace:
    """A pattern of 6 frames, 2 of them targets, that moves by so many pixels along the columns; with noise."""
    rng = np.random.default_rng(seed)
    from scipy import ndimage

    pattern = 20 * ndimage.gaussian_filter(rng.random((32, 120)), 2)
    frames = torch.tensor(
        np.stack([ndimage.shift(pattern, (0, step * n), order=1)[:, 40:72] for n in range(6)])[:, None], dtype=torch.float32
    )
    arguments = {
        "x_NCHW": frames, "valid_NHW": torch.ones(6, 32, 32, dtype=torch.bool), "days_N": torch.arange(6).double(),
        "context_T": torch.arange(4), "usable_N": torch.arange(6) < 4, "target_days_K": torch.tensor([4.0, 5.0]).double(),
    }  # fmt: skip
    known_KHW = torch.zeros(2, 32, 32, dtype=torch.bool)
    known_KHW[:, 8:-8, 8:-8] = True
    return SimpleNamespace(
        **arguments, arguments=lambda: arguments, target_KCHW=frames[4:], target_valid_KHW=known_KHW, covariates={}
    )


@pytest.mark.parametrize(("step", "moves"), [(2.0, True), (0.0, False)])
def test_whether_a_field_moves_is_seen_in_its_windows(step, moves):
    methods = {"persistence": Persistence(), "moving": MovingField(), "usual": Climatology()}
    windows = [moving_window(step, seed) for seed in range(4)]
    if not moves:  # a field that stands still with noise, which no motion explains
        for window in windows:
            window.x_NCHW += torch.randn(window.x_NCHW.shape, generator=torch.Generator().manual_seed(0))
    found = measure_motion(methods, windows, len(windows))
    assert found.moves == moves
    assert ("The field moves" in found.sentence) == moves
    assert found.windows == 4


def test_without_a_change_nothing_is_claimed():
    assert "not known" in FieldMotion(0.0, 0.0, 0.0, 3).sentence
