import numpy as np
import pytest

from pipelines.learning.intervals import effective_dates, paired_skill, skill_json

DATES, SERIES = 25, 3000


def correlated(correlation: float, seed: int = 0) -> np.ndarray:
    """(SERIES, DATES) of an AR(1) with mean 0 and deviation 1."""
    noise = np.random.default_rng(seed).normal(size=(SERIES, DATES))
    series = noise.copy()
    for d in range(1, DATES):
        series[:, d] = correlation * series[:, d - 1] + np.sqrt(1 - correlation**2) * noise[:, d]
    return series


def test_the_skill_is_one_minus_the_ratio_of_the_sums():
    skill = paired_skill(np.array([1.0, 2.0, 0.0]), np.array([2.0, 2.0, 2.0]))
    assert skill.value == 0.5
    assert skill.low < 0.5 < skill.high


def test_a_perfect_model_has_skill_one_and_equal_ones_are_called_equal():
    baseline = np.array([1.0, 3.0, 2.0])
    perfect = paired_skill(np.zeros(3), baseline)
    assert (perfect.value, perfect.low, perfect.high, perfect.outcome(0.01)) == (1, 1, 1, "beats")
    same = paired_skill(baseline, baseline)
    assert (same.value, same.low, same.high, same.outcome(0.01)) == (0, 0, 0, "equal")


@pytest.mark.parametrize("sign", [-1, 1])
def test_errors_that_agree_to_nine_digits_are_equal(sign: int):
    baseline = np.random.default_rng(0).random(25) + 0.5
    skill = paired_skill(baseline * (1 - sign * 1e-9), baseline)
    assert sign * skill.low > 0
    assert skill.outcome(0.01) == "equal"


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6])
def test_equal_errors_are_seldom_called_a_win(correlation: float):
    """False wins of a two-sided interval at 95 %: 2.5 % in theory, at most 6 % here."""
    differences = 0.3 * correlated(correlation)
    outcomes = [paired_skill(1 + one_D, np.ones(DATES)).outcome(0.01) for one_D in differences]
    assert outcomes.count("beats") / SERIES <= 0.06
    assert outcomes.count("loses") / SERIES <= 0.06


def test_a_real_gain_with_little_noise_is_found():
    outcomes = [paired_skill(0.9 + 0.05 * one_D, np.ones(DATES)).outcome(0.01) for one_D in correlated(0.3)]
    assert outcomes.count("beats") / SERIES > 0.9


def test_correlated_dates_count_less():
    alone, together = ([effective_dates(one_D) for one_D in correlated(c)] for c in (0.0, 0.6))
    assert np.median(alone) > 22
    assert 4 < np.median(together) < 10  # 25 (1 - 0.6) / (1 + 0.6) = 6.25
    assert paired_skill(np.repeat([1.0, 2.0, 1.0, 2.0, 1.0], 5), np.full(25, 2.0)).independent < 10


def test_many_pixels_do_not_narrow_the_interval():
    model, baseline = np.array([1.0, 5.0, 3.0]), np.array([3.0, 4.0, 4.0])
    few, many = paired_skill(model, baseline), paired_skill(1000 * model, 1000 * baseline)
    assert (few.low, few.high) == pytest.approx((many.low, many.high))


def test_the_interval_of_independent_dates_is_that_of_a_t_test():
    """With equal errors of the baseline the skill is a mean, and the textbook applies."""
    from scipy.stats import ttest_1samp

    gains = np.tile([0.3, 0.1], 10) + np.linspace(0, 0.01, 20)  # neighbours differ: counted as 20 dates
    requested = ttest_1samp(gains, 0).confidence_interval(0.95)
    skill = paired_skill(1 - gains, np.ones(20))
    assert skill.independent == 20
    assert (skill.low, skill.high) == pytest.approx((requested.low, requested.high))


def test_what_has_no_interval_says_why():
    one = paired_skill(np.array([1.0]), np.array([2.0]))
    assert (one.value, one.low, one.outcome(0.01)) == (0.5, None, "not distinguishable")
    assert "fewer than two dates" in one.reason
    assert paired_skill(np.zeros(0), np.zeros(0)).value is None


def test_against_a_baseline_without_an_error():
    assert paired_skill(np.zeros(3), np.zeros(3)).outcome(0.01) == "equal"
    worse = paired_skill(np.ones(3), np.zeros(3))
    assert worse.outcome(0.01) == "loses"
    assert skill_json(worse, 0.01) == {
        **{"skill": None, "low": None, "high": None, "dates": 3},
        **{"effective_dates": None, "outcome": "loses"},
    }
