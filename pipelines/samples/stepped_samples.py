"""Samples with a label for every step: spans of time with a class each, and steps that are not labelled.

A step has the class of the span that holds it: by its number in the file, or by its seconds from the first frame. The answer of a
sample is {"unit": "frames" or "seconds", "spans": [[start, stop, class], ...]} in JSON, half-open, in order, without overlap.

Shapes: N samples of the store, P of them with a labelled step, T frames, S labelled steps of all samples, K classes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from pipelines.errors import RequestError
from pipelines.samples.boxes import FilePlaces
from pipelines.samples.labelled import LabelledSamples, SplitSettings, folds_of
from pipelines.samples.sample_store import SampleTable, names_of
from pipelines.samples.sample_windows import SampleArrays

UNLABELLED = -1
KnownSpan = tuple[float, float, str]  # start, stop, class


@dataclass(frozen=True)
class SteppedSamples(LabelledSamples):
    """Samples with classes of steps: `class_PT`, UNLABELLED where there is none or the frame is not valid.

    `stratum_P` is the commonest class of a sample; `arrays.target_NK` has an axis T after the first, and so has the weight, which
    is 0 where a step is not labelled.
    """

    class_PT: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))

    @property
    def sentence(self) -> str:
        """`412 labelled steps of 30 samples in 12 groups: 250 walk, 162 run`."""
        held = f"{self.groups} {self.table.layout.grouped_by}"
        many = f"{len(self.steps.known_P)} labelled steps of {len(self.known_P)} samples in {held}"
        return f"{many}: {', '.join(f'{n} {name}' for name, n in self.counts().items())}"

    def counts(self) -> dict[str, int]:
        """Labelled steps of each class."""
        return self.steps.counts()

    def classes_in(self, part_P: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.unique(self.class_PT[part_P])
        return found[found >= 0]

    def of_steps(self, answer: np.ndarray) -> np.ndarray:
        """(..., S, K) of the tested labelled steps, in the order of `steps`, from (..., P, T, K) of the tested samples."""
        labelled: np.ndarray = answer[..., self.class_PT[self.tested_P] >= 0, :]
        return labelled

    @cached_property
    def steps(self) -> LabelledSteps:
        """Every labelled step as an answer of its own, sample after sample."""
        at_S, step_S = np.nonzero(self.class_PT >= 0)
        class_S = self.class_PT[at_S, step_S]
        known_S, group_S, fold_S = self.known_P[at_S], self.group_P[at_S], self.fold_P[at_S]
        shared = (
            self.table,
            self.arrays,
            self.outputs,
            self.is_number,
            known_S,
            class_S,
            group_S,
            fold_S,
            self.split,
            self.dropped,
        )
        return LabelledSteps(*shared, step_P=step_S, of=self)


@dataclass(frozen=True)
class LabelledSteps(LabelledSamples):
    """Labelled steps, each an answer of its own: `_P` is of steps, `step_P` their numbers among the frames of their samples."""

    step_P: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    of: SteppedSamples | None = None

    item = "step"

    @property
    def whole(self) -> LabelledSamples:
        return self.of or self

    @property
    def sentence(self) -> str:
        return self.whole.sentence


def label_steps(
    table: SampleTable, image: np.ndarray, classes: Sequence[str], split: SplitSettings, *, class_weights: bool
) -> SteppedSamples:
    """Samples with the classes of their spans; `classes`: those that there may be, () for all. Raises RequestError.

    Weights make all classes count alike in training.
    """
    known = {int(n): spans_of(table, int(n)) for n in np.flatnonzero(table.answer_N != "")}
    names = tuple(classes) or tuple(sorted({name for _, spans in known.values() for _, _, name in spans}))
    class_NT, dropped = np.full(table.valid_NT.shape, UNLABELLED), Counter[str]()
    for n, (unit, spans) in known.items():
        class_NT[n] = classes_of(table, n, unit, spans, names, dropped)
    known_P = np.flatnonzero((class_NT >= 0).any(axis=1))
    dropped["samples without a labelled step"] = len(table) - len(known_P)
    counts_K = np.bincount(class_NT[class_NT >= 0], minlength=len(names))
    if len(names) < 2 or not counts_K.all():
        there = ", ".join(f"{count} of {name}" for name, count in zip(names, counts_K, strict=True)) or "none"
        raise RequestError(f"labelled steps of at least two classes are needed, and of each one, there are {there}; see labels")
    is_labelled_NT = class_NT >= 0
    target_NTK = (class_NT[..., None] == np.arange(len(names))).astype(np.float32)
    weight_K = is_labelled_NT.sum() / (len(names) * counts_K) if class_weights else np.ones(len(names))
    weight_NT = np.where(is_labelled_NT, weight_K[class_NT], 0).astype(np.float32)
    arrays = SampleArrays(image, table.valid_NT, table.layout.bands, target_NTK, weight_NT)
    class_PT = class_NT[known_P]
    stratum_P = (class_PT[..., None] == np.arange(len(names))).sum(axis=1).argmax(axis=1)
    _, group_P = np.unique(table.group_N[known_P].astype(str), return_inverse=True)
    samples = SteppedSamples(
        table, arrays, names, False, known_P, stratum_P, group_P, np.full(len(known_P), -1), split, dropped, class_PT=class_PT
    )
    return replace(samples, fold_P=folds_of(samples))


def classes_of(
    table: SampleTable, n: int, unit: str, spans: Sequence[KnownSpan], names: Sequence[str], dropped: Counter[str]
) -> np.ndarray:
    """class_T of the steps of sample n, UNLABELLED where no span holds them or they are not valid. Raises RequestError."""
    moment_T, class_T = moments_of(table, n, unit, spans), np.full(table.valid_NT.shape[1], UNLABELLED)
    for start, stop, name in spans:
        if name not in names:
            where, there = f"sample {table.id_N[n]}, span {start:g} to {stop:g}", names_of(list(names), 8)
            raise RequestError(f"{where}: unknown class {name!r}, the classes are {there}; correct it, or see labels.classes")
        is_held_T = table.valid_NT[n] & (moment_T >= start) & (moment_T < stop)
        class_T[is_held_T] = names.index(name)
        dropped["spans without a valid frame that is kept"] += not is_held_T.any()
    return class_T


def spans_of(table: SampleTable, n: int) -> tuple[str, list[KnownSpan]]:
    """(frames or seconds, the spans) that the answer of sample n states. Raises RequestError."""
    try:
        content = json.loads(table.answer_N[n])
        return str(content["unit"]), [(float(start), float(stop), str(name)) for start, stop, name in content["spans"]]
    except (ValueError, TypeError, KeyError) as e:
        found = str(table.answer_N[n])[:60]
        raise RequestError(f"sample {table.id_N[n]} has the answer {found!r}, expected spans; see labels.spans") from e


def moments_of(table: SampleTable, n: int, unit: str, spans: Sequence[KnownSpan]) -> np.ndarray:
    """moment_T as `clock_of`. Raises RequestError for spans of a file that end after it, in seconds by more than half a frame."""
    moment_T, end = clock_of(table, n, unit)
    if table.layout.is_cut:
        return moment_T
    slack = 0.0 if unit == "frames" else 0.5 * end / float(table.facts["frames"][n])
    for start, stop, name in spans:
        if stop > end + slack:
            span, where = f"the span {start:g} to {stop:g} ({name})", f"sample {table.id_N[n]}"
            raise RequestError(f"{where}: {span} ends after the file, which has {end:g} {unit}; correct the table of labels")
    return moment_T


def clock_of(table: SampleTable, n: int, unit: str) -> tuple[np.ndarray, float]:
    """(moment_T of the stored frames, NaN of padding; where the last one ends), in `frames` of the file or `seconds`.

    Raises RequestError where the times of frames are not known.
    """
    moment_T, count = np.full(table.valid_NT.shape[1], np.nan), int(table.facts["frames"][n]) if not table.layout.is_cut else 0
    if unit == "frames":
        kept = FilePlaces(table.layout, table.facts).kept(n)
        moment_T[: len(kept)] = kept
        return moment_T, float(count)
    seconds_T = table.seconds_NT[n]
    stored = int(np.isfinite(seconds_T).sum())
    if not stored or (not table.layout.is_cut and stored < min(count, len(seconds_T))):
        raise RequestError(f"sample {table.id_N[n]}: its frames have no times: set source.frame_time, or labels.spans: frames")
    moment_T[:stored] = seconds_T[:stored]
    step = table.facts["frame_s"][n] if not table.layout.is_cut else np.median(np.diff(seconds_T[:stored])) if stored > 1 else 0.0
    return moment_T, float(seconds_T[stored - 1] + (step if np.isfinite(step) else 0.0))
