"""Samples with labels of steps (`pipelines.samples.spans`), some of which are not labelled.

Shapes: N samples of the store, P of them with a labelled step, T frames, S labelled steps of all samples, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from pipelines.errors import RequestError
from pipelines.samples.labelled import LabelledSamples, SplitSettings, folds_of
from pipelines.samples.sample_store import SampleTable
from pipelines.samples.sample_windows import SampleArrays
from pipelines.samples.spans import UNLABELLED, classes_of, spans_of


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
