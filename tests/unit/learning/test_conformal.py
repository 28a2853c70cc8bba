import json

import numpy as np
import pytest
from tiny_forecaster import Constant, truth_window

from pipelines.errors import RequestError
from pipelines.learning.conformal import CoverageTally, Intervals, calibrate, grouped_quantile, needed_dates


def windows_of(values_D, leads=1, shape=(2, 2)):
    """One window per date whose targets are all that date's value."""
    return [
        truth_window(np.full((leads, 1, *shape), value), [10.0 * d + k for k in range(leads)]) for d, value in enumerate(values_D)
    ]


def test_the_margin_is_the_finite_sample_quantile_over_dates():
    intervals = calibrate(Constant(0.0), windows_of(range(1, 20)), 0.9)
    assert intervals == Intervals(0.9, ((18.0,),), ((18.0,),), 19, True)  # ceil(20 * 0.9) = the 18th of 19


def test_one_date_of_many_pixels_stays_one_date():
    groups = [np.zeros(1), np.full(1000, 5.0), np.ones(1)]
    assert grouped_quantile(groups, 0.5) == 1.0
    assert grouped_quantile(groups, 0.5, np.array([1.0, 1000.0, 1.0])) == 5.0


def test_with_too_few_dates_the_largest_error_stands_in_and_it_is_said():
    intervals = calibrate(Constant(0.0), windows_of([1, 2, 3]), 0.9)
    assert intervals.above_KC == ((3.0,),)
    assert not intervals.is_bounded
    assert needed_dates(0.9) == 9
    assert needed_dates(0.95) == 19


def test_invalid_pixels_do_not_count():
    valid = np.array([[[True, False], [False, False]]])
    window = truth_window(np.array([[[[1.0, 99.0], [99.0, 99.0]]]]), [0.0], valid)
    assert calibrate(Constant(0.0), [window], 0.5).above_KC == ((1.0,),)


def test_large_frames_are_sampled_and_keep_their_weight():
    small, large = windows_of([1.0])[0], truth_window(np.full((1, 1, 50, 50), 3.0), [20.0])
    assert calibrate(Constant(0.0), [small, large], 0.5, pixels_per_frame=10).above_KC == ((3.0,),)


def test_bounds_have_the_margins_of_their_lead():
    intervals = Intervals(0.9, ((1.0,), (2.0,)), ((3.0,), (4.0,)), 20)
    lower, upper = intervals.bounds(np.zeros((2, 1, 1, 1), np.float32))
    assert lower.ravel().tolist() == [-1, -2]
    assert upper.ravel().tolist() == [3, 4]
    assert lower.dtype == upper.dtype == np.float32
    with pytest.raises(RequestError, match=r"calibrated for 2 leads, 3 are asked for: raise samples.horizon"):
        intervals.bounds(np.zeros((3, 1, 1, 1)))


def test_intervals_survive_json():
    intervals = calibrate(Constant(0.0), windows_of(range(1, 20), leads=2), 0.8)
    assert Intervals.from_json(json.loads(json.dumps(intervals.to_json()))) == intervals


def test_coverage_is_counted_per_lead_and_over_dates():
    tally = CoverageTally(Intervals(0.9, ((1.0,), (1.0,)), ((1.0,), (1.0,)), 20))
    y = np.zeros((2, 1, 2, 2), np.float32)
    target = np.zeros((2, 1, 2, 2))
    target[1, 0, 0] = [5.0, -5.0]
    tally.add(truth_window(target, [0.0, 1.0]), y)
    found = tally.to_json()
    assert found["overall"] == {
        "coverage": 0.75,
        "coverage_mean_of_dates": 0.75,
        "missed_above": 0.125,
        "mean_width": 2.0,
        "pixels": 8,
    }
    assert [lead["coverage"] for lead in found["by_lead"]] == [1.0, 0.5]
    json.dumps(found)


def test_coverage_of_exchangeable_dates_is_the_nominal_one():
    """Mean over 300 repetitions of 30 calibration dates and one test date; the binomial bound is 4 standard errors."""
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(300):
        dates = rng.normal(size=(31, 1)) + 0.3 * rng.normal(size=(31, 16))  # a date's pixels err together
        margin = grouped_quantile(list(np.abs(dates[:30])), 0.9)
        hits.append((np.abs(dates[30]) <= margin).mean())
    assert 0.9 - 4 * np.std(hits) / 300**0.5 <= np.mean(hits) <= 0.9 + 1 / 31 + 4 * np.std(hits) / 300**0.5


def test_nothing_to_calibrate_on_is_a_mistake_of_the_split():
    with pytest.raises(RequestError, match="a lead has no valid pixel in the calibration windows"):
        calibrate(Constant(0.0), [truth_window(np.zeros((1, 1, 2, 2)), [0.0], np.zeros((1, 2, 2), bool))])
    with pytest.raises(RequestError, match="no valid pixel"):
        calibrate(Constant(0.0), [])


def test_a_forecast_of_another_shape_is_told_whose_it_is():
    class Wrong(Constant):
        def forecast(self, **arguments):
            return super().forecast(**arguments)[:, :, :1]

    with pytest.raises(ValueError, match=r"Wrong forecast \(1, 1, 1, 2\); the target is \(1, 1, 2, 2\)"):
        calibrate(Wrong(0.0), windows_of([1.0]))


def test_intervals_of_chosen_leads():
    intervals = Intervals(0.9, ((1.0,), (2.0,), (3.0,)), ((1.0,), (2.0,), (3.0,)), 19)
    lower, upper = intervals.of_leads(np.array([2, 0])).bounds(np.zeros((2, 1, 1, 1), np.float32))
    assert upper.ravel().tolist() == [3.0, 1.0]
    assert lower.ravel().tolist() == [-3.0, -1.0]
