"""Skill against a baseline, with an interval whose unit is the target date.

Pixels of one date share its weather, haze and registration, and overlapping windows share dates, so a date counts once. Dates
close to each other share weather too: their differences are correlated (0.4 to 0.6 at neighbouring dates on Sentinel-2), and
25 dates are then worth about 7 to 11 independent ones. Dates are taken in their order; unequal gaps between them are not used.
"""

import math

import numpy as np

from pipelines.learning.intervals import Interval, student_interval

LEAST_DATES = 5  # the correction of the lag-1 autocorrelation divides by dates - 4
LEAST_INDEPENDENT = 3.0  # less adds no safety at 9 to 25 dates (simulated) and hides real gains: t(1) is 12.7 errors wide
UNKNOWN_INDEPENDENT = 2.0  # the least that leaves a degree of freedom, where there are too few dates to estimate it


def paired_skill(model_D: np.ndarray, baseline_D: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """Skill = 1 - error of the model / error of the baseline (1 perfect, 0 the same, negative worse), with its interval.

    `model_D` and `baseline_D` are errors summed over the same pixels of each target date, in the order of the dates. The ratio
    of the sums is linearised (delta method): the influence of a date on the skill is (R baseline - model) / mean baseline, R the
    ratio. Its mean is 0; the standard error follows from its spread and the effective number of dates, and the interval is
    Student's t with that number less one degrees of freedom (Zwiers & von Storch 1995). With an autocorrelation of 0.6 at 25
    dates and equal errors, a win is claimed in 4 % of all cases (6 % with very unequal numbers of pixels), in theory 2.5 %.

    The value is -inf where the model has an error and the baseline none, None where there is no date.

    >>> paired_skill(np.array([1.0, 1.0, 2.0]), np.array([2.0, 2.0, 4.0])).high
    0.5
    """
    dates = len(model_D)
    if dates == 0:
        return Interval(None, None, None, "dates", 0, reason="no date has a valid target pixel")
    if baseline_D.sum() <= 0:
        return _against_no_error(model_D)
    ratio = float(model_D.sum() / baseline_D.sum())
    if np.count_nonzero(baseline_D) < 2:
        return Interval(1 - ratio, None, None, "dates", dates, reason="fewer than two dates have an error")
    influence_D = (ratio * baseline_D - model_D) / baseline_D.mean()
    independent = effective_dates(influence_D)
    error = math.sqrt(_variance(influence_D, independent) / independent)
    low, high = student_interval(1 - ratio, error, independent - 1, confidence)
    return Interval(1 - ratio, low, high, "dates", dates, independent)


def effective_dates(difference_D: np.ndarray) -> float:
    """How many independent dates the differences of consecutive dates are worth: n (1 - r) / (1 + r), from 3 to n.

    r is the lag-1 autocorrelation of an AR(1), corrected for its bias at few dates, E[r] = r - (1 + 4 r) / n (Marriott & Pope
    1954): (n r + 1) / (n - 4). A negative one counts as 0. With fewer than 5 dates it cannot be estimated, and 2 are returned.

    >>> effective_dates(np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0]))
    6.0
    """
    dates = len(difference_D)
    if dates < LEAST_DATES:
        return UNKNOWN_INDEPENDENT
    centred_D = difference_D - difference_D.mean()
    square = float(centred_D @ centred_D)
    found = float(centred_D[1:] @ centred_D[:-1]) / square if square > 0 else 0.0
    correlation = min(max((dates * found + 1) / (dates - 4), 0.0), 1.0)
    return max(LEAST_INDEPENDENT, dates * (1 - correlation) / (1 + correlation))


def skill_json(skill: Interval, margin: float) -> dict[str, float | int | str | None]:
    """The skill as it stands in evaluation.json."""
    plain = skill.to_json()
    return {
        **{"skill": plain["value"], "low": plain["low"], "high": plain["high"], "dates": skill.count},
        **{"effective_dates": skill.independent, "outcome": skill.outcome(margin)},
    }


def _variance(influence_D: np.ndarray, independent: float) -> float:
    """Variance of one date's influence; the usual estimate is too small where dates are correlated (Bayley & Hammersley 1946)."""
    dates = len(influence_D)
    return float(influence_D @ influence_D) / (dates - dates / independent)


def _against_no_error(model_D: np.ndarray) -> Interval:
    if model_D.sum() <= 0:
        return Interval(0.0, 0.0, 0.0, "dates", len(model_D), reason="neither makes an error")
    return Interval(-math.inf, -math.inf, -math.inf, "dates", len(model_D), reason="only the model makes an error")
