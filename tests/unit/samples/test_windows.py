import numpy as np
import pytest

from pipelines.calendar import to_days
from pipelines.errors import RequestError
from pipelines.samples.plan import Sampling, Split
from pipelines.samples.windows import assign_issues, list_issues, nearest_steps, steps_from

DAILY = np.datetime64("2020-01-01", "ns") + np.arange(12) * np.timedelta64(1, "D")
SPLIT = Split(8, 0, np.datetime64("2020-01-06"), np.datetime64("2020-01-09"))


def days(*dates: str) -> list[float]:
    return to_days(np.array(dates, "datetime64[ns]")).tolist()


def test_observed_steps_are_consecutive_dates():
    first, *_, last = list_issues(DAILY, Sampling(), context=3, horizon=2)
    assert (first.context_T, first.target_K) == ((0, 1, 2), (3, 4))
    assert (last.context_T, last.target_K) == ((7, 8, 9), (10, 11))
    assert list(first.target_days_K) == days("2020-01-04", "2020-01-05")


def test_regular_steps_take_the_nearest_date_and_leave_gaps_empty():
    times = np.array(["2020-01-01", "2020-01-03", "2020-01-10", "2020-01-12"], "datetime64[ns]")
    index, when = nearest_steps(times, Sampling("regular", every_days=3, tolerance_days=1))
    assert index.tolist() == [0, 1, -1, 2]
    assert when.tolist() == days("2020-01-01", "2020-01-03", "2020-01-07", "2020-01-10")


def test_an_issue_date_is_observed_and_has_some_truth():
    times = np.array(["2020-01-01", "2020-01-03", "2020-01-10", "2020-01-12"], "datetime64[ns]")
    issues = list_issues(times, Sampling("regular", 3, 1), context=1, horizon=2)
    assert [(issue.context_T, issue.target_K) for issue in issues] == [((1,), (-1, 2)), ((0,), (1, -1))][::-1]


def test_parts_in_time():
    assigned = assign_issues(DAILY, SPLIT, Sampling(), 1, 1, 1)
    assert [issue.target_K[0] for issue in assigned["train"]] == [1, 2, 3, 4]
    assert [issue.target_K[0] for issue in assigned["validation"]] == [5, 6, 7]
    assert [issue.target_K[0] for issue in assigned["test"]] == [8, 9, 10, 11]


def test_the_gap_shortens_training_and_validation():
    split = Split(8, 0, SPLIT.validation_from, SPLIT.test_from, gap_days=1)
    assigned = assign_issues(DAILY, split, Sampling(), 1, 1, 1)
    assert [issue.target_K[0] for issue in assigned["train"]] == [1, 2, 3]
    assert [issue.target_K[0] for issue in assigned["validation"]] == [5, 6]


def test_stride_reduces_training_only():
    assigned = assign_issues(DAILY, SPLIT, Sampling(), 1, 1, 2)
    assert {part: len(issues) for part, issues in assigned.items()} == {"train": 2, "validation": 3, "test": 4}


def test_too_few_dates_name_the_setting_to_change():
    with pytest.raises(RequestError, match=r"samples\.context \+ samples\.horizon = 9 \+ 5 = 14 steps.*12 dates give 12: lower"):
        assign_issues(DAILY, SPLIT, Sampling(), 9, 5, 1)
    with pytest.raises(
        RequestError, match=r"no train window fits: it needs 6 .* there are 5; .*split\.validation_from to 2020-01-07 or later"
    ):
        assign_issues(DAILY, SPLIT, Sampling(), 5, 1, 1)
    with pytest.raises(
        RequestError, match=r"no validation window fits: it needs 4 .* there are 3; .*split\.validation_from earlier"
    ):
        assign_issues(DAILY, SPLIT, Sampling(), 1, 4, 1)
    late = Split(8, 0, np.datetime64("2020-01-06"), np.datetime64("2020-01-12"))
    with pytest.raises(
        RequestError, match=r"no test window fits: it needs 2 .* there are 1; .*split\.test_from to 2020-01-11 or earlier"
    ):
        assign_issues(DAILY, late, Sampling(), 1, 2, 1)


def test_the_proposed_remedies_work():
    later = Split(8, 0, np.datetime64("2020-01-07"), SPLIT.test_from)
    earlier = Split(8, 0, SPLIT.validation_from, np.datetime64("2020-01-11"))
    assert all(assign_issues(DAILY, later, Sampling(), 5, 1, 1).values())
    assert all(assign_issues(DAILY, earlier, Sampling(), 1, 2, 1).values())


def test_unsorted_times_raise():
    with pytest.raises(ValueError, match="not sorted"):
        assign_issues(DAILY[::-1], SPLIT, Sampling(), 1, 1, 1)


def test_impossible_splits_and_samplings_are_refused():
    with pytest.raises(RequestError, match=r"no time is left for validation: .*gap_days 3"):
        Split(8, 0, SPLIT.validation_from, SPLIT.test_from, gap_days=3)
    with pytest.raises(RequestError, match="nothing is left to train on"):
        Split(8, 0, SPLIT.validation_from, SPLIT.test_from, test_fraction=0.6, validation_fraction=0.4)
    with pytest.raises(RequestError, match=r"samples\.steps\.mode is 'weekly'"):
        Sampling("weekly")


def test_a_forecast_from_the_last_date_continues_at_the_median_step():
    asked = steps_from(DAILY, Sampling(), context=3, horizon=2)
    assert asked.context_T.tolist() == [9, 10, 11]
    assert asked.target_days_K.tolist() == days("2020-01-13", "2020-01-14")
    assert asked.usable_N.all()


def test_a_forecast_from_the_past_targets_the_observed_dates():
    asked = steps_from(DAILY, Sampling(), 3, 2, issue=np.datetime64("2020-01-11T05:00"))
    assert asked.context_T.tolist() == [8, 9, 10]
    assert asked.target_days_K.tolist() == days("2020-01-12", "2020-01-13")
    assert asked.usable_N.tolist() == [True] * 11 + [False]


def test_a_forecast_on_regular_steps_leaves_missing_context_empty():
    times = DAILY[[0, 1, 2, 6, 8]]
    asked = steps_from(times, Sampling("regular", 2.0, 0.5), 4, 1)
    assert asked.context_T.tolist() == [2, -1, 3, 4]
    assert asked.target_days_K.tolist() == days("2020-01-11")


def test_a_short_history_is_padded_without_observations():
    assert steps_from(DAILY[:2], Sampling(), 4, 1).context_T.tolist() == [-1, -1, 0, 1]


def test_impossible_forecast_requests_are_refused():
    with pytest.raises(RequestError, match=r"prediction\.issue is 2019-01-01, but the cube begins at 2020-01-01"):
        steps_from(DAILY, Sampling(), 3, 2, issue="2019-01-01")
    for dates, message in (
        (["2020-01-12"], r"\(prediction\.dates\) must be later than the issue date 2020-01-12"),
        (["2020-01-14", "2020-01-13"], "must rise and not repeat, they are 2020-01-14, 2020-01-13"),
        (["2020-01-13", "2020-01-13"], "must rise and not repeat"),
        (["2020-01-16"], "2020-01-16 is 4 days after .*; the model forecasts 2 steps of 1 days: choose dates up to 2020-01-15"),
    ):
        with pytest.raises(RequestError, match=message):
            steps_from(DAILY, Sampling(), 3, 2, dates=dates)
    with pytest.raises(RequestError, match=r"every_days 1e-300 makes more than 1000000 steps of \d+ days: set at least"):
        nearest_steps(DAILY, Sampling("regular", every_days=1e-300))
    with pytest.raises(RequestError, match=r"one date, which gives no interval of steps: set samples\.steps\.every_days"):
        steps_from(DAILY[:1], Sampling("regular"), 3, 2)
    with pytest.raises(RequestError, match="one date with data, which states no step"):
        steps_from(DAILY[:1], Sampling(), 3, 2)


def test_a_date_that_is_asked_for_has_the_lead_nearest_in_time():
    assert steps_from(DAILY, Sampling(), 3, 4).lead_K is None
    assert steps_from(DAILY, Sampling(), 3, 4, dates=["2020-01-15", "2020-01-17T06:00"]).lead_K.tolist() == [2, 3]
    assert steps_from(DAILY[:1], Sampling(), 3, 4, dates=["2020-01-05"], step_days=2.0).lead_K.tolist() == [1]
