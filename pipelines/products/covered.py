"""What published products cover, from the files that list them, so that nothing smaller takes their place unnoticed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.wording import counted

LONLAT_TOLERANCE = 0.01  # of a side, where two products differ in their CRS
ROUNDING = 1e-6  # of a side


@dataclass(frozen=True)
class Area:
    """A raster. bounds: lowest and highest coordinate of each axis in `crs`, x first; lonlat: the same in degrees, or ()."""

    crs: str
    bounds: tuple[float, ...]
    lonlat: tuple[float, ...]
    shape: tuple[int, ...]  # as in the arrays

    @property
    def pixels(self) -> str:
        return " x ".join(map(str, self.shape))

    def lacks(self, other: Area) -> bool:
        """Whether `other` reaches beyond this by more than a pixel of the coarser one, or by 1 % in another CRS.

        Longitudes of another turn, as 350 and -10 degrees, are the same.
        """
        if self.crs != other.crs:
            return self._lacks_lonlat(other, LONLAT_TOLERANCE)
        steps = [max(pair) for pair in zip(self.steps(), other.steps(), strict=True)]
        is_there = bool(self.lonlat and other.lonlat) and not self._lacks_lonlat(other, ROUNDING)
        return is_beyond(self.bounds, other.bounds, steps) and not is_there

    def _lacks_lonlat(self, other: Area, tolerance: float) -> bool:
        if not (self.lonlat and other.lonlat):
            return False
        half = len(other.lonlat) // 2
        sides = [high - low for low, high in zip(other.lonlat[:half], other.lonlat[half:], strict=True)]
        return is_beyond(self.lonlat, other.lonlat, [tolerance * side for side in sides])

    def steps(self) -> list[float]:
        half = len(self.bounds) // 2
        sides = zip(self.bounds[:half], self.bounds[half:], reversed(self.shape), strict=True)
        return [(high - low) / max(count, 1) for low, high, count in sides]


def is_beyond(inner: Sequence[float], outer: Sequence[float], tolerances: Sequence[float]) -> bool:
    half = len(outer) // 2
    lows = zip(inner[:half], outer[:half], tolerances, strict=True)
    highs = zip(inner[half:], outer[half:], tolerances, strict=True)
    return any(ours - one > by for ours, one, by in lows) or any(one - ours > by for ours, one, by in highs)


@dataclass(frozen=True)
class Covered:
    """areas: site, or "" for the only raster, -> where it is. dates and samples: how many; None: of no meaning, or unknown.

    refused: scenes that are left out for a stated reason, and so not missing.
    """

    areas: Mapping[str, Area] = field(default_factory=dict)
    dates: int | None = None
    samples: int | None = None
    refused: int = 0


def covered_by(folder: Path, dates: int | None = None, refused: int = 0) -> Covered:
    """What the products in `folder` cover; an empty value where nothing lists them. dates: in place of those that are listed."""
    collection, index = _read(folder / "collection.json"), _read(folder / "index.json")
    try:
        items = [_read(folder / link["href"]) for link in collection.get("links", ()) if link["rel"] == "item"]
        is_forecast = any("forecast:reference_datetime" in item["properties"] for item in items)
        items_of = {"" if is_forecast or len(items) == 1 else str(item["id"]): item for item in items}
        areas = {name: _area_of(item) for name, item in items_of.items()}
        if grid := index.get("grid"):
            areas[""] = _area_of_index(grid)
        listed = len(items) if is_forecast else len(index["target_times"]) if "target_times" in index else None
        return Covered(areas, listed if dates is None else dates, index.get("samples"), refused)
    except (KeyError, TypeError, ValueError, AttributeError):  # of a version to come, or edited
        return Covered(dates=dates, refused=refused)


def _area_of(item: dict[str, Any]) -> Area:
    about = item["properties"]
    crs = str(about.get("proj:code") or about.get("proj:wkt2"))
    return Area(crs, tuple(about["proj:bbox"]), tuple(item["bbox"]), tuple(about["proj:shape"]))


def _area_of_index(grid: dict[str, Any]) -> Area:
    """Of images of patients: how far they reach; their position may differ from series to series."""
    shape, sides = tuple(grid["shape"]), [n * step for n, step in zip(grid["shape"], grid["spacing"], strict=True)]
    return Area(str(grid.get("unit", "")), (*[0.0] * len(shape), *reversed(sides)), (), shape)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def shortfalls(before: Covered, after: Covered) -> Iterator[str]:
    """In what `after` covers less than `before`, with the numbers of both.

    >>> list(shortfalls(Covered(dates=3, samples=10), Covered(dates=2, samples=10)))
    ['2 dates instead of 3']
    """
    if before.dates is not None and after.dates is not None and after.dates + after.refused < before.dates + before.refused:
        yield f"{counted(after.dates, 'date')} instead of {before.dates}"
    if before.samples is not None and (after.samples or 0) < before.samples:
        yield f"{counted(after.samples or 0, 'sample')} instead of {before.samples}"
    gone = before.areas.keys() - after.areas.keys()
    if gone and (len(before.areas) > 1 or not after.areas):
        names = f" (without {', '.join(sorted(gone))})" if gone != {""} else ""
        yield f"{counted(len(after.areas), 'area')} instead of {len(before.areas)}{names}"
    for name in before.areas.keys() & after.areas.keys():
        old, new = before.areas[name], after.areas[name]
        if len(old.shape) == len(new.shape) and new.lacks(old):
            where = f"{name}: " if name else ""
            ends = "" if old.shape != new.shape else f", from {_corner(new)} on instead of {_corner(old)}"
            yield f"{where}{new.pixels} pixels instead of {old.pixels}{ends}"


def _corner(area: Area) -> str:
    return ", ".join(f"{edge:g}" for edge in area.bounds[: len(area.bounds) // 2])
