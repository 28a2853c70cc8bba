"""Pictures' raw material: small copies of large fields, and how they are coloured."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import xarray as xr

from pipelines.cube.store import bands_of
from pipelines.grid import Grid, ImagePlane, parse_crs
from pipelines.products.layers import Rows
from pipelines.samples.variables import Variable, decode

Values = TypeVar("Values", float, np.ndarray)
MOST_PX = 700  # longer side of a thinned field


@dataclass(frozen=True)
class Frame:
    """One map of a variable: `values_YX` float32, NaN = not seen; rows from the top."""

    date: np.datetime64
    values_YX: np.ndarray


@dataclass(frozen=True)
class Shades:
    """How a variable is coloured: colour map and limits, shared by all maps of a figure."""

    colours: str
    low: float
    high: float


def step_for(shape_yx: tuple[int, ...]) -> int:
    """Every how many pixels a picture takes one."""
    return max(1, math.ceil(max(shape_yx) / MOST_PX))


def thin_rows(array: Rows) -> np.ndarray:
    """Every n-th pixel of a large raster, read row by row; as many as a picture can show."""
    step = step_for(array.shape)
    return np.concatenate([np.asarray(array[row : row + 1])[:, ::step] for row in range(0, array.shape[0], step)])


def read_variables(dataset: xr.Dataset, index: int, variables: tuple[Variable, ...]) -> np.ndarray:
    """(C, rows, columns) physical values of one date, thinned like `thin_rows`, NaN where not usable; read strip by strip."""
    bands, rows = bands_of(dataset), dataset.sizes["y"]
    step = step_for((rows, dataset.sizes["x"]))
    strip = max(step, 512 // step * step)
    parts = []
    for row in range(0, rows, strip):
        part = dataset.isel(time=[index], y=slice(row, row + strip))
        thinned = part.isel(y=slice(None, None, step), x=slice(None, None, step))
        x_NCYX, valid_NYX = decode(thinned["image"].values, thinned["valid"].values, bands, variables)
        parts.append(np.where(valid_NYX[0], x_NCYX[0], np.nan).astype(np.float32))
    return np.concatenate(parts, axis=1)


def crs_labels(text: str) -> dict[str, str]:
    """`crs` (`EPSG:3035`; without a code the projection's method: `Sinusoidal`) and `crs_unit` (`m`, `degree`)."""
    crs = parse_crs(text)
    code, method = crs.to_epsg(), re.search(r'METHOD\["([^"]+)"', crs.to_wkt(version="WKT2_2019"))
    unit = "degree" if crs.is_geographic else crs.linear_units or "m"
    name = f"EPSG:{code}" if code else method[1] if method else "a CRS without a code"
    return {"crs": name, "crs_unit": "m" if unit == "metre" else unit}


def frame_labels(grid: Grid) -> dict[str, str]:
    """What `crs_labels` says of a CRS; of a patient or an image its unit, mm or px."""
    return crs_labels(grid.crs) if grid.is_on_earth else {"crs": "", "crs_unit": grid.unit}


def extent_of(grid: Grid) -> tuple[float, float, float, float]:
    """(left, right, bottom, top) of a map in CRS units, as limits of its axes: north is up; in an image's own plane y goes down.

    Rotated grids are drawn as they are stored: theirs are lengths along rows and columns, as in `image_extent`.
    """
    if not grid.is_straight:
        return image_extent(grid)
    left, bottom, right, top = grid.bounds_xy
    if isinstance(grid.frame, ImagePlane):
        bottom, top = top, bottom
    return left, right, bottom, top


def image_extent(grid: Grid) -> tuple[float, float, float, float]:
    """(x of the first column's edge, of the last one's; y of the last row's edge, of the first one's), as `imshow` takes it."""
    height, width = grid.shape_yx
    if not grid.is_straight:
        return 0.0, width * grid.spacing[-1], 0.0, height * grid.spacing[-2]
    (left, top), (right, bottom) = (grid.affine @ corner for corner in ((0, 0), (width, height)))
    return left, right, bottom, top


def place_on_map(grid: Grid, row: Values, column: Values) -> tuple[Values, Values]:
    """(x, y) on a map of `extent_of` where `image_extent` draws the pixel's outer corner; with .5 its centre."""
    first_x, last_x, last_y, first_y = image_extent(grid)
    height, width = grid.shape_yx
    return first_x + column * ((last_x - first_x) / width), first_y + row * ((last_y - first_y) / height)


def north_text(grid: Grid) -> str:
    """How north lies on a map of `extent_of`."""
    if grid.is_straight:
        return "north up"
    north = np.linalg.solve(grid.matrix[:, :-1], [0.0, 1.0]) * grid.spacing[::-1]  # (column, row) of a step along y
    return f"a rotated grid: north is {math.degrees(math.atan2(north[0], -north[1])):.0f} degrees clockwise of up"


def shades_for(variable: str, frames: Sequence[Frame]) -> Shades:
    """Colours that readers with any colour vision tell apart, limits from the 1st to the 99th percentile of all frames.

    Vegetation indices go from pale to green, rain and snow from white (none) to blue, differences of two signs around 0 brown
    to blue-green, all else viridis.
    """
    seen = [frame.values_YX[np.isfinite(frame.values_YX)] for frame in frames]
    values = np.concatenate(seen) if seen else np.empty(0)
    if not values.size:
        return Shades("viridis", 0.0, 1.0)
    low, high = (float(v) for v in np.percentile(values, [1, 99]))
    if low == high:
        low, high = low - 0.5, high + 0.5
    name = variable.lower()
    if any(index in name for index in ("ndvi", "evi", "savi", "lai", "fapar")):
        return Shades("YlGn", max(low, 0.0) if high > 0 else low, high)
    if low >= 0 and any(word in name for word in ("rain", "precip", "snow")):
        return Shades("YlGnBu", 0.0, high)
    if low < 0 < high and -low > 0.2 * high:
        largest = max(-low, high)
        return Shades("BrBG", -largest, largest)
    return Shades("viridis", low, high)
