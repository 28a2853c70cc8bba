"""Scores of boxes in held-out samples -> evaluation: methods side by side, classes, verdict.

The gate: a mean AP50 of at least what is asked for, and no reference better beyond its interval. There is no shortcut audit:
where things are is not in metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.learning.box_metrics import MOST_PARTS, describe_boxes, gain, number_groups, one_class, score_boxes
from pipelines.learning.intervals import Interval, Outcome
from pipelines.learning.result import CLAIMS, Criterion, Evaluation, Verdict, bounds_text, listed, not_worse, unmet
from pipelines.learning.sample_evaluation import FEW_GROUPS, protocol_of
from pipelines.learning.sample_training import describe_parts
from pipelines.samples.boxed_samples import BoxedSamples
from pipelines.samples.boxes import Boxes, one_label
from pipelines.wording import counted


@dataclass(frozen=True)
class AskedBoxes:
    """What is asked of the model: see `configs.tasks.detect`. `least_score`: of boxes that are published."""

    model: str
    must_equal: tuple[str, ...]
    min_ap: float | None
    margin: float
    confidence: float
    least_score: float


def conclude_boxes(samples: BoxedSamples, found: Mapping[str, Boxes], asked: AskedBoxes) -> Evaluation:
    """`found`: method -> boxes in the tested samples (`sample_X`: numbers in the table)."""
    tested_P = samples.tested_P
    groups = number_groups(samples.group_P[tested_P])
    group_of = dict(zip(samples.known_P[tested_P].tolist(), groups.tolist(), strict=True))
    known, classes = samples.tested_boxes, samples.outputs
    scored = {name: score_boxes(one, known, group_of, len(classes)) for name, one in found.items()}
    described = {}
    for name, one in found.items():
        published = score_boxes(one_label(one, asked.least_score), known, group_of, len(classes))
        alike = score_boxes(one_class(one), one_class(known), group_of, 1)
        described[name] = describe_boxes(scored[name], published, classes, asked.confidence)
        described[name]["ap50_any"] = describe_boxes(alike, alike, ["any"], asked.confidence)["ap50"]
    ours = scored[asked.model]
    gains = {name: gain(ours, one, asked.confidence) for name, one in scored.items() if name != asked.model}
    outcomes: dict[str, Outcome] = {name: one.outcome(asked.margin) for name, one in gains.items()}
    criteria = _criteria(described[asked.model], gains, asked)
    best = max(gains, key=lambda name: described[name]["ap50"]["value"], default=None)
    sentence = _sentence(described, gains, outcomes, criteria, asked)
    verdict = Verdict(outcomes, (), not unmet(criteria), sentence, "groups", asked.margin, asked.confidence, best)
    details = {
        "methods": described,
        "gains": {name: one.to_json() for name, one in gains.items()},
        "least_score": asked.least_score,
        "labels": {"samples": len(samples.known_P), "dropped": dict(samples.dropped), "classes": samples.counts()},
        "folds": list(describe_parts(samples)),
        "groups": len(np.unique(samples.group_P[tested_P])),
        "confidence": asked.confidence,
        "audit": None,
    }
    methods = {name: _flat(one) for name, one in described.items()}
    return Evaluation(
        asked.model, methods, verdict, criteria, details, tuple(_notes(samples, described, asked)), _protocol(samples)
    )


def _protocol(samples: BoxedSamples) -> str:
    return (
        f"{protocol_of(samples)} A box is right where it overlaps a known one of its class by an intersection over union of at "
        "least 0.5 that no surer box has taken; AP50 is the area below precision over recall (Pascal VOC)."
    )


def _criteria(ours: Mapping[str, Any], gains: Mapping[str, Interval], asked: AskedBoxes) -> tuple[Criterion, ...]:
    found = [Criterion("mean AP50", ours["ap50"]["value"], asked.min_ap)] if asked.min_ap is not None else []
    for name in asked.must_equal:
        found.append(not_worse(f"mean AP50 of the {asked.model} minus that of {name}", gains[name], asked.margin))
    return tuple(found)


def _sentence(
    described: Mapping[str, Any], gains: Mapping[str, Interval], outcomes: Mapping[str, Outcome],
    criteria: Sequence[Criterion],
    asked: AskedBoxes,
) -> str:  # fmt: skip
    ours = described[asked.model]
    said = [
        f"In groups that it has not seen, the {asked.model} finds boxes with a mean AP50 of "
        f"{_shown(ours['ap50'])}{bounds_text(ours['ap50'], asked.confidence)}; of those that are published (score at "
        f"least {asked.least_score:g}) precision is {_shown(ours['precision'])} and recall {_shown(ours['recall'])}."
    ]
    for name, one in gains.items():
        claim = CLAIMS[outcomes[name]].format(margin=f"{asked.margin:g}")
        far = "" if one.value is None else f", {one.value:+.3f} less{bounds_text(one.to_json(), asked.confidence)}"
        said.append(f"{name}: {_shown(described[name]['ap50'])}{far}: {claim}.")
    return " ".join([*said, *unmet(criteria)])


def _shown(figure: Mapping[str, Any]) -> str:
    return "undefined" if figure["value"] is None else f"{figure['value']:.3f}"


def _flat(described: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of a method for tables over methods."""
    figures = {"ap50": described["ap50"]["value"], "ap50_low": described["ap50"]["low"], "ap50_high": described["ap50"]["high"]}
    named = ("ap50_any", "precision", "recall")
    return {**figures, **{name: described[name]["value"] for name in named}}


def _notes(samples: BoxedSamples, described: Mapping[str, Any], asked: AskedBoxes) -> list[str]:
    """What so many samples can and cannot show, and what was left out."""
    tested_P = samples.tested_P
    groups = len(np.unique(samples.group_P[tested_P]))
    boxes = counted(len(samples.tested_boxes), "known box", "known boxes")
    notes = [
        f"{boxes} in {counted(len(tested_P), 'tested sample')} of {counted(groups, 'group')}: they can show how the model does "
        "on such groups, not on other places, devices or people."
    ]
    if groups < FEW_GROUPS:
        notes.append(f"{groups} groups are few: the intervals rest on {groups - 1} degrees of freedom.")
    if groups > MOST_PARTS:
        notes.append(f"For the intervals the {groups} groups are joined to {MOST_PARTS} parts of whole groups.")
    unknown = [row["class"] for row in described[asked.model]["classes"] if not row["known"]]
    if unknown:
        notes.append(f"Classes without a known box in the tested samples, not in the mean: {listed(unknown)}.")
    left_out = [f"{number} {reason}" for reason, number in samples.dropped.items() if number]
    return [*notes, *([f"Left out: {listed(left_out)}."] if left_out else [])]
