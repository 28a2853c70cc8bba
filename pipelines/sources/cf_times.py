"""Times of CF coordinates, of whatever calendar and unit, as dates of the standard calendar (CF-1.11, 4.4)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import h5py
import numpy as np

from pipelines.errors import SceneRefused
from pipelines.sources.cf import short_coordinate, stated
from pipelines.sources.cf_attributes import packing, text_attribute

if TYPE_CHECKING:
    import cftime

STANDARD = ("standard", "gregorian")
GREGORIAN_SINCE = 1583  # the first whole year; the standard calendar is Julian before
MONTHS = {"month": 1, "months": 1, "year": 12, "years": 12}
FIRST_YEAR, LAST_YEAR = 1678, 2261  # of nanoseconds since 1970 in 64 bits
ZONE = re.compile(r"\d\s*([A-Za-z]{2,})$")  # the name of a time zone behind a date; offsets such as +02:00 are read
UTC = ("UTC", "GMT")
NEAR_S = 1e-3  # fractional days in float64 miss whole seconds by less


@dataclass(frozen=True)
class CfTimes:
    """`values`: datetime64[ns] UTC, NaT where there is no date. `problems`: index -> why that step has none.

    `notes`: how the calendar or the unit was read, where that may be doubted.
    """

    values: np.ndarray
    problems: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def cf_times(data: h5py.Dataset, label: str) -> CfTimes:
    """The times of a CF coordinate. Raises SceneRefused(no-date, too-large): units or calendar cannot be read.

    Dates of noleap, all_leap and 360_day are taken as they are; those that do not exist are problems. Julian dates become
    Gregorian ones. Months and years are those of the calendar, and must be whole.
    """
    units, calendar = text_attribute(data, "units"), text_attribute(data, "calendar").lower() or "standard"
    if "since" not in units:
        raise SceneRefused(label, "no-date", f"{data.name!r} has the units {units or None!r}; expected 'days since ...'")
    values, is_missing = _unpacked(short_coordinate(data, label))
    unit, _, start = (part.strip() for part in units.partition("since"))
    if (zone := ZONE.search(start)) and zone[1].upper() not in UTC:
        detail = f"{data.name!r} has the units {units!r}; the offset of {zone[1]} is not clear: write it as +hh:mm, or UTC"
        raise SceneRefused(label, "no-date", detail)
    year = re.match(r"\d{1,9}", start)
    is_early = year is not None and int(year[0]) < GREGORIAN_SINCE
    is_plain = calendar in (*STANDARD, "proleptic_gregorian") and unit.lower() not in MONTHS
    try:
        if is_plain and not is_early:
            found = CfTimes(_decoded(values, units, calendar))
        else:
            found = _converted(values, is_missing, unit, start, calendar)
    except (ValueError, OverflowError, TypeError, AttributeError) as error:
        expected = "expected seconds, minutes, hours or days since a date, in a calendar of CF (standard, noleap, 360_day ...)"
        detail = f"{data.name!r} with the units {units!r} and the calendar {calendar!r} cannot be read as dates; {expected}"
        raise SceneRefused(label, "no-date", detail) from error
    found.values[is_missing] = np.datetime64("NaT")
    return found


def _unpacked(data: h5py.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """(values, int64 where the file holds whole numbers; where they are missing)."""
    stored, (scale, offset), (missing, valid_range) = data[:], packing(data), stated(data)
    values = stored.astype(np.float64) if (scale, offset) != (1, 0) or stored.dtype.kind == "f" else stored.astype(np.int64)
    is_missing = np.isin(stored, missing) | ~np.isfinite(values)
    if valid_range is not None:
        is_missing |= (stored < valid_range[0]) | (stored > valid_range[1])
    return np.where(is_missing, 0, values) * values.dtype.type(scale) + values.dtype.type(offset), is_missing


def _decoded(values: np.ndarray, units: str, calendar: str) -> np.ndarray:
    import xarray as xr

    coordinate = xr.Dataset({"t": ("t", values, {"units": units, "calendar": calendar})})
    decoded: np.ndarray = xr.decode_cf(coordinate)["t"].values.astype("datetime64[ns]")
    return decoded


def _converted(values: np.ndarray, is_missing: np.ndarray, unit: str, start: str, calendar: str) -> CfTimes:
    """Raises ValueError, and whatever cftime raises for units and calendars that it does not know."""
    import cftime

    date_of = _months(unit, start, calendar) if unit.lower() in MONTHS else None
    times, problems = np.full(values.shape, np.datetime64("NaT"), "datetime64[ns]"), {}
    for index in np.flatnonzero(~is_missing).tolist():
        value = values[index].item()
        date = cftime.num2date(value, f"{unit} since {start}", calendar) if date_of is None else date_of(value)
        if isinstance(date, str):
            problems[index] = date
            continue
        try:
            times[index] = _as_standard(date)
        except ValueError as error:
            problems[index] = f"{date.strftime('%Y-%m-%d')} of the calendar {calendar} {error}"
    return CfTimes(times, problems, _notes(times, unit, start, calendar))


def _months(unit: str, start: str, calendar: str) -> Callable[[float], cftime.datetime | str]:
    """The date of a count of months or years, or why there is none."""
    import cftime

    first = cftime.num2date(0, f"days since {start}", calendar)

    def date_of(value: float) -> cftime.datetime | str:
        if value != round(value):
            return f"{value:g} {unit} are no whole number, and months differ in length; write days"
        months = 12 * first.year + first.month - 1 + round(value) * MONTHS[unit.lower()]
        try:
            return first.replace(year=months // 12, month=months % 12 + 1)
        except ValueError:
            return f"{value:g} {unit} since {start} is no date of the calendar {calendar}"

    return date_of


def _as_standard(date: cftime.datetime) -> np.datetime64:
    """Raises ValueError, a predicate, for what is no date of the standard calendar."""
    if date.calendar == "julian":
        date = date.change_calendar("proleptic_gregorian")
    if not FIRST_YEAR <= date.year <= LAST_YEAR:
        raise ValueError(f"is outside of {FIRST_YEAR} to {LAST_YEAR}")
    try:
        exact = datetime(date.year, date.month, date.day, date.hour, date.minute, date.second, date.microsecond)
    except ValueError as error:
        raise ValueError("is no date of the standard calendar") from error
    time = np.datetime64(exact, "ns")
    nearest = (time + np.timedelta64(500, "ms")).astype("datetime64[s]").astype("datetime64[ns]")
    return nearest if abs(time - nearest) < np.timedelta64(round(NEAR_S * 1e9), "ns") else time


def _notes(times: np.ndarray, unit: str, start: str, calendar: str) -> list[str]:
    notes = []
    first = next(iter(times[~np.isnat(times)].tolist()), None)
    if calendar == "julian":
        notes.append("calendar julian: dates were converted to those of the standard calendar")
    elif calendar in STANDARD and first is not None and unit.lower() not in MONTHS:
        notes.append(
            f"'{unit} since {start}' in the calendar {calendar}, which is Julian before 1582: dates counted in the proleptic "
            "Gregorian calendar would be some days off (since year 1: 2 days); state proleptic_gregorian if they were"
        )
    elif calendar not in (*STANDARD, "proleptic_gregorian"):
        notes.append(f"calendar {calendar}: dates are taken as they are")
    if unit.lower() in MONTHS:
        notes.append(f"'{unit} since {start}': counted in {unit} of the calendar, not in days of equal number")
    return notes
