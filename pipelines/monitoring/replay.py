"""The saved state of every tile, brought up to the cube's dates: one step per new date, a replay where the past has changed.

A block writes only its own tiles, and is idempotent: killed, it is simply done again. A tile's state depends on the sequence
of dates on which it was seen and on nothing else. So the dates that it has consumed are compared with the cube's, and the
first difference that it can see decides what it does: nothing, steps, a replay from a kept state, or a new fit. A replay
takes the same steps in the same order as the earlier runs did, so its bytes are those of an undisturbed run.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipelines.compute import HERE, Compute, carry_out
from pipelines.cube.store import open_cube
from pipelines.errors import ArtefactDamaged, RequestError
from pipelines.monitoring.areas import Block, BlockReader, CubeDate, MonitoredCube, plan_blocks
from pipelines.monitoring.detector import LAYER_DTYPES, Detector
from pipelines.monitoring.layers import Layers
from pipelines.monitoring.sequential_test import Arrays
from pipelines.monitoring.state import (
    Checkpoint,
    Consumed,
    Header,
    Identity,
    Stored,
    publish_header,
    read_arrays,
    read_header,
    write_arrays,
)
from pipelines.progress import Progress
from pipelines.samples.variables import Variable
from pipelines.stored_files import absolute
from pipelines.tiles import Box

logger = logging.getLogger(__name__)
Kind = Literal["nothing", "note", "steps", "replay", "fit"]


@dataclass
class Counts:
    """What was computed. `tiles`: whose state is another one now; `noted`: only their list of dates is; `dates_read`: dates read
    from the cube, once per block; `unseen`: pairs of a tile and a new date that shows nothing of it."""

    tiles: int = 0
    steps: int = 0
    replays: int = 0
    fits: int = 0
    noted: int = 0
    unseen: int = 0
    dates_read: int = 0
    rebuilt: list[str] = field(default_factory=list)  # why, one text per tile
    gone: set[str] = field(default_factory=set)  # dates that were consumed and are no longer in the cube

    def __add__(self, other: Counts) -> Counts:
        mine, theirs = vars(self), vars(other)
        return Counts(**{name: mine[name] | theirs[name] if name == "gone" else mine[name] + theirs[name] for name in mine})


@dataclass(frozen=True)
class Monitoring:
    """What is monitored, with what, and the folder of its state."""

    cube: MonitoredCube
    detector: Detector
    made_for: Identity
    folder: Path
    keep_every: int = 16

    @property
    def tiles(self) -> Path:
        return self.folder / "tiles"

    @property
    def layers(self) -> Path:
        return self.folder / "layers"

    def blocks(self) -> tuple[Block, ...]:
        return plan_blocks(self.cube, self.made_for.tile_px, self.detector.halo_px)


@dataclass(frozen=True)
class Plan:
    """What a tile does. It goes on from the state after `base` seen monitored dates and reads the dates `todo` (positions in
    the cube's list); of all others `seen` says already whether it saw them.

    `note`: no pixel changes, only the list of dates does.
    """

    kind: Kind
    base: int = 0
    todo: frozenset[int] = frozenset()
    seen: Mapping[int, bool] = field(default_factory=dict)
    gone: tuple[Consumed, ...] = ()


@dataclass
class _Work:
    """A tile on its way from the state that lies on disk to the one that will."""

    tile: Box
    folder: Path
    header: Header | None
    plan: Plan
    fitted: Arrays = field(default_factory=dict)
    state: Arrays = field(default_factory=dict)
    after: int = 0
    stored: Stored | None = None  # of `fitted`, where it lies on disk
    kept: list[Checkpoint] = field(default_factory=list)
    seen: dict[int, bool] = field(default_factory=dict)
    steps: int = 0


def advance_all(monitoring: Monitoring, compute: Compute = HERE, progress: Progress | None = None) -> Counts:
    """Brings every tile and the layers up to date; `progress` counts blocks. Raises StateError, StorageFull."""
    counts, blocks = Counts(), monitoring.blocks()
    layers = Layers.create(monitoring.layers, monitoring.cube.shape_yx, LAYER_DTYPES)
    for done, found in enumerate(carry_out(MonitorWork(monitoring, layers.written()), blocks, compute), start=1):
        counts += found
        if progress:
            progress(done, len(blocks))
    layers.compact()
    counts.rebuilt.sort()
    return counts


@dataclass(frozen=True)
class MonitorWork:
    """Monitoring as work for other processes, which open the cube by name (`pipelines.compute`).

    `written`: tile key -> what its part of the layers was made from.
    """

    monitoring: Monitoring
    written: Mapping[str, str]

    @property
    def key(self) -> str:
        return hashlib.sha256(f"{self.monitoring.folder} {self.monitoring.made_for}".encode()).hexdigest()

    @property
    def on_gpu(self) -> bool:
        return False

    def open(self) -> Callable[[Block], Counts]:
        if not self.monitoring.layers.is_dir():
            folder = self.monitoring.folder
            raise RequestError(f"this worker does not see {folder}: monitoring needs a folder that all workers share")
        return partial(advance_block, self.monitoring, self.written)

    def limit(self, threads: int) -> None:
        if "torch" in sys.modules:  # some models of expected values are networks
            import torch

            torch.set_num_threads(threads)

    def __reduce__(self) -> tuple[Callable[..., MonitorWork], tuple[object, ...]]:
        cube = self.monitoring.cube
        named = (absolute(cube.uri), cube.snapshot, cube.variable, cube.start_ns) if cube.uri else cube
        one = self.monitoring
        return _reopened, (named, self.written, one.detector, one.made_for, one.folder.absolute(), one.keep_every)


def _reopened(named: tuple[str, str, Variable, int] | MonitoredCube, written: Mapping[str, str], *others: Any) -> MonitorWork:
    cube = named if isinstance(named, MonitoredCube) else MonitoredCube(open_cube(named[0], named[1]), *named[1:], uri=named[0])
    return MonitorWork(Monitoring(cube, *others), written)


def advance_block(monitoring: Monitoring, written: Mapping[str, str], block: Block) -> Counts:
    """The tiles of one block, each published as soon as it is done. `written`: what the layers of each tile were made from."""
    counts = Counts()
    reader = BlockReader(monitoring.cube, block.area, monitoring.detector.halo_px)
    works = [_open_tile(monitoring, reader, tile, written.get(tile.key), counts) for tile in block.tiles]
    _fit(monitoring, reader, [work for work in works if work.plan.kind == "fit"])
    _step(monitoring, reader, works)
    headers = [_publish(monitoring, work, counts) for work in works]
    stale = [(w, header) for w, header in zip(works, headers, strict=True) if written.get(w.tile.key) != header.digest]
    _write_layers(monitoring, stale)
    counts.dates_read += reader.reads
    return counts


def plan_tile(
    consumed: Sequence[Consumed] | None, checkpoints: Sequence[int], cube: MonitoredCube, sees: Callable[[CubeDate], bool]
) -> Plan:
    """The plan of one tile. `consumed` None: it has no state. `checkpoints`: after how many seen monitored dates a state is kept
    (0, the beginning, always is). `sees(date)` reads the date, and is asked only about late and replaced ones."""
    dates, start_ns = cube.dates, cube.start_ns
    if consumed is None:
        return Plan("fit", 0, frozenset(range(len(dates))))
    old = {c.time_ns: c for c in consumed}
    known = {date.time_ns for date in dates}
    gone = tuple(c for c in consumed if c.time_ns not in known)
    seen_before = [c.time_ns for c in consumed if c.is_seen and c.time_ns >= start_ns]
    last_ns = seen_before[-1] if seen_before else start_ns - 1
    seen: dict[int, bool] = {}
    touched = [c.time_ns for c in gone if c.is_seen]
    for n, date in enumerate(dates):
        was = old.get(date.time_ns)
        if was is not None and was.content_hash == date.content_hash:
            seen[n] = was.is_seen
        elif date.time_ns < start_ns or date.time_ns <= last_ns:
            seen[n] = sees(date)
            if seen[n] or (was is not None and was.is_seen):
                touched.append(date.time_ns)
    if any(time_ns < start_ns for time_ns in touched):
        return Plan("fit", 0, frozenset(range(len(dates))), gone=gone)
    prefix = sum(time_ns < min(touched) for time_ns in seen_before) if touched else len(seen_before)
    base = max(after for after in (0, *checkpoints) if after <= prefix)
    reached_ns = seen_before[base - 1] if base else start_ns - 1
    todo = frozenset(n for n, date in enumerate(dates) if date.time_ns > reached_ns and seen.get(n, True))
    is_same = [(c.time_ns, c.scene_id, c.content_hash) for c in consumed] == [
        (d.time_ns, d.scene_id, d.content_hash) for d in dates
    ]
    kind: Kind = "replay" if base < len(seen_before) else "steps" if todo else "nothing" if is_same else "note"
    return Plan(kind, base, todo, {n: is_seen for n, is_seen in seen.items() if n not in todo}, gone)


def _open_tile(monitoring: Monitoring, reader: BlockReader, tile: Box, shown: str | None, counts: Counts) -> _Work:
    """Reads what the tile has and decides what it does; what is damaged is said and computed again. `shown`: what its layers
    were made from."""
    folder = monitoring.tiles / tile.key

    def sees(date: CubeDate) -> bool:
        return reader.cut(date, tile) is not None

    def log(e: ArtefactDamaged) -> None:
        logger.warning("%s; tile %s is computed again", e, tile.key)
        counts.rebuilt.append(f"tile {tile.key}: {e}")

    try:
        header = read_header(folder, monitoring.made_for)
    except ArtefactDamaged as e:
        log(e)
        header = None
    checkpoints = {} if header is None else {one.after: one for one in (*header.kept, header.state)}
    while header is not None:
        plan = plan_tile(header.consumed, list(checkpoints), monitoring.cube, sees)
        if plan.kind == "fit":
            return _Work(tile, folder, header, plan)
        kept = [one for one in header.kept if one.after <= plan.base]
        work = _Work(tile, folder, header, plan, after=plan.base, stored=header.fitted, kept=kept, seen=dict(plan.seen))
        if plan.kind in ("nothing", "note") and shown == header.digest:
            return work
        try:
            work.fitted = read_arrays(folder, header.fitted)
        except ArtefactDamaged as e:
            log(e)
            break
        base = checkpoints.get(plan.base)
        try:
            work.state = monitoring.detector.begin(work.fitted) if base is None else read_arrays(folder, base.stored)
            return work
        except ArtefactDamaged as e:
            log(e)
            del checkpoints[plan.base]
    return _Work(tile, folder, None, plan_tile(None, (), monitoring.cube, sees))


def _fit(monitoring: Monitoring, reader: BlockReader, works: list[_Work]) -> None:
    """Fits tiles on the history dates that show anything of them, every date read once for all tiles."""
    if not works:
        return
    history = monitoring.cube.history
    shapes = [work.tile.grown(reader.halo_px, reader.shape_yx).shape for work in works]
    x = [np.empty((len(history), *shape), np.float32) for shape in shapes]
    valid = [np.empty((len(history), *shape), bool) for shape in shapes]
    days: list[list[float]] = [[] for _ in works]
    for date in history:
        for w, work in enumerate(works):
            found = reader.cut(date, work.tile)
            work.seen[date.index] = found is not None
            if found is not None:
                x[w][len(days[w])], valid[w][len(days[w])] = found
                days[w].append(date.day)
    for w, work in enumerate(works):
        count = len(days[w])
        work.fitted = monitoring.detector.fit(x[w][:count], valid[w][:count], np.array(days[w], np.float64))
        work.state, work.stored, work.after, work.kept = monitoring.detector.begin(work.fitted), None, 0, []


def _step(monitoring: Monitoring, reader: BlockReader, works: list[_Work]) -> None:
    """Goes through the monitored dates in order; every date is read once, and each tile that sees it takes one step."""
    for date in monitoring.cube.dates[len(monitoring.cube.history) :]:
        for work in (work for work in works if date.index in work.plan.todo):
            found = reader.cut(date, work.tile)
            work.seen[date.index] = found is not None
            if found is None:
                continue
            work.state = monitoring.detector.advance(work.fitted, work.state, *found, date.day)
            work.after += 1
            work.steps += 1
            if work.after % monitoring.keep_every == 0:
                work.kept.append(Checkpoint(work.after, write_arrays(work.folder, "state", work.state)))


def _publish(monitoring: Monitoring, work: _Work, counts: Counts) -> Header:
    """Publishes the tile if anything about it is new; its header."""
    counts.gone |= {CubeDate(0, one.time_ns, one.scene_id, "").name for one in work.plan.gone}
    if work.plan.kind == "nothing" and work.header is not None:
        return work.header
    consumed = tuple(Consumed(d.time_ns, d.scene_id, d.content_hash, work.seen[d.index]) for d in monitoring.cube.dates)
    before = {(c.time_ns, c.content_hash) for c in work.header.consumed} if work.header else set()
    counts.unseen += sum(not c.is_seen for c in consumed if (c.time_ns, c.content_hash) not in before)
    if work.header is not None and work.plan.kind in ("note", "steps") and work.steps == 0:
        counts.noted += 1
        header = replace(work.header, consumed=consumed)
    else:
        counts.tiles += 1
        counts.steps += work.steps
        counts.replays += work.plan.kind == "replay"
        counts.fits += work.plan.kind == "fit"
        fitted = work.stored or write_arrays(work.folder, "fitted", work.fitted)
        state = Checkpoint(work.after, write_arrays(work.folder, "state", work.state))
        header = Header(consumed, fitted, state, tuple(work.kept))
    publish_header(work.folder, header, monitoring.made_for, work.header)
    return header


def _write_layers(monitoring: Monitoring, works: list[tuple[_Work, Header]]) -> None:
    """The tiles' parts of the layers, from the states that have just been published. Those cover the tile grown by the halo."""
    blocks = []
    for work, header in works:
        rows, columns = work.tile.within(work.tile.grown(monitoring.detector.halo_px, monitoring.cube.shape_yx))
        planes = monitoring.detector.layers(work.fitted, work.state)
        blocks.append((work.tile, {name: plane[rows, columns] for name, plane in planes.items()}, header.digest))
    if blocks:
        Layers(monitoring.layers, monitoring.cube.shape_yx, LAYER_DTYPES).write(blocks)
