"""Reads, validates and writes scenes to dates of the cube, several at once within a memory limit."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import icechunk
import numpy as np
import zarr

from pipelines.cube.plan import Work
from pipelines.cube.steps import resize_time, write_rows
from pipelines.cube.validation import ExpectedContent, check_arrays, check_content, check_scene, has_data
from pipelines.errors import SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Scene, Slice
from pipelines.sources.reading import hash_content, read_slice, read_strip
from pipelines.sources.source import Resampling, Source

# how many times its own size a scene takes between file and chunks: read, resampled, encoded
COPIES = 3
MB = 2**20


@dataclass(frozen=True)
class Reader:
    """Everything that is the same for all scenes of an ingest; picklable, for Dask workers."""

    source: Source
    quality_mask: Any
    grid: Grid
    expected: ExpectedContent
    on_other_grid: Literal["reproject", "refuse"]
    resampling: Resampling
    chunk_px: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of pixels of all bands, the validity mask and the quality band."""
        return self.grid.shape_yx[1] * (len(self.expected.bands) * self.expected.dtype.itemsize + 2)

    @property
    def scene_bytes(self) -> int:
        return self.row_bytes * self.grid.shape_yx[0]

    def read(self, scene: Scene) -> Slice:
        """The scene on the cube's grid, validated. Raises SceneRefused."""
        check_scene(scene)
        found = read_slice(
            self.source, self.quality_mask, scene, self.grid, on_other_grid=self.on_other_grid, resampling=self.resampling
        )
        check_arrays(scene, found.image_BYX, found.valid_YX, self.expected)
        return found

    def read_rows(self, scene: Scene, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """(image_BYX, valid_YX) of `rows` of the scene on the cube's grid, validated. Raises SceneRefused."""
        image_BYX, valid_YX = read_strip(
            self.source, self.quality_mask, scene, self.grid, rows, on_other_grid=self.on_other_grid, resampling=self.resampling
        )
        shape_yx = rows.stop - rows.start, self.grid.shape_yx[1]
        check_arrays(scene, image_BYX, valid_YX, replace(self.expected, shape_yx=shape_yx))
        return image_BYX, valid_YX


@dataclass(frozen=True)
class Written:
    """Result for one scene: `slot` is the index of its pixels in the session; None without a refusal: unchanged."""

    work: Work
    slot: int | None = None
    content_hash: str = ""
    valid_fraction: float = 0.0
    refused: SceneRefused | None = None


def write_scene(root: zarr.Group, reader: Reader, work: Work, take_slot: Callable[[bool], int]) -> Written:
    """Reads, validates and writes one whole scene. `take_slot(needs_new)` gives its index and is called exactly once."""
    has_asked = False
    try:
        found = reader.read(work.scene)
        valid_px = int(np.count_nonzero(found.valid_YX))
        is_seen = valid_px > 0 or has_data(found.image_BYX, reader.expected.bands)
        check_content(work.scene, is_seen, valid_px, found.valid_YX.size, reader.expected.min_valid_fraction)
        fraction = valid_px / found.valid_YX.size
        if found.content_hash == work.previous_hash:
            return Written(work, None, found.content_hash, fraction)
        # the known hash belongs to the date of the scene, so its pixels may be replaced in place
        slot, has_asked = take_slot(not work.previous_hash), True
        slot = slot if work.replaces is None or not work.previous_hash else work.replaces
        write_rows(root, slot, slice(0, reader.grid.shape_yx[0]), found.image_BYX, found.valid_YX)
        return Written(work, slot, found.content_hash, fraction)
    except SceneRefused as e:
        return Written(work, refused=e)
    finally:
        if not has_asked:
            take_slot(False)


def write_scene_in_bands(root: zarr.Group, reader: Reader, work: Work, slot: int, rows_px: int, workers: int) -> Written:
    """As `write_scene` for a scene that does not fit into memory: strips of `rows_px` rows (whole chunks), `workers` at a time.

    Always written to a new `slot`: a refusal is known only at the end, and then the previous version must still exist. The
    content hash is that of the strips' hashes, so it differs from that of the whole.
    """
    height = reader.grid.shape_yx[0]
    bands = [slice(row, min(row + rows_px, height)) for row in range(0, height, rows_px)]

    def write_band(rows: slice) -> tuple[str, int, bool]:
        image_BYX, valid_YX = reader.read_rows(work.scene, rows)
        write_rows(root, slot, rows, image_BYX, valid_YX)
        return hash_content(image_BYX, valid_YX), int(np.count_nonzero(valid_YX)), has_data(image_BYX, reader.expected.bands)

    try:
        with ThreadPoolExecutor(workers) as pool:
            written = list(pool.map(write_band, bands))
        valid_px, total_px = sum(count for _, count, _ in written), height * reader.grid.shape_yx[1]
        check_content(work.scene, any(seen for *_, seen in written), valid_px, total_px, reader.expected.min_valid_fraction)
    except SceneRefused as e:
        return Written(work, refused=e)
    content_hash = hashlib.sha256("".join(digest for digest, *_ in written).encode()).hexdigest()
    is_unchanged = content_hash == work.previous_hash
    return Written(work, None if is_unchanged else slot, content_hash, valid_px / total_px)


# ---------------------------------------------------------------- several at once


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
    root: zarr.Group, reader: Reader, works: list[Work], first_slot: int, memory_mb: int, workers: int | None
) -> Iterator[Written]:
    """Results of `works`, written by threads of this process; as many at once as fit into `memory_mb`. Order of completion."""
    requested = workers or (os.cpu_count() or 1) + 1  # one more than cores: it computes while another waits for the disk
    at_once = min(requested, memory_mb * MB // (COPIES * reader.scene_bytes))
    if at_once < 1:
        yield from _write_large(root, reader, works, first_slot, memory_mb, requested)
        return
    slot_order = SlotOrder(first_slot)
    with ThreadPoolExecutor(at_once) as pool:

        def ingest_into(ticket: int, work: Work) -> Written:
            return write_scene(root, reader, work, lambda needs_new: slot_order.take(ticket, needs_new))

        # a pool starts its jobs in the order of submission, as SlotOrder requires
        pending: set[Future[Written]] = {pool.submit(ingest_into, ticket, work) for ticket, work in enumerate(works)}
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            for future in pending:
                future.cancel()


def _write_large(
    root: zarr.Group, reader: Reader, works: list[Work], first_slot: int, memory_mb: int, requested: int
) -> Iterator[Written]:
    """One scene at a time, in strips of whole chunks. One strip is always allowed: nothing smaller can be written."""
    band_bytes = COPIES * reader.row_bytes * reader.chunk_px
    at_once = max(1, min(requested, memory_mb * MB // band_bytes))
    chunks_per_band = max(1, memory_mb * MB // (band_bytes * at_once))
    slot = first_slot
    for work in works:
        written = write_scene_in_bands(root, reader, work, slot, chunks_per_band * reader.chunk_px, at_once)
        slot += written.slot is not None
        yield written


def write_with_dask(
    session: icechunk.Session, reader: Reader, works: list[Work], first_slot: int, memory_mb: int, address: str
) -> Iterator[Written]:
    """Results of `works`, written by the workers of a Dask cluster, each to a fork of the session, merged at the end.

    The session must be clean. At most one scene per worker thread is in progress, and no more than `memory_mb` allows.
    """
    from distributed import Client, as_completed

    forks = []
    with Client(address, set_as_default=False) as client, client.as_current():
        threads = sum(client.nthreads().values())
        at_once = max(1, min(threads, memory_mb * MB // (COPIES * reader.scene_bytes)))
        room = first_slot + len(works)
        jobs = ((session.fork(), reader, work, first_slot + k, room) for k, work in enumerate(works))
        submit = partial(client.submit, _write_in_fork, pure=False)
        running = as_completed([submit(*job) for _, job in zip(range(at_once), jobs, strict=False)])
        for future in running:
            fork, written = future.result()
            forks.append(fork)
            future.release()
            if (job := next(jobs, None)) is not None:
                running.add(submit(*job))
            yield written
    session.merge(*forks)


def _write_in_fork(
    fork: icechunk.ForkSession, reader: Reader, work: Work, slot: int, room: int
) -> tuple[icechunk.ForkSession, Written]:
    root = zarr.open_group(fork.store, mode="r+")
    resize_time(root, room)
    return fork, write_scene(root, reader, work, lambda needs_new: slot)
