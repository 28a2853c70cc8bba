"""The answer for every pixel of a cube, by a model of sequences that reads the window around it; part by part.

Shapes: M members, K outputs, H rows, W columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.compute import HERE, Compute, carry_out
from pipelines.inference.sample_batches import Kept, save
from pipelines.progress import Progress, ignore_progress
from pipelines.samples.cube_windows import CubeWindows, block_name, cut
from pipelines.samples.decoded_sites import key_of
from pipelines.samples.labels import Span
from pipelines.stored_files import absolute
from pipelines.tiles import Box

if TYPE_CHECKING:  # products, which need no torch, read this module
    from pipelines.inference.sample_labels import SampleModel
    from pipelines.samples.labelled import LabelledSamples

AT_ONCE = 4096  # windows in memory


@dataclass(frozen=True)
class WindowMap:
    """`answer_KHW` float32: numbers, or probabilities of classes; NaN where no frame of the window is valid.

    `held_out_HW`: answered by networks that have not seen the pixel's block.
    """

    span: Span
    dates: int
    answer_KHW: np.ndarray
    held_out_HW: np.ndarray


def folds_of_blocks(samples: LabelledSamples) -> dict[str, int]:
    """Block -> the fold that tests it, of blocks with a tested label."""
    names_P = samples.table.group_N[samples.known_P]
    return {str(names_P[p]): int(samples.fold_P[p]) for p in samples.tested_P}


@dataclass(frozen=True)
class WindowMapWork:
    """The parts of a map as work for `compute`. Pixels of the blocks in `folds` (block -> fold) are answered by the `networks`
    that have not seen their block, all others by the mean of all.

    The model travels by value; the cube is opened by its URI and version, so labels stay behind.
    """

    windows: CubeWindows
    span: Span
    model: SampleModel
    folds: Mapping[str, int]
    networks: int
    on_gpu: bool = False

    @property
    def key(self) -> str:
        return key_of(cube=self.windows.snapshot, span=self.span.text, networks=len(self.model.members))

    def open(self) -> Callable[[Box], tuple[Box, np.ndarray]]:
        _ = self.windows.dataset  # before threads ask for it at once
        return lambda box: (box, answer_part(self, box))

    def limit(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)

    def __getstate__(self) -> dict[str, object]:
        uri = absolute(self.windows.uri)
        return {**self.__dict__, "windows": replace(self.windows, uri=uri, labels=None, span=None, _parts={})}


def predict_windows(work: WindowMapWork, kept: Kept, compute: Compute = HERE, progress: Progress = ignore_progress) -> WindowMap:
    """The map, from parts that are kept in files, so that a killed call goes on. Raises RequestError."""
    windows, span = work.windows, work.span
    shape, boxes = windows.grid.shape_yx, windows.boxes()
    missing = [box for box in boxes if not _place(kept, span, box).is_file()]
    progress(len(boxes) - len(missing), len(boxes))
    for done, (box, part_XHW) in enumerate(carry_out(work, missing, compute), start=1):
        save(_place(kept, span, box), part_XHW)
        progress(len(boxes) - len(missing) + done, len(boxes))
    answer_KHW = np.full((len(work.model.outputs), *shape), np.nan, np.float32)
    held_out_HW = np.zeros(shape, bool)
    for box in boxes:
        answer_KHW[:, *box.slices], held_out_HW[box.slices] = (one := np.load(_place(kept, span, box)))[:-1], one[-1] > 0
    dates = int(span.holds(windows.dataset["time"].values).sum())
    return WindowMap(span, dates, answer_KHW, held_out_HW & np.isfinite(answer_KHW[0]))


def _place(kept: Kept, span: Span, box: Box) -> Path:
    folder = kept.folder / hashlib.sha256(f"{kept.key}{span.text}".encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{box.key}.npy"


def answer_part(work: WindowMapWork, box: Box) -> np.ndarray:
    """part_XHW float32 of the pixels of a box: the answers, and last 1 where they are of networks that did not see the block."""
    from pipelines.inference.sample_labels import score_samples
    from pipelines.samples.sample_windows import SampleArrays

    windows, model = work.windows, work.model
    part, members, least = windows.read_part(work.span, box), range(len(model.members)), windows.settings.min_frames
    rows_N, columns_N = (one.ravel() for one in np.mgrid[box.rows, box.columns])
    block_px = windows.settings.block_px
    fold_N = np.array(
        [work.folds.get(block_name(*place, block_px), -1) for place in zip(rows_N.tolist(), columns_N.tolist(), strict=True)]
    )
    answer_NK = np.full((len(rows_N), len(model.outputs)), np.nan, np.float32)
    for start in range(0, len(rows_N), AT_ONCE):
        at_N = np.arange(start, min(start + AT_ONCE, len(rows_N)))
        found = cut(part, rows_N[at_N], columns_N[at_N], windows.settings.window_px)
        count = len(at_N)
        arrays = SampleArrays(
            found.image_NTCHW, found.valid_NT, windows.bands, np.zeros((count, 1), np.float32), np.ones(count, np.float32)
        )
        is_seen_N = found.valid_NT.sum(axis=1) >= least
        for fold in np.unique(fold_N[at_N[is_seen_N]]).tolist():
            own_N = np.flatnonzero(is_seen_N & (fold_N[at_N] == fold))
            used = members if fold < 0 else range(fold * work.networks, (fold + 1) * work.networks)
            single = [model.calibrated(m, score_samples(model, m, arrays, own_N)) for m in used]
            answer_NK[at_N[own_N]] = np.mean(single, axis=0)
    both_NX = np.concatenate([answer_NK, fold_N[:, None] >= 0], axis=1, dtype=np.float32)
    return both_NX.T.reshape(-1, *box.shape)
