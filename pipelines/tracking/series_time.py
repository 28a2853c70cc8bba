"""Time of tracked objects as numbers, and its unit: visits days apart, frames of a second, or numbered masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.tracking.table import time_column, time_of
from pipelines.tracking.tracks import When

if TYPE_CHECKING:
    import pandas as pd

MONTH_DAYS = 365.2425 / 12  # a mean Gregorian month
LEAST_FRAMES = 8


@dataclass(frozen=True)
class TimeUnit:
    """`name`: the unit that times and intervals are counted in; `rate`: the time that rates are given for, `in_rate` units."""

    column: str  # of the tables: date, seconds or step
    name: str  # days, hours, seconds or steps
    rate: str  # month, hour, second or step
    in_rate: float = 1.0


@dataclass(frozen=True)
class SeriesTime:
    """All times of a series: as in the tables (T,), in units since the first (T,), and the unit."""

    values_T: np.ndarray
    elapsed_T: np.ndarray
    unit: TimeUnit

    @classmethod
    def of(cls, objects: pd.DataFrame, events: pd.DataFrame, times: Sequence[When] = ()) -> SeriesTime:
        """From the tables, and all `times` of the masks: one at which nothing was there, and nothing ended, is in no table.

        Dates count in days if they lie at least one day apart (median), in hours down to one minute, else in seconds.
        """
        column = time_column(objects)
        stated = [np.array([time_of(when)[column]]) for when in times]
        values_T = np.unique(np.concatenate([objects[column].to_numpy(), events[column].to_numpy(), *stated]))
        if column != "date":
            unit = TimeUnit("seconds", "seconds", "second") if column == "seconds" else TimeUnit("step", "steps", "step")
            return cls(values_T, values_T.astype(np.float64) - float(values_T[0]), unit)
        seconds_T = (values_T - values_T[0]) / np.timedelta64(1, "s")
        step_s = float(np.median(np.diff(seconds_T))) if len(seconds_T) > 1 else 86_400.0
        if step_s >= 86_400:
            return cls(values_T, seconds_T / 86_400, TimeUnit(column, "days", "month", MONTH_DAYS))
        if step_s >= 60:
            return cls(values_T, seconds_T / 3600, TimeUnit(column, "hours", "hour"))
        return cls(values_T, seconds_T, TimeUnit(column, "seconds", "second"))

    def elapsed(self, values: np.ndarray) -> np.ndarray:
        """Units since the first time, float64, of times that the series has."""
        return self.elapsed_T[np.searchsorted(self.values_T, values)]

    def value(self, elapsed: float) -> np.datetime64 | float:
        """The inverse, of any time: a date, to the second, or a number."""
        if self.unit.column != "date":
            return float(self.values_T[0]) + elapsed
        seconds = elapsed * {"days": 86_400, "hours": 3600, "seconds": 1}[self.unit.name]
        moment = self.values_T[0].astype("datetime64[ns]") + np.timedelta64(round(seconds * 1e3), "ms")
        return np.datetime64(moment, "ns")

    def are_frames(self, axes: int) -> bool:
        """True for a series whose motion is described, not its growth: at least `LEAST_FRAMES`, in seconds, or numbered images
        (2 axes: numbered volumes are visits)."""
        is_fast = self.unit.name == "seconds" or (self.unit.name == "steps" and axes == 2)
        return is_fast and len(self.values_T) >= LEAST_FRAMES
