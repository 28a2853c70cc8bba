"""Audits a split for leakage, from the finished list of windows alone.

The code is independent of `splits`: it marks the (date, pixel) pairs that each part uses and searches for pairs marked
twice. Pixels that no tile edge separates are one cell, which is exact and keeps large rasters small.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from pipelines.calendar import from_days, iso_utc
from pipelines.samples.plan import PARTS, UNSEEN_AFTER_TARGET_DAYS, Window, WindowPlan
from pipelines.tiles import Box


@dataclass(frozen=True)
class Audit:
    """`ok` if nothing leaks, else `problems` as messages; `facts` are JSON-able numbers for the report."""

    ok: bool
    problems: tuple[str, ...]
    facts: dict[str, Any] = field(hash=False)


def audit(plan: WindowPlan) -> Audit:
    """Checks the list of windows: shared pixel-dates between parts, buffer, gap, order of time, counts."""
    by_part, shared = {part: plan.of_part(part) for part in PARTS}, count_shared(plan)
    problems = check_windows(plan)
    margin_note = ", seen by the earlier part, targets of the later one" if plan.split.margin_px else ""
    for names, count in shared.items():
        if count:
            problems.append(f"{count} pixel-dates are in {' and in '.join(names)} windows" + margin_note)
    buffer_px = nearest_px({w.tile for w in by_part["train"]}, {w.tile for p in PARTS[1:] for w in by_part[p]})
    if buffer_px is not None and buffer_px < plan.split.buffer_px:
        problems.append(f"training tiles are {buffer_px} pixels from another part, split.buffer_px is {plan.split.buffer_px}")
    problems += [f"there is no {part} window" for part in PARTS if not by_part[part]]
    facts = {
        "shared_pixel_dates": {"_".join(names): count for names, count in shared.items()},
        "least_distance_px": buffer_px,
        "least_gap_days": {f"{a}_to_{b}": gap_days(by_part[a], by_part[b]) for a, b in pairwise(PARTS)},
        "block_px": plan.split.block_px,
        "buffer_px": plan.split.buffer_px,
        "parts": {part: count_part(plan, windows) for part, windows in by_part.items()},
    }
    return Audit(not problems, tuple(problems), facts)


def count_shared(plan: WindowPlan) -> dict[tuple[str, str], int]:
    """How many (date, pixel) pairs two parts both use as context or target, for every two parts.

    With a margin around the tiles, windows of two parts see the same pixels: then those pairs count that are a target of the
    later part and a target, or anything that a window sees, of the earlier one. That a later window sees what an earlier one had
    to forecast is no leak: it is past by then.
    """
    has_margin = plan.split.margin_px > 0
    seen_of: dict[tuple[str, Box], set[int]] = {}
    target_of: dict[tuple[str, Box], set[int]] = {}
    for window in plan.windows:
        box = (window.part, plan.box_of(window.tile))
        seen_of.setdefault(box, set()).update(window.context_T, window.target_K)
        if has_margin:
            seen_of[box].update(np.flatnonzero(plan.usable(window)).tolist())
            target_of.setdefault((window.part, window.tile), set()).update(window.target_K)
    tiles, dates = {tile for _, tile in (*seen_of, *target_of)}, len(plan.times)
    edges = [np.unique(sides) for sides in zip(*(side for tile in tiles for side in (tile.start, tile.stop)), strict=True)]
    pixels: np.ndarray = reduce(np.multiply.outer, map(np.diff, edges))  # of each cell

    def mark(dates_of: dict[tuple[str, Box], set[int]]) -> dict[str, np.ndarray]:
        used = {part: np.zeros((dates, *pixels.shape), bool) for part in PARTS}
        for (part, tile), steps in dates_of.items():
            spans = zip(edges, tile.start, tile.stop, strict=True)
            inside = [slice(*np.searchsorted(sides, (start, stop)).tolist()) for sides, start, stop in spans]
            for step in (step for step in steps if 0 <= step < dates):
                used[part][step][tuple(inside)] = True
        return used

    earlier = mark(seen_of)
    later = mark(target_of) if has_margin else earlier
    return {(a, b): int(((earlier[a] & later[b]) * pixels).sum()) for a, b in combinations(PARTS, 2)}


def check_windows(plan: WindowPlan) -> list[str]:
    """Errors of single windows: outside the raster or the dates, wrong order of time, period of another part; without repeats."""
    days_N, whole = plan.days_N, Box.whole(plan.shape)
    different = {(w.part, w.context_T, w.target_K, w.target_days_K): w for w in plan.windows}
    problems = Counter(problem for window in different.values() for problem in check_dates(plan, days_N, window))
    for tile in {window.tile for window in plan.windows}:
        if min(tile.shape) <= 0 or Box.around((tile, whole)) != whole:
            problems[f"tile {tile.key} is outside the raster of {' x '.join(map(str, plan.shape))} pixels"] = 1
    return [problem if count == 1 else f"{problem} ({count} times)" for problem, count in problems.items()]


def check_dates(plan: WindowPlan, days_N: np.ndarray, window: Window) -> Iterator[str]:
    """Errors in time of one window."""
    part, split = window.part, plan.split
    seen, truth = ([i for i in steps if i != -1] for steps in (window.context_T, window.target_K))
    if not all(0 <= i < len(days_N) for i in (*seen, *truth)) or window.issue == -1:
        yield f"a {part} window has the index of a date that does not exist"
        return
    issue, targets = days_N[window.issue], (*window.target_days_K, *days_N[truth])
    first, last = min(targets), max(targets)
    if first <= issue or max(days_N[seen]) > issue:
        yield f"a {part} window has a target that is not after its context"
    if part == "train" and max(last, issue) >= split.train_until_day:
        yield "a training window extends into the validation period or its gap"
    if part == "validation" and not (split.validation_from_day <= first and last < split.validation_until_day):
        yield "a validation window has targets outside the validation period"
    if part == "test" and first < split.test_from_day:
        yield "a test window has targets before the test period"
    usable = days_N[plan.usable(window)]
    forbidden = usable > issue
    if part == "train":
        forbidden &= (usable <= last + UNSEEN_AFTER_TARGET_DAYS) | (usable >= split.train_until_day)
    if forbidden.any():
        yield f"a {part} window may use dates that are reserved"


def nearest_px(tiles: set[Box], others: set[Box]) -> int | None:
    """Minimum number of pixels between a tile of one set and a tile of the other (0 = adjacent, -1 = overlapping)."""
    if not tiles or not others:
        return None
    starts, stops = (np.array([getattr(tile, edge) for tile in others]) for edge in ("start", "stop"))
    distances = [int(np.maximum(starts - tile.stop, tile.start - stops).max(axis=1).clip(min=-1).min()) for tile in tiles]
    return min(distances)


def gap_days(before: Sequence[Window], after: Sequence[Window]) -> float | None:
    """Days between the last target of one part and the first of the next; None where one has no window."""
    if not before or not after:
        return None
    return min(min(w.target_days_K) for w in after) - max(max(w.target_days_K) for w in before)


def count_part(plan: WindowPlan, windows: Sequence[Window]) -> dict[str, Any]:
    """Windows, tiles, pixels and dates of one part. share_of_all: its targets among the raster's pixels on all dates."""
    tiles = {window.tile for window in windows}
    targets = [day for window in windows for day in window.target_days_K]
    pixels = sum(math.prod(tile.shape) for tile in tiles)
    ends = [min(targets), max(targets)] if targets else []
    dates = len({step for window in windows for step in window.target_K if step >= 0})
    return {
        "windows": len(windows),
        "tiles": len(tiles),
        "issue_dates": len({window.issue for window in windows}),
        "pixels": pixels,
        "share_of_raster": round(pixels / (math.prod(plan.shape)), 4),
        "target_dates": dates,
        "share_of_all": round(pixels * dates / (math.prod(plan.shape) * max(len(plan.times), 1)), 4),
        "targets_from_to": [iso_utc(day).removesuffix("Z") for day in from_days(np.array(ends))] if targets else None,
    }
