"""What every layer of change is called, means, and is stored as; COG, STAC, pictures and the docs agree on it by reading this.

Dates are stored twice, because each form fails the other's reader: days since 1970-01-01 can be subtracted and coloured, YYYYMMDD
can be read where a pixel is clicked. The time of day is left to the polygons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

NO_DATE = -(2**31)  # no change, or not seen
NOT_MONITORED, NOTHING_FOUND, CHANGED = 0, 1, 2
NOT_SEEN = 255


class Rows(Protocol):
    """An array, a memory map or a zarr array: (rows, columns), sliced by rows."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice) -> np.ndarray: ...


@dataclass(frozen=True)
class Class:
    """One code of a class raster; `colour` is `#rrggbb`. The code that is `is_nodata` is transparent in a map."""

    code: int
    name: str
    description: str
    colour: str
    is_nodata: bool = False

    @property
    def rgba(self) -> tuple[int, int, int, int]:
        red, green, blue = (int(self.colour[k : k + 2], 16) for k in (1, 3, 5))
        return red, green, blue, 0 if self.is_nodata else 255


@dataclass(frozen=True)
class LayerBand:
    """`encode(values, is_seen)` gives the stored numbers; `unit` None stands for that of the variable."""

    name: str
    description: str
    unit: str | None
    encode: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def unit_of(self, variable_unit: str) -> str:
        return variable_unit if self.unit is None else self.unit


@dataclass(frozen=True)
class Layer:
    """One file. `source` names the array it is made from."""

    name: str
    title: str
    source: str
    dtype: str
    nodata: float
    bands: tuple[LayerBand, ...]
    classes: tuple[Class, ...] = ()


def as_days(values: np.ndarray, is_seen: np.ndarray) -> np.ndarray:
    """int32 whole days since 1970-01-01 (UTC) of float64 days; NO_DATE where NaN."""
    is_dated = np.isfinite(values) & is_seen
    return np.where(is_dated, np.floor(np.where(is_dated, values, 0)), NO_DATE).astype(np.int32)


def as_calendar(values: np.ndarray, is_seen: np.ndarray) -> np.ndarray:
    """int32 YYYYMMDD (UTC) of float64 days since 1970-01-01; NO_DATE where NaN."""
    days = as_days(values, is_seen)
    is_dated = days != NO_DATE
    dates = np.where(is_dated, days, 0).astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    year = months.astype("datetime64[Y]").astype(np.int64) + 1970
    month = months.astype(np.int64) % 12 + 1
    day = (dates - months).astype(np.int64) + 1
    return np.where(is_dated, year * 10_000 + month * 100 + day, NO_DATE).astype(np.int32)


def as_number(values: np.ndarray, is_seen: np.ndarray) -> np.ndarray:
    return np.where(is_seen, values, np.nan).astype(np.float32)


def as_code(values: np.ndarray, is_seen: np.ndarray) -> np.ndarray:
    return values.astype(np.uint8)


def as_direction(values: np.ndarray, is_seen: np.ndarray) -> np.ndarray:
    """uint8 0 none, 1 decrease, 2 increase of int8 0, -1, 1; NOT_SEEN where not monitored. A colour table wants codes >= 0."""
    codes = np.select([values < 0, values > 0], [1, 2], 0)
    return np.where(is_seen, codes, NOT_SEEN).astype(np.uint8)


def _dates(name: str, title: str, source: str, text: str) -> Layer:
    days = LayerBand(f"{name}_days", f"{text}, whole days since 1970-01-01 (UTC)", "d", as_days)
    calendar = LayerBand(f"{name}_yyyymmdd", f"{text}, as the number YYYYMMDD (UTC)", "", as_calendar)
    return Layer(name, title, source, "int32", NO_DATE, (days, calendar))


def _number(name: str, title: str, text: str, unit: str | None) -> Layer:
    return Layer(name, title, name, "float32", float("nan"), (LayerBand(name, text, unit, as_number),))


# Okabe & Ito (2008): told apart with any colour vision
GREY, ORANGE, BLUE, VERMILION, WHITE = "#d5d8dc", "#e69f00", "#0072b2", "#d55e00", "#ffffff"

STATUS_CLASSES = (
    Class(NOT_MONITORED, "not-monitored", "too few usable dates in the history: nothing can be said", GREY, is_nodata=True),
    Class(NOTHING_FOUND, "nothing-found", "monitored; no change found so far", WHITE),
    Class(CHANGED, "changed", "an alarm was raised", VERMILION),
)
DIRECTION_CLASSES = (
    Class(0, "none", "monitored; no change found so far", WHITE),
    Class(1, "decrease", "lower than expected", ORANGE),
    Class(2, "increase", "higher than expected", BLUE),
    Class(NOT_SEEN, "not-monitored", "too few usable dates in the history: nothing can be said", GREY, is_nodata=True),
)
MASK_CLASSES = (
    Class(0, "unchanged", "observed on all dates that are compared; not changed", WHITE),
    Class(1, "changed", "changed between the dates", VERMILION),
    Class(NOT_SEEN, "not-observed", "cloud, shadow or no data on a date that is compared", GREY, is_nodata=True),
)

MONITOR_LAYERS = (
    Layer("status", "What is known of each pixel", "status", "uint8", NOT_MONITORED,
          (LayerBand("status", "0 not monitored, 1 nothing found, 2 changed", "", as_code),), STATUS_CLASSES),
    _dates("change_date", "Date of change", "change_day", "first date of the sequence of evidence that led to the alarm"),
    _dates("detected_date", "Date of alarm", "detected_day", "date on which the alarm was raised"),
    _dates("recovered_date", "Date of recovery", "recovered_day", "date since which values are again as expected"),
    _number("magnitude", "Magnitude of change", "observed minus expected, mean from change to alarm; 0: nothing found", None),
    Layer("direction", "Direction of change", "direction", "uint8", NOT_SEEN,
          (LayerBand("direction", "0 none, 1 decrease, 2 increase", "", as_direction),), DIRECTION_CLASSES),
    _number("confidence", "Confidence", "share of stable pixels that look less like change within a year", "1"),
    _number("score", "Test statistic", "the largest value of the sequential test so far, in standard deviations", "1"),
)  # fmt: skip

MASK = Layer("mask", "Changed or not", "mask", "uint8", NOT_SEEN,
             (LayerBand("mask", "0 unchanged, 1 changed, 255 not observed", "", as_code),), MASK_CLASSES)  # fmt: skip
CHANGE_LAYERS = (
    _number("probability", "Probability of change", "calibrated probability that the pixel changed between the dates", "1"),
    MASK,
)
SCORE_LAYERS = (  # of two images without a model
    _number("score", "Change score", "length of the change vector, in standard deviations of the site", "1"),
    MASK,
)
