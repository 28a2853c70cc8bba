"""Boxes that trained networks find in samples: in batches that are kept, so that a killed call goes on; held out, or by all.

The maps of several networks are averaged before boxes are read from them. Shapes: N samples of the store, P some of them, X
boxes, D channels of the maps; see `pipelines.samples.boxes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from pipelines.compute import HERE, Compute
from pipelines.inference.sample_batches import Batch, BatchWork, answer_batches, save
from pipelines.inference.sample_labels import BATCH_BYTES, Kept, SampleModel, place_of
from pipelines.progress import Progress, ignore_progress
from pipelines.samples.boxed_samples import BoxedSamples
from pipelines.samples.boxes import COLUMNS, Boxes
from pipelines.samples.sample_windows import SampleArrays

STORED_SAMPLES = 256  # in a file

Decode = Callable[[torch.Tensor], torch.Tensor]  # y_BTDHW -> boxes_X8


def find_boxes(
    model: SampleModel, members: Sequence[int], decode: Decode, arrays: SampleArrays, index_P: np.ndarray,
    kept: Kept | None = None, progress: Progress = ignore_progress, compute: Compute = HERE,
) -> Boxes:  # fmt: skip
    """Boxes in the samples `index_P`, by the mean of those members; none in frames that are not valid."""
    place = None if kept is None else place_of(kept, str(list(members)), index_P)
    found = [np.zeros((0, COLUMNS))]
    if place is not None:
        parts = [(index_P[start : start + STORED_SAMPLES], start) for start in range(0, len(index_P), STORED_SAMPLES)]
        batches = [Batch(tuple(members), part_P, place / f"{start:09d}.npy") for part_P, start in parts]
        answer_batches(BatchWork(model, arrays, partial(_find, decode=decode)), batches, compute, progress)
    for start in range(0, len(index_P), STORED_SAMPLES):
        path = None if place is None else place / f"{start:09d}.npy"
        if path is not None and path.is_file():
            found.append(np.load(path))
        else:
            found.append(_find(model, members, arrays, index_P[start : start + STORED_SAMPLES], decode))
            if path is not None:
                save(path, found[-1])
        progress(min(start + STORED_SAMPLES, len(index_P)), len(index_P))
    return Boxes.of_table(np.concatenate(found))


def _find(model: SampleModel, members: Sequence[int], arrays: SampleArrays, index_P: np.ndarray, decode: Decode) -> np.ndarray:
    each = max(1, min(64, BATCH_BYTES // max(1, int(np.prod(arrays.image_NTCHW.shape[1:])) * 4 * 16)))  # 16: maps of a network
    found = []
    for start in range(0, len(index_P), each):
        rows = index_P[start : start + each]
        x, valid_PT = arrays.physical(rows), torch.from_numpy(np.ascontiguousarray(arrays.valid_NT[rows]))
        y: torch.Tensor = sum((model.predict(m, x, valid_PT).float() for m in members), torch.zeros(())) / len(members)
        boxes = Boxes.of_table(decode(y).numpy())
        boxes = boxes.chosen(valid_PT.numpy()[boxes.sample_X, boxes.frame_X])
        found.append(replace(boxes, sample_X=rows[boxes.sample_X]).table())
    return np.concatenate(found)


def held_out_boxes(samples: BoxedSamples, model: SampleModel, decode: Decode, progress: Progress = ignore_progress) -> Boxes:
    """Boxes in the tested samples by the networks that have not seen their group."""
    networks, tested_P = samples.split.networks, samples.tested_P
    found = []
    for fold in range(samples.folds):
        own_P = samples.known_P[tested_P[samples.fold_P[tested_P] == fold]]
        members = range(fold * networks, (fold + 1) * networks)
        found.append(find_boxes(model, members, decode, samples.arrays, own_P).table())
        progress(fold + 1, samples.folds)
    return Boxes.of_table(np.concatenate(found))
