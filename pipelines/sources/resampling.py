"""Puts pixels on a grid: copies them if they are aligned with it, else warps them with GDAL."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import rasterio
from pyproj import Transformer
from rasterio._err import CPLE_BaseError  # GDAL errors that rasterio does not convert to RasterioError
from rasterio.enums import Resampling as GdalResampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject, transform_bounds
from rasterio.windows import Window

from pipelines.errors import SceneRefused
from pipelines.grid import Grid
from pipelines.scene import is_storable
from pipelines.sources.facts import FileFacts
from pipelines.sources.layers import Layer, RasterLayer
from pipelines.sources.source import Resampling

# The warped strips always start at multiples of WARP_ROWS from the grid's row 0: so the pixels do not depend on the rows
# that are requested. GDAL warps windows of few rows block by block (512x128) with other rounding: hence the minimum.
WARP_ROWS = 512
MIN_WARP_ROWS = 256
MOST_BYTES_AT_ONCE = 26 * 10**6  # of a warp, source and target
KERNEL_PX = {"nearest": 1, "bilinear": 1, "cubic": 2, "average": 1}  # radius, in pixels of the coarser of the two grids
MARGIN_PX = 16
LATTICE = 33  # points along each axis
SMOOTH = 0.02  # second difference of a lattice, of its range: 0.002 for a parabola
MOST_WINDOW_PX = 16 * 2**20  # of a source, warped in one piece,
EXACT = 2.0**53  # the largest integer below which float64 has them all
WORTH_CUTTING = 0.7  # unless cutting it leaves each half more than this


@dataclass(frozen=True)
class ArrayLayer:
    """Values in memory, whole, as a layer: codes of a label raster."""

    values_YX: np.ndarray
    facts: FileFacts

    @property
    def grid(self) -> Grid:
        return self.facts.grid

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        return self.values_YX[rows, columns]

    def masked(self, rows: slice, columns: slice) -> np.ndarray | None:
        return None


def resample(layer: Layer, facts: FileFacts, grid: Grid, rows: slice, resampling: Resampling) -> np.ma.MaskedArray:
    """(rows, x) of `layer` on `grid`, its dtype, masked outside it and where `facts` or the layer's mask say missing.

    Missing pixels are never averaged. Outside, and where it is missing after a warp, the data are the first value of
    `facts.nodata`; without one NaN, and 0 in integers.
    """
    nodata = first_nodata(facts)
    offset = lattice_offset(layer.grid, grid)
    if offset is not None:
        return _copy(layer, facts, grid, rows, offset)
    strips = _strips(rows, grid.shape_yx[0])
    inner = slice(rows.start - strips[0].start, rows.stop - strips[0].start)
    options = {"src_crs": layer.grid.crs, "src_transform": layer.grid.affine, "resampling": GdalResampling[resampling]}
    scale = warp_scale(layer.grid, grid)
    options |= scale
    if facts.codes and resampling != "nearest":
        detail = f"its values are codes ({facts.codes}), which {resampling} would mix; set cube.resampling: nearest"
        raise SceneRefused("", "wrong-dtype", detail)
    is_known = facts.dtype.itemsize < 8 or facts.dtype.kind == "f"  # to GDAL, exactly
    is_plain = not facts.mask and facts.valid_range is None and len(facts.nodata) <= 1 and is_known and facts.dtype != np.float16
    if is_plain:
        options |= {} if nodata is None else {"src_nodata": nodata}
        fill = 0 if nodata is None else nodata
        if isinstance(layer, RasterLayer) and layer.read_as is None:
            warped = _warp_file(layer, grid, strips, fill, options, scale)
        else:
            warped = _warp_windows(layer.window, layer.grid, grid, strips, np.full((), fill, facts.dtype), options)
    else:
        return _warp_masked(layer, facts, grid, strips, options)[inner]
    warped = warped[inner]
    missing = facts.is_missing(warped)
    if nodata is None:  # integers: the outside cannot be told from data
        missing |= ~covered(layer.grid, grid, rows)
    return np.ma.MaskedArray(warped, missing)


def first_nodata(facts: FileFacts) -> float | None:
    """The first missing value that the dtype can hold; without one NaN for floats, None for integers."""
    known = next((value for value in facts.nodata if is_storable(value, facts.dtype)), None)
    return np.nan if known is None and facts.dtype.kind == "f" else known


def masked_window(layer: Layer, facts: FileFacts, rows: slice, columns: slice) -> np.ma.MaskedArray:
    """(rows, columns) as stored, masked where missing."""
    values, masked = layer.window(rows, columns), layer.masked(rows, columns)
    missing = facts.is_missing(values)
    return np.ma.MaskedArray(values, missing if masked is None else missing | masked)


def lattice_offset(source: Grid, target: Grid, tolerance_px: float = 1e-3) -> tuple[int, int] | None:
    """(row, column) of `target`'s first pixel in `source` if the pixels of both coincide; None if they do not.

    >>> whole = Grid("EPSG:32635", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), (8, 8))
    >>> lattice_offset(whole, whole.window(slice(2, 4), slice(3, 8)))
    (2, 3)
    """
    if not source.has_same_frame(target):
        return None
    to_source = ~source.affine @ target.affine
    column, row = (round(v) for v in to_source @ (0, 0))
    height, width = target.shape_yx
    for corner in ((0, 0), (width, 0), (0, height), (width, height)):
        there = to_source @ corner
        if abs(there[0] - corner[0] - column) > tolerance_px or abs(there[1] - corner[1] - row) > tolerance_px:
            return None
    return row, column


def _copy(layer: Layer, facts: FileFacts, grid: Grid, rows: slice, offset: tuple[int, int]) -> np.ma.MaskedArray:
    height, width = layer.grid.shape_yx
    if offset == (0, 0) and layer.grid.shape_yx == grid.shape_yx:
        return masked_window(layer, facts, rows, slice(0, width))
    nodata = first_nodata(facts)
    shape = (rows.stop - rows.start, grid.shape_yx[1])
    out, missing = np.full(shape, 0 if nodata is None else nodata, facts.dtype), np.ones(shape, bool)
    row0, column0 = offset[0] + rows.start, offset[1]
    inner_rows = slice(max(row0, 0), min(row0 + out.shape[0], height))
    inner_columns = slice(max(column0, 0), min(column0 + out.shape[1], width))
    if inner_rows.start < inner_rows.stop and inner_columns.start < inner_columns.stop:
        there = masked_window(layer, facts, inner_rows, inner_columns)
        at_row, at_column = inner_rows.start - row0, inner_columns.start - column0
        at = slice(at_row, at_row + there.shape[0]), slice(at_column, at_column + there.shape[1])
        out[at], missing[at] = np.ma.getdata(there), np.ma.getmaskarray(there)
    return np.ma.MaskedArray(out, missing)


def _strips(rows: slice, height: int) -> list[slice]:
    """The strips that overlap `rows`; the last strip of the grid includes a remainder of less than MIN_WARP_ROWS."""
    count = max(1, (height + WARP_ROWS - MIN_WARP_ROWS) // WARP_ROWS)
    edges = [*(n * WARP_ROWS for n in range(count)), height]
    strips = [slice(top, bottom) for top, bottom in itertools.pairwise(edges)]
    return [strip for strip in strips if strip.start < rows.stop and rows.start < strip.stop]


def warp_scale(source: Grid, target: Grid) -> dict[str, float]:
    """GDAL's options XSCALE and YSCALE: target pixels per source pixel along the source's columns and rows, at the centre.

    Without these options GDAL derives them from the shape of each warped window: on grids that are rotated against each
    other, windows of few rows then look like a reduction and are blurred
    (https://gdal.org/en/stable/api/gdalwarp_cpp.html, papszWarpOptions). Empty if the centre of `target` has no
    coordinates in `source`'s CRS.
    """
    height, width = target.shape_yx
    centre_and_next = [(width / 2 + right, height / 2 + down) for right, down in ((0, 0), (1, 0), (0, 1))]
    points = [target.affine @ at for at in centre_and_next]
    if not source.has_same_frame(target):
        transformer = Transformer.from_crs(target.wkt, source.wkt, always_xy=True)
        points = [transformer.transform(x, y) for x, y in points]
    columns, lines = zip(*(~source.affine @ point for point in points), strict=True)
    steps = [float(np.hypot(at[1] - at[0], at[2] - at[0])) for at in (columns, lines)]
    if not all(np.isfinite(step) and step > 0 for step in steps):
        return {}
    # a projection changes scale by about 0.001; such a change is no change of resolution
    return {name: 1.0 if 0.95 < step < 1.05 else 1 / step for name, step in zip(("XSCALE", "YSCALE"), steps, strict=True)}


def _warp_file(
    layer: RasterLayer, grid: Grid, strips: list[slice], fill: float, options: dict[str, object], scale: dict[str, float]
) -> np.ndarray:
    """(rows of all strips, x): GDAL reads only the part of the file that it needs.

    Strips are warped together up to MOST_BYTES_AT_ONCE, since each needs source rows of the next one. It changes no pixel as long
    as GDAL does not cut the window itself, which it does above 64 MB, across its longer side.
    """
    height, width = grid.shape_yx
    outside = {"nodata": fill} if "src_nodata" in options else {}
    frame = {"crs": grid.crs, "transform": grid.affine, "width": width, "height": height}
    out = np.empty((strips[-1].stop - strips[0].start, width), layer.facts.dtype)
    source_px = 1 / (scale.get("XSCALE", 1.0) * scale.get("YSCALE", 1.0))  # of one pixel of the grid
    strip_bytes = (1 + source_px) * (1 + out.itemsize) * WARP_ROWS * width
    at_once = max(1, int(MOST_BYTES_AT_ONCE / strip_bytes))
    with WarpedVRT(layer.dataset, **frame, **outside, **options) as warped:
        for first in range(0, len(strips), at_once):
            group = strips[first : first + at_once]
            part = out[group[0].start - strips[0].start : group[-1].stop - strips[0].start]
            warped.read(layer.index, window=Window(0, group[0].start, width, part.shape[0]), out=part)
    return out


def _warp_windows(
    read: Callable[[slice, slice], np.ndarray],
    source: Grid,
    grid: Grid,
    strips: list[slice],
    fill: np.ndarray,
    options: dict[str, object],
) -> np.ndarray:
    """(rows of all strips, x), of the dtype of `fill`, which is the value outside; `read` returns a window of `source`."""
    outside = {"dst_nodata": float(fill)} if "src_nodata" in options else {}
    kernel_px = KERNEL_PX[GdalResampling(options["resampling"]).name]
    out = np.full((strips[-1].stop - strips[0].start, grid.shape_yx[1]), fill)
    for rows, window in (piece for strip in strips for piece in _pieces(source, grid, strip, kernel_px)):
        if all(side.start < side.stop for side in window):
            part = out[rows.start - strips[0].start : rows.stop - strips[0].start]
            affine = grid.window(rows, slice(0, out.shape[1])).affine
            there = {**options, "src_transform": source.window(*window).affine}
            reproject(read(*window), part, dst_crs=grid.crs, dst_transform=affine, **outside, **there)
    return out


def _pieces(source: Grid, grid: Grid, rows: slice, kernel_px: int) -> list[tuple[slice, tuple[slice, slice]]]:
    """`rows` cut until the window of `source` that each piece needs has at most MOST_WINDOW_PX, and that window.

    Where they are cut depends on the grids only, not on the rows that are requested of a strip. What makes the windows hardly
    smaller (the grids are rotated against each other) is not cut.
    """
    width, middle = grid.shape_yx[1], (rows.start + rows.stop) // 2
    whole, *halves = (
        source_window(source, grid.window(part, slice(0, width)), kernel_px)
        for part in (rows, slice(rows.start, middle), slice(middle, rows.stop))
        if part.start < part.stop
    )
    most_px = max(MOST_WINDOW_PX, WORTH_CUTTING * _count_px(whole))
    if _count_px(whole) <= MOST_WINDOW_PX or len(halves) < 2 or any(_count_px(half) > most_px for half in halves):
        return [(rows, whole)]
    parts = slice(rows.start, middle), slice(middle, rows.stop)
    return [piece for part in parts for piece in _pieces(source, grid, part, kernel_px)]


def _count_px(window: tuple[slice, slice]) -> int:
    rows, columns = (int(side.stop - side.start) for side in window)
    return rows * columns


def source_window(source: Grid, target: Grid, kernel_px: int) -> tuple[slice, slice]:
    """(rows, columns) of `source` that the pixels of `target` are made from, of none if it is elsewhere.

    kernel_px: radius of the kernel in pixels of the coarser of the two grids. The outline may be curved, so a lattice of points
    is projected; between them a smooth curve leaves their range by less than their second difference. Where that is large (near
    a pole, across the antimeridian) the lattice does not show the curve, and the window is all of the axis.
    """
    height, width = target.shape_yx
    columns, lines = np.meshgrid(*(np.arange(LATTICE) * (size / (LATTICE - 1)) for size in (width, height)))
    x, y = target.affine @ (columns, lines)
    if not source.has_same_frame(target):
        x, y = Transformer.from_crs(target.wkt, source.wkt, always_xy=True).transform(x, y)
    column, row = ~source.affine @ (x, y)
    return _span(row, source.shape_yx[0], target, kernel_px), _span(column, source.shape_yx[1], target, kernel_px)


def _span(at_LL: np.ndarray, size: int, target: Grid, kernel_px: int) -> slice:
    """The part of an axis of `size` pixels around the positions `at_LL` of a lattice over `target`; all of it where unsure."""
    if not np.isfinite(at_LL).all():
        return slice(0, size)
    curve = sum(float(np.abs(np.diff(at_LL, 2, axis=axis)).max()) for axis in (0, 1))
    if curve > max(MARGIN_PX / 2, SMOOTH * np.ptp(at_LL)):
        return slice(0, size)
    steps = [np.abs(np.diff(at_LL, axis=axis)).max() * (LATTICE - 1) / target.shape_yx[axis] for axis in (0, 1)]
    around = curve + kernel_px * max(1.0, *steps) + MARGIN_PX
    low, high = (min(max(float(end), 0.0), size) for end in (at_LL.min() - around, at_LL.max() + around))
    return slice(int(np.floor(low)), int(np.ceil(high)))


def _warp_masked(
    layer: Layer, facts: FileFacts, grid: Grid, strips: list[slice], options: dict[str, object]
) -> np.ma.MaskedArray:
    """(rows of all strips, x) where several values, or a mask, mean missing: as one value of a wider dtype that no pixel has."""
    is_narrow = facts.dtype.kind != "f" and facts.dtype.itemsize <= 2
    wide = np.dtype("int32") if is_narrow else np.dtype("float64")
    stand_in = float(np.iinfo(np.int32).min) if is_narrow else np.nan

    def read(rows: slice, columns: slice) -> np.ndarray:
        stored = masked_window(layer, facts, rows, columns)
        if facts.dtype.kind != "f" and facts.dtype.itemsize == 8 and (abs(stored.astype(wide)) > EXACT).any():
            raise SceneRefused("", "wrong-dtype", "it holds integers beyond 2**53, which cannot be resampled exactly; convert it")
        values: np.ndarray = np.ma.filled(stored.astype(wide), stand_in)
        return values

    options = {**options, "src_nodata": stand_in}
    warped = _warp_windows(read, layer.grid, grid, strips, np.full((), stand_in, wide), options)
    missing = np.isnan(warped) if np.isnan(stand_in) else warped == stand_in
    nodata = first_nodata(facts)
    filled = np.where(missing, 0 if nodata is None else nodata, warped)
    if facts.dtype.kind != "f":
        limits = np.iinfo(np.dtype(facts.dtype).name)
        filled = np.clip(np.rint(filled), limits.min, limits.max)
    return np.ma.MaskedArray(filled.astype(facts.dtype), missing)


def covered(source: Grid, target: Grid, rows: slice) -> np.ndarray:
    """(rows, x) bool: pixel centres of `target` that are inside `source`; for bands without a nodata value."""
    part = target.window(rows, slice(0, target.shape_yx[1]))
    columns, lines = np.meshgrid(np.arange(part.shape_yx[1]) + 0.5, np.arange(part.shape_yx[0]) + 0.5)
    x, y = part.affine @ (columns, lines)
    if not source.has_same_frame(target):
        x, y = Transformer.from_crs(target.wkt, source.wkt, always_xy=True).transform(x, y)
    column, row = ~source.affine @ (x, y)
    is_covered: np.ndarray = (column >= 0) & (column < source.shape_yx[1]) & (row >= 0) & (row < source.shape_yx[0])
    return is_covered


def overlaps(source: Grid, target: Grid) -> bool:
    """True if the outlines of both grids overlap; False only if they certainly do not."""
    left, bottom, right, top = target.bounds_xy
    there = source.bounds_xy
    if not source.has_same_frame(target):
        try:
            there = transform_bounds(source.wkt, target.wkt, *there, densify_pts=21)
        except (rasterio.errors.RasterioError, CPLE_BaseError):
            return False  # the far side of the globe, or an engineering CRS, has no coordinates in the target's CRS
        if not np.all(np.isfinite(there)):
            return True
    return there[0] < right and there[2] > left and there[1] < top and there[3] > bottom
