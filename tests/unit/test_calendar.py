import numpy as np
import pytest

from pipelines.calendar import format_span, from_days, median_step_days, nearest_observations, regular_steps, to_days


def dates(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[ns]")


def test_days_include_the_minutes():
    days = to_days(dates("1970-01-02T06:00", "2010-08-26T00:05"))
    assert days[0] == 1.25
    np.testing.assert_array_equal(from_days(days), dates("1970-01-02T06:00", "2010-08-26T00:05"))


def test_the_median_step():
    assert median_step_days(dates("2020-01-01", "2020-01-06", "2020-01-11", "2020-03-01")) == 5


def test_regular_steps_end_at_or_before_the_last_date():
    np.testing.assert_array_equal(
        regular_steps(np.datetime64("2020-01-01"), np.datetime64("2020-01-22"), 10.0),
        dates("2020-01-01", "2020-01-11", "2020-01-21"),
    )


def test_each_step_gets_its_nearest_observation_within_tolerance():
    observed = dates("2020-01-01", "2020-01-12", "2020-02-20")
    steps = dates("2020-01-01", "2020-01-11", "2020-01-21", "2020-02-20")
    np.testing.assert_array_equal(nearest_observations(observed, steps, 4.0), [0, 1, -1, 2])


def test_an_observation_is_used_only_for_its_nearest_step():
    steps = dates("2020-01-01", "2020-01-03")
    np.testing.assert_array_equal(nearest_observations(dates("2020-01-03"), steps, 10.0), [-1, 0])


def test_one_date_has_no_step():
    with pytest.warns(RuntimeWarning):
        assert np.isnan(median_step_days(dates("2020-01-01")))


@pytest.mark.parametrize(
    ("days", "words"),
    [
        (16, "16 days"),
        (1, "1 day"),
        (0.25, "6 hours"),
        (1 / 24, "1 hour"),
        (5 / 1440, "5 minutes"),
        (0.5 / 86_400, "0.5 seconds"),
    ],
)
def test_durations_use_the_largest_unit_below_them(days, words):
    assert format_span(days) == words
