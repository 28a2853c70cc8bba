"""The reference of boxes that has no network, on the folds of the model: parts of frames, named by a classifier of features.

Shapes: P tested samples, X boxes, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipelines.compute import HERE, Compute, carry_out
from pipelines.progress import Progress, ignore_progress
from pipelines.samples.boxed_samples import BoxedSamples
from pipelines.samples.boxes import COLUMNS, Boxes
from pipelines.samples.class_samples import at_most
from pipelines.samples.decoded_sites import key_of
from pipelines.samples.sample_windows import SampleArrays

AT_ONCE = 64  # samples in a piece of work

Find = Callable[[np.ndarray], np.ndarray]  # image_YX -> edges_X4
Describe = Callable[[np.ndarray, np.ndarray], np.ndarray]  # image_YX, edges_X4 -> features_XF


class Votes(Protocol):
    """A classifier of rows of features."""

    def fit(self, features_PF: np.ndarray, class_P: np.ndarray) -> object: ...
    def predict_probability(self, features_PF: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Part:
    """The samples `own_N` of a fold, and the place of their boxes among all."""

    number: int
    fold: int
    own_N: np.ndarray

    def __str__(self) -> str:
        return f"samples {self.own_N[0]} to {self.own_N[-1]}"


@dataclass(frozen=True)
class PartsWork:
    """Parts of frames as work for `compute`: frames that lie in a file travel by its name, the classifiers of folds by value."""

    arrays: SampleArrays
    find: Find
    describe: Describe
    classifiers: Mapping[int, Votes]
    on_gpu: bool = False

    @property
    def key(self) -> str:
        return key_of(samples=len(self.arrays.valid_NT), folds=list(self.classifiers))

    def open(self) -> Callable[[Part], tuple[Part, np.ndarray]]:
        return self.table_of

    def table_of(self, part: Part) -> tuple[Part, np.ndarray]:
        tables = [np.zeros((0, COLUMNS))]
        for n in part.own_N.tolist():
            tables += _parts_of(self.arrays, n, self.find, self.describe, self.classifiers[part.fold])
        return part, np.concatenate(tables)

    def limit(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)


def found_parts(
    samples: BoxedSamples, find: Find, describe: Describe, build: Callable[[], Votes], most: int, seed: int,
    progress: Progress = ignore_progress, compute: Compute = HERE,
) -> Boxes:  # fmt: skip
    """What `find` finds in the first band of the tested samples, a box of every class with its votes; `most`: boxes of a class
    that the classifier learns from. A single worker holds the classifier of one fold at a time."""
    parts = list[Part]()
    for fold in range(samples.folds):
        own_N = samples.known_P[samples.fold_P == fold]
        for start in range(0, len(own_N), AT_ONCE):
            parts.append(Part(len(parts), fold, own_N[start : start + AT_ONCE]))
    tables, done, total = [np.zeros(0)] * len(parts), 0, sum(len(part.own_N) for part in parts)
    together = 1 if compute.is_local and compute.at_once == 1 else samples.folds
    for first in range(0, samples.folds, together):
        folds = range(first, min(first + together, samples.folds))
        classifiers = {fold: _learnt(samples, fold, describe, build, most, seed) for fold in folds}
        work = PartsWork(samples.arrays, find, describe, classifiers)
        for part, table in carry_out(work, [part for part in parts if part.fold in folds], compute):
            tables[part.number], done = table, done + len(part.own_N)
            progress(done, total)
    return Boxes.of_table(np.concatenate([np.zeros((0, COLUMNS)), *tables]))


def _learnt(
    samples: BoxedSamples, fold: int, describe: Describe, build: Callable[[], Votes], most: int, seed: int
) -> Votes:  # fmt: skip
    """The classifier of known boxes in samples of other folds."""
    learnt_N = samples.known_P[samples.fold_P != fold]
    chosen = np.flatnonzero(np.isin(samples.boxes.sample_X, learnt_N))
    known = samples.boxes.chosen(at_most(samples.boxes.class_X, chosen, most, seed))
    features = [
        describe(frame_of(samples.arrays, int(n), int(t)), edges[None])
        for n, t, edges in zip(known.sample_X, known.frame_X, known.edges_X4, strict=True)
    ]
    classifier = build()
    classifier.fit(np.concatenate(features), known.class_X)
    return classifier


def _parts_of(arrays: SampleArrays, n: int, find: Find, describe: Describe, classifier: Votes) -> list[np.ndarray]:
    """Tables of boxes of one sample."""
    frames = np.flatnonzero(arrays.valid_NT[n]).tolist()
    images = {t: frame_of(arrays, n, t) for t in frames}
    edges = {t: find(image) for t, image in images.items()}
    if not any(map(len, edges.values())):
        return []
    frame_X = np.concatenate([np.full(len(one), t) for t, one in edges.items()])
    features_XF = np.concatenate([describe(images[t], one) for t, one in edges.items()])
    p_XK = classifier.predict_probability(features_XF)
    edges_X4 = np.concatenate(list(edges.values()))
    tables = []
    for k in range(p_XK.shape[1]):
        voted = p_XK[:, k] > 0
        columns = [np.full(voted.sum(), n), frame_X[voted], *edges_X4[voted].T, np.full(voted.sum(), k), p_XK[voted, k]]
        tables.append(np.stack(columns, axis=1).astype(np.float64))
    return tables


def frame_of(arrays: SampleArrays, n: int, t: int) -> np.ndarray:
    """The first band of a frame, (y, x), stored values."""
    return np.asarray(arrays.image_NTCHW[n, t, 0])
