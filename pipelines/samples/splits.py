"""Block split: assigns blocks of pixels to training, validation and test, and combines them with the issue dates.

Blocks are assigned at random by seed. Training windows stay `buffer_px` inside their block and end before validation; the
targets of validation and test are in their own periods. `audit` verifies this from the finished list of windows alone.
"""

import math
from itertools import pairwise

import numpy as np

from pipelines.errors import RequestError
from pipelines.samples.plan import PARTS, Sampling, Split, Window, WindowPlan
from pipelines.samples.windows import assign_issues
from pipelines.tiles import Tile


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

    >>> [block.shape_yx for block in cut_blocks((9, 6), 4)]
    [(4, 4), (4, 2), (5, 4), (5, 2)]
    """
    axes = []
    for length in shape_yx:
        edges = [*range(0, length, block_px), length]
        if len(edges) > 2 and 2 * (edges[-1] - edges[-2]) < block_px:
            del edges[-2]
        axes.append(list(pairwise(edges)))
    return [Tile(r0, r1, c0, c1) for r0, r1 in axes[0] for c0, c1 in axes[1]]


def assign_blocks(shape_yx: tuple[int, int], split: Split) -> dict[str, list[Tile]]:
    """Tiles by part, at least one each: whole blocks for validation and test, blocks without their buffer for training.

    Validation and test get the rounded fractions of the blocks, at least one each, and leave at least one for training.
    """
    if not is_divisible(shape_yx, split.block_px, split.buffer_px):
        raise RequestError(explain_blocks(shape_yx, split))
    blocks = cut_blocks(shape_yx, split.block_px)
    order = np.random.default_rng(split.seed).permutation(len(blocks))
    test, validation = (max(1, round(share * len(blocks))) for share in (split.test_fraction, split.validation_fraction))
    while test + validation > len(blocks) - 1:
        test, validation = (test - 1, validation) if test >= validation else (test, validation - 1)
    return {
        "test": [blocks[number] for number in sorted(order[:test])],
        "validation": [blocks[number] for number in sorted(order[test : test + validation])],
        "train": [blocks[number].shrunk(split.buffer_px) for number in sorted(order[test + validation :])],
    }


def is_divisible(shape_yx: tuple[int, int], block_px: int, buffer_px: int) -> bool:
    """True if there are at least three blocks, all larger than their buffer."""
    blocks = cut_blocks(shape_yx, block_px)
    return len(blocks) >= 3 and all(min(block.shape_yx) > 2 * buffer_px for block in blocks)


def explain_blocks(shape_yx: tuple[int, int], split: Split) -> str:
    """Message for a raster that cannot be divided, with a block size that works."""
    blocks, px, buffer_px = cut_blocks(shape_yx, split.block_px), split.block_px, split.buffer_px
    problem = f"{len(blocks)} block{'s' * (len(blocks) != 1)} of {px} pixels, too few for training, validation and test"
    if len(blocks) >= 3:
        smallest = min(min(block.shape_yx) for block in blocks)
        problem = f"blocks as narrow as {smallest} pixels, of which split.buffer_px {buffer_px} on both sides leaves nothing"
    if (fitting := largest_block(shape_yx, buffer_px, px)) is not None:
        remedy = f"set split.block_px to {fitting}"
    elif buffer_px > 0 and largest_block(shape_yx, 0, max(shape_yx)) is not None:
        remedy = f"no block size leaves room for split.buffer_px {buffer_px}: lower it"
    else:
        remedy = "it is too small to be divided: use a larger area"
    return f"a raster of {shape_yx[0]} x {shape_yx[1]} pixels gives {problem}: {remedy}"


def largest_block(shape_yx: tuple[int, int], buffer_px: int, requested_px: int) -> int | None:
    """The largest block size up to `requested_px`, else the smallest above it, that divides the raster; None if none does."""
    if math.prod(shape_yx) < 3:
        return None
    start = min(requested_px, max(shape_yx))
    candidates = [*range(start, 0, -1), *range(start + 1, max(shape_yx) + 1)]
    return next((px for px in candidates if is_divisible(shape_yx, px, buffer_px)), None)
