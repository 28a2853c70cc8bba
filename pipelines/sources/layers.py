"""One band of one scene in a raster or HDF5 file: what is requested of it, where it lies, and windows of its pixels."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.windows import Window

from pipelines.errors import RequestError, SceneRefused
from pipelines.grid import Grid, parse_crs
from pipelines.scene import Band
from pipelines.sources.opening import hdf5_data_set


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


@dataclass(frozen=True)
class Hdf5Layer:
    """One (y, x) plane of an open data set of 2 or 3 axes; `index` is the zero-based position along the first of 3."""

    data: h5py.Dataset
    index: int
    grid: Grid
    read_as: np.dtype | None = None

    @property
    def dtype(self) -> np.dtype:
        return self.read_as or self.data.dtype.newbyteorder("=")

    @property
    def nodata(self) -> float | None:
        values = [float_attribute(self.data, key) for key in ("_FillValue", "missing_value")]
        known = [value for value in values if value is not None]
        return known[0] if known and self.read_as is None else None

    @property
    def scale_offset(self) -> tuple[float, float]:
        """CF packing: physical = stored * scale_factor + add_offset."""
        scale, offset = float_attribute(self.data, "scale_factor"), float_attribute(self.data, "add_offset")
        return 1.0 if scale is None else scale, 0.0 if offset is None else offset

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        plane = self.data[rows, columns] if self.data.ndim == 2 else self.data[self.index, rows, columns]
        return reinterpret(plane, self.read_as)


def reinterpret(stored: np.ndarray, read_as: np.dtype | None) -> np.ndarray:
    """`stored` in native byte order, its bits read as `read_as` if given."""
    native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return native if read_as is None else native.view(read_as)


def open_raster_layer(dataset: rasterio.DatasetReader, index: int, requested: BandRequest, name: str, label: str) -> RasterLayer:
    """Raster band `index`, on the requested grid or its own. Raises SceneRefused(wrong-crs, wrong-grid)."""
    crs = dataset.crs.to_wkt() if dataset.crs else None
    affine = dataset.transform
    is_georeferenced = affine.determinant != 0 and not affine.is_identity  # GDAL returns either if the file states no transform
    transform = tuple(affine)[:6] if is_georeferenced else None
    read_as = requested.bits_of(name, np.dtype(dataset.dtypes[index - 1]))
    return RasterLayer(dataset, index, requested.grid(crs, transform, dataset.shape, label), read_as)


Georeferencing = tuple[str | None, tuple[float, ...] | None]  # CRS and affine, as far as the file states them
_known_georeferencing: dict[tuple[str, int, str, bool], Georeferencing] = {}  # reading it takes milliseconds


def open_hdf5_layer(file: h5py.File, name: str, index: int, requested: BandRequest, band: str, label: str) -> Hdf5Layer:
    """Plane `index` of data set `name`, with its grid from the request or from CF metadata. Raises SceneRefused."""
    data = hdf5_data_set(file, name, label)
    if data.ndim not in (2, 3):
        raise SceneRefused(label, "wrong-grid", f"{name!r} has the shape {data.shape}; expected (y, x) or (time, y, x)")
    if data.ndim == 3 and not 0 <= index < data.shape[0]:
        raise SceneRefused(label, "missing-band", f"{name!r} has {data.shape[0]} planes, no plane {index}")
    shape_yx = (int(data.shape[-2]), int(data.shape[-1]))
    key = (file.filename, Path(file.filename).stat().st_mtime_ns, data.name, requested.transform is None)
    if key not in _known_georeferencing:
        if len(_known_georeferencing) > 10_000:
            _known_georeferencing.clear()
        _known_georeferencing[key] = (cf_crs(file, data), None if requested.transform else cf_transform(data, label))
    crs, transform = _known_georeferencing[key]
    return Hdf5Layer(data, index, requested.grid(crs, transform, shape_yx, label), requested.bits_of(band, data.dtype))


def cf_transform(data: h5py.Dataset, label: str) -> tuple[float, ...] | None:
    """The affine from the 1-D coordinates of the last two axes (pixel centres); None without such coordinates.

    Raises SceneRefused(wrong-grid) if they are not evenly spaced to 0.001 pixel.
    """
    y, x = (_coordinate(data, axis) for axis in (-2, -1))
    if y is None or x is None:
        return None
    steps = []
    for name, centres in (("y", y), ("x", x)):
        step = (centres[-1] - centres[0]) / (len(centres) - 1)
        even = centres[0] + step * np.arange(len(centres))
        if step == 0 or not np.allclose(centres, even, rtol=0, atol=1e-3 * abs(step)):
            detail = f"the {name} coordinates of {data.name} are not evenly spaced; resample it first"
            raise SceneRefused(label, "wrong-grid", detail)
        steps.append(float(step))
    return steps[1], 0.0, float(x[0]) - steps[1] / 2, 0.0, steps[0], float(y[0]) - steps[0] / 2


def _coordinate(data: h5py.Dataset, axis: int) -> np.ndarray | None:
    """The coordinate of an axis from its HDF5 dimension scale, float64; None if there is none with at least two values."""
    scales = data.dims[data.ndim + axis]
    if len(scales) == 0 or scales[0].shape != (data.shape[axis],) or data.shape[axis] < 2 or scales[0].dtype.kind not in "iuf":
        return None
    is_placeholder = "This is a netCDF dimension but not" in text_attribute(scales[0], "NAME")
    return None if is_placeholder else scales[0][:].astype(float)


def cf_crs(file: h5py.File, data: h5py.Dataset) -> str | None:
    """The WKT of the CF grid mapping, EPSG:4326 for axes in degrees, else None."""
    mapping = text_attribute(data, "grid_mapping").split(":")[0].strip()
    for group in [data.parent, file] if mapping else []:
        link = group.get(mapping, getlink=True)
        if isinstance(link, h5py.HardLink) and isinstance(group[mapping], h5py.Dataset):
            for key in ("crs_wkt", "spatial_ref"):
                if wkt := text_attribute(group[mapping], key):
                    return wkt
    scales = [data.dims[data.ndim + axis] for axis in (-2, -1)]
    units = [text_attribute(scale[0], "units") if len(scale) else "" for scale in scales]
    return "EPSG:4326" if units[0].startswith("degrees_n") and units[1].startswith("degrees_e") else None


def cf_times(data: h5py.Dataset, label: str) -> np.ndarray:
    """datetime64[ns] of a CF time coordinate; NaT for missing values. Raises SceneRefused(no-date)."""
    import xarray as xr

    attributes = {key: text_attribute(data, key) for key in ("units", "calendar") if text_attribute(data, key)}
    if "since" not in attributes.get("units", ""):
        detail = f"{data.name!r} has the units {attributes.get('units')!r}; expected 'days since ...'"
        raise SceneRefused(label, "no-date", detail)
    try:
        return xr.decode_cf(xr.Dataset({"t": ("t", data[:], attributes)}))["t"].values.astype("datetime64[ns]")
    except (ValueError, OverflowError, TypeError) as error:
        raise SceneRefused(label, "no-date", f"{data.name!r} cannot be read as dates: {error}") from error


def text_attribute(item: h5py.HLObject, key: str) -> str:
    """The attribute as text; "" if it is missing or not text."""
    value = item.attrs.get(key)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").rstrip("\0")
    return value if isinstance(value, str) else ""


def float_attribute(item: h5py.HLObject, key: str) -> float | None:
    """The attribute as a number; None if it is missing or not a number."""
    value = np.asarray(item.attrs[key]).reshape(-1) if key in item.attrs else np.empty(0)
    return float(value[0]) if value.size and value.dtype.kind in "iuf" else None
