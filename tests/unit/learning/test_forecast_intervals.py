"""Intervals from the errors of the past, on dates whose truth is drawn: forecasts are 0, so the truth is the error."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny_forecaster import Constant, truth_window

from pipelines.errors import RequestError
from pipelines.learning.forecast_intervals import calibrate
from pipelines.learning.window_work import spread_out

YEAR = 365.2422
MINUTE = 1 / 1440


def windows_of(errors_DP, days_D):
    """One window of one lead per date."""
    return [truth_window(error_P[None, None, None], [float(day)]) for error_P, day in zip(errors_DP, days_D, strict=True)]


def intervals_of(training, validation, coverage=0.9, **options):
    return calibrate({"past": Constant(0.0)}, ["past"], training, validation, coverage, **options)["past"].intervals


def season(days_D):
    """The true spread: 4 times as wide in midsummer as in midwinter."""
    return 1.0 - 0.6 * np.cos(2 * np.pi * np.asarray(days_D) / YEAR)


def skewed(rng, days_D, pixels=40):
    """Errors with the season's spread, of dates together and of pixels alone: mostly slightly above 0, sometimes far below."""
    drawn_DP = rng.gamma(1.5, size=(len(days_D), 1)) + rng.gamma(1.5, size=(len(days_D), pixels)) - 2.0
    return -0.05 * season(days_D)[:, None] * drawn_DP


def inside(intervals, errors_DP, days_D):
    found = []
    for error_P, day in zip(errors_DP, days_D, strict=True):
        lower, upper = (bound.item() for bound in intervals.at(np.array([day])).bounds(np.zeros((1, 1, 1), np.float32)))
        found.append(((lower <= error_P) & (error_P <= upper)).mean())
    return float(np.mean(found))


def width(intervals, day):
    lower, upper = intervals.at(np.array([day])).bounds(np.zeros((1, 1, 1)))
    return float((upper - lower).item())


def test_a_skewed_season_is_covered_as_promised_by_intervals_near_the_ideal_ones():
    rng, covered, widths, symmetric = np.random.default_rng(0), [], [], []
    days_D = np.arange(0, 5 * YEAR, 15.0)
    is_recent_D = days_D >= 4 * YEAR
    new_D = np.arange(5 * YEAR, 10 * YEAR, 15.0)
    for _ in range(8):
        errors_DP = skewed(rng, days_D)
        parts = [windows_of(errors_DP[which], days_D[which]) for which in (~is_recent_D, is_recent_D)]
        intervals = intervals_of(*parts)
        covered.append(inside(intervals, skewed(rng, new_D), new_D))
        widths.append([width(intervals, day) for day in new_D])
        sizes = np.abs(errors_DP[is_recent_D])
        symmetric.append(2 * np.quantile(sizes, 0.9 * (1 + 1 / len(sizes))))  # what this was before
    assert 0.88 <= np.mean(covered) <= 0.92
    unit = skewed(rng, np.full(4000, YEAR / 4)) / season(YEAR / 4)
    ideal_D = season(new_D) * np.diff(np.quantile(unit, [0.05, 0.95]))
    assert np.mean(widths) < 1.05 * ideal_D.mean()
    assert np.mean(widths) < 0.7 * np.mean(symmetric)
    assert np.corrcoef(np.mean(widths, axis=0), ideal_D)[0, 1] > 0.95


def test_series_of_minutes_have_no_season():
    rng, days_D = np.random.default_rng(1), np.arange(40) * 5 * MINUTE
    errors_DP = rng.normal(size=(40, 30))
    intervals = intervals_of(windows_of(errors_DP[:30], days_D[:30]), windows_of(errors_DP[30:], days_D[30:]))
    assert intervals.season_CS == ()
    assert intervals.is_bounded
    assert width(intervals, 1.0) == pytest.approx(2 * 1.645, rel=0.15)


def test_too_few_dates_are_said_and_have_the_largest_error():
    few = intervals_of([], windows_of([np.full(4, 1.0), np.full(4, -2.0), np.full(4, 3.0)], [0.0, 1.0, 2.0]))
    assert not few.is_bounded
    assert few.above_KC[0][0] >= 3.0
    assert few.bounded_L[few.levels_L.index(0.5)]


@pytest.mark.parametrize("dates", [1, 3, 9])
def test_few_dates_that_err_on_one_side_are_not_taken_for_the_other_one(dates):
    errors_DP = 1.0 + np.random.default_rng(6).random((dates, 20))
    few = intervals_of([], windows_of(errors_DP, np.arange(dates) * 10.0))
    assert few.above_KC[0][0] >= 0.9 * few.below_KC[0][0]
    assert few.below_KC[0][0] < 4


def test_the_shape_of_a_forecaster_that_has_learnt_is_that_of_the_best_baseline_times_the_ratio_of_their_errors():
    rng, days_D = np.random.default_rng(2), np.arange(60) * 10.0
    errors_DP = 0.1 * rng.normal(size=(60, 20))
    parts = windows_of(errors_DP[:40], days_D[:40]), windows_of(errors_DP[40:], days_D[40:])

    truth = [window.target_KCHW for window in parts[1]]

    class Halved(Constant):
        """Knows half of the truth of the validation windows; it is not asked for others."""

        def forecast(self, **arguments):
            return truth.pop(0) / 2

    methods = {"model": Halved(0.0), "poor": Constant(5.0), "good": Constant(0.0)}
    found = calibrate(methods, ["poor", "good"], *parts)
    ours, good = found["model"].intervals, found["good"].intervals
    np.testing.assert_allclose(np.array(ours.above_KC), np.array(good.above_KC) / 2, rtol=1e-5)
    assert ours.season_CS == good.season_CS
    assert ours.dates == 60


def test_invalid_pixels_do_not_count():
    valid = np.array([[[True, False], [False, False]]])
    windows = [truth_window(np.array([[[[1.0, 99.0], [99.0, 99.0]]]]), [float(day)], valid) for day in range(9)]
    assert intervals_of([], windows, 0.5).above_KC == ((1.0,),)


@settings(max_examples=15, deadline=None)
@given(hnp.arrays(np.float64, (8, 3), elements=st.floats(-100, 100)))
def test_a_higher_level_is_never_narrower(errors_DP):
    intervals = intervals_of([], windows_of(errors_DP, np.arange(8) * 50.0))
    found = [intervals.of_level(level).bounds(np.zeros((1, 1, 1))) for level in intervals.levels_L]
    lower_L, upper_L = (np.array([pair[side].item() for pair in found]) for side in (0, 1))
    assert (np.diff(lower_L) <= 0).all()
    assert (np.diff(upper_L) >= 0).all()
    assert (lower_L <= 0).all()
    assert (upper_L >= 0).all()


@pytest.mark.parametrize("dates", [7, 50, 100])
def test_windows_are_thinned_over_all_dates(dates):
    windows = list(range(40 * dates))  # 40 tiles of so many issue dates
    kept = list(spread_out(windows, 10 * dates))
    assert len(kept) == pytest.approx(10 * dates, rel=0.02)
    assert {number % dates for number in kept} == set(range(dates))
    assert list(spread_out(windows, 10**6)) == windows


def test_nothing_to_calibrate_on_is_a_mistake_of_the_split():
    unseen = truth_window(np.zeros((1, 1, 2, 2)), [0.0], np.zeros((1, 2, 2), bool))
    with pytest.raises(RequestError, match="a lead has no valid pixel in the calibration windows"):
        intervals_of([], [unseen])
    with pytest.raises(RequestError, match="no valid pixel"):
        intervals_of([], [])


def test_a_forecast_of_another_shape_is_told_whose_it_is():
    class Wrong(Constant):
        def forecast(self, **arguments):
            return super().forecast(**arguments)[:, :, :1]

    with pytest.raises(ValueError, match=r"Wrong forecast \(1, 1, 1, 2\); the target is \(1, 1, 2, 2\)"):
        calibrate({"it": Wrong(0.0)}, [], [], [truth_window(torch.ones(1, 1, 2, 2).numpy(), [0.0])])
