"""How well a monitor would have done: false alarms where nothing changed, simulated breaks, change that the images show.

Stable pixels (pipelines.monitoring.stable) are monitored as they are, for the false alarms, and with a simulated permanent break
of each size on a monitored date, the same for 8 x 8 pixels, four times over so that every date comes up equally often. Found is
an alarm from that date on within a year; the delay runs from the break to the alarm. A pixel that had alarmed before its break
counts as a false alarm and is left out of what is found.

Change seen in the images is the first year whose best season lies more than `limit` beyond the median of the years before: what a
person would draw, not truth on the ground.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines.calendar import iso_date
from pipelines.errors import RequestError
from pipelines.monitoring.calibration import YEAR_DAYS, calibrate, reached_by
from pipelines.monitoring.detector import NOT_MONITORED, Calibration, Detector, Direction, Observations, monitoring
from pipelines.monitoring.sequential_test import Arrays
from pipelines.monitoring.stable import YearLevels, choose_stable, first_change_year, year_levels

LEAST_STABLE = 30
LIMIT_OF_DROP = 0.75  # a stable pixel's level moves less than this share of the smallest injected break
RESAMPLES = 2000
REPEATS = 4  # breaks that each pixel goes through, one at a time
WITHIN_DAYS = YEAR_DAYS
PATCH_PX = 8  # neighbours change together, as a felling does
FITTING_SHARES = (0.02, 5.0)  # a break, of the range of 90 % of the values; outside of these it is in other units
Scores = dict[str, Any]  # JSON values


@dataclass(frozen=True)
class EvaluationSettings:
    """`drops` in units of the variable, largest number of stable `pixels`, and what the intervals hold (`confidence`).
    `false_alarms` per 1000 pixels and year is the rate at which methods are also compared in hindsight."""

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
class Sample:
    """Pixels of one kind: the `series` that they lie in, which (Y, X) they are, and what belongs to them."""

    series: Observations
    start_day: float
    use_YX: np.ndarray
    patch_YX: np.ndarray
    break_day_RYX: np.ndarray

    @property
    def years(self) -> float:
        """From the start to the last date."""
        return float(self.series.days_N[-1] - self.start_day) / YEAR_DAYS

    def for_detector(self, detector: Detector) -> "Sample":
        """The used pixels in one row where the detector treats each by itself, else the whole raster."""
        if detector.halo_px:
            return self
        planes = (self.series.x_NYX, self.series.valid_NYX, self.use_YX, self.patch_YX, self.break_day_RYX)
        x_NYX, valid_NYX, *of_pixels = (array[..., self.use_YX][..., None, :] for array in planes)
        return Sample(Observations(x_NYX, valid_NYX, self.series.days_N), self.start_day, *of_pixels)


def evaluate_monitor(
    detectors: Mapping[str, Detector], series: Observations, start_day: float, settings: EvaluationSettings
) -> Scores:
    """Per detector (calibrated): false alarms, injected breaks and seen change, as JSON; `notes` say what could not be measured.

    `start_day` is the first monitored one; dates are ascending. Each method is also evaluated at the threshold that gives exactly
    the wanted rate on these pixels: not known in practice, but all methods then raise as many false alarms.

    Raises RequestError where no date is monitored or none is history.
    """
    _check_dates(series.days_N, start_day)
    levels = year_levels(series, highest=settings.direction != "up")
    enough_YX = series.before(start_day).valid_NYX.sum(axis=0) >= max((d.min_history for d in detectors.values()), default=1)
    stable_YX = choose_stable(levels, settings.limit, settings.direction) & enough_YX
    stable = _stable_sample(series, start_day, stable_YX, settings) if stable_YX.sum() >= LEAST_STABLE else None
    seen = _seen_sample(series, start_day, levels, enough_YX, settings)
    years = float(series.days_N[-1] - start_day) / YEAR_DAYS
    methods = {}
    for name, detector in detectors.items():
        scores: Scores = {"threshold": detector.calibration.threshold, "key": detector.key}
        scores |= evaluate_stable(detector, stable.for_detector(detector), settings) if stable else {}
        methods[name] = scores | {"seen_in_images": evaluate_seen(detector, seen.for_detector(detector), levels)}
    return {
        "start": iso_date(start_day),
        "end": iso_date(float(series.days_N[-1])),
        "years": round(years, 2),
        "limit": settings.limit,
        "season_months": list(levels.months),
        "stable_pixels": int(stable_YX.sum()),
        "monitored_pixels": int(enough_YX.sum()),
        "notes": [
            *_notes(levels, int(stable_YX.sum()), int(enough_YX.sum()), settings.limit, years),
            *_size_notes(series, settings.drops),
        ],
        "methods": methods,
    }


def _check_dates(days_N: np.ndarray, start_day: float) -> None:
    if not (days_N < start_day).any() or not (days_N >= start_day).any():
        span = f"{iso_date(days_N[0])} to {iso_date(days_N[-1])}" if len(days_N) else "no date at all"
        raise RequestError(
            f"monitoring cannot be evaluated: expected dates before and from monitoring.start {iso_date(start_day)} on, found "
            f"{span}; set monitoring.start between them, or monitor without an evaluation: `driftline monitor CONFIG`"
        )


def _notes(levels: YearLevels, stable: int, monitored: int, limit: float, years: float) -> list[str]:
    notes = []
    if not levels.is_compared_YX.any():
        notes.append("no pixel was seen in the same season of two years: all pixels are taken for stable")
    if stable < LEAST_STABLE:
        notes.append(
            f"false alarms and delays were not measured: expected at least {LEAST_STABLE} stable pixels, found {stable} of "
            f"{monitored} monitored (stable: no year's level moves by more than {limit:g}; the limit is {LIMIT_OF_DROP:g} of the "
            "smallest of evaluation.drops)"
        )
    if years < 1:
        notes.append(f"only {years:.2f} years are monitored: breaks cannot be followed for a whole year")
    return notes


def _size_notes(series: Observations, drops: tuple[float, ...]) -> list[str]:
    """Whether the sizes of the injected breaks fit the values, for instance fractions beside values times 10 000."""
    if not series.valid_NYX.any():
        return []
    low, high = np.quantile(series.x_NYX[series.valid_NYX], (0.05, 0.95))
    spread = float(high - low)
    if spread == 0 or FITTING_SHARES[0] * spread <= max(drops) <= FITTING_SHARES[1] * spread:
        return []
    sizes = ", ".join(f"{drop:g}" for drop in drops)
    return [
        f"the injected breaks ({sizes}) do not fit the values: 90 % of these lie between {low:.3g} and {high:.3g}; set "
        "evaluation.drops in the units of the variable, or give the source a scale"
    ]


def calibrate_references(
    references: Mapping[str, Detector], series: Observations, start_day: float, false_alarms: float
) -> dict[str, Detector]:
    """The references with thresholds from the history, in the same way and to the same rate as the monitor's own."""
    return {
        name: calibrate(detector, series, false_alarms=false_alarms, start_day=start_day)[0]
        for name, detector in references.items()
    }


# ---------------------------------------------------------------- stable pixels, with and without breaks


def evaluate_stable(detector: Detector, sample: Sample, settings: EvaluationSettings) -> Scores:
    """`false_alarms` and `drops` at the detector's threshold, and `at_wanted_rate` the drops at the wanted rate exactly."""
    fitted = detector.fit(*sample.series.before(sample.start_day))
    plain = _layers_at_end(detector, fitted, sample.series, sample.start_day)
    use_YX = sample.use_YX & (plain["status"] != NOT_MONITORED)
    if not use_YX.any():
        return {}  # the detector wants more of a history than was counted
    threshold = reached_by(plain["score"][use_YX], min(settings.false_alarms / 1000 * sample.years, 1.0))
    matched = replace(detector, calibration=Calibration(threshold))
    return {
        "false_alarms": false_alarm_rate(plain["detected_day"][use_YX], sample.patch_YX[use_YX], sample, settings),
        "drops": evaluate_drops(detector, fitted, sample, settings),
        "at_wanted_rate": {"threshold": threshold, "drops": evaluate_drops(matched, fitted, sample, settings)},
    }


def false_alarm_rate(detected_P: np.ndarray, patch_P: np.ndarray, sample: Sample, settings: EvaluationSettings) -> Scores:
    """Alarms per 1000 pixels and year (monitored until the alarm) and their interval over patches of 8 x 8 pixels. Pixels of a
    patch share haze and alarm together; the interval does not know of years unlike these."""
    alarm_P = ~np.isnan(detected_P)
    last_P = np.where(alarm_P, detected_P, sample.series.days_N[-1])
    years_P = np.maximum(last_P - sample.start_day, 1) / YEAR_DAYS
    _, patch_P = np.unique(patch_P, return_inverse=True)
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


def evaluate_drops(detector: Detector, fitted: Arrays, sample: Sample, settings: EvaluationSettings) -> dict[str, Scores]:
    """Per size, over all pixels and their breaks: share found, quartiles of delay, error of the date, and magnitude."""
    sign, series, scores = 1.0 if settings.direction == "up" else -1.0, sample.series, {}
    for drop in settings.drops:
        rounds = []
        for break_day_YX in sample.break_day_RYX:
            broken = series._replace(x_NYX=inject(series, break_day_YX, sign * drop))
            layers = _layers_at_end(detector, fitted, broken, sample.start_day)
            use_YX = sample.use_YX & (layers["status"] != NOT_MONITORED)
            of_break = (layers["detected_day"], break_day_YX, layers["change_day"], layers["magnitude"])
            rounds.append([array[use_YX] for array in of_break])
        detected_P, break_P, change_P, magnitude_P = (np.concatenate(arrays) for arrays in zip(*rounds, strict=True))
        with np.errstate(invalid="ignore"):
            before_P = detected_P < break_P
            found_P = ~before_P & (detected_P - break_P <= WITHIN_DAYS)
        at_stake = int((~before_P).sum())
        scores[f"{drop:g}"] = {
            "breaks": at_stake,
            "alarmed_before": int(before_P.sum()),
            "found": round(float(found_P.sum()) / at_stake, 4) if at_stake else None,
            "delay_days": _quartiles((detected_P - break_P)[found_P]),
            "change_day_error_days": _quartiles(np.abs(change_P - break_P)[found_P]),
            "magnitude": _quartiles(magnitude_P[found_P]),
        }
    return scores


def _layers_at_end(detector: Detector, fitted: Arrays, series: Observations, start_day: float) -> Arrays:
    return detector.layers(fitted, monitoring(detector, fitted, *series.since(start_day)))


def _quartiles(values: np.ndarray) -> list[float] | None:
    """[lower quartile, median, upper quartile], None of nothing."""
    return [round(float(q), 4) for q in np.quantile(values, [0.25, 0.5, 0.75])] if len(values) else None


def _stable_sample(series: Observations, start_day: float, stable_YX: np.ndarray, settings: EvaluationSettings) -> Sample:
    """At most `settings.pixels` stable pixels with their break days."""
    index_P = np.flatnonzero(stable_YX)
    if len(index_P) > settings.pixels:
        index_P = np.random.default_rng(settings.seed).choice(index_P, settings.pixels, replace=False)
    use_YX = np.zeros(stable_YX.shape, bool)
    use_YX.flat[index_P] = True
    monitored = series.since(start_day)
    choices_K = break_choices(monitored.days_N, monitored.valid_NYX[:, use_YX], WITHIN_DAYS)
    choices_K = choices_K if len(choices_K) else monitored.days_N[:1]
    patch_YX = patch_numbers(stable_YX.shape)
    break_day_RYX = assign_break_days(np.where(use_YX, patch_YX, patch_YX[use_YX][0]), choices_K, REPEATS, settings.seed)
    return Sample(series, start_day, use_YX, patch_YX, break_day_RYX)


# ---------------------------------------------------------------- injected breaks


def patch_numbers(shape_yx: tuple[int, ...], patch_px: int = PATCH_PX) -> np.ndarray:
    """(Y, X) int64: the number of the square of `patch_px` that each pixel lies in."""
    rows, columns = np.arange(shape_yx[0]) // patch_px, np.arange(shape_yx[1]) // patch_px
    number_YX: np.ndarray = rows[:, None] * (columns[-1] + 1) + columns[None]
    return number_YX


def break_choices(days_N: np.ndarray, valid_NP: np.ndarray, within_days: float) -> np.ndarray:
    """Dates on which a break may fall: those that saw something and leave `within_days` to find it; (K,) float64. Where the
    series is too short for that, the first half of those that saw something."""
    seen_K: np.ndarray = days_N[valid_NP.mean(axis=1) > 0.05]
    early_K: np.ndarray = seen_K[seen_K <= days_N[-1] - within_days]
    return early_K if len(early_K) else seen_K[: max(1, len(seen_K) // 2)]


def assign_break_days(patch_YX: np.ndarray, days_K: np.ndarray, repeats: int, seed: int) -> np.ndarray:
    """(R, Y, X) float64: `repeats` of `days_K` per patch, the same for the same seed.

    Assigned in turn, not drawn: every date comes up equally often (within one), and a patch gets dates far apart. There are
    so few dates that the median delay would otherwise depend on the draw.
    """
    numbers_B, rank_YX = np.unique(patch_YX, return_inverse=True)
    break_B = np.random.default_rng(seed).permutation(len(numbers_B))
    shifts_R = np.arange(repeats) * len(days_K) // repeats
    day_RYX: np.ndarray = days_K[(break_B[rank_YX.reshape(patch_YX.shape)] + shifts_R[:, None, None]) % len(days_K)]
    return day_RYX


def inject(series: Observations, break_day_YX: np.ndarray, step: float) -> np.ndarray:
    """A new array: `x` with `step` (units of the variable) added from each pixel's break day on, that day included. The step is
    permanent and the noise is the pixel's own: what is left of the series is real."""
    is_after_NYX = series.days_N[:, None, None] >= break_day_YX
    return series.x_NYX + np.float32(step) * is_after_NYX


# ---------------------------------------------------------------- change that the images show


def _seen_sample(
    series: Observations, start_day: float, levels: YearLevels, enough_YX: np.ndarray, settings: EvaluationSettings
) -> Sample:
    """The pixels whose first change the images show in a monitored season; `patch_YX` is its year."""
    year_YX = np.where(enough_YX, first_change_year(levels, settings.limit, settings.direction), 0)
    use_YX = np.isin(year_YX, list(_monitored_seasons(levels, start_day)))
    return Sample(series, start_day, use_YX, year_YX, np.zeros((0, *use_YX.shape)))


def _monitored_seasons(levels: YearLevels, start_day: float) -> dict[int, float]:
    """Year -> first day of its season, of the seasons that are not over when monitoring starts."""
    first_days = {int(y): float(np.datetime64(f"{y}-{levels.months[0]:02d}-01", "D").astype(np.int64)) for y in levels.years_K}
    return {year: day for year, day in first_days.items() if day + 45 > start_day}


def evaluate_seen(detector: Detector, sample: Sample, levels: YearLevels) -> dict[str, Scores]:
    """Per year: pixels whose first change the images show in it, the share that alarmed in time, and before. In time is from the
    middle of the last season without it until a year after the season that shows it."""
    if not sample.use_YX.any():
        return {}
    fitted = detector.fit(*sample.series.before(sample.start_day))
    layers = _layers_at_end(detector, fitted, sample.series, sample.start_day)
    scores = {}
    for year, season_day in _monitored_seasons(levels, sample.start_day).items():
        pick_YX = sample.use_YX & (sample.patch_YX == year) & (layers["status"] != NOT_MONITORED)
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
