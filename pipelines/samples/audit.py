"""Audits a split for leakage, from the finished list of windows alone.

The code is independent of `splits`: it marks the (date, pixel) pairs that each part uses and searches for pairs marked
twice. Pixels that no tile edge separates are one cell, which is exact and keeps large rasters small.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from pipelines.calendar import from_days
from pipelines.samples.plan import PARTS, UNSEEN_AFTER_TARGET_DAYS, Window, WindowPlan
from pipelines.tiles import Tile


@dataclass(frozen=True)
class Audit:
    """`ok` if nothing leaks, else `problems` as messages; `facts` are JSON-able numbers for the report."""

    ok: bool
    problems: tuple[str, ...]
    facts: dict[str, Any] = field(hash=False)


def audit(plan: WindowPlan) -> Audit:
    """Checks the list of windows: shared pixel-dates between parts, buffer, gap, order of time, counts."""
    by_part = {part: [window for window in plan.windows if window.part == part] for part in PARTS}
    problems = check_windows(plan)
    cells = Cells(plan)
    painted = {part: cells.paint(windows) for part, windows in by_part.items()}
    shared = {}
    for first, second in combinations(PARTS, 2):
        count = cells.count(painted[first] & painted[second])
        shared[f"{first}_{second}"] = count
        if count:
            problems.append(f"{count} pixel-dates are in {first} and in {second} windows")
    buffer_px = nearest_px({w.tile for w in by_part["train"]}, {w.tile for p in PARTS[1:] for w in by_part[p]})
    if buffer_px is not None and buffer_px < plan.split.buffer_px:
        problems.append(f"training tiles are {buffer_px} pixels from another part, split.buffer_px is {plan.split.buffer_px}")
    facts = {
        "shared_pixel_dates": shared,
        "least_distance_px": buffer_px,
        "least_gap_days": least_gap_days(plan, by_part),
        "parts": {part: count_part(plan, windows) for part, windows in by_part.items()},
    }
    problems += [f"there is no {part} window" for part in PARTS if not by_part[part]]
    return Audit(not problems, tuple(problems), facts)


class Cells:
    """Rectangles of pixels that no edge of any tile crosses: rows x columns, with their pixel counts."""

    def __init__(self, plan: WindowPlan):
        tiles = {window.tile for window in plan.windows}
        self.rows = np.unique([edge for tile in tiles for edge in (tile.row0, tile.row1)])
        self.columns = np.unique([edge for tile in tiles for edge in (tile.col0, tile.col1)])
        self.pixels_YX = np.outer(np.diff(self.rows), np.diff(self.columns))
        self.dates = len(plan.times)

    def paint(self, windows: Iterable[Window]) -> np.ndarray:
        """Which (date, cell) pairs the windows use as context or target, bool (dates, rows, columns)."""
        seen: dict[Tile, set[int]] = {}
        for window in windows:
            seen.setdefault(window.tile, set()).update(window.context_T, window.target_K)
        painted = np.zeros((self.dates, *self.pixels_YX.shape), bool)
        for tile, dates in seen.items():
            rows = slice(*np.searchsorted(self.rows, (tile.row0, tile.row1)))
            columns = slice(*np.searchsorted(self.columns, (tile.col0, tile.col1)))
            observed = [date for date in dates if 0 <= date < self.dates]
            painted[observed, rows, columns] = True
        return painted

    def count(self, painted_NYX: np.ndarray) -> int:
        """Number of (date, pixel) pairs."""
        return int((painted_NYX * self.pixels_YX).sum())


def check_windows(plan: WindowPlan) -> list[str]:
    """Errors of single windows: outside the raster or the dates, wrong order of time, period of another part; without repeats."""
    days = plan.days_N
    problems: dict[str, int] = {}
    for (part, context, target, target_days), example in {
        (w.part, w.context_T, w.target_K, w.target_days_K): w for w in plan.windows
    }.items():
        for problem in check_dates(plan, days, part, context, target, target_days, example):
            problems[problem] = problems.get(problem, 0) + 1
    height, width = plan.shape_yx
    for tile in {window.tile for window in plan.windows}:
        if not (0 <= tile.row0 < tile.row1 <= height and 0 <= tile.col0 < tile.col1 <= width):
            problems[f"tile {tile.key} is outside the raster of {height} x {width} pixels"] = 1
    return [problem if count == 1 else f"{problem} ({count} times)" for problem, count in problems.items()]


def check_dates(
    plan: WindowPlan,
    days_N: np.ndarray,
    part: str,
    context_T: tuple[int, ...],
    target_K: tuple[int, ...],
    target_days_K: tuple[float, ...],
    window: Window,
) -> list[str]:
    """Errors in time of one window."""
    seen, truth = [i for i in context_T if i != -1], [i for i in target_K if i != -1]
    if not all(0 <= i < len(days_N) for i in (*seen, *truth)) or context_T[-1] == -1:
        return [f"a {part} window has the index of a date that does not exist"]
    problems = []
    issue, last = days_N[context_T[-1]], max((*target_days_K, *days_N[truth]))
    first = min((*target_days_K, *days_N[truth]))
    if first <= issue or max(days_N[seen]) > issue:
        problems.append(f"a {part} window has a target that is not after its context")
    split = plan.split
    if part == "train" and max(last, issue) >= split.train_until_day:
        problems.append("a training window extends into the validation period or its gap")
    if part == "validation" and not (split.validation_from_day <= first and last < split.validation_until_day):
        problems.append("a validation window has targets outside the validation period")
    if part == "test" and first < split.test_from_day:
        problems.append("a test window has targets before the test period")
    usable = days_N[plan.usable(window)]
    forbidden = usable > issue
    if part == "train":
        forbidden &= (usable <= last + UNSEEN_AFTER_TARGET_DAYS) | (usable >= split.train_until_day)
    if forbidden.any():
        problems.append(f"a {part} window may use dates that are reserved")
    return problems


def nearest_px(tiles: set[Tile], others: set[Tile]) -> int | None:
    """Minimum number of pixels between a tile of one set and a tile of the other (0 = adjacent, -1 = overlapping)."""
    if not tiles or not others:
        return None
    edges = np.array([(t.row0, t.row1, t.col0, t.col1) for t in others])
    least = None
    for tile in tiles:
        rows = np.maximum(edges[:, 0] - tile.row1, tile.row0 - edges[:, 1])
        columns = np.maximum(edges[:, 2] - tile.col1, tile.col0 - edges[:, 3])
        nearest = int(np.maximum(np.maximum(rows, columns), -1).min())
        least = nearest if least is None else min(least, nearest)
    return least


def least_gap_days(plan: WindowPlan, by_part: dict[str, list[Window]]) -> dict[str, float | None]:
    """Days between the last date of training and the first target of validation, and between validation and test."""
    last = {part: max((max(w.target_days_K) for w in windows), default=None) for part, windows in by_part.items()}
    first = {part: min((min(w.target_days_K) for w in windows), default=None) for part, windows in by_part.items()}

    def gap(before: str, after: str) -> float | None:
        start, stop = last[before], first[after]
        return None if start is None or stop is None else stop - start

    return {"train_to_validation": gap("train", "validation"), "validation_to_test": gap("validation", "test")}


def count_part(plan: WindowPlan, windows: list[Window]) -> dict[str, Any]:
    """Windows, tiles, pixels and dates of one part."""
    tiles = {window.tile for window in windows}
    targets = [day for window in windows for day in (min(window.target_days_K), max(window.target_days_K))]
    pixels = sum(tile.shape_yx[0] * tile.shape_yx[1] for tile in tiles)
    span = [str(date)[:19] for date in from_days(np.array([min(targets), max(targets)]))] if targets else None
    return {
        "windows": len(windows),
        "tiles": len(tiles),
        "issue_dates": len({window.issue for window in windows}),
        "pixels": pixels,
        "share_of_raster": round(pixels / (plan.shape_yx[0] * plan.shape_yx[1]), 4),
        "targets_from_to": span,
    }
