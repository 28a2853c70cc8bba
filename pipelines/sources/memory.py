"""A source of scenes that are in memory: an xarray Dataset or DataArray with the axes time, y, x and a CRS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from pipelines.errors import RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Asset, Band, Scene, is_storable
from pipelines.sources.facts import stated_values
from pipelines.sources.layers import canonical_crs
from pipelines.sources.source import Listing, Resampling, compact_date

STORED = ("uint8", "int16", "uint16", "int32", "float32")  # kept if all bands share one; everything else becomes float32
EVEN_PX = 1e-3  # how far coordinates may lie from even spacing
SECOND = np.timedelta64(1, "s")
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


def memory_source(data: xr.Dataset | xr.DataArray, names: Sequence[str] = (), crs: str | None = None) -> MemorySource:
    """The checked source of `data`: a Dataset of variables (time, y, x), or a DataArray (time, [band,] y, x).

    names: the bands to take; default: all variables with these axes. crs: for data without a grid mapping (`spatial_ref`).
    Attributes that xarray leaves on packed values count: `scale_factor`, `add_offset`, `_FillValue`, `units`.

    Raises RequestError for what a run could not use: no axis time, dates that are unsorted or repeat, x or y that are not
    evenly spaced, no CRS, an unknown band, values that are not numbers.
    """
    whole = as_dataset(data)
    check_times(whole)
    images = whole[list(choose_bands(whole, names))].transpose("time", "y", "x")
    transform_of(images)
    return MemorySource(images, find_crs(whole, crs), tuple(_band_of(images, str(name)) for name in images.data_vars))


def as_dataset(data: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Bands as variables; those of a DataArray are named by its coordinate `band`, a single one by the array's own name."""
    if isinstance(data, xr.Dataset):
        return data
    if not isinstance(data, xr.DataArray):
        raise RequestError(f"expected an xarray Dataset or DataArray, got {type(data).__name__}")
    if "band" not in data.dims:
        return data.drop_vars("band", errors="ignore").to_dataset(name=str(data.name or "value"))
    names = [str(one) for one in data["band"].values] if "band" in data.coords else map(str, range(1, data.sizes["band"] + 1))
    planes = {name: data.isel(band=n, drop=True) for n, name in enumerate(names)}
    if len(planes) != data.sizes["band"]:
        raise RequestError(f"the coordinate band repeats a name: {', '.join(map(str, data['band'].values))}")
    return xr.Dataset(planes)


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
        raise RequestError(f"no variable (time, y, x) is called {', '.join(unknown)}; there are: {there}{axes}")
    if not images:
        axes = "; ".join(f"{name} ({', '.join(map(str, one.dims))})" for name, one in data.data_vars.items()) or "none"
        remedy = 'dataset.rename({"lon": "x", "lat": "y"})'
        raise RequestError(f"no variable has the axes (time, y, x): {axes}. If they have other names: {remedy}")
    chosen = {name: images[name] for name in names or images}
    for name, image in chosen.items():
        if image.dtype.kind not in "iufb":
            raise RequestError(f"{name} holds {image.dtype}, expected numbers")
    return chosen


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
        even = centres[0] + step[axis] * np.arange(len(centres))
        if step[axis] == 0 or not np.allclose(centres, even, rtol=0, atol=EVEN_PX * abs(step[axis])):
            at = int(np.abs(np.diff(centres) - step[axis]).argmax())
            found = f"{centres[at]:.10g} is followed by {centres[at + 1]:.10g}, on average they are {step[axis]:.6g} apart"
            raise RequestError(f"the coordinate {axis} is not evenly spaced: {found}; resample it to a regular grid first")
        first[axis] = float(centres[0]) - step[axis] / 2
    return step["x"], 0.0, first["x"], 0.0, step["y"], first["y"]


def find_crs(data: xr.Dataset, crs: str | None = None) -> str:
    """`crs`, or that of the grid mapping, as EPSG:n or WKT. Raises RequestError if there is none or PROJ does not know it."""
    text = crs or next((str(one) for one in map(_stated_crs, data.variables.values()) if one), "")
    if not text:
        raise RequestError(f"the data have no CRS (no `spatial_ref`): {HOW_CRS}")
    try:
        return canonical_crs(str(text))
    except ValueError as e:
        raise RequestError(f"PROJ does not know the CRS {str(text)[:80]!r} ({e}): {HOW_CRS}") from e


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
