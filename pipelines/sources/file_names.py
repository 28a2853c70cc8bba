"""A file-name pattern with date and band, proposed from a list of file names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass

from pipelines.sources.dates import find_dates
from pipelines.sources.pattern import FilePattern

RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".j2k", ".h5", ".hdf5", ".hdf", ".he5", ".nc", ".nc4")
KNOWN_BAND = re.compile(
    r"B\d{1,2}A?|BQA|QA_PIXEL|SR_B\d|ST_B\d+|SCL|CLD|MSK|AOT|WVP|TCI|NDVI|EVI|NDWI|LAI|BLUE|GREEN|RED|NIR|SWIR\d?|MIR|TIR|VV|VH|HH|HV|LST",
    re.IGNORECASE,
)
SEPARATORS = re.compile(r"([_./-])")
MAX_BANDS = 40


@dataclass(frozen=True)
class FileNames:
    """A proposed pattern, the bands in the names (empty: the pattern has no {band}) and the number of names that match."""

    pattern: str
    bands: tuple[str, ...]
    matched: int


def propose_pattern(paths: list[str]) -> FileNames | None:
    """The pattern that matches most of `paths` (relative, with /); None if no raster among them has a date in its name."""
    rasters = [path for path in paths if path.lower().endswith(RASTER_SUFFIXES)]
    groups: dict[tuple[str, ...], list[list[str]]] = defaultdict(list)
    for path in rasters:
        tokens = _tokens(path)
        if tokens is not None:
            groups[tuple("" if index % 2 == 0 else token for index, token in enumerate(tokens))].append(tokens)
    if not groups:
        return None
    names = max(groups.values(), key=len)
    band_at = _band_position(names)
    pattern = _pattern(names, band_at)
    fitting = FilePattern(pattern)
    bands = tuple(sorted({tokens[band_at] for tokens in names}, key=_natural)) if band_at is not None else ()
    return FileNames(pattern, bands, sum(fitting.match(path, bands or None) is not None for path in rasters))


def _tokens(path: str) -> list[str] | None:
    """The name split at separators (kept at odd positions), with its date replaced by the token "{date:...}".

    The date is the first one in the file's own name, else the first in its folders: the acquisition date comes first.
    """
    dates = find_dates(path)
    if not dates:
        return None
    base = path.rfind("/") + 1
    date_format, position = next(((f, p) for f, p in dates if p.start >= base), dates[0])
    marks = [*SEPARATORS.split(path[: position.start]), f"{{date:{date_format}}}", *SEPARATORS.split(path[position.stop :])]
    before = SEPARATORS.split(path[: position.start])
    after = SEPARATORS.split(path[position.stop :])
    assert len(marks) == len(before) + 1 + len(after)
    return [*before[:-1], before[-1] + f"{{date:{date_format}}}" + after[0], *after[1:]]


def _band_position(names: list[list[str]]) -> int | None:
    """Index of the token that takes the same few values for every combination of all others: the band."""
    best: tuple[bool, int, int] | None = None
    for position in range(0, len(names[0]), 2):
        values = {tokens[position] for tokens in names}
        if not 2 <= len(values) <= MAX_BANDS or any("{date:" in value for value in values):
            continue
        rest = Counter(tuple(tokens[:position] + tokens[position + 1 :]) for tokens in names)
        dates = {tuple(t for t in tokens if "{date:" in t) for tokens in names}
        looks_like_band = sum(bool(KNOWN_BAND.fullmatch(value)) for value in values) >= len(values) / 2
        is_complete = len(names) >= 0.8 * len(values) * len(rest)
        if is_complete and dates and (looks_like_band or len(rest) > 1):
            candidate = (looks_like_band, -len(rest), position)
            best = max(best, candidate) if best else candidate
    return best[2] if best else None


def _pattern(names: list[list[str]], band_at: int | None) -> str:
    parts = []
    for position, first in enumerate(names[0]):
        values = {tokens[position] for tokens in names}
        if position == band_at:
            parts.append("{band}")
        elif len(values) == 1:
            parts.append(first)
        else:
            parts.append(_common(values))
    return "".join(parts)


def _common(values: set[str]) -> str:
    """The token with its varying text replaced by `*` and the date field kept."""
    fields = {re.search(r"\{date:[^{}]*\}", value) for value in values}
    texts = {match.group() for match in fields if match}
    if not texts:
        return "*"
    field: str = Counter(re.findall(r"\{date:[^{}]*\}", "".join(sorted(values)))).most_common(1)[0][0]
    heads = {value.split(field)[0] for value in values if field in value}
    tails = {value.split(field)[-1] for value in values if field in value}
    return (heads.pop() if len(heads) == 1 else "*") + field + (tails.pop() if len(tails) == 1 else "*")


def _natural(text: str) -> list[tuple[int, int | str]]:
    """Sort key that puts B2 before B10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", text) if part]
