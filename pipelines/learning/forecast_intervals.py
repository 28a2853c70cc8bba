"""Intervals of forecasts from the errors of a baseline over all of the past, as wide as the season asks for.

A validation season has a dozen dates, too few for a quantile of 90 %; the past has many. A forecaster that has learnt from the
training windows has no honest errors there, but a baseline has, whose forecast of a date uses other dates only: `usable_N` of a
training window leaves out what lies between its issue date and half a year after its targets. So

    margin(lead, day) = mean error of the baseline (lead) x spread (day) x quantile x level x ratio

mean error and spread: of the baseline's absolute errors over the target dates of training and validation; the spread is their
mean around the day of the year, relative to that of the whole year, shrunk towards it where few dates are near.
quantile: below and above, of the errors so scaled (they are skewed: haze lowers many indices), then both times one conformal
factor, so that only one quantile is corrected for the dates being few. For a new date the spread knows nothing of its year, so
of calibration dates it is calculated without their own half year before and after.
level: mean error on validation over what the season lets expect, shrunk towards 1: the latest dates say most of the next ones.
ratio: mean absolute error of the forecaster over that of the baseline, on the validation windows; 1 for a baseline.

Axes as in `conformal`; R errors of single pixels, D target dates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import length_hint
from typing import NamedTuple

import numpy as np

from pipelines.calendar import TROPICAL_YEAR_DAYS, seconds_of
from pipelines.errors import RequestError
from pipelines.learning.conformal import Intervals, forecast_window, left_out_quantiles
from pipelines.predictors import Forecaster
from pipelines.progress import Progress
from pipelines.samples.plan import UNSEEN_AFTER_TARGET_DAYS
from pipelines.samples.sampling import WindowArrays

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SEASON_POINTS = 73  # every fifth day
SEASON_WIDTH_DAYS = 20.0  # standard deviation of the kernel
SEASON_PRIOR_DATES = 6.0  # so many dates with the mean spread count everywhere
MIRRORED_DATES = 20.0  # so many dates with the errors' signs exchanged count in the shape: a few dates may err alike by chance
LEVEL_PRIOR_DATES = 40  # so many dates of the usual error count beside those of validation, if there are as many before
ENOUGH_WINDOWS = 1000  # of the past


class Sampled(NamedTuple):
    """Some valid pixels of a frame: their places in the flat image, and how many valid ones there are."""

    lead: int
    seconds: float
    place_n: np.ndarray
    valid: int


def sample_pixels(window: WindowArrays, pixels_per_frame: int, rng: np.random.Generator) -> list[Sampled]:
    """At most `pixels_per_frame` random valid target pixels of each lead that has any."""
    found = []
    for k, (day, valid_HW) in enumerate(zip(window.target_days_K.tolist(), window.target_valid_KHW.numpy(), strict=True)):
        (place_n,) = np.nonzero(valid_HW.reshape(-1))
        if (count := len(place_n)) > 0:
            some_n = place_n if count <= pixels_per_frame else np.sort(rng.choice(place_n, pixels_per_frame, replace=False))
            found.append(Sampled(k, float(seconds_of(day)), some_n, count))
    return found


def values_at(image_CHW: np.ndarray, place_n: np.ndarray) -> np.ndarray:
    """(C, n)."""
    return image_CHW.reshape(len(image_CHW), -1)[:, place_n]


@dataclass
class Errors:
    """Errors (truth - forecast) of one forecaster by lead and target date: some of each frame, and how many there were."""

    of_frame: dict[tuple[int, float], list[np.ndarray]] = field(default_factory=dict)  # (lead, seconds): [(C, n)]
    pixels: dict[tuple[int, float], int] = field(default_factory=dict)

    def add(self, window: WindowArrays, y_KCHW: np.ndarray, sampled: list[Sampled]) -> None:
        target_KCHW = window.target_KCHW.numpy()
        for k, seconds, place_n, valid in sampled:
            error_Cn = values_at(target_KCHW[k], place_n) - values_at(y_KCHW[k], place_n)
            self.of_frame.setdefault((k, seconds), []).append(error_Cn)
            self.pixels[k, seconds] = self.pixels.get((k, seconds), 0) + valid

    def joined(self, other: Errors) -> Errors:
        keys = self.pixels.keys() | other.pixels.keys()
        frames = {key: self.of_frame.get(key, []) + other.of_frame.get(key, []) for key in keys}
        return Errors(frames, {key: self.pixels.get(key, 0) + other.pixels.get(key, 0) for key in keys})

    @property
    def leads(self) -> int:
        return 1 + max((k for k, _ in self.pixels), default=-1)

    @property
    def dates(self) -> int:
        """Of the lead that has the fewest."""
        return min(sum(key[0] == k for key in self.pixels) for k in range(self.leads))

    def frame(self, key: tuple[int, float]) -> np.ndarray:
        """All errors of a lead and date, (C, n) float64."""
        return np.concatenate(self.of_frame[key], axis=1).astype(np.float64)

    def mean_C(self) -> np.ndarray:
        """Mean absolute error of each variable, (C,)."""
        sums = [np.abs(self.frame(key)).mean(axis=1) * count for key, count in self.pixels.items()]
        mean_C: np.ndarray = np.sum(sums, axis=0) / sum(self.pixels.values())
        return mean_C


class Calibrated(NamedTuple):
    """What `calibrate` finds for a forecaster: its intervals, and plain quantiles of its errors on validation to compare with."""

    intervals: Intervals
    constant: Intervals | None = None


class Column(NamedTuple):
    """The intervals of one variable: margins by lead, the season's spread, factors of the levels, and which are no maximum."""

    below_K: np.ndarray
    above_K: np.ndarray
    season_S: np.ndarray
    factor_L: np.ndarray
    bounded_L: np.ndarray


def calibrate(
    forecasters: Mapping[str, Forecaster], past: Sequence[str], training: Iterable[WindowArrays],
    validation: Iterable[WindowArrays], coverage: float = 0.9, progress: Progress | None = None, *,
    limits_C: tuple[tuple[float, float] | None, ...] = (), pixels_per_frame: int = 1000, seed: int = 0,
) -> dict[str, Calibrated]:  # fmt: skip
    """The intervals of every forecaster by name.

    past: those whose forecast of a training window depends on nothing that the window does not allow to be used, apart from a
    few constants; the intervals of each other one have the shape of that among these which has the smallest error on validation.
    No forecaster may have learnt from `validation`: the intervals of one that is refitted for the test are those of its twin
    from before. limits_C: the variables' valid ranges. Of larger frames `pixels_per_frame` random valid pixels are used.

    Raises RequestError where a lead has no valid pixel.
    """
    known = [name for name in past if name in forecasters]
    recent, former = collect(forecasters, known, training, validation, progress, pixels_per_frame, seed)
    whole = {name: errors.joined(former[name]) if name in former else errors for name, errors in recent.items()}
    seconds_V = np.unique([seconds for errors in recent.values() for _, seconds in errors.pixels])
    mean_of = {name: errors.mean_C() for name, errors in recent.items()}
    columns_of = {name: _columns(whole[name], seconds_V, coverage) for name in (known or forecasters)}
    result = {}
    for name, mean_C in mean_of.items():
        shapes = [name if name in columns_of else _best(mean_of, known, c) for c in range(len(mean_C))]
        columns = [
            _scaled(columns_of[shape][c], mean_of[name][c] / mean_of[shape][c] if mean_of[shape][c] > 0 else 1.0)
            for c, shape in enumerate(shapes)
        ]
        dates = min(whole[shape].dates for shape in shapes)
        plain = _intervals(_plain_columns(recent[name], coverage), coverage, recent[name].dates, limits_C)
        result[name] = Calibrated(_intervals(columns, coverage, dates, limits_C), plain)
    return result


def collect(
    forecasters: Mapping[str, Forecaster], past: Sequence[str], training: Iterable[WindowArrays],
    validation: Iterable[WindowArrays], progress: Progress | None, pixels_per_frame: int, seed: int,
) -> tuple[dict[str, Errors], dict[str, Errors]]:  # fmt: skip
    """(errors of all on validation, errors of `past` on training), by name; of all on the same pixels."""
    rng, done = np.random.default_rng(seed), 0
    total = length_hint(validation) + min(length_hint(training), ENOUGH_WINDOWS)
    recent, former = {name: Errors() for name in forecasters}, {name: Errors() for name in past}
    for windows, found in ((validation, recent), (spread_out(training, ENOUGH_WINDOWS) if past else (), former)):
        for window in windows:
            sampled = sample_pixels(window, pixels_per_frame, rng)
            for name, errors in found.items():
                errors.add(window, forecast_window(forecasters[name], window), sampled)
            done += 1
            if progress:
                progress(done, max(done, total))
    seen = next(iter(recent.values())).pixels
    if not seen or len({k for k, _ in seen}) <= max(k for k, _ in seen):
        raise RequestError("a lead has no valid pixel in the calibration windows; mend `split` or samples.min_valid_fraction")
    return recent, former


def _best(mean_of: Mapping[str, np.ndarray], names: Sequence[str], c: int) -> str:
    return min(names, key=lambda name: float(mean_of[name][c]))


def _scaled(column: Column, ratio: float) -> Column:
    return column._replace(below_K=column.below_K * ratio, above_K=column.above_K * ratio)


def _intervals(columns: list[Column], coverage: float, dates: int, limits_C: tuple[tuple[float, float] | None, ...]) -> Intervals:
    def rows(array: np.ndarray) -> tuple[tuple[float, ...], ...]:
        return tuple(map(tuple, array.tolist()))

    levels_L, bounded_L = levels_with(coverage), np.all([column.bounded_L for column in columns], axis=0)
    has_season = any(len(column.season_S) > 1 for column in columns)
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
    )


def levels_with(coverage: float) -> tuple[float, ...]:
    """`LEVELS` and the nominal one, rising."""
    return tuple(sorted({*LEVELS, coverage}))


def spread_out(windows: Iterable[WindowArrays], most: int) -> Iterator[WindowArrays]:
    """About `most` of the windows, evenly over tiles and issue dates, in whatever order these alternate.

    Which: i such that the fraction of i x golden ratio is small (Kronecker's sequence), which is in step with no period.
    """
    share = most / max(length_hint(windows), 1)
    for number, window in enumerate(windows):
        if number * (math.sqrt(5) - 1) / 2 % 1 < share:
            yield window


# ---------------------------------------------------------------- the shape of one variable's intervals


def _columns(errors: Errors, seconds_V: np.ndarray, coverage: float) -> list[Column]:
    """seconds_V: the target dates of validation."""
    keys, levels_L = sorted(errors.pixels), levels_with(coverage)
    frames = [errors.frame(key) for key in keys]
    seconds_D, date_F = np.unique([seconds for _, seconds in keys], return_inverse=True)
    pixels_F, lead_F = np.array([errors.pixels[key] for key in keys], np.float64), np.array([k for k, _ in keys])
    weight_D, columns = np.bincount(date_F, pixels_F), []
    for c in range(len(frames[0])):
        mean_F = np.array([np.abs(frame[c]).mean() for frame in frames])
        mean_K = np.bincount(lead_F, pixels_F * mean_F) / np.bincount(lead_F, pixels_F)
        unit_K = np.where(mean_K > 0, mean_K, 1.0)
        relative_D = np.bincount(date_F, pixels_F * mean_F / unit_K[lead_F]) / weight_D
        season_S, spread_D = season_spread(seconds_D / 86_400, relative_D, weight_D)
        level = _recent_level(relative_D / spread_D, weight_D, np.isin(seconds_D, seconds_V))
        scaled = [frame[c] / (unit_K[k] * spread_D[d]) for frame, k, d in zip(frames, lead_F, date_F, strict=True)]
        of_date = [np.concatenate([scaled[f] for f in np.flatnonzero(date_F == d)]) for d in range(len(seconds_D))]
        low, high = asymmetry(of_date, weight_D, coverage)
        scores = [np.maximum(u / high, -u / low) for u in of_date]
        quantile_L, bounded_L = left_out_quantiles(scores, levels_L, weight_D)
        nominal = quantile_L[levels_L.index(coverage)]
        unit = level * nominal * mean_K
        columns.append(Column(low * unit, high * unit, season_S, _factors(quantile_L, nominal), bounded_L))
    return columns


def _factors(quantile_L: np.ndarray, nominal: float) -> np.ndarray:
    return quantile_L / nominal if nominal > 0 else np.ones_like(quantile_L)


def _recent_level(relative_D: np.ndarray, weight_D: np.ndarray, is_recent_D: np.ndarray) -> float:
    """Mean error of the recent dates over what the season lets expect, shrunk towards 1."""
    recent = int(is_recent_D.sum())
    usual = min(len(relative_D) - recent, LEVEL_PRIOR_DATES)
    mean = float(np.average(relative_D[is_recent_D], weights=weight_D[is_recent_D]))
    return (recent * mean + usual) / (recent + usual)


def _plain_columns(errors: Errors, coverage: float) -> list[Column]:
    """Quantiles of all errors, the same for every lead and day."""
    levels_L, columns = levels_with(coverage), []
    for error_R in np.concatenate([errors.frame(key) for key in errors.pixels], axis=1):
        low, high = _open(*np.quantile(error_R, [(1 - coverage) / 2, (1 + coverage) / 2]).tolist())
        quantile_L = np.quantile(np.maximum(error_R / high, -error_R / low), levels_L)
        nominal = quantile_L[levels_L.index(coverage)]
        unit = np.full(errors.leads, nominal)
        columns.append(Column(low * unit, high * unit, np.ones(1), _factors(quantile_L, nominal), np.ones(len(levels_L), bool)))
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


def asymmetry(scaled: list[np.ndarray], weight_D: np.ndarray, coverage: float) -> tuple[float, float]:
    """(below, above), both positive: the quantiles of the scaled errors that leave half of the miss on either side."""
    dates, miss = len(scaled), (1 - coverage) / 2
    both = [*scaled, *[-group for group in scaled]]
    weights = np.concatenate([weight_D, weight_D * (MIRRORED_DATES / dates)])
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
