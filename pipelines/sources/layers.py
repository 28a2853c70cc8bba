"""One band of one scene in a raster or HDF5 file: what is requested of it, what the file says, and windows of its pixels."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from pipelines.errors import RequestError, SceneRefused
from pipelines.grid import Grid, parse_crs
from pipelines.scene import Band, is_storable
from pipelines.sources import cf, other_notations
from pipelines.sources.cf_attributes import packing, text_attribute
from pipelines.sources.facts import FileFacts, numbers_in, stated_values
from pipelines.sources.hdf5_chunks import Unwritten, unwritten_chunks
from pipelines.sources.metadata_files import auxiliary_values, product_metadata
from pipelines.sources.opening import band_descriptions, block_bytes_of, decoding, hdf5_data_set
from pipelines.sources.tiff_blocks import Blocks, blocks_of
from pipelines.sources.worker import has_room
from pipelines.wording import harmless

INFLATING = 3  # times its size a chunk takes while HDF5 inflates it: its buffers double


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

    def band(self, name: str) -> Band:
        """The band as the config asks for it."""
        return next(band for band in self.bands if band.name == name)

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
            grid = Grid(canonical_crs(crs), (a, b, c, d, e, f), shape_yx)
            parsed = parse_crs(grid.crs)
            is_degrees, is_geocentric = parsed.is_geographic, parsed.to_wkt().startswith("GEOCCS")
        except RasterioError as error:
            raise SceneRefused(label, "wrong-crs", f"PROJ cannot parse {crs[:80]!r}: {error}") from error
        if is_geocentric:
            detail = f"the CRS {grid.crs[:40]} has its axes through the centre of the Earth; set source.crs to that of the pixels"
            raise SceneRefused(label, "wrong-crs", detail)
        if is_degrees:
            check_degrees(grid, label)
        return grid


def check_degrees(grid: Grid, label: str) -> None:
    """Raises SceneRefused(wrong-crs) if centres of pixels have no place on Earth: latitudes to 90, longitudes -360 to 540."""
    half_x, half_y = (abs(step) / 2 for step in (grid.spacing[-1], grid.spacing[-2]))
    left, bottom, right, top = grid.bounds_xy
    slack = 1e-6 * max(half_x, half_y)
    if top - half_y > 90 + slack or bottom + half_y < -90 - slack or left + half_x < -360 - slack or right - half_x > 540 + slack:
        place = f"x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}"
        detail = f"the CRS {grid.crs[:40]} is in degrees, the pixels lie at {place}; set source.crs to the CRS that they are in"
        raise SceneRefused(label, "wrong-crs", detail)


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
    """One band of one scene, open for reading: what the file says of it, and windows of its pixels."""

    @property
    def grid(self) -> Grid: ...
    @property
    def facts(self) -> FileFacts: ...
    def window(self, rows: slice, columns: slice) -> np.ndarray:
        """(rows, columns), stored dtype."""

    def masked(self, rows: slice, columns: slice) -> np.ndarray | None:
        """(rows, columns) bool: missing by the mask beside the values, whatever they are; None without such a mask."""


@dataclass(frozen=True)
class RasterLayer:
    """A band of an open GDAL raster; `read_as` reinterprets the stored bits.

    Missing are also pixels where its internal mask, the band `alpha` (1-based) or `mask_file` (an open `.msk` file) is 0, and
    those of the `blocks` of a TIFF that were never written.
    """

    dataset: rasterio.DatasetReader
    index: int
    grid: Grid
    read_as: np.dtype | None = None
    alpha: int | None = None
    mask_file: rasterio.DatasetReader | None = None
    blocks: Blocks | None = None

    @cached_property
    def facts(self) -> FileFacts:
        at = self.index - 1
        stored = np.dtype(self.dataset.dtypes[at])
        nodata, valid_range = stated_values(lambda key: numbers_in(self.dataset.tags(self.index).get(key, "")))
        declared = self.dataset.nodatavals[at]
        nodata = nodata if declared is None else (declared, *(value for value in nodata if value != declared))
        packed, tags = (self.dataset.scales[at], self.dataset.offsets[at]), self.dataset.tags()
        said = other_notations.of_tags(self.dataset.tags(self.index), tags) if stored.kind in "iu" else other_notations.Notation()
        product, path = product_metadata(Path(self.dataset.name)), Path(self.dataset.name)
        if product is not None and self.dataset.driver == "JP2OpenJPEG" and stored.kind in "iu":  # as the agency delivers it
            said = other_notations.Notation(product.scale, product.offset, product.nodata)
        said = said.completing(*packed, nodata)
        beside = [(f".aux.xml:{key}", value) for key, value in auxiliary_values(path, self.index)]
        masks = {"mask band": self._has_mask_band, "alpha band": self.alpha is not None, "mask file": self.mask_file is not None}
        masks["block that was never written"] = self.blocks is not None and self.blocks.unwritten(self.index) is not None
        return FileFacts(
            self.read_as or stored,
            self.grid,
            said.scale,
            said.offset,
            same_bits(said.nodata, stored, self.read_as),
            valid_range,
            ", ".join(name for name, is_there in masks.items() if is_there),
            harmless(self.dataset.units[at] or "", 100),
            "" if self.dataset.count == 1 else band_descriptions(self.dataset)[at],
            self.dataset.count - (self.alpha is not None),
            codes="a palette" if self.dataset.colorinterp[at] == ColorInterp.palette else "",
            unread=other_notations.unread([*tags.items(), *beside], said),
            product=product,
        )

    @property
    def _has_mask_band(self) -> bool:
        flags = self.dataset.mask_flag_enums[self.index - 1]
        return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        with decoding(block_bytes_of(self.dataset, self.index)):
            return reinterpret(self.dataset.read(self.index, window=_window(rows, columns)), self.read_as)

    def masked(self, rows: slice, columns: slice) -> np.ndarray | None:
        window = _window(rows, columns)
        visible = [self.dataset.read_masks(self.index, window=window)] if self._has_mask_band else []
        if self.alpha is not None:
            visible.append(self.dataset.read(self.alpha, window=window))
        if self.mask_file is not None:
            band = self.index if self.index <= self.mask_file.count else 1
            visible.append(self.mask_file.read(band, window=window))
        hidden = [plane == 0 for plane in visible]
        if self.blocks is not None and (unwritten := self.blocks.unwritten_pixels(self.index, rows, columns)) is not None:
            hidden.append(unwritten)
        return np.logical_or.reduce(hidden) if hidden else None


def _window(rows: slice, columns: slice) -> Window:
    return Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)


def alpha_of(dataset: rasterio.DatasetReader) -> int | None:
    """The 1-based band that is an alpha channel."""
    return next((index for index, kind in enumerate(dataset.colorinterp, start=1) if kind == ColorInterp.alpha), None)


@dataclass(frozen=True)
class Hdf5Layer:
    """One (y, x) plane of an open data set; `index` is its zero-based position along the axis of planes."""

    data: h5py.Dataset
    index: int
    grid: Grid
    axes: cf.Axes
    read_as: np.dtype | None = None
    is_step: bool = False  # what lies beside this plane are other dates
    unwritten: Unwritten | None = None
    is_crs_assumed: bool = False

    @cached_property
    def facts(self) -> FileFacts:
        stored = cf.value_dtype(self.data)
        nodata, valid_range = cf.stated(self.data)
        said = other_notations.of_radar(self.data).completing(*packing(self.data), nodata)
        unit = harmless(text_attribute(self.data, "units"), 100)
        return FileFacts(
            self.read_as or stored,
            self.grid,
            said.scale,
            said.offset,
            same_bits(said.nodata, stored, self.read_as),
            valid_range,
            "chunk that was never written" if self._has_unwritten else "",
            unit="" if unit == "1" else unit,
            planes=1 if self.is_step else self.axes.planes(self.data),
            codes=next((key for key in ("flag_values", "flag_masks") if key in self.data.attrs), ""),
            unread=other_notations.unread_attributes(self.data, said),
            said=tuple(filter(None, (ASSUMED if self.is_crs_assumed else "", said.no_echo()))),
        )

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        try:
            stored = self.axes.as_yx(self.data[self.axes.at(self.data, self.index, rows, columns)])
        except OSError as error:  # filters of HDF5 do not say that memory was not enough
            chunk_bytes = math.prod(self.data.chunks or (0,)) * self.data.dtype.itemsize
            if has_room(INFLATING * chunk_bytes):
                raise
            raise MemoryError(f"a chunk of {chunk_bytes / 2**20:.0f} MB") from error
        unsigned = cf.value_dtype(self.data)
        return reinterpret(stored, self.read_as or (unsigned if unsigned.kind != stored.dtype.kind else None))

    def masked(self, rows: slice, columns: slice) -> np.ndarray | None:
        if self.unwritten is None:
            return None
        return self.axes.as_yx(self.unwritten.pixels(self.axes.at(self.data, self.index, rows, columns)))

    @property
    def _has_unwritten(self) -> bool:
        """Whether a chunk of this plane was never written."""
        if self.unwritten is None:
            return False
        plane, chunks = self.axes.plane, self.unwritten.chunks
        at = 0 if plane is None else self.index // self.unwritten.chunk_shape[plane]
        return bool((chunks if plane is None else chunks.take(at, axis=plane)).any())


def reinterpret(stored: np.ndarray, read_as: np.dtype | None) -> np.ndarray:
    """`stored` in native byte order, its bits read as `read_as` if given."""
    native = np.ascontiguousarray(stored, stored.dtype.newbyteorder("="))
    return native if read_as is None else native.view(read_as)


def same_bits(values: tuple[float, ...], stored: np.dtype, read_as: np.dtype | None) -> tuple[float, ...]:
    """`values` of `stored` as their bits read as `read_as`; those that the dtype cannot hold are left out.

    >>> same_bits((32768, -9999), np.dtype("uint16"), np.dtype("int16"))
    (-32768.0, -9999.0)
    """
    if read_as is None:
        return tuple(_as_float(value) for value in values if is_storable(value, stored))
    bits = {v: np.array([v], stored).view(read_as)[0].item() for v in values if is_storable(v, stored)}
    return tuple(_as_float(bits.get(value, value)) for value in values if value in bits or is_storable(value, read_as))


def _as_float(value: float) -> float:
    """The value; an integer that no float holds stays one."""
    return value if isinstance(value, int) and int(float(value)) != value else float(value)


def open_raster_layer(
    dataset: rasterio.DatasetReader, index: int, requested: BandRequest, name: str, label: str,
    alpha: int | None = None, mask_file: rasterio.DatasetReader | None = None,
) -> RasterLayer:  # fmt: skip
    """Raster band `index`, on the requested grid or its own. Raises SceneRefused(wrong-crs, wrong-grid)."""
    crs = dataset.crs.to_wkt() if dataset.crs else None
    affine = dataset.transform
    is_georeferenced = affine.determinant != 0 and not affine.is_identity  # GDAL returns either if the file states no transform
    transform = tuple(affine)[:6] if is_georeferenced else None
    if transform is None and requested.transform is None and (kind := _unrectified(dataset)):
        detail = f"its position is stated by {kind} only; rectify it first (gdalwarp), or set source.crs and source.transform"
        raise SceneRefused(label, "wrong-grid", detail)
    read_as = requested.bits_of(name, np.dtype(dataset.dtypes[index - 1]))
    if mask_file is not None and mask_file.shape != dataset.shape:
        detail = f"the mask file has {mask_file.shape} pixels, the raster {dataset.shape}; make it again or remove it"
        raise SceneRefused(label, "wrong-grid", detail)
    blocks = blocks_of(Path(dataset.name)) if dataset.driver == "GTiff" else None
    return RasterLayer(dataset, index, requested.grid(crs, transform, dataset.shape, label), read_as, alpha, mask_file, blocks)


def _unrectified(dataset: rasterio.DatasetReader) -> str:
    """What states the position of a raster without a transform, "" if nothing does."""
    if dataset.gcps[0]:
        return "ground control points"
    return "rational polynomials (RPC)" if dataset.rpcs is not None else ""


# axes, CRS and affine as far as the file states them, chunks that were never written, whether the CRS is assumed
_Placed = tuple[cf.Axes, str | None, cf.Transform | None, Unwritten | None, bool]
ASSUMED = "state no CRS: EPSG:4326 (WGS 84) is assumed, since their axes are latitudes and longitudes; else set source.crs"
_known: dict[tuple[object, ...], _Placed] = {}  # reading it takes milliseconds


def open_hdf5_layer(file: h5py.File, name: str, index: int, requested: BandRequest, band: str, label: str) -> Hdf5Layer:
    """Plane `index` of data set `name`, with its grid from the request or from CF metadata. Raises SceneRefused."""
    data = hdf5_data_set(file, name, label)
    status = Path(file.filename).stat()
    key = (file.filename, status.st_mtime_ns, status.st_ctime_ns, data.name, requested.crs, requested.transform is None)
    if key not in _known:
        if len(_known) > 10_000:
            _known.clear()
        axes = cf.axes_of(data, label)
        stated = cf.cf_crs(data, axes)
        crs = stated or cf.assumed_crs(data, axes)
        transform = None if requested.transform else cf.cf_transform(data, axes, requested.crs or crs, label)
        is_assumed = requested.crs is None and stated is None and crs is not None
        _known[key] = axes, crs, transform, unwritten_chunks(data, cf.stated(data)[0], label), is_assumed
    axes, crs, transform, unwritten, is_assumed = _known[key]
    if not 0 <= index < axes.planes(data):
        raise SceneRefused(label, "missing-band", f"{name!r} has {axes.planes(data)} planes, no plane {index}")
    grid = requested.grid(crs, transform, axes.shape_yx(data), label)
    bits = requested.bits_of(band, cf.value_dtype(data))
    return Hdf5Layer(data, index, grid, axes, bits, unwritten=unwritten, is_crs_assumed=is_assumed)
