"""Names of files: patterns that match them (`{date:%Y%m%d}`, `{band}`, `*`), and a pattern proposed from a list of names.

A pattern matches the path relative to a folder. That of a folder of several sites also has `{site}`, and `{step}` if a dates
file gives the date of each step.
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pipelines.errors import RequestError
from pipelines.sources.dates import find_dates, format_regex
from pipelines.sources.name_matching import Part, Spans, find_spans
from pipelines.sources.products import BESIDE, COMPOUND

TOKEN = re.compile(r"\{date:([^{}]+)\}|\{(band|site|step)\}|(\*)|(\{[^{}]*\})")
SITE_FIELDS = ("site", "step", "band")
RASTER_SUFFIXES = (".tif", ".tiff", ".gtif", ".gtiff", ".jp2", ".j2k", ".h5", ".hdf5", ".hdf", ".he5", ".nc", ".nc4")
KNOWN_BAND = re.compile(
    r"B\d{1,2}A?|BAND\d{1,2}|BQA|SCL|CMASK|CLM|FMASK|QA60|UDM2?|DN_UDM|ANALYTICMS\w*|CLD|MSK|AOT|WVP|TCI|NDVI|EVI|NDWI|LAI|BLUE|GREEN|RED|NIR|SWIR\d?|MIR|TIR|VV|VH|HH|HV|LST",
    re.IGNORECASE,
)
SEPARATORS = re.compile(r"([_./-])")
INSIDE = {mark: chr(0xE000 + number) for number, mark in enumerate("_./-")}  # separators inside the name of a band
OUTSIDE = {ord(inside): mark for mark, inside in INSIDE.items()}
DATE_FIELD = re.compile(r"\{date:[^{}]*\}")
MAX_BANDS = 40
MAX_FIELDS = 8  # of a pattern
MAX_STARS = 100


@dataclass(frozen=True)
class Named:
    """A parsed file name: the band, the date's text, and the name without the band ("" for what the pattern does not have)."""

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
    fields: tuple[str, ...] = ("band",)

    @cached_property
    def date_format(self) -> str:
        """The formats of the date fields, joined by spaces; "" if the pattern has {step} instead of a date.

        Raises RequestError if there is neither, or an unknown field.
        """
        formats = []
        if sum(not star for _, _, star, _ in TOKEN.findall(self.text)) > MAX_FIELDS:
            raise RequestError(f"the pattern {self.text!r} has more than {MAX_FIELDS} fields; write * for what need not be read")
        if self.text.count("*") > MAX_STARS:
            raise RequestError(f"the pattern {self.text[:60]!r} ... has more than {MAX_STARS} *; one stands for any text")
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

    def parts(self, bands: tuple[str, ...] = (), any_date: bool = False) -> list[Part]:
        """`bands` limits what {band} matches; `any_date` accepts any text as a date. Raises RequestError as `date_format`."""
        assert self.date_format or self.has("step")
        parts: list[Part] = []
        position, dates = 0, 0
        seen: Counter[str] = Counter()
        for match in TOKEN.finditer(self.text):
            if literal := self.text[position : match.start()]:
                parts.append(Part(literal=literal))
            position = match.end()
            date_format, field, _, _ = match.groups()
            if date_format:
                name = f"date{dates}"
                parts.append(Part(name, least=1) if any_date else Part(name, regex=re.compile(format_regex(date_format))))
                dates += 1
            elif field:
                name, choices = f"{field}{seen[field]}", sorted(bands, key=len, reverse=True) if field == "band" else ()
                first = Part(name, choices=tuple(choices), least=1)
                parts.append(Part(name, same_as=f"{field}0") if seen[field] else first)
                seen[field] += 1
            elif not parts or parts[-1] != Part():  # several * in a row are one
                parts.append(Part())
        return [*parts, Part(literal=self.text[position:])] if self.text[position:] else parts

    def match(self, path: str, bands: tuple[str, ...] = (), any_date: bool = False) -> Named | None:
        """`path` (relative to the folder, with /) parsed, or None if it does not match the pattern."""
        spans = find_spans(_parts(self, bands, any_date), path)
        return None if spans is None else _named(path, spans)


@functools.lru_cache(maxsize=256)
def _parts(pattern: FilePattern, bands: tuple[str, ...], any_date: bool) -> list[Part]:
    return pattern.parts(bands, any_date)


def _named(path: str, spans: Spans) -> Named:
    texts = {name: path[start:stop] for name, (start, stop) in spans.items()}
    dates = [texts[name] for name in sorted(texts) if name.startswith("date")]
    key = path
    for start, stop in sorted((span for name, span in spans.items() if name.startswith("band")), reverse=True):
        key = f"{key[:start]}{{band}}{key[stop:]}"
    return Named(texts.get("band0", ""), " ".join(dates), key, texts.get("site0", ""), texts.get("step0", ""))


def natural_key(text: str) -> list[tuple[int, int | str]]:
    """Sort key that puts B2 before B10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", text) if part]


def show_some(names: Sequence[str], count: int = 3, otherwise: str = "no files") -> str:
    """The first few names, and how many more there are, for a message."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more if names else otherwise


@dataclass(frozen=True)
class FileNames:
    """A proposed pattern, the bands in the names (empty: the pattern has no {band}) and the number of names that match."""

    pattern: str
    bands: tuple[str, ...]
    matched: int


def propose_pattern(paths: list[str]) -> FileNames | None:
    """The pattern that matches most of `paths` (relative, with /); None if no raster among them has a date in its name."""
    rasters = [path for path in paths if path.lower().endswith(RASTER_SUFFIXES) and not BESIDE.search(path)]
    groups: dict[tuple[str, ...], list[list[str]]] = defaultdict(list)
    for tokens in filter(None, map(_tokens, rasters)):
        groups[tuple("" if index % 2 == 0 else token for index, token in enumerate(tokens))].append(tokens)
    if not groups:
        return None
    names = max(groups.values(), key=len)
    band_at = _band_position(names)
    columns = [{tokens[position] for tokens in names} for position in range(len(names[0]))]
    pattern = "".join("{band}" if position == band_at else _common(values) for position, values in enumerate(columns))
    bands = () if band_at is None else tuple(sorted(columns[band_at], key=natural_key))
    return FileNames(pattern, bands, sum(FilePattern(pattern).match(path, bands) is not None for path in rasters))


def _tokens(path: str) -> list[str] | None:
    """The name split at separators (kept at odd positions), with its date replaced by the token "{date:...}".

    The date is the first one in the file's own name, else the first in its folders: the acquisition date comes first.
    """
    dates = find_dates(path)
    if not dates:
        return None
    base = path.rfind("/") + 1
    date_format, position = next(((f, p) for f, p in dates if p.start >= base), dates[0])
    before, after = _split(path[: position.start]), _split(path[position.stop :])
    return [*before[:-1], f"{before[-1]}{{date:{date_format}}}{after[0]}", *after[1:]]


def _split(text: str) -> list[str]:
    """`text` split at separators, which stay at odd positions; those inside the name of a band do not split it."""
    kept = COMPOUND.sub(lambda match: SEPARATORS.sub(lambda mark: INSIDE[mark.group()], match.group()), text)
    return [part.translate(OUTSIDE) for part in SEPARATORS.split(kept)]


def is_known_band(text: str) -> bool:
    return bool(COMPOUND.fullmatch(text) or KNOWN_BAND.fullmatch(text))


def _band_position(names: list[list[str]]) -> int | None:
    """Index of the token that takes the same few values for every combination of all others: the band."""
    candidates = []
    for position in range(0, len(names[0]), 2):
        values = {tokens[position] for tokens in names}
        if not 2 <= len(values) <= MAX_BANDS or any("{date:" in value for value in values):
            continue
        rest = {tuple(tokens[:position] + tokens[position + 1 :]) for tokens in names}
        looks_like_band = sum(map(is_known_band, values)) >= len(values) / 2
        is_compound = all(COMPOUND.fullmatch(value) for value in values)  # B04_10m is not in R20m
        is_complete = is_compound or len(names) >= 0.8 * len(values) * len(rest)
        if is_complete and (looks_like_band or len(rest) > 1):
            candidates.append((looks_like_band, -len(rest), position))
    return max(candidates)[2] if candidates else None


def _common(values: set[str]) -> str:
    """The token; where it varies, with the varying text replaced by `*` and the date field kept."""
    if len(values) == 1:
        return min(values)
    fields = Counter(DATE_FIELD.findall("".join(sorted(values))))
    if not fields:
        return "*"
    field: str = fields.most_common(1)[0][0]
    heads = {value.split(field)[0] for value in values if field in value}
    tails = {value.split(field)[-1] for value in values if field in value}
    return (heads.pop() if len(heads) == 1 else "*") + field + (tails.pop() if len(tails) == 1 else "*")
