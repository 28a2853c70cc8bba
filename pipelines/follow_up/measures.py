"""Sizes of lesions: volume in ml, diameters in mm, position in mm of the patient (LPS).

Diameters are measured between the edges of voxels, so a single voxel has the width of a voxel and not 0. The axial ones follow
what radiologists measure on a slice (RECIST 1.1, Eisenhauer et al. 2009): the longest distance in any axial slice, and the width
across it in that slice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist, squareform

from pipelines.grid import Grid

MIDLINE_MM = 0.5  # nearer to x = 0 a side says nothing


@dataclass(frozen=True)
class Measures:
    """Of one lesion, or of several that are one row of a table.

    `axial_mm`: longest diameter in an axial slice; `perpendicular_mm`: width across it in that slice; `longest_mm`: longest
    diameter in space. `place_mm`: the centroid, (x, y, z) in LPS. `edge_voxels`: voxels that touch what is no lesion.
    """

    voxels: int
    volume_ml: float
    axial_mm: float
    perpendicular_mm: float
    longest_mm: float
    place_mm: tuple[float, float, float]
    edge_voxels: int


def measure(mask_ZYX: np.ndarray, grid: Grid, corner_zyx: tuple[int, ...] = (0, 0, 0)) -> Measures:
    """The measures of the True voxels. `corner_zyx`: the index on `grid` of the first voxel of `mask_ZYX`, a part of the grid.

    Raises ValueError for an empty mask.

        >>> from pipelines.grid import PatientFrame
        >>> grid = Grid.from_centres(PatientFrame(), ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 3, 0)), (4, 9, 9))
        >>> mask = np.zeros((4, 9, 9), bool)
        >>> mask[1, 2, 3:7] = True
        >>> found = measure(mask, grid)
        >>> round(found.volume_ml, 3), found.axial_mm, found.place_mm
        (0.012, 4.0, (4.5, 2.0, 3.0))
    """
    index_ND = np.argwhere(mask_ZYX)
    if not len(index_ND):
        raise ValueError("an empty mask has no size")
    centre_xyz = (index_ND.mean(axis=0) + corner_zyx)[::-1]
    place = grid.to_world(centre_xyz + 0.5)
    spacing, axis = np.array(grid.spacing), axial_axis(grid)
    axial, perpendicular = axial_diameters(index_ND, spacing, axis)
    inner = ndimage.binary_erosion(np.pad(mask_ZYX, 1))
    return Measures(
        voxels=len(index_ND),
        volume_ml=len(index_ND) * grid.pixel_size / 1000.0,
        axial_mm=axial,
        perpendicular_mm=perpendicular,
        longest_mm=_farthest(_edges(index_ND * spacing, spacing))[0],
        place_mm=(float(place[0]), float(place[1]), float(place[2])),
        edge_voxels=len(index_ND) - int(np.count_nonzero(inner)),
    )


def axial_axis(grid: Grid) -> int:
    """The axis of arrays (z, y, x) that leads most towards the head: its steps lie between axial slices."""
    return 2 - int(np.argmax(np.abs(grid.matrix[2, :3]) / np.linalg.norm(grid.matrix[:, :3], axis=0)))


def axial_diameters(index_ND: np.ndarray, spacing_mm: np.ndarray, axis: int = 0) -> tuple[float, float]:
    """(longest diameter in any slice across `axis`, width across it in that slice), mm; `index_ND`: (N, 3) voxels, (z, y, x)."""
    kept = [n for n in range(3) if n != axis]
    step = spacing_mm[kept]
    best, width = 0.0, 0.0
    for number in np.unique(index_ND[:, axis]):
        points = _edges(index_ND[index_ND[:, axis] == number][:, kept] * step, step)
        length, direction = _farthest(points)
        if length > best:
            across = points @ np.array([-direction[1], direction[0]])
            best, width = length, float(np.ptp(across))
    return best, width


def side_of(x_mm: float) -> str:
    """The side of the patient by the sign of x in LPS: left, right, or midline. It says nothing of where the brain's middle is.

    >>> side_of(12.0), side_of(-3.2), side_of(0.1)
    ('left', 'right', 'midline')
    """
    return "midline" if abs(x_mm) < MIDLINE_MM else "left" if x_mm > 0 else "right"


def _edges(place_ND: np.ndarray, step_D: np.ndarray) -> np.ndarray:
    """The middles of the faces of boxes of size `step_D` at `place_ND`, (2 D N, D)."""
    halves = np.diag(step_D) / 2
    return np.concatenate([place_ND + half for half in (*halves, *-halves)])


def _farthest(points_ND: np.ndarray) -> tuple[float, np.ndarray]:
    """(the largest distance of two points, the unit vector between them)."""
    try:
        points_ND = points_ND[ConvexHull(points_ND).vertices]
    except QhullError:  # they lie in a plane or on a line
        points_ND = np.unique(points_ND, axis=0)
    distance = squareform(pdist(points_ND))
    a, b = np.unravel_index(int(distance.argmax()), distance.shape)
    length = float(distance[a, b])
    return length, (points_ND[b] - points_ND[a]) / length
