"""The pattern of a folder's file names: `{date:%Y%m%d}`, `{band}` and `*`, matched against the path below the folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from pipelines.errors import RequestError
from pipelines.sources.dates import format_regex

TOKEN = re.compile(r"\{date:([^{}]+)\}|(\{band\})|(\*)|(\{[^{}]*\})")


@dataclass(frozen=True)
class Named:
    """What a file name says: the band ("" if the pattern has none), the date's text, and the name without the band."""

    band: str
    date_text: str
    key: str


@dataclass(frozen=True)
class FilePattern:
    """A pattern of file names. Several date fields are read together; `*` is anything but `/`."""

    text: str

    @cached_property
    def date_format(self) -> str:
        """The formats of the date fields, joined by blanks. Raises RequestError if there is none, or something unknown."""
        formats = []
        for date_format, _, _, unknown in TOKEN.findall(self.text):
            if unknown:
                raise RequestError(
                    f"{unknown} in the pattern {self.text!r} is not known; fields are {{date:%Y%m%d}}, {{band}} and *"
                )
            if date_format:
                format_regex(date_format)  # raises for unknown directives
                formats.append(date_format)
        if not formats:
            raise RequestError(f"the pattern {self.text!r} has no date; write {{date:%Y%m%d}} where the date stands")
        if not any(year in date_format for date_format in formats for year in ("%Y", "%y")):
            raise RequestError(f"the date in the pattern {self.text!r} has no year; write for example {{date:%Y%m%d}}")
        return " ".join(formats)

    @property
    def has_band(self) -> bool:
        return "{band}" in self.text

    def regex(self, bands: tuple[str, ...] | None = None, any_date: bool = False) -> re.Pattern[str]:
        """Matches whole paths; `bands` limits what stands for {band}, `any_date` takes anything for a date."""
        assert self.date_format
        band = "|".join(re.escape(name) for name in sorted(bands, key=len, reverse=True)) if bands else "[^/]+?"
        parts, position, dates, bands_seen = [], 0, 0, 0
        for match in TOKEN.finditer(self.text):
            parts.append(re.escape(self.text[position : match.start()]))
            position = match.end()
            date_format, is_band, _, _ = match.groups()
            if date_format:
                parts.append(f"(?P<date{dates}>{'[^/]+?' if any_date else format_regex(date_format)})")
                dates += 1
            elif is_band:
                parts.append(f"(?P<band{bands_seen}>(?P=band0))" if bands_seen else f"(?P<band0>{band})")
                bands_seen += 1
            else:
                parts.append("[^/]*?")
        return re.compile("".join(parts) + re.escape(self.text[position:]))

    def match(self, path: str, bands: tuple[str, ...] | None = None, any_date: bool = False) -> Named | None:
        """What `path` (below the folder, with /) says, or None if it does not fit the pattern."""
        match = self.regex(bands, any_date).fullmatch(path)
        return named(match) if match else None


def named(match: re.Match[str]) -> Named:
    groups = match.groupdict()
    dates = [groups[name] for name in sorted(groups) if name.startswith("date")]
    key = match.string
    for start, stop in sorted((match.span(name) for name in groups if name.startswith("band")), reverse=True):
        key = f"{key[:start]}{{band}}{key[stop:]}"
    return Named(groups.get("band0", ""), " ".join(dates), key)
