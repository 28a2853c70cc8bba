"""The cube with what is monitored in it, read by dates: of blocks of tiles, of areas that thresholds rest on, of one pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import xarray as xr

from pipelines.cube.store import bands_of, grid_of, head_snapshot, open_cube
from pipelines.errors import RequestError
from pipelines.grid import Grid
from pipelines.inference.tiling import chunk_length
from pipelines.monitoring.detector import Detector, Observations
from pipelines.samples.variables import Variable, decode, used_bands
from pipelines.tiles import Box

AREA_PX, MOST_PX = 256, 512 * 512  # of a large raster so much is read for a threshold and for an evaluation
GAP_PX = 8  # more than any halo, so that squares side by side do not depend on each other
BLOCK_PX = 1024  # side of a block: its tiles share files, and one process does it
PART_MB = 256  # for the history of a part of a block, which is fitted in one piece per tile
CURVE_EVERY_DAYS = 5
HELD_DATES = 4  # late dates that were read for a plan and are about to be used


@dataclass(frozen=True)
class CubeDate:
    """One date of the cube. `index` is its position along `time`; `is_empty`: not a single usable pixel in the whole scene."""

    index: int
    time_ns: int  # since 1970-01-01 UTC
    scene_id: str
    content_hash: str
    is_empty: bool = False

    @property
    def identity(self) -> tuple[int, str, str]:
        """(time_ns, scene id, content hash), as the header of a block names it."""
        return self.time_ns, self.scene_id, self.content_hash

    @property
    def day(self) -> float:
        """Days since 1970-01-01, as `pipelines.calendar.to_days` has them."""
        return self.time_ns / 86_400e9

    @property
    def name(self) -> str:
        """`2020-06-25 (S2A_...)`, for messages."""
        return f"{np.datetime64(self.time_ns, 'ns').astype('datetime64[D]')} ({self.scene_id})"


@dataclass(frozen=True)
class MonitoredCube:
    """An open cube and the variable that is monitored in it. Dates before `start_ns` (since 1970-01-01 UTC) are history."""

    dataset: xr.Dataset
    snapshot: str
    variable: Variable
    start_ns: int
    uri: str = ""  # so that other processes can open it; "" where the dataset is sent to them

    @cached_property
    def dates(self) -> tuple[CubeDate, ...]:
        """As the cube sorts them."""
        times = self.dataset["time"].values.astype("datetime64[ns]").astype(np.int64)
        fractions = self.dataset["valid_fraction"].values if "valid_fraction" in self.dataset.coords else np.ones(len(times))
        columns = zip(times, self.dataset["scene_id"].values, self.dataset["content_hash"].values, fractions, strict=True)
        return tuple(
            CubeDate(n, int(t), str(scene), str(sha), bool(part == 0)) for n, (t, scene, sha, part) in enumerate(columns)
        )

    @property
    def history(self) -> tuple[CubeDate, ...]:
        return tuple(date for date in self.dates if self.is_history(date))

    def is_history(self, date: CubeDate) -> bool:
        return date.time_ns < self.start_ns

    @cached_property
    def grid(self) -> Grid:
        return grid_of(self.dataset)

    @property
    def start_day(self) -> float:
        return self.start_ns / 86_400e9

    @property
    def shape_yx(self) -> tuple[int, int]:
        return self.dataset.sizes["y"], self.dataset.sizes["x"]

    @property
    def geo_transform(self) -> str:
        """The grid's affine as the cube stores it."""
        return str(self.dataset["spatial_ref"].attrs.get("GeoTransform", ""))

    @property
    def unit(self) -> str:
        """The unit of the variable; an index has none."""
        units = {band.name: band.unit for band in bands_of(self.dataset)}
        return units.get(self.variable.bands[0]) or "" if self.variable.formula == "band" else ""


def open_monitored(uri: str, variable: Variable, start: datetime, snapshot: str = "") -> MonitoredCube:
    """The cube at `uri`, by default its newest version. `start` is UTC. Raises MissingInput."""
    snapshot = snapshot or head_snapshot(uri)
    start_ns = int(np.datetime64(start, "ns").astype(np.int64))
    return MonitoredCube(open_cube(uri, snapshot), snapshot, variable, start_ns, uri)


def require_history(cube: MonitoredCube) -> None:
    """Raises RequestError if no date of the cube lies before `monitoring.start`."""
    if not cube.history:
        first = cube.dates[0].name if cube.dates else "no date"
        raise RequestError(
            f"monitoring.start is {np.datetime64(cube.start_ns, 'ns').astype('datetime64[D]')} and the cube begins on {first}: "
            "there is no history to learn from; set a later start"
        )


# ---------------------------------------------------------------- blocks of tiles


@dataclass(frozen=True)
class Part:
    """Tiles that are read together, so that a stored chunk is unpacked once for all of them, and the rectangle around them."""

    area: Box
    tiles: tuple[Box, ...]


@dataclass(frozen=True)
class Block:
    """Tiles whose state is stored together; done part by part, so that memory does not grow with it."""

    area: Box
    tiles: tuple[Box, ...]
    parts: tuple[Part, ...]


def plan_blocks(cube: MonitoredCube, tile_px: int, halo_px: int, block_px: int = BLOCK_PX) -> tuple[Block, ...]:
    """The raster's tiles in blocks of at most `block_px` a side, or of one tile: the same whatever the cube's dates are.

    A part holds as many whole tiles as lie in one stored chunk, fewer where their history is too large.
    """
    most, block = max(block_px, tile_px), tile_px
    while block * 2 <= most:
        block *= 2
    side, chunk_px, dates = tile_px, chunk_length(cube.dataset), max(len(cube.history), 1)
    while side * 2 <= min(chunk_px, block) and (2 * side + 2 * halo_px) ** 2 * dates * 5 <= PART_MB * 2**20:
        side *= 2
    blocks = []
    for area in Box.whole(cube.shape_yx).cut(block):
        parts = tuple(Part(part, tuple(part.cut(tile_px))) for part in area.cut(side))
        blocks.append(Block(area, tuple(area.cut(tile_px)), parts))
    return tuple(blocks)


class BlockReader:
    """Decoded dates of a rectangle of the cube, grown by the halo. `reads` counts the dates that were read from the cube."""

    def __init__(self, cube: MonitoredCube, area: Box, halo_px: int = 0):
        self.shape_yx, self.halo_px, self.variable = cube.shape_yx, halo_px, cube.variable
        self.area = area.grown(halo_px, self.shape_yx)
        bands = bands_of(cube.dataset)
        used = list(used_bands(bands, (cube.variable,)))
        self.bands = tuple(bands[i] for i in used)
        self.used, self.dataset = used, cube.dataset
        self.held: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.reads = 0

    @cached_property
    def arrays(self) -> tuple[xr.DataArray, xr.DataArray]:
        """(image, valid) of the rectangle, not yet read."""
        part = self.dataset.isel(y=self.area.rows, x=self.area.columns)
        return part["image"].isel(band=self.used), part["valid"]

    def read(self, date: CubeDate) -> tuple[np.ndarray, np.ndarray]:
        """(x_YX float32 physical values, 0 where invalid; valid_YX bool) of the rectangle grown by the halo."""
        if date.index not in self.held:
            while len(self.held) >= HELD_DATES:
                self.held.pop(next(iter(self.held)))
            self.reads += 1
            image_BYX, valid_YX = (array.isel(time=date.index).values for array in self.arrays)
            x_NCYX, valid_NYX = decode(image_BYX[None], valid_YX[None], self.bands, (self.variable,))
            self.held[date.index] = (x_NCYX[0, 0], valid_NYX[0])
        return self.held[date.index]

    def cut(self, date: CubeDate, tile: Box) -> tuple[np.ndarray, np.ndarray] | None:
        """The same for one tile grown by the halo, views; None if it was not seen. An empty scene is not even read."""
        if date.is_empty:
            return None
        x_YX, valid_YX = self.read(date)
        rows, columns = tile.grown(self.halo_px, self.shape_yx).within(self.area)
        return (x_YX[rows, columns], valid_YX[rows, columns]) if valid_YX[rows, columns].any() else None


# ---------------------------------------------------------------- series


def read_dates(cube: MonitoredCube, tile: Box, dates: Sequence[CubeDate]) -> Observations:
    """The monitored variable in a tile on these dates, 0 where not valid."""
    reader = BlockReader(cube, tile)
    x_NYX, valid_NYX = np.empty((len(dates), *tile.shape), np.float32), np.empty((len(dates), *tile.shape), bool)
    for n, date in enumerate(dates):
        x_NYX[n], valid_NYX[n] = reader.read(date)
    return Observations(x_NYX, valid_NYX, np.array([date.day for date in dates]))


def read_areas(cube: MonitoredCube, dates: Sequence[CubeDate]) -> Observations:
    """The same of the whole raster where it is small. Of a large one some squares, drawn by a fixed seed, side by side with a
    gap that is not valid."""
    if math.prod(cube.shape_yx) <= MOST_PX:
        return read_dates(cube, Box.whole(cube.shape_yx), dates)
    tiles = Box.whole(cube.shape_yx).cut(AREA_PX)
    chosen = sorted(np.random.default_rng(0).permutation(len(tiles))[: MOST_PX // AREA_PX**2].tolist())
    rows, columns = max(tiles[i].shape[0] for i in chosen), sum(tiles[i].shape[1] + GAP_PX for i in chosen) - GAP_PX
    x_NYX, valid_NYX = np.zeros((len(dates), rows, columns), np.float32), np.zeros((len(dates), rows, columns), bool)
    column = 0
    for i in chosen:
        height, width = tiles[i].shape
        part = slice(None), slice(0, height), slice(column, column + width)
        x_NYX[part], valid_NYX[part], _ = read_dates(cube, tiles[i], dates)
        column += width + GAP_PX
    return Observations(x_NYX, valid_NYX, np.array([date.day for date in dates]))


# ---------------------------------------------------------------- the course of one pixel


@dataclass(frozen=True)
class Course:
    """Usable observations (N,) `values` at `days`, and the curve (K,) `expected` with `spread` (one deviation) at `curve_days`.
    Days are float64 since 1970-01-01."""

    days: np.ndarray
    values: np.ndarray
    curve_days: np.ndarray
    expected: np.ndarray
    spread: np.ndarray


def follow_pixel(cube: MonitoredCube, detector: Detector, row: int, column: int) -> Course:
    """The course of the pixel at `row`, `column` of the cube over all of its dates."""
    tile = Box((row, column), (row + 1, column + 1))
    reader = BlockReader(cube, tile, detector.halo_px)
    seen = [(*found, date.day) for date in cube.dates if (found := reader.cut(date, tile)) is not None]
    series = Observations(*map(np.array, zip(*seen, strict=True)))
    rows, columns = tile.within(reader.area)
    curve_K = np.arange(series.days_N[0], series.days_N[-1] + CURVE_EVERY_DAYS, CURVE_EVERY_DAYS)
    expected_K, spread_K = _expected_curve(detector, series, cube.start_day, curve_K, (rows.start, columns.start))
    own = series.on(series.valid_NYX[:, rows.start, columns.start])
    return Course(own.days_N, own.x_NYX[:, rows.start, columns.start], curve_K, expected_K, spread_K)


def _expected_curve(
    detector: Detector, series: Observations, start_day: float, curve_K: np.ndarray, pixel_yx: tuple[int, int]
) -> np.ndarray:
    """(2, K) expected value and spread of a pixel at the days `curve_K`, each from the dates before it alone."""
    model, (x_NYX, valid_NYX, days_N) = detector.value_model, series.since(start_day)
    fitted = model.fit(*series.before(start_day))
    state, points, following = model.begin(fitted), [], 0
    for day in curve_K:
        while following < len(days_N) and days_N[following] < day:
            state = model.advance(fitted, state, x_NYX[following], valid_NYX[following], float(days_N[following]))
            following += 1
        points.append([float(plane_YX[pixel_yx]) for plane_YX in model.predict(fitted, state, float(day))])
    return np.array(points).T
