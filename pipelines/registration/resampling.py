"""Volumes on another grid: one interpolation from a visit's own voxels to the common grid."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipelines.grid import Grid

Interpolation = Literal["linear", "bspline", "nearest"]
ORDERS = {"nearest": 0, "linear": 1, "bspline": 3}
SAME_VOXELS = 1e-3  # a grid is the same if no corner is further off than this part of a voxel; spacings may differ in a digit
HALF = 0.5 + 1e-6


def index_map(there: Grid, matrix: np.ndarray, here: Grid) -> np.ndarray:
    """(3, 4) float64: an index (z, y, x, 1) of voxel centres of `here`, the common grid, -> index (z, y, x) in `there`, a visit.

    matrix (4, 4): a point of the common space to the visit's, mm, LPS. Zero-based, whole numbers at centres of voxels.
    """
    to_world, of_world = (_square(grid.matrix_of_centres) for grid in (here, there))
    xyz = np.linalg.inv(of_world) @ matrix @ to_world
    order = [2, 1, 0]
    return np.column_stack([xyz[:3, :3][np.ix_(order, order)], xyz[:3, 3][order]])


def is_copy(there: Grid, matrix: np.ndarray, here: Grid) -> bool:
    """Whether each voxel of `here` is one of `there`, so that nothing is interpolated."""
    return there.shape == here.shape and _is_still(index_map(there, matrix, here), here.shape)


def is_on_lattice(one: Grid, other: Grid) -> bool:
    """Whether voxels of `one` are those of `other`, or continue them: axes may be exchanged or reversed, edges cut off."""
    mapped = index_map(other, np.eye(4), one)
    turned, start = np.round(mapped[:, :3]), np.round(mapped[:, 3])
    if (np.abs(turned).sum(axis=0) != 1).any() or (np.abs(turned).sum(axis=1) != 1).any():
        return False
    corners = np.array([[0, 0, 0, 1], *(np.append(np.eye(3)[k] * (size - 1), 1) for k, size in enumerate(one.shape))])
    return bool(np.abs(corners @ (mapped - np.column_stack([turned, start])).T).max() <= SAME_VOXELS)


def share_within(is_shown_ZYX: np.ndarray, there: Grid, matrix: np.ndarray, here: Grid) -> float:
    """Share of the voxels of a mask on `there` whose centre is within `here`; 1 for an empty mask. `matrix` as of `index_map`."""
    index_N4 = np.column_stack([np.argwhere(is_shown_ZYX), np.ones(int(is_shown_ZYX.sum()))])
    place_N3 = index_N4 @ np.linalg.inv(_square(index_map(there, matrix, here)))[:3].T
    inside_N = ((place_N3 >= -HALF) & (place_N3 <= np.array(here.shape) - 1 + HALF)).all(axis=1)
    return float(np.mean(inside_N)) if len(index_N4) else 1.0


def resample(values_ZYX: np.ndarray, there: Grid, matrix: np.ndarray, here: Grid, how: Interpolation) -> np.ndarray:
    """Values of a volume on `there`, on the voxels of `here`: float32, NaN outside of the volume and where it is NaN.

    A voxel of `here` is outside if its centre is outside of every voxel of `there`. Where the grids are the same, voxels are
    copied. Into a gap goes on, for the interpolation beside it, the nearest value that is there. nearest keeps values as they are
    (codes). bspline is cubic, with the volume continued by its outermost values, and may leave the range of its neighbours by a
    little.

    >>> from pipelines.grid import PatientFrame
    >>> grid = Grid.from_centres(PatientFrame(), np.eye(4)[:3], (1, 1, 3))
    >>> moved = np.eye(4); moved[0, 3] = 1.0
    >>> resample(np.arange(3.0).reshape(1, 1, 3), grid, moved, grid, "linear").ravel().tolist()
    [1.0, 2.0, nan]
    """
    from scipy import ndimage

    if is_copy(there, matrix, here):
        return np.array(values_ZYX, np.float32)
    mapped = index_map(there, matrix, here)
    inside_ZYX = covered(mapped, there.shape, here.shape)
    values_ZYX = np.asarray(values_ZYX, np.float32 if how != "bspline" else np.float64)
    missing_ZYX = ~np.isfinite(values_ZYX)
    has_gaps = bool(missing_ZYX.any())
    if has_gaps:
        inside_ZYX &= ~ndimage.affine_transform(
            missing_ZYX.astype(np.uint8), mapped[:, :3], mapped[:, 3], here.shape, order=0, mode="nearest"
        ).astype(bool)
        if how != "nearest":  # neighbours of a gap must not be mixed with what is not there
            nearest = ndimage.distance_transform_edt(missing_ZYX, there.spacing, return_distances=False, return_indices=True)
            values_ZYX = values_ZYX[tuple(nearest)]
        values_ZYX = np.where(np.isfinite(values_ZYX), values_ZYX, 0)
    found_ZYX = ndimage.affine_transform(
        values_ZYX, mapped[:, :3], mapped[:, 3], here.shape, np.float32, order=ORDERS[how], mode="nearest"
    )
    found_ZYX[~inside_ZYX] = np.nan
    return np.asarray(found_ZYX, np.float32)


def covered(mapped: np.ndarray, there: tuple[int, ...], here: tuple[int, ...]) -> np.ndarray:
    """is_inside_ZYX: which voxels of a grid of shape `here` have their centre within `there`. `mapped` as of `index_map`."""
    axes = [np.arange(size, dtype=float) for size in here]
    inside_ZYX = np.ones(here, bool)
    for row, size in zip(mapped, there, strict=True):
        place = row[0] * axes[0][:, None, None] + row[1] * axes[1][None, :, None] + row[2] * axes[2][None, None, :] + row[3]
        inside_ZYX &= (place >= -HALF) & (place <= size - 1 + HALF)
    return inside_ZYX


def _is_still(mapped: np.ndarray, shape: tuple[int, ...]) -> bool:
    corners = np.array([[0, 0, 0, 1], *(np.append(np.eye(3)[k] * (size - 1), 1) for k, size in enumerate(shape))])
    return bool(np.abs(corners @ mapped.T - corners[:, :3]).max() <= SAME_VOXELS)


def _square(rows: np.ndarray) -> np.ndarray:
    return np.vstack([rows, [0.0, 0.0, 0.0, 1.0]])
