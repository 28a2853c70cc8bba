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
from pipelines.inference.sample_batches import BatchWork, Kept, answer_batches, batches_of, save
from pipelines.inference.sample_labels import BATCH_BYTES, SampleModel
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
    batches = [] if kept is None else batches_of(kept, members, index_P, STORED_SAMPLES)
    answer_batches(BatchWork(model, arrays, partial(_find, decode=decode)), batches, compute, progress)
    found = [np.zeros((0, COLUMNS))]
    for number, start in enumerate(range(0, len(index_P), STORED_SAMPLES)):
        if kept is not None and batches[number].path.is_file():
            found.append(np.load(batches[number].path))
        else:
            found.append(_find(model, members, arrays, index_P[start : start + STORED_SAMPLES], decode))
            if kept is not None:
                save(batches[number].path, found[-1])
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


def held_out_boxes(
    samples: BoxedSamples, model: SampleModel, decode: Decode, kept: Kept | None = None, progress: Progress = ignore_progress,
    compute: Compute = HERE,
) -> Boxes:  # fmt: skip
    """Boxes in the tested samples by the networks that have not seen their group; those of all folds are one work."""
    networks, tested_P = samples.split.networks, samples.tested_P
    own_F = [samples.known_P[tested_P[samples.fold_P[tested_P] == fold]] for fold in range(samples.folds)]
    members_F = [range(fold * networks, (fold + 1) * networks) for fold in range(samples.folds)]
    if kept is not None:
        asked = zip(members_F, own_F, strict=True)
        batches = [batch for members, own_P in asked for batch in batches_of(kept, members, own_P, STORED_SAMPLES)]
        answer_batches(BatchWork(model, samples.arrays, partial(_find, decode=decode)), batches, compute, progress)
    found = []
    for fold, (members, own_P) in enumerate(zip(members_F, own_F, strict=True)):
        found.append(find_boxes(model, members, decode, samples.arrays, own_P, kept).table())
        progress(fold + 1, samples.folds)
    return Boxes.of_table(np.concatenate(found))
