"""What a picture of a watched place shows: a date before and one after, and the course of single pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from configs import build_monitor
from flows.invocation import Invocation
from flows.stages.views import read_variables
from pipelines.tiles import Tile

CLEAR = 0.8  # of the clearest date's usable share: such a date can be shown
SEASON_DAYS = 45  # before and after are of the same season, as far as there are such dates
CURVE_EVERY_DAYS = 5
PLACES_SHOWN = 3


def choose_dates(invocation: Invocation, dataset: Any, changed: np.datetime64 | None = None) -> tuple[int, int]:
    """Indices of two clear dates of one season: the last before the watch began, and one of the last year.

    Among clear dates of the last year it is the one on which the place is brightest in the variable (darkest, where a rise is
    looked for): there a change shows. It does not lie before `changed`, when half of the changed area had changed: of a place
    that fell as a whole the brightest date would be one on which it stood.
    """
    run = invocation.run
    start = np.datetime64(run.monitoring.start, "ns")
    times, seen = dataset["time"].values, np.asarray(dataset["valid_fraction"].values, np.float64)
    watched = np.flatnonzero(times >= start)
    if not watched.size:
        last = int(np.argmax(np.where(seen >= CLEAR * seen.max(), np.arange(len(seen)), -1)))
        return last, last
    recent = watched[times[watched] >= times[-1] - np.timedelta64(365, "D")]
    if changed is not None and (times[recent] >= changed).any():
        recent = recent[times[recent] >= changed]
    clear = recent[seen[recent] >= CLEAR * seen[recent].max()]
    sign = -1 if run.monitoring.test.direction == "up" else 1
    levels = [sign * np.nan_to_num(np.nanmedian(read_thinned(invocation, dataset, int(i))), nan=-np.inf) for i in clear]
    after = int(clear[int(np.argmax(levels))])
    before = np.flatnonzero(times < start)
    if not before.size:
        return after, after
    apart = np.abs((times[before] - times[after]) / np.timedelta64(1, "D")) % 365.2422
    apart = np.minimum(apart, 365.2422 - apart)
    near = before[apart <= SEASON_DAYS] if (apart <= SEASON_DAYS).any() else before
    near = near[seen[near] >= CLEAR * seen[near].max()]
    return int(near[-1]), after


def changed_by_half(frame: Any) -> np.datetime64 | None:
    """The date by which half of the patches' area had changed; None without patches."""
    dated = frame.dropna(subset="median_date").sort_values("median_date")
    if not len(dated):
        return None
    area_N = dated["area_m2"].cumsum().to_numpy()
    half = int(np.searchsorted(area_N, area_N[-1] / 2))
    return dated["median_date"].to_numpy("datetime64[ns]")[half]


def read_thinned(invocation: Invocation, dataset: Any, index: int) -> np.ndarray:
    """The variable on one date as a picture shows it, NaN where not usable."""
    from pipelines.products.frames import step_for

    step = step_for((dataset.sizes["y"], dataset.sizes["x"]))
    return read_variables(dataset, index, step, (build_monitor.build_variable(invocation.run),))[0]


def sight(invocation: Invocation, dataset: Any, index: int) -> Any:
    from pipelines.products.change_pictures import Sight

    date = dataset["time"].values[index]
    return Sight(date, read_thinned(invocation, dataset, index), invocation.run.variable.name, unit_of(invocation, dataset))


def unit_of(invocation: Invocation, dataset: Any) -> str:
    """The unit of the watched variable; an index has none."""
    from pipelines.cube.store import bands_of

    variable = invocation.run.variable
    units = {band.name: band.unit for band in bands_of(dataset)}
    return units.get(variable.bands[0], "") if variable.formula == "band" else ""


def marks_of(frame: Any, layers: Any, grid: Any) -> list[Any]:
    """The pixels that a picture points at: in each of the largest patches the one with the strongest evidence."""
    from pipelines.products.change_pictures import Mark
    from pipelines.products.change_series import strongest_pixel

    score = layers.map("score")
    places = [strongest_pixel(outline, grid, score) for outline in frame.geometry[:PLACES_SHOWN]]
    return [Mark(row, column, str(number)) for number, (row, column) in enumerate(places, start=1)]


def course_of(looking: Any, layers: Any, mark: Any) -> Any:
    """One pixel's observations beside what was expected of it, as the detector saw them, date by date."""
    from pipelines.change.blocks import Block, BlockReader
    from pipelines.products.change_series import Series

    watch = looking.watch
    tile = Tile(mark.row, mark.row + 1, mark.column, mark.column + 1)
    reader = BlockReader(watch.dataset, watch.variable, Block(tile, (tile,)), watch.detector.halo_px)
    halo = tile.grown(watch.detector.halo_px, watch.shape_yx)
    own = tile.within(halo)
    seen = [(date.day, *found) for date in watch.dates if (found := reader.cut(date, tile)) is not None]
    days = np.array([day for day, _, _ in seen])
    x_NYX, valid_NYX = np.array([x for _, x, _ in seen]), np.array([valid for _, _, valid in seen])
    start_day = watch.start_ns / 86_400e9
    history, expectation = days < start_day, watch.detector.expectation
    fitted = expectation.fit(x_NYX[history], valid_NYX[history], days[history])
    state = expectation.begin(fitted)
    curve = np.arange(days[0], days[-1] + CURVE_EVERY_DAYS, CURVE_EVERY_DAYS)
    points = []
    following = 0
    watched = np.flatnonzero(~history)
    for day in curve:
        while following < len(watched) and days[watched[following]] < day:
            n = watched[following]
            state = expectation.advance(fitted, state, x_NYX[n], valid_NYX[n], float(days[n]))
            following += 1
        expected, spread = expectation.foretell(fitted, state, float(day))
        points.append((float(expected[0, 0]), float(spread[0, 0])))
    usable = valid_NYX[:, own[0], own[1]][:, 0, 0]
    values = x_NYX[:, own[0], own[1]][:, 0, 0]
    noted = {name: float(layers.map(name)[mark.row, mark.column]) for name in ("change_day", "detected_day", "recovered_day")}
    x, y = looking.grid.affine @ (mark.column + 0.5, mark.row + 0.5)
    expected, spread = np.array(points).T
    title = f"Patch {mark.text}: row {mark.row}, column {mark.column} ({x:.0f}, {y:.0f})"
    return Series(title, days[usable], values[usable], curve, expected, spread, **noted, number=mark.text)
