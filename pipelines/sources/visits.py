"""The visits of one patient as a source: each is a scene on the common grid, resampled once from its own voxels."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from pipelines.errors import RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.registration.resampling import Interpolation, is_copy, is_on_lattice, resample, share_within
from pipelines.registration.volumes import Volume
from pipelines.scene import Asset, Band, Scene
from pipelines.sources.nifti import read_volume
from pipelines.sources.source import Listing, Resampling
from pipelines.sources.visit_files import Visit
from pipelines.sources.volumes import require_grid

UNDATED = "no file states a date: times are the numbers of the visits, how long they are apart is not known"
STILL = tuple(np.eye(4).ravel().tolist())


@dataclass(frozen=True)
class PlacedVisit:
    """A visit that is used: scene, file, and the matrix (sixteen numbers) of a point of the common space to the visit's."""

    id: str
    moment: np.datetime64
    path: Path
    matrix: tuple[float, ...]

    @classmethod
    def of(cls, visit: Visit, matrix: Sequence[float]) -> PlacedVisit:
        return cls(visit.id, visit.moment, visit.path, tuple(map(float, matrix)))


@dataclass(frozen=True)
class VisitsSource:
    """Visits on `grid` (LPS, mm), float32 in physical values, NaN where one shows nothing. left_out: visits that are not used."""

    visits: tuple[PlacedVisit, ...]
    grid: Grid
    requested: Band
    interpolation: Interpolation = "linear"
    notes: tuple[str, ...] = ()
    left_out: tuple[SceneRefused, ...] = field(default=(), repr=False)

    @property
    def bands(self) -> tuple[Band, ...]:
        return (replace(self.requested, scale=1.0, offset=0.0, nodata=None),)

    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def list_scenes(self) -> Listing:
        scenes = [
            Scene(one.id, one.moment, {self.requested.name: Asset(str(one.path), "", 0)}, label=one.id.replace("-", " "))
            for one in self.visits
        ]
        return Listing(scenes, list(self.left_out), [], list(self.notes), is_of_place=False)

    def native_grid(self) -> Grid:
        return self.grid

    def grid_of(self, scene: Scene, name: str) -> Grid:
        return self.grid

    def read(
        self, scene: Scene, grid: Grid, names: tuple[str, ...], resampling: Resampling, rows: slice | None = None
    ) -> np.ndarray:
        """(names, z, y, x) as `Source.read` specifies; `rows` are slices. Raises SceneRefused."""
        require_grid(scene, self.grid, grid)
        one = next(visit for visit in self.visits if visit.id == scene.id)
        status = one.path.stat()
        key = status.st_size, status.st_mtime_ns
        with _resampling:
            values_ZYX = _resampled(one, key, self.grid, self.requested.nodata, self.interpolation)
        return values_ZYX[rows or slice(None)][None].copy()


_resampling = threading.Lock()  # a volume of many slabs is resampled once


@lru_cache(maxsize=2)
def _resampled(one: PlacedVisit, key: tuple[int, int], grid: Grid, nodata: float | None, how: Interpolation) -> np.ndarray:
    volume = load_visit(one.path, one.id, nodata)
    return resample(volume.values_ZYX, volume.grid, np.array(one.matrix).reshape(4, 4), grid, how)


def load_visit(path: Path, label: str, nodata: float | None = None) -> Volume:
    """The volume of a file in physical values, float32, NaN where it holds `nodata`. Raises SceneRefused."""
    stored_ZYX, header = read_volume(path, label)
    values_ZYX = stored_ZYX.astype(np.float32) * np.float32(header.scale) + np.float32(header.intercept)
    if nodata is not None:
        values_ZYX[stored_ZYX == nodata] = np.nan
    if not np.isfinite(values_ZYX).any():
        raise SceneRefused(label, "all-nodata", "no voxel holds a number")
    return Volume(values_ZYX, header.grid)


def grid_of_file(path: Path, label: str) -> Grid:
    """The grid of a NIfTI file. Raises SceneRefused."""
    from pipelines.sources.nifti_header import read_nifti_header

    return read_nifti_header(path, label).grid


def mask_on_grid(
    path: Path,
    grid: Grid,
    label: str = "the mask",
    places: Sequence[tuple[Grid, Sequence[float]]] = (),
    if_both: Literal["common", "visit", "refuse"] = "common",
    *,
    of_visit: bool = False,
    least_share: float = 0.0,
) -> np.ndarray:
    """codes_ZYX int32 of a mask on the common `grid`, 0 outside of it: of the nearest voxel, nothing is interpolated.

    A mask on the voxels of `grid` is taken voxel by voxel; spacings that differ in the seventh digit are the same. One on the
    voxels of a visit goes where the visit goes: `places` has (grid, matrix) of visits. In either case axes may be exchanged or
    reversed, and edges cut off. Any other is taken to lie in the common space. if_both: which of both counts where a visit has
    the voxels of `grid` in its header and lies elsewhere. of_visit: it belongs to the visit of `places`.

    Raises RequestError: no NIfTI file of one volume, values that are no whole numbers, less than `least_share` or nothing of it
    within the grid, two visits on whose voxels it could be, a visit and the common grid (`if_both: refuse`); of a visit: neither
    of them, if that visit was moved or the mask has as many voxels.
    """
    try:
        stored_ZYX, header = read_volume(path, label)
    except SceneRefused as e:
        raise RequestError(f"{label} cannot be used, {e.reason}: {e.detail}") from None
    values_ZYX = stored_ZYX * header.scale + header.intercept if (header.scale, header.intercept) != (1, 0) else stored_ZYX
    values_ZYX = np.where(np.isnan(values_ZYX), 0, values_ZYX)  # how some programs write what is no lesion
    if not np.isfinite(values_ZYX).all() or np.abs(values_ZYX - np.round(values_ZYX)).max() > 1e-3:
        raise RequestError(f"{label} holds values that are no whole numbers: it is an image or a probability, not a mask")
    codes_ZYX = np.round(values_ZYX).astype(np.int32)
    matrix = np.array(_matrix_of(label, header.grid, grid, places, if_both, of_visit)).reshape(4, 4)
    if is_copy(header.grid, matrix, grid):
        return codes_ZYX
    moved_ZYX = resample(codes_ZYX, header.grid, matrix, grid, "nearest")
    found_ZYX = np.asarray(np.nan_to_num(moved_ZYX, nan=0), np.int32)
    if codes_ZYX.any() and not found_ZYX.any():
        raise RequestError(f"{label} lies outside of the common grid: it is in another space; resample it to the common grid")
    share = share_within(codes_ZYX != 0, header.grid, matrix, grid)
    if share < least_share:
        raise RequestError(
            f"{label}: only {share:.0%} of it lies within the common grid: it is in another space, or source.grid is too small"
        )
    return found_ZYX


def _matrix_of(
    label: str, own: Grid, grid: Grid, places: Sequence[tuple[Grid, Sequence[float]]], if_both: str, of_visit: bool
) -> Sequence[float]:
    """Which way a mask on the voxels `own` goes to the common grid, as `mask_on_grid` says. Raises RequestError."""
    fitting = [matrix for there, matrix in places if is_copy(own, np.eye(4), there)]
    is_common = is_copy(own, np.eye(4), grid)
    if not fitting and not is_common:  # then the same voxels in another order, or a part of them
        fitting, is_common = [matrix for there, matrix in places if is_on_lattice(own, there)], is_on_lattice(own, grid)
    fitting = list(dict.fromkeys(map(tuple, fitting)))
    has_moved = [not is_copy(grid, np.array(matrix).reshape(4, 4), grid) for _, matrix in places]
    if is_common:
        is_elsewhere = any(not is_copy(grid, np.array(matrix).reshape(4, 4), grid) for matrix in fitting)
        if is_elsewhere and if_both == "refuse":
            raise RequestError(
                f"{label} could be on the voxels of its visit or on the common grid, whose headers are the same: name a "
                "source.grid of other voxels (one slice more is enough), and resample masks of the common space to it"
            )
        if not is_elsewhere or if_both == "common":
            return STILL
    elif of_visit and not fitting and (any(has_moved) or own.shape in [there.shape for there, _ in places]):
        raise RequestError(
            f"{label} lies neither on the voxels of its visit nor on those of the common grid: its position is lost, or it was "
            "made on other voxels; resample it to one of them"
        )
    if len(fitting) > 1:
        raise RequestError(f"{label} could be on the voxels of {len(fitting)} visits: resample it to the common grid")
    return fitting[0] if fitting else STILL
