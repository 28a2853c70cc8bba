"""The pattern of a folder's file names: `{date:%Y%m%d}`, `{band}` and `*`, matched against the path below the folder.

A folder of several sites has `{site}` too, and `{step}` where a file of dates says when each step was seen.
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
    """What a file name says: the band ("" if the pattern has none), the date's text, and the name without the band.

    `site` and `step` are "" where the pattern has none.
    """

    band: str
    date_text: str
    key: str
    site: str = ""
    step: str = ""


@dataclass(frozen=True)
class FilePattern:
    """A pattern of file names. Several date fields are read together; `*` is anything but `/`.

    `fields` are the names in braces that may stand in it beside the date; one that stands twice must say the same twice.
    """

    text: str
    fields: tuple[str, ...] = FOLDER_FIELDS

    @cached_property
    def date_format(self) -> str:
        """The formats of the date fields, joined by blanks; "" where {step} stands for the date.

        Raises RequestError if there is neither, or something unknown.
        """
        formats = []
        for date_format, field, _, unknown in TOKEN.findall(self.text):
            if unknown or (field and field not in self.fields):
                known = ", ".join(["{date:%Y%m%d}", *(f"{{{name}}}" for name in self.fields)])
                shown = unknown or f"{{{field}}}"
                raise RequestError(f"{shown} in the pattern {self.text!r} is not known; fields are {known} and *")
            if date_format:
                format_regex(date_format)  # raises for unknown directives
                formats.append(date_format)
        if self.has("step"):
            if formats:
                raise RequestError(
                    f"the pattern {self.text!r} has both a date and {{step}}; write the one that is to be believed"
                )
            return ""
        if not formats:
            raise RequestError(f"the pattern {self.text!r} has no date; write {{date:%Y%m%d}} where the date stands")
        if not any(year in date_format for date_format in formats for year in ("%Y", "%y")):
            raise RequestError(f"the date in the pattern {self.text!r} has no year; write for example {{date:%Y%m%d}}")
        return " ".join(formats)

    def has(self, field: str) -> bool:
        return f"{{{field}}}" in self.text

    @property
    def has_band(self) -> bool:
        return self.has("band")

    def regex(self, bands: tuple[str, ...] | None = None, any_date: bool = False) -> re.Pattern[str]:
        """Matches whole paths; `bands` limits what stands for {band}, `any_date` takes anything for a date."""
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
        """What `path` (below the folder, with /) says, or None if it does not fit the pattern."""
        match = self.regex(bands, any_date).fullmatch(path)
        return named(match) if match else None


def named(match: re.Match[str]) -> Named:
    groups = match.groupdict()
    dates = [groups[name] for name in sorted(groups) if name.startswith("date")]
    key = match.string
    for start, stop in sorted((match.span(name) for name in groups if name.startswith("band")), reverse=True):
        key = f"{key[:start]}{{band}}{key[stop:]}"
    return Named(groups.get("band0", ""), " ".join(dates), key, groups.get("site0", ""), groups.get("step0", ""))
