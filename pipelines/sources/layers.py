"""One band of one scene in a file: what is requested of it, and the windows of its pixels."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.windows import Window

from pipelines.errors import RequestError, SceneRefused
from pipelines.grid import Grid, parse_crs
from pipelines.scene import Band


@dataclass(frozen=True)
class BandRequest:
    """What is requested from the files, with values that override or complete what the files state.

    `in_file` maps a band's name to its name in the files where they differ. `quality` is the name of the quality band.
    `read_as` reinterprets the stored bits; `crs` and `transform` (see `Grid`) override the georeferencing of the files.
    """

    bands: tuple[Band, ...]
    in_file: Mapping[str, str] = field(default_factory=dict, hash=False)
    quality: str | None = None
    read_as: str | None = None
    crs: str | None = None
    transform: tuple[float, float, float, float, float, float] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bands, then the quality band if there is one that is not among them."""
        names = tuple(band.name for band in self.bands)
        return names if self.quality is None or self.quality in names else (*names, self.quality)

    @property
    def names_in_files(self) -> tuple[str, ...]:
        return tuple(self.name_in_file(name) for name in self.names)

    def name_in_file(self, name: str) -> str:
        return self.in_file.get(name, name)

    def bits_of(self, name: str, stored: np.dtype) -> np.dtype | None:
        """The dtype as which the bits of a band are read; None: the file's own dtype (always for the quality band).

        Raises RequestError if its size differs from that of `stored`.
        """
        if self.read_as is None or all(band.name != name for band in self.bands):
            return None
        read_as = np.dtype(self.read_as)
        if stored.itemsize != read_as.itemsize:
            raise RequestError(
                f"read_as: {read_as} has {read_as.itemsize} bytes, the files hold {stored} with {stored.itemsize}; "
                "bits can only be reinterpreted as a dtype of the same size"
            )
        return read_as

    def grid(self, crs: str | None, transform: tuple[float, ...] | None, shape_yx: tuple[int, int], label: str) -> Grid:
        """The grid of a file with `crs` and `transform` (None: not stated). Raises SceneRefused(wrong-crs, wrong-grid)."""
        crs, transform = self.crs or crs, self.transform or transform
        if not crs:
            also = "" if transform is not None else " and no transform; if you know them, set source.transform and"
            raise SceneRefused(label, "wrong-crs", f"the file has no CRS{also or '; if you know it, set'} source.crs")
        if transform is None:
            detail = "the file is not georeferenced; if you know its position, set source.transform"
            raise SceneRefused(label, "wrong-grid", detail)
        a, b, c, d, e, f = (float(v) for v in transform)
        try:
            return Grid(canonical_crs(crs), (a, b, c, d, e, f), shape_yx)
        except RasterioError as error:
            raise SceneRefused(label, "wrong-crs", f"PROJ cannot parse {crs[:80]!r}: {error}") from error


@functools.lru_cache(maxsize=256)
def canonical_crs(crs: str) -> str:
    """EPSG:n if that code is equivalent to `crs`, else WKT. Raises rasterio's CRSError for text that PROJ cannot parse.

    A WKT that states an EPSG code may differ from that code only by TOWGS84 (a shift to WGS 84, not part of the CRS).
    Cached, since the lookup takes 40 ms.
    """
    parsed = parse_crs(crs)
    wkt: str = parsed.to_wkt()
    stated = re.search(r'(?:AUTHORITY\["EPSG", *"|ID\["EPSG", *)(\d+)"?\]\s*\]\s*$', wkt)
    code = int(stated.group(1)) if stated else parsed.to_epsg(confidence_threshold=100)
    if code is not None:
        known = CRS.from_epsg(code)
        if known == parsed or _projection(known) == _projection(parsed):
            return f"EPSG:{code}"
    return wkt


def _projection(crs: CRS) -> list[str]:
    return sorted(part for part in crs.to_proj4().split() if not part.startswith(("+towgs84", "+type", "+no_defs")))


class Layer(Protocol):
    """One band of one scene, open for reading: its grid, dtype, nodata and packing, and windows of its pixels."""

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
    """`stored` in native byte order, its bits read as `read_as` if given."""
    native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return native if read_as is None else native.view(read_as)


def is_storable(value: float, dtype: np.dtype) -> bool:
    """True if `dtype` can hold `value`."""
    if dtype.kind == "f":
        return not np.isfinite(value) or abs(value) <= np.finfo(dtype).max
    limits = np.iinfo(dtype)
    return bool(np.isfinite(value)) and float(value).is_integer() and limits.min <= value <= limits.max


def fill_value(nodata: float | None, dtype: np.dtype) -> float:
    """Value of pixels outside a scene: its nodata; without one NaN for floats, 0 for integers."""
    if nodata is not None and is_storable(nodata, dtype):
        return nodata
    return np.nan if dtype.kind == "f" else 0
