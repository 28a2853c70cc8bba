"""Reads covariates from files: a raster warped onto the cube's grid; a series from a table, or from netCDF on its own grid.

Files are untrusted: rasters and netCDF are decoded in workers (`isolation`), by the openers that scenes have.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import h5py
import numpy as np
from rasterio.enums import ColorInterp

from pipelines.calendar import format_span, iso_date, to_days
from pipelines.errors import DriftlineError, MissingInput, RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.samples.covariates import Covariates, Driver, Known, Missing, Static, Summary, positions_in
from pipelines.sources.answers import table_rows
from pipelines.sources.cf import Axes, axes_of, times_of_planes
from pipelines.sources.cf_times import cf_times
from pipelines.sources.isolation import isolated
from pipelines.sources.layers import BandRequest, open_hdf5_layer, open_raster_layer
from pipelines.sources.opening import hdf5_data_set, open_hdf5, open_raster
from pipelines.sources.resampling import resample
from pipelines.sources.source import Resampling

MOST_BYTES = 2 << 30  # of a layer on the cube's grid, or of a driver's cells at all times
UNKNOWN_TEXTS = ("", "na", "nan", "null", "none")
MOST_OUTSIDE = 1.0  # cells by which the cube may reach beyond a driver's grid
SHORTEST = 0.5  # step between values of a mean or sum, of the median one: shorter ones are of another series
STAND_INS = (-32768.0, -9999.9, -9999.0, -999.9, -999.0, -99.9)  # of missing values in tables of weather services
MOST_VALUE = 3e38  # that float32 holds
LATTICE = 9  # points along each side of the cube


@dataclass(frozen=True)
class StaticFile:
    """A raster. classes: the codes of a class map, each of which becomes a channel; () for numbers. band: from 1, of several."""

    name: str
    path: Path
    classes: tuple[int, ...] = ()
    resampling: Resampling = "bilinear"
    unit: str = ""
    max_missing: float = 0.2
    band: int | None = None


@dataclass(frozen=True)
class DriverFile:
    """A series in a table (CSV: `columns` are its date and value, `zone` that of dates without one) or a netCDF `variable`.

    delay_days: from the time of a value until it is known; None: a day where times are whole days, else 0.
    """

    name: str
    path: Path
    variable: str = ""
    columns: tuple[str, str] = ("date", "value")
    zone: str = "UTC"
    unit: str = ""
    summary: Summary = "mean"
    known: Known = "past"
    missing: Missing = "refuse"
    delay_days: float | None = None
    max_missing: float = 0.2


@dataclass(frozen=True)
class Series:
    """What a file says of a driver: `days_L` as stated, `values_LG`, the grid of its cells, its unit, whether times are days."""

    days_L: np.ndarray
    values_LG: np.ndarray
    grid: Grid | None
    unit: str
    are_days: bool


def load(static: tuple[StaticFile, ...], drivers: tuple[DriverFile, ...], grid: Grid) -> Covariates:
    """The covariates on the cube's grid; read again only where a file has changed.

    Raises MissingInput, and RequestError for files that cannot be read or do not fit, with the name of the covariate.
    """
    return Covariates(
        grid,
        tuple(_load_static(one, grid, _stamp(one.path)) for one in static),
        tuple(_load_driver(one, grid, _stamp(one.path)) for one in drivers),
    )


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as e:
        raise MissingInput(f"covariates: no file at {path}") from e
    return status.st_mtime_ns, status.st_size


# ---------------------------------------------------------------- static layers


@lru_cache(maxsize=32)
def _load_static(asked: StaticFile, grid: Grid, _: tuple[int, int]) -> Static:
    where = f"covariates: the layer {asked.name}"
    grid.require_2d(where)
    if not grid.is_on_earth:
        raise RequestError(f"{where} cannot be put on these images, which have no position on Earth")
    if (size := math.prod(grid.shape) * 4 * max(len(asked.classes), 1)) > MOST_BYTES:
        raise RequestError(f"{where} takes {size / 1e9:.1f} GB on the cube's grid, the limit is {MOST_BYTES / 1e9:.1f} GB")
    try:
        values_YX, unit = isolated(_warped, asked, grid, label=asked.name, paths=(asked.path,))
    except SceneRefused as e:
        raise RequestError(f"{where}: {e.detail}") from e
    if asked.unit and unit and asked.unit != unit:
        raise RequestError(f"{where} is in {unit!r} by its file, the config says {asked.unit!r}: correct `unit`, or convert it")
    missing = float(np.isnan(values_YX).mean())
    if missing > asked.max_missing:
        raise RequestError(
            f"{where} has no value for {missing:.0%} of the cube's pixels (nodata, or outside of {asked.path.name}), its "
            f"max_missing allows {asked.max_missing:.0%}: use a raster that covers the cube, or raise max_missing"
        )
    channels: tuple[str, ...] = (asked.name,)
    values_SYX = values_YX[None]
    if asked.classes:
        channels = tuple(f"{asked.name}={code}" for code in asked.classes)
        known_YX = np.isfinite(values_YX)
        values_SYX = np.stack([np.where(known_YX, values_YX == code, np.nan) for code in asked.classes])
        if not np.nansum(values_SYX):
            there = ", ".join(f"{code:g}" for code in np.unique(values_YX[known_YX])[:12])
            raise RequestError(f"{where} holds none of its classes {list(asked.classes)} here, but {there}: correct `classes`")
    values_SYX = np.ascontiguousarray(values_SYX, np.float32)
    digest = hashlib.sha256(values_SYX.astype("<f4").tobytes()).hexdigest()
    return Static(asked.name, channels, values_SYX, bool(asked.classes), asked.unit or unit, digest)


def _warped(asked: StaticFile, grid: Grid) -> tuple[np.ndarray, str]:
    """(values_YX float32 on the cube's grid, NaN where missing; the unit in the file). Classes are taken from the nearest pixel.

    Raises SceneRefused, MissingInput.
    """
    with open_raster(asked.path, (asked.band or 1,), asked.name) as dataset:
        if asked.band is None and (count := sum(one != ColorInterp.alpha for one in dataset.colorinterp)) > 1:
            remedy = "state the number of the one that is meant as `band`"
            raise SceneRefused(asked.name, "missing-band", f"{asked.path.name} holds {count} bands: {remedy}")
        if dataset.crs is None:
            remedy = "write the one that it is in into it, e.g. gdal_edit.py -a_srs EPSG:32635"
            raise SceneRefused(asked.name, "wrong-crs", f"{asked.path.name} has no CRS, so nothing says where it lies: {remedy}")
        layer = open_raster_layer(dataset, asked.band or 1, BandRequest(()), asked.name, asked.name)
        how: Resampling = "nearest" if asked.classes else asked.resampling
        stored = resample(layer, layer.facts, grid, slice(0, grid.shape_yx[0]), how)
        values = np.ma.getdata(stored).astype(np.float64)
        if not asked.classes:
            values = values * layer.facts.scale + layer.facts.offset
        return np.where(np.ma.getmaskarray(stored), np.nan, values).astype(np.float32), layer.facts.unit


# ---------------------------------------------------------------- drivers


@lru_cache(maxsize=32)
def _load_driver(asked: DriverFile, grid: Grid, _: tuple[int, int]) -> Driver:
    where = f"covariates: the driver {asked.name}"
    try:
        series = _table(asked) if not asked.variable else isolated(_netcdf, asked, grid, label=asked.name, paths=(asked.path,))
    except SceneRefused as e:
        raise RequestError(f"{where}: {e.detail}") from e
    except MissingInput:
        raise
    except DriftlineError as e:
        raise RequestError(f"{where}: {e}") from e
    if asked.unit and series.unit and asked.unit != series.unit:
        raise RequestError(
            f"{where} is in {series.unit!r} by its file, the config says {asked.unit!r}: correct `unit`, or convert the values"
        )
    if (seen := int(np.isfinite(series.values_LG).any(axis=1).sum())) < 2:
        raise RequestError(f"{where}: {asked.path.name} holds {seen} times with values, at least two are needed")
    order = np.argsort(series.days_L, kind="stable")
    days_L = series.days_L[order]
    if (twice := np.flatnonzero(np.diff(days_L) == 0)).size:
        raise RequestError(f"{where}: {asked.path.name} holds two values of {iso_date(days_L[twice[0]])}: keep one")
    steps = np.diff(days_L)
    at = int(np.argmin(steps))
    if asked.summary in ("mean", "sum") and steps[at] < SHORTEST * np.median(steps):
        raise RequestError(
            f"{where}: the times of {asked.path.name} are {format_span(float(np.median(steps)))} apart, after "
            f"{iso_date(days_L[at])} {format_span(float(steps[at]))}: bring them to one step, with zeros where there is nothing"
        )
    delay = asked.delay_days if asked.delay_days is not None else float(series.are_days)
    values_LG, unit = series.values_LG[order].astype(np.float32), asked.unit or series.unit
    how = asked.summary, asked.known, asked.missing
    return Driver(asked.name, *how, days_L + delay, values_LG, series.grid, unit, asked.max_missing, delay)


def _table(asked: DriverFile) -> Series:
    """The series in a CSV. Raises RequestError with the line."""
    try:
        zone = ZoneInfo(asked.zone)
    except (ZoneInfoNotFoundError, ValueError) as e:
        raise RequestError(f"no time zone {asked.zone!r}: a name such as UTC or Europe/Bucharest") from e
    days, values, are_days = list[float](), list[float](), True
    for line, row in table_rows(asked.path, asked.columns, "date_column and value_column"):
        stamp, text = ((row.get(name) or "").strip() for name in asked.columns)
        try:
            date = datetime.fromisoformat(stamp)
            value = math.nan if text.lower() in UNKNOWN_TEXTS else float(text)
        except ValueError as e:
            expected = "expected a date such as 2020-06-30 or 2020-06-30T12:00, and a number"
            raise RequestError(f"{asked.path.name}, line {line}: {expected}, got {stamp!r} and {text!r}") from e
        if not 1678 <= date.year <= 2261 or abs(value) > MOST_VALUE:
            raise RequestError(f"{asked.path.name}, line {line}: {stamp!r} and {text!r} are no date and number that can be used")
        has_time = len(stamp) > 10
        if days and has_time == are_days:
            raise RequestError(f"{asked.path.name}, line {line}: dates with and without a time of day: write all alike")
        are_days = not has_time
        if has_time:
            date = (date if date.tzinfo else date.replace(tzinfo=zone)).astimezone(UTC).replace(tzinfo=None)
        days.append(float(to_days(np.array(np.datetime64(date, "us")))))
        values.append(value)
    refuse_stand_ins(np.array(values), asked)
    return Series(np.array(days), np.array(values, np.float32)[:, None], None, "", are_days)


def refuse_stand_ins(values_L: np.ndarray, asked: DriverFile) -> None:
    """Raises RequestError for a number that stands in for missing values: one of the usual ones, far below all others."""
    for number in STAND_INS:
        others = values_L[np.isfinite(values_L) & (values_L != number)]
        if (count := int((values_L == number).sum())) and others.size and others.min() > number / 2:
            lines = f"{number:g} on {count} of {len(values_L)} lines"
            raise RequestError(f"{asked.path.name} holds {lines}, as if for a missing value: leave those cells empty")


def _netcdf(asked: DriverFile, grid: Grid) -> Series:
    """The cells of a netCDF variable (time, y, x) around the cube. Raises SceneRefused, RequestError, MissingInput."""
    with open_hdf5(asked.path, asked.name) as file:
        data = hdf5_data_set(file, asked.variable, asked.name)
        axes = axes_of(data, asked.name)
        times = _times_of(data, axes, asked)
        layer = open_hdf5_layer(file, asked.variable, 0, BandRequest(()), asked.name, asked.name)
        rows, columns = _cells_around(layer.grid, grid, asked)
        chosen: list[slice | int] = [0] * data.ndim
        chosen[axes.y], chosen[axes.x] = rows, columns
        size = len(times) * (rows.stop - rows.start) * (columns.stop - columns.start) * 8
        if size > MOST_BYTES:
            raise RequestError(
                f"its cells take {size / 1e9:.1f} GB, the limit is {MOST_BYTES / 1e9:.1f} GB: cut the file to the place"
            )
        assert axes.plane is not None
        chosen[axes.plane] = slice(None)
        kept = sorted((axes.plane, axes.y, axes.x))
        stored = np.transpose(data[tuple(chosen)], [kept.index(axis) for axis in (axes.plane, axes.y, axes.x)])
        facts = layer.facts
        values = np.where(facts.is_missing(stored), np.nan, stored.astype(np.float64) * facts.scale + facts.offset)
        is_dated = ~np.isnat(times)
        days_L = to_days(times[is_dated])
        are_days = bool((days_L == np.floor(days_L)).all())
        values_LG = values[is_dated].reshape(len(days_L), -1).astype(np.float32)
        return Series(days_L, values_LG, layer.grid.window(rows, columns), facts.unit, are_days)


def _times_of(data: h5py.Dataset, axes: Axes, asked: DriverFile) -> np.ndarray:
    """The times of a variable, datetime64[ns]. Raises SceneRefused without a time axis."""
    scale = times_of_planes(data, axes)
    if scale is None:
        detail = f"{asked.variable!r} in {asked.path.name} has no axis of several times: expected (time, y, x)"
        raise SceneRefused(asked.name, "no-date", detail)
    found: np.ndarray = cf_times(scale, asked.name).values
    return found


def _cells_around(cells: Grid, grid: Grid, asked: DriverFile) -> tuple[slice, slice]:
    """(rows, columns) of a driver's grid around the cube. Raises RequestError where the cube lies outside of it."""
    column, row = positions_in(cells, grid, LATTICE)
    spans = []
    for at, size in ((row, cells.shape_yx[0]), (column, cells.shape_yx[1])):
        if not np.isfinite(at).all() or at.min() < -MOST_OUTSIDE or at.max() > size + MOST_OUTSIDE:
            raise RequestError(
                f"{asked.path.name} does not cover the cube: its grid of {' x '.join(map(str, cells.shape_yx))} cells ends "
                f"{max(-at.min(), at.max() - size):.1f} cells before the cube does; use a file of the place"
            )
        first = min(max(int(np.floor(at.min())) - 1, 0), size - 1)
        spans.append(slice(first, max(min(int(np.floor(at.max())) + 2, size), first + 1)))
    return spans[0], spans[1]
