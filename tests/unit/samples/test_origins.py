"""Rolling origins: inside the training part, in order of time, in places of their own."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import xarray as xr

from pipelines.errors import RequestError
from pipelines.samples.origins import (
    FEWEST_BLOCKS,
    assign_pieces,
    contexts_with_room,
    days_before,
    known_past,
    plan_origin,
    rolling_origins,
)
from pipelines.samples.plan import PARTS, Sampling, Split
from pipelines.samples.prepare import SampleSettings
from pipelines.samples.variables import Variable
from pipelines.samples.windows import assign_blocks, cut_blocks

SPLIT = Split(8, 0, np.datetime64("2018-06-01"), np.datetime64("2019-06-01"), seed=3)
SETTINGS = SampleSettings((Variable("red", "band", ("red",)),), SPLIT, Sampling(), context=4, horizon=2)


@pytest.fixture
def series(new_cube: Callable[..., xr.Dataset]) -> xr.Dataset:
    """80 months from 2015 on; 41 of them are before validation."""
    return new_cube((32, 40), 80)


@pytest.mark.parametrize("steps", [Sampling(), Sampling("regular", 61.0, 20.0)])
def test_origins_stay_in_the_training_part_and_learn_from_what_was_before(series: xr.Dataset, steps: Sampling) -> None:
    settings = replace(SETTINGS, steps=steps)
    past = known_past(series, settings)
    assert past["time"].values.max() < np.datetime64("2018-06-01")
    origins = rolling_origins(past, settings, [4], 3)
    assert len(origins) == 3
    blocks = assign_blocks((32, 40), SPLIT)["train"]
    assert days_before(past, settings, origins) > 300
    for origin in origins:
        known, plan = plan_origin(past, settings, origin)
        assert len(known["time"]) == len(plan.times) <= len(past["time"])
        ends = {part: [day for w in plan.of_part(part) for day in w.target_days_K] for part in PARTS}
        assert max(ends["train"]) < min(ends["validation"]) <= max(ends["validation"]) < min(ends["test"])
        assert max(ends["test"]) < SPLIT.train_until_day
        for a, b in combinations(PARTS, 2):
            tiles, others = ({w.tile for w in plan.of_part(part)} for part in (a, b))
            assert not any(one.overlaps(other) for one in tiles for other in others)
        assert all(any(block.common(w.tile) == w.tile for block in blocks) for w in plan.windows)


@pytest.mark.parametrize("count", [1, 2, FEWEST_BLOCKS, 12])
def test_blocks_are_held_out_whole_if_there_are_enough_else_in_parts(count: int) -> None:
    blocks = cut_blocks((12 * count, 12), 12)
    parts = assign_pieces(blocks, seed=1)
    assert all(parts.values())
    of_block = [{part for part, pieces in parts.items() if any(block.overlaps(one) for one in pieces)} for block in blocks]
    assert all(len(found) == 1 for found in of_block) == (count >= FEWEST_BLOCKS)
    assert not any(a.overlaps(b) for one, other in combinations(PARTS, 2) for a in parts[one] for b in parts[other])
    with pytest.raises(RequestError, match="too few pixels to hold some of them out"):
        assign_pieces(cut_blocks((1, 2), 2), seed=1)


@pytest.mark.parametrize(("dates", "contexts"), [(80, (3, 6, 12)), (48, (3, 6, 12)), (14, (3,)), (8, ())])
def test_short_series_compare_short_contexts_or_none(
    new_cube: Callable[..., xr.Dataset], dates: int, contexts: tuple[int, ...]
) -> None:
    settings = replace(
        SETTINGS, split=replace(SPLIT, validation_from=np.datetime64("2099-01-01"), test_from=np.datetime64("2100-01-01"))
    )
    past = known_past(new_cube((16, 16), dates), settings)
    assert contexts_with_room(past, settings, (3, 6, 12), 3) == contexts
    assert bool(rolling_origins(past, settings, contexts or (3,), 3)) == bool(contexts)
