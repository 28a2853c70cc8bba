"""Samples with their answers and folds: what training and evaluation of whole sequences work on.

Shapes: N samples of the store, P of them with an answer, K classes or numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from pipelines.errors import RequestError
from pipelines.samples.sample_store import SampleTable, names_of
from pipelines.samples.sample_windows import SampleArrays
from pipelines.wording import counted

NUMBER_BINS, BIN_SAMPLES = 5, 20  # by which folds of numbers are balanced: at most so many, of at least so many samples


@dataclass(frozen=True)
class SplitSettings:
    """`test`: the part of the data set that tests; None: `folds` of whole groups. See `configs.samples.SampleSplitConfig`."""

    test: str | None = None
    folds: int = 5
    networks: int = 1
    validation_parts: int = 5
    seed: int = 0


@dataclass(frozen=True)
class LabelledSamples:
    """The samples of a store, with what is known of them.

    `known_P`: numbers of those with an answer, in the table; all arrays `_P` are of these. `stratum_P`: the class, or the bin of
    the number, by which folds are balanced. `fold_P`: the fold that tests a sample; -1: none does (it always trains).
    """

    table: SampleTable
    arrays: SampleArrays
    outputs: tuple[str, ...]
    is_number: bool
    known_P: np.ndarray
    stratum_P: np.ndarray
    group_P: np.ndarray
    fold_P: np.ndarray
    split: SplitSettings
    dropped: Counter[str]
    edges: np.ndarray | None = None  # between the bins of numbers

    item: ClassVar[str] = "sample"  # what has an answer

    @property
    def whole(self) -> LabelledSamples:
        """The samples that are divided into folds."""
        return self

    @property
    def tested(self) -> str:
        """`30 tested samples`, or `412 tested steps of 30 samples`."""
        text = counted(len(self.tested_P), f"tested {self.item}")
        number = len(np.unique(self.known_P[self.tested_P]))
        return text if self.item == "sample" else f"{text} of {counted(number, 'sample')}"

    @property
    def learnt(self) -> str:
        """What networks learn from: `60 samples`, without those of a part that tests."""
        return counted(len(self.known_P) - (len(self.tested_P) if self.split.test is not None else 0), "sample")

    def classes_in(self, part_P: np.ndarray) -> np.ndarray:
        """The numbers of the classes of a part."""
        return np.unique(self.class_P[part_P])

    @property
    def has_classes(self) -> bool:
        """Whether an answer is one of several classes, with a probability each."""
        return not self.is_number

    @property
    def folds(self) -> int:
        return 1 if self.split.test is not None else self.split.folds

    @property
    def class_P(self) -> np.ndarray:
        """Numbers of the classes; of numbers their bins."""
        return self.stratum_P

    @property
    def target_PK(self) -> np.ndarray:
        target: np.ndarray = self.arrays.target_NK[self.known_P]
        return target

    @property
    def tested_P(self) -> np.ndarray:
        """Which of the labelled samples are tested by some network that has not seen their group."""
        return np.flatnonzero(self.fold_P >= 0)

    @cached_property
    def groups(self) -> int:
        return len(np.unique(self.group_P))

    @property
    def unit(self) -> Literal["groups", "blocks"]:
        """What stays together: blocks of pixels where the samples are windows of a cube."""
        return "blocks" if self.table.layout.is_cut else "groups"

    def folds_digest(self) -> str:
        """SHA-256 (hex) of the groups, each with the fold that tests it: equal where no network has seen what its fold tests."""
        names = self.table.group_N[self.known_P].astype(str)
        pairs = sorted({*zip(names.tolist(), self.fold_P.tolist(), strict=True)})
        return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()

    @property
    def sentence(self) -> str:
        """`30 samples in 12 groups: 20 pneumonia, 10 regular`."""
        many = f"{len(self.known_P)} samples in {self.groups} {self.table.layout.grouped_by}"
        if self.is_number:
            values = self.target_PK[:, 0]
            return f"{many}: {self.outputs[0]} from {values.min():g} to {values.max():g}, mean {values.mean():g}"
        counts = np.bincount(self.class_P, minlength=len(self.outputs))
        return f"{many}: {', '.join(f'{n} {name}' for name, n in zip(self.outputs, counts, strict=True))}"

    def counts(self) -> dict[str, int]:
        """Samples of each class."""
        if self.is_number:
            return {self.outputs[0]: len(self.known_P)}
        numbers = np.bincount(self.class_P, minlength=len(self.outputs)).tolist()
        return dict(zip(self.outputs, numbers, strict=True))


def label_classes(
    table: SampleTable, image: np.ndarray, classes: Sequence[str], split: SplitSettings, *, class_weights: bool
) -> LabelledSamples:
    """Samples with the classes of the table; `classes`: those that count, () for all. Raises RequestError.

    Weights make all classes count alike in training.
    """
    found = Counter(table.answer_N.tolist())
    found.pop("", None)
    names = tuple(classes) or tuple(sorted(found))
    if len(names) < 2:
        raise RequestError(f"at least two classes are needed, the samples have {names_of(list(names)) or 'none'}; see labels")
    if missing := [name for name in names if name not in found]:
        raise RequestError(f"no sample has the class {missing[0]!r}; there are {names_of(sorted(found), 8)}; see labels.classes")
    number = {name: k for k, name in enumerate(names)}
    class_N = np.array([number.get(answer, -1) for answer in table.answer_N], np.int64)
    dropped = Counter({"without an answer": int((table.answer_N == "").sum())})
    dropped["of another class"] = int((class_N < 0).sum()) - dropped["without an answer"]
    target_NK = np.zeros((len(table), len(names)), np.float32)
    known_P = np.flatnonzero(class_N >= 0)
    target_NK[known_P, class_N[known_P]] = 1
    weight_N = np.ones(len(table), np.float32)
    if class_weights:
        counts_K = np.bincount(class_N[known_P], minlength=len(names))
        weight_N[known_P] = (len(known_P) / (len(names) * counts_K))[class_N[known_P]]
    return _labelled(table, image, target_NK, weight_N, names, known_P, class_N[known_P], split, dropped, is_number=False)


def label_numbers(table: SampleTable, image: np.ndarray, name: str, split: SplitSettings) -> LabelledSamples:
    """Samples with a number each. Raises RequestError for answers that are none."""
    target_N1 = np.full((len(table), 1), np.nan, np.float32)
    for n, answer in enumerate(table.answer_N):
        try:
            target_N1[n, 0] = float(answer) if answer else np.nan
        except ValueError as e:
            raise RequestError(f"sample {table.id_N[n]} has the answer {answer!r}, which is no number; see labels") from e
    known_P = np.flatnonzero(np.isfinite(target_N1[:, 0]))
    if len(np.unique(target_N1[known_P])) < 2:
        raise RequestError(f"at least two different numbers are needed, the samples have {len(np.unique(target_N1[known_P]))}")
    bins = max(1, min(NUMBER_BINS, len(known_P) // BIN_SAMPLES))
    edges = np.quantile(target_N1[known_P, 0], np.linspace(0, 1, bins + 1)[1:-1])
    dropped = Counter({"without a number": len(table) - len(known_P)})
    weight_N = np.ones(len(table), np.float32)
    edges = np.unique(edges)
    bins_P = np.digitize(target_N1[known_P, 0], edges)
    samples = _labelled(table, image, target_N1, weight_N, (name,), known_P, bins_P, split, dropped, is_number=True)
    return replace(samples, edges=edges)


def _labelled(
    table: SampleTable, image: np.ndarray, target_NK: np.ndarray, weight_N: np.ndarray, outputs: tuple[str, ...],
    known_P: np.ndarray, stratum_P: np.ndarray, split: SplitSettings, dropped: Counter[str], *, is_number: bool,
) -> LabelledSamples:  # fmt: skip
    arrays = SampleArrays(image, table.valid_NT, table.layout.bands, target_NK, weight_N)
    _, group_P = np.unique(table.group_N[known_P].astype(str), return_inverse=True)
    samples = LabelledSamples(
        table, arrays, outputs, is_number, known_P, stratum_P, group_P, np.full(len(known_P), -1), split, dropped
    )
    return replace(samples, fold_P=folds_of(samples))


def folds_of(samples: LabelledSamples) -> np.ndarray:
    """fold_P. Raises RequestError where groups or the test part cannot be divided so."""
    split = samples.split
    if split.test is None:
        return group_folds(samples.group_P, samples.stratum_P, split.folds, split.seed)
    return part_folds(samples.table.part_N[samples.known_P], samples.group_P, split.test)


def part_folds(part_P: np.ndarray, group_P: np.ndarray, test: str) -> np.ndarray:
    """fold_P: 0 for the part of the data set that tests, -1 for all others. Raises RequestError."""
    if test not in part_P:
        parts = names_of(sorted({part for part in part_P if part})) or "none"
        raise RequestError(f"no sample belongs to the part {test!r}; there are {parts}; see split.test")
    is_test_P = part_P == test
    if shared := np.intersect1d(group_P[is_test_P], group_P[~is_test_P]).size:
        raise RequestError(f"{shared} groups have samples both inside and outside the part {test!r}; see labels.columns.group")
    if is_test_P.all():
        raise RequestError(f"every sample belongs to the part {test!r}, so that none is left to learn from")
    return np.where(is_test_P, 0, -1)


def group_folds(group_P: np.ndarray, stratum_P: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """fold_P: whole groups at random, every fold with about the same share of every stratum. Raises RequestError.

    Where every sample is a group of its own, a plain stratified split does the same in less time.
    """
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    groups, most = len(np.unique(group_P)), int(np.bincount(stratum_P).max())
    if groups < folds or most < folds:
        raise RequestError(f"{groups} groups with at most {most} samples of a class are too few for {folds} parts; see split")
    fold_P = np.empty(len(group_P), np.int64)
    splitter = (StratifiedKFold if groups == len(group_P) else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a rare class has fewer samples than there are folds: its figures say so
        for fold, (_, test) in enumerate(splitter.split(stratum_P, stratum_P, group_P)):
            fold_P[test] = fold
    return fold_P
