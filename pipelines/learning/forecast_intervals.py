"""Intervals of forecasts from the errors of a baseline over all of the past, as wide as season and forecast ask for.

A validation season has a dozen dates, too few for a quantile of 90 %; the past has many. A forecaster that has learnt from the
training windows has no honest errors there, but a baseline has, whose forecast of a date uses other dates only: `usable_N` of a
training window leaves out what lies between its issue date and half a year after its targets. So

    margin(lead, day, value) = mean error of the baseline (lead) x season (day) x value (forecast) x quantile x ratio

on the scale of the variable's transform; value and quantile apart for what lies below and above (errors are skewed: haze lowers
many indices).
mean error, season: of the baseline's absolute errors over the target dates of training and validation; the season's spread is
their mean around the day of the year, relative to that of the whole year, shrunk towards it where few dates are near.
value: mean size of these errors with forecasts of about that value, relative to all: where no rain is forecast errors are small,
and lie above; high NDVI falls, low NDVI rises.
quantile: below and above, of the errors so scaled, then both times one conformal factor, so that only one quantile is corrected
for the dates being few. For a new date the spreads know nothing of it, so of calibration dates that of the season is calculated
without their own half year before and after, that of the value without the date.
ratio: mean absolute error of the forecaster over that of the baseline, on the validation windows; 1 for a baseline.

Axes as in `conformal`; R errors of single pixels, D target dates, B bins of forecasts, S below and above, Q sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipelines.calendar import TROPICAL_YEAR_DAYS
from pipelines.compute import HERE, Compute
from pipelines.learning.conformal import Intervals, left_out_quantiles
from pipelines.learning.error_distribution import ErrorDistribution, fit_distribution
from pipelines.learning.past_errors import Errors, collect
from pipelines.learning.window_work import WindowTally
from pipelines.predictors import Forecaster
from pipelines.progress import Progress
from pipelines.samples.plan import UNSEEN_AFTER_TARGET_DAYS
from pipelines.samples.sampling import WindowArrays

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SEASON_POINTS = 73  # every fifth day
SEASON_WIDTH_DAYS = 20.0  # standard deviation of the kernel
SEASON_PRIOR_DATES = 6.0  # so many dates with the mean spread count everywhere
MIRRORED_DATES = 20.0  # so many dates with the errors' signs exchanged count in the shape, at most as many as there are: a few
# dates may err alike by chance
VALUE_EDGES = (0.2, 0.4, 0.6, 0.8, 0.95)  # of the bins of forecasts: quantiles of the past ones
VALUE_PRIOR_DATES = 3.0  # so many dates with the mean spread count in every bin


class Calibrated(NamedTuple):
    """What `calibrate` finds for a forecaster: its intervals, and plain quantiles of its errors on validation to compare with.

    distribution: of the first variable's truth around it, where that is asked for.
    """

    intervals: Intervals
    constant: Intervals | None = None
    distribution: ErrorDistribution | None = None


class Column(NamedTuple):
    """The intervals of one variable: margins by lead, the season's spread, factors of the levels, and which are no maximum."""

    below_K: np.ndarray
    above_K: np.ndarray
    season_S: np.ndarray
    factor_L: np.ndarray
    bounded_L: np.ndarray
    value_V: np.ndarray
    below_V: np.ndarray
    above_V: np.ndarray


def calibrate(
    forecasters: Mapping[str, Forecaster], past: Sequence[str], training: Iterable[WindowArrays],
    validation: Iterable[WindowArrays], coverage: float = 0.9, progress: Progress | None = None, *,
    limits_C: tuple[tuple[float, float] | None, ...] = (), transforms_C: tuple[str, ...] = (), pixels_per_frame: int = 500,
    seed: int = 0, others: Sequence[WindowTally] = (), with_distribution: bool = False, compute: Compute = HERE,
) -> dict[str, Calibrated]:  # fmt: skip
    """The intervals of every forecaster by name.

    past: those whose forecast of a training window depends on nothing that the window does not allow to be used, apart from a
    few constants; the intervals of each other one have the shape of that among these which has the smallest error on validation.
    No forecaster may have learnt from `validation`: the intervals of one that is refitted for the test are those of its twin
    from before. limits_C: the variables' valid ranges. Of larger frames `pixels_per_frame` random valid pixels are used.
    others: are told of every window of `validation` and what the forecasters answer. with_distribution: of the first variable
    too, for probabilities, from the same errors.

    Raises RequestError where a lead has no valid pixel.
    """
    known = [name for name in past if name in forecasters]
    parts = training, validation, progress
    recent, former = collect(forecasters, known, *parts, pixels_per_frame, seed, transforms_C, others, compute)
    whole = {name: errors.joined(former[name]) if name in former else errors for name, errors in recent.items()}
    mean_of = {name: errors.mean_C() for name, errors in recent.items()}
    columns_of = {name: _columns(whole[name], coverage) for name in (known or forecasters)}
    result = {}
    for name, mean_C in mean_of.items():
        shapes = [name if name in columns_of else _best(mean_of, known, c) for c in range(len(mean_C))]
        of_shape_C = [mean_of[shape][c] for c, shape in enumerate(shapes)]
        ratios = [ours / usual if usual > 0 else 1.0 for ours, usual in zip(mean_C, of_shape_C, strict=True)]
        columns = [_scaled(columns_of[shape][c], ratios[c]) for c, shape in enumerate(shapes)]
        dates = min(whole[shape].dates for shape in shapes)
        scale_C = limits_C, transforms_C
        plain = _intervals(_plain_columns(recent[name], coverage), coverage, recent[name].dates, *scale_C)
        result[name] = Calibrated(_intervals(columns, coverage, dates, *scale_C), plain)
        if with_distribution:
            result[name] = result[name]._replace(distribution=_distribution(result[name].intervals, whole[shapes[0]], ratios[0]))
    return result


def _distribution(intervals: Intervals, errors: Errors, ratio: float) -> ErrorDistribution:
    """Of the first variable, with the season of its intervals."""
    transform = intervals.transforms_C[0] if intervals.transforms_C else "none"
    limits = intervals.limits_C[0] if intervals.limits_C else None
    season_S = intervals.season_CS[0] if intervals.season_CS else ()
    return fit_distribution(errors, ratio=ratio, transform=transform, limits=limits, season_S=season_S)


def _best(mean_of: Mapping[str, np.ndarray], names: Sequence[str], c: int) -> str:
    return min(names, key=lambda name: float(mean_of[name][c]))


def _scaled(column: Column, ratio: float) -> Column:
    return column._replace(below_K=column.below_K * ratio, above_K=column.above_K * ratio)


def _intervals(
    columns: list[Column], coverage: float, dates: int, limits_C: tuple[tuple[float, float] | None, ...],
    transforms_C: tuple[str, ...],
) -> Intervals:  # fmt: skip
    def rows(arrays: Iterable[np.ndarray]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(array.tolist()) for array in arrays)

    levels_L, bounded_L = levels_with(coverage), np.all([column.bounded_L for column in columns], axis=0)
    has_season = any(len(column.season_S) > 1 for column in columns)
    has_values = any(len(column.value_V) > 1 for column in columns)
    return Intervals(
        coverage,
        rows(np.stack([column.below_K for column in columns], axis=1)),
        rows(np.stack([column.above_K for column in columns], axis=1)),
        dates,
        bool(bounded_L[levels_L.index(coverage)]),
        season_CS=rows(np.stack([column.season_S for column in columns])) if has_season else (),
        limits_C=limits_C,
        levels_L=levels_L,
        factor_CL=rows(np.stack([column.factor_L for column in columns])),
        bounded_L=tuple(bounded_L.tolist()),
        transforms_C=transforms_C,
        value_CV=rows(column.value_V for column in columns) if has_values else (),
        below_CV=rows(column.below_V for column in columns) if has_values else (),
        above_CV=rows(column.above_V for column in columns) if has_values else (),
    )


def levels_with(coverage: float) -> tuple[float, ...]:
    """`LEVELS` and the nominal one, rising."""
    return tuple(sorted({*LEVELS, coverage}))


# ---------------------------------------------------------------- the shape of one variable's intervals


def _columns(errors: Errors, coverage: float) -> list[Column]:
    keys, levels_L = sorted(errors.pixels), levels_with(coverage)
    frames = [errors.frame(key) for key in keys]
    seconds_D, date_F = np.unique([seconds for _, seconds in keys], return_inverse=True)
    pixels_F, lead_F = np.array([errors.pixels[key] for key in keys], np.float64), np.array([k for k, _ in keys])
    weight_D, columns = np.bincount(date_F, pixels_F), []
    for c in range(frames[0].shape[1]):
        mean_F = np.array([np.abs(frame[0, c]).mean() for frame in frames])
        mean_K = np.bincount(lead_F, pixels_F * mean_F) / np.bincount(lead_F, pixels_F)
        unit_K = np.where(mean_K > 0, mean_K, 1.0)
        relative_D = np.bincount(date_F, pixels_F * mean_F / unit_K[lead_F]) / weight_D
        season_S, spread_D = season_spread(seconds_D / 86_400, relative_D, weight_D)
        scaled = [frame[0, c] / (unit_K[k] * spread_D[d]) for frame, k, d in zip(frames, lead_F, date_F, strict=True)]
        dates = [np.flatnonzero(date_F == d) for d in range(len(seconds_D))]
        error_of_date = [np.concatenate([scaled[f] for f in of_date]) for of_date in dates]
        value_of_date = [np.concatenate([frames[f][1, c] for f in of_date]) for of_date in dates]
        by_value, scaled_of_date = value_spread(error_of_date, value_of_date, weight_D)
        low, high = asymmetry(scaled_of_date, weight_D, coverage)
        scores = [np.maximum(u / high, -u / low) for u in scaled_of_date]
        quantile_L, bounded_L = left_out_quantiles(scores, levels_L, weight_D)
        nominal = quantile_L[levels_L.index(coverage)]
        unit = nominal * mean_K
        columns.append(Column(low * unit, high * unit, season_S, _factors(quantile_L, nominal), bounded_L, *by_value))
    return columns


def _factors(quantile_L: np.ndarray, nominal: float) -> np.ndarray:
    return quantile_L / nominal if nominal > 0 else np.ones_like(quantile_L)


def _plain_columns(errors: Errors, coverage: float) -> list[Column]:
    """Quantiles of all errors, the same for every lead and day."""
    levels_L, columns, flat = levels_with(coverage), [], np.ones(1)
    for error_R in np.concatenate([errors.frame(key)[0] for key in errors.pixels], axis=1):
        low, high = _open(*np.quantile(error_R, [(1 - coverage) / 2, (1 + coverage) / 2]).tolist())
        quantile_L = np.quantile(np.maximum(error_R / high, -error_R / low), levels_L)
        nominal = quantile_L[levels_L.index(coverage)]
        unit = np.full(errors.leads, nominal)
        is_known_L = np.ones(len(levels_L), bool)
        columns.append(Column(low * unit, high * unit, flat, _factors(quantile_L, nominal), is_known_L, flat, flat, flat))
    return columns


def season_spread(days_D: np.ndarray, relative_D: np.ndarray, weight_D: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the spread at `SEASON_POINTS` of the year, the spread of each date as other years and seasons show it).

    relative_D: mean error of each date over that of all dates. Both are 1 for dates of less than a year.
    """
    if np.ptp(days_D) < TROPICAL_YEAR_DAYS:
        return np.ones(1), np.ones(len(days_D))
    prior = SEASON_PRIOR_DATES * weight_D.mean()

    def smoothed(at_M: np.ndarray, is_used_MD: np.ndarray) -> np.ndarray:
        apart_MD = np.abs(at_M[:, None] - days_D) % TROPICAL_YEAR_DAYS
        apart_MD = np.minimum(apart_MD, TROPICAL_YEAR_DAYS - apart_MD)
        near_MD = np.exp(-((apart_MD / SEASON_WIDTH_DAYS) ** 2) / 2) * weight_D * is_used_MD
        spread_M: np.ndarray = (near_MD @ relative_D + prior) / (near_MD.sum(axis=1) + prior)
        return spread_M

    points_S = np.arange(SEASON_POINTS) * TROPICAL_YEAR_DAYS / SEASON_POINTS
    is_far_DD = np.abs(days_D[:, None] - days_D) > UNSEEN_AFTER_TARGET_DAYS
    return smoothed(points_S, np.ones((SEASON_POINTS, len(days_D)))), smoothed(days_D, is_far_DD)


def value_spread(
    error_of_date: list[np.ndarray], value_of_date: list[np.ndarray], weight_D: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], list[np.ndarray]]:
    """((forecasts, rising; spread of errors below the forecast there; above), the errors of each date over the others' spread).

    Spread: mean size of the errors with forecasts in a bin, on one side, over that of all; shrunk towards 1. The bins hold
    `VALUE_EDGES` of all forecasts; a value that is frequent, such as no rain, is a bin of its own.
    """
    edges = np.unique(np.quantile(np.concatenate(value_of_date), VALUE_EDGES))
    sums_DQB = np.zeros((len(weight_D), 4, len(edges) + 1))
    for sums_QB, error_n, value_n, weight in zip(sums_DQB, error_of_date, value_of_date, weight_D, strict=True):
        bin_n = np.searchsorted(edges, value_n)
        for q, part_n in enumerate((np.ones_like(error_n), value_n, np.maximum(-error_n, 0), np.maximum(error_n, 0))):
            sums_QB[q] = np.bincount(bin_n, part_n, len(edges) + 1) * weight / len(error_n)
    is_there_B = sums_DQB[:, 0].any(axis=0)
    sums_DQB = sums_DQB[:, :, is_there_B]
    total_QB = sums_DQB.sum(axis=0)
    value_V = total_QB[1] / total_QB[0]
    prior_B = VALUE_PRIOR_DATES * total_QB[0] / np.count_nonzero(sums_DQB[:, 0], axis=0)
    mean_S1 = np.maximum(total_QB[2:].sum(axis=1, keepdims=True) / total_QB[0].sum(), 1e-12)

    def spread(sums_QB: np.ndarray) -> np.ndarray:
        spread_SB: np.ndarray = (sums_QB[2:] / mean_S1 + prior_B) / (sums_QB[0] + prior_B)
        return spread_SB

    scaled = []
    for sums_QB, error_n, value_n in zip(sums_DQB, error_of_date, value_of_date, strict=True):
        below_n, above_n = (np.interp(value_n, value_V, spread_V) for spread_V in spread(total_QB - sums_QB))
        scaled.append(error_n / np.where(error_n < 0, below_n, above_n))
    return (value_V, *spread(total_QB)), scaled


def asymmetry(scaled: list[np.ndarray], weight_D: np.ndarray, coverage: float) -> tuple[float, float]:
    """(below, above), both positive: the quantiles of the scaled errors that leave half of the miss on either side."""
    dates, miss = len(scaled), (1 - coverage) / 2
    both = [*scaled, *[-group for group in scaled]]
    weights = np.concatenate([weight_D, weight_D * min(MIRRORED_DATES / dates, 1.0)])
    values = np.concatenate(both)
    of_value = np.concatenate([np.full(len(group), w / len(group)) for group, w in zip(both, weights, strict=True)])
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(of_value[order]) / of_value.sum()
    low, high = values[order[np.searchsorted(reached, [miss, 1 - miss]).clip(max=len(order) - 1)]].tolist()
    return _open(low, high)


def _open(low: float, high: float) -> tuple[float, float]:
    """(-low, high), both positive: of errors of one sign only the other side stays open by a little."""
    least = max(-low, high, 1e-12) / 100
    return max(-low, least), max(high, least)
