"""What is known of a place beside its images: static layers, and drivers on time axes of their own (docs/design/020).

Shapes: S static channels, D drivers, E of them with a known future, L times of a driver, G its cells; T context steps, K targets,
H rows, W columns. Values are physical; NaN is missing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch

from pipelines.calendar import TROPICAL_YEAR_DAYS, iso_date
from pipelines.errors import RequestError
from pipelines.grid import Grid
from pipelines.samples.plan import Window, WindowPlan
from pipelines.tiles import Box

Summary = Literal["mean", "sum", "min", "max", "last"]
Known = Literal["future", "past"]
Missing = Literal["refuse", "climatology"]
ENOUGH = 0.5  # of the values that a driver should have in an interval; with fewer its value there is missing
SEASON_DAYS = 10.0  # around a day of the year: what its climatology is the mean of
Given = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Static:
    """A raster on the cube's grid: `channels` has its name, or of a class map one name per class, whose values are 0 and 1."""

    name: str
    channels: tuple[str, ...]
    values_SHW: np.ndarray  # float32
    is_class: bool
    unit: str
    digest: str  # of the values


@dataclass(frozen=True, eq=False)
class Driver:
    """A series, of the whole place or of the cells of a grid. `days_L`: when each value is known, rising days since 1970 (UTC).

    max_missing: largest share of the intervals between training dates that may have no value.
    """

    name: str
    summary: Summary
    known: Known
    missing: Missing
    days_L: np.ndarray
    values_LG: np.ndarray  # float32
    grid: Grid | None
    unit: str
    max_missing: float = 0.2
    delay_days: float = 0.0  # that `days_L` are later than the times in the file

    @property
    def has_future(self) -> bool:
        return self.known == "future"

    @property
    def step_days(self) -> float:
        return float(np.median(np.diff(self.days_L))) if len(self.days_L) > 1 else 1.0

    @property
    def last_day(self) -> float:
        """The last day on which any cell has a value; -inf without one."""
        is_known_L = np.isfinite(self.values_LG).any(axis=1)
        return float(self.days_L[is_known_L][-1]) if is_known_L.any() else -np.inf

    def reaches(self, day: float) -> bool:
        """Whether the values go on until a step before that day."""
        return self.last_day + self.step_days > day

    @property
    def last_date(self) -> str:
        """The time of the last value in the file."""
        return iso_date(self.last_day - self.delay_days) if np.isfinite(self.last_day) else "no date"

    @property
    def span(self) -> str:
        return f"{iso_date(self.days_L[0] - self.delay_days)} to {self.last_date}"


@lru_cache(maxsize=1024)
def summarise(driver: Driver, edges: tuple[float, ...]) -> np.ndarray:
    """(intervals, G): the driver in each interval (edge, next edge], float32, NaN with fewer than half of its values.

    The sum is the mean of the values times the number that the interval should have. An interval without a value, such as one
    that is shorter than the driver's step, has the last value before its end, if that is at most one step and a half old.
    """
    days_L, values_LG = driver.days_L, driver.values_LG
    first, last = (np.searchsorted(days_L, list(ends), side="right") for ends in (edges[:-1], edges[1:]))
    out = np.full((len(edges) - 1, values_LG.shape[1]), np.nan, np.float32)
    for step, (start, stop) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        expected = (edges[step + 1] - edges[step]) / driver.step_days
        if stop > start:
            out[step] = _of_interval(driver.summary, values_LG[start:stop], expected)
        elif stop > 0 and edges[step + 1] - days_L[stop - 1] <= 1.5 * driver.step_days:
            out[step] = values_LG[stop - 1] * (expected if driver.summary == "sum" else 1.0)
    return out


def _of_interval(summary: Summary, values_RG: np.ndarray, expected: float) -> np.ndarray:
    """One value per cell of at least one row; `expected` is the number of rows that the interval should have."""
    seen_RG = np.isfinite(values_RG)
    count_G, cells = seen_RG.sum(axis=0), np.arange(values_RG.shape[1])
    match summary:
        case "last":
            result = values_RG[len(values_RG) - 1 - np.argmax(seen_RG[::-1], axis=0), cells]
        case "min":
            result = np.where(seen_RG, values_RG, np.inf).min(axis=0)
        case "max":
            result = np.where(seen_RG, values_RG, -np.inf).max(axis=0)
        case _:
            result = np.where(seen_RG, values_RG, 0).sum(axis=0) / np.maximum(count_G, 1)
            result = result * (expected if summary == "sum" else 1.0)
    values_G: np.ndarray = np.where(count_G >= max(ENOUGH * expected, 1), result, np.nan)
    return values_G


@lru_cache(maxsize=256)
def cells_of(driver_grid: Grid, grid: Grid, tile: Box) -> np.ndarray:
    """(H, W) int64: the cell of a driver's grid, row by row, that the centre of each pixel of a tile is in; else the nearest."""
    column, row = positions_in(driver_grid, grid.window(*tile.slices))
    height, width = driver_grid.shape_yx
    row, column = (np.clip(np.floor(at), 0, size - 1).astype(np.int64) for at, size in ((row, height), (column, width)))
    cells: np.ndarray = row * width + column
    return cells


def positions_in(there: Grid, here: Grid, points: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(column, row), fractional, in the grid `there` of the pixel centres of `here`, or of `points` along each of its axes.

    Longitudes are taken round the globe to those that `there` counts in (0 to 360, or -180 to 180).
    """
    from pyproj import Transformer

    from pipelines.grid import parse_crs

    height, width = here.shape_yx
    across, down = (np.arange(size) + 0.5 if points is None else np.linspace(0, size, points) for size in (width, height))
    world = here.to_world(np.stack(np.meshgrid(across, down), axis=-1))
    x, y = world[..., 0], world[..., 1]
    if not there.has_same_frame(here):
        x, y = Transformer.from_crs(here.wkt, there.wkt, always_xy=True).transform(x, y)
    if parse_crs(there.crs).is_geographic:
        left, _, right, _ = there.bounds_xy
        x = x - 360 * np.floor((x - (left + right) / 2 + 180) / 360)
    index = there.to_index(np.stack([x, y], axis=-1))
    return index[..., 0], index[..., 1]


def context_days(days_N: np.ndarray, context_T: np.ndarray) -> np.ndarray:
    """Days of the context steps, float64 (T,); steps without an observation lie evenly between or beyond their neighbours."""
    known = np.flatnonzero(context_T >= 0)
    at, position = days_N[context_T[known]], np.arange(len(context_T))
    step = (at[-1] - at[0]) / max(known[-1] - known[0], 1)
    beyond = np.minimum(position - known[0], 0) + np.maximum(position - known[-1], 0)
    days_T: np.ndarray = np.interp(position, known, at) + step * beyond
    return days_T


@dataclass(frozen=True, eq=False)
class Covariates:
    """Static layers and drivers of a cube on `grid`."""

    grid: Grid
    static: tuple[Static, ...] = ()
    drivers: tuple[Driver, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(name for one in self.static for name in one.channels)

    @property
    def future(self) -> tuple[str, ...]:
        return tuple(driver.name for driver in self.drivers if driver.has_future)

    @property
    def units(self) -> dict[str, str]:
        """Channel -> unit, "" where none is stated."""
        of_static = {channel: one.unit for one in self.static for channel in one.channels}
        return of_static | {driver.name: driver.unit for driver in self.drivers}

    def key(self, until_day: float) -> str:
        """Digest of the static layers and of what the drivers say up to a day: rows that are added later change no model."""
        digest = hashlib.sha256()
        for layer in self.static:
            digest.update(f"{layer.channels} {layer.unit} {layer.digest}\n".encode())
        for driver in self.drivers:
            is_before_L = driver.days_L <= until_day
            digest.update(f"{driver.name} {driver.summary} {driver.known} {driver.unit} {driver.grid}\n".encode())
            digest.update(driver.days_L[is_before_L].astype("<f8").tobytes())
            digest.update(driver.values_LG[is_before_L].astype("<f4").tobytes())
        return digest.hexdigest()

    def of(self, tile: Box, days_T: np.ndarray, target_days_K: np.ndarray) -> Given:
        """What a forecaster is given of a tile: static_SHW, past_TDHW of all drivers, future_KEHW; those that there are.

        Each step has the interval since the step before it, the first one the median length. Drivers of the whole place have
        H = W = 1 where none is of a grid. Nothing of the past is later than the last context step.
        """
        given: Given = {}
        if self.static:
            inside = np.concatenate([layer.values_SHW[:, *tile.slices] for layer in self.static])
            given["static_SHW"] = torch.from_numpy(np.ascontiguousarray(inside))
        edges = edges_of(days_T)
        if self.drivers:
            given["past_TDHW"] = self._images(self.drivers, tile, edges)
        if futures := tuple(driver for driver in self.drivers if driver.has_future):
            given["future_KEHW"] = self._images(futures, tile, (edges[-1], *target_days_K.tolist()))
        return given

    def _images(self, drivers: tuple[Driver, ...], tile: Box, edges: tuple[float, ...]) -> torch.Tensor:
        images = []
        for driver in drivers:
            values_SG = summarise(driver, edges)
            if driver.grid is None:
                images.append(values_SG[:, :, *[None] * (len(tile.shape) - 1)])
            else:
                images.append(values_SG[:, cells_of(driver.grid, self.grid, tile)])
        shape = np.broadcast_shapes(*(image.shape for image in images))
        return torch.from_numpy(np.stack([np.broadcast_to(image, shape) for image in images], axis=1))

    def of_window(self, plan: WindowPlan, window: Window) -> Given:
        days_T = context_days(plan.days_N, np.array(window.context_T))
        return self.of(plan.box_of(window.tile), days_T, np.array(window.target_days_K))

    # ------------------------------------------------------------ the training part, and how much of it is known

    def measure(self, plan: WindowPlan) -> list[dict[str, Any]]:
        """Name, kind, unit, mean and std of every channel over the training part, and how much of it is missing.

        Drivers over the intervals between training dates. Raises RequestError where more is missing than `max_missing` allows.
        """
        tiles = sorted({window.tile for window in plan.of_part("train")})
        days = plan.days_N[plan.train_dates()]
        found = []
        for layer in self.static:
            values_SP = np.concatenate([layer.values_SHW[:, *tile.slices].reshape(len(layer.channels), -1) for tile in tiles], 1)
            for channel, values_P in zip(layer.channels, values_SP, strict=True):
                moments = (0.0, 1.0, False) if layer.is_class else _moments(values_P)
                missing = float(np.isnan(values_P).mean())
                kind = "class" if layer.is_class else "static"
                found.append(_described(channel, kind, layer.unit, "", "", missing, *moments))
        for driver in self.drivers:
            values = np.concatenate([np.ravel(self._images((driver,), tile, tuple(days.tolist()))) for tile in tiles])
            missing = float(np.isnan(values).mean()) if values.size else 1.0
            require_enough(driver, missing, days, "training")
            about = driver.name, driver.known, driver.unit, driver.summary, driver.span
            found.append(_described(*about, missing, *_moments(values)))
        return found

    def require_for_scores(self, plan: WindowPlan) -> None:
        """Raises RequestError for a driver that ends before the dates on which it is to be scored, or has a gap there."""
        days_N, split = plan.days_N, plan.split
        first, last = split.validation_from_day, split.validation_until_day + split.gap_days
        for part, days in (("validation", days_N[(days_N >= first) & (days_N < last)]), ("test", days_N[days_N >= last])):
            for driver in self.drivers if len(days) else ():
                missing = float(np.isnan(summarise(driver, edges_of(days))).mean())
                require_enough(driver, missing, days, part)

    # ------------------------------------------------------------ a forecast

    def ready(self, days_T: np.ndarray, target_days_K: np.ndarray, train_until_day: float) -> Covariates:
        """These covariates with a future up to the last target; `notes` say what was filled, and what the context lacks.

        Raises RequestError where a driver that must be known ahead has no value for a target, unless climatology may stand in.
        """
        drivers, notes, last = [], list[str](), float(target_days_K[-1])
        for driver in self.drivers:
            ahead = driver
            if driver.has_future and not driver.reaches(last) and driver.missing == "climatology":
                ahead = continued(driver, last, train_until_day)
                notes.append(
                    f"the driver {driver.name} ends on {driver.last_date}: from there to {iso_date(last)} it has its mean of the "
                    "season over the training part; scores and intervals are of forecasts that know it"
                )
            if driver.has_future:
                require_future(ahead, days_T, target_days_K)
            if unknown := int(np.isnan(summarise(driver, edges_of(days_T))).all(axis=1).sum()):
                notes.append(f"the driver {driver.name} has no value for {unknown} of the {len(days_T)} steps of context")
            drivers.append(ahead)
        return replace(self, drivers=tuple(drivers), notes=tuple(notes))


def require_enough(driver: Driver, missing: float, days: np.ndarray, part: str) -> None:
    """Raises RequestError where more of the intervals between the dates of a part is missing than `max_missing` allows."""
    if missing > driver.max_missing:
        raise RequestError(
            f"covariates: the driver {driver.name} ({driver.span}) has no value for {missing:.0%} of the intervals between "
            f"{part} dates ({iso_date(days[0])} to {iso_date(days[-1])}), its max_missing allows {driver.max_missing:.0%}: "
            "give it a longer series, raise max_missing, or leave it out"
        )


def require_future(driver: Driver, days_T: np.ndarray, target_days_K: np.ndarray) -> None:
    """Raises RequestError unless the driver has a value for every target, up to the last one."""
    values_KG = summarise(driver, (float(days_T[-1]), *target_days_K.tolist()))
    is_reached_K = np.array([driver.reaches(day) for day in target_days_K.tolist()])
    lacking = np.flatnonzero(~(np.isfinite(values_KG).all(axis=1) & is_reached_K))
    if not lacking.size:
        return
    first, last = iso_date(target_days_K[lacking[0]]), iso_date(target_days_K[-1])
    raise RequestError(
        f"covariates: the driver {driver.name} has no value for the target {first}: its last one is of {driver.last_date}, and "
        f"its future must be known up to {last}: add rows to its file (a weather forecast counts), name nearer prediction.dates, "
        "or set its `missing: climatology`"
    )


def edges_of(days: np.ndarray) -> tuple[float, ...]:
    """The ends of the intervals before each of these days; the first one is as long as the median of the others."""
    return (float(days[0] - (np.median(np.diff(days)) if len(days) > 1 else 1.0)), *days.tolist())


def continued(driver: Driver, until_day: float, train_until_day: float) -> Driver:
    """The driver with its climatology after its last value: of each day of the year the mean of the training part's values."""
    days_L, values_LG = driver.days_L, driver.values_LG
    before = days_L < train_until_day
    start = driver.last_day if np.isfinite(driver.last_day) else train_until_day
    steps = start + driver.step_days * np.arange(1, int(np.ceil((until_day - start) / driver.step_days)) + 1)
    steps[-1:] = np.maximum(steps[-1:], until_day)
    filled = np.full((len(steps), values_LG.shape[1]), np.nan, np.float32)
    for number, day in enumerate(steps.tolist()):
        away = np.abs(np.mod(days_L - day + TROPICAL_YEAR_DAYS / 2, TROPICAL_YEAR_DAYS) - TROPICAL_YEAR_DAYS / 2)
        near_RG = values_LG[before & (away <= max(SEASON_DAYS, driver.step_days))]
        seen_RG = np.isfinite(near_RG)
        count_G = seen_RG.sum(axis=0)
        mean_G = np.where(seen_RG, near_RG, 0).sum(axis=0) / np.maximum(count_G, 1)
        filled[number] = np.where(count_G > 0, mean_G, np.nan)
    kept = days_L <= start
    return replace(driver, days_L=np.concatenate([days_L[kept], steps]), values_LG=np.concatenate([values_LG[kept], filled]))


def _moments(values: np.ndarray) -> tuple[float, float, bool]:
    """(mean, std, whether it is constant) of what is known; a std of 1 for a constant."""
    known = values[np.isfinite(values)].astype(np.float64)
    if not known.size:
        return 0.0, 1.0, False
    mean, std = float(known.mean()), float(known.std())
    is_constant = std <= 1e-9 * max(abs(mean), 1e-9)
    return mean, 1.0 if is_constant else std, is_constant


def _described(
    name: str, kind: str, unit: str, summary: str, span: str, missing: float, mean: float, std: float, is_constant: bool
) -> dict[str, Any]:
    """kind: static, class, future or past. std: by which networks divide, 1 of a constant."""
    about = {"name": name, "kind": kind, "unit": unit, "summary": summary, "covers": span}
    constant = {"is_constant": True} if is_constant else {}
    return {**about, "missing": round(missing, 4), "mean": mean, "std": std, **constant}
