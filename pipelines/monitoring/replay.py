"""The saved state of every tile, brought up to the cube's dates: one step per new date, a replay where the past has changed.

    monitoring = Monitoring(...)                           what is monitored, as values and the detector
    for block in monitoring.blocks(): advance_block(...)   writes only its own tiles; idempotent; killed, it is simply done again
    finish: the layers are whole

What a tile does is decided by `pipelines.monitoring.updates`. A replay takes the same steps in the same order as the earlier
runs did, so its bytes are those of an undisturbed run.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr

from pipelines.errors import ArtefactDamaged, MissingInput
from pipelines.monitoring.blocks import Block, BlockReader, plan_blocks
from pipelines.monitoring.detector import Detector
from pipelines.monitoring.layers import Layers
from pipelines.monitoring.state import (
    Arrays,
    Checkpoint,
    Header,
    Identity,
    Stored,
    read_arrays,
    read_header,
    write_arrays,
    write_tile,
)
from pipelines.monitoring.updates import Consumed, CubeDate, Plan, plan_tile
from pipelines.progress import Progress
from pipelines.samples.variables import Variable
from pipelines.tiles import Tile

logger = logging.getLogger(__name__)


@dataclass
class Counts:
    """What was computed. `tiles`: whose state is another one now; `noted`: only their list of dates is; `dates_read`: dates read
    from the cube, once per block; `unseen`: pairs of a tile and a new date that shows nothing of it.
    """

    tiles: int = 0
    steps: int = 0
    replays: int = 0
    fits: int = 0
    noted: int = 0
    unseen: int = 0
    dates_read: int = 0
    rebuilt: list[str] = field(default_factory=list)  # why, one text per tile
    gone: set[str] = field(default_factory=set)  # dates that were consumed and are no longer in the cube

    def add(self, other: Counts) -> None:
        for name in ("tiles", "steps", "replays", "fits", "noted", "unseen", "dates_read"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.rebuilt += other.rebuilt
        self.gone |= other.gone


@dataclass(frozen=True)
class Monitoring:
    """What is monitored, with what, and where its state is. Dates before `start_ns` are history."""

    dataset: xr.Dataset
    dates: tuple[CubeDate, ...]
    detector: Detector
    variable: Variable
    made_for: Identity
    start_ns: int
    folder: Path
    layers: Path
    keep_every: int = 16

    @property
    def shape_yx(self) -> tuple[int, int]:
        return self.dataset.sizes["y"], self.dataset.sizes["x"]

    def blocks(self) -> tuple[Block, ...]:
        history = sum(date.time_ns < self.start_ns for date in self.dates)
        return plan_blocks(self.dataset, self.made_for.tile_px, self.detector.halo_px, history)

    def is_history(self, date: CubeDate) -> bool:
        return date.time_ns < self.start_ns


@dataclass
class _Work:
    """A tile on its way from the state that lies on disk to the one that will."""

    tile: Tile
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


def advance_all(monitoring: Monitoring, progress: Progress | None = None) -> Counts:
    """Brings every tile and the layers up to date; `progress` counts blocks. Raises StateError, StorageFull."""
    counts, blocks = Counts(), monitoring.blocks()
    written = _read_ledger(monitoring)
    for done, block in enumerate(blocks, start=1):
        counts.add(advance_block(monitoring, block, written))
        if progress:
            progress(done, len(blocks))
    written = _read_ledger(monitoring)
    for block in blocks:  # layers of another kind were begun anew on the way: the tiles before that are written again
        if any(tile.key not in written for tile in block.tiles):
            counts.add(advance_block(monitoring, block, written))
    return counts


def _read_ledger(monitoring: Monitoring) -> dict[str, str]:
    """tile key -> what its layers were made from; empty where there are none, or not whole."""
    try:
        layers = Layers.open(monitoring.layers)
    except MissingInput:
        return {}
    if not layers.is_whole():
        return {}
    layers.compact()
    return layers.written()


def advance_block(monitoring: Monitoring, block: Block, written: dict[str, str]) -> Counts:
    """The tiles of one block, each published as soon as it is done. `written`: what the layers of each tile were made from."""
    counts = Counts()
    reader = BlockReader(monitoring.dataset, monitoring.variable, block, monitoring.detector.halo_px)
    works = [_open_tile(monitoring, reader, tile, written.get(tile.key), counts) for tile in block.tiles]
    _fit(monitoring, reader, [work for work in works if work.plan.kind == "fit"])
    _step(monitoring, reader, works)
    headers = [_publish(monitoring, work, counts) for work in works]
    stale = [(w, header) for w, header in zip(works, headers, strict=True) if written.get(w.tile.key) != header.digest]
    _write_layers(monitoring, stale)
    counts.dates_read = reader.reads
    return counts


def _open_tile(monitoring: Monitoring, reader: BlockReader, tile: Tile, shown: str | None, counts: Counts) -> _Work:
    """Reads what the tile has and decides what it does; what is damaged is said and computed again.

    `shown`: what its layers were made from.
    """
    folder = monitoring.folder / tile.key

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
        plan = plan_tile(header.consumed, list(checkpoints), monitoring.dates, monitoring.start_ns, sees)
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
    return _Work(tile, folder, None, plan_tile(None, (), monitoring.dates, monitoring.start_ns, sees))


def _fit(monitoring: Monitoring, reader: BlockReader, works: list[_Work]) -> None:
    """Fits tiles on the history dates that show anything of them, every date read once for all tiles."""
    if not works:
        return
    history = [n for n, date in enumerate(monitoring.dates) if monitoring.is_history(date)]
    shapes = [work.tile.grown(reader.halo_px, reader.shape_yx).shape_yx for work in works]
    x = [np.empty((len(history), *shape), np.float32) for shape in shapes]
    valid = [np.empty((len(history), *shape), bool) for shape in shapes]
    days: list[list[float]] = [[] for _ in works]
    for n in history:
        for w, work in enumerate(works):
            found = reader.cut(monitoring.dates[n], work.tile)
            work.seen[n] = found is not None
            if found is not None:
                x[w][len(days[w])], valid[w][len(days[w])] = found
                days[w].append(monitoring.dates[n].day)
    for w, work in enumerate(works):
        count = len(days[w])
        work.fitted = monitoring.detector.fit(x[w][:count], valid[w][:count], np.array(days[w], np.float64))
        work.state, work.stored, work.after, work.kept = monitoring.detector.begin(work.fitted), None, 0, []


def _step(monitoring: Monitoring, reader: BlockReader, works: list[_Work]) -> None:
    """Goes through the monitored dates in order; every date is read once, and each tile that sees it takes one step."""
    of_date: dict[int, list[_Work]] = {}
    for work in works:
        for n in work.plan.todo:
            if not monitoring.is_history(monitoring.dates[n]):
                of_date.setdefault(n, []).append(work)
    for n in sorted(of_date):
        date = monitoring.dates[n]
        for work in of_date[n]:
            found = reader.cut(date, work.tile)
            work.seen[n] = found is not None
            if found is None:
                continue
            work.state = monitoring.detector.advance(work.fitted, work.state, *found, date.day)
            work.after += 1
            work.steps += 1
            if work.after % monitoring.keep_every == 0:
                work.folder.mkdir(parents=True, exist_ok=True)
                work.kept.append(Checkpoint(work.after, write_arrays(work.folder, "state", work.state)))


def _publish(monitoring: Monitoring, work: _Work, counts: Counts) -> Header:
    """Publishes the tile if anything about it is new; its header."""
    counts.gone |= {CubeDate(0, one.time_ns, one.scene_id, "").name for one in work.plan.gone}
    if work.plan.kind == "nothing" and work.header is not None:
        return work.header
    consumed = [Consumed(d.time_ns, d.scene_id, d.content_hash, work.seen[n]) for n, d in enumerate(monitoring.dates)]
    before = set() if work.header is None else {(c.time_ns, c.content_hash) for c in work.header.consumed}
    counts.unseen += sum(not c.is_seen for c in consumed if (c.time_ns, c.content_hash) not in before)
    is_same = work.header is not None and work.plan.kind in ("note", "steps") and work.steps == 0
    if work.header is not None and is_same:
        counts.noted += 1
        was = work.header
        return write_tile(work.folder, monitoring.made_for, consumed, was.fitted, was.state, was.kept, was)
    counts.tiles += 1
    counts.steps += work.steps
    counts.replays += work.plan.kind == "replay"
    counts.fits += work.plan.kind == "fit"
    fitted = work.stored or work.fitted
    return write_tile(work.folder, monitoring.made_for, consumed, fitted, (work.after, work.state), work.kept, work.header)


def _write_layers(monitoring: Monitoring, works: list[tuple[_Work, Header]]) -> None:
    """The tiles' parts of the layers, from the states that have just been published. Those cover the tile grown by the halo."""
    blocks = []
    for work, header in works:
        rows, columns = work.tile.within(work.tile.grown(monitoring.detector.halo_px, monitoring.shape_yx))
        planes = monitoring.detector.layers(work.fitted, work.state)
        blocks.append((work.tile, {name: plane[rows, columns] for name, plane in planes.items()}, header.digest))
    if blocks:
        dtypes = {name: plane.dtype for name, plane in blocks[0][1].items()}
        Layers.create(monitoring.layers, monitoring.shape_yx, dtypes).write(blocks)
