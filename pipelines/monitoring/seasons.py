"""Which acquisitions a picture shows before and after a change: medians of one season of two years, else single dates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.monitoring.detector import Direction

CLEAR = 0.8  # of the clearest date's usable share: such a date can be shown
SEASON_DAYS = 45  # before and after are of the same season, as far as there are such dates
USABLE = 0.25  # of the clearest date's usable share: such a date counts as an acquisition of its season
SEASON_MONTHS = 3
LEAST_ACQUISITIONS, SOLID_ACQUISITIONS = 2, 3  # in a season, for its median; of two, one may still be haze
ACQUISITIONS_AFTER = 3
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

Season = tuple[np.ndarray, str]  # indices of its acquisitions, and its name


@dataclass(frozen=True)
class Acquisitions:
    """The dates of a cube. `times_T` datetime64[ns], `usable_T` the usable share of each, `start` where monitoring begins.

    `read(index)` is the monitored variable on one date, thinned, (rows, columns) float32, NaN where not usable.
    """

    times_T: np.ndarray
    usable_T: np.ndarray
    start: np.datetime64
    direction: Direction
    read: Callable[[int], np.ndarray]

    @property
    def sign(self) -> int:
        """A drop shows most where values are high, a rise where they are low."""
        return -1 if self.direction == "up" else 1


@dataclass(frozen=True)
class Composite:
    """What was observed at `date` (the last one of several); `when` names the acquisitions of a median, "" for a single date."""

    date: np.datetime64
    values: np.ndarray
    when: str = ""


def before_and_after(acquisitions: Acquisitions, half: np.datetime64 | None, changed: np.ndarray) -> tuple[Composite, Composite]:
    """Before and after: medians of one season of two years, else single dates.

    `half`: when half of the changed area had changed (None: nothing did); `changed`: (rows, columns) bool, thinned. One date can
    be haze that no mask detected; a median over the acquisitions of three months is not. Where the change is later than every
    such season, after is the median of the last acquisitions that saw the changed pixels.
    """
    times = acquisitions.times_T
    seasons = choose_seasons(acquisitions, half)
    if seasons is None:
        first, last = choose_dates(acquisitions, half)
        return tuple(Composite(times[index], acquisitions.read(index)) for index in (first, last))  # type: ignore[return-value]
    before, after = (_median_composite(acquisitions, indices, name) for indices, name in seasons)
    if half is not None and half >= times[seasons[1][0][0]]:
        indices = last_acquisitions(acquisitions, changed, np.flatnonzero(times >= max(acquisitions.start, half)))
        if indices.size:
            after = _median_composite(acquisitions, indices, f"last dates to {str(times[indices[-1]])[:10]}")
    return before, after


def changed_by_half(frame: Any) -> np.datetime64 | None:
    """The date by which half of the patches' area had changed, from their table; None without patches."""
    dated = frame.dropna(subset="median_date").sort_values("median_date")
    if not len(dated):
        return None
    area_N = dated["area_m2"].cumsum().to_numpy()
    half = int(np.searchsorted(area_N, area_N[-1] / 2))
    day: np.datetime64 = dated["median_date"].to_numpy("datetime64[ns]")[half]
    return day


def choose_dates(acquisitions: Acquisitions, changed: np.datetime64 | None = None) -> tuple[int, int]:
    """Indices of two clear dates of one season: the last before monitoring began, and one of the last year.

    Among clear dates of the last year it is the one with the highest values (lowest, where a rise is monitored): there a change
    shows. It does not lie before `changed`, when half of the changed area had changed: of a site that fell as a whole the highest
    date would be one before the change.
    """
    times, seen = acquisitions.times_T, acquisitions.usable_T
    monitored = np.flatnonzero(times >= acquisitions.start)
    if not monitored.size:
        last = int(np.argmax(np.where(seen >= CLEAR * seen.max(), np.arange(len(seen)), -1)))
        return last, last
    after = _clearest_after(acquisitions, monitored, changed)
    before = np.flatnonzero(times < acquisitions.start)
    if not before.size:
        return after, after
    apart = np.abs((times[before] - times[after]) / np.timedelta64(1, "D")) % 365.2422
    apart = np.minimum(apart, 365.2422 - apart)
    near = before[apart <= SEASON_DAYS] if (apart <= SEASON_DAYS).any() else before
    near = near[seen[near] >= CLEAR * seen[near].max()]
    return int(near[-1]), after


def _clearest_after(acquisitions: Acquisitions, monitored: np.ndarray, changed: np.datetime64 | None) -> int:
    times, seen = acquisitions.times_T, acquisitions.usable_T
    recent = monitored[times[monitored] >= times[-1] - np.timedelta64(365, "D")]
    if changed is not None and (times[recent] >= changed).any():
        recent = recent[times[recent] >= changed]
    clear = recent[seen[recent] >= CLEAR * seen[recent].max()]
    levels = [acquisitions.sign * np.nan_to_num(np.nanmedian(acquisitions.read(int(i))), nan=-np.inf) for i in clear]
    return int(clear[int(np.argmax(levels))])


def choose_seasons(acquisitions: Acquisitions, changed: np.datetime64 | None) -> tuple[Season, Season] | None:
    """One season before monitoring began and at the end; None: none fits.

    Of the seasons (three months) with at least `LEAST_ACQUISITIONS` in both years (`SOLID_ACQUISITIONS` if one has as many) that
    begin after `changed` (if one does) it is the one of the highest values before the start, where a drop shows most; of the
    lowest where a rise is monitored.
    """
    times = acquisitions.times_T
    pairs = _season_pairs(acquisitions)
    least = LEAST_ACQUISITIONS if not any(count >= SOLID_ACQUISITIONS for count, _ in pairs) else SOLID_ACQUISITIONS
    fit = [seasons for count, seasons in pairs if count >= least]
    if changed is not None:
        fit = [seasons for seasons in fit if times[seasons[1][0][0]] > changed] or fit
    if not fit:
        return None
    level_T = np.full(len(times), np.nan)
    for index in sorted({int(i) for seasons in fit for i in seasons[0][0]}):
        image = acquisitions.read(index)
        level_T[index] = np.median(image[np.isfinite(image)]) if np.isfinite(image).any() else np.nan
    heights = [acquisitions.sign * _height(level_T[indices], times[indices]) for (indices, _), _ in fit]
    return fit[int(np.argmax(np.nan_to_num(heights, nan=-np.inf)))]


def _season_pairs(acquisitions: Acquisitions) -> list[tuple[int, tuple[Season, Season]]]:
    """(acquisitions in the poorer year, season before the start, the same season at the end) for each season of both."""
    times, start = acquisitions.times_T, acquisitions.start
    usable = acquisitions.usable_T >= USABLE * acquisitions.usable_T.max()
    pairs = []
    for month in range(12):
        first, last = last_season(start, month), last_season(times[-1] + np.timedelta64(1, "D"), month)
        if last < first + np.timedelta64(SEASON_MONTHS, "M") or last.astype("datetime64[ns]") < start:
            continue
        before, after = (np.flatnonzero(usable & _is_in_season(times, season)) for season in (first, last))
        seasons = (before, season_name(first)), (after, season_name(last))
        pairs.append((min(len(before), len(after)), seasons))
    return pairs


def last_season(end: np.datetime64, month: int) -> np.datetime64:
    """The month (datetime64[M]) in which the last three months that begin with `month` (0-11) and are over by `end` begin."""
    latest: np.datetime64 = end.astype("datetime64[M]") - np.timedelta64(SEASON_MONTHS, "M")
    return latest - np.timedelta64((int(latest.astype(int)) - month) % 12, "M")


def season_name(first: np.datetime64) -> str:
    """`Jun-Aug 2018`, or `Dec 2018-Feb 2019`."""
    last = first + np.timedelta64(SEASON_MONTHS - 1, "M")
    (one, year), (other, end) = ((MONTHS[int(m.astype(int)) % 12], str(m)[:4]) for m in (first, last))
    return f"{one}-{other} {end}" if year == end else f"{one} {year}-{other} {end}"


def last_acquisitions(acquisitions: Acquisitions, changed: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Indices, ascending, of the last three of `among` that saw at least half of the changed pixels; none without such."""
    found: list[int] = []
    for index in among[::-1] if changed.any() else ():
        if len(found) < ACQUISITIONS_AFTER and np.isfinite(acquisitions.read(int(index))[changed]).mean() >= 0.5:
            found.append(int(index))
    return np.array(found[::-1], int)


def median_of(images_NYX: list[np.ndarray]) -> np.ndarray:
    """(rows, columns) float32 median of what was seen, NaN where nothing was."""
    stacked = np.stack(images_NYX)
    is_seen = np.isfinite(stacked).any(axis=0)
    middle = np.full(is_seen.shape, np.nan, np.float32)
    middle[is_seen] = np.nanmedian(stacked[:, is_seen], axis=0)
    return middle


def _median_composite(acquisitions: Acquisitions, indices: np.ndarray, name: str) -> Composite:
    values = median_of([acquisitions.read(int(index)) for index in indices])
    text = f"{name}, median of {len(indices)} date{'s' * (len(indices) != 1)}"
    return Composite(acquisitions.times_T[indices[-1]], values, text)


def _height(level_N: np.ndarray, times_N: np.ndarray) -> float:
    """Mean of the months' medians: a hazy acquisition does not count, and no month for more than another."""
    months_N = np.where(np.isfinite(level_N), times_N.astype("datetime64[M]").astype(int), -1)
    return float(np.mean([np.median(level_N[months_N == m]) for m in np.unique(months_N[months_N >= 0])] or [np.nan]))


def _is_in_season(times: np.ndarray, first: np.datetime64) -> np.ndarray:
    months = times.astype("datetime64[M]")
    return (months >= first) & (months < first + np.timedelta64(SEASON_MONTHS, "M"))
