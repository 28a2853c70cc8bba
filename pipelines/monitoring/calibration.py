"""The threshold of a test from the history alone, to a stated rate of false alarms.

Each whole year of the history (the newest eight) is left out in turn, what is expected is fitted on the other years, and the
year is monitored as if it were new. How large the statistic gets in stable pixels is how large it gets where nothing changes; the
threshold is what only `false_alarms` of 1000 pixels reach within a year. Whole years keep together what belongs together: the
haze of a date lies over all pixels, and a late spring over weeks.

What this cannot know is a year unlike those of the history. With three years of history the rate that is then met is uncertain by
a factor of two or so; evaluation measures it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from pipelines.calendar import iso_date
from pipelines.errors import RequestError
from pipelines.monitoring.detector import CONFIDENCE_LEVELS, NOT_MONITORED, Calibration, Detector, Observations, monitoring
from pipelines.monitoring.stable import choose_stable, year_levels
from pipelines.wording import counted

YEAR_DAYS = 365.25
LEAST_DATES = 4  # a year with fewer dates is no year to learn from
LEAST_PIXELS, MOST_PIXELS = 30, 5000
MOST_YEARS = 8  # the newest; a fit each
LEAST_THRESHOLD = 1e-3  # of a history without any noise
SPREADS = 3.0  # a level that falls by more than so many spreads is not stable


@dataclass(frozen=True)
class CalibrationReport:
    """What a calibration rests on: stable `pixels`, the `years` left out in turn (their first days, ISO) with the threshold that
    each one alone would give, and the `limit` in units of the variable that a stable pixel's yearly level keeps to (None: not
    known). JSON values.
    """

    pixels: int
    years: dict[str, float]
    limit: float | None


def calibrate(
    detector: Detector,
    series: Observations,
    *,
    false_alarms: float,
    start_day: float,
    threshold: float | None = None,
    limit: float | None = None,
) -> tuple[Detector, CalibrationReport]:
    """(the detector with its threshold, what that rests on), from dates before `start_day`; later ones are not used.

    `false_alarms` per 1000 stable pixels and year. With `threshold` given only the confidence is calibrated, where the history
    allows. `limit` is how far a stable pixel's yearly level may fall (rise, where only rises are sought); default: three times
    the median spread.

    Raises RequestError if the history has no two years to learn from, or too few stable pixels for that rate.
    """
    history = series.before(start_day)
    folds = left_out_years(history.days_N, start_day)
    if not folds:
        if threshold is None:
            raise RequestError(_too_short(history.days_N, start_day))
        return replace(detector, calibration=Calibration(threshold)), CalibrationReport(0, {}, limit)
    probe = replace(detector, calibration=Calibration(math.inf))
    limit = _default_limit(probe, history) if limit is None else limit
    count_YX = history.valid_NYX.sum(axis=0)
    if threshold is None and not (count_YX >= detector.min_history).any():
        raise RequestError(_none_monitored(detector.min_history, int(count_YX.max(initial=0)), start_day))
    use_YX = stable_history(history, limit, detector.direction) & (count_YX >= detector.min_history)
    if detector.halo_px == 0:  # pixels do not know of each other: only those that are used are computed
        history, use_YX = _take_pixels(history, use_YX)
    scores = {first_day: _scores_of(probe, history, is_out_N, use_YX) for first_day, is_out_N in folds if use_YX.any()}
    scores = {first_day: score_P for first_day, score_P in scores.items() if len(score_P) >= LEAST_PIXELS}
    years = {iso_date(day): reached_by(score, false_alarms / 1000) for day, score in scores.items()}
    pooled = np.concatenate(list(scores.values())) if scores else np.empty(0)
    if threshold is None and len(pooled) * false_alarms < 1000:
        raise RequestError(_too_few(len(pooled), false_alarms))
    calibration = Calibration(
        reached_by(pooled, false_alarms / 1000) if threshold is None else threshold,
        false_alarms if threshold is None else None,
        tuple(float(np.quantile(pooled, level)) for level in CONFIDENCE_LEVELS) if len(pooled) else (),
    )
    report = CalibrationReport(int(use_YX.sum()), years, float(limit) if math.isfinite(limit) else None)
    return replace(detector, calibration=calibration), report


def left_out_years(days_N: np.ndarray, start_day: float) -> list[tuple[float, np.ndarray]]:
    """(first day, which dates) of each year of the history, counted back from its end, that leaves others to fit on."""
    years: list[tuple[float, np.ndarray]] = []
    last = start_day
    while len(days_N) and last > days_N[0] and len(years) < MOST_YEARS:
        first = last - YEAR_DAYS
        is_out_N = (days_N >= first) & (days_N < last)
        is_whole = first >= days_N[0] - YEAR_DAYS / 4
        if is_whole and is_out_N.sum() >= LEAST_DATES and (~is_out_N).sum() >= 2 * LEAST_DATES:
            years.append((first, is_out_N))
        last = first
    return years


def stable_history(history: Observations, limit: float, direction: str) -> np.ndarray:
    """(Y, X) bool: pixels that are stable in the history."""
    sense = "up" if direction == "up" else "down"  # losses are abrupt; slow growth is what a monitor lives with
    return choose_stable(year_levels(history, highest=sense == "down"), limit, sense)


def _take_pixels(series: Observations, use_YX: np.ndarray) -> tuple[Observations, np.ndarray]:
    """At most `MOST_PIXELS` of the used pixels, in one row: x and valid (N, 1, P), use (1, P)."""
    index_P = np.flatnonzero(use_YX)
    if len(index_P) > MOST_PIXELS:
        index_P = np.sort(np.random.default_rng(0).choice(index_P, MOST_PIXELS, replace=False))
    x_NP, valid_NP = (array.reshape(len(series.days_N), 1, -1)[..., index_P] for array in series[:2])
    return Observations(x_NP, valid_NP, series.days_N), np.ones((1, len(index_P)), bool)


def _scores_of(probe: Detector, history: Observations, is_out_N: np.ndarray, use_YX: np.ndarray) -> np.ndarray:
    """The largest statistic of each used pixel in the dates that are left out, (P,)."""
    kept = probe.min_history * float((~is_out_N).mean())
    fold = replace(probe, min_history=max(4, math.floor(kept)))
    fitted = fold.fit(*history.on(~is_out_N))
    layers = fold.layers(fitted, monitoring(fold, fitted, *history.on(is_out_N)))
    score_P: np.ndarray = layers["score"][use_YX & (layers["status"] != NOT_MONITORED)]
    return score_P


def reached_by(value_P: np.ndarray, share: float) -> float:
    """The smallest of the values that at most `share` of them reach (just beyond the largest, if none is); never 0.

    An alarm is raised where the threshold is reached. A capped sum often takes the very same values (five full steps of 2
    are 10), so "reached" and "exceeded" differ by a whole date of delay.
    """
    levels, first = np.unique(np.sort(value_P), return_index=True)
    is_few = len(value_P) - first <= share * len(value_P) + 1e-9
    least = levels[np.argmax(is_few)] if is_few.any() else np.nextafter(levels[-1], np.array(np.inf, levels.dtype))
    return max(float(least), LEAST_THRESHOLD)


def _default_limit(probe: Detector, history: Observations) -> float:
    fitted = probe.fit(*history)
    known_YX = probe.monitored(fitted)
    if not known_YX.any():
        return math.inf
    state = probe.value_model.begin(fitted)
    spreads_N = [np.median(probe.value_model.predict(fitted, state, float(day))[1][known_YX]) for day in history.days_N]
    return SPREADS * float(np.median(spreads_N))


def _too_short(days_N: np.ndarray, start_day: float) -> str:
    years = (start_day - days_N[0]) / YEAR_DAYS if len(days_N) else 0.0
    found = f"{counted(len(days_N), 'date')} over {years:.1f} years" if len(days_N) else "no date"
    return (
        "a threshold cannot be calibrated: expected at least two years of history before monitoring.start "
        f"{iso_date(start_day)}, found {found}; begin later, or set monitoring.test.threshold (for a CUSUM with drift 2, 8 to 10 "
        "is usual)"
    )


def _none_monitored(min_history: int, most: int, start_day: float) -> str:
    return (
        f"no pixel can be monitored: expected {min_history} usable dates of a pixel (monitoring.min_history) before "
        f"monitoring.start {iso_date(start_day)}, found at most {most}; set a smaller monitoring.min_history, or begin later"
    )


def _too_few(pixel_years: int, false_alarms: float) -> str:
    return (
        f"a threshold for {false_alarms:g} false alarms per 1000 pixels and year cannot be calibrated: expected at least "
        f"{math.ceil(1000 / false_alarms)} stable pixels times years in the history, found {pixel_years}; set "
        "monitoring.test.threshold, or a larger monitoring.test.false_alarms, or begin later"
    )
