"""Scores of sentences about held-out samples -> evaluation: methods side by side, slots, calibration, verdict.

The gate: an exact match of at least what is asked for, and no reference better beyond its interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.learning.caption_metrics import (
    Captions,
    Sentences,
    counts_of,
    describe_captions,
    is_exact,
    reliability,
    sure_and_unsure,
)
from pipelines.learning.class_metrics import accuracy_of, difference
from pipelines.learning.intervals import Interval, Outcome
from pipelines.learning.result import CLAIMS, Criterion, Evaluation, Figure, Verdict, bounds_text, listed, not_worse, unmet
from pipelines.learning.sample_evaluation import FEW_GROUPS, protocol_of
from pipelines.learning.sample_training import describe_parts
from pipelines.samples.caption_words import Slots
from pipelines.samples.captioned_samples import CaptionedSamples
from pipelines.wording import counted


@dataclass(frozen=True)
class AskedCaptions:
    """What is asked of the model: see `configs.tasks.describe`. `least_probability`: of sentences that count as sure."""

    model: str
    must_equal: tuple[str, ...]
    min_exact: float | None
    margin: float
    confidence: float
    least_probability: float
    slots: Slots = field(default_factory=dict)


def conclude_captions(
    samples: CaptionedSamples, ours: Captions, references: Mapping[str, Sentences], asked: AskedCaptions, unsayable: int = 0
) -> Evaluation:
    """`references`: name -> the sentences of a reference about the tested samples; `unsayable`: so many of the known sentences
    cannot be written by the networks that were asked for them.
    """
    tested_P = samples.tested_P
    known_P, group_P = [samples.words_P[p] for p in tested_P], samples.group_P[tested_P]
    said: dict[str, Sentences] = {asked.model: ours.first_P, **references}
    described = {
        name: describe_captions(one, known_P, group_P, asked.slots, asked.confidence, samples.unit) for name, one in said.items()
    }
    is_right_P = is_exact(ours.first_P, known_P)
    described[asked.model]["reliability"] = reliability(ours.probability_P, is_right_P)
    sure = sure_and_unsure(ours.probability_P, is_right_P, asked.least_probability)
    counts = {name: counts_of(is_exact(one, known_P), group_P) for name, one in said.items()}
    mine = counts.pop(asked.model)
    gains = {name: difference(mine, one, accuracy_of, asked.confidence, samples.unit) for name, one in counts.items()}
    outcomes: dict[str, Outcome] = {name: one.outcome(asked.margin) for name, one in gains.items()}
    criteria = _criteria(described[asked.model], gains, asked)
    best = max(gains, key=lambda name: described[name]["exact"]["value"], default=None)
    sentence = _sentence(described, gains, outcomes, criteria, asked)
    verdict = Verdict(outcomes, (), not unmet(criteria), sentence, samples.unit, asked.margin, asked.confidence, best)
    details = {
        "methods": described,
        "gains": {name: one.to_json() for name, one in gains.items()},
        "sure": sure,
        "slots": {name: list(phrases) for name, phrases in asked.slots.items()},
        "labels": {"samples": len(samples.known_P), "dropped": dict(samples.dropped), "classes": samples.counts()},
        "folds": list(describe_parts(samples)),
        "groups": len(np.unique(group_P)),
        "confidence": asked.confidence,
        "audit": None,
    }
    methods = {name: _flat(one) for name, one in described.items()}
    notes = tuple(_notes(samples, known_P, sure, unsayable))
    return Evaluation(asked.model, methods, verdict, criteria, details, notes, _protocol(samples))


def _protocol(samples: CaptionedSamples) -> str:
    return (
        f"{protocol_of(samples)} A sentence matches exactly where all its words are the known ones in their order, regardless of "
        "capitals. BLEU: of all sentences together, up to 4 words in a row (as many as the longest known sentence has, if that "
        "is less), not smoothed. What validates also chose the temperature."
    )


def _criteria(ours: Mapping[str, Any], gains: Mapping[str, Interval], asked: AskedCaptions) -> tuple[Criterion, ...]:
    found = [Criterion("exact match", ours["exact"]["value"], asked.min_exact)] if asked.min_exact is not None else []
    for name in asked.must_equal:
        found.append(not_worse(f"exact match of the {asked.model} minus that of {name}", gains[name], asked.margin))
    return tuple(found)


def _sentence(
    described: Mapping[str, Any], gains: Mapping[str, Interval], outcomes: Mapping[str, Outcome],
    criteria: Sequence[Criterion],
    asked: AskedCaptions,
) -> str:  # fmt: skip
    ours = described[asked.model]
    said = [
        f"In groups that it has not seen, {_shown(ours['exact'])} of the sentences of the {asked.model} match exactly"
        f"{bounds_text(ours['exact'], asked.confidence)}; BLEU-{ours['bleu_order']} is {ours['bleu4']:.3f}."
    ]
    for name, one in gains.items():
        claim = CLAIMS[outcomes[name]].format(margin=f"{asked.margin:g}")
        far = "" if one.value is None else f", {one.value:+.3f} less{bounds_text(one.to_json(), asked.confidence)}"
        said.append(f"{name}: {_shown(described[name]['exact'])}{far}: {claim}.")
    return " ".join([*said, *unmet(criteria)])


def _shown(figure: Mapping[str, Any]) -> str:
    return "undefined" if figure["value"] is None else f"{figure['value']:.3f}"


def _flat(described: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures of a method for tables over methods."""
    exact = described["exact"]
    slots = {f"slot_{name}": one["accuracy"] and one["accuracy"]["value"] for name, one in described["slots"].items()}
    error = described.get("reliability", {}).get("expected_error")
    figures = {"exact": exact["value"], "exact_low": exact["low"], "exact_high": exact["high"], "bleu4": described["bleu4"]}
    return {**figures, **slots, "calibration_error": error}


def _notes(samples: CaptionedSamples, known_P: Sentences, sure: Mapping[str, Any], unsayable: int) -> list[str]:
    """What so many samples can and cannot show, and what cannot match."""
    groups = len(np.unique(samples.group_P[samples.tested_P]))
    notes = [
        f"{counted(len(known_P), 'tested sample')} of {counted(groups, 'group')} can show how the model does on such groups and "
        "such sentences, not on other places, devices or people, or on other wordings."
    ]
    if groups < FEW_GROUPS:
        notes.append(f"{groups} groups are few: the intervals rest on {groups - 1} degrees of freedom.")
    if unsayable:
        notes.append(
            f"{counted(unsayable, 'tested sentence')} cannot match: the networks that were asked have not learnt a word of it, "
            "or it is too long for them."
        )
    least, share = sure["least_probability"], sure["sure_exact"]
    if share is not None:
        other = "" if sure["unsure_exact"] is None else f", of the {sure['unsure']} others {sure['unsure_exact']:.3f}"
        notes.append(
            f"Of the {sure['sure']} sentences with a probability of at least {least:g}, {share:.3f} match exactly{other}."
        )
    left_out = [f"{number} {reason}" for reason, number in samples.dropped.items() if number]
    return [*notes, *([f"Left out: {listed(left_out)}."] if left_out else [])]
