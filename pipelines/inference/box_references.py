"""The reference of boxes that has no network, on the folds of the model: parts of frames, named by a classifier of features.

Shapes: P tested samples, X boxes, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from pipelines.progress import Progress, ignore_progress
from pipelines.samples.boxed_samples import BoxedSamples
from pipelines.samples.boxes import COLUMNS, Boxes
from pipelines.samples.class_samples import at_most
from pipelines.samples.sample_windows import SampleArrays

Find = Callable[[np.ndarray], np.ndarray]  # image_YX -> edges_X4
Describe = Callable[[np.ndarray, np.ndarray], np.ndarray]  # image_YX, edges_X4 -> features_XF


class Votes(Protocol):
    """A classifier of rows of features."""

    def fit(self, features_PF: np.ndarray, class_P: np.ndarray) -> object: ...
    def predict_probability(self, features_PF: np.ndarray) -> np.ndarray: ...


def found_parts(
    samples: BoxedSamples, find: Find, describe: Describe, build: Callable[[], Votes], most: int, seed: int,
    progress: Progress = ignore_progress,
) -> Boxes:  # fmt: skip
    """What `find` finds in the first band of the tested samples, a box of every class with its votes; `most`: boxes of a class
    that the classifier learns from."""
    tables = [np.zeros((0, COLUMNS))]
    for fold in range(samples.folds):
        learnt_N = samples.known_P[samples.fold_P != fold]
        chosen = np.flatnonzero(np.isin(samples.boxes.sample_X, learnt_N))
        known = samples.boxes.chosen(at_most(samples.boxes.class_X, chosen, most, seed))
        features = [
            describe(frame_of(samples.arrays, int(n), int(t)), edges[None])
            for n, t, edges in zip(known.sample_X, known.frame_X, known.edges_X4, strict=True)
        ]
        classifier = build()
        classifier.fit(np.concatenate(features), known.class_X)
        own_N = samples.known_P[samples.fold_P == fold]
        for done, n in enumerate(own_N.tolist()):
            tables += _parts_of(samples.arrays, n, find, describe, classifier)
            progress(fold * len(own_N) + done + 1, samples.folds * len(own_N))
    return Boxes.of_table(np.concatenate(tables))


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
