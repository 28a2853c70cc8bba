"""Samples with known boxes, and how training shows them.

Known boxes are the answers of samples, a JSON list of [frame, first row, first column, last row, last column, class] in pixels of
the file, both ends inside, frames from 0; they are cropped, thinned and resized as the frames were (`pipelines.samples.boxes`).

Shapes: N samples of the store, P of them with an answer, X boxes, T frames, K classes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from pipelines.errors import RequestError
from pipelines.samples.boxes import COLUMNS, Boxes, FilePlaces
from pipelines.samples.labelled import LabelledSamples, SplitSettings, folds_of
from pipelines.samples.sample_store import SampleTable
from pipelines.samples.sample_windows import SampleArrays, SampleAugmentation, SampleWindows

LEAST_SHOWN = 0.5  # of the area of a known box, inside the stored frame; of less there is nothing to be learnt or found
KnownBox = tuple[int, int, int, int, int, str]  # frame, first row, first column, last row, last column, class


@dataclass(frozen=True)
class BoxedSamples(LabelledSamples):
    """Samples with known boxes: `boxes`, whose `sample_X` are numbers in the table. A class has no probability of its own."""

    boxes: Boxes = field(default_factory=lambda: Boxes.of_table(np.zeros((0, COLUMNS))))

    @property
    def has_classes(self) -> bool:
        return False

    @property
    def tested_boxes(self) -> Boxes:
        """Those of the tested samples."""
        return self.boxes.chosen(np.isin(self.boxes.sample_X, self.known_P[self.tested_P]))

    @property
    def sentence(self) -> str:
        """`30 samples in 12 groups with 61 boxes: 41 lesion, 20 node`."""
        counts = ", ".join(f"{n} {name}" for name, n in self.counts().items())
        return f"{len(self.known_P)} samples in {self.groups} groups with {len(self.boxes)} boxes: {counts}"

    def counts(self) -> dict[str, int]:
        """Boxes of each class."""
        numbers = np.bincount(self.boxes.class_X, minlength=len(self.outputs)).tolist()
        return dict(zip(self.outputs, numbers, strict=True))


def label_boxes(table: SampleTable, image: np.ndarray, classes: Sequence[str], split: SplitSettings) -> BoxedSamples:
    """Samples with their boxes; `classes` ((): all, sorted). Raises RequestError for answers that are no boxes in the frames."""
    if len(table.layout.size) != 2:
        raise RequestError(f"boxes are of images, the samples have frames of {len(table.layout.size)} axes; see frames.size")
    known_P = np.flatnonzero(table.answer_N != "")
    listed = {int(n): boxes_of(table, int(n)) for n in known_P}
    found = sorted({row[-1] for rows in listed.values() for row in rows})
    names = tuple(classes) or tuple(found)
    if not set(names) & set(found):
        there = f"their classes are {', '.join(found)}" if found else "there is none"
        raise RequestError(f"no box of {', '.join(names) or 'any class'} is known; {there}; see labels")
    dropped = Counter({"samples without an answer": len(table) - len(known_P)})
    places = FilePlaces(table.layout, table.facts)
    boxes = Boxes.of_table(np.concatenate([_placed(places, n, rows, names, dropped) for n, rows in listed.items()]))
    target_NX6 = padded_boxes(boxes, len(table))
    arrays = SampleArrays(image, table.valid_NT, table.layout.bands, target_NX6, np.ones(len(table), np.float32))
    first_N = np.full(len(table), len(names))  # folds have about equal shares of samples by the class of their first box
    first_N[boxes.sample_X[::-1]] = boxes.class_X[::-1]
    _, stratum_P = np.unique(first_N[known_P], return_inverse=True)
    _, group_P = np.unique(table.group_N[known_P].astype(str), return_inverse=True)
    samples = BoxedSamples(
        table, arrays, names, False, known_P, stratum_P, group_P, np.full(len(known_P), -1), split, dropped, boxes=boxes
    )
    return replace(samples, fold_P=folds_of(samples))


def boxes_of(table: SampleTable, n: int) -> list[KnownBox]:
    """What the answer of sample n says, in pixels of its file. Raises RequestError."""
    where = f"sample {table.id_N[n]}"
    try:
        listed = [(frame, *edges, str(name)) for frame, *edges, name in json.loads(table.answer_N[n])]
        rows = [
            (int(frame), int(top), int(left), int(bottom), int(right), name) for frame, top, left, bottom, right, name in listed
        ]
    except (ValueError, TypeError) as e:
        expected = "[[frame, first row, first column, last row, last column, class], ...]"
        raise RequestError(f"{where} has the answer {str(table.answer_N[n])[:60]!r}, expected {expected}; see labels") from e
    frames, height, width = FilePlaces(table.layout, table.facts).shape(n)
    for frame, top, left, bottom, right, _ in rows:
        if not (0 <= frame < frames and 0 <= top <= bottom < height and 0 <= left <= right < width):
            box = f"a box in frame {frame}, rows {top} to {bottom}, columns {left} to {right}"
            held = f"{frames} frames of {height} rows and {width} columns, counted from 0"
            raise RequestError(f"{where}: {box}, but the file has {held}; correct the table of labels")
    return rows


def _placed(places: FilePlaces, n: int, rows: Sequence[KnownBox], names: Sequence[str], dropped: Counter[str]) -> np.ndarray:
    """table_X8 of the boxes of sample n in its stored frames; what is left out is counted in `dropped`."""
    position = {int(frame): t for t, frame in enumerate(places.kept(n))}
    size_yx = np.tile(places.layout.size, 2)
    placed = []
    for frame, top, left, bottom, right, name in rows:
        if name not in names:
            dropped["boxes of another class"] += 1
        elif frame not in position:
            dropped["boxes in frames that are not kept"] += 1
        else:
            edges = places.stored(n, np.array([[top, left, bottom + 1, right + 1]], float))[0]
            shown = edges.clip(0, size_yx)
            if area(shown) < LEAST_SHOWN * area(edges):
                dropped["boxes mostly outside the part that is kept"] += 1
            else:
                placed.append([n, position[frame], *shown, names.index(name), 1.0])
    return np.array(placed).reshape(-1, COLUMNS)


def area(edges: np.ndarray) -> float:
    return float((edges[2] - edges[0]) * (edges[3] - edges[1]))


def padded_boxes(boxes: Boxes, count: int) -> np.ndarray:
    """boxes_NX6 float32 of so many samples: frame, top, left, bottom, right, class; class -1 where a sample has no more boxes."""
    order = np.argsort(boxes.sample_X, kind="stable")
    sample_X = boxes.sample_X[order]
    place_X = np.arange(len(boxes)) - np.searchsorted(sample_X, sample_X)
    padded = np.zeros((count, max(1, int(place_X.max(initial=0)) + 1), 6), np.float32)
    padded[..., 5] = -1
    padded[sample_X, place_X] = boxes.table()[order, 1:7]
    return padded


class BoxWindows(SampleWindows):
    """Training samples whose boxes move with the pixels: mirrored together. Nothing else may move pixels.

    `target` is boxes_BX6 as `padded_boxes`. Raises RequestError for turned, enlarged or mixed samples.
    """

    def __init__(
        self, arrays: SampleArrays, part_P: np.ndarray, std_C: np.ndarray, augment: SampleAugmentation, seed: int, **asked: Any
    ):
        self.flip = augment.flip
        still = replace(augment, flip="none")
        if still.moves or still.mixup:
            raise RequestError("boxes do not turn, grow or mix with their frames: training.augment may mirror them (flip)")
        super().__init__(arrays, part_P, std_C, still, seed, **asked)

    def gather(self, indices: list[int]) -> dict[str, torch.Tensor]:
        batch = super().gather(indices)
        chance = torch.Generator().manual_seed(
            int(np.random.SeedSequence([self.seed, self.epoch, 1, *indices[:8]]).generate_state(1)[0])
        )
        for axis, kind in ((0, "vertical"), (1, "horizontal")):
            if self.flip in (kind, "both"):
                is_flipped_B = torch.rand(len(indices), generator=chance) < 0.5
                batch["x_TCHW"], batch["target"] = flipped(batch["x_TCHW"], batch["target"], axis, is_flipped_B)
        return batch


def flipped(
    x_BTCHW: torch.Tensor, boxes_BX6: torch.Tensor, axis: int, is_flipped_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames and boxes of some samples mirrored along y (axis 0) or x (axis 1)."""
    side = x_BTCHW.shape[3 + axis]
    mirrored = boxes_BX6.clone()
    mirrored[..., 1 + axis], mirrored[..., 3 + axis] = side - boxes_BX6[..., 3 + axis], side - boxes_BX6[..., 1 + axis]
    chosen = is_flipped_B[:, None, None]
    return torch.where(chosen[..., None, None], x_BTCHW.flip(3 + axis), x_BTCHW), torch.where(chosen, mirrored, boxes_BX6)
