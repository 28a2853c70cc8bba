"""The course of one pixel: what was observed, and what was expected of it, as the detector saw it date by date."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.monitoring.areas import MonitoredCube, block_reader
from pipelines.monitoring.detector import Detector
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
    rows, columns = tile.within(tile.grown(detector.halo_px, cube.shape_yx))
    reader = block_reader(cube, tile, detector.halo_px)
    seen = [(date.day, *found) for date in cube.dates if (found := reader.cut(date, tile)) is not None]
    days = np.array([day for day, _, _ in seen])
    x_NYX, valid_NYX = np.array([x for _, x, _ in seen]), np.array([valid for _, _, valid in seen])
    curve = np.arange(days[0], days[-1] + CURVE_EVERY_DAYS, CURVE_EVERY_DAYS)
    own = rows.start, columns.start
    expected, spread = expected_curve(detector, x_NYX, valid_NYX, days, cube.start_day, curve, own)
    usable = valid_NYX[:, rows, columns][:, 0, 0]
    return Course(days[usable], x_NYX[:, rows, columns][:, 0, 0][usable], curve, expected, spread)


def expected_curve(
    detector: Detector,
    x_NYX: np.ndarray,
    valid_NYX: np.ndarray,
    days_N: np.ndarray,
    start_day: float,
    curve_K: np.ndarray,
    pixel_yx: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """(expected_K, spread_K) of the pixel `pixel_yx` at the days `curve_K`, each from the dates before it alone."""
    history, value_model = days_N < start_day, detector.value_model
    fitted = value_model.fit(x_NYX[history], valid_NYX[history], days_N[history])
    state = value_model.begin(fitted)
    points, following, monitored = [], 0, np.flatnonzero(~history)
    for day in curve_K:
        while following < len(monitored) and days_N[monitored[following]] < day:
            n = monitored[following]
            state = value_model.advance(fitted, state, x_NYX[n], valid_NYX[n], float(days_N[n]))
            following += 1
        expected, spread = value_model.predict(fitted, state, float(day))
        points.append((float(expected[pixel_yx]), float(spread[pixel_yx])))
    expected_K, spread_K = np.array(points).T
    return expected_K, spread_K
