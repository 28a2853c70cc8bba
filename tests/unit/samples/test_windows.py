import numpy as np
import pytest

from pipelines.calendar import to_days
from pipelines.errors import RequestError
from pipelines.samples.plan import SplitRule, StepRule
from pipelines.samples.windows import deal_issues, lay_steps, list_issues, steps_from

DAILY = np.datetime64("2020-01-01", "ns") + np.arange(12) * np.timedelta64(1, "D")
RULE = SplitRule(8, 0, np.datetime64("2020-01-06"), np.datetime64("2020-01-09"))


def days(*dates: str) -> list[float]:
    return to_days(np.array(dates, "datetime64[ns]")).tolist()


def test_observed_steps_are_consecutive_dates():
    first, *_, last = list_issues(DAILY, StepRule(), context=3, horizon=2)
    assert (first.context_T, first.target_K) == ((0, 1, 2), (3, 4))
    assert (last.context_T, last.target_K) == ((7, 8, 9), (10, 11))
    assert list(first.target_days_K) == days("2020-01-04", "2020-01-05")


def test_regular_steps_take_the_nearest_date_and_leave_gaps_empty():
    times = np.array(["2020-01-01", "2020-01-03", "2020-01-10", "2020-01-12"], "datetime64[ns]")
    index, when = lay_steps(times, StepRule("regular", every_days=3, tolerance_days=1))
    assert index.tolist() == [0, 1, -1, 2]
    assert when.tolist() == days("2020-01-01", "2020-01-03", "2020-01-07", "2020-01-10")


def test_an_issue_date_is_always_observed_and_has_some_truth():
    times = np.array(["2020-01-01", "2020-01-03", "2020-01-10", "2020-01-12"], "datetime64[ns]")
    issues = list_issues(times, StepRule("regular", 3, 1), context=1, horizon=2)
    assert [(issue.context_T, issue.target_K) for issue in issues] == [((1,), (-1, 2)), ((0,), (1, -1))][::-1]


def test_parts_in_time():
    dealt = deal_issues(DAILY, RULE, StepRule(), 1, 1, 1)
    assert [issue.target_K[0] for issue in dealt["train"]] == [1, 2, 3, 4]
    assert [issue.target_K[0] for issue in dealt["validation"]] == [5, 6, 7]
    assert [issue.target_K[0] for issue in dealt["test"]] == [8, 9, 10, 11]


def test_the_gap_shortens_training_and_validation():
    rule = SplitRule(8, 0, RULE.validation_from, RULE.test_from, gap_days=1)
    dealt = deal_issues(DAILY, rule, StepRule(), 1, 1, 1)
    assert [issue.target_K[0] for issue in dealt["train"]] == [1, 2, 3]
    assert [issue.target_K[0] for issue in dealt["validation"]] == [5, 6]


def test_stride_thins_training_only():
    dealt = deal_issues(DAILY, RULE, StepRule(), 1, 1, 2)
    assert {part: len(issues) for part, issues in dealt.items()} == {"train": 2, "validation": 3, "test": 4}


def test_too_few_dates_say_which_setting_to_change():
    with pytest.raises(RequestError, match=r"samples\.context \+ samples\.horizon = 9 \+ 5 = 14 steps.*12 dates give 12: lower"):
        deal_issues(DAILY, RULE, StepRule(), 9, 5, 1)
    with pytest.raises(
        RequestError, match=r"no train window fits: it needs 6 .* there are 5; .*split\.validation_from to 2020-01-07 or later"
    ):
        deal_issues(DAILY, RULE, StepRule(), 5, 1, 1)
    with pytest.raises(
        RequestError, match=r"no validation window fits: it needs 4 .* there are 3; .*split\.validation_from earlier"
    ):
        deal_issues(DAILY, RULE, StepRule(), 1, 4, 1)
    late = SplitRule(8, 0, np.datetime64("2020-01-06"), np.datetime64("2020-01-12"))
    with pytest.raises(
        RequestError, match=r"no test window fits: it needs 2 .* there are 1; .*split\.test_from to 2020-01-11 or earlier"
    ):
        deal_issues(DAILY, late, StepRule(), 1, 2, 1)


def test_the_remedies_help():
    later = SplitRule(8, 0, np.datetime64("2020-01-07"), RULE.test_from)
    earlier = SplitRule(8, 0, RULE.validation_from, np.datetime64("2020-01-11"))
    assert all(deal_issues(DAILY, later, StepRule(), 5, 1, 1).values())
    assert all(deal_issues(DAILY, earlier, StepRule(), 1, 2, 1).values())


def test_unsorted_times_are_our_mistake():
    with pytest.raises(ValueError, match="not sorted"):
        deal_issues(DAILY[::-1], RULE, StepRule(), 1, 1, 1)


def test_impossible_rules_are_refused():
    with pytest.raises(RequestError, match=r"no time is left for validation: .*gap_days 3"):
        SplitRule(8, 0, RULE.validation_from, RULE.test_from, gap_days=3)
    with pytest.raises(RequestError, match="nothing is left to train on"):
        SplitRule(8, 0, RULE.validation_from, RULE.test_from, test_fraction=0.6, validation_fraction=0.4)
    with pytest.raises(RequestError, match=r"samples\.steps\.mode is 'weekly'"):
        StepRule("weekly")


def test_a_forecast_from_the_last_date_continues_at_the_median_step():
    asked = steps_from(DAILY, StepRule(), context=3, horizon=2)
    assert asked.context_T.tolist() == [9, 10, 11]
    assert asked.target_days_K.tolist() == days("2020-01-13", "2020-01-14")
    assert asked.usable_N.all()


def test_a_forecast_from_the_past_aims_at_the_dates_that_came():
    asked = steps_from(DAILY, StepRule(), 3, 2, issue=np.datetime64("2020-01-11T05:00"))
    assert asked.context_T.tolist() == [8, 9, 10]
    assert asked.target_days_K.tolist() == days("2020-01-12", "2020-01-13")
    assert asked.usable_N.tolist() == [True] * 11 + [False]


def test_a_forecast_on_regular_steps_leaves_missing_context_empty():
    times = DAILY[[0, 1, 2, 6, 8]]
    asked = steps_from(times, StepRule("regular", 2.0, 0.5), 4, 1)
    assert asked.context_T.tolist() == [2, -1, 3, 4]
    assert asked.target_days_K.tolist() == days("2020-01-11")


def test_a_short_history_is_padded_with_nothing_seen():
    assert steps_from(DAILY[:2], StepRule(), 4, 1).context_T.tolist() == [-1, -1, 0, 1]


def test_forecast_requests_that_cannot_be():
    with pytest.raises(RequestError, match=r"prediction\.issue is 2019-01-01, but the cube begins at 2020-01-01"):
        steps_from(DAILY, StepRule(), 3, 2, issue="2019-01-01")
    with pytest.raises(RequestError, match=r"prediction\.dates must be later than the issue date 2020-01-12"):
        steps_from(DAILY, StepRule(), 3, 2, dates=["2020-01-12"])
    with pytest.raises(RequestError, match=r"one date, which gives no distance of steps: set samples\.steps\.every_days"):
        steps_from(DAILY[:1], StepRule("regular"), 3, 2)
