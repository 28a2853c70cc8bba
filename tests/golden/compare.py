"""Two records side by side: byte for byte on one machine, within a tolerance between machines."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np

from tests.golden.record import Entry, Record

TOLERANCE = 1e-6  # relative and absolute
FLIPS = 0.002  # share of an array of whole numbers (classes, counts, masks) that may flip at a threshold; at least two elements
EXACT = ("cube", "sample")  # nothing is computed there that could differ between machines
DIGITS = 9  # significant, of committed values


def byte_differences(old: Record, new: Record) -> list[str]:
    """A line per role whose bytes, dtype, shape, CRS or nodata differ, or that only one of the records has."""
    return [*unmatched(old, new), *(line for role in shared(old, new) for line in by_bytes(role, old[role], new[role]))]


def number_differences(old: Record, new: Record, tolerance: float = TOLERANCE) -> list[str]:
    """A line with the old and the new value per number that differs by more than the tolerance (relative and absolute)."""
    lines = (by_numbers(role, old[role], new[role], tolerance) for role in shared(old, new))
    return [*unmatched(old, new), *(line for found in lines for line in found)]


def shared(old: Record, new: Record) -> list[str]:
    return sorted(old.keys() & new.keys())


def unmatched(old: Record, new: Record) -> list[str]:
    gone, added = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
    return [*(f"{role}: is gone" for role in gone), *(f"{role}: is new, {new[role].name}" for role in added)]


def by_bytes(role: str, old: Entry, new: Entry) -> Iterator[str]:
    if not (old.sha256 and new.sha256):
        raise ValueError(f"{role}: a record without hashes can be compared only with --tolerance")
    yield from by_kind(role, old, new)
    if old.sha256 != new.sha256:
        yield f"{role} ({new.name}): other bytes; {first_difference(old, new)}"


def by_kind(role: str, old: Entry, new: Entry) -> Iterator[str]:
    for name in ("dtype", "shape", "text"):
        if getattr(old, name) != getattr(new, name):
            yield f"{role} ({new.name}): {name} was {getattr(old, name)}, is {getattr(new, name)}"


def first_difference(old: Entry, new: Entry) -> str:
    pairs = [*zip(labels(old), numbers(old), numbers(new), strict=False)]
    found = (f"{label} was {was!r}, is {now!r}" for label, was, now in pairs if not same(was, now, 0.0))
    return next(found, "none of the recorded numbers differs")


def by_numbers(role: str, old: Entry, new: Entry, tolerance: float) -> Iterator[str]:
    if kinds := list(by_kind(role, old, new)):
        yield from kinds
        return
    agree: Callable[[str, float, float], bool] = lambda _, was, now: same(was, now, tolerance)  # noqa: E731
    if np.dtype(old.dtype).kind in "biu" and role.split("/")[1] not in EXACT and old.stats[0]:
        agree = flips_allowed(old)
    for label, was, now in zip(labels(old), numbers(old), numbers(new), strict=False):
        if not agree(label, was, now):
            yield f"{role} ({new.name}): {label} was {was:.{DIGITS}g}, is {now:.{DIGITS}g}"
    if len(old.stats) != len(new.stats):
        yield f"{role} ({new.name}): valid elements were {old.stats[0]:g}, are {new.stats[0]:g}"


def flips_allowed(old: Entry) -> Callable[[str, float, float], bool]:
    """Count and mean may differ by as much as FLIPS of the elements can make; which elements they are does not matter."""
    count, _, _, low, high = old.stats
    flips = max(2.0, FLIPS * math.prod(old.shape))
    limits = {"count": flips, "mean": flips / count * max(high - low, 1.0)}
    return lambda label, was, now: abs(now - was) <= limits.get(label, math.inf)


def labels(entry: Entry) -> list[str]:
    return [*("count", "mean", "std", "min", "max")[: len(entry.stats)], *(f"[{i}]" for i in range(len(entry.values)))]


def numbers(entry: Entry) -> list[float]:
    return [*entry.stats, *entry.values]


def same(was: float, now: float, tolerance: float) -> bool:
    return (math.isnan(was) and math.isnan(now)) or was == now or abs(now - was) <= tolerance * (1 + abs(was))


# ---------------------------------------------------------------- on disk


def write(path: Path, record: Record, *, is_short: bool = False) -> None:
    """One line per role. `is_short`: without hashes and today's names, numbers with DIGITS digits, to be committed."""
    kept = [field.name for field in fields(Entry) if not (is_short and field.name in ("sha256", "name"))]
    lines = (
        f"{json.dumps(role)}: {json.dumps([plain(getattr(entry, name), is_short) for name in kept], separators=(',', ':'))}"
        for role, entry in sorted(record.items())
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def plain(value: object, is_short: bool) -> object:
    """A JSON value: whole numbers without a point, what is not finite as text."""
    if isinstance(value, tuple):
        return [plain(one, is_short) for one in value]
    if isinstance(value, float):
        value = float(f"{value:.{DIGITS}g}") if is_short else value
        return str(value) if not math.isfinite(value) else int(value) if value.is_integer() else value
    return value


def read(path: Path, chosen: tuple[str, ...] = ()) -> Record:
    """The record in `path`, or what it holds of the `chosen` runs."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {role: entry_of(*found) for role, found in content.items() if not chosen or role.split("/")[0] in chosen}


def entry_of(dtype: str, shape: list[int], stats: list[object], values: list[object], *texts: str) -> Entry:
    sha256, name, text = texts if len(texts) == 3 else ("", "", *texts)
    return Entry(dtype, tuple(shape), floats(stats), floats(values), sha256, name, text)


def floats(values: list[object]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)  # type: ignore[arg-type]
