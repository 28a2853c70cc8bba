"""Dates in names and in text: which format they have, and what they say. All dates are UTC."""

import csv
import re
from datetime import datetime
from pathlib import Path

import numpy as np

from pipelines.errors import MissingInput, RequestError

DIRECTIVES = {
    "%Y": r"\d{4}",
    "%y": r"\d{2}",
    "%m": r"\d{2}",
    "%d": r"\d{2}",
    "%j": r"\d{3}",
    "%H": r"\d{2}",
    "%M": r"\d{2}",
    "%S": r"\d{2}",
    "%b": r"[A-Za-z]{3}",
    "%%": "%",
}

# from the most to the least telling: a longer run of digits is never taken for a shorter date
FORMATS = (
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%dT%H-%M-%S",
    "%Y-%m-%d_%H-%M-%S",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y%m%dT%H%M%S",
    "%Y%m%d_%H%M%S",
    "%Y%m%d-%H%M%S",
    "%Y%m%d%H%M%S",
    "%Y%m%dT%H%M",
    "%Y%m%d_%H%M",
    "%Y%m%d%H%M",
    "%Y-%m-%d",
    "%Y_%m_%d",
    "%Y.%m.%d",
    "%Y/%m/%d",
    "%Y%m%d",
    "%Y%j",
)
FIRST_YEAR, LAST_YEAR = 1950, 2100


def format_regex(date_format: str) -> str:
    """A regular expression for what `date_format` (of `strptime`) writes. Raises RequestError for unknown directives."""
    parts = []
    for part in re.findall(r"%.|[^%]+|%$", date_format):
        if part.startswith("%") and part not in DIRECTIVES:
            known = " ".join(sorted(DIRECTIVES))
            raise RequestError(f"{part!r} in the date format {date_format!r} is not known; known are {known}")
        parts.append(DIRECTIVES.get(part, re.escape(part)))
    return "".join(parts)


def parse_date(text: str, date_format: str) -> np.datetime64 | None:
    """datetime64[ns] of `text`, None if it is no date of that format between 1950 and 2100."""
    try:
        moment = datetime.strptime(text, date_format)
    except ValueError:
        return None
    return np.datetime64(moment, "ns") if FIRST_YEAR <= moment.year <= LAST_YEAR else None


def find_dates(text: str) -> list[tuple[str, slice]]:
    """(format, place) of the dates in `text`, from left to right, none overlapping another."""
    found: list[tuple[str, slice]] = []
    for date_format in FORMATS:
        for match in re.finditer(rf"(?<!\d){format_regex(date_format)}(?!\d)", text):
            here = slice(*match.span())
            is_free = all(here.stop <= other.start or other.stop <= here.start for _, other in found)
            if is_free and parse_date(match.group(), date_format) is not None:
                found.append((date_format, here))
    return sorted(found, key=lambda item: item[1].start)


def detect_date(text: str) -> np.datetime64 | None:
    """The date that the whole of `text` says in one of FORMATS, else None. A trailing Z is UTC."""
    text = text.strip().removesuffix("Z").split(".000")[0]
    for date_format in FORMATS:
        if re.fullmatch(format_regex(date_format), text):
            date = parse_date(text, date_format)
            if date is not None:
                return date
    return None


def read_dates(path: Path) -> list[np.datetime64 | None]:
    """The dates of a text or CSV file, a line each, from the first column that has them; None where a line has none.

    A first line without a date is taken for the heading if any other line has one; empty lines at the end do not count.
    Raises MissingInput, RequestError (no column holds dates).
    """
    if not path.is_file():
        raise MissingInput(f"no such file of dates: {path}")
    text = path.read_bytes()[: 16 << 20].decode("utf-8-sig", "replace").rstrip()
    delimiter = next((mark for mark in (",", ";", "\t") if mark in text), ",")
    rows = list(csv.reader(text.splitlines(), delimiter=delimiter, skipinitialspace=True))
    width = max((len(row) for row in rows), default=0)
    for column in range(width):
        dates = [detect_date(row[column]) if column < len(row) else None for row in rows]
        known = sum(date is not None for date in dates)
        if known and known >= (len(rows) - 1) / 2:
            return dates if dates[0] is not None else dates[1:]
    shown = text.splitlines()[0][:60] if text else "nothing"
    raise RequestError(f"{path.name} has no column of dates; it begins with {shown!r}; write one date a line, such as 2018-06-05")
