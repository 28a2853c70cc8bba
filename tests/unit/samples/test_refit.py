from dataclasses import replace

import numpy as np
import pytest

from pipelines.calendar import to_days
from pipelines.errors import RequestError
from pipelines.samples.audit import audit
from pipelines.samples.plan import Sampling
from pipelines.samples.prepare import SampleSettings, plan_cube
from pipelines.samples.refit import choosing_plan, windows_before


@pytest.fixture
def settings(split, ndvi) -> SampleSettings:
    return SampleSettings(ndvi, split, Sampling(), context=3, horizon=2)


def test_targets_lie_in_training_blocks_and_reach_up_to_the_date(cube, settings):
    before = np.datetime64("2017-01-01", "ns")
    known, plan = windows_before(cube, settings, before), plan_cube(cube, settings)
    assert {w.tile for w in known.plan.windows} == {w.tile for w in plan.of_part("train")}
    last = max(max(w.target_days_K) for w in known.plan.windows)
    assert last == to_days(np.datetime64("2016-12-01")) > max(max(w.target_days_K) for w in plan.of_part("train"))


def test_a_window_may_not_use_the_half_year_after_its_target_nor_what_comes_later(cube, settings):
    before = np.datetime64("2017-01-01", "ns")
    for window in windows_before(cube, settings, before):
        used_N = window.days_N[window.usable_N]
        issue, last = float(window.days_N[window.context_T[-1]]), float(window.target_days_K[-1])
        assert not ((used_N > issue) & (used_N <= last + 183)).any()
        assert float(used_N.max()) < to_days(before)


def test_until_the_end_of_training_they_are_the_training_windows(cube, settings):
    plan = plan_cube(cube, settings)
    known = windows_before(cube, settings, plan.split.validation_from)
    assert known.plan.windows == plan.of_part("train")
    assert all(np.array_equal(known.plan.usable(w), plan.usable(w)) for w in known.plan.windows)


def test_thinned_windows_are_at_most_so_many_and_cloudy_ones_are_left_out(cube, settings):
    known = windows_before(cube, settings, np.datetime64("2017-01-01", "ns"))
    assert 3 <= len(known.thinned(7).plan.windows) <= 7
    assert len({w.target_days_K for w in known.thinned(7).plan.windows}) > 1
    assert not list(windows_before(cube, replace(settings, min_valid_fraction=1.0), np.datetime64("2017-01-01", "ns")))


def test_a_date_before_the_first_window_is_refused(cube, settings):
    with pytest.raises(RequestError, match=r"no window of 3 \+ 2 steps .* ends before 2015-04-01T00:00:00Z"):
        windows_before(cube, settings, np.datetime64("2015-04-01", "ns"))


def test_what_is_chosen_before_validation_is_chosen_on_later_dates_of_held_out_blocks(cube, settings):
    longer = replace(settings.split, validation_from=np.datetime64("2016-12-01"), test_from=np.datetime64("2017-03-01"))
    plan = plan_cube(cube, replace(settings, split=longer))
    inner = choosing_plan(plan)
    assert inner is not None
    earlier, later = inner.of_part("train"), inner.of_part("validation")
    assert set(earlier) < set(plan.of_part("train"))
    assert {w.tile for w in later} == {w.tile for w in plan.of_part("validation")}
    first, last = min(min(w.target_days_K) for w in later), max(max(w.target_days_K) for w in later)
    assert max(max(w.target_days_K) for w in earlier) < first
    assert last < plan.split.validation_from_day
    assert all(inner.days_N[inner.usable(w)].max() < first for w in earlier)
    assert not [problem for problem in audit(inner).problems if problem != "there is no test window"]


def test_too_few_dates_choose_nothing(cube, settings):
    plan = plan_cube(cube, settings)
    few = {w.issue for w in plan.of_part("train")[:7]}
    assert choosing_plan(replace(plan, windows=tuple(w for w in plan.windows if w.part != "train" or w.issue in few))) is None
