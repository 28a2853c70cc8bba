"""A source of scenes that are in memory: an xarray Dataset or DataArray with the axes time, y, x and a CRS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np
import xarray as xr

from pipelines.errors import RequestError, SceneRefused
from pipelines.grid import Grid, parse_crs
from pipelines.scene import Asset, Band, Scene, bands_from_json, is_storable
from pipelines.sources.facts import stated_values
from pipelines.sources.layers import canonical_crs
from pipelines.sources.source import Listing, Resampling, compact_date

STORED = ("uint8", "int16", "uint16", "int32", "float32")  # kept if all bands share one; everything else becomes float32
EVEN_PX = 1e-3  # how far coordinates may lie from even spacing,
ROUNDED_PX = 0.1  # or this far, where they are rounded to float32
AXES = {"y": ("latitude", "lat"), "x": ("longitude", "lon")}  # names that are taken for y and x
DEGREES_PX = 0.01  # a smaller pixel is one in degrees, not in metres
UNNAMED = "value"  # the band of a DataArray without a name
SECOND = np.timedelta64(1, "s")
PASS_CUBE = "pass the cube, the Dataset of open_cube; of values that you decoded yourself, array.drop_attrs() says so"
HOW_CRS = 'pass crs="EPSG:32635", or dataset.rio.write_crs("EPSG:32635") with rioxarray'


@dataclass(frozen=True)
class MemorySource:
    """One scene per date of `images`, whose variables are the bands, each (time, y, x); see `memory_source`.

    It holds the pixels, so it is meant for this process; nothing of it is copied before it is read. NaN is missing in bands of
    floating point; whole numbers are missing at their `_FillValue`.
    """

    images: xr.Dataset = field(repr=False)
    crs: str
    bands: tuple[Band, ...]

    def dtype(self) -> np.dtype:
        return common_dtype(self.images)

    def native_grid(self) -> Grid:
        return Grid(self.crs, transform_of(self.images), (self.images.sizes["y"], self.images.sizes["x"]))

    def grid_of(self, scene: Scene, name: str) -> Grid:
        return self.native_grid()

    def list_scenes(self) -> Listing:
        """Every date, in order; the index of an asset is the position on the axis time."""
        times = self.images["time"].values.astype("datetime64[ns]")
        scenes = []
        for index, date in enumerate(times):
            assets = {band.name: Asset("<memory>", band.name, index) for band in self.bands}
            scenes.append(Scene(f"memory_{compact_date(date)}", date, assets))
        return Listing(scenes)

    def read(
        self, scene: Scene, grid: Grid, names: tuple[str, ...], resampling: Resampling, rows: slice | None = None
    ) -> np.ndarray:
        """(names, rows, x) as `Source.read` specifies. Raises SceneRefused(wrong-grid): nothing is resampled here."""
        if not grid.is_aligned(self.native_grid()):
            detail = f"the dataset is on {self.native_grid()}, requested {grid}; dataset.rio.reproject_match brings it there"
            raise SceneRefused(scene.id, "wrong-grid", detail)
        planes = [self.images[name].isel(time=scene.assets[name].index, y=rows or slice(None)).values for name in names]
        return np.stack(planes).astype(self.dtype(), copy=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """Conversions that were made of values which may have been converted before."""
        said = []
        for band in self.bands:
            parts = [f"scale_factor {band.scale:g}"] * (band.scale != 1) + [f"add_offset {band.offset:g}"] * (band.offset != 0)
            if parts and self.images[band.name].dtype.kind == "f":
                said.append(
                    f"{band.name}: {' and '.join(parts)} of its attributes {'was' if len(parts) == 1 else 'were'} applied"
                )
        return tuple(said)

    def usable_times(self) -> np.ndarray:
        """datetime64[ns] of the dates on which some pixel has data in every band: ingest refuses the others."""
        is_used = [bool(self._has_data(index).any()) for index in range(self.images.sizes["time"])]
        times: np.ndarray = self.images["time"].values.astype("datetime64[ns]")[is_used]
        return times

    def _has_data(self, index: int) -> np.ndarray:
        has_YX = np.ones((self.images.sizes["y"], self.images.sizes["x"]), bool)
        for band in self.bands:
            plane_YX = self.images[band.name].isel(time=index).values
            has_YX &= np.isfinite(plane_YX) & (True if band.nodata is None else plane_YX != band.nodata)
        return has_YX


def memory_source(data: xr.Dataset | xr.DataArray, names: str | Sequence[str] = (), crs: str | int | None = None) -> MemorySource:
    """The checked source of `data`: a Dataset of variables (time, y, x), a DataArray (time, [band,] y, x), or an open cube.

    names: the bands to take; default: all variables with these axes. crs: for data without a grid mapping (`spatial_ref`).
    Attributes that xarray leaves on packed values count: `scale_factor`, `add_offset`, `_FillValue`, `units`.

    Raises RequestError for what a run could not use: no axis time, dates that are unsorted or repeat, x or y that are not
    evenly spaced, no CRS or one that contradicts the data, an unknown band, values that are not numbers.
    """
    whole = as_dataset(data)
    check_times(whole)
    images = whole[list(choose_bands(whole, [names] if isinstance(names, str) else names))].transpose("time", "y", "x")
    transform, known_crs = transform_of(images), find_crs(whole, crs)
    check_positions(images, transform, known_crs)
    return MemorySource(images, known_crs, tuple(_band_of(images, str(name)) for name in images.data_vars))


def as_dataset(data: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Bands as variables with the axes y and x, physical values of a cube (`open_cube`), lazily, NaN where not `valid`.

    Bands of a DataArray are named by its coordinate `band`, a single one by the array's own name. Raises RequestError for the
    image of a cube without the mask.
    """
    if isinstance(data, xr.Dataset):
        return _decoded_cube(data) if "image" in data.data_vars and _is_stored(data["image"]) else _with_axes(data)
    if not isinstance(data, xr.DataArray):
        raise RequestError(f"expected an xarray Dataset or DataArray, got {type(data).__name__}")
    if _is_stored(data):
        raise RequestError(f"this is the image of a cube, values as stored and without the mask: {PASS_CUBE}")
    if "band" not in data.dims:
        return _with_axes(data.drop_vars("band", errors="ignore").to_dataset(name=str(data.name or UNNAMED)))
    names = [str(one) for one in data["band"].values] if "band" in data.coords else map(str, range(1, data.sizes["band"] + 1))
    planes = {name: data.isel(band=n, drop=True) for n, name in enumerate(names)}
    if len(planes) != data.sizes["band"]:
        raise RequestError(f"the coordinate band repeats a name: {', '.join(map(str, data['band'].values))}")
    return _with_axes(xr.Dataset(planes))


def _with_axes(data: xr.Dataset) -> xr.Dataset:
    """The axes latitude and longitude (lat, lon) called y and x, where these are not there."""
    free = {axis: names for axis, names in AXES.items() if axis not in data.dims and axis not in data.variables}
    return data.rename({name: axis for axis, names in free.items() for name in names if name in data.dims})


def _is_stored(image: xr.DataArray) -> bool:
    """True for the image of a cube: its attribute `bands` says what stored values mean."""
    return isinstance(image.attrs.get("bands"), str)


def _decoded_cube(cube: xr.Dataset) -> xr.Dataset:
    """Bands of a cube as variables, as `pipelines.samples.variables.decode` makes them; nothing is read yet."""
    if "valid" not in cube:
        raise RequestError(f"the Dataset has the image of a cube without `valid`: {PASS_CUBE}")
    image, valid, bands = cube["image"], cube["valid"], dict[str, xr.DataArray]()
    known = {band.name: band for band in bands_from_json(image.attrs["bands"])}
    names = [str(name) for name in np.atleast_1d(cube["band"].values)] if "band" in cube.coords else []
    if unknown := set(names) - set(known) or (not names and {"the axis band has no names"}):
        raise RequestError(f"the image of the cube does not fit its bands {', '.join(known)} ({', '.join(unknown)}): {PASS_CUBE}")
    image, valid = (one.chunk({axis: 1 for axis in ("time", "band") if axis in one.dims}) for one in (image, valid))
    for n, band in enumerate(known[name] for name in names):
        stored = image.isel(band=n, drop=True) if "band" in image.dims else image
        seen = valid if band.nodata is None or np.isnan(band.nodata) else valid & (stored != band.nodata)
        if band.valid_range is not None:
            seen = seen & (stored >= band.valid_range[0]) & (stored <= band.valid_range[1])
        values = stored.astype(np.float32) * np.float32(band.scale) + np.float32(band.offset)
        bands[band.name] = values.where(seen)
        bands[band.name].attrs = {"units": band.unit} if band.unit else {}
    places = [name for name, one in cube.coords.items() if name in ("time", "z", "y", "x") or _stated_crs(one.variable)]
    return xr.Dataset({name: one.reset_coords(drop=True) for name, one in bands.items()}, {name: cube[name] for name in places})


def check_times(data: xr.Dataset) -> None:
    """Raises RequestError unless the axis time has dates that rise, at least a second apart."""
    if "time" not in data.dims:
        axes = ", ".join(map(str, data.dims)) or "none"
        remedy = 'dataset.rename({"date": "time"}), or images.expand_dims(time=[date]) for one date'
        raise RequestError(f"the data have no axis `time` (their axes: {axes}): {remedy}")
    if "time" not in data.coords or data["time"].dtype.kind != "M":
        found = data["time"].dtype if "time" in data.coords else "no coordinate"
        raise RequestError(f"the axis time needs dates (datetime64), it has {found}: dataset.assign_coords(time=dates)")
    times = data["time"].values.astype("datetime64[ns]")
    if np.isnat(times).any():
        raise RequestError(f"time[{int(np.isnat(times).argmax())}] is not a date (NaT): remove it")
    steps = np.diff(times)
    if (steps < np.timedelta64(0)).any():
        at = int((steps < np.timedelta64(0)).argmax())
        raise RequestError(f'the dates are not sorted: {times[at + 1]} follows {times[at]}; dataset.sortby("time") sorts them')
    if (steps < SECOND).any():
        remedy = 'dataset.groupby("time").mean() makes one image of each, dataset.drop_duplicates("time") keeps the first'
        raise RequestError(f"the date {times[int((steps < SECOND).argmax())]} is there twice: {remedy}")


def choose_bands(data: xr.Dataset, names: Sequence[str]) -> dict[str, xr.DataArray]:
    """The bands called `names` (default: all). Raises RequestError for unknown ones, other axes, and values without numbers."""
    images = {str(name): one for name, one in data.data_vars.items() if {"time", "y", "x"} == set(one.dims)}
    there = ", ".join(images) or "none"
    if unknown := [name for name in names if name not in images]:
        of_other_axes = [name for name in unknown if name in data.data_vars]
        axes = "".join(f"; {name} has the axes ({', '.join(map(str, data[name].dims))})" for name in of_other_axes)
        remedy = "".join(_rename(name, list(images)) for name in unknown)
        raise RequestError(f"no variable (time, y, x) is called {', '.join(unknown)}; there are: {there}{axes}{remedy}")
    if not images:
        axes = "; ".join(f"{name} ({', '.join(map(str, one.dims))})" for name, one in data.data_vars.items()) or "none"
        remedy = 'dataset.rename({"lon": "x", "lat": "y"})'
        raise RequestError(f"no variable has the axes (time, y, x): {axes}. If they have other names: {remedy}")
    chosen = {name: images[name] for name in names or images}
    for name, image in chosen.items():
        if image.dtype.kind not in "iufb":
            raise RequestError(f"{name} holds {image.dtype}, expected numbers")
    return chosen


def _rename(wanted: str, there: list[str]) -> str:
    """How to call the band that may be meant so, or ""."""
    if there == [UNNAMED]:
        return f'; the DataArray has no name: array.rename("{wanted}")'
    of_lower = {name.lower(): name for name in there}
    close = get_close_matches(wanted.lower(), list(of_lower), n=1)
    return f'; did you mean {of_lower[close[0]]}? dataset.rename({{"{of_lower[close[0]]}": "{wanted}"}})' if close else ""


def transform_of(data: xr.Dataset | xr.DataArray) -> tuple[float, float, float, float, float, float]:
    """The affine (see `Grid`) of the coordinates x and y, which are pixel centres. Raises RequestError if they are not even."""
    first, step = {}, {}
    for axis in ("x", "y"):
        if axis not in data.coords or data[axis].ndim != 1 or data[axis].dtype.kind not in "iuf":
            raise RequestError(f"the data have no coordinate {axis} with the positions of the pixels' centres in CRS units")
        centres = data[axis].values.astype(np.float64)
        if len(centres) < 2:
            raise RequestError(f"the axis {axis} has {len(centres)} pixel(s): at least 2 are needed to know their size")
        step[axis] = float((centres[-1] - centres[0]) / (len(centres) - 1))
        even, px = centres[0] + step[axis] * np.arange(len(centres)), abs(step[axis])
        rounding = float(np.spacing(np.abs(data[axis].values).max())) if data[axis].dtype.kind == "f" else 0.0
        if px == 0 or not np.allclose(centres, even, rtol=0, atol=max(EVEN_PX * px, min(rounding, ROUNDED_PX * px))):
            at = int(np.abs(np.diff(centres) - step[axis]).argmax())
            found = f"{centres[at]:.10g} is followed by {centres[at + 1]:.10g}, on average they are {step[axis]:.6g} apart"
            raise RequestError(f"the coordinate {axis} is not evenly spaced: {found}; resample it to a regular grid first")
        first[axis] = float(centres[0]) - step[axis] / 2
    return step["x"], 0.0, first["x"], 0.0, step["y"], first["y"]


def check_positions(data: xr.Dataset, transform: Sequence[float], crs: str) -> None:
    """Raises RequestError for positions that cannot be in the CRS: metres as degrees, or degrees as metres."""
    parsed, pixel = parse_crs(crs), min(abs(transform[0]), abs(transform[4]))
    least, most = ([float(end(data[axis].values)) for axis in ("x", "y")] for end in (np.min, np.max))
    is_on_globe = all(-limit <= low and high <= limit for limit, low, high in zip((360, 90), least, most, strict=True))
    is_degrees = is_on_globe and least[0] >= -180 and most[0] <= 180 and pixel < DEGREES_PX
    where = f"x from {least[0]:.8g} to {most[0]:.8g}, y from {least[1]:.8g} to {most[1]:.8g}"
    if parsed.is_geographic and not is_on_globe:
        raise RequestError(f'{crs} is in degrees, the data have {where}: state the CRS that these are in, e.g. crs="EPSG:32635"')
    if parsed.is_projected and is_degrees:
        remedy = 'state the CRS that these are in, for degrees crs="EPSG:4326"'
        raise RequestError(f"{crs} is in {parsed.linear_units}, the data have {where}, which look like degrees: {remedy}")


def find_crs(data: xr.Dataset, crs: str | int | None = None) -> str:
    """`crs` (32635 is EPSG:32635), or that of the grid mapping, as EPSG:n or WKT.

    Raises RequestError if there is none, PROJ does not know it, or `crs` is another than that of the data.
    """
    own = next((str(one) for one in map(_stated_crs, data.variables.values()) if one), "")
    if crs is None and not own:
        raise RequestError(f"the data have no CRS (no `spatial_ref`): {HOW_CRS}")
    text = own if crs is None else f"EPSG:{crs}" if str(crs).isdigit() else str(crs)
    try:
        found = canonical_crs(text)
    except ValueError as e:
        raise RequestError(f"PROJ does not know the CRS {text[:80]!r} ({e}): {HOW_CRS}") from e
    if own and crs is not None and (stated := find_crs(data)) != found and parse_crs(stated) != parse_crs(found):
        remedy = f"leave crs out; dataset.rio.reproject({crs!r}) brings them there, dataset.rio.write_crs({crs!r}) corrects them"
        raise RequestError(f"crs={crs!r} is not the CRS that the data state, {stated.split(',')[0]}: {remedy}")
    return found


def _stated_crs(variable: xr.Variable) -> Any:
    """What a CF grid mapping, which is a variable without axes, states."""
    attributes = variable.attrs if variable.ndim == 0 else {}
    return attributes.get("crs_wkt") or attributes.get("spatial_ref")


def common_dtype(images: xr.Dataset) -> np.dtype:
    """The dtype of all bands in the cube, which stores one."""
    found = {image.dtype.newbyteorder("=").name for image in images.data_vars.values()}
    return np.dtype(found.pop() if len(found) == 1 and found <= set(STORED) else "float32")


def _band_of(images: xr.Dataset, name: str) -> Band:
    attributes, dtype = images[name].attrs, common_dtype(images)
    scale, offset = float(attributes.get("scale_factor", 1.0)), float(attributes.get("add_offset", 0.0))
    missing, valid_range = stated_values(lambda key: np.atleast_1d(attributes.get(key, [])).astype(float).tolist())
    nodata = missing[0] if missing else np.nan
    if len(missing) > 1 or valid_range is not None:
        remedy = "dataset.where(...) makes them NaN; drop the attributes then"
        raise RequestError(
            f"{name} states several missing values or a valid range, which a run from memory cannot keep: {remedy}"
        )
    is_value = np.isfinite(nodata) and is_storable(nodata, dtype)
    return Band(name, scale, offset, nodata if is_value else None, str(attributes.get("units", "")))
