import json

import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.learning.conformal import Intervals, left_out_quantiles, season_at


def test_one_date_of_many_pixels_stays_one_date():
    groups = [np.zeros(1), np.full(1000, 5.0), np.ones(1)]
    assert left_out_quantiles(groups, (0.5,))[0] == [1.0]
    assert left_out_quantiles(groups, (0.5,), np.array([1.0, 1000.0, 1.0]))[0] == [5.0]


def test_with_too_few_dates_the_largest_score_stands_in_and_it_is_said():
    quantile_L, is_bounded_L = left_out_quantiles([np.array([float(n)]) for n in (1, 2, 3)], (0.5, 0.9))
    assert quantile_L.tolist() == [2.0, 3.0]
    assert is_bounded_L.tolist() == [True, False]
    assert not left_out_quantiles([np.arange(9.0)], (0.5,))[1].any()


@pytest.mark.parametrize("between", [0.3, 3.0])
@pytest.mark.parametrize("dates", [9, 40])
def test_coverage_of_exchangeable_dates_is_the_nominal_one(dates, between):
    """Mean over 200 repetitions of one new date; its pixels err together and by the date's own spread. Ideal: normal, 1.645."""
    rng = np.random.default_rng(dates)
    inside, width = [], []
    for _ in range(200):
        spread_D1 = np.exp(rng.normal(scale=0.3, size=(dates + 1, 1)))
        shared_D1 = between * rng.normal(size=(dates + 1, 1))
        score_DP = np.abs(spread_D1 * (shared_D1 + rng.normal(size=(dates + 1, 60)))) / np.hypot(1, between)
        (quantile,), _ = left_out_quantiles(list(score_DP[:-1]), (0.9,))
        inside.append((score_DP[-1] <= quantile).mean())
        width.append(quantile / 1.645)
    allowed = 3 * np.std(inside) / len(inside) ** 0.5
    assert 0.88 - allowed <= np.mean(inside) <= 0.92 + allowed
    assert np.mean(width) < (1.25 if dates > 9 else 1.6)


def test_bounds_have_the_margins_of_their_lead():
    intervals = Intervals(0.9, ((1.0,), (2.0,)), ((3.0,), (4.0,)), 20)
    lower, upper = intervals.bounds(np.zeros((2, 1, 1, 1), np.float32))
    assert lower.ravel().tolist() == [-1, -2]
    assert upper.ravel().tolist() == [3, 4]
    assert lower.dtype == upper.dtype == np.float32
    with pytest.raises(RequestError, match=r"calibrated for 2 leads, 3 are asked for: raise samples.horizon"):
        intervals.bounds(np.zeros((3, 1, 1, 1)))


SEASONAL = Intervals(
    0.9, ((1.0, 1.0), (2.0, 1.0)), ((3.0, 1.0), (4.0, 1.0)), 20, season_CS=((1.0, 1.0, 2.0, 1.0), (1.0,) * 4),
    limits_C=((-1.5, 7.0), None), levels_L=(0.5, 0.9), factor_CL=((0.5, 1.0), (0.25, 1.0)), bounded_L=(True, True),
)  # fmt: skip


def test_bounds_widen_with_the_season_of_the_target():
    lower, upper = SEASONAL.at(np.array([0.0, 365.2422 * 7.5])).bounds(np.zeros((2, 2, 3), np.float32))
    assert lower[..., 0].tolist() == [[-1.0, -1.0], [-4.0, -1.0]]
    assert upper[..., 0].tolist() == [[3.0, 1.0], [8.0, 1.0]]
    assert SEASONAL.clip(lower).min() == -1.5
    assert SEASONAL.clip(upper).max() == 7.0
    with pytest.raises(ValueError, match="ask for those of the target dates first"):
        SEASONAL.bounds(np.zeros((2, 2, 3)))
    assert SEASONAL.of_leads(np.array([1])).at(np.array([0.0])).below_KC == ((2.0, 1.0),)


def test_the_season_is_a_closed_curve():
    assert season_at(np.array([1.0, 3.0]), np.array([0.0, 365.2422 / 4, 365.2422 * 0.75, -1e-9])) == pytest.approx([1, 2, 2, 1])


def test_intervals_of_another_level():
    half = SEASONAL.of_level(0.5)
    assert (half.coverage, half.below_KC) == (0.5, ((0.5, 0.25), (1.0, 0.25)))


def test_intervals_survive_json_and_those_of_earlier_versions_are_read():
    assert Intervals.from_json(json.loads(json.dumps(SEASONAL.to_json()))) == SEASONAL
    before = {"coverage": 0.9, "below_KC": [[1.0]], "above_KC": [[2.0]], "dates": 18, "is_bounded": True}
    known = Intervals.from_json(before)
    assert known == Intervals(0.9, ((1.0,),), ((2.0,),), 18)
    assert known.at(np.array([5.0])).bounds(np.zeros((1, 1, 1)))[1].tolist() == [[[2.0]]]


def test_intervals_of_chosen_leads():
    intervals = Intervals(0.9, ((1.0,), (2.0,), (3.0,)), ((1.0,), (2.0,), (3.0,)), 19)
    lower, upper = intervals.of_leads(np.array([2, 0])).bounds(np.zeros((2, 1, 1, 1), np.float32))
    assert upper.ravel().tolist() == [3.0, 1.0]
    assert lower.ravel().tolist() == [-3.0, -1.0]
