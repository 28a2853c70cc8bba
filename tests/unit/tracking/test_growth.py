"""Growth rates, forecasts and sums against series whose growth is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

from pipelines.errors import RequestError
from pipelines.tracking.growth import (
    EDGE_ERROR_PX,
    PRIOR_FREEDOM,
    GrowthSettings,
    Observations,
    check_forecasts,
    expected_sizes,
    fit_lines,
    forecast_sizes,
    observations_of,
    outline_errors,
    rate_intervals,
    scatter_of,
    slowed,
    spread_variances,
)
from pipelines.tracking.growth_tables import growth_of
from pipelines.tracking.objects import Space
from pipelines.tracking.series_time import SeriesTime
from pipelines.tracking.table import as_tables
from pipelines.tracking.tracks import track_objects

ERROR = 0.1  # standard deviation of ln(size)
GAP = 90.0
DATES = [np.datetime64("2024-01-01") + np.timedelta64(90 * k, "D") for k in range(4)]


def observed(log_size_JT: np.ndarray, stated: float = ERROR) -> Observations:
    tracks, visits = log_size_JT.shape
    time_N = np.tile(GAP * np.arange(visits), tracks)
    return Observations(
        np.repeat(np.arange(tracks), visits), time_N, log_size_JT.ravel(), np.full(time_N.size, stated), np.arange(tracks)
    )


def made(kind: str, tracks: int, visits: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(ln(size) without errors, rate per day) of tracks whose growth is known."""
    steps, rate = np.arange(visits), np.zeros(tracks)
    if kind == "exponential":
        rate = rng.normal(0.1, 0.2, tracks) / GAP
        return rate[:, None] * GAP * steps, rate
    if kind == "saturating":  # logistic: from a quarter of its final size on
        return -np.log1p(np.exp(-1.2 * (steps - rng.uniform(0, 2, tracks)[:, None]))), rate
    return np.zeros((tracks, visits)), rate


def test_exact_growth_gives_its_rate_and_a_line_of_two_visits_the_interval_by_hand() -> None:
    seen = observed(np.array([[0.0, 0.9], [2.0, 1.8]]))
    lines = fit_lines(seen)
    scatter = scatter_of(lines)
    rate, low, high = rate_intervals(lines, scatter, 0.95)
    np.testing.assert_allclose(rate, [0.01, -0.2 / 90])
    np.testing.assert_allclose(high - rate, 2.7764451 * np.sqrt(2) * ERROR / GAP)  # t of 4 degrees of freedom
    np.testing.assert_allclose(rate - low, high - rate)
    assert scatter.is_stated


def test_the_scatter_of_all_tracks_is_weighed_against_the_stated_error() -> None:
    zigzag = observed(np.array([[0.0, 0.6, 0.0], [1.0, 1.0, 1.0]]))
    residual = (0.2**2 + 0.4**2 + 0.2**2) / ERROR**2
    scatter = scatter_of(fit_lines(zigzag))
    assert (scatter.factor, scatter.freedom, scatter.is_stated) == (pytest.approx((4 + residual) / (4 + 2)), 6, False)


@pytest.mark.parametrize(("kind", "visits"), [("none", 4), ("exponential", 4), ("exponential", 3), ("none", 3)])
@pytest.mark.parametrize("noise", [1.0, 1.5])
def test_intervals_cover_rates_and_next_sizes_about_as_often_as_they_say(kind: str, visits: int, noise: float) -> None:
    """500 tracks, in series of ten; also where sizes scatter more than is stated."""
    rng = np.random.default_rng(7)
    rates, sizes = [], []
    for _ in range(50):
        truth, rate_J = made(kind, 10, visits + 1, rng)
        seen = observed(truth + rng.normal(0, noise * ERROR, truth.shape))
        lines = fit_lines(seen)
        _, low, high = rate_intervals(lines, scatter_of(lines), 0.95)
        rates.append(((low <= rate_J) & (rate_J <= high)).mean())
        checked = check_forecasts(seen, 0.95)
        assert checked is not None
        sizes.append(checked.inside / 10)
    assert 0.92 <= np.mean(rates) <= 0.985
    assert 0.91 <= np.mean(sizes) <= 0.99


def errors(kind: str, tracks: int, visits: int, series: int = 60) -> tuple[np.ndarray, float]:
    """(mean errors of forecast and of no change, share of series in which the forecast is called worse)."""
    rng, found, worse = np.random.default_rng(11), [], 0
    for _ in range(series):
        truth, _ = made(kind, tracks, visits + 1, rng)
        checked = check_forecasts(observed(truth + rng.normal(0, ERROR, truth.shape)), 0.95)
        assert checked is not None
        found.append(checked.errors_M2)
        worse += checked.difference(0.95)[1] > 0
    return np.concatenate(found).mean(axis=0), worse / series


def test_where_nothing_grows_the_forecast_is_as_good_as_no_change_and_where_it_does_better() -> None:
    for tracks, visits in ((5, 2), (5, 4), (20, 3)):
        (forecast, no_change), worse = errors("none", tracks, visits)
        assert forecast < 1.03 * no_change
        assert worse <= 0.1
    (forecast, no_change), worse = errors("exponential", 10, 4)
    assert forecast < 0.75 * no_change
    assert worse == 0


def evidence(seen: Observations, slowing: float) -> np.ndarray:
    """(K,) logarithm of the density of all sizes under each spread, from their joint normal distribution: levels (nearly) flat,
    rates ~ N(mean, spread²), mean ~ N(0, square), averaged over square, with the scatter's estimate and its prior."""
    time_N, same_NN = slowed(seen.time_N / GAP, slowing), seen.track_N[:, None] == seen.track_N
    factor, flat = scatter_of(fit_lines(replace(seen, time_N=time_N))).factor, 1e4
    fixed_NN = np.diag(factor * seen.error_N**2) + flat * same_NN
    of_rates_NN, prior_K = np.outer(time_N, time_N), spread_variances(1.0)

    def density(spread: float, square: float) -> float:
        covariance_NN = fixed_NN + of_rates_NN * (same_NN * spread + square)
        return float(multivariate_normal(np.zeros(len(time_N)), covariance_NN).logpdf(seen.log_size_N))

    shares = [np.logaddexp.reduce([density(spread, square) for square in prior_K]) for spread in prior_K[::3]]
    return np.array(shares) - 0.5 * PRIOR_FREEDOM * (np.log(factor) + 1 / factor)


def test_spread_and_slowing_are_weighed_by_the_likelihood_of_all_sizes() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 0.4, 4)[:, None] * slowed(np.arange(4.0), 1.0)
    seen = observed(truth + rng.normal(0, ERROR, truth.shape))
    slowings = (0.0, 0.5, 2.0)
    weighed = np.stack([expected_sizes(seen, np.full(4, 4 * GAP), one / GAP).log_K[::3] for one in slowings])
    joint = np.stack([evidence(seen, one) for one in slowings])
    assert np.ptp(joint) > 5
    np.testing.assert_allclose(weighed - weighed[0, 0], joint - joint[0, 0], atol=1e-3)


def test_growth_that_ended_is_no_longer_forecast_in_full() -> None:
    (forecast, no_change), worse = errors("saturating", 10, 4)
    assert forecast < 1.25 * no_change  # a straight line: 4 times
    assert worse < 0.15


def test_the_check_uses_nothing_of_the_last_visit() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.normal(0, 1, (4, 4))
    first = check_forecasts(observed(sizes), 0.95)
    sizes[:, -1] += 5
    second = check_forecasts(observed(sizes), 0.95)
    assert first is not None
    assert second is not None
    for name in ("forecast_M", "low_M", "high_M", "no_change_M"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(first.no_change_M, sizes[:, -2])
    assert check_forecasts(observed(sizes[:, :2]), 0.95) is None


def test_forecasts_do_not_depend_on_the_unit_of_time() -> None:
    seen = observed(np.random.default_rng(0).normal(0, 0.3, (5, 3)).cumsum(axis=1))
    in_days = forecast_sizes(seen, np.full(5, 270.0), 0.95)
    in_seconds = forecast_sizes(replace(seen, time_N=seen.time_N * 86_400), np.full(5, 270.0 * 86_400), 0.95)
    np.testing.assert_allclose(in_days.log_size_J, in_seconds.log_size_J, rtol=1e-6)
    np.testing.assert_allclose(in_days.high_J, in_seconds.high_J, rtol=1e-6)


def balls(sizes_TN: list[list[float]], spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> tuple[np.ndarray, Space]:
    """Masks of balls along x whose volumes are known; 0: none."""
    masks = np.zeros((len(sizes_TN), 30, 30, 30 * len(sizes_TN[0])), bool)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in masks.shape[1:]), indexing="ij"), axis=-1)
    for t, sizes in enumerate(sizes_TN):
        for n, size in enumerate(sizes):
            away = (index - np.array([14.6, 14.4, 30 * n + 14.5])) * np.array(spacing)
            masks[t] |= np.linalg.norm(away, axis=-1) < np.cbrt(3 * size / (4 * np.pi))
    return masks, Space.of_spacing(spacing)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.8, 0.8)])
def test_the_error_of_a_ball_is_that_of_its_radius(spacing: tuple[float, float, float]) -> None:
    masks, space = balls([[4000.0]], spacing)
    objects, _, _ = as_tables(track_objects(masks, DATES[:1], space), space)
    radius = np.cbrt(3 * 4000 / (4 * np.pi))
    moved = 3 * EDGE_ERROR_PX * np.mean(spacing) / radius  # of ln(volume)
    np.testing.assert_allclose(outline_errors(objects, space, EDGE_ERROR_PX), moved, rtol=0.06)


def test_made_volumes_give_their_doubling_times_and_sums() -> None:
    doubling = np.array([90.0, 240.0, -180.0])
    truth = np.array([600.0, 900.0, 2400.0]) * 2 ** (np.array([0.0, 90.0, 180.0, 270.0])[:, None] / doubling)
    masks, space = balls(truth.tolist())
    objects, events, tracks = as_tables(track_objects(masks, DATES, space), space)
    growth = growth_of(objects, events, tracks, SeriesTime.of(objects, events), space, GrowthSettings(next_in=90))
    from_left = objects[objects.date == DATES[0]].sort_values("x").track_id
    table = growth.growth.set_index("track_id").loc[from_left]
    times = table[["doubling_days", "halving_days"]].to_numpy()
    np.testing.assert_allclose(times[[0, 1, 2], [0, 0, 1]], np.abs(doubling), rtol=0.04)
    assert np.isnan(times[[0, 1, 2], [1, 1, 0]]).all()
    np.testing.assert_allclose(table.percent_per_month, 100 * (2 ** (30.436875 / doubling) - 1), rtol=0.06)
    assert table.direction.tolist() == ["growing", "growing", "shrinking"]
    assert (table.doubling_days_low < table.doubling_days)[:2].all()
    assert (table.doubling_days_high > table.doubling_days)[:2].all()
    assert (table.next_date == pd.Timestamp("2024-12-26")).all()
    expected = truth[-1] * 2 ** (90 / doubling)
    assert ((table.next_volume_mm3_low < expected) & (expected < table.next_volume_mm3_high)).all()
    totals = growth.totals
    np.testing.assert_allclose(totals.total_volume_mm3, truth.sum(axis=1), rtol=0.02)
    sums = totals.total_volume_mm3.to_numpy()
    np.testing.assert_allclose(totals.since_first_percent, 100 * (sums / sums[0] - 1), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        totals.since_smallest_percent[1:], 100 * (sums[1:] / np.minimum.accumulate(sums)[:-1] - 1), rtol=1e-9, atol=1e-9
    )
    assert (totals.since_first_percent_low[1:] < totals.since_first_percent[1:]).all()
    assert growth.facts()["tracks"] == {"growing": 2, "shrinking": 1, "not distinguishable": 0}
    assert growth.facts()["check"]["tracks"] == 3


def test_what_ended_merged_or_was_not_seen_is_no_growth() -> None:
    masks = np.zeros((4, 12, 40), bool)
    masks[:, 2:6, 2:8] = masks[2:, 2:6, 8:14] = True
    masks[:2, 2:6, 9:14] = True  # merges with the first one
    masks[:2, 8:11, 20:24] = True  # gone
    masks[:, 2:10, 30:36] = True
    seen = np.ones(masks.shape, bool)
    seen[1, :, 28:38] = False
    space = Space.of_spacing((1.0, 1.0), "px")
    objects, events, tracks = as_tables(track_objects(masks, [0.0, 1.0, 2.0, 3.0], space, seen=list(seen)), space)
    time = SeriesTime.of(objects, events)
    growth = growth_of(objects, events, tracks, time, space, GrowthSettings()).growth.set_index("track_id")
    merged, cloudy = growth[np.isclose(growth.last_area_px2, 48)].index
    assert growth.loc[merged, "visits"] == 2  # since the merger
    assert growth.loc[cloudy, "visits"] == 3
    ended = growth[growth.ended != ""]
    assert len(ended) == 2
    assert ended.next_area_px2.isna().all()
    assert growth.loc[merged, "next_area_px2"] == pytest.approx(48, rel=1e-6)
    observations = observations_of(objects, time, space, EDGE_ERROR_PX)
    assert observations.visits_J.sum() == len(objects) - 1 - 2  # not seen, and before the merger


def test_a_sum_that_is_gone_fell_by_all_of_it() -> None:
    masks = np.zeros((4, 8, 8), bool)
    masks[:2, 2:6, 2:6] = True
    space = Space.of_spacing((1.0, 1.0))
    objects, events, tracks = as_tables(track_objects(masks, DATES, space), space)
    time = SeriesTime.of(objects, events, DATES)
    growth = growth_of(objects, events, tracks, time, space, GrowthSettings())
    assert growth.totals.since_first_percent.tolist() == [0, 0, -100, -100]
    assert np.isnan(growth.totals.since_first_percent_low[2])
    assert growth.totals.gone.tolist() == [0, 0, 1, 0]
    assert growth.check is None


@pytest.mark.parametrize(
    ("times", "name", "rate"),
    [
        (DATES, "days", "month"),
        ([np.datetime64("2024-01-01T00:00") + np.timedelta64(5 * k, "m") for k in range(4)], "hours", "hour"),
        ([np.datetime64("1800-01-01") + np.timedelta64(40 * k, "ms") for k in range(4)], "seconds", "second"),
        ([3.0, 4.0, 5.0, 6.0], "steps", "step"),
    ],
)
def test_time_has_a_unit_that_fits_and_comes_back(times: list[np.datetime64 | float], name: str, rate: str) -> None:
    masks = np.ones((4, 3, 3), bool)
    space = Space.of_spacing((1.0, 1.0))
    objects, events, _ = as_tables(track_objects(masks, times, space), space)
    time = SeriesTime.of(objects, events)
    assert (time.unit.name, time.unit.rate) == (name, rate)
    back = [time.value(value) for value in time.elapsed_T]
    assert back == list(time.values_T)
    np.testing.assert_array_equal(time.elapsed(objects[time.unit.column].to_numpy()), time.elapsed_T)


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(RequestError, match=r"--edge-error\) is 0; it is above 0, up to 10 pixels"):
        GrowthSettings(edge_error_px=0)
    with pytest.raises(RequestError, match=r"--next-in\) is -3; it is a time after the last visit, above 0"):
        GrowthSettings(next_in=-3)
