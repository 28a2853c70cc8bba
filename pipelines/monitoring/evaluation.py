"""How well a monitor would have done: false alarms where nothing changed, simulated breaks, change that the images show.

Stable pixels (pipelines.monitoring.stable) are monitored as they are, for the false alarms, and with a simulated permanent break
of each size on a monitored date, the same for 8 x 8 pixels, four times over so that every date comes up equally often. Found is
an alarm from that date on within a year; the delay runs from the break to the alarm. A pixel that had alarmed before its break
counts as a false alarm and is left out of what is found.

Change seen in the images is the first year whose best season lies more than `limit` beyond the median of the years before: what a
person would draw, not truth on the ground.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines.errors import RequestError
from pipelines.monitoring.calibration import YEAR_DAYS, calibrate, reached_by, resolve
from pipelines.monitoring.detector import NOT_MONITORED, Calibration, Detector, Direction, monitoring
from pipelines.monitoring.injection import assign_break_days, break_choices, inject, patch_numbers
from pipelines.monitoring.stable import YearLevels, first_change_year, year_levels

LEAST_STABLE = 30
LIMIT_OF_DROP = 0.75  # a stable pixel's level moves less than this share of the smallest injected break
RESAMPLES = 2000
REPEATS = 4  # breaks that each pixel goes through, one at a time
WITHIN_DAYS = YEAR_DAYS


@dataclass(frozen=True)
class EvaluationSettings:
    """`drops` in units of the variable, largest number of stable `pixels`, and what the intervals hold (`confidence`).

    `false_alarms` per 1000 pixels and year is the rate at which methods are also compared in hindsight.
    """

    drops: tuple[float, ...] = (0.2, 0.4)
    pixels: int = 2000
    confidence: float = 0.95
    seed: int = 0
    direction: Direction = "both"
    false_alarms: float = 10.0

    @property
    def limit(self) -> float:
        return LIMIT_OF_DROP * min(self.drops)


@dataclass(frozen=True)
class Series:
    """Pixels of one kind: x (N, Y, X), valid, and what belongs to them; history and monitored dates apart."""

    x_NYX: np.ndarray
    valid_NYX: np.ndarray
    days_N: np.ndarray
    use_YX: np.ndarray
    break_day_RYX: np.ndarray
    patch_YX: np.ndarray
    start_day: float

    @property
    def is_history_N(self) -> np.ndarray:
        return self.days_N < self.start_day


def evaluate_monitor(
    detectors: Mapping[str, Detector],
    x_NYX: np.ndarray,
    valid_NYX: np.ndarray,
    days_N: np.ndarray,
    start_day: float,
    settings: EvaluationSettings,
    hindsight: bool = True,
) -> dict[str, Any]:
    """Per detector (calibrated): false alarms, injected breaks and seen change, as JSON; `notes` say what could not be measured.

    x float32 physical values, days float64 since 1970-01-01, ascending; `start_day` is the first monitored one. With `hindsight`
    each method is also evaluated at the threshold that gives exactly the wanted rate on these pixels: not known in practice,
    but all methods then raise as many false alarms.

    Raises RequestError where no date is monitored or none is history.
    """
    _check_dates(days_N, start_day)
    is_history_N = days_N < start_day
    levels = year_levels(x_NYX, valid_NYX, days_N, highest=settings.direction != "up")
    enough_YX = valid_NYX[is_history_N].sum(axis=0) >= max((d.min_history for d in detectors.values()), default=1)
    stable_YX = resolve(levels, settings.limit, settings.direction) & enough_YX
    years = float(days_N[-1] - start_day) / YEAR_DAYS
    result: dict[str, Any] = {
        "start": _date(start_day),
        "end": _date(float(days_N[-1])),
        "years": round(years, 2),
        "limit": settings.limit,
        "season_months": list(levels.months),
        "stable_pixels": int(stable_YX.sum()),
        "monitored_pixels": int(enough_YX.sum()),
        "notes": [],
        "methods": {},
    }
    if not (np.isfinite(levels.level_KYX).sum(axis=0) >= 2).any():
        result["notes"].append("no pixel was seen in the same season of two years: all pixels are taken for stable")
    if stable_YX.sum() < LEAST_STABLE:
        result["notes"].append(
            f"false alarms and delays were not measured: expected at least {LEAST_STABLE} stable pixels, found "
            f"{int(stable_YX.sum())} of {int(enough_YX.sum())} monitored (stable: no year's level moves by more than "
            f"{settings.limit:g}; the limit is {LIMIT_OF_DROP:g} of the smallest of evaluation.drops)"
        )
    if years < 1:
        result["notes"].append(f"only {years:.2f} years are monitored: breaks cannot be followed for a whole year")
    sequence = (x_NYX, valid_NYX, days_N, start_day)
    for name, detector in detectors.items():
        scores: dict[str, Any] = {"threshold": detector.calibration.threshold, "key": detector.key}
        if stable_YX.sum() >= LEAST_STABLE:
            scores |= evaluate_stable(detector, _stable_series(detector, *sequence, stable_YX, settings), settings, hindsight)
        scores["seen_in_images"] = evaluate_seen(detector, *sequence, levels, enough_YX, settings)
        result["methods"][name] = scores
    return result


def calibrate_references(
    references: Mapping[str, Detector],
    x_NYX: np.ndarray,
    valid_NYX: np.ndarray,
    days_N: np.ndarray,
    start_day: float,
    false_alarms: float,
    limit: float | None = None,
) -> dict[str, Detector]:
    """The references with thresholds from the history, in the same way and to the same rate as the monitor's own."""
    return {
        name: calibrate(d, x_NYX, valid_NYX, days_N, false_alarms=false_alarms, start_day=start_day, limit=limit)[0]
        for name, d in references.items()
    }


def evaluate_stable(detector: Detector, series: Series, settings: EvaluationSettings, hindsight: bool) -> dict[str, Any]:
    """`false_alarms` and `drops` at the detector's threshold, and with `hindsight` the drops at the wanted rate exactly."""
    plain, fitted = _monitor_series(detector, series, series.x_NYX)
    if not (series.use_YX & (plain["status"] != NOT_MONITORED)).any():
        return {}  # the detector wants more of a history than was counted
    scores = {
        "false_alarms": false_alarm_rate(plain, series, settings),
        "drops": evaluate_drops(detector, fitted, series, settings),
    }
    if hindsight:
        years = float(series.days_N[-1] - series.start_day) / YEAR_DAYS
        use_YX = series.use_YX & (plain["status"] != NOT_MONITORED)
        share = min(settings.false_alarms / 1000 * years, 1.0)
        threshold = reached_by(plain["score"][use_YX], share)
        matched = replace(detector, calibration=Calibration(threshold))
        scores["at_wanted_rate"] = {"threshold": threshold, "drops": evaluate_drops(matched, fitted, series, settings)}
    return scores


def evaluate_drops(
    detector: Detector, fitted: dict[str, np.ndarray], series: Series, settings: EvaluationSettings
) -> dict[str, dict[str, Any]]:
    """Per size, over all pixels and their breaks: share found, quartiles of delay, error of the date, and magnitude."""
    sign = 1.0 if settings.direction == "up" else -1.0
    scores = {}
    for drop in settings.drops:
        rounds = []
        for break_day_YX in series.break_day_RYX:
            broken_NYX = inject(series.x_NYX, series.days_N, break_day_YX, sign * drop)
            layers, _ = _monitor_series(detector, series, broken_NYX, fitted)
            use_YX = series.use_YX & (layers["status"] != NOT_MONITORED)
            of_break = (layers["detected_day"], break_day_YX, layers["change_day"], layers["magnitude"])
            rounds.append([array[use_YX] for array in of_break])
        detected_P, break_P, change_P, magnitude_P = (np.concatenate(arrays) for arrays in zip(*rounds, strict=True))
        with np.errstate(invalid="ignore"):
            before_P = detected_P < break_P
            found_P = ~before_P & (detected_P - break_P <= WITHIN_DAYS)
        delay_P = (detected_P - break_P)[found_P]
        at_stake = int((~before_P).sum())
        scores[f"{drop:g}"] = {
            "breaks": at_stake,
            "alarmed_before": int(before_P.sum()),
            "found": round(float(found_P.sum()) / at_stake, 4) if at_stake else None,
            "delay_days": _quartiles(delay_P),
            "change_day_error_days": _quartiles(np.abs(change_P - break_P)[found_P]),
            "magnitude": _quartiles(magnitude_P[found_P]),
        }
    return scores


def false_alarm_rate(layers: dict[str, np.ndarray], series: Series, settings: EvaluationSettings) -> dict[str, Any]:
    """Alarms per 1000 pixels and year (monitored until the alarm) and their interval over patches of 8 x 8 pixels.

    Pixels of a patch share haze and alarm together; the interval does not know of years unlike these.
    """
    use_YX = series.use_YX & (layers["status"] != NOT_MONITORED)
    alarm_P = ~np.isnan(layers["detected_day"][use_YX])
    last_P = np.where(alarm_P, layers["detected_day"][use_YX], series.days_N[-1])
    years_P = np.maximum(last_P - series.start_day, 1) / YEAR_DAYS
    _, patch_P = np.unique(series.patch_YX[use_YX], return_inverse=True)
    alarms_B, years_B = np.bincount(patch_P, alarm_P), np.bincount(patch_P, years_P)
    draws = np.random.default_rng(settings.seed).integers(0, len(alarms_B), (RESAMPLES, len(alarms_B)))
    rates = 1000 * alarms_B[draws].sum(axis=1) / years_B[draws].sum(axis=1)
    low, high = np.quantile(rates, [(1 - settings.confidence) / 2, (1 + settings.confidence) / 2])
    return {
        "per_1000_px_year": round(1000 * float(alarm_P.sum() / years_P.sum()), 2),
        "low": round(float(low), 2),
        "high": round(float(high), 2),
        "alarms": int(alarm_P.sum()),
        "pixels": len(alarm_P),
        "pixel_years": round(float(years_P.sum()), 1),
    }


def evaluate_seen(
    detector: Detector,
    x_NYX: np.ndarray,
    valid_NYX: np.ndarray,
    days_N: np.ndarray,
    start_day: float,
    levels: YearLevels,
    enough_YX: np.ndarray,
    settings: EvaluationSettings,
) -> dict[str, dict[str, Any]]:
    """Per year: pixels whose first change the images show in it, the share that alarmed in time, and before.

    In time is from the middle of the last season without it until a year after the season that shows it.
    """
    year_YX = first_change_year(levels, settings.limit, settings.direction)
    year_YX[~enough_YX] = 0
    season_days = [float(np.datetime64(f"{year}-{levels.months[0]:02d}-01", "D").astype(np.int64)) for year in levels.years_K]
    monitored = {int(y): day for y, day in zip(levels.years_K, season_days, strict=True) if day + 45 > start_day}
    use_YX = np.isin(year_YX, list(monitored))
    if not use_YX.any():
        return {}
    series = _series(detector, x_NYX, valid_NYX, days_N, start_day, use_YX, np.zeros((0, *use_YX.shape)), year_YX)
    layers, _ = _monitor_series(detector, series, series.x_NYX)
    scores = {}
    for year, season_day in monitored.items():
        pick_YX = series.use_YX & (series.patch_YX == year) & (layers["status"] != NOT_MONITORED)
        if not pick_YX.any():
            continue
        detected_P = layers["detected_day"][pick_YX]
        low, high = season_day + 45 - YEAR_DAYS, season_day + 92 + YEAR_DAYS
        with np.errstate(invalid="ignore"):
            found_P, before_P = (detected_P >= low) & (detected_P <= high), detected_P < low
        scores[str(year)] = {
            "pixels": int(pick_YX.sum()),
            "found": round(float(found_P.mean()), 4),
            "alarmed_before": int(before_P.sum()),
        }
    return scores


def _stable_series(
    detector: Detector,
    x_NYX: np.ndarray,
    valid_NYX: np.ndarray,
    days_N: np.ndarray,
    start_day: float,
    stable_YX: np.ndarray,
    settings: EvaluationSettings,
) -> Series:
    """At most `settings.pixels` stable pixels with their break days."""
    index_P = np.flatnonzero(stable_YX)
    if len(index_P) > settings.pixels:
        index_P = np.random.default_rng(settings.seed).choice(index_P, settings.pixels, replace=False)
    use_YX = np.zeros(stable_YX.shape, bool)
    use_YX.flat[index_P] = True
    is_monitored_N = days_N >= start_day
    choices_K = break_choices(days_N[is_monitored_N], valid_NYX[is_monitored_N][:, use_YX], WITHIN_DAYS)
    patch_YX = patch_numbers(stable_YX.shape)
    if not len(choices_K):
        choices_K = days_N[is_monitored_N][:1]
    break_day_RYX = assign_break_days(np.where(use_YX, patch_YX, patch_YX[use_YX][0]), choices_K, REPEATS, settings.seed)
    return _series(detector, x_NYX, valid_NYX, days_N, start_day, use_YX, break_day_RYX, patch_YX)


def _series(
    detector: Detector,
    x_NYX: np.ndarray,
    valid_NYX: np.ndarray,
    days_N: np.ndarray,
    start_day: float,
    use_YX: np.ndarray,
    break_day_RYX: np.ndarray,
    patch_YX: np.ndarray,
) -> Series:
    """The used pixels in one row where the detector treats each by itself, else the whole raster."""
    if detector.halo_px:
        return Series(x_NYX, valid_NYX, days_N, use_YX, break_day_RYX, patch_YX, start_day)
    rows = [array[..., use_YX][..., None, :] for array in (x_NYX, valid_NYX, use_YX, break_day_RYX, patch_YX)]
    return Series(rows[0], rows[1], days_N, rows[2], rows[3], rows[4], start_day)


def _monitor_series(
    detector: Detector, series: Series, x_NYX: np.ndarray, fitted: dict[str, np.ndarray] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(layers at the end, fitted); `fitted` may be given where the history is the same."""
    past_N = series.is_history_N
    if fitted is None:
        fitted = detector.fit(x_NYX[past_N], series.valid_NYX[past_N], series.days_N[past_N])
    state = monitoring(detector, fitted, x_NYX[~past_N], series.valid_NYX[~past_N], series.days_N[~past_N])
    return detector.layers(fitted, state), fitted


def _check_dates(days_N: np.ndarray, start_day: float) -> None:
    if not (days_N < start_day).any() or not (days_N >= start_day).any():
        span = f"{_date(float(days_N[0]))} to {_date(float(days_N[-1]))}" if len(days_N) else "no date at all"
        raise RequestError(
            f"monitoring cannot be evaluated: expected dates before and from monitoring.start {_date(start_day)} on, found "
            f"{span}; set monitoring.start between them, or monitor without an evaluation: `driftline monitor CONFIG`"
        )


def _quartiles(values: Sequence[float] | np.ndarray) -> list[float] | None:
    """[lower quartile, median, upper quartile], None of nothing."""
    return [round(float(q), 4) for q in np.quantile(values, [0.25, 0.5, 0.75])] if len(values) else None


def _date(day: float) -> str:
    return str(np.datetime64(math.floor(day), "D"))
