import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_forecaster import truth_window

from pipelines.learning.conformal import Intervals
from pipelines.learning.forecast_intervals import LEVELS, Calibrated
from pipelines.learning.interval_scores import IntervalTally, climatological_quantiles, crps, probabilities

YEAR = 365.2422
UNIT = Intervals(0.9, ((1.0,), (1.0,)), ((1.0,), (1.0,)), 20)


def test_coverage_is_counted_per_lead_and_over_dates():
    tally = IntervalTally({"model": Calibrated(UNIT)}, "model")
    y = np.zeros((2, 1, 2, 2), np.float32)
    target = np.zeros((2, 1, 2, 2))
    target[1, 0, 0] = [5.0, -5.0]
    tally.add(truth_window(target, [0.0, 1.0]), {"model": y, "unknown": y})
    found = json.loads(json.dumps(tally.to_json("model")))
    assert (
        found["overall"]
        == found["methods"]["model"]
        == {
            "coverage": 0.75,
            "coverage_mean_of_dates": 0.75,
            "coverage_of_dates": pytest.approx([0.55, 0.95]),
            "missed_above": 0.125,
            "mean_width": 2.0,
            "interval_score": pytest.approx(2 + 20 * (4 + 4) / 8),
            "crps": pytest.approx(found["overall"]["crps"]),
            "pixels": 8,
        }
    )
    assert [lead["coverage"] for lead in found["by_lead"]] == [1.0, 0.5]
    assert [date["coverage"] for date in found["by_date"]] == [1.0, 0.5]
    assert found["reliability"]["model"] == [{"nominal": 0.9, "measured": 0.75, "is_bounded": True}]
    assert "climatological" in found["methods"]
    assert "constant" not in found["methods"]


def test_sampled_pixels_stand_for_all_and_every_level_is_measured():
    levels = {"levels_L": (0.5, 0.9), "factor_CL": ((0.5, 1.0),), "bounded_L": (True, False)}
    intervals = replace(UNIT, **levels)
    tally = IntervalTally({"model": Calibrated(intervals, intervals)}, "model", pixels_per_frame=10)
    target, y = np.full((2, 1, 9, 9), 0.75), np.zeros((2, 1, 9, 9), np.float32)
    tally.add(truth_window(target, [0.0, 1.0]), {"model": y})
    found = tally.to_json("model")
    assert found["overall"]["pixels"] == 162
    assert [tuple(level.values()) for level in found["reliability"]["model"]] == [(0.5, 0.0, True), (0.9, 1.0, False)]
    assert found["methods"]["constant"] == found["methods"]["model"]


def test_what_the_valid_range_cuts_off_is_no_width():
    intervals = replace(UNIT, limits_C=((0.0, 0.5),))
    tally = IntervalTally({"model": Calibrated(intervals)}, "model")
    tally.add(truth_window(np.full((2, 1, 3, 3), 0.5), [0.0, 1.0]), {"model": np.zeros((2, 1, 3, 3), np.float32)})
    found = tally.to_json("model")["overall"]
    assert (found["coverage"], found["mean_width"]) == (1.0, 0.5)


def test_crps_of_normal_quantiles_is_that_of_the_normal_distribution():
    """Gneiting & Raftery 2007, eq. 21: at the mean (2 - sqrt 2) / sqrt(2 pi) = 0.2337; the levels' quantiles come within 3 %."""
    z = {0.025: -1.96, 0.05: -1.645, 0.1: -1.282, 0.15: -1.036, 0.2: -0.842, 0.25: -0.674, 0.3: -0.524, 0.35: -0.385, 0.4: -0.253,
         0.45: -0.126, 0.5: 0.0}  # fmt: skip
    probability_Q = probabilities(LEVELS)
    quantile_Q = np.array([z[round(p, 3)] if p <= 0.5 else -z[round(1 - p, 3)] for p in probability_Q])
    (score,) = crps(quantile_Q[:, None, None], np.zeros((1, 1)), probability_Q)[0]
    assert score == pytest.approx((2 - np.sqrt(2)) / np.sqrt(2 * np.pi), rel=0.03)


def past(values_N, days_N, valid_N1=None):
    """A window of one pixel row with this past, target a day after the last date."""
    window = truth_window(np.zeros((1, 1, 1, 2)), [float(days_N[-1]) + 1])
    dates = len(days_N)
    return replace(
        window,
        x_NCHW=torch.as_tensor(np.broadcast_to(np.asarray(values_N, np.float32)[:, None, None, None], (dates, 1, 1, 2)).copy()),
        valid_NHW=torch.ones(dates, 1, 2, dtype=torch.bool) if valid_N1 is None else torch.as_tensor(valid_N1),
        days_N=torch.as_tensor(np.asarray(days_N, np.float64)),
        usable_N=torch.ones(dates, dtype=torch.bool),
    )


def test_climatological_quantiles_are_those_of_the_season():
    days_N = np.arange(0, 10 * YEAR, 5.0)
    window = past(np.where((days_N / YEAR) % 1 < 0.5, 1.0, 9.0), days_N)
    early = replace(window, target_days_K=window.target_days_K.new_tensor([10.25 * YEAR]))
    quantile_Q2 = climatological_quantiles(early, np.array([0, 1]), 0, np.array([0.05, 0.5, 0.95]))[:, 0]
    assert np.array_equal(quantile_Q2, np.ones((3, 2)))


def test_without_a_year_all_dates_weigh_alike_and_pixels_without_a_past_have_the_others_quantiles():
    valid = np.ones((5, 1, 2), bool)
    valid[:, :, 1] = False
    window = past([5.0, 1.0, 3.0, 2.0, 4.0], np.arange(5) / 1440, valid)
    quantile_Q2 = climatological_quantiles(window, np.array([0, 1]), 0, np.array([0.1, 0.5, 0.9]))[:, 0]
    assert quantile_Q2.tolist() == [[1.0, 1.0], [3.0, 3.0], [5.0, 5.0]]
    valid[:] = False
    assert np.isnan(climatological_quantiles(past(np.ones(5), np.arange(5.0), valid), np.array([0]), 0, np.array([0.5]))).all()
