"""The cube with what is monitored in it, and the pixels of it that thresholds and networks are learned from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import xarray as xr

from pipelines.cube.store import bands_of, grid_of, head_snapshot, open_cube
from pipelines.errors import RequestError
from pipelines.grid import Grid
from pipelines.monitoring.blocks import Block, BlockReader
from pipelines.monitoring.updates import CubeDate, dates_of
from pipelines.samples.variables import Variable, decode, used_bands
from pipelines.tiles import Tile, tile_raster

AREA_PX, MOST_PX = 256, 512 * 512  # of a large raster so much is read for a threshold and for an evaluation
GAP_PX = 8  # more than any halo, so that squares side by side do not depend on each other


@dataclass(frozen=True)
class MonitoredCube:
    """An open cube and the variable that is monitored in it. Dates before `start_ns` (since 1970-01-01 UTC) are history."""

    dataset: xr.Dataset
    snapshot: str
    variable: Variable
    start_ns: int

    @cached_property
    def dates(self) -> tuple[CubeDate, ...]:
        return dates_of(self.dataset)

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
    return MonitoredCube(open_cube(uri, snapshot), snapshot, variable, to_ns(start))


def to_ns(moment: datetime) -> int:
    """Nanoseconds since 1970-01-01 of a UTC date.

    >>> to_ns(datetime(1970, 1, 2))
    86400000000000
    """
    return int(np.datetime64(moment, "ns").astype(np.int64))


def require_history(cube: MonitoredCube) -> None:
    """Raises RequestError if no date of the cube lies before `monitoring.start`."""
    if not any(date.time_ns < cube.start_ns for date in cube.dates):
        first = cube.dates[0].name if cube.dates else "no date"
        raise RequestError(
            f"monitoring.start is {np.datetime64(cube.start_ns, 'ns').astype('datetime64[D]')} and the cube begins on {first}: "
            "there is no history to learn from; set a later start"
        )


def read_areas(cube: MonitoredCube, until_ns: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x_NYX float32, valid_NYX, days_N) of the dates before `until_ns` (default: all), of the whole raster where it is small.

    Of a large one some squares, drawn by a fixed seed, side by side with a gap that is not valid.
    """
    dates = [date for date in cube.dates if until_ns is None or date.time_ns < until_ns]
    height, width = cube.shape_yx
    side = AREA_PX if height * width > MOST_PX else max(height, width)
    tiles = tile_raster((height, width), side)
    chosen = sorted(np.random.default_rng(0).permutation(len(tiles))[: max(MOST_PX // side**2, 1)].tolist())
    rows = max(tiles[i].shape_yx[0] for i in chosen)
    columns = sum(tiles[i].shape_yx[1] + GAP_PX for i in chosen) - GAP_PX
    x_NYX, valid_NYX = np.zeros((len(dates), rows, columns), np.float32), np.zeros((len(dates), rows, columns), bool)
    column = 0
    for i in chosen:
        reader, (own_rows, own_columns) = block_reader(cube, tiles[i]), tiles[i].shape_yx
        part = slice(0, own_rows), slice(column, column + own_columns)
        for n, date in enumerate(dates):
            x_NYX[n][part], valid_NYX[n][part] = reader.read(date)
        column += own_columns + GAP_PX
    return x_NYX, valid_NYX, np.array([date.day for date in dates])


def block_reader(cube: MonitoredCube, tile: Tile, halo_px: int = 0) -> BlockReader:
    """Reads the monitored variable in one tile, date by date."""
    return BlockReader(cube.dataset, cube.variable, Block(tile, (tile,)), halo_px)


def read_history(cube: MonitoredCube, tile: Tile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x_NYX float32, valid_NYX, days_N) of the dates before the start in a tile."""
    bands = bands_of(cube.dataset)
    used = list(used_bands(bands, (cube.variable,)))
    days_N = cube.dataset["time"].values.astype("datetime64[ns]").astype(np.int64) / 86_400e9
    part = cube.dataset.isel(time=slice(0, int((days_N < cube.start_day).sum())), y=tile.rows, x=tile.columns)
    image_NBYX, valid_NYX = part["image"].isel(band=used).values, part["valid"].values
    x_NCYX, valid_NYX = decode(image_NBYX, valid_NYX, tuple(bands[i] for i in used), (cube.variable,))
    return x_NCYX[:, 0], valid_NYX, days_N[: len(image_NBYX)]
