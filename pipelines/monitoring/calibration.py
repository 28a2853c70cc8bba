"""The threshold of a test from the history alone, to a stated rate of false alarms.

Each whole year of the history (the newest eight) is left out in turn, what is expected is fitted on the other years, and the
year is monitored as if it were new. How large the statistic gets in stable pixels is how large it gets where nothing changes; the
threshold is what only `false_alarms` of 1000 pixels reach within a year. Whole years keep together what belongs together: the
haze of a date lies over all pixels, and a late spring over weeks.

What this cannot know is a year unlike those of the history. With three years of history the rate that is then met is uncertain by
a factor of two or so; evaluation measures it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from pipelines.errors import RequestError
from pipelines.monitoring.detector import CONFIDENCE_LEVELS, NOT_MONITORED, Calibration, Detector, monitoring
from pipelines.monitoring.stable import YearLevels, stable_pixels, year_levels

YEAR_DAYS = 365.25
LEAST_DATES = 4  # a year with fewer dates is no year to learn from
LEAST_PIXELS = 30
MOST_YEARS = 8  # the newest; a fit each
LEAST_THRESHOLD = 1e-3  # of a history without any noise
SPREADS = 3.0  # a level that falls by more than so many spreads is not stable
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class CalibrationReport:
    """What a calibration rests on: stable `pixels`, the `years` left out in turn (their first days, ISO) with the threshold that
    each one alone would give, and the `limit` in units of the variable that a stable pixel's yearly level keeps to.
    """

    pixels: int
    years: dict[str, float]
    limit: float

    def to_json(self) -> dict[str, Any]:
        """For JSON: an unknown limit is None."""
        return {"pixels": self.pixels, "years": self.years, "limit": self.limit if math.isfinite(self.limit) else None}


def calibrate(
    detector: Detector,
    x_NYX: np.ndarray,
    valid_NYX: np.ndarray,
    days_N: np.ndarray,
    *,
    false_alarms: float,
    start_day: float,
    threshold: float | None = None,
    limit: float | None = None,
    pixels: int = 5000,
    seed: int = 0,
) -> tuple[Detector, CalibrationReport]:
    """(the detector with its threshold, what that rests on), from dates before `start_day`; later ones are not used.

    `false_alarms` per 1000 stable pixels and year. With `threshold` given only the confidence is calibrated, where the history
    allows. `limit` is how far a stable pixel's yearly level may fall (rise, where only rises are sought); default: three times
    the median spread.

    Raises RequestError if the history has no two years to learn from, or too few stable pixels for that rate.
    """
    is_history_N = days_N < start_day
    x_NYX, valid_NYX, days_N = x_NYX[is_history_N], valid_NYX[is_history_N], days_N[is_history_N]
    probe = replace(detector, calibration=Calibration(math.inf))
    folds = list(islice(_years(days_N, start_day), MOST_YEARS))
    if not folds and threshold is not None:
        return replace(detector, calibration=Calibration(threshold)), CalibrationReport(0, {}, limit or math.inf)
    if not folds:
        raise RequestError(_too_short(days_N, start_day))
    if limit is None:
        limit = _default_limit(probe, x_NYX, valid_NYX, days_N)
    sense = "up" if detector.direction == "up" else "down"  # losses are abrupt; slow growth is what a monitor lives with
    use_YX = resolve(year_levels(x_NYX, valid_NYX, days_N, highest=sense == "down"), limit, sense)
    enough_YX = valid_NYX.sum(axis=0) >= detector.min_history
    if threshold is None and not enough_YX.any():
        raise RequestError(_none_monitored(detector.min_history, int(valid_NYX.sum(axis=0).max(initial=0)), start_day))
    use_YX &= enough_YX
    if detector.halo_px == 0:  # pixels do not know of each other: only those that are used are computed
        x_NYX, valid_NYX, use_YX = take_pixels(x_NYX, valid_NYX, use_YX, pixels, seed)
    maxima, years = [], {}
    for first_day, is_out_N in folds if use_YX.any() else []:
        kept = probe.min_history * float((~is_out_N).mean())
        fold = replace(probe, min_history=max(4, math.floor(kept)))
        fitted = fold.fit(x_NYX[~is_out_N], valid_NYX[~is_out_N], days_N[~is_out_N])
        layers = fold.layers(fitted, monitoring(fold, fitted, x_NYX[is_out_N], valid_NYX[is_out_N], days_N[is_out_N]))
        score_P = layers["score"][use_YX & (layers["status"] != NOT_MONITORED)]
        if len(score_P) >= LEAST_PIXELS:
            maxima.append(score_P)
            years[str(np.datetime64(math.floor(first_day), "D"))] = reached_by(score_P, false_alarms / 1000)
    pooled = np.concatenate(maxima) if maxima else np.empty(0)
    if threshold is None and len(pooled) * false_alarms < 1000:
        raise RequestError(_too_few(len(pooled), false_alarms))
    calibration = Calibration(
        reached_by(pooled, false_alarms / 1000) if threshold is None else threshold,
        false_alarms if threshold is None else None,
        tuple(float(np.quantile(pooled, level)) for level in CONFIDENCE_LEVELS) if len(pooled) else (),
    )
    return replace(detector, calibration=calibration), CalibrationReport(int(use_YX.sum()), years, float(limit))


def resolve(levels: YearLevels, limit: float, direction: str) -> np.ndarray:
    """(Y, X) bool: stable pixels, two pixels off any change where that leaves enough of them, else nearer to it.

    Where no pixel has levels of two years, all pixels.
    """
    if (np.isfinite(levels.level_KYX).sum(axis=0) < 2).all():
        return np.ones(levels.level_KYX.shape[1:], bool)
    for away_px in (2, 1, 0):
        stable_YX = stable_pixels(levels, limit, direction, away_px)
        if stable_YX.sum() >= 1000 or away_px == 0:
            break
    return stable_YX


def take_pixels(
    x_NYX: np.ndarray, valid_NYX: np.ndarray, use_YX: np.ndarray, pixels: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, valid, use) of at most `pixels` of the used pixels, in one row: (N, 1, P), (N, 1, P), (1, P)."""
    index_P = np.flatnonzero(use_YX)
    if len(index_P) > pixels:
        index_P = np.sort(np.random.default_rng(seed).choice(index_P, pixels, replace=False))
    flat = (len(x_NYX), 1, -1)
    return x_NYX.reshape(flat)[..., index_P], valid_NYX.reshape(flat)[..., index_P], np.ones((1, len(index_P)), bool)


def reached_by(value_P: np.ndarray, share: float) -> float:
    """The smallest of the values that at most `share` of them reach (just beyond the largest, if none is); never 0.

    An alarm is raised where the threshold is reached. A capped sum often takes the very same values (five full steps of 2
    are 10), so "reached" and "exceeded" differ by a whole date of delay.
    """
    levels, first = np.unique(np.sort(value_P), return_index=True)
    is_few = len(value_P) - first <= share * len(value_P) + 1e-9
    least = levels[np.argmax(is_few)] if is_few.any() else np.nextafter(levels[-1], np.array(np.inf, levels.dtype))
    return max(float(least), LEAST_THRESHOLD)


def _default_limit(probe: Detector, x_NYX: np.ndarray, valid_NYX: np.ndarray, days_N: np.ndarray) -> float:
    fitted = probe.fit(x_NYX, valid_NYX, days_N)
    known_YX = probe.monitored(fitted)
    if not known_YX.any():
        return math.inf
    state = probe.value_model.begin(fitted)
    spreads_N = [np.median(probe.value_model.predict(fitted, state, float(day))[1][known_YX]) for day in days_N]
    return SPREADS * float(np.median(spreads_N))


def _years(days_N: np.ndarray, start_day: float) -> Iterator[tuple[float, np.ndarray]]:
    """(first day, which dates) of each year of the history, counted back from its end, that leaves others to fit on."""
    last = start_day
    while len(days_N) and last > days_N[0]:
        first = last - YEAR_DAYS
        is_out_N = (days_N >= first) & (days_N < last)
        others = days_N[~is_out_N]
        is_whole = first >= days_N[0] - YEAR_DAYS / 4
        if is_whole and is_out_N.sum() >= LEAST_DATES and len(others) >= 2 * LEAST_DATES:
            yield first, is_out_N
        last = first


def _too_short(days_N: np.ndarray, start_day: float) -> str:
    start = np.datetime64(math.floor(start_day), "D")
    found = "no date" if not len(days_N) else f"{len(days_N)} dates over {(start_day - days_N[0]) / YEAR_DAYS:.1f} years"
    return (
        f"a threshold cannot be calibrated: expected at least two years of history before monitoring.start {start}, "
        f"found {found}; begin later, or set monitoring.test.threshold (for a CUSUM with drift 2, 8 to 10 is usual)"
    )


def _none_monitored(min_history: int, most: int, start_day: float) -> str:
    start = np.datetime64(math.floor(start_day), "D")
    return (
        f"no pixel can be monitored: expected {min_history} usable dates of a pixel (monitoring.min_history) before "
        f"monitoring.start {start}, found at most {most}; set a smaller monitoring.min_history, or begin later"
    )


def _too_few(pixel_years: int, false_alarms: float) -> str:
    return (
        f"a threshold for {false_alarms:g} false alarms per 1000 pixels and year cannot be calibrated: expected at least "
        f"{math.ceil(1000 / false_alarms)} stable pixels times years in the history, found {pixel_years}; set "
        "monitoring.test.threshold, or a larger monitoring.test.false_alarms, or begin later"
    )
