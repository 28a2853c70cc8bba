"""The answer for every pixel of a cube, by a model of sequences that reads the window around it; part by part.

Shapes: M members, K outputs, H rows, W columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.files import replacing
from pipelines.progress import Progress, ignore_progress
from pipelines.samples.cube_windows import CubeWindows, block_name, cut
from pipelines.samples.labels import Span
from pipelines.tiles import Box

if TYPE_CHECKING:  # products, which need no torch, read this module
    from pipelines.inference.sample_labels import Kept, SampleModel
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


def predict_windows(
    windows: CubeWindows, span: Span, model: SampleModel, folds: Mapping[str, int], networks: int, kept: Kept,
    progress: Progress = ignore_progress,
) -> WindowMap:  # fmt: skip
    """The map of a span. Pixels of the blocks in `folds` (block -> fold) are answered by the `networks` that have not seen their
    block, as the tested samples are, all others by the mean of all. Finished parts are kept, so that a killed call goes on.
    """
    shape, boxes = windows.grid.shape_yx, windows.boxes()
    answer_KHW = np.full((len(model.outputs), *shape), np.nan, np.float32)
    held_out_HW = np.zeros(shape, bool)
    for done, box in enumerate(boxes):
        path = _place(kept, span, box)
        if path.is_file():
            answer_KHW[:, *box.slices], held_out_HW[box.slices] = (one := np.load(path))[:-1], one[-1] > 0
        else:
            answer_NK, is_held_out_N = _answer_box(windows, span, box, model, folds, networks)
            answer_KHW[:, *box.slices] = answer_NK.T.reshape(-1, *box.shape)
            held_out_HW[box.slices] = is_held_out_N.reshape(box.shape)
            with replacing(path, flush=False, mark="partial.npy") as draft:
                np.save(draft, np.concatenate([answer_KHW[:, *box.slices], held_out_HW[box.slices][None]]))
        progress(done + 1, len(boxes))
    dates = int(span.holds(windows.dataset["time"].values).sum())
    return WindowMap(span, dates, answer_KHW, held_out_HW & np.isfinite(answer_KHW[0]))


def _place(kept: Kept, span: Span, box: Box) -> Path:
    folder = kept.folder / hashlib.sha256(f"{kept.key}{span.text}".encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{box.key}.npy"


def _answer_box(
    windows: CubeWindows, span: Span, box: Box, model: SampleModel, folds: Mapping[str, int], networks: int
) -> tuple[np.ndarray, np.ndarray]:
    """(answer_NK, whether held out) of the pixels of a box, row by row."""
    from pipelines.inference.sample_labels import score_samples
    from pipelines.samples.sample_windows import SampleArrays

    part, members, least = windows.part(span, box), range(len(model.members)), windows.settings.min_frames
    rows_N, columns_N = (one.ravel() for one in np.mgrid[box.rows, box.columns])
    block_px = windows.settings.block_px
    fold_N = np.array(
        [folds.get(block_name(*place, block_px), -1) for place in zip(rows_N.tolist(), columns_N.tolist(), strict=True)]
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
            used = members if fold < 0 else range(fold * networks, (fold + 1) * networks)
            single = [model.calibrated(m, score_samples(model, m, arrays, own_N)) for m in used]
            answer_NK[at_N[own_N]] = np.mean(single, axis=0)
    return answer_NK, fold_N >= 0
