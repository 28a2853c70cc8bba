"""The course of one pixel: what was observed, and what was expected of it, as the detector saw it date by date."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.monitoring.areas import BlockReader, MonitoredCube
from pipelines.monitoring.detector import Detector, Observations
from pipelines.tiles import Tile

CURVE_EVERY_DAYS = 5


@dataclass(frozen=True)
class Course:
    """Usable observations (N,) `values` at `days`, and the curve (K,) `expected` with `spread` (one deviation) at `curve_days`.

    Days are float64 since 1970-01-01.
    """

    days: np.ndarray
    values: np.ndarray
    curve_days: np.ndarray
    expected: np.ndarray
    spread: np.ndarray


def follow_pixel(cube: MonitoredCube, detector: Detector, row: int, column: int) -> Course:
    """The course of the pixel at `row`, `column` of the cube over all of its dates."""
    tile = Tile(row, row + 1, column, column + 1)
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
