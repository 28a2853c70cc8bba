"""Growth as tables: one row per track, per forecast that was checked, and per visit for the sum of all objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.tracking.growth import (
    Check,
    Forecast,
    GrowthSettings,
    Observations,
    Scatter,
    check_forecasts,
    fit_lines,
    forecast_sizes,
    observations_of,
    outline_errors,
    rate_intervals,
    scatter_of,
)
from pipelines.tracking.objects import Space
from pipelines.tracking.series_time import SeriesTime
from pipelines.tracking.table import size_columns
from pipelines.wording import counted

if TYPE_CHECKING:
    import pandas as pd

DIRECTIONS = ("growing", "shrinking", "not distinguishable")


@dataclass(frozen=True)
class Growth:
    """`growth`: a row per track; `check`: a row per forecast that was checked, None without any; `totals`: a row per visit."""

    growth: pd.DataFrame
    check: pd.DataFrame | None
    totals: pd.DataFrame
    time: SeriesTime
    scatter: Scatter
    checked: Check | None
    settings: GrowthSettings

    @property
    def rate(self) -> str:
        """The column of the rates."""
        return f"percent_per_{self.time.unit.rate}"

    @property
    def basis(self) -> str:
        """What the intervals rest on, in words."""
        edge = f"an error of the outline of {self.settings.edge_error_px:.2g} px"
        if self.scatter.is_stated:
            return f"{edge} alone: no track has three visits"
        freedom, scatter = self.scatter.freedom, np.sqrt(self.scatter.factor)
        return f"{edge}, times {scatter:.2g} for the scatter around the lines ({freedom:.0f} degrees of freedom)"

    def facts(self) -> dict[str, Any]:
        """What `track.json` says of it."""
        counts = {direction: int((self.growth.direction == direction).sum()) for direction in DIRECTIONS}
        facts = {"tracks": counts, "intervals": self.basis, "level": self.settings.level, "unit": self.time.unit.name}
        if self.checked is not None:
            mean, low, high = self.checked.difference(self.settings.level)
            forecast, no_change = self.checked.errors_M2.mean(axis=0).tolist()
            facts["check"] = {
                "tracks": len(self.checked.track_M), "inside_interval": self.checked.inside, "error_forecast": forecast,
                "error_no_change": no_change, "difference": mean,
                "difference_interval": None if np.isnan(low) else [low, high],
            }  # fmt: skip
        return facts

    def lines(self) -> list[str]:
        """The same in sentences."""
        counts = self.facts()["tracks"]
        known = ", ".join(f"{count} {direction}" for direction, count in counts.items() if count)
        of = counted(sum(counts.values()), "track")
        return [
            *([f"growth of {of}: {known}; intervals from {self.basis}"] if known else []),
            total_line(self.totals),
            *([check_line(self.checked, self.settings.level)] if self.checked is not None else []),
        ]


def growth_of(
    objects: pd.DataFrame,
    events: pd.DataFrame,
    tracks: pd.DataFrame,
    time: SeriesTime,
    space: Space,
    settings: GrowthSettings,
) -> Growth:
    """Growth of the tracks in the tables of `pipelines.tracking.table`, of two times or more."""
    seen = observations_of(objects, time, space, settings.edge_error_px)
    scatter, checked = scatter_of(fit_lines(seen)), check_forecasts(seen, settings.level)
    size = size_columns(space)[0]
    growth = growth_table(seen, tracks, objects, time, size, settings)
    check = None if checked is None else check_table(checked, seen.ids_J, time, size)
    totals = totals_table(objects, events, time, space, scatter, settings)
    return Growth(growth, check, totals, time, scatter, checked, settings)


def next_time(time: SeriesTime, settings: GrowthSettings) -> float:
    """When the next visit is, in units since the first: after the last by `next_in`, or by the last interval again."""
    last = float(time.elapsed_T[-1])
    return last + (settings.next_in if settings.next_in is not None else last - float(time.elapsed_T[-2]))


def growth_table(
    seen: Observations, tracks: pd.DataFrame, objects: pd.DataFrame, time: SeriesTime, size: str, settings: GrowthSettings
) -> pd.DataFrame:
    """One row per track: rate, doubling or halving time, size at the next visit, each with its interval.

    Tracks that ended have no next size; those of one visit no rate, and as next size no change.
    """
    import pandas as pd

    lines, unit = fit_lines(seen), time.unit
    scatter, visits_J, there_J = scatter_of(lines), lines.visits_J, lines.visits_J > 0
    rate, low, high = rate_intervals(lines, scatter, settings.level)
    first_J, last_J, last_size_J = np.full((3, len(seen.ids_J)), np.nan)
    first_J[seen.track_N[::-1]] = seen.time_N[::-1]
    last_J[seen.track_N], last_size_J[seen.track_N] = seen.time_N, np.exp(seen.log_size_N)
    ahead = forecast_sizes(seen, np.full(len(seen.ids_J), next_time(time, settings)), settings.level)
    by_track = tracks.set_index("track_id").loc[seen.ids_J]
    is_open_J = (by_track.ended == "").to_numpy()
    columns: dict[str, Any] = {"track_id": seen.ids_J, "visits": visits_J}
    for name, values in (("first", first_J), ("last", last_J)):
        columns[f"{name}_{unit.column}"] = [time.value(value) if ok else None for value, ok in zip(values, there_J, strict=True)]
    columns[f"last_{size}"] = last_size_J
    percent = f"percent_per_{unit.rate}"
    for end, values in (("", rate), ("_low", low), ("_high", high)):
        columns[f"{percent}{end}"] = 100 * np.expm1(np.clip(values * unit.in_rate, -50, 50))
    columns["direction"] = directions(low, high)
    columns |= doubling_columns(rate, low, high, unit.name)
    columns[f"next_{unit.column}"] = [time.value(next_time(time, settings)) if ok else None for ok in is_open_J]
    for end, values in (("", ahead.log_size_J), ("_low", ahead.low_J), ("_high", ahead.high_J)):
        columns[f"next_{size}{end}"] = np.where(is_open_J, np.exp(np.clip(values, -700, 700)), np.nan)
    columns["ended"] = by_track.ended.to_numpy()
    columns["at_edge"] = objects.groupby("track_id").at_edge.any().loc[seen.ids_J].to_numpy()
    return pd.DataFrame(columns)


def directions(low_J: np.ndarray, high_J: np.ndarray) -> np.ndarray:
    """What the interval of a rate says; "" without one."""
    sure = np.select([low_J > 0, high_J < 0], DIRECTIONS[:2], DIRECTIONS[2])
    return np.where(np.isnan(low_J), "", sure)


def doubling_columns(rate_J: np.ndarray, low_J: np.ndarray, high_J: np.ndarray, unit: str) -> dict[str, np.ndarray]:
    """ln 2 / rate of what grows, and of what shrinks the time to half. A high end of `inf`: the rate may be 0."""
    columns = {}
    for name, sign in (("doubling", 1.0), ("halving", -1.0)):
        fast_J, slow_J = np.maximum(sign * low_J, sign * high_J), np.minimum(sign * low_J, sign * high_J)
        is_meant = sign * rate_J > 0
        for end, values in (("", sign * rate_J), ("_low", fast_J), ("_high", slow_J)):
            times = np.divide(np.log(2), values, out=np.full(len(values), np.inf), where=values > 0)
            columns[f"{name}_{unit}{end}"] = np.where(is_meant, times, np.nan)
    return columns


def check_table(checked: Check, ids_J: np.ndarray, time: SeriesTime, size: str) -> pd.DataFrame:
    """One row per track whose last visit was forecast from those before; errors are 100 |ln(found / expected)|."""
    import pandas as pd

    found, ahead = np.exp(checked.found_M), Forecast(checked.forecast_M, checked.low_M, checked.high_M)
    errors_M2 = checked.errors_M2
    columns = {
        "track_id": ids_J[checked.track_M],
        time.unit.column: [time.value(value) for value in checked.time_M],
        size: found,
        f"forecast_{size}": np.exp(ahead.log_size_J),
        f"forecast_{size}_low": np.exp(np.clip(ahead.low_J, -700, 700)),
        f"forecast_{size}_high": np.exp(np.clip(ahead.high_J, -700, 700)),
        f"no_change_{size}": np.exp(checked.no_change_M),
        "error_forecast": errors_M2[:, 0],
        "error_no_change": errors_M2[:, 1],
        "is_inside": (checked.low_M <= checked.found_M) & (checked.found_M <= checked.high_M),
    }
    return pd.DataFrame(columns)


def totals_table(
    objects: pd.DataFrame, events: pd.DataFrame, time: SeriesTime, space: Space, scatter: Scatter, settings: GrowthSettings
) -> pd.DataFrame:
    """One row per visit: the sum of all objects, and its change in per cent since the first visit and since the smallest before.

    Errors of outlines are taken as independent between objects. Objects that were not seen count with their last size.
    """
    import pandas as pd

    size, column = size_columns(space)[0], time.unit.column
    place = np.searchsorted(time.values_T, objects[column].to_numpy())
    sizes = objects[size].to_numpy()
    spread = (sizes * outline_errors(objects, space, settings.edge_error_px)) ** 2 * scatter.factor

    def per_visit(weights: np.ndarray) -> np.ndarray:
        return np.bincount(place, weights=weights, minlength=len(time.values_T))

    total_T, variance_T = per_visit(sizes), per_visit(spread)
    half_T = scatter.quantile(settings.level) * np.sqrt(variance_T)
    smallest_T = np.array([0, *(int(np.argmin(total_T[:t])) for t in range(1, len(total_T)))])
    columns: dict[str, Any] = {
        column: time.values_T,
        "objects": per_visit(np.ones(len(objects))).astype(int),
        "new": _count(events, "new", time),
        "gone": _count(events, "gone", time),
        "not_seen": per_visit((objects["event"] == "not seen").to_numpy().astype(float)).astype(int),
        f"total_{size}": total_T,
        f"total_{size}_low": np.maximum(total_T - half_T, 0),
        f"total_{size}_high": total_T + half_T,
    }
    relative_T = np.divide(variance_T, total_T**2, out=np.full(len(total_T), np.nan), where=total_T > 0)
    for name, reference_T in (("first", np.zeros(len(total_T), int)), ("smallest", smallest_T)):
        with np.errstate(divide="ignore", invalid="ignore"):  # nothing there: -100 % or no percentage, without an interval
            ratio_T = np.where(total_T[reference_T] > 0, total_T / total_T[reference_T], np.nan)
        half_T = scatter.quantile(settings.level) * np.sqrt(relative_T + relative_T[reference_T])
        half_T = np.where(np.arange(len(total_T)) == reference_T, 0.0, half_T)
        for end, factor_T in (("", np.ones(len(total_T))), ("_low", np.exp(-half_T)), ("_high", np.exp(half_T))):
            columns[f"since_{name}_percent{end}"] = 100 * (ratio_T * factor_T - 1)
    return pd.DataFrame(columns)


def _count(events: pd.DataFrame, kind: str, time: SeriesTime) -> np.ndarray:
    place = np.searchsorted(time.values_T, events.loc[events["event"] == kind, time.unit.column].to_numpy())
    return np.bincount(place, minlength=len(time.values_T))


def total_line(totals: pd.DataFrame) -> str:
    """The last visit, in a sentence."""
    last = totals.iloc[-1]
    text = {}
    for name in ("first", "smallest"):
        change, low, high = (float(last[f"since_{name}_percent{end}"]) for end in ("", "_low", "_high"))
        interval = "" if np.isnan(low) else f" ({low:+.1f} to {high:+.1f})"
        text[name] = "from nothing" if np.isnan(change) else f"{change:+.1f} %{interval}"
    return f"all objects together: {text['first']} since the first visit, {text['smallest']} since the smallest before"


def check_line(checked: Check, level: float) -> str:
    """What the check of forecasts says, in a sentence."""
    forecast, no_change = checked.errors_M2.mean(axis=0).tolist()
    mean, low, high = checked.difference(level)
    count = len(checked.track_M)
    said = "too few to compare" if np.isnan(low) else "better" if high < 0 else "worse" if low > 0 else "not distinguishable"
    interval = "" if np.isnan(low) else f" ({low:+.1f} to {high:+.1f})"
    errors = f"error {forecast:.1f} %, no change {no_change:.1f} %, difference {mean:+.1f}{interval}: {said}"
    return f"last visit of {counted(count, 'track')} forecast from those before: {errors}; {checked.inside} of {count} inside"
