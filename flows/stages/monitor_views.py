"""What a picture of a watched place shows: the place before and after, and the course of single pixels."""

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
PIXELS_SHOWN = 3
USABLE = 0.25  # of the clearest date's usable share: such a date counts as a look of its season
SEASON_MONTHS = 3
LEAST_ACQUISITIONS, SOLID_LOOKS = 2, 3  # in a season, for its median; of two, one may still be haze
ACQUISITIONS_AFTER = 3
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def choose_dates(invocation: Invocation, dataset: Any, changed: np.datetime64 | None = None) -> tuple[int, int]:
    """Indices of two clear dates of one season: the last before the watch began, and one of the last year.

    Among clear dates of the last year it is the one on which the place is brightest in the variable (darkest, where a rise is
    looked for): there a change shows. It does not lie before `changed`, when half of the changed area had changed: of a place
    that fell as a whole the brightest date would be one on which it stood.
    """
    run = invocation.run
    start = np.datetime64(run.monitoring.start, "ns")
    times, seen = dataset["time"].values, np.asarray(dataset["valid_fraction"].values, np.float64)
    monitored = np.flatnonzero(times >= start)
    if not monitored.size:
        last = int(np.argmax(np.where(seen >= CLEAR * seen.max(), np.arange(len(seen)), -1)))
        return last, last
    recent = monitored[times[monitored] >= times[-1] - np.timedelta64(365, "D")]
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


def observations(invocation: Invocation, dataset: Any, frame: Any, changed: np.ndarray) -> tuple[Any, Any]:
    """Before and after: medians of one season of two years, else single dates. `changed` (rows, columns) bool is thinned.

    One date can be haze that no mask saw; a median over the looks of three months is what the place was like. Where the change is
    later than every such season, after is the median of the last looks that saw the changed pixels.
    """
    from pipelines.products.before_after import Observation

    times, start = dataset["time"].values, np.datetime64(invocation.run.monitoring.start, "ns")
    half = changed_by_half(frame)
    seasons = choose_seasons(invocation, dataset, half)
    if seasons is None:
        return tuple(  # type: ignore[return-value]
            Observation(times[index], read_thinned(invocation, dataset, index), *_named(invocation, dataset))
            for index in choose_dates(invocation, dataset, half)
        )
    before, after = (_median_observation(invocation, dataset, acquisitions, name) for acquisitions, name in seasons)
    if half is not None and half >= times[seasons[1][0][0]]:
        acquisitions = last_acquisitions(invocation, dataset, changed, np.flatnonzero(times >= max(start, half)))
        if acquisitions.size:
            after = _median_observation(invocation, dataset, acquisitions, f"last looks to {str(times[acquisitions[-1]])[:10]}")
    return before, after


def choose_seasons(
    invocation: Invocation, dataset: Any, changed: np.datetime64 | None
) -> tuple[tuple[np.ndarray, str], tuple[np.ndarray, str]] | None:
    """(indices of the acquisitions, name) of one season before `monitoring.start` and at the end; None: none fits.

    Of the seasons (three months) with at least `LEAST_ACQUISITIONS` in both years (`SOLID_LOOKS` if one has as many) that begin
    after `changed` (if one does) it is the one of the highest values before `monitoring.start`, where a drop shows most; of the
    lowest where a rise is monitored.
    """
    times, seen = dataset["time"].values, np.asarray(dataset["valid_fraction"].values, np.float64)
    start = np.datetime64(invocation.run.monitoring.start, "ns")
    usable = seen >= USABLE * seen.max()
    pairs = []
    for month in range(12):
        first, last = last_season(start, month), last_season(times[-1] + np.timedelta64(1, "D"), month)
        if last < first + np.timedelta64(SEASON_MONTHS, "M") or last.astype("datetime64[ns]") < start:
            continue
        acquisitions = [np.flatnonzero(usable & _is_in_season(times, season)) for season in (first, last)]
        pairs.append(
            (
                min(map(len, acquisitions)),
                [(own, season_name(season)) for own, season in zip(acquisitions, (first, last), strict=True)],
            )
        )
    least = LEAST_ACQUISITIONS if not any(count >= SOLID_LOOKS for count, _ in pairs) else SOLID_LOOKS
    fit = [seasons for count, seasons in pairs if count >= least]
    if changed is not None:
        fit = [seasons for seasons in fit if times[seasons[1][0][0]] > changed] or fit
    if not fit:
        return None
    sign = -1 if invocation.run.monitoring.test.direction == "up" else 1
    level_T = np.full(len(times), np.nan)
    for index in sorted({int(i) for seasons in fit for i in seasons[0][0]}):
        image = read_thinned(invocation, dataset, index)
        level_T[index] = np.median(image[np.isfinite(image)]) if np.isfinite(image).any() else np.nan
    heights = [sign * _height(level_T[acquisitions], times[acquisitions]) for (acquisitions, _), _ in fit]
    before, after = fit[int(np.argmax(np.nan_to_num(heights, nan=-np.inf)))]
    return before, after


def last_season(end: np.datetime64, month: int) -> np.datetime64:
    """The month (datetime64[M]) in which the last three months that begin with `month` (0-11) and are over by `end` begin."""
    latest = end.astype("datetime64[M]") - np.timedelta64(SEASON_MONTHS, "M")
    return latest - np.timedelta64((int(latest.astype(int)) - month) % 12, "M")


def season_name(first: np.datetime64) -> str:
    """`Jun-Aug 2018`, or `Dec 2018-Feb 2019`."""
    last = first + np.timedelta64(SEASON_MONTHS - 1, "M")
    (one, year), (other, end) = ((MONTHS[int(m.astype(int)) % 12], str(m)[:4]) for m in (first, last))
    return f"{one}-{other} {end}" if year == end else f"{one} {year}-{other} {end}"


def last_acquisitions(invocation: Invocation, dataset: Any, changed: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Indices, ascending, of the last three looks of `among` that saw at least half of the changed pixels; none without such."""
    found: list[int] = []
    for index in among[::-1] if changed.any() else ():
        if len(found) < ACQUISITIONS_AFTER and np.isfinite(read_thinned(invocation, dataset, int(index))[changed]).mean() >= 0.5:
            found.append(int(index))
    return np.array(found[::-1], int)


def median_of(images_NYX: list[np.ndarray]) -> np.ndarray:
    """(rows, columns) float32 median of what was seen, NaN where nothing was."""
    stacked = np.stack(images_NYX)
    is_seen = np.isfinite(stacked).any(axis=0)
    middle = np.full(is_seen.shape, np.nan, np.float32)
    middle[is_seen] = np.nanmedian(stacked[:, is_seen], axis=0)
    return middle


def _height(level_N: np.ndarray, times_N: np.ndarray) -> float:
    """Mean of the months' medians: a hazy look does not count, and no month for more than another."""
    months_N = np.where(np.isfinite(level_N), times_N.astype("datetime64[M]").astype(int), -1)
    return float(np.mean([np.median(level_N[months_N == m]) for m in np.unique(months_N[months_N >= 0])] or [np.nan]))


def _is_in_season(times: np.ndarray, first: np.datetime64) -> np.ndarray:
    months = times.astype("datetime64[M]")
    return (months >= first) & (months < first + np.timedelta64(SEASON_MONTHS, "M"))


def _median_observation(invocation: Invocation, dataset: Any, acquisitions: np.ndarray, name: str) -> Any:
    from pipelines.products.before_after import Observation

    values = median_of([read_thinned(invocation, dataset, int(index)) for index in acquisitions])
    text = f"{name}, median of {len(acquisitions)} look{'s' * (len(acquisitions) != 1)}"
    return Observation(dataset["time"].values[acquisitions[-1]], values, *_named(invocation, dataset), when=text)


def _named(invocation: Invocation, dataset: Any) -> tuple[str, str]:
    return invocation.run.variable.name, unit_of(invocation, dataset)


def unit_of(invocation: Invocation, dataset: Any) -> str:
    """The unit of the watched variable; an index has none."""
    from pipelines.cube.store import bands_of

    variable = invocation.run.variable
    units = {band.name: band.unit for band in bands_of(dataset)}
    return units.get(variable.bands[0], "") if variable.formula == "band" else ""


def criteria_of(frame: Any, layers: Any, grid: Any) -> list[Any]:
    """The pixels that a picture points at: in each of the largest patches the one with the strongest evidence."""
    from pipelines.products.before_after import Marker
    from pipelines.products.pixel_series import strongest_pixel

    score = layers.map("score")
    places = [strongest_pixel(outline, grid, score) for outline in frame.geometry[:PIXELS_SHOWN]]
    return [Marker(row, column, str(number)) for number, (row, column) in enumerate(places, start=1)]


def course_of(context: Any, layers: Any, marker: Any) -> Any:
    """One pixel's observations beside what was expected of it, as the detector saw them, date by date."""
    from pipelines.monitoring.blocks import Block, BlockReader
    from pipelines.products.pixel_series import Series

    monitoring = context.monitoring
    tile = Tile(marker.row, marker.row + 1, marker.column, marker.column + 1)
    reader = BlockReader(monitoring.dataset, monitoring.variable, Block(tile, (tile,)), monitoring.detector.halo_px)
    halo = tile.grown(monitoring.detector.halo_px, monitoring.shape_yx)
    own = tile.within(halo)
    seen = [(date.day, *found) for date in monitoring.dates if (found := reader.cut(date, tile)) is not None]
    days = np.array([day for day, _, _ in seen])
    x_NYX, valid_NYX = np.array([x for _, x, _ in seen]), np.array([valid for _, _, valid in seen])
    start_day = monitoring.start_ns / 86_400e9
    history, value_model = days < start_day, monitoring.detector.value_model
    fitted = value_model.fit(x_NYX[history], valid_NYX[history], days[history])
    state = value_model.begin(fitted)
    curve = np.arange(days[0], days[-1] + CURVE_EVERY_DAYS, CURVE_EVERY_DAYS)
    points = []
    following = 0
    monitored = np.flatnonzero(~history)
    for day in curve:
        while following < len(monitored) and days[monitored[following]] < day:
            n = monitored[following]
            state = value_model.advance(fitted, state, x_NYX[n], valid_NYX[n], float(days[n]))
            following += 1
        expected, spread = value_model.predict(fitted, state, float(day))
        points.append((float(expected[0, 0]), float(spread[0, 0])))
    usable = valid_NYX[:, own[0], own[1]][:, 0, 0]
    values = x_NYX[:, own[0], own[1]][:, 0, 0]
    noted = {name: float(layers.map(name)[marker.row, marker.column]) for name in ("change_day", "detected_day", "recovered_day")}
    x, y = context.grid.affine @ (marker.column + 0.5, marker.row + 0.5)
    expected, spread = np.array(points).T
    title = f"Patch {marker.text}: row {marker.row}, column {marker.column} ({x:.0f}, {y:.0f})"
    return Series(title, days[usable], values[usable], curve, expected, spread, **noted, number=marker.text)
