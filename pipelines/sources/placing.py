"""Pixels onto a grid: copied where they lie on it already, warped by GDAL where they do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import rasterio
from rasterio.enums import Resampling as GdalResampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject
from rasterio.windows import Window

from pipelines.grid import Grid
from pipelines.sources.source import Resampling

WARP_ROWS = 512  # GDAL's approximate transformer depends on the window: warping always these strips, counted from the
# grid's row 0, gives the same pixels whatever rows are asked for


class Layer(Protocol):
    """One band of one scene, open for reading: where it lies, what it holds, and windows of it."""

    @property
    def grid(self) -> Grid: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def nodata(self) -> float | None: ...

    @property
    def scale_offset(self) -> tuple[float, float]: ...

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        """(rows, columns), stored dtype."""
        ...


@dataclass(frozen=True)
class RasterLayer:
    """A band of an open GDAL raster; `read_as` reinterprets the stored bits."""

    dataset: rasterio.DatasetReader
    index: int
    grid: Grid
    read_as: np.dtype | None = None

    @property
    def dtype(self) -> np.dtype:
        return self.read_as or np.dtype(self.dataset.dtypes[self.index - 1])

    @property
    def nodata(self) -> float | None:
        return None if self.read_as else self.dataset.nodatavals[self.index - 1]

    @property
    def scale_offset(self) -> tuple[float, float]:
        return self.dataset.scales[self.index - 1], self.dataset.offsets[self.index - 1]

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        window = Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        return reinterpret(self.dataset.read(self.index, window=window), self.read_as)


def reinterpret(stored: np.ndarray, read_as: np.dtype | None) -> np.ndarray:
    """`stored` in native byte order, its bits read as `read_as` where given."""
    native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return native if read_as is None else native.view(read_as)


def place(layer: Layer, grid: Grid, rows: slice, fill: float, nodata: float | None, resampling: Resampling) -> np.ndarray:
    """(rows, x) of `layer` on `grid`, its dtype, `fill` outside it. Pixels equal to `nodata` never enter an average.

    Without `nodata` (integers only; floats use NaN) nothing tells the outside from data: see `covered`.
    """
    if nodata is None and layer.dtype.kind == "f":
        nodata = np.nan
    offset = lattice_offset(layer.grid, grid)
    if offset is not None:
        return _copy(layer, grid, rows, fill, offset)
    strips = _strips(rows, grid.shape_yx[0])
    if isinstance(layer, RasterLayer) and layer.read_as is None:
        warped = _warp_file(layer, grid, strips, fill, nodata, resampling)
    else:
        warped = _warp_array(layer, grid, strips, fill, nodata, resampling)
    return warped[rows.start - strips[0].start : rows.stop - strips[0].start]


def lattice_offset(source: Grid, target: Grid, tolerance_px: float = 1e-3) -> tuple[int, int] | None:
    """(row, column) of `target`'s first pixel in `source` if the pixels of both coincide; None if they do not."""
    if not source.has_same_crs(target):
        return None
    to_source = ~source.affine @ target.affine
    column, row = (round(v) for v in to_source @ (0, 0))
    height, width = target.shape_yx
    for corner in ((0, 0), (width, 0), (0, height), (width, height)):
        there = to_source @ corner
        if abs(there[0] - corner[0] - column) > tolerance_px or abs(there[1] - corner[1] - row) > tolerance_px:
            return None
    return row, column


def _copy(layer: Layer, grid: Grid, rows: slice, fill: float, offset: tuple[int, int]) -> np.ndarray:
    height, width = layer.grid.shape_yx
    out = np.full((rows.stop - rows.start, grid.shape_yx[1]), fill, layer.dtype)
    row0, column0 = offset[0] + rows.start, offset[1]
    inner_rows = slice(max(row0, 0), min(row0 + out.shape[0], height))
    inner_columns = slice(max(column0, 0), min(column0 + out.shape[1], width))
    if inner_rows.start < inner_rows.stop and inner_columns.start < inner_columns.stop:
        there = layer.window(inner_rows, inner_columns)
        at_row, at_column = inner_rows.start - row0, inner_columns.start - column0
        out[at_row : at_row + there.shape[0], at_column : at_column + there.shape[1]] = there
    return out


def _strips(rows: slice, height: int) -> list[slice]:
    first = rows.start // WARP_ROWS * WARP_ROWS
    return [slice(start, min(start + WARP_ROWS, height)) for start in range(first, rows.stop, WARP_ROWS)]


def _warp_file(
    layer: RasterLayer, grid: Grid, strips: list[slice], fill: float, nodata: float | None, resampling: Resampling
) -> np.ndarray:
    """(rows of all strips, x): GDAL reads of the file what it needs."""
    height, width = grid.shape_yx
    outside = {} if nodata is None else {"src_nodata": nodata, "nodata": fill}
    with WarpedVRT(
        layer.dataset,
        src_crs=layer.grid.crs,
        src_transform=layer.grid.affine,
        crs=grid.crs,
        transform=grid.affine,
        width=width,
        height=height,
        resampling=GdalResampling[resampling],
        **outside,
    ) as warped:
        windows = [Window(0, strip.start, width, strip.stop - strip.start) for strip in strips]
        return np.concatenate([warped.read(layer.index, window=window) for window in windows])


def _warp_array(
    layer: Layer, grid: Grid, strips: list[slice], fill: float, nodata: float | None, resampling: Resampling
) -> np.ndarray:
    """(rows of all strips, x): the whole of the layer is read once."""
    source = layer.window(slice(0, layer.grid.shape_yx[0]), slice(0, layer.grid.shape_yx[1]))
    outside = {} if nodata is None else {"src_nodata": nodata, "dst_nodata": fill}
    warped = []
    for strip in strips:
        part = grid.window(strip, slice(0, grid.shape_yx[1]))
        out = np.full(part.shape_yx, fill, layer.dtype)
        reproject(
            source,
            out,
            src_crs=layer.grid.crs,
            src_transform=layer.grid.affine,
            dst_crs=grid.crs,
            dst_transform=part.affine,
            resampling=GdalResampling[resampling],
            **outside,
        )
        warped.append(out)
    return np.concatenate(warped)


def covered(source: Grid, target: Grid, rows: slice) -> np.ndarray:
    """(rows, x) bool: pixel centres of `target` that lie on `source`; for bands without a nodata value."""
    from pyproj import Transformer

    part = target.window(rows, slice(0, target.shape_yx[1]))
    columns, lines = np.meshgrid(np.arange(part.shape_yx[1]) + 0.5, np.arange(part.shape_yx[0]) + 0.5)
    x, y = part.affine @ (columns, lines)
    if not source.has_same_crs(target):
        x, y = Transformer.from_crs(target.wkt, source.wkt, always_xy=True).transform(x, y)
    column, row = ~source.affine @ (x, y)
    return (column >= 0) & (column < source.shape_yx[1]) & (row >= 0) & (row < source.shape_yx[0])


def overlaps(source: Grid, target: Grid) -> bool:
    """True if the outlines of both grids meet; False only if they certainly do not."""
    from rasterio.warp import transform_bounds

    left, bottom, right, top = target.bounds_xy
    there = source.bounds_xy
    if not source.has_same_crs(target):
        try:
            there = transform_bounds(source.wkt, target.wkt, *there, densify_pts=21)
        except rasterio.errors.RasterioError:  # the far side of the globe has no place in the target's CRS
            return False
        if not np.all(np.isfinite(there)):
            return True
    return there[0] < right and there[2] > left and there[1] < top and there[3] > bottom
