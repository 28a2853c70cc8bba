"""Masks of patients as arrays with a grid and times, and onto the grid of the series that they were drawn on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.errors import RequestError
from pipelines.grid import Grid, PatientFrame
from pipelines.tracking.mask_files import DatedMask

MISPLACED = 0.01  # voxels by which a voxel may lie beside one of the series


@dataclass(frozen=True)
class LabelSeries:
    """Codes of objects or classes with their `names`, 0: nothing. `grid` None: the file states no position.

    `labels`: uint8 (time, [z,] y, x). `times`: datetime64, seconds since the first frame, or numbers of frames.
    """

    labels: np.ndarray
    grid: Grid | None
    times: Sequence[np.datetime64 | float]
    names: dict[int, str]

    def masks(self, code: int | None) -> Iterator[DatedMask]:
        """A mask for each time: of the objects with this code, or of all; with their codes where there are several."""
        has_codes = len(values_in(self.labels)) > 1
        for time, codes in zip(self.times, self.labels, strict=True):
            plain = codes.astype(np.int64) if has_codes else codes != 0
            yield DatedMask(time, plain if code is None else codes == code, None, f"time {time}")


def values_in(labels: np.ndarray) -> list[int]:
    """The values but 0, in rising order."""
    return sorted(set().union(*(np.unique(one).tolist() for one in labels)) - {0})


def on_grid(series: LabelSeries, times: int, grid: Grid) -> tuple[np.ndarray, list[str]]:
    """(the labels in the order of the voxels of `grid`, notes); voxels are never resampled.

    Axes may come in another order or direction, as after a conversion to NIfTI: then they are turned, and it is said.
    Raises RequestError: another size, another position, another number of times.
    """
    labels, notes = series.labels, list[str]()
    if not grid.is_volume and labels.ndim == 4 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif series.grid is not None and isinstance(grid.frame, PatientFrame) and series.grid.is_volume:
        labels, is_turned = _turned(labels, series.grid, grid)
        notes += ["the axes of the masks have another order or direction than those of the series: they are turned"] * is_turned
    elif grid.is_volume:
        notes.append("the masks state no position: their voxels are taken to be in the order of the series")
    if labels.shape != (times, *grid.shape):
        shapes = (" x ".join(map(str, shape)) for shape in (labels.shape, (times, *grid.shape)))
        raise RequestError("the masks have {} pixels (time first), the series {}; draw them on this series".format(*shapes))
    return labels, notes


def _turned(labels: np.ndarray, there: Grid, grid: Grid) -> tuple[np.ndarray, bool]:
    """(labels on the axes of `grid`, whether they had others). Raises RequestError: the voxels lie elsewhere."""
    from_xyz = np.linalg.solve(grid.matrix_of_centres[:, :3], there.matrix_of_centres[:, :3])  # steps of the masks, in voxels
    axes = np.abs(from_xyz).argmax(axis=0)
    ends = np.array([[0, 0, 0], np.array(there.shape[::-1]) - 1], float)
    if len(set(axes.tolist())) == 3:
        order = [1 + 2 - int(np.flatnonzero(axes == 2 - axis)[0]) for axis in range(3)]  # of z, y, x in the array (time first)
        flips = [1 + axis for axis in range(3) if from_xyz[2 - axis, 3 - order[axis]] < 0]
        turned = np.flip(labels.transpose(0, *order), tuple(flips))
        if turned.shape[1:] == grid.shape:
            corner = grid.to_index(there.to_world(ends + 0.5)) - 0.5
            expected = np.array([[0, 0, 0], np.array(grid.shape[::-1]) - 1], float)
            found = np.array([corner.min(axis=0), corner.max(axis=0)])
            steps = np.abs(np.abs(from_xyz) - np.abs(np.round(from_xyz))).max() * max(grid.shape)
            if max(np.abs(found - expected).max(), steps) <= MISPLACED:
                return turned, bool(flips) or order != [1, 2, 3]
    raise RequestError(
        "the voxels of the masks do not lie on those of the series (another position, size or direction), and masks are not "
        "resampled: draw them on this series, or bring them onto its grid first (nearest neighbour)"
    )
