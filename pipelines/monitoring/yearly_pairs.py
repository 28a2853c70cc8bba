"""Two summers beside each other: what the change indices of image pairs find of the change that a series shows.

An index of a pair has no date of alarm, but what it calls changed between the best seasons of two years can be counted in stable
pixels, and in those whose change the images show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipelines.cube.store import bands_of
from pipelines.monitoring.areas import MonitoredCube, read_dates
from pipelines.monitoring.detector import Observations
from pipelines.monitoring.harmonic_model import masked_median
from pipelines.monitoring.stable import first_change_year, is_in_season, months_and_years, stable_pixels, year_levels
from pipelines.samples.variables import Variable, decode
from pipelines.tiles import Box

if TYPE_CHECKING:
    from torch import Tensor

AREA_PX = 512  # of a large raster one square is compared: an index depends on the pixels around
LEAST_CHANGED = 10
# (x_TCHW float32, valid_THW) of two dates -> (score_HW, threshold)
PairIndex = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float]]


class FittedIndex(Protocol):
    """A change index that knows what it must of a site; `score` is (H, W)."""

    def score(self, x_TCHW: Tensor, valid_THW: Tensor) -> Tensor: ...


class ChangeIndex(Protocol):
    """A change index on tensors."""

    def fit(self, x_TCHW: Tensor, valid_THW: Tensor) -> FittedIndex: ...


def evaluate_pairs(
    cube: MonitoredCube, indices: Callable[[], Mapping[str, PairIndex]], limit: float, direction: str
) -> dict[str, dict[str, Any]]:
    """`evaluate_year_pairs` on all bands of the cube. Empty where the cube has one band: then an index of a pair is the
    difference that monitoring has among its references. `indices` is called only where there are more."""
    bands = bands_of(cube.dataset)
    if len(bands) < 2:
        return {}
    height, width = cube.shape_yx
    tile = Box.whole((min(height, AREA_PX), min(width, AREA_PX)))
    part = cube.dataset.isel(y=tile.rows, x=tile.columns)
    variables = tuple(Variable(band.name, "band", (band.name,)) for band in bands)
    one_date = (part.isel(time=[date.index]) for date in cube.dates)
    bands_NCYX = np.stack([decode(one["image"].values, one["valid"].values, bands, variables)[0][0] for one in one_date])
    return evaluate_year_pairs(indices(), bands_NCYX, read_dates(cube, tile, cube.dates), cube.start_day, limit, direction)


def pair_index(new_index: Callable[[], ChangeIndex], threshold: Callable[[Tensor, int], float]) -> PairIndex:
    """A change index as `evaluate_year_pairs` takes it: on dates brought to mean 0 and deviation 1 over what both show.
    `threshold(score_HW, bands)`, of a tensor, is the automatic one of the index's literature."""

    def score(x_TCYX: np.ndarray, valid_TYX: np.ndarray) -> tuple[np.ndarray, float]:
        import torch

        seen_YX = valid_TYX.all(axis=0)
        inside = x_TCYX[:, :, seen_YX]
        mean, deviation = inside.mean(axis=2), np.maximum(inside.std(axis=2), 1e-9)
        z_TCYX = np.where(seen_YX, (x_TCYX - mean[..., None, None]) / deviation[..., None, None], 0).astype(np.float32)
        x, valid = torch.from_numpy(z_TCYX), torch.from_numpy(np.broadcast_to(seen_YX, valid_TYX.shape).copy())
        score_YX = new_index().fit(x, valid).score(x, valid)
        return score_YX.numpy(), threshold(score_YX, x_TCYX.shape[1])

    return score


def evaluate_year_pairs(
    indices: Mapping[str, PairIndex],
    bands_NCYX: np.ndarray,
    series: Observations,
    start_day: float,
    limit: float,
    direction: str = "both",
) -> dict[str, dict[str, Any]]:
    """Per index: `false_alarms` per 1000 stable pixels and year, and `found_YEAR` of the change that the images first show in it.

    `bands_NCYX` are physical values, `series` is the monitored variable; both on all dates. Each year from `start_day` on is
    compared with the year before it, by the medians of the season in which the variable is highest (lowest for `up`). What "the
    images show" is defined by the variable's own drop between seasons (`pipelines.monitoring.stable`), so a difference of that
    variable has the advantage.
    """
    levels = year_levels(series, highest=direction != "up")
    stable_YX = stable_pixels(levels, limit, "down" if direction == "both" else direction)
    year_YX = first_change_year(levels, limit, direction)
    figures: dict[str, dict[str, Any]] = {name: {"thresholds": {}} for name in indices}
    alarms = {name: np.zeros(2, int) for name in indices}  # called changed, compared: in stable pixels
    _, (first_year, last_year) = months_and_years(np.array([start_day, series.days_N[-1]]))
    for year in range(first_year, last_year + 1):
        pair = [season_median(bands_NCYX, series.valid_NYX, series.days_N, y, levels.months) for y in (year - 1, year)]
        x_TCYX, valid_TYX = (np.stack(arrays) for arrays in zip(*pair, strict=True))
        seen_YX = valid_TYX.all(axis=0)
        changed_YX = seen_YX & (year_YX == year)
        for name, index in indices.items() if seen_YX.any() else ():
            score_YX, threshold = index(x_TCYX, valid_TYX)
            with np.errstate(invalid="ignore"):
                is_called_YX = score_YX > threshold
            alarms[name] += is_called_YX[seen_YX & stable_YX].sum(), (seen_YX & stable_YX).sum()
            figures[name]["thresholds"][str(year)] = float(threshold)
            if changed_YX.sum() >= LEAST_CHANGED:
                figures[name][f"found_{year}"] = round(float(is_called_YX[changed_YX].mean()), 4)
    for name, (called, compared) in alarms.items():
        figures[name]["false_alarms"] = round(1000 * int(called) / int(compared), 2) if compared else None
    return figures


def season_median(
    bands_NCYX: np.ndarray, valid_NYX: np.ndarray, days_N: np.ndarray, year: int, months: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """(x_CYX float32, 0 where not seen; valid_YX) of one year's season; one usable date is enough. Months from 1."""
    of_season_N = is_in_season(days_N, months, year)
    valid_NYX = valid_NYX[of_season_N]
    return masked_median(bands_NCYX[of_season_N], valid_NYX[:, None], axis=0), np.any(valid_NYX, axis=0)
