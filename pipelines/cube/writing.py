"""Reads, validates and writes scenes to dates of the cube, several at once within a memory limit."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import icechunk
import numpy as np
import zarr

from pipelines.compute import Compute, connected, results_of
from pipelines.cube.drift import MOST_PX, Figures, figures_of
from pipelines.cube.encoding import ChunkLayout, EncodedRows, encode_scene, encode_strip
from pipelines.cube.plan import Work
from pipelines.cube.staged_scenes import StagedScenes, changed_ns
from pipelines.cube.steps import PixelStore, pixel_store, resize_time
from pipelines.errors import SceneRefused
from pipelines.sources.reading import COPIES, IsolatedReader, SceneReader, all_nodata

MB = 2**20
STRIP_READERS = 4  # strips are cut for so many, unless `workers` says otherwise: cores would make the hashes those of a machine
AHEAD = 2  # as many scenes may wait, compressed, to be written as are read
FREE = nullcontext()
Outcome = Literal["added", "replaced", "unchanged"]


@dataclass(frozen=True)
class Written:
    """Result for one scene: `slot` is the index of its pixels in the session; None without a refusal: unchanged."""

    work: Work
    slot: int | None = None
    content_hash: str = ""
    valid_fraction: float = 0.0
    refused: SceneRefused | None = None
    figures: Figures = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        return "unchanged" if self.slot is None else "added" if self.work.replaces is None else "replaced"


def write_scene(
    pixels: PixelStore,
    isolated: IsolatedReader,
    work: Work,
    take_slot: Callable[[bool], int],
    reading: AbstractContextManager[object] = FREE,
    staged: StagedScenes | None = None,
) -> Written:
    """Reads, validates and writes one whole scene. `take_slot(needs_new)` gives its index and is called exactly once.

    `reading` is held while it is read, not while it waits for its slot and is written. `staged`: what slices have read.
    """
    has_asked, reader = False, isolated.reader
    try:
        with reading:
            kept = None if staged is None else staged.take(work, 0)
            found = kept or _encode(isolated, work, pixels.layouts, work.previous_hash)
        fraction = reader.valid_fraction(work.scene, found.valid_px)
        if found.content_hash == work.previous_hash:
            return Written(work, None, found.content_hash, fraction)
        # the known hash belongs to the date of the scene, so its pixels may be replaced in place
        slot, has_asked = take_slot(not work.previous_hash), True
        slot = slot if work.replaces is None or not work.previous_hash else work.replaces
        pixels.write(slot, found)
        return Written(work, slot, found.content_hash, fraction, figures=figures_of(found.sample_BN))
    except SceneRefused as e:
        return Written(work, refused=e)
    finally:
        if not has_asked:
            take_slot(False)


def _write_scene_in_strips(
    pixels: PixelStore, isolated: IsolatedReader, work: Work, slot: int, strips: Sequence[slice], staged: StagedScenes | None
) -> Written:
    """As `write_scene` for a scene that does not fit into memory: some of its strips at a time.

    Always written to a new `slot`: a refusal is known only at the end, and then the previous version must still exist. The
    content hash is that of the strips' hashes, so it differs from that of the whole.
    """
    reader, reading = isolated.reader, threading.Semaphore(isolated.at_once)

    def write_strip(number: int) -> tuple[str, int, bool, np.ndarray]:
        with reading:
            kept = None if staged is None else staged.take(work, number)
            found = kept or _encode_strip(isolated, work, pixels.layouts, strips, number)
        pixels.write(slot, found)
        return found.content_hash, found.valid_px, found.has_data, found.sample_BN

    try:
        with ThreadPoolExecutor(AHEAD * isolated.at_once) as pool:
            hashes, valid_px, has_data, samples = zip(*pool.map(write_strip, range(len(strips))), strict=True)
        if not any(has_data):
            raise all_nodata(work.scene)
        fraction = reader.valid_fraction(work.scene, sum(valid_px))
    except SceneRefused as e:
        return Written(work, refused=e)
    content_hash = hashlib.sha256("".join(hashes).encode()).hexdigest()
    figures = figures_of(np.concatenate(samples, axis=1))
    return Written(work, None if content_hash == work.previous_hash else slot, content_hash, fraction, figures=figures)


def stage_scene(
    staged: StagedScenes, isolated: IsolatedReader, layouts: tuple[ChunkLayout, ...], work: Work, strips: Sequence[slice]
) -> SceneRefused | None:
    """Reads and validates one scene as an ingest does (`strips`: of one that does not fit into memory), and stages what it finds;
    the refusal, if it is one."""
    changed = changed_ns(work)
    try:
        with staged.writing(work, changed) as writer, ThreadPoolExecutor(isolated.at_once) as pool:
            if strips:
                for found in pool.map(partial(_encode_strip, isolated, work, layouts, strips), range(len(strips))):
                    writer.add(found)
            else:
                writer.add(_encode(isolated, work, layouts, ""))
    except SceneRefused as e:
        with staged.writing(work, changed) as writer:
            writer.refuse(e)
        return e
    return None


def _encode(isolated: IsolatedReader, work: Work, layouts: tuple[ChunkLayout, ...], previous_hash: str) -> EncodedRows:
    return isolated.read(encode_scene, work.scene, layouts, previous_hash, height=isolated.reader.grid.shape[0])


def _encode_strip(
    isolated: IsolatedReader, work: Work, layouts: tuple[ChunkLayout, ...], strips: Sequence[slice], number: int
) -> EncodedRows:
    rows = strips[number]
    args = layouts, rows, MOST_PX // len(strips)
    return isolated.read(encode_strip, work.scene, *args, height=rows.stop - rows.start)


@dataclass(frozen=True)
class Cutting:
    """How many scenes are read at once within a memory limit; of scenes larger than that, `strips` of whole chunks."""

    at_once: int
    strips: tuple[slice, ...] = ()

    @classmethod
    def of(cls, reader: SceneReader, object_px: int, memory_mb: int, workers: int | None) -> Cutting:
        """One strip is always allowed: nothing smaller can be written. Strips do not depend on the cores of a machine."""
        requested = workers or (os.cpu_count() or 1) + 1  # one more than cores: it computes while another waits for the disk
        at_once = min(requested, memory_mb * MB // (COPIES * reader.scene_bytes))
        if at_once >= 1:
            return cls(at_once)
        strip_bytes = COPIES * reader.row_bytes * object_px
        readers = max(1, min(workers or STRIP_READERS, memory_mb * MB // strip_bytes))
        objects = max(1, memory_mb * MB // (strip_bytes * readers))  # from top to bottom of a strip
        at_once = max(1, min(requested, memory_mb * MB // (strip_bytes * objects)))
        rows_px, height = objects * object_px, reader.grid.shape[0]
        return cls(at_once, tuple(slice(row, min(row + rows_px, height)) for row in range(0, height, rows_px)))


class SlotOrder:
    """Assigns slots in the order of the works, whatever order they finish in, so that dates need no sorting afterwards.

    Work k waits until all before it have passed. This cannot deadlock if works are started in order: the earliest one that
    has not passed never waits.
    """

    def __init__(self, first_slot: int):
        self._next_slot = first_slot
        self._turn = 0
        self._changed = threading.Condition()

    def take(self, ticket: int, needs_new: bool) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._turn == ticket)
            slot = self._next_slot
            self._next_slot += needs_new
            self._turn += 1
            self._changed.notify_all()
            return slot


def write_in_threads(
    root: zarr.Group, reader: SceneReader, works: list[Work], first_slot: int, memory_mb: int, workers: int | None,
    staged: StagedScenes | None = None,
) -> Iterator[Written]:  # fmt: skip
    """Results of `works`, written by threads of this process; as many at once as fit into `memory_mb`. Order of completion.

    Scenes that slices have `staged` are not read again.
    """
    pixels = pixel_store(root)
    cutting = Cutting.of(reader, pixels.object_px, memory_mb, workers)
    at_once, isolated = cutting.at_once, IsolatedReader(reader, memory_mb * MB, cutting.at_once)
    if cutting.strips:
        slot = first_slot
        for work in works:
            written = _write_scene_in_strips(pixels, isolated, work, slot, cutting.strips, staged)
            slot += written.slot is not None
            yield written
        return
    slot_order, reading = SlotOrder(first_slot), threading.Semaphore(at_once)
    with ThreadPoolExecutor(AHEAD * at_once) as pool:
        # a pool starts its jobs in the order of submission, as SlotOrder requires
        jobs = ((pixels, isolated, work, partial(slot_order.take, n), reading, staged) for n, work in enumerate(works))
        yield from results_of([pool.submit(write_scene, *job) for job in jobs])


def write_with_dask(
    session: icechunk.Session, reader: SceneReader, works: list[Work], first_slot: int, memory_mb: int, compute: Compute
) -> Iterator[Written]:
    """Results of `works`, written by the workers of a Dask cluster, each to a fork of the session, merged at the end.

    The session must be clean. At most one scene per worker thread is in progress, and no more than `memory_mb` allows.
    """
    import distributed

    forks = []
    with connected(compute, len(works)) as client, client.as_current():
        threads = sum(client.nthreads().values())
        at_once = max(1, min(threads, memory_mb * MB // (COPIES * reader.scene_bytes)))
        room = first_slot + len(works)
        isolated = IsolatedReader(reader, memory_mb * MB, at_once)
        jobs = ((session.fork(), isolated, work, first_slot + k, room) for k, work in enumerate(works))
        submit = partial(client.submit, _write_in_fork, pure=False)
        running = distributed.as_completed([submit(*job) for _, job in zip(range(at_once), jobs, strict=False)])
        for future in running:
            fork, written = future.result()
            forks.append(fork)
            future.release()
            if (job := next(jobs, None)) is not None:
                running.add(submit(*job))
            yield written
    session.merge(*forks)


def _write_in_fork(
    fork: icechunk.ForkSession, isolated: IsolatedReader, work: Work, slot: int, room: int
) -> tuple[icechunk.ForkSession, Written]:
    root = zarr.open_group(fork.store, mode="r+")
    resize_time(root, room)
    return fork, write_scene(pixel_store(root), isolated, work, lambda needs_new: slot)
