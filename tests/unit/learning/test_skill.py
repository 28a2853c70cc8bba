import numpy as np
import pytest

from pipelines.learning.bootstrap import Skill, paired_skill


def test_the_skill_is_one_minus_the_ratio_of_the_sums():
    skill = paired_skill(np.array([1.0, 2.0, 0.0]), np.array([2.0, 2.0, 2.0]))
    assert skill.skill == 0.5
    assert skill.low < 0.5 < skill.high


def test_a_perfect_model_has_skill_one_and_equal_ones_zero():
    baseline = np.array([1.0, 3.0, 2.0])
    assert paired_skill(np.zeros(3), baseline) == Skill(1.0, 1.0, 1.0, 3)
    equal = paired_skill(baseline, baseline)
    assert (equal.skill, equal.low, equal.high, equal.outcome) == (0.0, 0.0, 0.0, "not distinguishable")


def test_the_interval_is_that_of_the_seed():
    rng = np.random.default_rng(0)
    model, baseline = rng.random(20), rng.random(20) + 0.5
    assert paired_skill(model, baseline, seed=1) == paired_skill(model, baseline, seed=1)
    assert paired_skill(model, baseline, seed=1) != paired_skill(model, baseline, seed=2)


def test_the_interval_agrees_with_drawing_by_hand():
    rng = np.random.default_rng(3)
    model, baseline = rng.random(30), rng.random(30) + 0.5
    drawn = rng.integers(30, size=(20_000, 30))
    by_hand = np.quantile(1 - model[drawn].sum(1) / baseline[drawn].sum(1), [0.025, 0.975])
    skill = paired_skill(model, baseline, resamples=20_000)
    assert [skill.low, skill.high] == pytest.approx(by_hand, abs=0.01)


def test_pixels_are_not_drawn_so_more_of_them_do_not_narrow_the_interval():
    model, baseline = np.array([1.0, 5.0, 3.0]), np.array([3.0, 4.0, 4.0])
    few, many = paired_skill(model, baseline), paired_skill(1000 * model, 1000 * baseline)
    assert (few.low, few.high) == pytest.approx((many.low, many.high))


def test_blocks_of_dates_are_drawn_together():
    rng = np.random.default_rng(1)
    model, baseline = np.repeat(rng.random(10), 4), np.full(40, 0.5)  # runs of four equal dates
    alone, together = paired_skill(model, baseline), paired_skill(model, baseline, block_dates=4)
    assert together.skill == alone.skill
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_one_date_has_a_skill_without_an_interval_and_no_error_no_skill():
    assert paired_skill(np.array([1.0]), np.array([2.0])) == Skill(0.5, None, None, 1)
    assert paired_skill(np.zeros(3), np.zeros(3)) == Skill(None, None, None, 3)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.1, 0.2, "beats"), (-0.2, -0.1, "loses"), (-0.1, 0.1, "not distinguishable"), (None, None, "not distinguishable")],
)
def test_the_outcome_needs_an_interval_without_zero(low, high, outcome):
    assert Skill(0.0, low, high, 9).outcome == outcome
