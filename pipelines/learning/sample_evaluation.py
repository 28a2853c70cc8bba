"""Scores of samples that were held out -> evaluation: methods side by side, the spread of the seeds, verdict, shortcut audit.

Shapes: P tested samples, K classes, M networks of a fold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.learning.class_evaluation import MEASURES, STATISTICS, Asked, class_verdict, criteria_of
from pipelines.learning.class_metrics import Predicted, block_confusions, describe, difference, flat_figures
from pipelines.learning.result import Evaluation, listed
from pipelines.learning.sample_training import describe_parts
from pipelines.learning.shortcuts import Audit, Classifier, audit_shortcuts
from pipelines.samples.labelled import LabelledSamples
from pipelines.samples.stepped_samples import LabelledSteps
from pipelines.wording import counted

FEW_GROUPS = 10
CLUES = {
    "frame size": ("rows", "columns"), "number of frames": ("frames",), "frame time": ("frame_s",), "file size": ("bytes",),
}  # fmt: skip
PLACE_CLUES = {"position": ("row", "column"), "year": ("year",), "missing share": ("missing",)}  # of windows of a cube


def audit_samples(
    samples: LabelledSamples, said_P: np.ndarray, build: Callable[[], Classifier], *, near: float, confidence: float
) -> Audit:
    """What is known beside the images (size, length, frame time, bytes; of windows where and when) against the model, same folds.

    Of a data set with a test part metadata learn from the rest, as the model does.
    """
    known_P, clues = samples.known_P, PLACE_CLUES if samples.table.layout.is_cut else CLUES
    metadata = {
        name: np.nan_to_num(np.stack([samples.table.facts[fact][known_P] for fact in facts], axis=1), nan=-1.0)
        for name, facts in clues.items()
    }
    if isinstance(samples, LabelledSteps):
        metadata["number of the step"] = samples.step_P.astype(float)
    whole_P = samples.class_P.copy()
    whole_P[samples.tested_P] = said_P
    return audit_shortcuts(
        metadata, samples.class_P, samples.fold_P, samples.group_P, whole_P, build, near=near, confidence=confidence
    )  # fmt: skip


def bins_of(samples: LabelledSamples, answer_P: np.ndarray) -> np.ndarray:
    """The bin of each number, as `LabelledSamples.stratum_P`, for the shortcut audit."""
    assert samples.edges is not None, "numbers have bins"
    bin_P: np.ndarray = np.digitize(answer_P, samples.edges)
    return bin_P


def conclude_classes(
    samples: LabelledSamples, predicted: Mapping[str, Predicted], single: Sequence[Predicted], audit: Audit | None, asked: Asked,
) -> Evaluation:  # fmt: skip
    """The evaluation of labels. `single`: what each network of a fold says alone, for the spread of the seeds."""
    tested_P, classes = samples.tested_P, samples.outputs
    true_P, group_P = samples.class_P[tested_P], samples.group_P[tested_P]
    described = {name: describe(one, true_P, group_P, classes, asked.confidence, samples.unit) for name, one in predicted.items()}
    counts = {name: block_confusions(true_P, one.class_P, group_P, len(classes)) for name, one in predicted.items()}
    ours, statistic = counts.pop(asked.model), STATISTICS[asked.measure]
    differences = {name: difference(ours, theirs, statistic, asked.confidence, samples.unit) for name, theirs in counts.items()}
    criteria = criteria_of(described[asked.model], differences, audit, true_P, asked)
    verdict = class_verdict(described, differences, audit, criteria, asked, samples.unit)
    alone = [float(np.mean(one.class_P == true_P)) for one in single]
    details = {
        "classes": list(classes),
        "item": samples.item,
        "methods": described,
        "differences": {name: one.to_json() for name, one in differences.items()},
        "measure": MEASURES[asked.measure],
        "single_networks": alone,
        "audit": audit.to_json() if audit else None,
        "labels": {"samples": len(samples.known_P), "dropped": dict(samples.dropped), "classes": samples.counts()},
        "folds": list(describe_parts(samples.whole)),
        "groups": len(np.unique(group_P)),
        "confidence": asked.confidence,
    }
    notes = [*limits_of(samples, asked.confidence, described[asked.model]["accuracy"]), *spread_notes(alone, "accuracy")]
    notes += [*capped_notes(samples, asked.most_labels, asked.seed), *(audit.notes if audit else ())]
    methods = {name: flat_figures(one) for name, one in described.items()}
    return Evaluation(asked.model, methods, verdict, criteria, details, tuple(notes), protocol_of(samples))


def protocol_of(samples: LabelledSamples) -> str:
    """How the samples were divided, and who has seen what."""
    split, tested, unit, each = samples.split, len(samples.tested_P), samples.unit, samples.item
    chose = "epoch and temperature" if samples.has_classes else "the epoch"
    seen = "a network that has" if split.networks == 1 else f"the mean of {split.networks} networks that have"
    if split.test is not None:
        rest = len(samples.known_P) - tested
        return (
            f"{counted(tested, each)} of the part {split.test} are predicted by {seen} learnt from the other {rest}; one in "
            f"{split.validation_parts} of these chose {chose}. The references have learnt from the same samples."
        )
    return (
        f"{samples.sentence}, in {samples.folds} folds of whole {unit}: every {each} is predicted once, by {seen} not seen its "
        f"{unit[:-1]}; a part of the other {unit} chose {chose}. The references have learnt from all other {unit}. "
        f"What is published is the mean of the networks of all folds.{_reach_of(samples)}"
    )


def _reach_of(samples: LabelledSamples) -> str:
    """What windows show of other blocks."""
    reach = samples.table.layout.size[-1] // 2 if samples.table.layout.is_cut else 0
    return f" Windows reach {counted(reach, 'pixel')} into neighbouring blocks: their images, not their labels." if reach else ""


def limits_of(samples: LabelledSamples, confidence: float, reached: Mapping[str, Any] | None = None) -> list[str]:
    """What so many samples can and cannot show."""
    groups = len(np.unique(samples.group_P[samples.tested_P]))
    tested = f"{samples.tested} in {counted(groups, samples.unit[:-1])}"
    can = f"{tested} can show how the model does on such {samples.unit}"
    if reached is not None and reached["low"] is not None:
        can += f": accuracy between {reached['low']:.2f} and {reached['high']:.2f} with {confidence * 100:g} % confidence"
    cannot = (
        "They cannot show differences between methods that are smaller than the interval of the difference, or anything of other "
        "places, devices or people than these"
    )
    notes = [f"{can}. {cannot}."]
    if groups < FEW_GROUPS:
        notes.append(f"{groups} {samples.unit} are few: the intervals rest on {groups - 1} degrees of freedom.")
    if samples.is_number:
        return notes
    few = []
    for k, name in enumerate(samples.outputs):
        held = len(np.unique(samples.group_P[samples.class_P == k]))
        few += [f"{name} ({held})"] if held < 3 else []
    if few:
        notes.append(f"Classes with {samples.item}s in one or two {samples.unit}, of which little can be said: {listed(few)}.")
    return notes


def spread_notes(alone: Sequence[float], named: str) -> list[str]:
    """How far single networks are apart."""
    if len(alone) < 2:
        return []
    mean, spread = float(np.mean(alone)), float(np.std(alone, ddof=1))
    return [
        f"One network of a fold alone has {named} {mean:.4f} on average (standard deviation {spread:.4f} over {len(alone)} seeds "
        "and validation parts); the model is their mean."
    ]


def capped_notes(samples: LabelledSamples, most: int, seed: int) -> list[str]:
    if max(samples.counts().values()) <= most:
        return []
    return [f"The references learn from at most {most} {samples.item}s of each class, drawn at random (seed {seed})."]
