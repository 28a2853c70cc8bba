"""Rolling origins inside the training part: what candidates of a model learn from, end their training by, and are scored on.

Nothing of validation or test is used: the past ends with the training period, and all windows lie in training blocks. At each
origin some blocks are kept for the scores, and others choose the epoch; where there are too few blocks, parts of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from pipelines.calendar import to_days
from pipelines.cube.store import space_dims
from pipelines.errors import RequestError
from pipelines.samples.plan import MOST_WINDOWS, PARTS, PIECE_PIXELS, Window, WindowPlan
from pipelines.samples.prepare import SampleSettings, step_days
from pipelines.samples.windows import assign_blocks, cut_blocks, list_issues, nearest_steps, part_of
from pipelines.tiles import Box

SCORED_SHARE = 0.12  # of the steps of the past, at each origin; as many before them choose the epoch
FEWEST_LEARNT = 3  # windows in time of the first origin
MOST_PIECES = {"train": 24, "validation": 8, "test": 12}
FEWEST_BLOCKS = 5  # of which one scores, one chooses the epoch, three teach


@dataclass(frozen=True)
class Origin:
    """Steps of the past, counted from its first: epochs are chosen from `stop`, scores are of `score` to before `until`."""

    stop: int
    score: int
    until: int


def known_past(dataset: xr.Dataset, settings: SampleSettings) -> xr.Dataset:
    """The dates of the training period; nothing later is read from it."""
    times = dataset["time"].values
    split = settings.split.from_first(times[0]) if len(times) else settings.split
    return dataset.isel(time=np.flatnonzero(to_days(times) < split.train_until_day))


def rolling_origins(past: xr.Dataset, settings: SampleSettings, contexts: Sequence[int], most: int) -> tuple[Origin, ...]:
    """Up to `most` origins, the newest first, that all of `contexts` have room for; () if there is none."""
    steps = len(nearest_steps(past["time"].values, settings.steps)[0]) if past.sizes["time"] > 1 else 0
    needed = max(contexts, default=0) + settings.horizon + FEWEST_LEARNT - 1
    shortest = settings.horizon + (math.ceil(settings.split.gap_days / step_days(past, settings)) if steps else 0)
    for length in (max(shortest, round(SCORED_SHARE * steps)), shortest):
        count = min(most, (steps - needed) // length - 1) if steps else 0
        if count >= 1:
            ends = [steps - number * length for number in range(count)]
            return tuple(Origin(end - 2 * length, end - length, end) for end in ends)
    return ()


def contexts_with_room(past: xr.Dataset, settings: SampleSettings, wished: Sequence[int], most: int) -> tuple[int, ...]:
    """Those of `wished` that leave two origins (or `most`), else those that leave one, else ()."""
    for least in (min(most, 2), 1):
        found = tuple(one for one in wished if len(rolling_origins(past, settings, [one], most)) >= least)
        if found:
            return found
    return ()


def days_before(past: xr.Dataset, settings: SampleSettings, origins: Sequence[Origin]) -> float:
    """Days that the first origin learns from; 0.0 without one."""
    if not origins:
        return 0.0
    days = nearest_steps(past["time"].values, settings.steps)[1]
    return float(days[min(one.stop for one in origins)] - days[0])


def plan_origin(past: xr.Dataset, settings: SampleSettings, origin: Origin) -> tuple[xr.Dataset, WindowPlan]:
    """(the past as it was known at the end of the origin, its windows), for the context of `settings`.

    Parts as in a run: train, validation (chooses the epoch), test (the scores). Raises RequestError if one has no window.
    """
    days = nearest_steps(past["time"].values, settings.steps)[1]
    stop, score = (step_time(past, days[step]) for step in (origin.stop, origin.score))
    until = math.inf if origin.until == len(days) else days[origin.until]
    known = past.isel(time=np.flatnonzero(to_days(past["time"].values) < until))
    split = replace(settings.split, validation_from=stop, test_from=score)
    shape, times = tuple(past.sizes[dim] for dim in space_dims(past)), known["time"].values.astype("datetime64[ns]")
    issues = list_issues(times, settings.steps, settings.context, settings.horizon)
    parts = [(issue, part_of(issue, to_days(times), split)) for issue in issues]
    draw, windows = np.random.default_rng([settings.split.seed, origin.score]), list[Window]()
    for part, pieces in assign_pieces(assign_blocks(shape, settings.split)["train"], settings.split.seed).items():
        pairs = [(piece, issue) for piece in pieces for issue, its_part in parts if its_part == part]
        if not pairs:
            raise RequestError(f"a rolling origin has no {part} window: lower samples.context or samples.horizon")
        kept = sorted(draw.choice(len(pairs), min(MOST_WINDOWS, len(pairs)), replace=False).tolist())
        chosen = (pairs[number] for number in kept)
        windows += [Window(part, piece, one.context_T, one.target_K, one.target_days_K) for piece, one in chosen]
    lengths = settings.context, settings.horizon, settings.stride
    return known, WindowPlan(times, shape, split, settings.steps, *lengths, tuple(windows))


def step_time(past: xr.Dataset, day: float) -> np.datetime64:
    """The first date of the past that is not before that day."""
    times = past["time"].values.astype("datetime64[ns]")
    found: np.datetime64 = times[min(int(np.searchsorted(to_days(times), day - 1e-9)), len(times) - 1)]
    return found


def assign_pieces(blocks: Sequence[Box], seed: int) -> dict[str, list[Box]]:
    """Pieces of training blocks for each part, drawn by `seed`; no block is in two parts if there are `FEWEST_BLOCKS`.

    Raises RequestError for blocks that cannot be cut into three pieces.
    """
    draw = np.random.default_rng([seed, len(blocks)])
    side = max(1, round(PIECE_PIXELS ** (1 / len(blocks[0].start))))
    whole, smaller = list(blocks), side
    while len(whole) < FEWEST_BLOCKS and smaller > 0:
        whole = [piece for block in blocks for piece in pieces_of(block, smaller)]
        smaller //= 2
    if len(whole) < len(PARTS):
        raise RequestError("the training blocks have too few pixels to hold some of them out: use a larger area")
    order = draw.permutation(len(whole))
    scored, stopped = (max(1, round(share * len(whole))) for share in (0.25, 0.15))
    numbers = {"test": order[:scored], "validation": order[scored : scored + stopped], "train": order[scored + stopped :]}
    found = {}
    for part in PARTS:
        pieces = [piece for number in sorted(numbers[part]) for piece in pieces_of(whole[number], side)]
        kept = sorted(draw.choice(len(pieces), min(MOST_PIECES[part], len(pieces)), replace=False).tolist())
        found[part] = [pieces[number] for number in kept]
    return found


def pieces_of(block: Box, side: int) -> list[Box]:
    """The block cut into pieces of about `side` pixels; narrow edges go with their neighbours."""
    return [piece.moved(block.start) for piece in cut_blocks(block.shape, side)]
