"""Single values: shifted dates, numbers that are numbers, dummies. What does not have the form of its VR is not passed on."""

from __future__ import annotations

import re
from datetime import date, timedelta

# a date, in full or to the year or month; times to a fraction of a second; the zone of a date and time (PS3.5 6.2)
DATE = re.compile(r"(\d{4})[.]?(\d{2})?[.]?(\d{2})?")
DATE_TIME = re.compile(r"(\d{4}(?:\d{2}){0,2})((?:\d{2}){0,3}(?:\.\d{1,6})?)([+-]\d{4})?")
TIME = re.compile(r"([01]\d|2[0-3])(:?[0-5]\d(:?([0-5]\d|60)(\.\d{1,6})?)?)?")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
AGE = re.compile(r"(\d{3})([DWMY])")
OLDEST_YEARS = 89
LEAST_TEXT = 12
DUMMIES = {  # of attributes that may not be empty, by VR
    **dict.fromkeys(("LO", "SH", "ST", "LT", "UT", "UC", "AE", "UR"), "REMOVED"),
    "PN": "REMOVED", "CS": "REMOVED", "AS": "000D", "DA": "19000101", "DT": "19000101000000", "TM": "000000",
    "DS": "0", "IS": "0",
}  # fmt: skip


def shift_date(text: str, days: int) -> str | None:
    """A DA, moved by whole days; None if it is no date. What is given to the month or year stays so."""
    match = DATE.fullmatch(text.strip(" \0"))
    if match is None:
        return None
    year, month, day = (int(part) if part else 1 for part in match.groups())
    try:
        moved = date(year, month, day) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    full = f"{moved.year:04d}{moved.month:02d}{moved.day:02d}"
    return full[: 4 + 2 * sum(part is not None for part in match.groups()[1:])]


def shift_date_time(text: str, days: int) -> str | None:
    """A DT, moved by whole days; its time and its zone (`&ZZXX`) stay. None if it is none."""
    match = DATE_TIME.fullmatch(text.strip(" \0"))
    if match is None:
        return None
    moved = shift_date(match[1], days)
    return None if moved is None else f"{moved}{match[2]}{match[3] or ''}"


def time_of_day(text: str) -> str | None:
    """A TM as it is; None if it is none."""
    return text.strip(" \0") if TIME.fullmatch(text.strip(" \0")) else None


def shift(vr: str, text: str, days: int) -> str | None:
    """The value of a DA, DT or TM after the shift; None for other VRs and other forms.

    >>> shift("DA", "20200301", -1), shift("DT", "20200301120000.5+0100", -1), shift("TM", "120000", -1)
    ('20200229', '20200229120000.5+0100', '120000')
    """
    match vr:
        case "DA":
            return shift_date(text, days)
        case "DT":
            return shift_date_time(text, days)
        case "TM":
            return time_of_day(text)
        case _:
            return None


def capped_age(text: str) -> str | None:
    """An AS, at most 89 years; None if it is none.

    >>> capped_age("093Y"), capped_age("004M"), capped_age("Mary")
    ('089Y', '004M', None)
    """
    match = AGE.fullmatch(text.strip(" \0"))
    if match is None:
        return None
    days = int(match[1]) * {"D": 1, "W": 7, "M": 30.4375, "Y": 365.25}[match[2]]
    return f"{OLDEST_YEARS:03d}Y" if days >= (OLDEST_YEARS + 1) * 365.25 else match[0]


def is_text(raw: object) -> bool:
    """Whether the bytes of numbers are text: all of them printable, and so many that numbers are not so by chance."""
    return isinstance(raw, bytes) and len(raw) >= LEAST_TEXT and all(32 <= byte < 127 for byte in raw.rstrip(b"\0"))


def is_number(text: str) -> bool:
    """Whether a decimal or integer string holds a number and nothing else."""
    return NUMBER.fullmatch(text.strip(" \0")) is not None
