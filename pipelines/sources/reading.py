"""Reads one scene on the cube's grid, with its validity mask and content hash."""

import hashlib

import numpy as np

from pipelines.errors import SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Band, Scene, Slice
from pipelines.sources.opening import files_kept_open
from pipelines.sources.quality import QualityMask
from pipelines.sources.resampling import covered, lattice_offset, overlaps
from pipelines.sources.source import Resampling, Source


def read_slice(
    source: Source,
    quality_mask: QualityMask | None,
    scene: Scene,
    grid: Grid,
    *,
    on_other_grid: str = "refuse",
    resampling: Resampling = "nearest",
) -> Slice:
    """The whole scene on `grid`. Raises SceneRefused(wrong-crs, wrong-grid, no-overlap, all-nodata, ...); see `read_strip`."""
    rows = slice(0, grid.shape_yx[0])
    image_BYX, valid_YX, is_data_YX = _read(source, quality_mask, scene, grid, rows, on_other_grid, resampling)
    if not is_data_YX.any():
        raise SceneRefused(scene.id, "all-nodata", "no pixel on the grid has data in every band")
    return Slice(scene, image_BYX, valid_YX, hash_content(image_BYX, valid_YX))


def read_strip(
    source: Source,
    quality_mask: QualityMask | None,
    scene: Scene,
    grid: Grid,
    rows: slice,
    *,
    on_other_grid: str = "refuse",
    resampling: Resampling = "nearest",
) -> tuple[np.ndarray, np.ndarray]:
    """(image_BYX as stored, valid_YX) of some rows of the grid; equal to the same rows of the whole slice.

    A pixel is valid if it has data in every band (not nodata, finite, in the band's valid range) and the quality mask calls
    it usable. In a mosaic the first valid part is used; without a valid part, the first part with data. The quality band is
    always resampled with nearest, and need not be on the grid as long as it covers the same area.
    """
    return _read(source, quality_mask, scene, grid, rows, on_other_grid, resampling)[:2]


def hash_content(image_BYX: np.ndarray, valid_YX: np.ndarray) -> str:
    """SHA-256 (hex) over shapes, dtypes and bytes (C order) of both arrays."""
    digest = hashlib.sha256()
    for array in (image_BYX, valid_YX):
        digest.update(f"{array.shape}{array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _read(
    source: Source,
    quality_mask: QualityMask | None,
    scene: Scene,
    grid: Grid,
    rows: slice,
    on_other_grid: str,
    resampling: Resampling,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image, valid, is_data) of a scene or of the mosaic of its parts."""
    with files_kept_open():
        return _read_parts(source, quality_mask, scene, grid, rows, on_other_grid, resampling)


def _read_parts(
    source: Source,
    quality_mask: QualityMask | None,
    scene: Scene,
    grid: Grid,
    rows: slice,
    on_other_grid: str,
    resampling: Resampling,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image_BYX = valid_YX = is_data_YX = None
    for part in scene.parts or (scene,):
        try:
            _check_grid(source, quality_mask, part, grid, on_other_grid)
            layer_BYX, usable_YX, holds_YX = _read_part(source, quality_mask, part, grid, rows, resampling)
        except SceneRefused as error:
            if scene.parts and error.reason == "no-overlap":
                continue
            raise SceneRefused(scene.id, error.reason, str(error) if scene.parts else error.detail) from error
        if image_BYX is None or valid_YX is None or is_data_YX is None:
            image_BYX, valid_YX, is_data_YX = layer_BYX, usable_YX, holds_YX
            continue
        is_taken_YX = (usable_YX & ~valid_YX) | (holds_YX & ~is_data_YX)
        image_BYX[:, is_taken_YX] = layer_BYX[:, is_taken_YX]
        valid_YX, is_data_YX = valid_YX | usable_YX, is_data_YX | holds_YX
    if image_BYX is None or valid_YX is None or is_data_YX is None:
        raise SceneRefused(scene.id, "no-overlap", f"none of its {len(scene.parts)} parts overlaps the grid {grid.bounds_xy}")
    return image_BYX, valid_YX, is_data_YX


def _check_grid(source: Source, quality_mask: QualityMask | None, scene: Scene, grid: Grid, on_other_grid: str) -> None:
    """Raises SceneRefused for bands that are outside the grid, or on another grid unless reprojection is configured."""
    for name in (band.name for band in source.bands):
        there = source.grid_of(scene, name)
        if there.is_aligned(grid):
            continue
        if on_other_grid != "reproject":
            reason = "wrong-grid" if there.has_same_crs(grid) else "wrong-crs"
            detail = f"band {name} is on {outline(there)}; the cube is on {outline(grid)}; set cube.on_other_grid: reproject"
            raise SceneRefused(scene.id, reason, f"{detail} to resample it")
        if not overlaps(there, grid):
            detail = f"band {name} is on {outline(there)}, outside the cube's {outline(grid)}"
            raise SceneRefused(scene.id, "no-overlap", detail)
    if quality_mask is not None and on_other_grid != "reproject":
        there = source.grid_of(scene, quality_mask.band)
        if not _covers_same_area(there, grid):
            reason = "wrong-grid" if there.has_same_crs(grid) else "wrong-crs"
            detail = f"quality band {quality_mask.band} is on {outline(there)}; the cube is on {outline(grid)}"
            raise SceneRefused(scene.id, reason, f"{detail}; set cube.on_other_grid: reproject to resample it")


def outline(grid: Grid) -> str:
    """A grid in one line: CRS, shape, resolution and bounds."""
    crs = grid.crs if len(grid.crs) < 40 else grid.crs.replace('"', "'").split(",")[0] + "...]"
    bounds = ", ".join(f"{v:.10g}" for v in grid.bounds_xy)
    height, width = grid.shape_yx
    return f"{crs} {height} x {width} pixels of {abs(grid.resolution_xy[0]):.9g} at ({bounds})"


def _covers_same_area(there: Grid, grid: Grid) -> bool:
    if not there.has_same_crs(grid):
        return False
    tolerance = 0.5 * max(abs(there.resolution_xy[0]), abs(grid.resolution_xy[0]))
    return all(abs(a - b) <= tolerance for a, b in zip(there.bounds_xy, grid.bounds_xy, strict=True))


def _read_part(
    source: Source, quality_mask: QualityMask | None, scene: Scene, grid: Grid, rows: slice, resampling: Resampling
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image_BYX = source.read(scene, grid, tuple(band.name for band in source.bands), resampling, rows)
    holds_YX = np.ones(image_BYX.shape[1:], bool)
    for band, plane_YX in zip(source.bands, image_BYX, strict=True):
        holds_YX &= _holds_data(source, band, scene, plane_YX, grid, rows)
    valid_YX = holds_YX.copy()
    for band, plane_YX in zip(source.bands, image_BYX, strict=True):
        if band.valid_range is not None:
            low, high = band.valid_range
            valid_YX &= (plane_YX >= low) & (plane_YX <= high)
    if quality_mask is not None:
        valid_YX &= _usable(source, quality_mask, scene, grid, rows)
    return image_BYX, valid_YX, holds_YX


def _holds_data(source: Source, band: Band, scene: Scene, plane_YX: np.ndarray, grid: Grid, rows: slice) -> np.ndarray:
    is_data_YX: np.ndarray
    if plane_YX.dtype.kind == "f":
        is_data_YX = np.isfinite(plane_YX)
        return is_data_YX if band.nodata is None else is_data_YX & (plane_YX != plane_YX.dtype.type(band.nodata))
    if band.nodata is not None:
        is_data_YX = plane_YX != band.nodata
        return is_data_YX
    there = source.grid_of(scene, band.name)
    return np.ones(plane_YX.shape, bool) if there.is_aligned(grid) else covered(there, grid, rows)


def _usable(source: Source, quality_mask: QualityMask, scene: Scene, grid: Grid, rows: slice) -> np.ndarray:
    """(rows, x) usable by the quality mask, False outside the quality band; reads extra rows for the mask's distance."""
    around = slice(max(rows.start - quality_mask.away_px, 0), min(rows.stop + quality_mask.away_px, grid.shape_yx[0]))
    quality_YX = source.read(scene, grid, (quality_mask.band,), "nearest", around)[0]
    usable_YX = quality_mask.usable(quality_YX)[rows.start - around.start : rows.stop - around.start]
    there = source.grid_of(scene, quality_mask.band)
    return usable_YX if lattice_offset(there, grid) == (0, 0) else usable_YX & covered(there, grid, rows)
