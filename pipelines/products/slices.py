"""The middle slice of a volume as a picture shows it: in the usual orientation, with letters for the sides of the patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from pipelines.grid import Grid

TOWARDS = (
    ("R", "L"),
    ("A", "P"),
    ("F", "H"),
)  # the two ends of each axis of LPS: right to left, anterior to posterior, feet to head
DOWN = (1, 1, -1)  # the direction along each axis of LPS that radiologists draw downwards; to the right it is 1 for all
PLANES = ("z", "y", "x")


@dataclass(frozen=True)
class SliceView:
    """One plane of a volume, across `dim` at `index`. `flips`: the axes (rows, columns) that are drawn the other way round."""

    dim: str
    index: int
    grid: Grid  # in the plane, mm from its corner
    flips: tuple[bool, bool]
    sides: tuple[str, str, str, str]  # letters at the left, right, top, bottom

    def of_volume(self, values_ZYX: np.ndarray) -> np.ndarray:
        """The plane of an array (z, y, x), as it is drawn."""
        return self.drawn(values_ZYX.take(self.index, axis=PLANES.index(self.dim)))

    def drawn(self, values_YX: np.ndarray) -> np.ndarray:
        """An array of the plane, as it is drawn."""
        return values_YX[:: -1 if self.flips[0] else 1, :: -1 if self.flips[1] else 1]

    def of_dataset(self, dataset: xr.Dataset) -> xr.Dataset:
        """The plane of a cube across z: a cube of images."""
        return dataset.isel({self.dim: self.index})

    @property
    def text(self) -> str:
        left, right, top, bottom = self.sides
        return f"slice {self.index + 1} along {self.dim}; left {left}, right {right}, top {top}, bottom {bottom}"


def middle_slice(grid: Grid, dim: str = "z") -> SliceView:
    """The middle plane across `dim`, drawn as radiologists do: the patient's left at the right, posterior or feet below."""
    axes = [axis for axis in PLANES if axis != dim]  # rows, columns
    of_axis = {axis: grid.matrix[:, "xyz".index(axis)] for axis in axes}
    steps = [float(np.linalg.norm(of_axis[axis])) for axis in axes]
    sizes = [grid.shape[PLANES.index(axis)] for axis in axes]
    ends, flips = [], []
    for axis, is_row in zip(axes, (True, False), strict=True):
        along = int(np.abs(of_axis[axis]).argmax())
        is_rising = bool(of_axis[axis][along] > 0)
        flip = is_rising != (DOWN[along] > 0 if is_row else True)
        first, last = TOWARDS[along] if is_rising != flip else TOWARDS[along][::-1]
        ends.append((first, last))
        flips.append(flip)
    plane = Grid(grid.frame, (steps[1], 0.0, 0.0, 0.0, -steps[0], steps[0] * sizes[0]), (sizes[0], sizes[1]))
    sides = (*ends[1], *ends[0])
    return SliceView(dim, grid.shape[PLANES.index(dim)] // 2, plane, (flips[0], flips[1]), sides)
