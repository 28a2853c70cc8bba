"""A measured number, the interval around it, and what was counted as independent to get the interval.

An interval says how much the number could change with other units. What a unit is decides what may be claimed: other dates,
other sites, or only other parts of the same sites. So the unit and its count are part of the value.
"""

import math
from dataclasses import dataclass
from typing import Literal

Unit = Literal["dates", "sites", "blocks"]
Outcome = Literal["beats", "equal", "not distinguishable", "loses"]


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
