"""What HDF5 and netCDF-4 files say in CF attributes: missing values, packing, axes, coordinates and CRS (CF-1.11)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import h5py
import numpy as np
from h5py import h5a, h5t

from pipelines.errors import SceneRefused
from pipelines.grid import parse_crs
from pipelines.scene import is_storable
from pipelines.sources.cf_attributes import numbers_in_attribute, packing, stated_numbers, text_attribute, wrong_attribute
from pipelines.sources.facts import stated_values
from pipelines.sources.opening import hdf5_data_set

MOST_COORDINATES = 1_000_000
Transform = tuple[float, float, float, float, float, float]
METRES = {  # what files call their units of length
    "m": 1.0, "metre": 1.0, "meter": 1.0, "metres": 1.0, "meters": 1.0, "km": 1000.0, "kilometre": 1000.0, "kilometer": 1000.0,
    "kilometres": 1000.0, "kilometers": 1000.0, "dm": 0.1, "cm": 0.01, "mm": 0.001, "ft": 0.3048, "foot": 0.3048, "feet": 0.3048,
    "us_survey_foot": 1200 / 3937, "us-ft": 1200 / 3937,
}  # fmt: skip
DEGREES = re.compile(r"degrees?(?:_?(?:north|south|east|west|[nsew]))?|°", re.IGNORECASE)
RADIANS = ("rad", "radian", "radians")
NAMES = {
    "y": ("y", "yc", "lat", "latitude", "nav_lat", "northing", "northings", "rlat", "row", "rows"),
    "x": ("x", "xc", "lon", "long", "longitude", "nav_lon", "easting", "eastings", "rlon", "column", "columns", "col"),
    "t": ("time", "t", "date"),
}
PLACES = ("lat", "latitude", "nav_lat", "lon", "long", "longitude", "nav_lon", "xlat", "xlong")
STANDARD_NAMES = {
    "projection_y_coordinate": "y", "latitude": "y", "grid_latitude": "y", "projection_x_coordinate": "x", "longitude": "x",
    "grid_longitude": "x", "projection_y_angular_coordinate": "y", "projection_x_angular_coordinate": "x", "time": "t",
}  # fmt: skip
NETCDF_FILLS = {
    "f4": 9.969209968386869e36, "f8": 9.969209968386869e36, "i2": -32767, "i4": -2147483647, "i8": -(2**63) + 2,
    "u2": 2**16 - 1, "u4": 2**32 - 1, "u8": 2**64 - 2,
}  # fmt: skip


# ---------------------------------------------------------------- values


def value_dtype(data: h5py.Dataset) -> np.dtype:
    """The dtype of the values in native byte order; `_Unsigned` says whether the same bits have a sign."""
    dtype: np.dtype = data.dtype.newbyteorder("=")
    kind = {"true": "u", "false": "i"}.get(text_attribute(data, "_Unsigned").lower())
    return np.dtype(f"{kind}{dtype.itemsize}") if kind and dtype.kind in "iu" else dtype


def stated(data: h5py.Dataset) -> tuple[tuple[float, ...], tuple[float, float] | None]:
    """(every missing value, valid range or None), both as stored values of `value_dtype`; integers are exact.

    A range of another kind of number than the packed values is one of unpacked values (netCDF Users Guide, A.1).

    Raises SceneRefused(too-large) for more than MOST_VALUES values, (wrong-scale) for what is no number or no range.
    """
    dtype, (scale, offset) = value_dtype(data), packing(data)
    is_packed = dtype.kind != "f" and any(key in data.attrs for key in ("scale_factor", "add_offset"))

    def is_unpacked(key: str) -> bool:
        return is_packed and key.startswith("valid_") and key in data.attrs and np.asarray(data.attrs[key]).dtype.kind == "f"

    def numbers_of(key: str) -> list[float]:
        other = {"valid_min": "valid_max", "valid_max": "valid_min"}.get(key, key)
        key = other if scale < 0 and (is_unpacked(key) or is_unpacked(other)) else key
        numbers = stated_numbers(data, key)
        if key == "valid_range" and len(numbers) not in (0, 2):
            raise wrong_attribute(data, f"states {len(numbers)} values as valid_range, expected 2; correct the attribute")
        if is_unpacked(key):
            return sorted((number - offset) / scale for number in numbers)
        return [_rebased(number, data.dtype, dtype) for number in numbers]

    missing, valid_range = stated_values(numbers_of)
    default = NETCDF_FILLS.get(data.dtype.str[1:])  # of values that were never written
    if "_FillValue" not in data.attrs and default is not None and data.fillvalue == np.dtype(data.dtype).type(default):
        missing = (*missing, default if data.dtype.kind != "f" else float(np.dtype(data.dtype).type(default)))
    return missing, valid_range


def _rebased(number: float, stored: np.dtype, dtype: np.dtype) -> float:
    """A whole number of the dtype `stored` as the same bits without a sign, or with one, where `dtype` says so."""
    if stored.kind == dtype.kind or dtype.kind == "f" or is_storable(number, dtype) or number != round(number):
        return number
    values: int = 2 ** (8 * dtype.itemsize)
    return number + values if number < 0 else number - values


# ---------------------------------------------------------------- axes


@dataclass(frozen=True)
class Axes:
    """Which axis of a data set is y, which x, and which counts planes (None: there is no such axis). Others have one entry.

    is_time: the axis of planes says that it is time.
    """

    y: int
    x: int
    plane: int | None = None
    is_time: bool = False

    def planes(self, data: h5py.Dataset) -> int:
        return 1 if self.plane is None else int(data.shape[self.plane])

    def shape_yx(self, data: h5py.Dataset) -> tuple[int, int]:
        return int(data.shape[self.y]), int(data.shape[self.x])

    def at(self, data: h5py.Dataset, index: int, rows: slice, columns: slice) -> tuple[slice | int, ...]:
        """Where the window of plane `index` lies in `data`."""
        chosen: list[slice | int] = [0] * data.ndim
        chosen[self.y], chosen[self.x] = rows, columns
        if self.plane is not None:
            chosen[self.plane] = index
        return tuple(chosen)

    def as_yx(self, values: np.ndarray) -> np.ndarray:
        """(rows, columns) of a window, which has the order of the axes in the file."""
        return values if self.y < self.x else values.T


def axes_of(data: h5py.Dataset, label: str) -> Axes:
    """The axes by what their coordinates say (axis, standard_name, units, name), unnamed ones by position: planes, y, x.

    Raises SceneRefused(wrong-grid): fewer than two axes, two of one kind, or a further axis with several entries.
    """
    if data.ndim < 2:
        raise SceneRefused(label, "wrong-grid", f"{data.name!r} has the shape {data.shape}; expected (y, x) or (time, y, x)")
    found: dict[str, int] = {}
    for number in range(data.ndim):
        kind = _kind_of(data, number)
        if kind and kind in found:
            raise SceneRefused(
                label, "wrong-grid", f"{data.name!r} has two axes that call themselves {kind}; correct their attributes"
            )
        if kind:
            found[kind] = number
    free = [number for number in range(data.ndim) if number not in found.values()]
    for kind in ("x", "y"):
        if kind not in found:
            if not free:
                raise SceneRefused(label, "wrong-grid", f"none of the axes of {data.name!r} is {kind}: its shape is {data.shape}")
            found[kind] = free.pop()
    several = [number for number in free if data.shape[number] > 1]
    if "t" in found:
        plane: int | None = found["t"]
    else:
        plane = several.pop(0) if several else next(iter(free), None)
    if several:
        sizes = " x ".join(str(size) for size in data.shape)
        raise SceneRefused(
            label, "wrong-grid", f"{data.name!r} has {data.ndim} axes ({sizes}); expected (time, y, x): select a level first"
        )
    return Axes(found["y"], found["x"], plane, "t" in found)


def times_of_planes(data: h5py.Dataset, axes: Axes) -> h5py.Dataset | None:
    """The coordinate of an axis of several times; None for planes of another kind, or a single one."""
    if axes.plane is None or not axes.is_time or axes.planes(data) < 2:
        return None
    return _scale_of(data, axes.plane)


def _kind_of(data: h5py.Dataset, number: int) -> str:
    """ "x", "y", "t", or "" for an axis whose coordinate does not say."""
    scale = _scale_of(data, number)
    label = str(data.dims[number].label) if _is_of(data, b"DIMENSION_LABELS", h5t.TypeStringID) else ""
    if scale is None:
        return _kind_by_name(label)
    axis, units = text_attribute(scale, "axis").lower(), text_attribute(scale, "units")
    if axis in ("x", "y", "t"):
        return axis
    if kind := STANDARD_NAMES.get(text_attribute(scale, "standard_name")):
        return kind
    if re.fullmatch(r"degrees?_?(n|north)", units, re.IGNORECASE):
        return "y"
    if re.fullmatch(r"degrees?_?(e|east)", units, re.IGNORECASE):
        return "x"
    return "t" if " since " in units else _kind_by_name(str(scale.name).rpartition("/")[2] or label)


def _kind_by_name(name: str) -> str:
    return next((kind for kind, names in NAMES.items() if name.lower() in names), "")


def _scale_of(data: h5py.Dataset, number: int) -> h5py.Dataset | None:
    if not _is_of(data, b"DIMENSION_LIST", h5t.TypeVlenID):
        return None
    scales = data.dims[number]
    return scales[0] if len(scales) else None


def _is_of(data: h5py.Dataset, key: bytes, kind: type) -> bool:
    """Whether an attribute is there, of this type and with a value for each axis: of others HDF5 reads wild memory."""
    if not h5a.exists(data.id, key):
        return False
    attribute = h5a.open(data.id, key)
    stored = attribute.get_type()
    holds_references = not isinstance(stored, h5t.TypeVlenID) or isinstance(stored.get_super(), h5t.TypeReferenceID)
    return isinstance(stored, kind) and holds_references and attribute.shape == (data.ndim,)


# ---------------------------------------------------------------- coordinates


def cf_transform(data: h5py.Dataset, axes: Axes, crs: str | None, label: str) -> Transform | None:
    """The affine of the outer pixel corners, in units of `crs`, from 1-D coordinates of centres; None without such coordinates.

    Raises SceneRefused(wrong-grid) if they are not evenly spaced to 0.001 pixel, in units that the CRS does not have, or numbers
    of rows and columns beside latitudes and longitudes of two axes.
    """
    if _is_curvilinear(data, axes):
        detail = (
            f"the latitudes and longitudes of {data.name} have two axes each: its pixels form no plain grid; resample it first"
        )
        raise SceneRefused(label, "wrong-grid", detail)
    y, x = (_coordinate(data, number, label) for number in (axes.y, axes.x))
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
    to_y, to_x = (_to_crs_units(data, number, crs, label) for number in (axes.y, axes.x))
    dy, dx = steps[0] * to_y, steps[1] * to_x
    return dx, 0.0, float(x[0]) * to_x - dx / 2, 0.0, dy, float(y[0]) * to_y - dy / 2


def _is_curvilinear(data: h5py.Dataset, axes: Axes) -> bool:
    """Whether the axes say nothing of where they are, and `coordinates` names latitudes or longitudes of two axes."""
    scales = [_scale_of(data, number) for number in (axes.y, axes.x)]
    if any(scale is not None and (text_attribute(scale, "units") or text_attribute(scale, "standard_name")) for scale in scales):
        return False
    for name in text_attribute(data, "coordinates").split()[:8]:
        link = data.parent.get(name, getlink=True)
        item = data.parent[name] if isinstance(link, h5py.HardLink) else None
        is_place = name.lower() in PLACES or (item is not None and DEGREES.fullmatch(text_attribute(item, "units")))
        if isinstance(item, h5py.Dataset) and item.ndim >= 2 and is_place:
            return True
    return False


def _coordinate(data: h5py.Dataset, number: int, label: str) -> np.ndarray | None:
    """Unpacked values of the coordinate of an axis, float64; None if there is none with at least two values."""
    scale = _scale_of(data, number)
    if scale is None or scale.shape != (data.shape[number],) or data.shape[number] < 2 or scale.dtype.kind not in "iuf":
        return None
    if "This is a netCDF dimension but not" in text_attribute(scale, "NAME"):
        return None
    scale = short_coordinate(hdf5_data_set(scale.file, str(scale.name), label), label)
    factor, offset = packing(scale)
    centres: np.ndarray = scale[:].astype(float) * factor + offset
    return centres


def short_coordinate(data: h5py.Dataset, label: str) -> h5py.Dataset:
    """Raises SceneRefused(too-large) for a coordinate that is not read whole within a few MB."""
    if data.size > MOST_COORDINATES:
        detail = f"the coordinate {data.name!r} has {data.size} values, the limit is {MOST_COORDINATES}; split the file first"
        raise SceneRefused(label, "too-large", detail)
    return data


def _to_crs_units(data: h5py.Dataset, number: int, crs: str | None, label: str) -> float:
    """What a coordinate is multiplied with to be in units of `crs`. Raises SceneRefused(wrong-grid, wrong-crs)."""
    scale = _scale_of(data, number)
    units = "" if scale is None else text_attribute(scale, "units").strip()
    if units in ("", "1") or crs is None:
        return 1.0
    try:
        parsed = parse_crs(crs)
    except ValueError as error:
        raise SceneRefused(label, "wrong-crs", f"PROJ cannot parse {crs[:80]!r}: {error}") from error
    if parsed.is_geographic and DEGREES.fullmatch(units):
        return 1.0
    if parsed.is_geographic and units in RADIANS:
        return math.degrees(1)
    if parsed.is_projected and units.lower() in METRES:
        return METRES[units.lower()] / float(parsed.linear_units_factor[1])
    kind = "degrees" if parsed.is_geographic else str(parsed.linear_units)
    name = "" if scale is None else scale.name
    detail = f"the coordinate {name} is in {units!r}, the CRS in {kind}; convert it, or set source.crs and source.transform"
    raise SceneRefused(label, "wrong-grid", detail)


def cf_crs(data: h5py.Dataset, axes: Axes) -> str | None:
    """The WKT of the CF grid mapping (CF-1.11, appendix F); None if there is none that can be read."""
    mapping = _mapping_of(data, axes)
    for group in _enclosing(data) if mapping else []:
        link = group.get(mapping, getlink=True)
        is_there = isinstance(link, h5py.HardLink) and isinstance(group[mapping], h5py.Dataset)
        if is_there and (wkt := _mapping_wkt(group[mapping])):
            return wkt
    return None


def assumed_crs(data: h5py.Dataset, axes: Axes) -> str | None:
    """EPSG:4326 for axes in degrees north and east, whose datum the file does not state, else None."""
    units = [text_attribute(scale, "units") if (scale := _scale_of(data, axis)) is not None else "" for axis in (axes.y, axes.x)]
    return "EPSG:4326" if units[0].startswith("degrees_n") and units[1].startswith("degrees_e") else None


def _mapping_of(data: h5py.Dataset, axes: Axes) -> str:
    """The name of the grid mapping; of several ("a: lat lon b: x y") that of the axes' coordinates."""
    text = text_attribute(data, "grid_mapping")
    scales = [_scale_of(data, axis) for axis in (axes.y, axes.x)]
    ours = {str(scale.name).rpartition("/")[2] for scale in scales if scale is not None}
    several: dict[str, set[str]] = {}
    for word in text.replace(" :", ":").split():
        if word.endswith(":"):
            several[word[:-1]] = set()
        elif several:
            several[next(reversed(several))].add(word)
    return next((name for name, of in several.items() if ours and ours <= of), text.split(":")[0].strip())


def _enclosing(data: h5py.Dataset) -> Iterator[h5py.Group]:
    """The group of a data set and the ones around it, from the inside (CF-1.11, 2.7)."""
    group = data.parent
    while True:
        yield group
        if group.name == "/":
            return
        group = group.parent


def _mapping_wkt(mapping: h5py.Dataset) -> str:
    for key in ("crs_wkt", "spatial_ref"):
        if wkt := text_attribute(mapping, key):
            return wkt
    if not (name := text_attribute(mapping, "grid_mapping_name")):
        return ""
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    numbers = {key: value for key in mapping.attrs if (value := numbers_in_attribute(mapping, key))}
    texts = {key: text for key in mapping.attrs if (text := text_attribute(mapping, key))}  # such as reference_ellipsoid_name
    parameters = texts | {key: value[0] if len(value) == 1 else value for key, value in numbers.items()}
    try:
        return str(CRS.from_cf({**parameters, "grid_mapping_name": name}).to_wkt())
    except (CRSError, KeyError, TypeError, ValueError):
        return ""
