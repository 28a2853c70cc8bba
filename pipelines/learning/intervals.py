"""A measured number, the interval around it, and what was counted as independent to get the interval.

An interval says how much the number could change with other units. What a unit is decides what may be claimed: other dates,
other sites, or only other parts of the same sites. So the unit and its count are part of the value.

The unit of skill against a baseline is the target date. Pixels of one date share its weather, haze and registration, and
overlapping windows share dates, so a date counts once. Dates close to each other share weather too: their differences are
correlated (0.4 to 0.6 at neighbouring dates on Sentinel-2), and 25 dates are then worth about 7 to 11 independent ones. Dates
are taken in their order; unequal gaps between them are not used.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Unit = Literal["dates", "sites", "blocks", "groups"]
Outcome = Literal["beats", "equal", "not distinguishable", "loses"]
Statistic = Callable[[np.ndarray], np.ndarray]  # sums (R, columns) -> (R,), NaN where a sum does not define it

LEAST_DATES = 5  # the correction of the lag-1 autocorrelation divides by dates - 4
LEAST_INDEPENDENT = 3.0  # less adds no safety at 9 to 25 dates (simulated) and hides real gains: t(1) is 12.7 errors wide
UNKNOWN_INDEPENDENT = 2.0  # the least that leaves a degree of freedom, where there are too few dates to estimate it


@dataclass(frozen=True)
class Interval:
    """`value` with its interval. `low` and `high`, or all three, are None where undefined; `reason` says why.

    count: the units that the interval is made from. independent: for dates, how many independent dates they are worth.
    sites: for blocks, the number of sites that they lie in.
    """

    value: float | None
    low: float | None
    high: float | None
    unit: Unit
    count: int
    independent: float | None = None
    sites: int | None = None
    reason: str = ""

    def outcome(self, margin: float) -> Outcome:
        """What the interval of a difference (positive: ours is better) says, for a margin below which nobody cares.

        `beats`: all of the interval lies above 0 and the difference is at least `margin`. `equal`: all of it lies within
        -margin to margin, or it leaves 0 out while the difference is smaller than `margin`. `loses` mirrors `beats`.

        >>> Interval(0.0300, -0.04, 0.11, "dates", 25).outcome(margin=0.01)
        'not distinguishable'
        >>> Interval(0.0004, 0.0001, 0.0007, "dates", 25).outcome(margin=0.01)
        'equal'
        """
        if self.value is None or self.low is None or self.high is None:
            return "not distinguishable"
        is_above, is_below = self.low > 0, self.high < 0
        if is_above and self.value >= margin:
            return "beats"
        if is_below and self.value <= -margin:
            return "loses"
        is_within = -margin <= self.low and self.high <= margin
        return "equal" if is_within or is_above or is_below else "not distinguishable"

    @property
    def basis(self) -> str:
        """What the interval rests on, in words: "25 dates counted as 11 independent ones", "5 sites", "96 blocks of 2 sites"."""
        if self.unit == "dates" and self.independent is not None:
            return f"{self.count} dates counted as {self.independent:.0f} independent ones"
        if self.unit == "blocks" and self.sites is not None:
            return f"{self.count} blocks of {self.sites} site{'s' * (self.sites != 1)}"
        return f"{self.count} {self.unit}"

    def to_json(self) -> dict[str, float | int | str | None]:
        """Plain values; an infinite one is None."""
        numbers = {name: getattr(self, name) for name in ("value", "low", "high")}
        finite = {name: number if number is not None and math.isfinite(number) else None for name, number in numbers.items()}
        return {**finite, "unit": self.unit, "count": self.count, "basis": self.basis, "reason": self.reason}


def student_interval(value: float, standard_error: float, freedom: float, confidence: float) -> tuple[float, float]:
    """(low, high) of Student's t with `freedom` degrees of freedom (> 0, need not be whole).

    >>> [round(bound, 3) for bound in student_interval(0.5, 0.1, 4, 0.95)]
    [0.222, 0.778]
    """
    from scipy.stats import t as student_t  # half a second, which a verb that has nothing to do must not wait

    reach = float(student_t.ppf((1 + confidence) / 2, freedom)) * standard_error
    return value - reach, value + reach


def jackknife(
    sums_GX: np.ndarray, statistic: Statistic, confidence: float, unit: Unit, limits: tuple[float, float] = (0.0, 1.0),
    undefined: tuple[str, str] = ("no label", "only one of them defines it"),
) -> Interval:  # fmt: skip
    """A statistic of counts that add up over independent groups (sites, blocks): each group is left out in turn.

    `sums_GX`: counts of each group. Student's t with groups - 1 degrees of freedom, cut at `limits`. `undefined`: why there is
    no value, and why there is no interval, where the statistic is NaN with all groups, or without one of them.

    >>> share = lambda sums_R2: sums_R2[:, 0] / sums_R2.sum(axis=1)
    >>> found = jackknife(np.array([[8.0, 2.0], [9.0, 1.0], [7.0, 3.0]]), share, 0.95, "blocks")
    >>> round(found.low, 3), found.value
    (0.552, 0.8)
    """
    sums_GX = np.asarray(sums_GX, np.float64)
    groups = len(sums_GX)
    value = float(statistic(sums_GX.sum(axis=0, keepdims=True))[0])
    if math.isnan(value):
        return Interval(None, None, None, unit, groups, reason=undefined[0])
    if groups < 2:
        return Interval(value, None, None, unit, groups, reason=undefined[1])
    without_G = statistic(sums_GX.sum(axis=0) - sums_GX)
    if np.isnan(without_G).any():
        return Interval(value, None, None, unit, groups, reason=undefined[1])
    error = math.sqrt((groups - 1) / groups * float(((without_G - value) ** 2).sum()))
    return within(Interval(value, *student_interval(value, error, groups - 1, confidence), unit, groups), limits)


def within(interval: Interval, limits: tuple[float, float]) -> Interval:
    """The interval without what its statistic cannot reach."""
    if interval.low is None or interval.high is None:
        return interval
    return replace(interval, low=max(interval.low, limits[0]), high=min(interval.high, limits[1]))


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
    if baseline_D.sum() <= 0 and model_D.sum() <= 0:
        return Interval(0.0, 0.0, 0.0, "dates", dates, reason="neither makes an error")
    if baseline_D.sum() <= 0:
        return Interval(-math.inf, -math.inf, -math.inf, "dates", dates, reason="only the model makes an error")
    ratio = float(model_D.sum() / baseline_D.sum())
    if np.count_nonzero(baseline_D) < 2:
        return Interval(1 - ratio, None, None, "dates", dates, reason="fewer than two dates have an error")
    influence_D = (ratio * baseline_D - model_D) / baseline_D.mean()
    independent = effective_dates(influence_D)
    # the usual estimate of a variance is too small where dates are correlated (Bayley & Hammersley 1946)
    variance = float(influence_D @ influence_D) / (dates - dates / independent)
    error = math.sqrt(variance / independent)
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
    bounds = {"skill": plain["value"], "low": plain["low"], "high": plain["high"]}
    return {**bounds, "dates": skill.count, "effective_dates": skill.independent, "outcome": skill.outcome(margin)}
