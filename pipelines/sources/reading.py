"""Reads scenes on the cube's grid, with their validity mask and content hash. Refuses what does not fit; casts nothing."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from pipelines.errors import SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Band, Scene
from pipelines.sources.grid_words import covers_same_area, frame_or_grid, outline, why_not_on
from pipelines.sources.isolation import Limits, isolated
from pipelines.sources.opening import files_kept_open
from pipelines.sources.quality import QualityMask
from pipelines.sources.resampling import covered, lattice_offset, overlaps
from pipelines.sources.source import DecodesFiles, OnOtherGrid, Resampling, Source

Pixels = tuple[np.ndarray, np.ndarray, np.ndarray]  # image_BYX as stored, valid_YX, is_data_YX
Result = TypeVar("Result")
# how many times its own size a scene takes between file and cube: read and resampled, encoded, waiting to be written
COPIES = 3


@dataclass(frozen=True)
class Slice:
    """One scene on the cube's grid, or rows of it: `image_BYX` as stored, `valid_YX` boolean, and `hash_content` of both."""

    image_BYX: np.ndarray
    valid_YX: np.ndarray

    @cached_property
    def content_hash(self) -> str:
        return hash_content(self.image_BYX, self.valid_YX)


@dataclass(frozen=True)
class SceneReader:
    """Reads the scenes of a source on a grid; picklable, for Dask workers.

    A pixel is valid if it has data in every band (not nodata, finite, in the band's valid range) and the quality mask calls
    it usable. In a mosaic the first valid part is used; without a valid part, the first part with data. The quality band is
    always resampled with nearest, and need not be on the grid as long as it covers the same area.
    """

    source: Source
    quality_mask: QualityMask | None
    grid: Grid
    on_other_grid: OnOtherGrid = "refuse"
    resampling: Resampling = "nearest"
    min_valid_fraction: float = 0.0

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of pixels (of volumes: one slice) of all bands, the validity mask and the quality band."""
        return math.prod(self.grid.shape[1:]) * (len(self.source.bands) * self.source.dtype().itemsize + 2)

    @property
    def scene_bytes(self) -> int:
        return self.row_bytes * self.grid.shape[0]

    def read(self, scene: Scene) -> Slice:
        """The whole scene. Raises SceneRefused(wrong-crs, wrong-grid, no-overlap, all-nodata, ...)."""
        image_BYX, valid_YX, is_data_YX = self.read_rows(scene, slice(0, self.grid.shape[0]))
        if not is_data_YX.any():
            raise all_nodata(scene)
        return Slice(image_BYX, valid_YX)

    def read_rows(self, scene: Scene, rows: slice) -> Pixels:
        """`rows` of the grid's first axis, equal to the same rows of the whole scene, also without data. Raises SceneRefused."""
        if not scene.id:
            raise SceneRefused("(no id)", "no-date", f"a scene without an id, observed at {scene.observed_utc}")
        if np.isnat(scene.observed_utc):  # it could never be found again
            raise SceneRefused(scene.id, "no-date", "its date could not be read; check the date pattern of the source")
        with files_kept_open():
            pixels = self._read_parts(scene, rows)
        self._check_arrays(scene, *pixels[:2], (rows.stop - rows.start, *self.grid.shape[1:]))
        return pixels

    def valid_fraction(self, scene: Scene, valid_px: int) -> float:
        """The share of the grid's pixels that are valid. Raises SceneRefused(all-cloud, few-usable)."""
        if valid_px == 0:
            raise SceneRefused(scene.id, "all-cloud", "no pixel is usable (quality mask and valid range)")
        fraction = valid_px / math.prod(self.grid.shape)
        if fraction < self.min_valid_fraction:
            required = f"cube.min_valid_fraction requires {self.min_valid_fraction:.2%}"
            raise SceneRefused(scene.id, "few-usable", f"{fraction:.2%} of the pixels are usable, {required}")
        return fraction

    def _check_arrays(self, scene: Scene, image_BYX: np.ndarray, valid_YX: np.ndarray, shape: tuple[int, ...]) -> None:
        bands, dtype = self.source.bands, self.source.dtype()
        if image_BYX.ndim != 1 + len(shape) or image_BYX.shape[0] != len(bands):
            expected = f"the cube has {len(bands)} bands ({', '.join(band.name for band in bands)})"
            raise SceneRefused(scene.id, "missing-band", f"{expected}, read {image_BYX.shape}")
        if image_BYX.shape[1:] != shape or valid_YX.shape != shape:
            found, axes = f"read {image_BYX.shape[1:]} with a mask of {valid_YX.shape}", ", ".join(self.grid.dims)
            raise SceneRefused(scene.id, "wrong-grid", f"the cube's grid has {shape} pixels ({axes}), {found}")
        if image_BYX.dtype != dtype:
            raise SceneRefused(scene.id, "wrong-dtype", f"the cube stores {dtype}, the scene is {image_BYX.dtype}")
        if valid_YX.dtype != np.bool_:
            raise SceneRefused(scene.id, "wrong-dtype", f"the mask must be bool, it is {valid_YX.dtype}")

    def _read_parts(self, scene: Scene, rows: slice) -> Pixels:
        """A scene, or the mosaic of its parts."""
        mosaic: Pixels | None = None
        for part in scene.parts or (scene,):
            try:
                self._check_grid(part)
                layer_BYX, usable_YX, holds_YX = self._read_part(part, rows)
            except SceneRefused as error:
                if scene.parts and error.reason == "no-overlap":
                    continue
                raise SceneRefused(scene.id, error.reason, str(error) if scene.parts else error.detail) from error
            if mosaic is None:
                mosaic = layer_BYX, usable_YX, holds_YX
                continue
            image_BYX, valid_YX, is_data_YX = mosaic
            is_taken_YX = (usable_YX & ~valid_YX) | (holds_YX & ~is_data_YX)
            image_BYX[:, is_taken_YX] = layer_BYX[:, is_taken_YX]
            mosaic = image_BYX, valid_YX | usable_YX, is_data_YX | holds_YX
        if mosaic is None:
            detail = f"none of its {len(scene.parts)} parts overlaps the grid {self.grid.bounds}"
            raise SceneRefused(scene.id, "no-overlap", detail)
        return mosaic

    def _check_grid(self, scene: Scene) -> None:
        """Raises SceneRefused for bands that are outside the grid, or on another grid unless reprojection is configured."""
        grid = self.grid
        for name in (band.name for band in self.source.bands):
            there = self.source.grid_of(scene, name)
            if (reason := why_not_on(name, there, grid)) is None:
                continue
            if self.on_other_grid != "reproject":
                raise SceneRefused(scene.id, *reason)
            if not overlaps(there, grid):
                detail = f"band {name} is on {outline(there)}, outside the cube's {outline(grid)}"
                raise SceneRefused(scene.id, "no-overlap", detail)
        if self.quality_mask is not None and self.on_other_grid != "reproject":
            there = self.source.grid_of(scene, self.quality_mask.band)
            if not covers_same_area(there, grid):
                detail = f"quality band {self.quality_mask.band} is on {outline(there)}; the cube is on {outline(grid)}"
                raise SceneRefused(
                    scene.id, frame_or_grid(there, grid), f"{detail}; set cube.on_other_grid: reproject to resample it"
                )

    def _read_part(self, scene: Scene, rows: slice) -> Pixels:
        bands = self.source.bands
        image_BYX = self.source.read(scene, self.grid, tuple(band.name for band in bands), self.resampling, rows)
        holds_YX = self._holds_data(scene, bands[0], image_BYX[0], rows)
        for band, plane_YX in zip(bands[1:], image_BYX[1:], strict=True):
            holds_YX &= self._holds_data(scene, band, plane_YX, rows)
        valid_YX = holds_YX.copy()
        for band, plane_YX in zip(bands, image_BYX, strict=True):
            if band.valid_range is not None:
                low, high = band.valid_range
                values_YX = np.ma.getdata(plane_YX)
                valid_YX &= (values_YX >= low) & (values_YX <= high)
        if self.quality_mask is not None:
            valid_YX &= self._usable(self.quality_mask, scene, rows)
        return np.ma.getdata(image_BYX), valid_YX, holds_YX

    def _holds_data(self, scene: Scene, band: Band, plane_YX: np.ndarray, rows: slice) -> np.ndarray:
        is_float = plane_YX.dtype.kind == "f"
        if isinstance(plane_YX, np.ma.MaskedArray):  # the source knows what is missing, and what is outside
            is_data_YX, plane_YX = ~np.ma.getmaskarray(plane_YX), np.ma.getdata(plane_YX)
        elif is_float:
            is_data_YX = np.isfinite(plane_YX)
        elif band.nodata is None:
            there = self.source.grid_of(scene, band.name)
            return np.ones(plane_YX.shape, bool) if there.is_aligned(self.grid) else covered(there, self.grid, rows)
        else:
            is_data_YX = np.ones(plane_YX.shape, bool)
        if band.nodata is not None:
            is_data_YX &= plane_YX != (plane_YX.dtype.type(band.nodata) if is_float else band.nodata)
        return is_data_YX

    def _usable(self, quality_mask: QualityMask, scene: Scene, rows: slice) -> np.ndarray:
        """(rows, x) usable by the quality mask, False outside the quality band; reads extra rows for the mask's distance."""
        away_px = quality_mask.away_px
        around = slice(max(rows.start - away_px, 0), min(rows.stop + away_px, self.grid.shape[0]))
        quality_YX = np.ma.getdata(self.source.read(scene, self.grid, (quality_mask.band,), "nearest", around))[0]
        usable_YX = quality_mask.usable(quality_YX)[rows.start - around.start : rows.stop - around.start]
        there = self.source.grid_of(scene, quality_mask.band)
        is_inside = there.is_aligned(self.grid) or lattice_offset(there, self.grid) == (0, 0)
        return usable_YX if is_inside else usable_YX & covered(there, self.grid, rows)


@dataclass(frozen=True)
class IsolatedReader:
    """Reads with `reader`, in a worker if its source decodes files (`isolation`); `at_once` reads share `memory_bytes`."""

    reader: SceneReader
    memory_bytes: int
    at_once: int

    def read(self, read: Callable[..., Result], scene: Scene, *args: object, height: int) -> Result:
        """`read(reader, scene, *args)`, which reads `height` rows."""
        if not isinstance(self.reader.source, DecodesFiles):
            return read(self.reader, scene, *args)
        needed = COPIES * height * self.reader.row_bytes * self.at_once  # one strip is always allowed
        limits = Limits(max(self.memory_bytes, needed), self.at_once)
        return isolated(read, self.reader, scene, *args, label=scene.id, paths=scene.paths, limits=limits)


def all_nodata(scene: Scene) -> SceneRefused:
    return SceneRefused(scene.id, "all-nodata", "no pixel on the grid has data in every band")


def hash_content(image_BYX: np.ndarray, valid_YX: np.ndarray) -> str:
    """SHA-256 (hex) over shapes, dtypes and bytes (C order) of both arrays."""
    digest = hashlib.sha256()
    for array in (image_BYX, valid_YX):
        digest.update(f"{array.shape}{array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
