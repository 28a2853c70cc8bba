"""Reads windows from the cube without a cache, to fit the few parameters of a baseline before a cache exists."""

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
import xarray as xr

from pipelines.progress import Progress
from pipelines.samples.blocks import check_fits, decoded_blocks
from pipelines.samples.cache import WindowArrays, cut_targets, date_tensors, windows_of_tiles
from pipelines.samples.plan import WindowPlan
from pipelines.samples.variables import Variable

ENOUGH_WINDOWS = 120  # to fit the few numbers of a baseline


def read_windows(
    dataset: xr.Dataset, plan: WindowPlan, variables: tuple[Variable, ...], part: str, progress: Progress | None = None
) -> Iterator[WindowArrays]:
    """The windows of `part`, tile by tile, one decoded tile in memory; the same windows as `SampleCache.windows(part)`.

    Windows without a valid target pixel are left out.
    """
    check_fits(dataset, plan)
    of_tile = {tile: members for tile, members in windows_of_tiles(plan).items() if members[0][1].part == part}
    for block in decoded_blocks(dataset, sorted(of_tile), variables, progress):
        x_NCHW, valid_NHW = torch.from_numpy(block.x_NCHW), torch.from_numpy(block.valid_NHW)
        for _, window in of_tile[block.tile]:
            target, target_valid = cut_targets(block.x_NCHW, block.valid_NHW, window)
            if target_valid.any():
                truth = torch.from_numpy(target), torch.from_numpy(target_valid)
                yield WindowArrays(x_NCHW, valid_NHW, *date_tensors(plan, window), *truth, window.tile, part)


def every_nth(windows: Iterable[WindowArrays], count: int, progress: Progress | None = None) -> Iterator[WindowArrays]:
    """About `ENOUGH_WINDOWS` of `count` windows, evenly spread."""
    every = max(count // ENOUGH_WINDOWS, 1)
    for done, window in enumerate(islice(windows, 0, None, every), start=1):
        yield window
        if progress is not None:
            progress(done * every, max(count, done * every))
