"""What archived forecasts were worth once the truth had arrived, and whether the network still deserves to be published.

Sums are kept per method, variable and target, so that any of them can be added up. The unit is the target date, as in
`pipelines.learning.intervals`: forecasts of several issue dates for one target date share its haze.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipelines.calendar import parse_utc
from pipelines.learning.intervals import Interval, Outcome, paired_skill
from pipelines.learning.result import COMBINATION

SUMS = ("pixels", "absolute", "signed", "inside", "truth", "truth_squared")
PIXELS, ABSOLUTE, SIGNED, INSIDE, TRUTH, TRUTH_SQUARED = range(len(SUMS))
LEAST_DATES = 6  # target dates below which nothing is decided
Sums = Mapping[str, Mapping[str, Sequence[float]]]  # method -> variable -> as SUMS


@dataclass(frozen=True)
class Target:
    """A target date whose truth is known. lead: from 1. content_hash: of the observation. sums: as `SUMS`."""

    lead: int
    target_utc: str
    observed_utc: str
    content_hash: str
    sums: Sums


@dataclass(frozen=True)
class Scored:
    """An archived forecast, and what of it could be scored.

    awaited: targets whose date has not come; unseen: those whose date went by without an observation.
    """

    issued_utc: str
    archived_utc: str
    method: str
    rival: str
    model_hash: str
    interval: float
    variables: tuple[str, ...]
    targets: tuple[Target, ...]
    awaited: int = 0
    unseen: int = 0

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Scored:
        """What `asdict` gave, read from JSON. Raises KeyError, TypeError or ValueError for anything else."""
        targets = tuple(Target(**one) for one in content["targets"])
        found = cls(**{**content, "variables": tuple(content["variables"]), "targets": targets})
        for target in targets:
            for method in filter(None, (found.method, found.rival)):
                for variable in found.variables:
                    if np.array(target.sums[method][variable], np.float64).shape != (len(SUMS),):
                        raise ValueError(f"sums of {method}, {variable} are not {len(SUMS)} numbers")
        return found

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def baseline(self, network: str) -> str:
        """The baseline of the two methods; "" where only the other one was archived."""
        return self.rival if is_ours(self.method, network) else self.method

    def ours(self, network: str) -> str:
        """The other one: the network, or a combination; "" where only the baseline was archived."""
        return self.method if is_ours(self.method, network) else self.rival


def is_ours(method: str, network: str) -> bool:
    """Whether a method is the network or a combination, and no baseline."""
    return method == network or method.startswith(COMBINATION)


@dataclass(frozen=True)
class Rules:
    """What `verify` decides by. network: its name among the methods, or that of the combination that was chosen.

    since: target dates before it are part of what the network was fitted on or chosen by. dates: how many of the newest target
    dates count.
    """

    network: str
    since: np.datetime64
    dates: int
    confidence: float
    margin: float


@dataclass(frozen=True)
class DatedErrors:
    """Errors by target date, oldest first: sums of absolute errors over the same pixels of both methods, pixels, and how many lie
    inside the published bounds. Of several variables each is divided by the spread of its truth. NaN: not known.
    """

    observed_utc: tuple[str, ...]
    network_D: np.ndarray
    baseline_D: np.ndarray
    pixels_D: np.ndarray
    inside_D: np.ndarray
    published: tuple[str, ...]  # the method of the newest of the forecasts of each date


@dataclass(frozen=True)
class Standing:
    """The network against the baseline over the newest target dates. skill: positive where the network is better.

    ours: what is compared, the network or the combination that was chosen.
    """

    baseline: str
    model_hash: str
    first_utc: str
    last_utc: str
    skill: Interval
    outcome: Outcome
    ours: str = "the network"

    @property
    def loses(self) -> bool:
        return self.outcome == "loses"

    def sentence(self, confidence: float) -> str:
        """`Over the last 20 target dates the network's error was 12.0 % larger than that of climatology (95 % interval ...)`."""
        over = f"Over the last {self.skill.count} target dates"
        if self.skill.value is None or not np.isfinite(self.skill.value):
            return f"{over} only {self.ours} makes an error, {self.baseline} makes none"
        bounds = ""
        if self.skill.low is not None and self.skill.high is not None:
            ends = f"{change(self.skill.high)} to {change(self.skill.low)}"
            bounds = f" ({confidence * 100:g} % interval {ends}, {self.skill.basis})"
        return f"{over} {self.ours}'s error was {change(self.skill.value)} than that of {self.baseline}{bounds}"


def change(skill: float) -> str:
    """`12.0 % larger`, of an error."""
    return f"{abs(skill) * 100:.1f} % {'smaller' if skill > 0 else 'larger'}"


def counted_targets(forecasts: Iterable[Scored], network: str) -> Iterator[tuple[Scored, Target]]:
    """Each target date once per issue date, model and pair of methods: of the forecast that was archived first.

    A forecast that is made again later may know more, and a baseline that is published in the network's place has the same rival.
    """
    seen = set()
    for one in sorted(forecasts, key=lambda one: one.archived_utc):
        for target in one.targets:
            key = (one.issued_utc, one.model_hash, one.ours(network), one.baseline(network), target.observed_utc)
            if key not in seen:
                seen.add(key)
                yield one, target


def dated_errors(pairs: Iterable[tuple[Scored, Target]], network: str) -> DatedErrors:
    """The sums of the targets by their date of observation. network: its name; a combination stands in its place."""
    pairs = list(pairs)
    scale = _spread(pairs)
    of_date: dict[str, np.ndarray] = {}
    published: dict[str, tuple[str, str]] = {}
    for one, target in pairs:
        row = of_date.setdefault(target.observed_utc, np.zeros(4))
        for variable in one.variables:
            network_S, baseline_S = (
                np.array(target.sums[method][variable], np.float64) if method in target.sums else np.full(len(SUMS), np.nan)
                for method in (one.ours(network), one.baseline(network))
            )
            ours_S = np.array(target.sums[one.method][variable], np.float64)
            row += (
                network_S[ABSOLUTE] / scale[variable],
                baseline_S[ABSOLUTE] / scale[variable],
                ours_S[PIXELS],
                ours_S[INSIDE],
            )
        published[target.observed_utc] = max(published.get(target.observed_utc, ("", "")), (one.issued_utc, one.method))
    dates = sorted((date for date in of_date if of_date[date][2] > 0), key=parse_utc)
    sums_D4 = np.array([of_date[date] for date in dates]).reshape(-1, 4)
    of_method = tuple(published[date][1] for date in dates)
    return DatedErrors(tuple(dates), sums_D4[:, 0], sums_D4[:, 1], sums_D4[:, 2], sums_D4[:, 3], of_method)


def _spread(pairs: Sequence[tuple[Scored, Target]]) -> dict[str, float]:
    """Variable -> standard deviation of its truth, by which errors of several variables are divided; 1 of a single one."""
    names = list(dict.fromkeys(name for one, _ in pairs for name in one.variables))
    if len(names) < 2:
        return dict.fromkeys(names, 1.0)
    found = {}
    for name in names:
        sums_S = _total(target.sums[one.method][name] for one, target in pairs if name in one.variables)
        mean = sums_S[TRUTH] / max(sums_S[PIXELS], 1)
        variance = sums_S[TRUTH_SQUARED] / max(sums_S[PIXELS], 1) - mean**2
        found[name] = float(np.sqrt(variance)) if variance > 0 else 1.0
    return found


def standing(forecasts: Iterable[Scored], model_hash: str, rules: Rules) -> Standing | None:
    """How the network of `model_hash` did against the baseline of its newest forecast; None with fewer than `LEAST_DATES` dates.

    The network is always in the pair, published or not: so it can come back.
    """
    ours = [one for one in forecasts if one.model_hash == model_hash and rules.network in (one.method, one.rival) and one.rival]
    if not ours:
        return None
    newest = max(ours, key=lambda one: (parse_utc(one.issued_utc), one.archived_utc))
    baseline = newest.baseline(rules.network)
    pairs = [
        (one, target)
        for one, target in counted_targets(ours, rules.network)
        if one.baseline(rules.network) == baseline and parse_utc(target.observed_utc) >= rules.since
    ]
    errors = dated_errors(pairs, rules.network)
    dates = errors.observed_utc[-rules.dates :]
    if len(dates) < LEAST_DATES:
        return None
    network_D, baseline_D = (sums[-rules.dates :] for sums in (errors.network_D, errors.baseline_D))
    skill = paired_skill(network_D, baseline_D, confidence=rules.confidence)
    said = f"the {COMBINATION}" if rules.network.startswith(COMBINATION) else "the network"
    return Standing(baseline, model_hash, dates[0], dates[-1], skill, skill.outcome(rules.margin), said)


# ---------------------------------------------------------------- tables


def figures(one: Scored, targets: Iterable[Target] | None = None) -> dict[str, Any]:
    """Of the first variable: MAE and bias of the method that was published, MAE of its rival, share inside the bounds."""
    name, targets = one.variables[0], one.targets if targets is None else list(targets)
    ours_S = _total(target.sums[one.method][name] for target in targets)
    rival_S = _total(target.sums[one.rival][name] for target in targets if one.rival)

    def share(value: float, of: float) -> float | None:
        return float(value / of) if of > 0 and np.isfinite(value) else None

    return {
        "mae": share(ours_S[ABSOLUTE], ours_S[PIXELS]),
        "rival_mae": share(rival_S[ABSOLUTE], rival_S[PIXELS]),
        "bias": share(ours_S[SIGNED], ours_S[PIXELS]),
        "coverage": share(ours_S[INSIDE], ours_S[PIXELS]),
        "pixels": int(ours_S[PIXELS]),
    }


def _total(sums: Iterable[Sequence[float]]) -> np.ndarray:
    total_S = np.zeros(len(SUMS))
    for one in sums:
        total_S += one
    return total_S


def rows_by_issue(forecasts: Iterable[Scored]) -> list[dict[str, Any]]:
    """A row per archived forecast, oldest first."""
    return [
        {
            "issued_utc": one.issued_utc,
            "method": one.method,
            "rival": one.rival or None,
            "model_hash": one.model_hash,
            "scored": len(one.targets),
            "awaited": one.awaited,
            "unseen": one.unseen,
            **figures(one),
            "by_lead": [{"lead": t.lead, "observed_utc": t.observed_utc, **figures(one, [t])} for t in one.targets],
        }
        for one in sorted(forecasts, key=lambda one: (parse_utc(one.issued_utc), one.archived_utc))
    ]


def rows_by_date(forecasts: Iterable[Scored], network: str, since: np.datetime64) -> list[dict[str, Any]]:
    """A row per target date, oldest first: mean absolute error of the network and of the baseline, share inside the bounds."""
    pairs = [(one, t) for one, t in counted_targets(forecasts, network) if parse_utc(t.observed_utc) >= since]
    errors = dated_errors(pairs, network)
    columns = zip(errors.network_D, errors.baseline_D, errors.inside_D, errors.pixels_D, strict=True)
    means = [[float(value / pixels) if np.isfinite(value) else None for value in row] for *row, pixels in columns]
    return [
        {
            "date": date,
            "network": mean[0],
            "baseline": mean[1],
            "coverage": mean[2],
            "pixels": int(pixels),
            "published": published,
        }
        for date, mean, pixels, published in zip(errors.observed_utc, means, errors.pixels_D, errors.published, strict=True)
    ]
