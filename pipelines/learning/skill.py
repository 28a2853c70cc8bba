"""How sure a skill is: a paired bootstrap over target dates.

Pixels of one date share its weather, haze and registration, and overlapping windows share dates; resampling pixels or windows
would take the same news for new (an interval many times too narrow). So whole target dates are drawn, both forecasters
on the same ones. Where consecutive dates depend on each other too, `block_dates` of them are drawn together.
"""

from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import bootstrap


@dataclass(frozen=True)
class Skill:
    """skill = 1 - error of the model / error of the baseline (1 perfect, 0 the same, negative worse), with its interval.

    `low` and `high` are None where fewer than two units can be drawn; all are None where the baseline has no error.
    """

    skill: float | None
    low: float | None
    high: float | None
    dates: int

    @property
    def outcome(self) -> str:
        """`beats` | `loses` where the interval leaves 0 out, else `not distinguishable`."""
        if self.low is not None and self.low > 0:
            return "beats"
        if self.high is not None and self.high < 0:
            return "loses"
        return "not distinguishable"

    def to_json(self) -> dict[str, float | int | str | None]:
        return {**asdict(self), "outcome": self.outcome}


def paired_skill(
    model_D: np.ndarray,
    baseline_D: np.ndarray,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    block_dates: int = 1,
) -> Skill:
    """Skill of summed errors per target date, (D,) each, over the same pixels; percentile interval, the same for the same seed.

    >>> paired_skill(np.array([1.0, 1.0, 2.0]), np.array([2.0, 2.0, 4.0]))
    Skill(skill=0.5, low=0.5, high=0.5, dates=3)
    """
    dates = len(model_D)
    if baseline_D.sum() <= 0:
        return Skill(None, None, None, dates)
    skill = float(1 - model_D.sum() / baseline_D.sum())
    starts = np.arange(0, dates, block_dates)
    model, baseline = np.add.reduceat(model_D, starts), np.add.reduceat(baseline_D, starts)
    if len(starts) < 2 or np.count_nonzero(baseline) < 2:
        return Skill(skill, None, None, dates)
    with np.errstate(divide="ignore", invalid="ignore"):
        interval = bootstrap(
            (model, baseline),
            lambda m, b, axis=-1: 1 - m.sum(axis=axis) / b.sum(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            confidence_level=confidence,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    low, high = float(interval.low), float(interval.high)
    is_finite = bool(np.isfinite([low, high]).all())
    return Skill(skill, low if is_finite else None, high if is_finite else None, dates)
