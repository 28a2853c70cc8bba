"""One block of tiles brought up to the cube's dates: its state and its part of the layers, there as a whole or not at all.

A block writes only its own files, and is idempotent: killed, it is simply done again. A tile's state depends on the sequence
of dates on which it was seen and on nothing else. So the dates that it has consumed are compared with the cube's, and the
first difference that it can see decides what it does (`pipelines.monitoring.plans`). A replay takes the same steps in the same
order as the earlier runs did, so its bytes are those of an undisturbed run.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

import numpy as np

from pipelines.errors import ArtefactDamaged
from pipelines.inference.regions import Plane, Regions
from pipelines.monitoring.areas import BLOCK_PX, HELD_DATES, Block, BlockReader, CubeDate, MonitoredCube, plan_blocks
from pipelines.monitoring.detector import LAYER_DTYPES, Detector
from pipelines.monitoring.plans import Plan, plan_tile
from pipelines.monitoring.sequential_test import Arrays
from pipelines.monitoring.state import (
    FITTED,
    STATE,
    BlockFiles,
    Checkpoint,
    Header,
    Identity,
    Piece,
    Pieces,
    TileState,
    kept_kind,
)
from pipelines.stored_files import StoredFiles, files_at
from pipelines.tiles import Box

logger = logging.getLogger(__name__)
PLANES = tuple(Plane(name, dtype.str) for name, dtype in LAYER_DTYPES.items())


@dataclass
class Counts:
    """What was computed. `tiles`: whose state is another one now; `noted`: only their list of dates is; `dates_read`: dates read
    from the cube, once per part of a block, or per block where they are new and few; `unseen`: pairs of a tile and a new date
    that shows nothing of it."""

    tiles: int = 0
    steps: int = 0
    replays: int = 0
    fits: int = 0
    noted: int = 0
    unseen: int = 0
    dates_read: int = 0
    rebuilt: list[str] = field(default_factory=list)  # why, one text per tile, or per block
    gone: set[str] = field(default_factory=set)  # dates that were consumed and are no longer in the cube

    def __add__(self, other: Counts) -> Counts:
        mine, theirs = vars(self), vars(other)
        return Counts(**{name: mine[name] | theirs[name] if name == "gone" else mine[name] + theirs[name] for name in mine})

    def note_damage(self, what: str, e: ArtefactDamaged) -> None:
        logger.warning("%s; %s is computed again", e, what)
        self.rebuilt.append(f"{what}: {e}")


@dataclass(frozen=True)
class Monitoring:
    """What is monitored, with what, and where its state is: a folder or `s3://bucket/prefix`.

    `keep_every`: dates between the states that are kept. `block_px`: side of a block, in which as many whole tiles as fit share
    files.
    """

    cube: MonitoredCube
    detector: Detector
    made_for: Identity
    folder: str
    keep_every: int = 16
    block_px: int = BLOCK_PX

    @cached_property
    def files(self) -> StoredFiles:
        return files_at(self.folder)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        return plan_blocks(self.cube, self.made_for.tile_px, self.detector.halo_px, self.block_px)

    @cached_property
    def layers(self) -> Regions:
        """What the map shows, a region per block. Its record names the state that it was made from."""
        about = json.dumps([asdict(self.made_for), self.block_px], sort_keys=True)
        key, parts = hashlib.sha256(about.encode()).hexdigest(), tuple(block.area for block in self.blocks)
        remedy = "run `driftline monitor CONFIG` again"
        return Regions(f"{self.folder}/layers", key, PLANES, self.cube.shape_yx, parts, remedy)

    def files_of(self, block: Block) -> BlockFiles:
        return BlockFiles(self.files, f"blocks/{block.area.key}")


@dataclass
class _Work:
    """A tile on its way from the state that is stored to the one that will be."""

    tile: Box
    was: TileState | None
    plan: Plan
    fitted: Arrays = field(default_factory=dict)
    state: Arrays = field(default_factory=dict)
    after: int = 0
    stored: Piece | None = None  # of `fitted`, where it is stored
    kept: list[Checkpoint] = field(default_factory=list)
    seen: dict[int, bool] = field(default_factory=dict)
    steps: int = 0

    @property
    def is_loaded(self) -> bool:
        return bool(self.fitted)


def advance_block(monitoring: Monitoring, block: Block) -> Counts:
    """The tiles of one block, published together when all of them are done. Raises StateError, StorageFull."""
    with Pieces() as made:
        return _Advance(monitoring, block, made).carry_out()


class _Advance:
    """One block on its way; `made` are the pieces that were computed."""

    def __init__(self, monitoring: Monitoring, block: Block, made: Pieces):
        self.monitoring, self.block, self.made, self.counts = monitoring, block, made, Counts()
        self.files, self.dates = monitoring.files_of(block), monitoring.cube.dates
        self.before = self._open()
        self.appended = self._appended()
        self.newest = BlockReader(monitoring.cube, block.area, monitoring.detector.halo_px)
        self.planes: dict[Plane, np.ndarray] = {}
        self.drawn: set[Box] = set()  # tiles whose part of the planes is there

    def carry_out(self) -> Counts:
        tiles: dict[str, TileState] = {}
        for part in self.block.parts:
            reader = BlockReader(self.monitoring.cube, part.area, self.monitoring.detector.halo_px)
            works = [self._open_tile(reader, tile) for tile in part.tiles]
            self._fit(reader, [work for work in works if work.plan.kind == "fit"])
            self._step(reader, works)
            for work in works:
                tiles[work.tile.key] = self._close_tile(work)
                if work.is_loaded:
                    self._show(work)
            self.counts.dates_read += reader.reads
        self.counts.dates_read += self.newest.reads
        self._publish({tile.key: tiles[tile.key] for tile in self.block.tiles})
        return self.counts

    # ------------------------------------------------------------ what is there

    def _open(self) -> Header | None:
        try:
            header = self.files.read_header(self.monitoring.made_for, [tile.key for tile in self.block.tiles])
        except ArtefactDamaged as e:
            self.counts.note_damage(f"block {self.block.area.key}", e)
            return None
        if header is not None:
            self.files.sweep(header)
        return header

    def _appended(self) -> frozenset[int]:
        """Dates that follow those that were consumed, where they are few: each is read once for the block, not once per part."""
        count = dates_left(self.before, self.monitoring.cube)
        return frozenset(date.index for date in self.dates[len(self.dates) - count :] if count <= HELD_DATES)

    def _cut(self, reader: BlockReader, date: CubeDate, tile: Box) -> tuple[np.ndarray, np.ndarray] | None:
        return (self.newest if date.index in self.appended else reader).cut(date, tile)

    @cached_property
    def is_shown(self) -> bool:
        """Whether the layers are there, as they were written, and made from the state before; what is damaged is said. Asked
        only where they are used: all of their bytes are read."""
        if self.before is None:
            return False
        layers, area = self.monitoring.layers, self.block.area
        for _, why in layers.missing([area]):
            if why:
                self.counts.note_damage(f"block {area.key} of the layers", ArtefactDamaged(why))
            return False
        return layers.record(area).made_from == self.before.digest

    def _open_tile(self, reader: BlockReader, tile: Box) -> _Work:
        """Reads what the tile has and decides what it does; what is damaged is said and computed again."""
        header, detector, cube = self.before, self.monitoring.detector, self.monitoring.cube

        def sees(date: CubeDate) -> bool:
            return self._cut(reader, date, tile) is not None

        was = None if header is None else header.tiles[tile.key]
        checkpoints = {}
        if was is not None:
            checkpoints = {one.after: (kept_kind(one.after), one) for one in was.kept} | {was.state.after: (STATE, was.state)}
        while header is not None and was is not None:
            plan = plan_tile(header.consumed(tile.key), list(checkpoints), cube, sees)
            if plan.kind == "fit":
                return _Work(tile, was, plan)
            kept = [one for one in was.kept if one.after <= plan.base]
            work = _Work(tile, was, plan, after=plan.base, stored=was.fitted, kept=kept, seen=dict(plan.seen))
            if plan.kind in ("nothing", "note") and self.is_shown:
                return work
            try:
                fitted = self.files.read_arrays(header, FITTED, was.fitted)
            except ArtefactDamaged as e:
                self.counts.note_damage(f"tile {tile.key}", e)
                break
            base = checkpoints.get(plan.base)
            try:
                work.state = detector.begin(fitted) if base is None else self.files.read_arrays(header, base[0], base[1].piece)
                work.fitted = fitted
                return work
            except ArtefactDamaged as e:
                self.counts.note_damage(f"tile {tile.key}", e)
                del checkpoints[plan.base]
        return _Work(tile, None, plan_tile(None, (), cube, sees))

    # ------------------------------------------------------------ what is computed

    def _fit(self, reader: BlockReader, works: list[_Work]) -> None:
        """Fits tiles on the history dates that show anything of them, every date read once for all tiles of a part."""
        if not works:
            return
        history, detector = self.monitoring.cube.history, self.monitoring.detector
        shapes = [work.tile.grown(reader.halo_px, reader.shape_yx).shape for work in works]
        x = [np.empty((len(history), *shape), np.float32) for shape in shapes]
        valid = [np.empty((len(history), *shape), bool) for shape in shapes]
        days: list[list[float]] = [[] for _ in works]
        for date in history:
            for w, work in enumerate(works):
                found = self._cut(reader, date, work.tile)
                work.seen[date.index] = found is not None
                if found is not None:
                    x[w][len(days[w])], valid[w][len(days[w])] = found
                    days[w].append(date.day)
        for w, work in enumerate(works):
            count = len(days[w])
            work.fitted = detector.fit(x[w][:count], valid[w][:count], np.array(days[w], np.float64))
            work.state, work.stored, work.after, work.kept = detector.begin(work.fitted), None, 0, []

    def _step(self, reader: BlockReader, works: list[_Work]) -> None:
        """Goes through the monitored dates in order; every date is read once, and each tile that sees it takes one step."""
        for date in self.dates[len(self.monitoring.cube.history) :]:
            for work in (work for work in works if date.index in work.plan.todo):
                found = self._cut(reader, date, work.tile)
                work.seen[date.index] = found is not None
                if found is None:
                    continue
                work.state = self.monitoring.detector.advance(work.fitted, work.state, *found, date.day)
                work.after += 1
                work.steps += 1
                if work.after % self.monitoring.keep_every == 0:
                    work.kept.append(Checkpoint(work.after, self.made.put(work.state)))

    def _close_tile(self, work: _Work) -> TileState:
        """What is known of the tile now; its new tensors are among the pieces."""
        counts, plan, was = self.counts, work.plan, work.was
        counts.gone |= {CubeDate(0, one.time_ns, one.scene_id, "").name for one in plan.gone}
        if plan.kind == "nothing" and was is not None:
            return was
        seen = "".join("01"[work.seen[date.index]] for date in self.dates)
        known = self.before.dates if self.before is not None and was is not None else ()
        before = {(time_ns, content) for time_ns, _, content in known}
        counts.unseen += sum(
            is_seen == "0" and (date.time_ns, date.content_hash) not in before
            for date, is_seen in zip(self.dates, seen, strict=True)
        )
        if was is not None and plan.kind in ("note", "steps") and work.steps == 0:
            counts.noted += 1
            return replace(was, seen=seen)
        counts.tiles += 1
        counts.steps += work.steps
        counts.replays += plan.kind == "replay"
        counts.fits += plan.kind == "fit"
        fitted = work.stored or self.made.put(work.fitted)
        return TileState(seen, fitted, Checkpoint(work.after, self.made.put(work.state)), tuple(work.kept))

    def _show(self, work: _Work) -> None:
        """The tile's part of the layers; its state covers the tile grown by the halo."""
        detector, area = self.monitoring.detector, self.block.area
        self.planes = self.planes or {plane: np.empty(area.shape, plane.dtype) for plane in PLANES}
        self.drawn.add(work.tile)
        rows, columns = work.tile.within(work.tile.grown(detector.halo_px, self.monitoring.cube.shape_yx))
        found = detector.layers(work.fitted, work.state)
        for plane, values in self.planes.items():
            values[work.tile.within(area)] = found[plane.name][rows, columns]

    # ------------------------------------------------------------ what is left

    def _publish(self, tiles: dict[str, TileState]) -> None:
        header = Header(tuple(date.identity for date in self.dates), tiles)
        if header != self.before or self.made.starts:
            self.files.publish(header, self.monitoring.made_for, self.before, self.made)
            self.files.sweep(header)
        if self.before is not None and header.digest == self.before.digest and self.is_shown:
            return
        layers, area = self.monitoring.layers, self.block.area
        if kept := [tile.within(area) for tile in self.block.tiles if tile not in self.drawn]:
            for plane, values in self.planes.items():
                before = layers.whole(plane, area)
                for part in kept:
                    values[part] = before[part]
        with layers.writing(area) as writer:
            writer.write(area, self.planes)
            writer.made_from = header.digest


def dates_left(header: Header | None, cube: MonitoredCube) -> int:
    """How many dates of the cube follow those that a block has consumed; all of them, where these are not its first ones."""
    dates, known = tuple(date.identity for date in cube.dates), () if header is None else header.dates
    return len(dates) - len(known) if known == dates[: len(known)] else len(dates)


def needs_little(monitoring: Monitoring, block: Block) -> bool:
    """Whether at most a few dates are to be added to what a block has. Raises StateError for one of something else."""
    try:
        header = monitoring.files_of(block).read_header_alone(monitoring.made_for, [tile.key for tile in block.tiles])
    except ArtefactDamaged:
        return False
    return dates_left(header, monitoring.cube) <= HELD_DATES


def is_current(monitoring: Monitoring, block: Block, copied: Regions | None = None) -> bool:
    """Whether a block's state and layers (`copied`: those) are whole, of each other, and at the cube's dates.

    Raises StateError for one of something else.
    """
    dates = tuple(date.identity for date in monitoring.cube.dates)
    layers = copied or monitoring.layers
    missing: Sequence[tuple[Box, str]] = layers.missing([block.area])
    try:
        header = monitoring.files_of(block).read_header(monitoring.made_for, [tile.key for tile in block.tiles])
    except ArtefactDamaged:
        return False
    is_there = header is not None and header.dates == dates and not missing
    return is_there and header is not None and layers.record(block.area).made_from == header.digest
