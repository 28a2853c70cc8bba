"""Which acquisitions a picture shows before and after a change: medians of one season of two years, else single dates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.calendar import DAY, TROPICAL_YEAR_DAYS
from pipelines.monitoring.detector import Direction
from pipelines.monitoring.harmonic_model import masked_median

if TYPE_CHECKING:
    from pandas import DataFrame

CLEAR = 0.8  # of the clearest date's usable share: such a date can be shown
SEASON_DAYS = 45  # before and after are of the same season, as far as there are such dates
USABLE = 0.25  # of the clearest date's usable share: such a date counts as an acquisition of its season
SEASON = np.timedelta64(3, "M")
LEAST_ACQUISITIONS, SOLID_ACQUISITIONS = 2, 3  # in a season, for its median; of two, one may still be haze
ACQUISITIONS_AFTER = 3
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

Season = tuple[np.ndarray, str]  # indices of its acquisitions, and its name


@dataclass(frozen=True)
class Acquisitions:
    """The dates of a cube. `times_T` datetime64[ns], `usable_T` the usable share of each, `start` where monitoring begins.
    `read(index)` is the monitored variable on one date, thinned, (rows, columns) float32, NaN where not usable."""

    times_T: np.ndarray
    usable_T: np.ndarray
    start: np.datetime64
    direction: Direction
    read: Callable[[int], np.ndarray]

    def clear(self, indices: np.ndarray) -> np.ndarray:
        """Those of `indices` on which nearly as much is usable as on the clearest of them."""
        clear: np.ndarray = indices[self.usable_T[indices] >= CLEAR * self.usable_T[indices].max()]
        return clear

    def height(self, index: int) -> float:
        """Median of a date: where a drop shows most values are high, where a rise does they are low (then it is negative)."""
        image = self.read(index)
        seen = image[np.isfinite(image)]
        return float(np.median(seen)) * (-1 if self.direction == "up" else 1) if seen.size else np.nan

    def composite(self, indices: np.ndarray, name: str) -> Composite:
        """The median of some acquisitions, ascending."""
        text = f"{name}, median of {len(indices)} date{'s' * (len(indices) != 1)}"
        return Composite(self.times_T[indices[-1]], median_of([self.read(int(index)) for index in indices]), text)


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
        return Composite(times[first], acquisitions.read(first)), Composite(times[last], acquisitions.read(last))
    before, after = seasons
    if half is not None and half >= times[after[0][0]]:
        indices = last_acquisitions(acquisitions, changed, np.flatnonzero(times >= max(acquisitions.start, half)))
        if indices.size:
            after = indices, f"last dates to {str(times[indices[-1]])[:10]}"
    return acquisitions.composite(*before), acquisitions.composite(*after)


def changed_by_half(frame: DataFrame) -> np.datetime64 | None:
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
    times = acquisitions.times_T
    is_monitored = times >= acquisitions.start
    if not is_monitored.any():
        last = int(acquisitions.clear(np.arange(len(times)))[-1])
        return last, last
    recent = np.flatnonzero(is_monitored & (times >= times[-1] - 365 * DAY))
    if changed is not None and (times[recent] >= changed).any():
        recent = recent[times[recent] >= changed]
    clear = acquisitions.clear(recent)
    after = int(clear[np.argmax(np.nan_to_num([acquisitions.height(int(i)) for i in clear], nan=-np.inf))])
    before = np.flatnonzero(~is_monitored)
    if not before.size:
        return after, after
    apart = np.abs((times[before] - times[after]) / DAY) % TROPICAL_YEAR_DAYS
    is_near = np.minimum(apart, TROPICAL_YEAR_DAYS - apart) <= SEASON_DAYS
    return int(acquisitions.clear(before[is_near] if is_near.any() else before)[-1]), after


def choose_seasons(acquisitions: Acquisitions, changed: np.datetime64 | None) -> tuple[Season, Season] | None:
    """One season before monitoring began and at the end; None: none fits.

    Of the seasons (three months) with at least `LEAST_ACQUISITIONS` in both years (`SOLID_ACQUISITIONS` if one has as many) that
    begin after `changed` (if one does) it is the one of the highest values before the start, where a drop shows most; of the
    lowest where a rise is monitored.
    """
    times, pairs = acquisitions.times_T, _season_pairs(acquisitions)
    counts = [min(len(before), len(after)) for (before, _), (after, _) in pairs]
    least = SOLID_ACQUISITIONS if max(counts, default=0) >= SOLID_ACQUISITIONS else LEAST_ACQUISITIONS
    fit = [pair for pair, count in zip(pairs, counts, strict=True) if count >= least]
    if changed is not None:
        fit = [pair for pair in fit if times[pair[1][0][0]] > changed] or fit
    if not fit:
        return None
    shown = np.unique(np.concatenate([indices for (indices, _), _ in fit]))
    height_T = np.full(len(times), np.nan)
    height_T[shown] = [acquisitions.height(int(index)) for index in shown]
    heights = [_season_height(height_T[indices], times[indices]) for (indices, _), _ in fit]
    return fit[int(np.argmax(np.nan_to_num(heights, nan=-np.inf)))]


def _season_pairs(acquisitions: Acquisitions) -> list[tuple[Season, Season]]:
    """(season before the start, the same season at the end) for each season of both."""
    times, start = acquisitions.times_T, acquisitions.start
    is_usable, months = acquisitions.usable_T >= USABLE * acquisitions.usable_T.max(), times.astype("datetime64[M]")
    pairs = []
    for month in range(12):
        first, last = last_season(start, month), last_season(times[-1] + DAY, month)
        if last < first + SEASON or last.astype("datetime64[ns]") < start:
            continue
        before, after = (np.flatnonzero(is_usable & (months >= s) & (months < s + SEASON)) for s in (first, last))
        pairs.append(((before, season_name(first)), (after, season_name(last))))
    return pairs


def last_season(end: np.datetime64, month: int) -> np.datetime64:
    """The month (datetime64[M]) in which the last three months that begin with `month` (0-11) and are over by `end` begin."""
    latest: np.datetime64 = end.astype("datetime64[M]") - SEASON
    return latest - np.timedelta64((int(latest.astype(int)) - month) % 12, "M")


def season_name(first: np.datetime64) -> str:
    """`Jun-Aug 2018`, or `Dec 2018-Feb 2019`."""
    last = first + SEASON - np.timedelta64(1, "M")
    (one, year), (other, end) = ((MONTHS[int(m.astype(int)) % 12], str(m)[:4]) for m in (first, last))
    return f"{one}-{other} {end}" if year == end else f"{one} {year}-{other} {end}"


def last_acquisitions(acquisitions: Acquisitions, changed: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Indices, ascending, of the last three of `among` that saw at least half of the changed pixels; none without such."""
    found: list[int] = []
    for index in among[::-1] if changed.any() else ():
        if len(found) < ACQUISITIONS_AFTER and np.isfinite(acquisitions.read(int(index))[changed]).mean() >= 0.5:
            found.append(int(index))
    return np.array(found[::-1], int)


def median_of(images: Sequence[np.ndarray]) -> np.ndarray:
    """(rows, columns) float32 median of what was seen, NaN where nothing was."""
    stacked = np.stack(images)
    return masked_median(stacked, np.isfinite(stacked), axis=0, fill=np.nan)


def _season_height(height_N: np.ndarray, times_N: np.ndarray) -> float:
    """Mean of the months' medians: a hazy acquisition does not count, and no month for more than another."""
    months_N = np.where(np.isfinite(height_N), times_N.astype("datetime64[M]").astype(int), -1)
    return float(np.mean([np.median(height_N[months_N == m]) for m in np.unique(months_N[months_N >= 0])] or [np.nan]))
