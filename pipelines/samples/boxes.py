"""Boxes in frames of samples, and how the stored frames lie in their files.

A box reaches from edge to edge: one of a single pixel at row 0 from 0 to 1. Boxes in pixels of the file become boxes in pixels
of the stored frame as the frames did (`pipelines.samples.sample_frames`), from the sizes that the store keeps.

Shapes: X boxes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipelines.errors import RequestError
from pipelines.samples.sample_frames import FrameSettings, frame_scale
from pipelines.samples.sample_store import SampleLayout
from pipelines.sources.samples import evenly_spread

COLUMNS = 8  # of a table of boxes
SAME = 0.7  # overlap from which two boxes of a frame are taken for the same thing


@dataclass(frozen=True)
class Boxes:
    """`sample_X` and `frame_X` (numbers), `edges_X4` (top, left, bottom, right; pixels of the stored frame), `class_X`, `score_X`
    (1 of known boxes)."""

    sample_X: np.ndarray
    frame_X: np.ndarray
    edges_X4: np.ndarray
    class_X: np.ndarray
    score_X: np.ndarray

    def __len__(self) -> int:
        return len(self.sample_X)

    @classmethod
    def of_table(cls, table_X8: np.ndarray) -> Boxes:
        """From rows of sample, frame, top, left, bottom, right, class, score."""
        table_X8 = np.asarray(table_X8, np.float64).reshape(-1, COLUMNS)
        whole = table_X8[:, [0, 1, 6]].astype(np.int64)
        return cls(whole[:, 0], whole[:, 1], table_X8[:, 2:6], whole[:, 2], table_X8[:, 7])

    def table(self) -> np.ndarray:
        """The inverse of `of_table`, float64."""
        columns = [self.sample_X, self.frame_X, *self.edges_X4.T, self.class_X, self.score_X]
        return np.stack(columns, axis=1).astype(np.float64)

    def chosen(self, which_X: np.ndarray) -> Boxes:
        """Those boxes, by numbers or by a mask."""
        return Boxes.of_table(self.table()[which_X])


@dataclass(frozen=True)
class FilePlaces:
    """How the stored frames of samples lie in their files: sizes, frames that are kept, scale and shift."""

    layout: SampleLayout
    facts: Mapping[str, np.ndarray]

    @cached_property
    def settings(self) -> FrameSettings:
        """How frames were shaped, as the store holds it."""
        named = self.layout.settings["frames"]
        size = None if named["size"] is None else tuple(named["size"])
        return FrameSettings(named["count"], tuple(named["crop"]), size, named["fit"])

    def shape(self, n: int) -> tuple[int, int, int]:
        """Frames, rows and columns of the file of sample n. Raises RequestError."""
        found = tuple(float(self.facts[name][n]) for name in ("frames", "rows", "columns"))
        if not np.isfinite(found).all():
            raise RequestError("the store does not hold the sizes of the files: delete it (cube.uri) and run `driftline ingest`")
        frames, rows, columns = map(int, found)
        return frames, rows, columns

    def kept(self, n: int) -> np.ndarray:
        """The numbers in the file of the stored frames of sample n."""
        return evenly_spread(self.shape(n)[0], self.settings.count)

    def stored(self, n: int, edges_X4: np.ndarray) -> np.ndarray:
        """Edges in pixels of the stored frame."""
        scale, shift = frame_scale(self.shape(n)[1:], self.settings)
        placed: np.ndarray = edges_X4 * np.tile(scale, 2) + np.tile(shift, 2)
        return placed

    def in_file(self, n: int, edges_X4: np.ndarray) -> np.ndarray:
        """Edges in pixels of the file, within its frame."""
        _, rows, columns = self.shape(n)
        scale, shift = frame_scale((rows, columns), self.settings)
        placed: np.ndarray = (edges_X4 - np.tile(shift, 2)) / np.tile(scale, 2)
        return placed.clip(0, [rows, columns, rows, columns])


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes (top, left, bottom, right).

    >>> overlap((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    tall = min(one[2], other[2]) - max(one[0], other[0])
    wide = min(one[3], other[3]) - max(one[1], other[1])
    if tall <= 0 or wide <= 0:
        return 0.0
    shared = tall * wide
    return shared / ((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared)


def one_label(boxes: Boxes, least: float) -> Boxes:
    """Boxes of at least that score; of those of a frame that overlap by `SAME` or more, whatever their class, the surest."""
    kept: dict[tuple[int, int], list[list[float]]] = defaultdict(list)
    chosen = []
    for x in np.argsort(-boxes.score_X, kind="stable").tolist():
        if boxes.score_X[x] < least:
            break
        own, edges = kept[int(boxes.sample_X[x]), int(boxes.frame_X[x])], boxes.edges_X4[x].tolist()
        if all(overlap(edges, one) < SAME for one in own):
            own.append(edges)
            chosen.append(x)
    return boxes.chosen(np.sort(np.array(chosen, np.int64)))
