"""Dates as numbers, and regular time steps over irregular observations."""

import math
from collections.abc import Iterable
from datetime import datetime

import numpy as np

DAY = np.timedelta64(1, "D")
TROPICAL_YEAR_DAYS = 365.2422

# Stands for the moment of the first frame where no file states a date (NIfTI, cine, video): no image is older than 1850.
UNKNOWN_ORIGIN = np.datetime64("1800-01-01", "ns")
FIRST_IMAGES = np.datetime64("1850-01-01", "ns")


def is_elapsed(moment: np.datetime64) -> bool:
    """True for a time that counts from `UNKNOWN_ORIGIN`, so that only its distance from the first frame is known."""
    return bool(moment < FIRST_IMAGES)


def elapsed_seconds(moment: np.datetime64) -> float:
    """Seconds since the first frame."""
    return float((moment.astype("datetime64[ns]") - UNKNOWN_ORIGIN) / np.timedelta64(1, "s"))


def elapsed_text(moment: np.datetime64, digits: int = 4) -> str:
    """`24.5 s`, the time since the first frame, to so many decimals.

    >>> elapsed_text(UNKNOWN_ORIGIN + np.timedelta64(24_500, "ms"))
    '24.5 s'
    """
    text = f"{elapsed_seconds(moment):.{digits}f}".rstrip("0").rstrip(".")
    return f"{text} s"


def iso_utc(moment: np.datetime64) -> str:
    """`2020-06-05T10:15:59Z`, with milliseconds where there are some; `24.5 s` of the time since the first frame.

    >>> iso_utc(np.datetime64("2020-06-05T10:15:59.5"))
    '2020-06-05T10:15:59.500Z'
    """
    if is_elapsed(moment):
        return elapsed_text(moment)
    exact = (moment.astype("datetime64[ns]") + np.timedelta64(500, "us")).astype("datetime64[ms]")
    seconds = exact.astype("datetime64[s]")
    return f"{seconds if seconds == exact else exact}Z"


def date_text(date: datetime) -> str:
    """`2020-06-30`, or `24.5 s` where only the time since the first frame is known."""
    moment = np.datetime64(date, "ns")
    return elapsed_text(moment, digits=6) if is_elapsed(moment) else f"{date:%Y-%m-%d}"


def parse_utc(text: str) -> np.datetime64:
    """The inverse of `iso_utc`, datetime64[ns].

    >>> parse_utc("24.5 s") - UNKNOWN_ORIGIN
    np.timedelta64(24500000000,'ns')
    """
    if text.endswith(" s"):
        return UNKNOWN_ORIGIN + np.timedelta64(round(float(text.removesuffix(" s")) * 1e9), "ns")
    return np.datetime64(text.rstrip("Z"), "ns")


def to_days(dates: np.ndarray) -> np.ndarray:
    """Days since 1970-01-01T00:00 UTC, float64, with the fraction of the day. `dates`: datetime64, any shape.

    >>> float(to_days(np.array("1970-01-02T12:00", "datetime64[ns]")))
    1.5
    """
    return dates.astype("datetime64[ns]").astype(np.int64) / 86_400e9


def seconds_of(days: np.ndarray | float) -> np.ndarray:
    """Seconds since 1970-01-01 UTC, float64, to a tenth of a millisecond: equal for one date, other for the next frame."""
    return np.round(np.asarray(days, np.float64) * 86_400, 4)


def from_days(days: np.ndarray) -> np.ndarray:
    """datetime64[ns] of `days` since 1970-01-01 UTC: the inverse of `to_days`, to the microsecond."""
    return (np.round(np.asarray(days, np.float64) * 86_400e6).astype("datetime64[us]")).astype("datetime64[ns]")


def iso_date(day: float) -> str:
    """`2020-06-25`, from days since 1970-01-01."""
    return str(np.datetime64(math.floor(day), "D"))


def median_step_days(dates: np.ndarray) -> float:
    """Median interval between consecutive dates, in days; `dates` sorted, at least two."""
    return float(np.median(np.diff(to_days(dates))))


def count_before(dates: Iterable[np.datetime64], until: datetime) -> int:
    """How many of the dates lie before `until`, which may count seconds from the first of them.

    >>> count_before([np.datetime64("2020-06-05T10:00:00"), np.datetime64("2020-06-05T10:00:01")], datetime(1800, 1, 1, 0, 0, 1))
    1
    """
    known = list(dates)
    moment: np.datetime64 = np.datetime64(until, "ns")
    if known and is_elapsed(moment) and not is_elapsed(min(known)):
        moment = min(known) + (moment - UNKNOWN_ORIGIN)
    return sum(bool(date < moment) for date in known)


def format_span(days: float) -> str:
    """A duration as text, such as `16 days`, `6 hours`, `5 minutes`: three digits in the largest unit below it.

    >>> format_span(5 / 1440)
    '5 minutes'
    """
    for seconds, unit in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        text = f"{round(days * 86_400, 3) / seconds:.3g}"
        if abs(days) * 86_400 >= seconds * (1 - 1e-6) or unit == "second":
            return f"{text} {unit}{'' if text == '1' else 's'}"
    raise AssertionError("the last unit takes every span")


def nearest_observations(dates: np.ndarray, steps: np.ndarray, tolerance_days: float) -> np.ndarray:
    """Index into `dates` of the observation nearest to each of `steps`, int64; -1 if none is within `tolerance_days`.

    Both are sorted datetime64 arrays. An observation is assigned to the step nearest to it only.
    """
    days, requested = to_days(dates), to_days(steps)
    nearest = np.abs(days[None, :] - requested[:, None]).argmin(axis=1)
    distance = np.abs(days[nearest] - requested)
    nearest_step = np.abs(requested[:, None] - days[None, :]).argmin(axis=0)
    is_served = (distance <= tolerance_days) & (nearest_step[nearest] == np.arange(len(steps)))
    return np.where(is_served, nearest, -1)


def regular_steps(first: np.datetime64, last: np.datetime64, every_days: float) -> np.ndarray:
    """Steps from `first` to at most `last`, `every_days` apart, datetime64[ns]."""
    start, stop = to_days(np.array([first, last]))
    count = int(np.floor((stop - start) / every_days + 1e-9)) + 1
    return from_days(start + every_days * np.arange(count))
