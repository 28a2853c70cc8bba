"""The saved state of every tile, brought up to the cube's dates: all blocks, a share of them, or the question which are missing.

Blocks are independent of each other (`pipelines.monitoring.blocks`), so threads, processes, Dask's workers and machines that
only know their number do them in any order, any of them twice, with the same bytes at the end.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipelines.compute import HERE, Compute, carry_out
from pipelines.cube.store import open_cube
from pipelines.errors import RequestError, StateError
from pipelines.inference.regions import Regions
from pipelines.monitoring.areas import Block, MonitoredCube
from pipelines.monitoring.blocks import Counts, Monitoring, advance_block, is_current, needs_little
from pipelines.progress import Progress
from pipelines.samples.variables import Variable
from pipelines.slices import Slice, SliceDone
from pipelines.stored_files import absolute
from pipelines.wording import counted

EARLIER = "tiles"  # folder of the states of version 0.1.0, with files of the layers beside it
MOST_NAMED = 5
FEW_BLOCKS = 32  # beyond that, what starting processes takes matters little


def advance_all(monitoring: Monitoring, compute: Compute = HERE, progress: Progress | None = None) -> Counts:
    """Brings every tile and the layers up to date; `progress` counts blocks. Raises StateError, StorageFull.

    For whoever holds the run: what no block of this state needs is removed first.
    """
    counts, blocks = Counts(), monitoring.blocks
    sweep(monitoring)
    monitoring.layers.begin()
    for done, found in enumerate(_carry_out(monitoring, blocks, compute), start=1):
        counts += found
        if progress:
            progress(done, len(blocks))
    counts.rebuilt.sort()
    return counts


def advance_slice(monitoring: Monitoring, share: Slice, compute: Compute = HERE, progress: Progress | None = None) -> SliceDone:
    """Brings every N-th block up to date, beside processes and machines that do the others. Raises StateError, StorageFull."""
    blocks = share.of(monitoring.blocks)
    left = [block for block in blocks if not is_current(monitoring, block)]
    monitoring.layers.begin()
    for done, _ in enumerate(_carry_out(monitoring, left, compute), start=1):
        if progress:
            progress(done, len(left))
    return SliceDone(len(left), len(blocks))


def _carry_out(monitoring: Monitoring, blocks: Sequence[Block], compute: Compute) -> Iterator[Counts]:
    """What is computed of each block. Where few blocks need little, processes of this machine would take longer to start."""
    is_little = len(blocks) <= FEW_BLOCKS and not compute.is_local and all(needs_little(monitoring, block) for block in blocks)
    return carry_out(MonitorWork(monitoring), blocks, compute, is_little=is_little)


def require_current(monitoring: Monitoring) -> None:
    """Raises StateError that names the blocks that are missing, damaged or behind the cube."""
    behind = [block.area.key for block in monitoring.blocks if not is_current(monitoring, block)]
    if not behind:
        return
    several = counted(len(behind), "block is", "blocks are")
    raise StateError(
        f"{monitoring.files.uri}: of {len(monitoring.blocks)}, {several} missing, damaged, or not at the dates of the cube: "
        f"{_named(behind)}; do the slices again that were to advance them, or advance the rest without --finish"
    )


def require_copied(monitoring: Monitoring, copied: Regions) -> None:
    """Raises StateError that names the blocks whose layers, as `copied` from a bucket, are not of the state that is there now."""
    if changed := [block.area.key for block in monitoring.blocks if not is_current(monitoring, block, copied)]:
        raise StateError(
            f"{monitoring.files.uri}: {counted(len(changed), 'block')} of {len(monitoring.blocks)} changed while the layers were "
            f"copied: {_named(changed)}; wait for the slice that advances them, then run `driftline monitor CONFIG` again"
        )


def _named(keys: list[str]) -> str:
    return ", ".join(keys[:MOST_NAMED]) + (f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else "")


def sweep(monitoring: Monitoring) -> None:
    """Removes blocks and layers of another layout, and a state of the earlier format."""
    kept, files = {block.area.key for block in monitoring.blocks}, monitoring.files
    names = [name.split("/") for name in files.names("")]
    for key in {parts[1] for parts in names if parts[0] == "blocks" and len(parts) > 2} - kept:
        files.remove(f"blocks/{key}")
    if any(parts[0] == EARLIER for parts in names):
        files.remove(EARLIER)
    for parts in names:
        if parts[0] == "layers" and len(parts) == 2:
            files.discard("/".join(parts))
    monitoring.layers.sweep()


@dataclass(frozen=True)
class MonitorWork:
    """Monitoring as work for other processes, which open the cube by name (`pipelines.compute`)."""

    monitoring: Monitoring

    @property
    def key(self) -> str:
        return hashlib.sha256(f"{self.monitoring.folder} {self.monitoring.made_for}".encode()).hexdigest()

    @property
    def on_gpu(self) -> bool:
        return False

    def open(self) -> Callable[[Block], Counts]:
        if not self.monitoring.layers.has_begun():
            folder = self.monitoring.folder
            raise RequestError(f"this worker does not see {folder}: set monitoring.state to a place that all workers share")
        return partial(advance_block, self.monitoring)

    def limit(self, threads: int) -> None:
        if "torch" in sys.modules:  # some models of expected values are networks
            import torch

            torch.set_num_threads(threads)

    def __reduce__(self) -> tuple[Callable[..., MonitorWork], tuple[object, ...]]:
        one, cube = self.monitoring, self.monitoring.cube
        named = (absolute(cube.uri), cube.snapshot, cube.variable, cube.start_ns) if cube.uri else cube
        return _reopened, (named, one.detector, one.made_for, absolute(one.folder), one.keep_every, one.block_px)


def _reopened(named: tuple[str, str, Variable, int] | MonitoredCube, *others: Any) -> MonitorWork:
    cube = named if isinstance(named, MonitoredCube) else MonitoredCube(open_cube(named[0], named[1]), *named[1:], uri=named[0])
    return MonitorWork(Monitoring(cube, *others))
