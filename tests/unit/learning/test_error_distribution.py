"""Distributions around forecasts: what is drawn has the probabilities that it was drawn with."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.learning.error_distribution import PROBABILITIES, ErrorDistribution, fit_distribution
from pipelines.learning.past_errors import Errors
from pipelines.samples.variables import restored, transformed

DATES, NEW, PIXELS = 60, 300, 150


def drawn(rng, dates, transform):
    """(forecasts, truths) (D, P): a third of the forecasts is 0 and mostly right; other errors grow with the forecast."""
    y_DP = rng.gamma(0.7, 2.0, size=(dates, PIXELS)) * (rng.random((dates, PIXELS)) > 1 / 3)
    shared_D1 = rng.normal(size=(dates, 1))
    error_DP = (0.4 * shared_D1 + rng.normal(size=(dates, PIXELS))) * (0.02 + 0.2 * np.minimum(y_DP, 4))
    return y_DP, restored(transformed(y_DP, transform) + error_DP, transform)


def fitted(y_DP, truth_DP, transform, **options):
    u_DP, truth_u = transformed(y_DP, transform), transformed(truth_DP, transform)
    frames = {(0, 86_400.0 * day): [np.stack([t - u, u])[:, None]] for day, (u, t) in enumerate(zip(u_DP, truth_u, strict=True))}
    errors = Errors(("none",), frames, dict.fromkeys(frames, PIXELS))
    return fit_distribution(errors, transform=transform, **options)


@pytest.mark.parametrize("transform", ["none", "log1p"])
def test_of_exchangeable_dates_events_come_as_often_as_said(transform):
    rng = np.random.default_rng(1)
    known = fitted(*drawn(rng, DATES, transform), transform)
    y_DP, truth_DP = drawn(rng, NEW, transform)
    for limit in (0.5, 2.0, 4.0):
        said_n, came_n = known.exceedance(0, y_DP, limit).ravel(), (truth_DP >= limit).ravel()
        assert said_n.mean() == pytest.approx(came_n.mean(), abs=0.01)
        for low in np.arange(0.1, 0.9, 0.2):
            is_about = (said_n >= low) & (said_n < low + 0.2)
            assert came_n[is_about].mean() == pytest.approx(said_n[is_about].mean(), abs=0.08)
    low_n, high_n = known.below(0, y_DP.ravel(), truth_DP.ravel())
    ranks = np.histogram(low_n + rng.random(len(low_n)) * (high_n - low_n), 10, (0, 1))[0] / len(low_n)
    np.testing.assert_allclose(ranks, 0.1, atol=0.02)


RAIN = ErrorDistribution(
    ((0.0, 1.0), (0.5,)),
    (
        (tuple(np.where(PROBABILITIES > 0.9, 0.3, 0.0)), tuple(PROBABILITIES - 0.5)),
        (tuple(2 * PROBABILITIES - 1),),
    ),
    "log1p",
    (0.0, 10.0),
)  # fmt: skip


def test_probabilities_fall_with_the_threshold_and_know_the_valid_range():
    y = np.array([[0.0, 0.2, 3.0, np.nan]], np.float32)
    found = np.stack([RAIN.exceedance(0, y, limit) for limit in (-1.0, 0.0, 0.05, 0.2, 1.0, 3.0, 10.0, 10.1)])
    assert (found[:2, :, :3] == 1).all()  # every value is at least the smallest one
    assert (found[-1, :, :3] == 0).all()
    assert np.isnan(found[:, :, 3]).all()
    assert (np.diff(found[:, :, :3], axis=0) <= 0).all()
    assert found[2, 0, 0] == pytest.approx(0.1, abs=0.02)
    quantile_Qn = RAIN.quantiles(0, np.array([0.0, 30.0]))
    assert quantile_Qn.min() == 0
    assert quantile_Qn.max() == 10


def test_members_reach_a_threshold_as_often_as_is_said():
    y = np.repeat([0.0, 0.7, 3.0], 4000)
    chance = np.tile((np.arange(4000) + 0.5) / 4000, 3)
    members = RAIN.member(0, y, chance).reshape(3, -1)
    for limit in (0.1, 0.9, 3.5):
        said = RAIN.exceedance(0, np.array([0.0, 0.7, 3.0]), limit)
        np.testing.assert_allclose((members >= limit).mean(axis=1), said, atol=0.002)


def test_forecasts_that_hardly_differ_are_no_trouble():
    rng = np.random.default_rng(5)
    y_DP = rng.random((DATES, PIXELS)) * 10.0 ** rng.integers(-12, 0, size=(DATES, PIXELS))
    known = fitted(y_DP, y_DP + rng.normal(size=y_DP.shape), "none")
    assert np.isfinite(known.quantiles(0, np.array([-1.0, 0.0, 1e-13, 1e-7, 0.5, 9.0]))).all()


def test_a_smaller_ratio_and_a_calm_season_have_smaller_errors():
    rng = np.random.default_rng(2)
    pairs = drawn(rng, DATES, "none")
    wide, narrow = (fitted(*pairs, "none", ratio=ratio).quantiles(0, np.array([2.0])) for ratio in (1.0, 0.5))
    np.testing.assert_allclose(narrow - 2.0, (wide - 2.0) / 2, atol=1e-4)
    seasonal = replace(RAIN, season_S=(0.5, 2.0))
    calm = seasonal.at(np.array([0.0, 0.0]))
    np.testing.assert_allclose(calm.error_KVQ[1][0], np.array(RAIN.error_KVQ[1][0]) / 2)
    assert calm.season_S == ()


def test_leads_are_taken_by_number_and_kept_as_json():
    assert RAIN.of_leads(np.array([1])).value_KV == ((0.5,),)
    assert ErrorDistribution.from_json(RAIN.to_json()) == RAIN
    with pytest.raises(RequestError, match=r"fitted for 2 leads: raise samples\.horizon"):
        RAIN.exceedance(2, np.zeros(3), 1.0)
