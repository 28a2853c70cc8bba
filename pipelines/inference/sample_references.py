"""References of labels and numbers of whole sequences, on the folds of the model: rows of features, and other networks.

Shapes: P tested samples, F features, K classes or numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from pipelines.learning.class_metrics import Predicted
from pipelines.progress import Progress, ignore_progress
from pipelines.samples.class_samples import at_most
from pipelines.samples.labelled import LabelledSamples
from pipelines.samples.stepped_samples import LabelledSteps

ROWS = 512  # samples at a time

Features = Callable[[torch.Tensor, torch.Tensor], np.ndarray]


class RowReference(Protocol):
    """A model of rows of features."""

    def fit(self, features_PF: np.ndarray, answer_P: np.ndarray) -> RowReference: ...
    def predict(self, features_PF: np.ndarray) -> np.ndarray: ...


def features_of(samples: LabelledSamples, compute: Features) -> np.ndarray:
    """features_PF float32; where steps have the answers, of the frame of each step alone."""
    found = []
    for start in range(0, len(samples.known_P), ROWS):
        rows = samples.known_P[start : start + ROWS]
        step_P = samples.step_P[start : start + ROWS] if isinstance(samples, LabelledSteps) else None
        valid = samples.arrays.valid_NT[rows] if step_P is None else np.ones((len(rows), 1), bool)
        found.append(compute(samples.arrays.physical(rows, step_P), torch.from_numpy(np.ascontiguousarray(valid))))
    return np.concatenate(found)


def held_out_rows(
    samples: LabelledSamples, features_PF: np.ndarray, build: Callable[[], RowReference], most: int, seed: int,
    progress: Progress = ignore_progress,
) -> np.ndarray:  # fmt: skip
    """What a reference says of the tested samples, (P,), fitted on the other groups; at most `most` samples of a class."""
    tested_P = samples.tested_P
    answer_P = samples.target_PK[:, 0] if samples.is_number else samples.class_P
    said = np.zeros(len(samples.known_P), answer_P.dtype)
    for fold in range(samples.folds):
        learnt_P = at_most(samples.stratum_P, np.flatnonzero(samples.fold_P != fold), most, seed)
        own_P = np.flatnonzero(samples.fold_P == fold)
        said[own_P] = build().fit(features_PF[learnt_P], answer_P[learnt_P]).predict(features_PF[own_P])
        progress(fold + 1, samples.folds)
    held_out: np.ndarray = said[tested_P]
    return held_out


def commonest(samples: LabelledSamples) -> Predicted:
    """The commonest class of the other groups, for every tested sample."""
    tested_P = samples.tested_P
    said_P = np.zeros(len(samples.known_P), np.int64)
    for fold in range(samples.folds):
        said_P[samples.fold_P == fold] = np.bincount(samples.class_P[samples.fold_P != fold]).argmax()
    return Predicted(said_P[tested_P])
