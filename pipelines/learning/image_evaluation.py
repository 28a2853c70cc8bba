"""Probabilities of held-out images -> evaluation: nats per image and bits per dimension of methods side by side, verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.learning.intervals import Interval, Outcome, jackknife
from pipelines.learning.result import CLAIMS, Criterion, Evaluation, Verdict, not_worse, unmet

NATS = "nats per image"
SEEN = {  # of the test images: (in the sentence, in the protocol, in a note)
    "no": (" that it has not seen", "which nothing has learnt from and by which nothing was chosen", ""),
    "yes": (
        " that it was trained on", "which the model has learnt from, or was chosen by",
        "The model has learnt from these test images, or was chosen by them: its nats are too few. Choose other test images with "
        "`split`.",
    ),
    "unknown": (
        "", "of which it is not known whether the model has learnt from them",
        "Whether the model has learnt from some of these test images is not known: they are not those by which its own training "
        "was tested. Its nats may be too few.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class AskedImages:
    """What is asked of the model: see `configs.tasks.generate`. `margin` and `max_nats` are in nats per image."""

    model: str
    must_equal: tuple[str, ...]
    max_nats: float | None
    margin: float
    confidence: float


def conclude_images(
    nats: Mapping[str, np.ndarray], group_P: np.ndarray, pixels: int, parts: Mapping[str, int], asked: AskedImages,
    seen: str = "no",
) -> Evaluation:  # fmt: skip
    """`nats`: method -> (P,) of the test images, minus the natural logarithm of each one's probability.

    seen: a key of `SEEN`, whether the model has learnt from them; references have not.
    """
    described = {name: mean_of(one, group_P, asked.confidence) for name, one in nats.items()}
    ours_P = nats[asked.model]
    gains = {name: mean_of(one - ours_P, group_P, asked.confidence) for name, one in nats.items() if name != asked.model}
    outcomes: dict[str, Outcome] = {name: one.outcome(asked.margin) for name, one in gains.items()}
    criteria = _criteria(described[asked.model], gains, asked)
    best = min(gains, key=lambda name: float(nats[name].mean()), default=None)
    new, known, note = SEEN[seen]
    sentence = _sentence(described, gains, outcomes, pixels, criteria, asked, new)
    verdict = Verdict(outcomes, (), not unmet(criteria), sentence, "groups", asked.margin, asked.confidence, best)
    details = {
        "methods": {name: one.to_json() for name, one in described.items()},
        "gains": {name: one.to_json() for name, one in gains.items()},
        "images": len(ours_P),
        "pixels": pixels,
        "parts": dict(parts),
        "seen": seen,
        "confidence": asked.confidence,
    }
    methods = {name: flat_figures(one, described[name], pixels) for name, one in nats.items()}
    protocol = (
        f"Minus the natural logarithm of the probability of each of {len(ours_P)} test images, {known}; "
        f"mean over images. Bits per dimension: nats / ({pixels} pixels x log 2)."
    )
    return Evaluation(asked.model, methods, verdict, criteria, details, (note,) if note else (), protocol)


def mean_of(nats_P: np.ndarray, group_P: np.ndarray, confidence: float) -> Interval:
    """The mean over images with its interval, for which whole groups of images are left out in turn.

    >>> found = mean_of(np.array([80.0, 90.0, 100.0]), np.arange(3), 0.95)
    >>> found.value, round(found.high - found.value, 1)  # 4.3 standard errors of 5.8
    (90.0, 24.8)
    """
    number_P = np.unique(group_P, return_inverse=True)[1]
    sums_GX = np.stack([np.bincount(number_P, nats_P), np.bincount(number_P)], axis=1)
    return jackknife(sums_GX, lambda sums_RX: sums_RX[:, 0] / sums_RX[:, 1], confidence, "groups", (-math.inf, math.inf))


def flat_figures(nats_P: np.ndarray, described: Interval, pixels: int) -> dict[str, float | None]:
    """Figures of a method for the tables; the standard error takes images as independent."""
    error = float(nats_P.std(ddof=1) / math.sqrt(len(nats_P))) if len(nats_P) > 1 else None
    known = {"nats": described.value, "nats_low": described.low, "nats_high": described.high, "standard_error": error}
    return {**known, "bits_per_dimension": float(nats_P.mean()) / (pixels * math.log(2))}


def _criteria(ours: Interval, gains: Mapping[str, Interval], asked: AskedImages) -> tuple[Criterion, ...]:
    found = [] if asked.max_nats is None else [Criterion(NATS, ours.value, asked.max_nats, "at most", "nats")]
    for name in asked.must_equal:
        found.append(not_worse(f"{NATS} of {name} minus those of the {asked.model}", gains[name], asked.margin))
    return tuple(found)


def _sentence(
    described: Mapping[str, Interval], gains: Mapping[str, Interval], outcomes: Mapping[str, Outcome], pixels: int,
    criteria: Sequence[Criterion], asked: AskedImages, new: str,
) -> str:  # fmt: skip
    ours = described[asked.model]
    bits = (ours.value or 0.0) / (pixels * math.log(2))
    said = [
        f"On {ours.count} groups of images{new}, the {asked.model} needs {ours.value:.2f} {NATS}"
        f"{_between(ours, asked.confidence)}, {bits:.4f} bits per dimension."
    ]
    for name, one in gains.items():
        claim = CLAIMS[outcomes[name]].format(margin=f"{asked.margin:g} nats")
        reached = described[name].value
        said.append(f"{name}: {reached:.2f}, {one.value:+.2f} more{_between(one, asked.confidence)}: {claim}.")
    return " ".join([*said, *unmet(criteria)])


def _between(interval: Interval, confidence: float) -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f" ({confidence * 100:g} % interval {interval.low:.2f} to {interval.high:.2f})"


def facts_of(details: Mapping[str, Any]) -> dict[str, str]:
    """What was measured on how many images, for the report."""
    parts = details["parts"]
    return {"images": ", ".join(f"{count} {name}" for name, count in parts.items()), "pixels": str(details["pixels"])}
