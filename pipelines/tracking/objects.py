"""Objects of one date: connected pixels or voxels, with size, outline, axes and position in the world.

Arrays are (Y, X) or (Z, Y, X); indices are zero-based and a pixel's centre lies at its whole index. D: axes, N: objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from pipelines.errors import RequestError
from pipelines.grid import Grid

if TYPE_CHECKING:
    from pyproj import Geod, Transformer

LATTICE_NODES = 129  # per axis: between the nodes true pixel sizes are interpolated; good to 1e-4 on a map of the whole Earth


@dataclass(frozen=True)
class Space:
    """Where array indices lie. `spacing` is the step along each array axis in `unit`; on a map it is only nominal.

    `index_to_world` has D rows of D + 1 numbers: (x, y) or (x, y, z) = rows @ (index in array order, 1). On a map, sizes and
    lengths are those on the ellipsoid, whatever the projection (and in degrees too); the world is the grid's CRS.
    """

    spacing: tuple[float, ...]
    unit: str
    index_to_world: tuple[tuple[float, ...], ...]
    grid: Grid | None = None

    @classmethod
    def of_spacing(cls, spacing: tuple[float, ...], unit: str = "mm") -> Space:
        """An array with a constant step per axis, (y, x) or (z, y, x); the world's origin is the centre of the first pixel.
        Raises RequestError where a step is not a positive number, or there are not two or three."""
        if len(spacing) not in (2, 3) or not all(np.isfinite(step) and step > 0 for step in spacing):
            raise RequestError(f"spacing {spacing} [{unit}]: expected two (y, x) or three (z, y, x) steps larger than 0")
        axes = len(spacing)
        world = np.zeros((axes, axes + 1))
        for axis, step in enumerate(spacing):
            world[axes - 1 - axis, axis] = step  # x is the last axis of the array
        return cls(tuple(map(float, spacing)), unit, tuple(map(tuple, world.tolist())))

    @classmethod
    def of_grid(cls, grid: Grid) -> Space:
        """A map, a patient in mm, or an image in its plane.

        Raises RequestError for a CRS that is not of the Earth, and for volumes in a CRS.
        """
        if not grid.is_on_earth:
            order = [*reversed(range(len(grid.shape)))]  # from (column, row[, slice]) to the order of the array
            centre = grid.to_world([0.5] * len(grid.shape))
            world = np.column_stack([grid.matrix[:, order], centre]).tolist()
            return cls(grid.spacing, grid.unit, tuple(map(tuple, world)))
        _geod_of(grid.require_2d("tracking in a CRS"))
        a, b, c, d, e, f = grid.transform
        world = ((b, a, c + 0.5 * (a + b)), (e, d, f + 0.5 * (d + e)))
        return cls((float(np.hypot(b, e)), float(np.hypot(a, d))), "m", world, grid)

    @property
    def axes(self) -> int:
        return len(self.spacing)

    def world(self, index_ND: np.ndarray) -> np.ndarray:
        """(x, y) or (x, y, z) of array indices, (N, D) float64: CRS units on a map, `unit` elsewhere."""
        matrix = np.array(self.index_to_world)
        place_ND: np.ndarray = index_ND @ matrix[:, :-1].T + matrix[:, -1]
        return place_ND

    def pixel_size(self, index_ND: np.ndarray) -> np.ndarray:
        """True area (or volume) of the pixels at `index_ND` in `unit` squared (cubed), (N,) float64."""
        if self.grid is None:
            return np.full(len(index_ND), np.prod(self.spacing))
        return self._interpolate(self._lattice[1][0], index_ND)

    @property
    def smallest_pixel(self) -> float:
        """True area of the smallest of a map's four corner pixels, in `unit` squared."""
        rows, columns = self._grid.shape_yx
        corners = np.array([[row, column] for row in (0, rows - 1) for column in (0, columns - 1)], np.float64)
        return float(self.pixel_size(corners).min())

    @property
    def central_pixel(self) -> float:
        """True area of the pixel in the middle of a map, in `unit` squared."""
        return float(self.pixel_size((np.array([self._grid.shape_yx]) - 1) / 2)[0])

    @property
    def _grid(self) -> Grid:
        assert self.grid is not None, "only a map has pixels of different size"
        return self.grid

    def steps(self, index_ND: np.ndarray) -> np.ndarray:
        """True length of a pixel along each array axis at `index_ND`, in `unit`, (N, D) float64."""
        if self.grid is None:
            return np.broadcast_to(np.array(self.spacing), (len(index_ND), self.axes)).copy()
        _, (_, height, width) = self._lattice
        return np.stack([self._interpolate(height, index_ND), self._interpolate(width, index_ND)], axis=1)

    def lonlat(self, index_ND: np.ndarray) -> np.ndarray:
        """Longitude and latitude (WGS 84, degrees) of places on a map, (N, 2)."""
        x, y = self.world(index_ND).T
        lon, lat = self._to_lonlat.transform(x, y)
        return np.stack([np.where(np.abs(lon) > 180, np.mod(lon + 180, 360) - 180, lon), lat], axis=1)

    @cached_property
    def _to_lonlat(self) -> Transformer:
        from pyproj import Transformer

        return Transformer.from_crs(self._grid.crs, "EPSG:4326", always_xy=True)

    def _interpolate(self, values: np.ndarray, index_ND: np.ndarray) -> np.ndarray:
        at = [np.interp(index_ND[:, axis], nodes, np.arange(len(nodes))) for axis, nodes in enumerate(self._lattice[0])]
        value_N: np.ndarray = ndimage.map_coordinates(values, at, order=1, mode="nearest")
        return value_N

    @cached_property
    def _lattice(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """((rows, columns) of the nodes, (area, height, width) of the pixel at each node), by geodesics across the pixel."""
        from pyproj import CRS, Transformer

        geod, crs = _geod_of(self._grid), CRS.from_user_input(self._grid.crs)
        to_lonlat = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
        nodes = tuple(np.unique(np.linspace(0, n - 1, min(n, LATTICE_NODES)).round()) for n in self._grid.shape_yx)
        row, column = np.meshgrid(*nodes, indexing="ij")

        def shifted(d_row: float, d_column: float) -> tuple[np.ndarray, np.ndarray]:
            world = self.world(np.stack([row.ravel() + d_row, column.ravel() + d_column], axis=1))
            y = np.clip(world[:, 1], -90, 90) if crs.is_geographic else world[:, 1]  # pixels centred on a pole end there
            return to_lonlat.transform(world[:, 0], y)

        down, _, height = geod.inv(*shifted(-0.5, 0), *shifted(0.5, 0))
        across, _, width = geod.inv(*shifted(0, -0.5), *shifted(0, 0.5))
        area = height * width * np.abs(np.sin(np.radians(np.asarray(down) - np.asarray(across))))
        if not np.isfinite(area).all():
            raise RequestError(f"the grid in {self._grid.crs} reaches places that have no longitude and latitude; crop it")
        return (nodes[0], nodes[1]), (area.reshape(row.shape), height.reshape(row.shape), width.reshape(row.shape))


def _geod_of(grid: Grid) -> Geod:
    from pyproj import CRS

    geod = CRS.from_user_input(grid.crs).get_geod()
    if geod is None:
        raise RequestError(
            f"{grid.crs}: not a place on Earth, so objects have no size in m² here; use a grid with a geodetic CRS"
        )
    return geod


@dataclass(frozen=True)
class Shapes:
    """N objects of one date, as columns; object n has the value n + 1 in the label array that it comes from.

    `size_N` area or volume; `outline_N` length of the outline along pixel edges, holes included (3-D: surface of the voxels); for
    round objects it is 4/pi too long, as that of every raster polygon. `major_N`, `minor_N`: full axes of the ellipse (ellipsoid)
    with the same second moments. `centroid_ND` in array indices; `steps_ND` true lengths of a pixel there; `box_ND2` first and
    one past the last index per axis. `seen_share_N`: share of the pixels that were seen on this date, the others are held from
    an earlier one. `at_edge_N`: touches the edge of the raster, the object may go on beyond it.
    """

    pixels_N: np.ndarray
    size_N: np.ndarray
    outline_N: np.ndarray
    major_N: np.ndarray
    minor_N: np.ndarray
    centroid_ND: np.ndarray
    steps_ND: np.ndarray
    box_ND2: np.ndarray
    seen_share_N: np.ndarray
    at_edge_N: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels_N)


def label_objects(codes: np.ndarray, *, corners: bool = True) -> np.ndarray:
    """int32 labels 1..N of connected pixels with the same non-zero code, 0 elsewhere; bool counts as one code. Pixels that touch
    by an edge or (`corners`) only by a corner belong together."""
    from skimage.measure import label

    labels: np.ndarray = label(codes, background=0, connectivity=codes.ndim if corners else 1)
    return labels.astype(np.int32, copy=False)


def describe_objects(label: np.ndarray, space: Space, seen: np.ndarray | None = None) -> Shapes:
    """The shapes of the objects 1..N of a label array, in that order. Raises ValueError where a label is missing."""
    if label.ndim != space.axes:
        raise ValueError(f"the array has {label.ndim} axes, the spacing {space.axes}")
    index_PD = np.stack(np.nonzero(label), axis=1)
    own = label[tuple(index_PD.T)].astype(np.int64) - 1
    pixels = np.bincount(own)
    if not pixels.all():
        raise ValueError(f"labels must be 1, 2, ... without a gap; {int(np.argmin(pixels)) + 1} is missing")
    count = len(pixels)

    def total(weights: np.ndarray) -> np.ndarray:
        return np.bincount(own, weights=weights, minlength=count)

    centroid = np.stack([total(index_PD[:, d]) / pixels for d in range(label.ndim)], axis=1)
    steps = space.steps(centroid)
    major, minor = _axes(index_PD, own, centroid, steps, pixels)
    boxes = ndimage.find_objects(label, max_label=count)
    box = np.array([[(s.start, s.stop) for s in slices] for slices in boxes], np.int64).reshape(count, label.ndim, 2)
    at_edge = ((box[:, :, 0] == 0) | (box[:, :, 1] == label.shape)).any(axis=1)
    seen_share = np.ones(count) if seen is None else total(seen[tuple(index_PD.T)]) / pixels
    size = total(space.pixel_size(index_PD))
    outline = _outline(label, index_PD, own, steps)
    return Shapes(pixels, size, outline, major, minor, centroid, steps, box, seen_share, at_edge)


def _outline(label: np.ndarray, index_PD: np.ndarray, own: np.ndarray, steps_ND: np.ndarray) -> np.ndarray:
    """Sum over the pixel faces between an object and anything else."""
    padded = np.pad(label, 1)
    outline = np.zeros(len(steps_ND))
    for axis in range(label.ndim):
        bare = np.zeros(len(own), np.int64)
        for side in (0, 2):
            neighbour = tuple(index_PD[:, d] + (side if d == axis else 1) for d in range(label.ndim))
            bare += padded[neighbour] != own + 1
        face = np.delete(steps_ND, axis, axis=1).prod(axis=1)
        outline += np.bincount(own, weights=bare, minlength=len(outline)) * face
    return outline


def _axes(
    index_PD: np.ndarray, own: np.ndarray, centroid_ND: np.ndarray, steps_ND: np.ndarray, pixels_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Longest and shortest full axis. A pixel is a small box, not a point: steps²/12 is added to its variance."""
    count, axes = centroid_ND.shape
    covariance = np.zeros((count, axes, axes))
    away_PD = (index_PD - centroid_ND[own]) * steps_ND[own]
    for i in range(axes):
        for j in range(i, axes):
            sums = np.bincount(own, weights=away_PD[:, i] * away_PD[:, j], minlength=count)
            covariance[:, i, j] = covariance[:, j, i] = sums / pixels_N
        covariance[:, i, i] += steps_ND[:, i] ** 2 / 12
    variances = np.maximum(np.linalg.eigvalsh(covariance), 0)
    factor = 4 if axes == 2 else 2 * np.sqrt(5)  # an ellipse has the variance (axis / 4)², an ellipsoid (axis / 2)² / 5
    return factor * np.sqrt(variances[:, -1]), factor * np.sqrt(variances[:, 0])
