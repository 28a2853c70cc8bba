"""Scores of labels that were held out -> evaluation: methods side by side, verdict, and what so many labels can show.

The gate of a class map: an overall accuracy of at least what is asked for, no reference better beyond its interval, and no
shortcut (`pipelines.learning.shortcuts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.learning.class_metrics import (
    Predicted,
    accuracy_of,
    block_confusions,
    confusion,
    describe,
    difference,
    flat_figures,
    mean_f1_of,
)
from pipelines.learning.intervals import Interval, Outcome, Unit
from pipelines.learning.result import CONFOUNDED, Criterion, Evaluation, Verdict, bounds_text, listed, not_worse, unmet
from pipelines.learning.shortcuts import Audit
from pipelines.samples.class_samples import ClassSamples
from pipelines.wording import counted

EARLY_SHARE = 0.3  # of the dates; where these give nearly all, the class may be known from something else than its course
FEW_BLOCKS = 10
MEASURES = {"accuracy": "overall accuracy", "mean_f1": "mean F1"}
STATISTICS = {"accuracy": accuracy_of, "mean_f1": mean_f1_of}


@dataclass(frozen=True)
class Asked:
    """What is asked of the model: see `configs.tasks.segment`."""

    model: str
    must_equal: tuple[str, ...]
    min_accuracy: float | None
    measure: str  # of MEASURES
    margin: float
    confidence: float
    most_labels: int  # of a class that references learn from
    seed: int


def conclude(
    samples: ClassSamples, predicted: Mapping[str, Predicted], by_dates: Sequence[Mapping[str, Any]], audit: Audit | None,
    asked: Asked, split: Mapping[str, Any],
) -> Evaluation:  # fmt: skip
    """The evaluation; `by_dates`: rows of `dates` and the measure of each method; `split`: how the labels were divided.

    `audit`: of shortcuts; None for a model that has not learnt from these labels.
    """
    labels, true_P = samples.labels, samples.labels.class_P
    described = {
        name: describe(one, true_P, samples.block_P, labels.classes, asked.confidence) for name, one in predicted.items()
    }
    counts = {
        name: block_confusions(true_P, one.class_P, samples.block_P, len(labels.classes)) for name, one in predicted.items()
    }
    ours = counts.pop(asked.model)
    differences = {name: difference(ours, theirs, STATISTICS[asked.measure], asked.confidence) for name, theirs in counts.items()}
    reached = described[asked.model]["accuracy"]
    criteria = criteria_of(described[asked.model], differences, audit, true_P, asked)
    verdict = class_verdict(described, differences, audit, criteria, asked)
    details = {
        "classes": list(labels.classes),
        "methods": described,
        "differences": {name: one.to_json() for name, one in differences.items()},
        "measure": MEASURES[asked.measure],
        "by_dates": [dict(row) for row in by_dates],
        "audit": audit.to_json() if audit else None,
        "labels": {"given": labels.given, "used": len(labels), "dropped": dict(labels.dropped), "classes": labels.counts()},
        "spans": [span.text for span in labels.spans],
        "split": dict(split),
        "confidence": asked.confidence,
    }
    notes = [
        *limits_of(samples, reached, asked.confidence),
        *early_notes(by_dates, asked, is_volume=samples.axes == 3),
        *capped_notes(samples, asked),
    ]
    notes += audit.notes if audit else ()
    methods = {name: flat_figures(one) for name, one in described.items()}
    protocol = protocol_of(samples, split, is_own=audit is not None)
    return Evaluation(asked.model, methods, verdict, criteria, details, tuple(notes), protocol)


def protocol_of(samples: ClassSamples, split: Mapping[str, Any], *, is_own: bool) -> str:
    """How the labels were divided, and who has seen what."""
    labels, blocks = counted(len(samples.labels), "label"), len(np.unique(samples.block_P))
    block_px, networks = split["block_px"], split["networks"]
    size = f"{' x '.join([str(block_px)] * samples.axes)} {'voxels' if samples.axes == 3 else 'pixels'}"
    blocked = f"{counted(blocks, 'block')} of {size}, in {samples.folds} folds of whole blocks"
    grouped = f"{counted(blocks, 'group')} of sites (or strips of them), each a fold"
    divided = f"{labels} in {blocked if block_px else grouped}"
    unit = "block" if block_px else "group"
    if not is_own:
        return (
            f"{divided}. The model was trained elsewhere and is scored on all labels as it is. The references have learnt from "
            f"labels here, of all other {unit}s."
        )
    by = f"by {'a network that has' if networks == 1 else f'{networks} networks that have'} not seen its {unit}"
    return (
        f"{divided}: every label is predicted once, {by}; a part of the other {unit}s chose the epoch, temperature and decision "
        f"of a network. The references have learnt from all other {unit}s. What is published is the mean of the networks of all "
        f"folds. Networks see images around a label, those of other {unit}s too, but no label of its {unit}."
    )


def capped_notes(samples: ClassSamples, asked: Asked) -> list[str]:
    """A note where references and metadata have not learnt from all labels."""
    if max(samples.labels.counts().values()) <= asked.most_labels:
        return []
    return [f"The references learn from at most {asked.most_labels} labels of each class, drawn at random (seed {asked.seed})."]


def criteria_of(
    ours: Mapping[str, Any], differences: Mapping[str, Interval], audit: Audit | None, true_P: np.ndarray, asked: Asked
) -> tuple[Criterion, ...]:
    """What opens the gate; the model must always be better than saying the commonest class everywhere."""
    commonest_P = np.full(len(true_P), np.bincount(true_P).argmax())
    trivial_RX = confusion(true_P, commonest_P, len(ours["classes"])).reshape(1, -1)
    named, measured = MEASURES[asked.measure], float(STATISTICS[asked.measure](trivial_RX)[0])
    found = [Criterion(f"{named} (the commonest class everywhere has that)", ours[asked.measure]["value"], measured)]
    if asked.min_accuracy is not None:
        found.append(Criterion("overall accuracy", ours["accuracy"]["value"], asked.min_accuracy))
    for name in asked.must_equal:
        found.append(not_worse(f"{named} minus that of {name}", differences[name], asked.margin))
    return (*found, *(audit.criteria if audit else ()))


def class_verdict(
    described: Mapping[str, Any],
    differences: Mapping[str, Interval],
    audit: Audit | None,
    criteria: Sequence[Criterion],
    asked: Asked,
    unit: Unit = "blocks",
) -> Verdict:
    """The verdict over the differences of the measure to every reference; `unit`: what was held out."""
    outcomes: dict[str, Outcome] = {name: one.outcome(asked.margin) for name, one in differences.items()}
    reached, mean_f1 = described[asked.model]["accuracy"], flat_figures(described[asked.model])["mean_f1"] or 0.0
    between = bounds_text(reached, asked.confidence)
    sentences = [
        f"On {unit} that it has not seen, the {asked.model} has overall accuracy {reached['value']:.3f}{between}, "
        f"mean F1 {mean_f1:.3f}."
    ]
    for name, one in differences.items():
        theirs, between = described[name][asked.measure]["value"], bounds_text(one.to_json(), asked.confidence)
        sentences.append(
            f"{name}: {MEASURES[asked.measure]} {theirs:.3f}, difference {one.value:+.3f}{between}: {SAID[outcomes[name]]}."
        )
    confounded = audit.confounded_by if audit else ()
    sentences += [audit.sentence] if audit else []
    sentences += [CONFOUNDED] if confounded else unmet(criteria)
    best = max(differences, key=lambda name: described[name][asked.measure]["value"], default=None)
    is_publishable = not (unmet(criteria) or confounded)
    told = " ".join(sentences)
    return Verdict(outcomes, (), is_publishable, told, unit, asked.margin, asked.confidence, best, confounded)


SAID: dict[Outcome, str] = {
    "beats": "the model is better",
    "equal": "equal, the difference is immaterial",
    "not distinguishable": "equal within the interval",
    "loses": "the model is worse",
}


def limits_of(samples: ClassSamples, reached: Mapping[str, Any], confidence: float) -> list[str]:
    """What so many labels can and cannot show."""
    labels, blocks = samples.labels, len(np.unique(samples.block_P))
    can = f"{counted(len(labels), 'label')} in {counted(blocks, 'block')} can show how the model does on blocks like these"
    if reached["low"] is not None:
        can += f": overall accuracy between {reached['low']:.2f} and {reached['high']:.2f} with {confidence * 100:g} % confidence"
    spans = f"the span {labels.spans[0].text}" if len(labels.spans) == 1 else f"the {len(labels.spans)} spans of the labels"
    is_volume = samples.axes == 3
    far, pixel, sizes = ("other patients, or tissue", "voxel", "volumes") if is_volume else ("land", "pixel", "areas")
    cannot = (
        f"They cannot show differences between methods that are smaller than the interval of the difference, anything of times "
        f"outside {spans}, of {far} far from the labelled blocks, or of what is none of the classes: every {pixel} of the map "
        f"gets one of them. Labels that were not drawn at random give {sizes} that hold only if the map errs alike elsewhere."
    )
    notes = [f"{can}. {cannot}"]
    if blocks < FEW_BLOCKS:
        notes.append(f"{blocks} blocks are few: the intervals rest on {blocks - 1} degrees of freedom.")
    few = [f"{name} ({n})" for k, name in enumerate(labels.classes) if 0 < (n := _blocks_of_class(samples, k)) < 3]
    if few:
        notes.append(f"Classes with labels in one or two blocks, of which little can be said: {listed(few)}.")
    return notes


def _blocks_of_class(samples: ClassSamples, k: int) -> int:
    return len(np.unique(samples.block_P[samples.labels.class_P == k]))


def early_notes(by_dates: Sequence[Mapping[str, Any]], asked: Asked, *, is_volume: bool) -> list[str]:
    """A note where the first dates alone give nearly the whole accuracy; None of the methods should know a crop that early."""
    if len(by_dates) < 3 or is_volume:  # a tissue may well be known before a contrast agent arrives
        return []
    whole = by_dates[-1]
    early = [row for row in by_dates[:-1] if row["dates"] <= EARLY_SHARE * whole["dates"]]
    for name in (key for key in whole if key != "dates"):
        best = max(early, key=lambda row: row[name], default=None)
        if best is not None and whole[name] - best[name] < 0.03:
            return [
                f"The first {best['dates']} of {whole['dates']} dates give {name} {best[name]:.3f} of its {whole[name]:.3f} in "
                f"{MEASURES[asked.measure]}: "
                "much of the class is known before its season. Fields that keep their neighbours, soils and the year can be the "
                "reason; other seasons would tell."
            ]
    return []
