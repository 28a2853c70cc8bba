"""Dates in file names and text: detect their format and parse them. All dates are UTC, unless %z says otherwise."""

import csv
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from pipelines.errors import MissingInput, RequestError

DIRECTIVES = {
    "%Y": r"\d{4}", "%y": r"\d{2}", "%m": r"\d{2}", "%d": r"\d{2}", "%j": r"\d{3}",
    "%H": r"\d{2}", "%M": r"\d{2}", "%S": r"\d{2}", "%b": r"[A-Za-z]{3}", "%%": "%",
    "%z": r"(?:Z|[+-]\d{2}:?\d{2})",
}  # fmt: skip
FORMATS = (  # longest first: a longer run of digits must not match as a shorter date
    "%Y%jT%H%M%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H-%M-%S", "%Y-%m-%d_%H-%M-%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M",
    "%Y%m%dT%H%M%S", "%Y%m%d_%H%M%S", "%Y%m%d-%H%M%S", "%Y%m%d%H%M%S", "%Y%m%dT%H%M", "%Y%m%d_%H%M", "%Y%m%d%H%M",
    "%Y-%m-%d", "%Y_%m_%d", "%Y.%m.%d", "%Y/%m/%d", "%Y%m%d", "%Y%j",
)  # fmt: skip
DAY_FIRST = ("%d%m%Y", "%d%b%Y", "%d-%m-%Y", "%d.%m.%Y", "%d_%m_%Y")
COARSE = ("%Y-%m", "%Y_%m", "%b%Y", "%Y%b", "%Y%m", "%Y")  # in names without a day: the first day of the month or year
LANDSAT_DAY = re.compile(r"(?<=L[COTEM][1-9]\d{6})\d{7}(?=[A-Z]{3}\d\d)")  # LE71820322012273ASN00, before the collections
FIRST_YEAR, LAST_YEAR = 1950, 2100
DATE_HEADING = r"date|time|acqui|observ|sensed|sensing|day|^t$"  # of a column of dates
LATER_HEADING = r"process|creat|publish|updat|ingest|download|modif"  # of one with other dates than those of acquisition
ID_HEADING = r"#|(?:[a-z]+_)?(?:id|fid|gid|uid|index|idx|nr|no|num|number|row|count)"  # of one that numbers the lines


def format_regex(date_format: str) -> str:
    """A regular expression for text in `date_format` (of `strptime`). Raises RequestError for unknown directives."""
    parts = []
    for part in re.findall(r"%.|[^%]+|%$", date_format):
        if part.startswith("%") and part not in DIRECTIVES:
            known = " ".join(sorted(DIRECTIVES))
            raise RequestError(f"{part!r} in the date format {date_format!r} is unknown; supported are {known}")
        parts.append(DIRECTIVES.get(part, re.escape(part)))
    return "".join(parts)


MOST_CELLS = 70_000  # of a list of dates: a TIFF has at most 65,535 bands


def parse_date(text: str, date_format: str) -> np.datetime64 | None:
    """datetime64[ns] of `text`, in UTC where it states a time zone (%z); None unless it is a date between 1950 and 2100.

    >>> str(parse_date("20180605", "%Y%m%d"))
    '2018-06-05T00:00:00.000000000'
    >>> str(parse_date("20180605T2330-0200", "%Y%m%dT%H%M%z"))
    '2018-06-06T01:30:00.000000000'
    >>> parse_date("2019366", "%Y%j") is None
    True
    """
    try:
        moment = datetime.strptime(text, date_format)
        moment = moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    if "%j" in date_format and moment.strftime(date_format) != text:  # day 366 of other years becomes the next new year
        return None
    return np.datetime64(moment, "ns") if FIRST_YEAR <= moment.year <= LAST_YEAR else None


def find_dates(text: str) -> list[tuple[str, slice]]:
    """(format, position) of the dates in `text`, from left to right, without overlaps; months and years only without any day.

    >>> find_dates("S2A_20180605_B04.tif")
    [('%Y%m%d', slice(4, 12, None))]
    """
    found: list[tuple[str, slice]] = [("%Y%j", slice(*match.span())) for match in LANDSAT_DAY.finditer(text)]
    for formats in (FORMATS, DAY_FIRST, COARSE):
        for date_format in formats:
            word = r"A-Za-z\d" if "%b" in date_format else r"\d"
            for match in re.finditer(rf"(?<![{word}]){format_regex(date_format)}(?![{word}])", text):
                is_free = all(match.end() <= other.start or other.stop <= match.start() for _, other in found)
                if is_free and parse_date(match.group(), date_format) is not None:
                    found.append((date_format, slice(*match.span())))
        if found:
            break
    return sorted(found, key=lambda item: item[1].start)


def detect_date(text: str) -> np.datetime64 | None:
    """The date if the whole of `text` is a date in one of FORMATS, else None. A trailing Z (UTC) is allowed."""
    text = text.strip().removesuffix("Z").split(".000")[0]
    dates = (parse_date(text, form) for form in FORMATS if re.fullmatch(format_regex(form), text))
    return next((date for date in dates if date is not None), None)


def read_dates(path: Path) -> tuple[list[np.datetime64 | None], list[str]]:
    """(the dates of a text or CSV file, one per line, None for lines without a date; notes on the column they come from).

    A first line without a date is a heading if any other line has one. Empty lines at the end are ignored. Of several columns
    that can be read as dates the one whose heading says so is taken; one whose heading says that it numbers lines is not.
    Raises MissingInput, RequestError (no column holds dates, or several do and differ).
    """
    if not path.is_file():
        raise MissingInput(f"no such dates file: {path}")
    text = path.read_bytes()[: 16 << 20].decode("utf-8-sig", "replace").rstrip()
    delimiter = next((mark for mark in (",", ";", "\t") if mark in text), ",")
    try:
        rows = list(csv.reader(text.splitlines(), delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:
        raise RequestError(f"{path.name} cannot be read as text with a date on each line: {error}") from error
    width = max((len(row) for row in rows), default=0)
    if len(rows) * width > MOST_CELLS:
        raise RequestError(f"{path.name} has {len(rows)} lines and {width} columns, too many for dates; keep one column of dates")
    columns: dict[str, list[np.datetime64 | None]] = {}
    for column in range(width):
        dates = [detect_date(row[column]) if column < len(row) else None for row in rows]
        known = sum(date is not None for date in dates)
        heading = rows[0][column].strip() if rows and column < len(rows[0]) and dates[0] is None else ""
        if known and known >= (len(rows) - 1) / 2 and not re.fullmatch(ID_HEADING, heading, re.IGNORECASE):
            columns[heading or f"column {column + 1}"] = dates if dates[0] is not None else dates[1:]
    if columns:
        named = [name for name in columns if re.search(DATE_HEADING, name, re.IGNORECASE)]
        named = [name for name in named if not re.search(LATER_HEADING, name, re.IGNORECASE)] or named
        chosen = columns[(named or [*columns])[0]]
        rivals = [name for name in named or columns if columns[name] != chosen]
        if rivals:
            several = ", ".join(repr(name) for name in named or columns)
            raise RequestError(f"{path.name} has several columns of dates that differ ({several}); keep one of them")
        others = [repr(name) for name in columns if columns[name] != chosen]
        note = (
            f"{path.name}: the dates are those of {named[0]!r}; {', '.join(others)} could be read as dates too" if others else ""
        )
        return chosen, [note] if note else []
    shown = text.splitlines()[0][:60] if text else "nothing"
    raise RequestError(f"{path.name} has no column of dates; it begins with {shown!r}; write one per line, such as 2018-06-05")


def format_date(date: np.datetime64) -> str:
    """2018-06-05, or 2018-06-05T10:15:59 with the time of day."""
    return str(date.astype("datetime64[s]")).removesuffix("T00:00:00")
