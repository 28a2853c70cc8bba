"""Made visits with known truth: ellipsoids in noise, on an anisotropic grid of a patient."""

import numpy as np

from pipelines.grid import Grid, PatientFrame

SHAPE, SPACING = (24, 96, 96), (3.0, 0.8, 0.8)
GRID = Grid.from_centres(PatientFrame(), ((0.8, 0, 0, -38), (0, 0.8, 0, -38), (0, 0, 3.0, -36)), SHAPE)


def ellipsoid(centre_mm: tuple[float, float, float], axes_mm: tuple[float, float, float], grid: Grid = GRID) -> np.ndarray:
    """True within the ellipsoid with these full axes (x, y, z) around `centre_mm` (x, y, z) in LPS."""
    index = np.indices(grid.shape).reshape(3, -1)[::-1].T + 0.5
    away = (grid.to_world(index) - centre_mm) / (np.array(axes_mm) / 2)
    return ((away**2).sum(axis=1) <= 1).reshape(grid.shape)


def sphere(centre_mm: tuple[float, float, float], volume_ml: float, grid: Grid = GRID) -> np.ndarray:
    """True within the sphere of that volume."""
    diameter = (volume_ml * 1000 * 6 / np.pi) ** (1 / 3)
    return ellipsoid(centre_mm, (diameter, diameter, diameter), grid)


def with_ragged_edge(mask: np.ndarray, seed: int, share: float = 0.5) -> np.ndarray:
    """The mask without a share of its edge voxels, and with a share of those around it, at random: boundary noise."""
    from scipy import ndimage

    draw = np.random.default_rng(seed)
    inner = mask & ~ndimage.binary_erosion(mask)
    outer = ndimage.binary_dilation(mask) & ~mask
    return (mask & ~(inner & (draw.random(mask.shape) < share / 2))) | (outer & (draw.random(mask.shape) < share / 2))
