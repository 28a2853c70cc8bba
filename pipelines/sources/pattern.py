"""Patterns of file names: `{date:%Y%m%d}`, `{band}` and `*`, matched against the path relative to a folder.

A folder of several sites also uses `{site}`, and `{step}` if a dates file gives the date of each step.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from pipelines.errors import RequestError
from pipelines.sources.dates import format_regex

TOKEN = re.compile(r"\{date:([^{}]+)\}|\{(band|site|step)\}|(\*)|(\{[^{}]*\})")
FOLDER_FIELDS = ("band",)
SITE_FIELDS = ("site", "step", "band")


@dataclass(frozen=True)
class Named:
    """A parsed file name: the band ("" if the pattern has none), the date's text, and the name without the band.

    `site` and `step` are "" if the pattern has none.
    """

    band: str
    date_text: str
    key: str
    site: str = ""
    step: str = ""


@dataclass(frozen=True)
class FilePattern:
    """A pattern of file names. Several date fields are parsed together; `*` matches anything but `/`.

    `fields` are the fields allowed beside the date. A field that occurs twice must match the same text twice.

    >>> FilePattern("{date:%Y%m%d}_{band}.tif").match("20180605_B04.tif").band
    'B04'
    """

    text: str
    fields: tuple[str, ...] = FOLDER_FIELDS

    @cached_property
    def date_format(self) -> str:
        """The formats of the date fields, joined by spaces; "" if the pattern has {step} instead of a date.

        Raises RequestError if there is neither, or an unknown field.
        """
        formats = []
        for date_format, field, _, unknown in TOKEN.findall(self.text):
            if unknown or (field and field not in self.fields):
                known = ", ".join(["{date:%Y%m%d}", *(f"{{{name}}}" for name in self.fields)])
                shown = unknown or f"{{{field}}}"
                raise RequestError(f"{shown} in the pattern {self.text!r} is unknown; supported fields are {known} and *")
            if date_format:
                format_regex(date_format)  # raises for unknown directives
                formats.append(date_format)
        if self.has("step"):
            if formats:
                raise RequestError(f"the pattern {self.text!r} has both a date and {{step}}; keep the correct one")
            return ""
        if not formats:
            raise RequestError(f"the pattern {self.text!r} has no date; write {{date:%Y%m%d}} in place of the date")
        if not any(year in date_format for date_format in formats for year in ("%Y", "%y")):
            raise RequestError(f"the date in the pattern {self.text!r} has no year; write for example {{date:%Y%m%d}}")
        return " ".join(formats)

    def has(self, field: str) -> bool:
        return f"{{{field}}}" in self.text

    @property
    def has_band(self) -> bool:
        return self.has("band")

    def regex(self, bands: tuple[str, ...] | None = None, any_date: bool = False) -> re.Pattern[str]:
        """Matches whole paths. `bands` limits what {band} matches; `any_date` accepts any text as a date."""
        assert self.date_format or self.has("step")
        band = "|".join(re.escape(name) for name in sorted(bands, key=len, reverse=True)) if bands else "[^/]+?"
        parts, position, dates = [], 0, 0
        seen: dict[str, int] = {}
        for match in TOKEN.finditer(self.text):
            parts.append(re.escape(self.text[position : match.start()]))
            position = match.end()
            date_format, field, _, _ = match.groups()
            if date_format:
                parts.append(f"(?P<date{dates}>{'[^/]+?' if any_date else format_regex(date_format)})")
                dates += 1
            elif field:
                number = seen.setdefault(field, 0)
                text = f"(?P={field}0)" if number else band if field == "band" else "[^/]+?"
                parts.append(f"(?P<{field}{number}>{text})")
                seen[field] = number + 1
            else:
                parts.append("[^/]*?")
        return re.compile("".join(parts) + re.escape(self.text[position:]))

    def match(self, path: str, bands: tuple[str, ...] | None = None, any_date: bool = False) -> Named | None:
        """`path` (relative to the folder, with /) parsed, or None if it does not match the pattern."""
        match = self.regex(bands, any_date).fullmatch(path)
        return named(match) if match else None


def named(match: re.Match[str]) -> Named:
    groups = match.groupdict()
    dates = [groups[name] for name in sorted(groups) if name.startswith("date")]
    key = match.string
    for start, stop in sorted((match.span(name) for name in groups if name.startswith("band")), reverse=True):
        key = f"{key[:start]}{{band}}{key[stop:]}"
    return Named(groups.get("band0", ""), " ".join(dates), key, groups.get("site0", ""), groups.get("step0", ""))
