"""Which network a series supports: candidates compared at rolling origins, one property after the other (docs/design/019).

    corrected baseline -> context -> width -> kind, each with what was chosen before

Of the candidates of a round the first one wins that the best one does not beat beyond the spread of the origins; they are listed
with the simplest or cheapest first (one-standard-error rule: Hastie, Tibshirani & Friedman 2009, section 7.10). A candidate that
is far behind after its first origin is given up there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from pipelines.wording import counted

LEAST_GAIN = 0.005  # a share of the error: less is not worth a dearer network
SINGLE_GAIN = 0.03  # with a single origin, which has no spread
GIVE_UP = 0.10  # a share of the error, at the first origin


@dataclass(frozen=True)
class Candidate:
    """A network, as far as it is searched. baseline: what it corrects; context in steps; hidden: channels of its layers."""

    baseline: str
    context: int
    hidden: tuple[int, ...] = (8,)
    kernel: int = 3
    kind: str = "convlstm"

    @property
    def text(self) -> str:
        """`climatology, context 12, convlstm [8] k3`."""
        return text_of(asdict(self))


@dataclass(frozen=True)
class Score:
    """Of one candidate at one origin: mean absolute error, what it cost, windows that it learnt from and was scored on.

    problem: why it could not be scored; its error is then infinite.
    """

    error: float
    cpu_seconds: float = 0.0
    learnt: int = 0
    scored: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Trial:
    """A candidate and its scores, the newest origin first; fewer than the origins where it was given up."""

    candidate: Candidate
    scores: tuple[Score, ...]

    @property
    def errors(self) -> tuple[float, ...]:
        return tuple(score.error for score in self.scores)

    @property
    def mean(self) -> float:
        return float(np.mean(self.errors))

    @property
    def problem(self) -> str:
        return next((score.problem for score in self.scores if score.problem), "")


@dataclass(frozen=True)
class Space:
    """What is searched, each list with the simplest or cheapest first. own_sizes: hidden of kinds without `sizes`."""

    baselines: tuple[str, ...]
    contexts: tuple[int, ...]
    sizes: tuple[tuple[tuple[int, ...], int], ...]
    kinds: tuple[str, ...]
    own_sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def first(self) -> Candidate:
        """What the search begins with, and what is taken where nothing can be compared: a small network of medium context."""
        last = "decaying_anomaly" if "decaying_anomaly" in self.baselines else self.baselines[0]
        return Candidate(last, self.contexts[len(self.contexts) // 2])

    def rounds(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """(property, its values as changes of a candidate), in the order of the search."""
        yield "corrected baseline", [{"baseline": one} for one in self.baselines]
        yield "context", [{"context": one} for one in self.contexts]
        yield "width", [{"hidden": hidden, "kernel": kernel} for hidden, kernel in self.sizes]
        own = [{"kind": kind, "hidden": hidden, "kernel": 1} for kind, hidden in self.own_sizes.items()]
        yield "kind", [*({"kind": one} for one in self.kinds), *own]

    def most(self) -> int:
        """How many candidates a search without a limit tries."""
        return 1 + sum(len(changes) - 1 for _, changes in self.rounds())


@dataclass(frozen=True)
class Found:
    """The end of a search. origins: how many there were; untried: candidates beyond the limit."""

    chosen: Candidate
    trials: tuple[Trial, ...]
    origins: int
    untried: tuple[Candidate, ...] = ()

    @property
    def cpu_seconds(self) -> float:
        return sum(score.cpu_seconds for trial in self.trials for score in trial.scores)

    @property
    def sentence(self) -> str:
        """What was chosen, among how many, and at what cost."""
        one = self.chosen
        of = "nothing, the level itself" if one.baseline == "none" else one.baseline
        kernel = f", kernel {one.kernel}" if has_kernel(one.kind) else ""
        what = f"{one.kind} of {list(one.hidden)} channels{kernel}, {one.context} dates of context, correcting {of}"
        if not self.trials:
            return f"{what}: the usual one, since the training part has too few usable dates to compare candidates"
        if leading(self.trials, self.origins) is None:
            return f"{what}: the usual one, since no candidate could be scored at every origin ({self.trials[0].problem})"
        cost = counted(round(self.cpu_seconds), "CPU second")
        among = f"{counted(len(self.trials), 'candidate')} at {counted(self.origins, 'origin')} inside the training part, {cost}"
        return f"{what}: chosen from {among}"

    def to_json(self) -> dict[str, Any]:
        return {
            "chosen": asdict(self.chosen),
            "sentence": self.sentence,
            "cpu_seconds": round(self.cpu_seconds, 1),
            "origins": self.origins,
            "trials": [{**trial_to_json(one), "is_chosen": one.candidate == self.chosen} for one in self.trials],
            "untried": [asdict(one) for one in self.untried],
        }


def search(
    space: Space, attempt: Callable[[Candidate, Trial | None], Trial], *, origins: int, tries: int
) -> Found:  # fmt: skip
    """The candidate that wins round after round. `attempt(candidate, leader)` scores one; see `race`.

    Raises ValueError for a space without a baseline or context.
    """
    current, tried, untried = space.first, dict[Candidate, Trial](), list[Candidate]()
    for _, changes in space.rounds():
        options = [replace(current, **change) for change in changes]
        leader = tried.get(current)
        for option in options:
            if option in tried:
                continue
            if len(tried) >= tries:
                untried.append(option)
                continue
            tried[option] = attempt(option, leader)
            leader = leading([*([leader] if leader else []), tried[option]], origins)
        current = pick([tried[one] for one in options if one in tried], origins, otherwise=current)
    return Found(current, tuple(tried.values()), origins, tuple(untried))


def race(score: Callable[[int], Score], origins: int, leader: Trial | None) -> tuple[Score, ...]:
    """Scores at all origins; at the first one alone where the error is more than `GIVE_UP` above that of `leader`."""
    scores = [score(0)]
    is_behind = leader is not None and scores[0].error > leader.errors[0] * (1 + GIVE_UP)
    if is_behind or scores[0].problem:
        return tuple(scores)
    return (*scores, *(score(origin) for origin in range(1, origins)))


def leading(trials: Sequence[Trial], origins: int) -> Trial | None:
    """The trial of the smallest mean error among those that were scored at all origins; None without one."""
    whole = [trial for trial in trials if len(trial.scores) == origins and math.isfinite(trial.mean)]
    return min(whole, key=lambda trial: trial.mean, default=None)


def pick(trials: Sequence[Trial], origins: int, otherwise: Candidate) -> Candidate:
    """The first of `trials` that the best one does not beat; `otherwise` where none was scored at all origins."""
    best = leading(trials, origins)
    if best is None:
        return otherwise
    whole = (trial for trial in trials if len(trial.scores) == origins and math.isfinite(trial.mean))
    return next(trial.candidate for trial in whole if not beats(best.errors, trial.errors))


def beats(errors: Sequence[float], others: Sequence[float]) -> bool:
    """True if the errors are smaller beyond the spread of the origins: the mean of 1 - error / other above its standard error.

    >>> beats([0.10, 0.11, 0.10], [0.12, 0.13, 0.12]), beats([0.10, 0.14, 0.10], [0.11, 0.12, 0.11])
    (True, False)
    """
    gain_O = 1 - np.asarray(errors) / np.maximum(np.asarray(others), 1e-12)
    if len(gain_O) == 1:
        return bool(gain_O[0] > SINGLE_GAIN)
    return bool(gain_O.mean() > max(gain_O.std(ddof=1) / math.sqrt(len(gain_O)), LEAST_GAIN))


# ---------------------------------------------------------------- JSON


def text_of(candidate: Mapping[str, Any]) -> str:
    """Of a candidate as JSON values, see `Candidate.text`."""
    kernel = f" k{candidate['kernel']}" if has_kernel(candidate["kind"]) else ""
    return f"{candidate['baseline']}, context {candidate['context']}, {candidate['kind']} {list(candidate['hidden'])}{kernel}"


def has_kernel(kind: str) -> bool:
    """Networks over each pixel's history have none."""
    return kind != "history"


def trial_to_json(trial: Trial) -> dict[str, Any]:
    scores = [{**asdict(one), "error": one.error if math.isfinite(one.error) else None} for one in trial.scores]
    return {**asdict(trial.candidate), "scores": scores}


def candidate_key(candidate: Candidate, origin: int) -> str:
    """Names a score among those that an interrupted search has left."""
    return f"{candidate.text}, origin {origin}"
