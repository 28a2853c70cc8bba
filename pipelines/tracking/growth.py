"""Growth of tracked objects: rates with intervals, and the size at the next visit.

ln(size) of a track is a straight line in time (exponential growth). An error of a size comes from the place of the outline: its
standard deviation is `edge_error_px` pixels, the same along the whole outline of a visit, and independent between visits. How far
sizes really lie from their lines is estimated from all tracks together, with the stated error as if it had been estimated from
`PRIOR_FREEDOM` degrees of freedom (Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3(1), eq. for the moderated variance).

For a forecast rates are drawn towards their mean, rate ~ N(mean, spread²), and that towards no change, mean ~ N(0, square); and
they may slow down, as in Gompertz growth (Laird 1964, Br. J. Cancer 18(3)): the rate falls by exp(-slowing) in a unit of time,
alike for all tracks. Spread, square and slowing are averaged over what all tracks say of them (empirical Bayes).

Shapes: N observations, J tracks, K values of the spread, M of spread and slowing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri, stdtrit

from pipelines.errors import RequestError
from pipelines.tracking.objects import Space
from pipelines.tracking.series_time import SeriesTime
from pipelines.tracking.table import size_columns

if TYPE_CHECKING:
    import pandas as pd

EDGE_ERROR_PX = 12**-0.5  # of a place that is rounded to whole pixels
STAIRCASE = {2: 4 / np.pi, 3: 1.5}  # an outline along pixel faces, over that of a smooth shape, mean over all directions
PRIOR_FREEDOM = 4.0
RATE_SPREAD = 0.35  # scale of the half-normal priors of spread and mean of ln(size), per median interval between visits
SPREADS = 24
NO_SPREAD = 0.25
SLOWING = {0.0: 0.5, 0.25: 0.125, 0.5: 0.125, 1.0: 0.125, 2.0: 0.125}  # per median interval -> how likely it is beforehand
BREAKS = ("merged", "split")  # sizes before are those of other objects


@dataclass(frozen=True)
class GrowthSettings:
    """`edge_error_px`: standard deviation of the place of an outline, in pixels. `level` of all intervals. `next_in`: how long
    after the last visit the forecast is, in units of time; None: as long as the last interval."""

    edge_error_px: float = EDGE_ERROR_PX
    level: float = 0.95
    next_in: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.edge_error_px <= 10:
            raise RequestError(f"edge_error_px (--edge-error) is {self.edge_error_px:g}; it is above 0, up to 10 pixels")
        if self.next_in is not None and not 0 < self.next_in < np.inf:
            raise RequestError(f"next_in (--next-in) is {self.next_in:g}; it is a time after the last visit, above 0")


@dataclass(frozen=True)
class Observations:
    """Sizes by track and time: `track_N` counts from 0, `ids_J` are its numbers in the tables; `error_N` is the standard
    deviation of ln(size)."""

    track_N: np.ndarray
    time_N: np.ndarray
    log_size_N: np.ndarray
    error_N: np.ndarray
    ids_J: np.ndarray

    def where(self, keep_N: np.ndarray) -> Observations:
        """Those of `keep_N`; every track stays, also one without any."""
        return Observations(self.track_N[keep_N], self.time_N[keep_N], self.log_size_N[keep_N], self.error_N[keep_N], self.ids_J)

    @property
    def is_last_N(self) -> np.ndarray:
        return np.append(self.track_N[1:] != self.track_N[:-1], True) if len(self.track_N) else np.zeros(0, bool)

    @property
    def visits_J(self) -> np.ndarray:
        return np.bincount(self.track_N, minlength=len(self.ids_J))

    @property
    def interval(self) -> float:
        """Median time between two visits of a track; 1 where no track has two."""
        gaps = np.diff(self.time_N)[~self.is_last_N[:-1]]
        return float(np.median(gaps)) if len(gaps) else 1.0


def outline_errors(objects: pd.DataFrame, space: Space, edge_error_px: float) -> np.ndarray:
    """Standard deviation of ln(size) of each row, (N,): what an outline moved by so many pixels adds, over the size."""
    size_name, outline_name, *_ = size_columns(space)
    size, outline = objects[size_name].to_numpy(), objects[outline_name].to_numpy()
    step = np.sqrt(size / objects["pixels"].to_numpy()) if space.grid is not None else np.mean(space.spacing)
    error_N: np.ndarray = edge_error_px * step * outline / STAIRCASE[space.axes] / size
    return error_N


def observations_of(objects: pd.DataFrame, time: SeriesTime, space: Space, edge_error_px: float) -> Observations:
    """What is known of each track: sizes that were observed, from its last merger or split on."""
    ids_J, track = np.unique(objects["track_id"].to_numpy(), return_inverse=True)
    elapsed = time.elapsed(objects[time.unit.column].to_numpy())
    is_break = objects["event"].isin(BREAKS).to_numpy()
    since_J = np.full(len(ids_J), -np.inf)
    np.maximum.at(since_J, track[is_break], elapsed[is_break])
    keep = (objects["event"] != "not seen").to_numpy() & (elapsed >= since_J[track])
    order = np.lexsort((elapsed[keep], track[keep]))
    columns = (track, elapsed, np.log(objects[size_columns(space)[0]].to_numpy()), outline_errors(objects, space, edge_error_px))
    track_N, time_N, log_size_N, error_N = (column[keep][order] for column in columns)
    return Observations(track_N, time_N, log_size_N, error_N, ids_J)


@dataclass(frozen=True)
class Lines:
    """Weighted straight lines through ln(size), weights 1 / error². `level_J` at `time_J`, the weighted mean time; variances
    without the scatter: 1 / `weight_J` of the level, 1 / `spread_J` of the rate (0: no rate), which are independent."""

    time_J: np.ndarray
    level_J: np.ndarray
    rate_J: np.ndarray
    weight_J: np.ndarray
    spread_J: np.ndarray
    residual_J: np.ndarray  # weighted sum of squares
    visits_J: np.ndarray


def fit_lines(seen: Observations) -> Lines:
    """One line per track; of one visit its size, without any NaN.

    >>> fit_lines(Observations(np.array([0, 0]), np.array([0.0, 2.0]), np.array([1.0, 3.0]), np.ones(2), np.array([7]))).rate_J
    array([1.])
    """
    weight_N, count = seen.error_N**-2, len(seen.ids_J)

    def total(values_N: np.ndarray) -> np.ndarray:
        return np.bincount(seen.track_N, weights=weight_N * values_N, minlength=count)

    weight_J = total(np.ones_like(weight_N))
    safe_J = np.where(weight_J > 0, weight_J, 1.0)
    time_J, level_J = total(seen.time_N) / safe_J, total(seen.log_size_N) / safe_J
    away_N, size_N = seen.time_N - time_J[seen.track_N], seen.log_size_N - level_J[seen.track_N]
    visits_J = seen.visits_J
    spread_J = np.where(visits_J > 1, total(away_N**2), 0.0)
    rate_J = np.divide(total(away_N * size_N), spread_J, out=np.zeros(count), where=spread_J > 0)
    residual_J = np.where(visits_J > 2, total((size_N - rate_J[seen.track_N] * away_N) ** 2), 0.0)
    return Lines(time_J, level_J, rate_J, weight_J, spread_J, residual_J, visits_J)


@dataclass(frozen=True)
class Scatter:
    """How far sizes lie from their lines: `factor` times the variance that the error of the outline gives, known as if estimated
    with `freedom` degrees of freedom, `PRIOR_FREEDOM` of them of the stated error."""

    factor: float
    freedom: float

    @property
    def is_stated(self) -> bool:
        return self.freedom == PRIOR_FREEDOM

    def quantile(self, level: float) -> float:
        """Half the width of an interval in standard deviations (Student's t)."""
        return float(stdtrit(self.freedom, 0.5 + level / 2))


def scatter_of(lines: Lines) -> Scatter:
    """Of all tracks with three visits or more; without any the error of the outline alone."""
    freedom = float(np.maximum(lines.visits_J - 2, 0).sum())
    return Scatter(float((PRIOR_FREEDOM + lines.residual_J.sum()) / (PRIOR_FREEDOM + freedom)), PRIOR_FREEDOM + freedom)


def rate_intervals(lines: Lines, scatter: Scatter, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rate, low, high) of ln(size) per unit of time, (J,); NaN of tracks with one visit."""
    has_rate = lines.spread_J > 0
    rate_J = np.where(has_rate, lines.rate_J, np.nan)
    half_J = scatter.quantile(level) * np.sqrt(scatter.factor / np.where(has_rate, lines.spread_J, np.nan))
    return rate_J, rate_J - half_J, rate_J + half_J


@dataclass(frozen=True)
class Expected:
    """Sizes at a time under K values of the spread and one slowing, (K, J), in ln(size), with their variances; `log_K`: how well
    these values explain what was seen, as the logarithm of their likelihood."""

    log_K: np.ndarray
    size_KJ: np.ndarray
    variance_KJ: np.ndarray


def expected_sizes(seen: Observations, times_J: np.ndarray, slowing: float) -> Expected:
    """Sizes at `times_J` if rates fall by exp(-slowing) in a unit of time from each track's first visit on.

    A rate is drawn towards the mean of all, and that towards 0: normal distributions given estimates and spread.
    """
    first_J = np.zeros(len(seen.ids_J))
    first_J[seen.track_N[::-1]] = seen.time_N[::-1]
    lines = fit_lines(replace(seen, time_N=slowed(seen.time_N - first_J[seen.track_N], slowing)))
    scatter, has_rate = scatter_of(lines), lines.spread_J > 0
    own_J = scatter.factor / np.where(has_rate, lines.spread_J, 1.0)
    prior_K = spread_variances(seen.interval)
    of_all = common_rate(lines.rate_J[has_rate], own_J[has_rate], prior_K)
    # of residuals and estimates together; `common_rate` scales by own_J, whose share of the factor belongs to no likelihood
    log_K = of_all.log_K - 0.5 * (scatter.freedom + has_rate.sum()) * np.log(scatter.factor)
    kept_KJ = np.where(has_rate, prior_K[:, None] / (prior_K[:, None] + own_J), 0.0)
    rate_KJ = kept_KJ * lines.rate_J + (1 - kept_KJ) * of_all.mean_K[:, None]
    variance_KJ = np.where(has_rate, kept_KJ * own_J, prior_K[:, None]) + (1 - kept_KJ) ** 2 * of_all.variance_K[:, None]
    ahead_J = slowed(times_J - first_J, slowing) - lines.time_J
    error_J = np.full(len(seen.ids_J), np.nan)
    error_J[seen.track_N] = seen.error_N  # of the last visit: the next outline is about as long
    measured_J = scatter.factor * (1 / np.where(lines.visits_J > 0, lines.weight_J, np.nan) + error_J**2)
    return Expected(log_K, lines.level_J + rate_KJ * ahead_J, measured_J + variance_KJ * ahead_J**2)


@dataclass(frozen=True)
class Common:
    """Mean rate of all tracks and its variance under K spreads; `log_K`: logarithm of the likelihood of rates over their errors
    (the square root of `own_J` of each more than that of the rates)."""

    mean_K: np.ndarray
    variance_K: np.ndarray
    log_K: np.ndarray


def common_rate(rate_J: np.ndarray, own_J: np.ndarray, prior_K: np.ndarray) -> Common:
    """From rates and the variances of their errors: rate ~ N(mean, prior + own), mean ~ N(0, square), averaged over `square`,
    which has the values of `prior_K` too."""
    total_KJ = prior_K[:, None] + own_J
    known_K1, sum_K1 = (1 / total_KJ).sum(axis=1)[:, None], (rate_J / total_KJ).sum(axis=1)[:, None]
    drawn_KW = prior_K / (1 + prior_K * known_K1)  # variance of the mean
    log_KW = 0.5 * (np.log(own_J / total_KJ) - rate_J**2 / total_KJ).sum(axis=1)[:, None]
    log_KW = log_KW - 0.5 * np.log1p(prior_K * known_K1) + 0.5 * drawn_KW * sum_K1**2
    share_KW = np.exp(log_KW - log_KW.max(axis=1, keepdims=True))
    total_K = share_KW.sum(axis=1)
    share_KW /= total_K[:, None]
    mean_KW = drawn_KW * sum_K1
    mean_K = (share_KW * mean_KW).sum(axis=1)
    variance_K = (share_KW * (drawn_KW + (mean_KW - mean_K[:, None]) ** 2)).sum(axis=1)
    return Common(mean_K, variance_K, log_KW.max(axis=1) + np.log(total_K / len(prior_K)))


def spread_variances(interval: float) -> np.ndarray:
    """(K,) variances of rates, equally likely beforehand: `NO_SPREAD` of them 0, the square roots of the others half-normal."""
    quantiles_K = np.maximum((np.arange(SPREADS) + 0.5) / SPREADS - NO_SPREAD, 0) / (1 - NO_SPREAD)
    spread_K: np.ndarray = RATE_SPREAD / interval * ndtri(0.5 + quantiles_K / 2)
    return spread_K**2


def slowed(time: np.ndarray, slowing: float) -> np.ndarray:
    """What a rate that falls by exp(-slowing) in a unit of time adds up to, over the first rate: `time` without slowing."""
    return time if slowing == 0 else -np.expm1(-slowing * time) / slowing


@dataclass(frozen=True)
class Forecast:
    """Median size of each track at a time, and its interval for the size that will be measured, (J,), in ln(size)."""

    log_size_J: np.ndarray
    low_J: np.ndarray
    high_J: np.ndarray


def forecast_sizes(seen: Observations, times_J: np.ndarray, level: float) -> Forecast:
    """The sizes that will be measured at `times_J`, from what was `seen`; NaN of tracks without any visit.

    Averaged over `SLOWING` and the spread of the rates, by how well they explain all tracks (Bayesian model averaging).
    """
    parts = [expected_sizes(seen, times_J, slowing / seen.interval) for slowing in SLOWING]
    log_M = np.concatenate([part.log_K + np.log(share) for part, share in zip(parts, SLOWING.values(), strict=True)])
    share_M1 = np.exp(log_M - log_M.max())[:, None]
    share_M1 /= share_M1.sum()
    size_MJ = np.concatenate([part.size_KJ for part in parts])
    variance_MJ = np.concatenate([part.variance_KJ for part in parts])
    size_J = (share_M1 * size_MJ).sum(axis=0)
    spread_J = np.sqrt((share_M1 * (variance_MJ + (size_MJ - size_J) ** 2)).sum(axis=0))
    half_J = scatter_of(fit_lines(seen)).quantile(level) * spread_J
    return Forecast(np.where(np.isnan(half_J), np.nan, size_J), size_J - half_J, size_J + half_J)


@dataclass(frozen=True)
class Check:
    """The last visit of every track forecast from those before it, beside no change: what was found, ln(size), (M,) tracks of
    three visits or more. `track_M` counts from 0."""

    track_M: np.ndarray
    time_M: np.ndarray
    found_M: np.ndarray
    forecast_M: np.ndarray
    low_M: np.ndarray
    high_M: np.ndarray
    no_change_M: np.ndarray

    @property
    def errors_M2(self) -> np.ndarray:
        """100 |ln(found / expected)|, about per cent, of the forecast and of no change."""
        errors_M2: np.ndarray = 100 * np.abs(self.found_M[:, None] - np.stack([self.forecast_M, self.no_change_M], axis=1))
        return errors_M2

    def difference(self, level: float) -> tuple[float, float, float]:
        """(mean, low, high) of forecast minus no change; the interval, from pairs, is NaN for fewer than three tracks."""
        paired_M = self.errors_M2 @ [1.0, -1.0]
        mean, count = float(paired_M.mean()), len(paired_M)
        if count < 3:
            return mean, np.nan, np.nan
        half = float(stdtrit(count - 1, 0.5 + level / 2) * paired_M.std(ddof=1) / np.sqrt(count))
        return mean, mean - half, mean + half

    @property
    def inside(self) -> int:
        """How many sizes lie in their interval."""
        return int(((self.low_M <= self.found_M) & (self.found_M <= self.high_M)).sum())


def check_forecasts(seen: Observations, level: float) -> Check | None:
    """None where no track has three visits. Nothing of the last visit of any track is used."""
    last_N = seen.is_last_N
    chosen_N = last_N & (seen.visits_J[seen.track_N] >= 3)
    if not chosen_N.any():
        return None
    before = seen.where(~last_N)
    time_J, no_change_J = np.full((2, len(seen.ids_J)), np.nan)
    time_J[seen.track_N[last_N]] = seen.time_N[last_N]
    no_change_J[before.track_N] = before.log_size_N  # the last one of each track stays
    forecast, track_M = forecast_sizes(before, time_J, level), seen.track_N[chosen_N]
    of_tracks = (forecast.log_size_J, forecast.low_J, forecast.high_J, no_change_J)
    return Check(track_M, seen.time_N[chosen_N], seen.log_size_N[chosen_N], *(values[track_M] for values in of_tracks))
