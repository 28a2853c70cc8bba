"""Models that travel: what a model was trained on, measured in the cubes, and whether other cubes are like that.

A checkpoint holds the `Inputs` of its training. Where a model is used, the same is measured there and compared; what a checkpoint
of an earlier version does not hold is unknown, which is said and never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from pipelines.calendar import iso_utc
from pipelines.cube.store import bands_of, grid_of, space_dims
from pipelines.errors import RequestError
from pipelines.grid import Grid, parse_crs
from pipelines.samples.variables import Variable, decode

LEVEL_FACTOR = 3.0  # between medians of one band; values of another unit or scale differ by more
STEP_FACTOR = 1.5  # between intervals of steps
PIXEL_FACTOR = 1.5  # between pixel sizes
DATES, WINDOW_PX = 12, 128  # dates of a cube, and the side of windows (two along each axis), in which values are measured
EQUATOR_M = 111_320.0  # a degree


@dataclass(frozen=True)
class BandRange:
    """Physical values of a band over a sample of usable pixels; `spread`: half of what lies between the 16th and 84th percentile.

    None: unknown.
    """

    name: str
    unit: str | None = None
    median: float | None = None
    spread: float | None = None

    @property
    def text(self) -> str:
        """`B4 (median 0.0431, spread 0.0112 reflectance)`."""
        if self.median is None or self.spread is None:
            return f"{self.name} (range unknown)"
        return f"{self.name} (median {self.median:.4g}, spread {self.spread:.3g}{' ' + self.unit if self.unit else ''})"


@dataclass(frozen=True)
class Inputs:
    """What a model gets, or what there is to be given to one. None and empty: unknown.

    `step_days`: interval of the steps; None also where dates are no steps. `pixel_m`: side of a pixel (or voxel) of equal area.
    `areas`: name -> [west, south, east, north] in degrees.
    """

    bands: tuple[BandRange, ...]
    step_days: float | None = None
    pixel_m: float | None = None
    first_utc: str = ""
    last_utc: str = ""
    dates: int | None = None
    areas: Mapping[str, list[float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Inputs:
        return cls(**{**content, "bands": tuple(BandRange(**band) for band in content["bands"])})


@dataclass(frozen=True)
class Match:
    """What forbids a model where it is to be used (`problems`), and what a user must know (`warnings`), in sentences."""

    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def require(self, *, as_is: bool) -> tuple[str, ...]:
        """The warnings, with the problems among them if the model is used `as_is`. Raises RequestError for problems."""
        if self.problems and not as_is:
            remedy = "correct the source's scale, offset or unit, use another model, or take it all the same with --model-as-is"
            raise RequestError(f"the model does not fit these images: {'; '.join(self.problems)}; {remedy} (model.as_is: true)")
        return (*(f"used as it is although {problem}" for problem in self.problems), *self.warnings)


# ---------------------------------------------------------------- measure


def measure(cubes: Mapping[str, xr.Dataset], bands: Sequence[str], step_days: float | None = None) -> Inputs:
    """The inputs that `cubes` (site or run -> `open_cube`, its dates cut to those that count) offer, for `bands` in that order.

    Values are those of a few windows on a few dates, evenly spread. Raises RequestError for a band that is not there.
    """
    of_band: dict[str, list[np.ndarray]] = {name: [] for name in bands}
    units: dict[str, str] = {}
    for cube in cubes.values():
        units |= {band.name: band.unit for band in bands_of(cube)}
        require_bands(bands, list(units))
        for values_CP in sample(cube, bands):
            for name, values in zip(bands, values_CP, strict=True):
                of_band[name].append(values)
    ranges = tuple(range_of(name, units.get(name), of_band[name]) for name in bands)
    times = [cube["time"].values for cube in cubes.values() if cube.sizes["time"]]
    first, last = (iso_utc(end) for end in (min(t.min() for t in times), max(t.max() for t in times)))
    grids = {name: grid_of(cube) for name, cube in cubes.items()}
    sizes = [size for size in map(pixel_metres, grids.values()) if size is not None]
    areas = {name: area for name, grid in grids.items() if (area := area_of(grid)) is not None}
    pixel_m = float(np.median(sizes)) if sizes else None
    return Inputs(ranges, step_days, pixel_m, first, last, len(np.unique(np.concatenate(times))), areas)


def require_bands(needed: Sequence[str], there: Sequence[str]) -> None:
    """Raises RequestError, with the names, for bands that the model needs and that are not there."""
    if missing := [name for name in needed if name not in there]:
        noun = "the band" if len(missing) == 1 else "the bands"
        remedy = "a band of another name is another band: where it is the same, name it so in source.bands (name, source)"
        raise RequestError(f"the model needs {noun} {', '.join(missing)}; the images have {', '.join(there)}: {remedy}")


def sample(cube: xr.Dataset, bands: Sequence[str]) -> Iterator[np.ndarray]:
    """values_CP, physical, of the usable pixels of a few windows on a few dates."""
    variables, stored = tuple(Variable(name, "band", (name,)) for name in bands), bands_of(cube)
    dates = np.unique(np.linspace(0, cube.sizes["time"] - 1, DATES).round().astype(int))
    axes = [(dim, spans(cube.sizes[dim])) for dim in space_dims(cube)]
    for corner in product(*(slices for _, slices in axes)):
        inside = {dim: one for (dim, _), one in zip(axes, corner, strict=True)}
        for date in dates:
            part = cube.isel({**inside, "time": slice(date, date + 1)})
            x_NCYX, valid_NYX = decode(part["image"].values, part["valid"].values.astype(bool), stored, variables)
            yield np.moveaxis(x_NCYX, 1, 0)[:, valid_NYX]


def spans(length: int) -> list[slice]:
    """The whole axis, or two windows at a third and two thirds of it."""
    if length <= 2 * WINDOW_PX:
        return [slice(0, length)]
    starts = [round(share * length) - WINDOW_PX // 2 for share in (1 / 3, 2 / 3)]
    return [slice(start, start + WINDOW_PX) for start in starts]


def range_of(name: str, unit: str | None, parts: Sequence[np.ndarray]) -> BandRange:
    values = np.concatenate(parts) if parts else np.array([])
    if not values.size:
        return BandRange(name, unit)
    low, median, high = (float(value) for value in np.percentile(values, (15.87, 50, 84.13)))
    return BandRange(name, unit, median, (high - low) / 2)


def pixel_metres(grid: Grid) -> float | None:
    """The side of a pixel in metres; None where the CRS has neither metres nor degrees."""
    if not grid.is_on_earth:
        if grid.unit != "mm":
            return None
        return float(grid.pixel_size ** (1 / len(grid.shape))) / 1000
    crs, matrix = parse_crs(grid.crs), grid.matrix[:2, :2]
    side = math.sqrt(abs(float(np.linalg.det(matrix))))
    if crs.is_projected:
        return side * float(crs.linear_units_factor[1])
    middle = (grid.bounds[1] + grid.bounds[len(grid.shape) + 1]) / 2
    return side * EQUATOR_M * math.sqrt(max(math.cos(math.radians(middle)), 0.01)) if crs.is_geographic else None


def area_of(grid: Grid) -> list[float] | None:
    """[west, south, east, north] in degrees; None for what lies in no CRS of the Earth."""
    from rasterio.errors import CRSError
    from rasterio.warp import transform_bounds

    if not grid.is_on_earth or grid.is_volume:
        return None
    try:
        return [round(float(edge), 6) for edge in transform_bounds(parse_crs(grid.crs), "EPSG:4326", *grid.bounds_xy)]
    except CRSError:
        return None


# ---------------------------------------------------------------- compare


def compare(trained: Inputs, here: Inputs) -> Match:
    """Whether a model of `trained` may be used on `here`, whose bands are those of the model, in its order."""
    problems: list[str] = []
    warnings: list[str] = []
    there = {band.name: band for band in here.bands}
    unknown = [band.name for band in trained.bands if band.median is None]
    if unknown:
        warnings.append(f"the values that the model was trained on are unknown for {', '.join(unknown)}: nothing was compared")
    for band in trained.bands:
        other = there[band.name]
        if band.unit and other.unit and band.unit != other.unit:
            problems.append(f"{band.name} is in {other.unit} here, the model was trained on {band.unit}")
        elif (factor := level_factor(band, other)) is not None and factor > LEVEL_FACTOR:
            problems.append(f"values of {other.text} differ by a factor of {factor:.3g} from those of training, {band.text}")
        elif factor is None and band.median is not None:
            warnings.append(f"the values of {band.name} could not be compared with those of training")
    if (step := factor_of(trained.step_days, here.step_days)) is not None and step > STEP_FACTOR:
        problems.append(
            f"steps are {here.step_days:.3g} days here, the model was trained on steps of {trained.step_days:.3g} days"
        )
    if (size := factor_of(trained.pixel_m, here.pixel_m)) is not None and size > PIXEL_FACTOR:
        warnings.append(
            f"pixels are {here.pixel_m:.4g} m here, the model was trained on {trained.pixel_m:.4g} m: "
            "what it sees around a pixel is another distance"
        )
    return Match(tuple(problems), tuple(warnings))


def level_factor(one: BandRange, other: BandRange) -> float | None:
    """By how much medians differ, where they are far from 0; else by how much spreads do. None: unknown."""
    if one.median is None or other.median is None or one.spread is None or other.spread is None:
        return None
    is_level = all(abs(band.median or 0) > (band.spread or 0) / 2 for band in (one, other)) and one.median * other.median > 0
    return factor_of(abs(one.median), abs(other.median)) if is_level else factor_of(one.spread, other.spread)


def factor_of(one: float | None, other: float | None) -> float | None:
    """The larger over the smaller; None where one is unknown or not above 0."""
    return max(one / other, other / one) if one and other and min(one, other) > 0 else None


def known_areas(trained: Inputs, here: Inputs) -> list[str]:
    """Those of the areas here that overlap one of training."""
    return [name for name, area in here.areas.items() if any(overlaps(area, other) for other in trained.areas.values())]


def overlaps(one: Sequence[float], other: Sequence[float]) -> bool:
    """True if two boxes [west, south, east, north] share more than an edge."""
    return all(max(one[k], other[k]) < min(one[k + 2], other[k + 2]) for k in (0, 1))
