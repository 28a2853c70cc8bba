"""Volumes with their grids as registration needs them: in SimpleITK, at a coarser spacing, and the part that shows a head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.grid import Grid

if TYPE_CHECKING:
    import SimpleITK


@dataclass(frozen=True)
class Volume:
    """values_ZYX float32, NaN where the volume shows nothing, on `grid` (LPS, mm)."""

    values_ZYX: np.ndarray
    grid: Grid


def to_itk(volume: Volume) -> SimpleITK.Image:
    """The volume as SimpleITK has it, float32, NaN as the least value; oblique and left-handed axes too."""
    import SimpleITK as sitk  # noqa: N813  # as its documentation does

    values_ZYX = volume.values_ZYX
    finite = np.isfinite(values_ZYX)
    if not finite.all():
        values_ZYX = np.where(finite, values_ZYX, values_ZYX[finite].min() if finite.any() else 0.0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values_ZYX, np.float32))
    _place(image, volume.grid)
    return image


def mask_to_itk(mask_ZYX: np.ndarray, grid: Grid) -> SimpleITK.Image:
    import SimpleITK as sitk  # noqa: N813  # as its documentation does

    image = sitk.GetImageFromArray(np.ascontiguousarray(mask_ZYX, np.uint8))
    _place(image, grid)
    return image


def _place(image: SimpleITK.Image, grid: Grid) -> None:
    rows = grid.matrix_of_centres
    spacing = np.linalg.norm(rows[:, :3], axis=0)
    image.SetSpacing(tuple(map(float, spacing)))
    image.SetDirection(tuple((rows[:, :3] / spacing).ravel().tolist()))
    image.SetOrigin(tuple(rows[:, 3].tolist()))


def coarser(volume: Volume, spacing_mm: float) -> Volume:
    """The mean of blocks of voxels that are at most about `spacing_mm` long on each side; whole blocks only."""
    values_ZYX, rows = volume.values_ZYX, volume.grid.matrix_of_centres.copy()
    blocks = [
        max(1, min(int(spacing_mm / step + 0.1), size)) for step, size in zip(volume.grid.spacing, values_ZYX.shape, strict=True)
    ]
    if max(blocks) == 1:
        return volume
    shape = [size // block for size, block in zip(values_ZYX.shape, blocks, strict=True)]
    cut_ZYX = values_ZYX[tuple(slice(0, size * block) for size, block in zip(shape, blocks, strict=True))]
    split = cut_ZYX.reshape([side for pair in zip(shape, blocks, strict=True) for side in pair])
    of_xyz = np.array(blocks[::-1], float)
    rows[:, 3] += rows[:, :3] @ ((of_xyz - 1) / 2)
    rows[:, :3] *= of_xyz
    return Volume(split.mean(axis=(1, 3, 5), dtype=np.float32), Grid.from_centres(volume.grid.frame, rows, shape))


def foreground(volume: Volume) -> np.ndarray:
    """is_head_ZYX: the largest part of the smoothed volume that is brighter than Otsu's threshold (1979), with holes filled."""
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    values_ZYX = np.nan_to_num(volume.values_ZYX, nan=float(np.nanmin(volume.values_ZYX)))
    smooth_ZYX = ndimage.gaussian_filter(values_ZYX, [2.0 / step for step in volume.grid.spacing])
    if np.ptp(smooth_ZYX) == 0:
        return np.ones(values_ZYX.shape, bool)
    labels_ZYX, count = ndimage.label(smooth_ZYX > threshold_otsu(smooth_ZYX))
    sizes = np.bincount(labels_ZYX.ravel(), minlength=count + 1)[1:]
    filled_ZYX = labels_ZYX == 1 + int(sizes.argmax())
    for plane_YX in filled_ZYX:
        plane_YX[:] = ndimage.binary_fill_holes(plane_YX)
    return np.asarray(filled_ZYX, bool)


def surface_points(mask_ZYX: np.ndarray, grid: Grid, most: int = 2000) -> np.ndarray:
    """(n, 3) float64: centres of voxels at the outer boundary of a mask, x, y, z in mm; of many every so many."""
    from scipy import ndimage

    edge_ZYX = mask_ZYX & ~ndimage.binary_erosion(mask_ZYX)
    indices = np.argwhere(edge_ZYX)
    indices = indices[:: max(1, len(indices) // most)]
    rows = grid.matrix_of_centres
    return np.asarray(indices[:, ::-1] @ rows[:, :3].T + rows[:, 3])
