"""Windows of a sample cache for a worker: from the cache's files, or decoded again from the cube where these are not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from pipelines.cube.store import open_cube
from pipelines.errors import RequestError
from pipelines.samples.cache import check_fits, decoded_blocks
from pipelines.samples.sampling import PartWindows, WindowArrays, window_arrays

Read = Callable[[Iterable[int]], Iterator[WindowArrays]]  # the windows at some positions


def reader_of(windows: PartWindows) -> Read:
    """How this process reads the windows. Raises RequestError where it sees neither their files nor the cube."""
    unseen = [path for group in windows.groups for name in ("values", "valid") if not (path := group.paths[name]).is_file()]
    if not unseen:
        return windows.at
    if windows.cube is None:
        raise RequestError(f"this worker does not see {unseen[0]}: keep the run's folder where all workers find it")
    return decoder_of(windows)


def decoder_of(windows: PartWindows) -> Read:
    """Decodes the block of each tile once for consecutive windows, as the cache did. Raises what `open_cube` raises."""
    assert windows.cube is not None
    uri, snapshot, variables = windows.cube
    dataset, plan = open_cube(uri, snapshot), windows.plan
    check_fits(dataset, plan)
    numbers = windows.numbers

    def read(positions: Iterable[int]) -> Iterator[WindowArrays]:
        chosen = (plan.windows[numbers[position]] for position in positions)
        for tile, of_tile in groupby(chosen, key=lambda window: window.tile):
            (block,) = decoded_blocks(dataset, [tile], variables, margin_px=plan.split.margin_px)
            yield from (window_arrays(plan, one, block.x_NCHW, block.valid_NHW, windows.covariates) for one in of_tile)

    return read
