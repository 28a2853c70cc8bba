"""Block split: assigns blocks of pixels to training, validation and test, and combines them with the issue dates.

Blocks are assigned at random by seed. Training windows stay `buffer_px` inside their block and end before validation; the
targets of validation and test are in their own periods. `audit` verifies this from the finished list of windows alone.
"""

import math
from itertools import pairwise

import numpy as np

from pipelines.errors import RequestError
from pipelines.samples.audit import Audit, audit
from pipelines.samples.plan import PARTS, Sampling, Split, Window, WindowPlan, from_json, to_json
from pipelines.samples.windows import assign_issues
from pipelines.tiles import Tile

__all__ = [
    "PARTS",
    "Audit",
    "Sampling",
    "Split",
    "Window",
    "WindowPlan",
    "audit",
    "cut_blocks",
    "from_json",
    "plan_windows",
    "to_json",
]


def plan_windows(
    times: np.ndarray, shape_yx: tuple[int, int], split: Split, steps: Sampling, context: int, horizon: int, stride: int = 1
) -> WindowPlan:
    """The plan of every window of a raster of `shape_yx` with dates `times` (datetime64, sorted), by block and issue date.

    Raises RequestError if there are too few blocks or dates for three parts; the message names a setting that works.
    """
    times = np.asarray(times).astype("datetime64[ns]")
    assigned = assign_blocks(shape_yx, split)
    issues = assign_issues(times, split, steps, context, horizon, stride)
    windows = tuple(
        Window(part, tile, issue.context_T, issue.target_K, issue.target_days_K)
        for part in PARTS
        for tile in assigned[part]
        for issue in issues[part]
    )
    return WindowPlan(times, (int(shape_yx[0]), int(shape_yx[1])), split, steps, context, horizon, stride, windows)


def cut_blocks(shape_yx: tuple[int, int], block_px: int) -> list[Tile]:
    """Blocks of about `block_px` squared that cover every pixel once, row by row.

    An edge narrower than half a block is merged with its neighbour.
    """
    rows, columns = (cut_axis(length, block_px) for length in shape_yx)
    return [Tile(r0, r1, c0, c1) for r0, r1 in rows for c0, c1 in columns]


def cut_axis(length: int, block_px: int) -> list[tuple[int, int]]:
    """Half-open intervals that cover [0, length).

    >>> cut_axis(9, 4)
    [(0, 4), (4, 9)]
    """
    edges = [*range(0, length, block_px), length]
    if len(edges) > 2 and 2 * (edges[-1] - edges[-2]) < block_px:
        del edges[-2]
    return list(pairwise(edges))


def assign_blocks(shape_yx: tuple[int, int], split: Split) -> dict[str, list[Tile]]:
    """Tiles by part, at least one each: whole blocks for validation and test, blocks without their buffer for training."""
    if not is_divisible(shape_yx, split.block_px, split.buffer_px):
        raise RequestError(explain_blocks(shape_yx, split))
    blocks = cut_blocks(shape_yx, split.block_px)
    order = np.random.default_rng(split.seed).permutation(len(blocks))
    test, validation = count_blocks(len(blocks), split)
    chosen = {
        "test": sorted(order[:test]),
        "validation": sorted(order[test : test + validation]),
        "train": sorted(order[test + validation :]),
    }
    assigned = {part: [blocks[number] for number in numbers] for part, numbers in chosen.items()}
    assigned["train"] = [block.shrunk(split.buffer_px) for block in assigned["train"]]
    return assigned


def count_blocks(blocks: int, split: Split) -> tuple[int, int]:
    """(test, validation) numbers of blocks: the rounded fractions, at least one each, and at least one left for training."""
    test = max(1, round(split.test_fraction * blocks))
    validation = max(1, round(split.validation_fraction * blocks))
    while test + validation > blocks - 1:
        if test >= validation:
            test -= 1
        else:
            validation -= 1
    return test, validation


def is_divisible(shape_yx: tuple[int, int], block_px: int, buffer_px: int) -> bool:
    """True if there are at least three blocks, all larger than their buffer."""
    blocks = cut_blocks(shape_yx, block_px)
    return len(blocks) >= 3 and all(min(block.shape_yx) > 2 * buffer_px for block in blocks)


def explain_blocks(shape_yx: tuple[int, int], split: Split) -> str:
    """Message for a raster that cannot be divided, with a block size that works."""
    height, width = shape_yx
    blocks = cut_blocks(shape_yx, split.block_px)
    problem = (
        f"{len(blocks)} block{'s' * (len(blocks) != 1)} of {split.block_px} pixels, too few for training, validation and test"
    )
    if len(blocks) >= 3:
        smallest = min(min(block.shape_yx) for block in blocks)
        problem = (
            f"blocks as narrow as {smallest} pixels, of which split.buffer_px {split.buffer_px} on both sides leaves nothing"
        )
    fitting = largest_block(shape_yx, split.buffer_px, split.block_px)
    if fitting is not None:
        remedy = f"set split.block_px to {fitting}"
    elif split.buffer_px > 0 and largest_block(shape_yx, 0, max(shape_yx)) is not None:
        remedy = f"no block size leaves room for split.buffer_px {split.buffer_px}: lower it"
    else:
        remedy = "it is too small to be divided: use a larger area"
    return f"a raster of {height} x {width} pixels gives {problem}: {remedy}"


def largest_block(shape_yx: tuple[int, int], buffer_px: int, requested_px: int) -> int | None:
    """The largest block size up to `requested_px`, else the smallest above it, that divides the raster; None if none does."""
    top = max(shape_yx)
    candidates = [*range(min(requested_px, top), 0, -1), *range(min(requested_px, top) + 1, top + 1)]
    if math.prod(shape_yx) < 3:
        return None
    return next((px for px in candidates if is_divisible(shape_yx, px, buffer_px)), None)
