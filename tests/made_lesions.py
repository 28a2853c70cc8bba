"""Made visits with known truth: ellipsoids in a brain with texture and noise, on an anisotropic grid of a patient."""

from itertools import pairwise

import numpy as np
from scipy import ndimage

from pipelines.follow_up.patient import Patient
from pipelines.grid import Grid, PatientFrame

SHAPE, SPACING = (24, 96, 96), (3.0, 0.8, 0.8)
GRID = Grid.from_centres(PatientFrame(), ((0.8, 0, 0, -38), (0, 0.8, 0, -38), (0, 0, 3.0, -36)), SHAPE)
Place = tuple[float, float, float]


def ellipsoid(centre_mm: Place, axes_mm: Place, grid: Grid = GRID) -> np.ndarray:
    """True within the ellipsoid with these full axes (x, y, z) around `centre_mm` (x, y, z), LPS."""
    index = np.indices(grid.shape).reshape(3, -1)[::-1].T + 0.5
    away = (grid.to_world(index) - centre_mm) / (np.array(axes_mm) / 2)
    return ((away**2).sum(axis=1) <= 1).reshape(grid.shape)


def sphere(centre_mm: Place, volume_ml: float, grid: Grid = GRID) -> np.ndarray:
    """True within the sphere of that volume."""
    diameter = (volume_ml * 1000 * 6 / np.pi) ** (1 / 3)
    return ellipsoid(centre_mm, (diameter, diameter, diameter), grid)


def with_ragged_edge(mask: np.ndarray, seed: int) -> np.ndarray:
    """The mask where a quarter of its edge voxels is missing, and a quarter of those around it added, at random."""
    draw = np.random.default_rng(seed)
    inner = mask & ~ndimage.binary_erosion(mask)
    outer = ndimage.binary_dilation(mask) & ~mask
    return (mask & ~(inner & (draw.random(mask.shape) < 0.25))) | (outer & (draw.random(mask.shape) < 0.25))


def brain(grid: Grid = GRID) -> np.ndarray:
    """An ellipsoid that fills most of the grid."""
    low, high = np.array(grid.bounds[:3]), np.array(grid.bounds[3:])
    centre, axes = (low + high) / 2, (high - low) * 0.94
    return ellipsoid((centre[0], centre[1], centre[2]), (axes[0], axes[1], axes[2]), grid)


def image_of(lesions: np.ndarray, seed: int, grid: Grid = GRID, gain: float = 1.0, shift_px: float = 0.0) -> np.ndarray:
    """float32: a brain with folds, sharp edges and noise; lesions are brighter by six deviations of the noise.

    The texture is the same for every seed; `shift_px` moves everything along x as a bad registration does.
    """
    fixed = np.random.default_rng(0)
    folds = ndimage.gaussian_filter(fixed.normal(size=grid.shape), [0.7, 3, 3]) > 0.03  # bands with sharp edges
    values = 100 + 6 * folds + 24 * lesions.astype(float)
    values = np.where(brain(grid), values, 10)
    if shift_px:
        values = ndimage.shift(values, (0, 0, shift_px), order=1, mode="nearest")
    return (gain * (values + np.random.default_rng(seed).normal(0, 4, grid.shape))).astype(np.float32)


def patient_of(lesions: list[np.ndarray], grid: Grid = GRID, shift_px: float = 0.0, name: str = "made") -> Patient:
    """A patient with images of these lesions, one mask for each visit; later visits are brighter, and shifted by `shift_px`."""
    images = [image_of(mask, n + 1, grid, 1 + 0.4 * n, shift_px * (n > 0)) for n, mask in enumerate(lesions)]
    changed = np.any([first != second for first, second in pairwise(lesions)], axis=0)
    times = np.array(["2020-01-01", "2020-07-01", "2021-01-01"], "datetime64[ns]")[: len(lesions)]
    visits = tuple(str(n + 1) for n in range(len(lesions)))
    return Patient(name, grid, times, visits, np.stack(images), brain(grid), None, changed, is_dated=True)
