"""A slice of an ingest: reads, checks and compresses its share of the scenes, and stages them for the ingest that commits all.

A slice opens the cube to read, takes no lock and commits nothing, so any number of them may work at once, and be killed.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import icechunk
import numpy as np
import zarr

from pipelines.compute import results_of
from pipelines.cube import store
from pipelines.cube.comparison import Comparison, compare, list_scenes, newest
from pipelines.cube.encoding import ChunkLayout
from pipelines.cube.georeference import frame_attributes
from pipelines.cube.plan import Work
from pipelines.cube.staged_scenes import StagedScenes, job_of
from pipelines.cube.steps import pixel_store
from pipelines.cube.writing import MB, Cutting, stage_scene
from pipelines.errors import SceneRefused
from pipelines.grid import Grid
from pipelines.progress import Progress
from pipelines.slices import Slice, SliceDone
from pipelines.sources.quality import QualityMask
from pipelines.sources.reading import IsolatedReader, SceneReader
from pipelines.sources.source import Listing, Source

if TYPE_CHECKING:
    from pipelines.cube.ingest import IngestSettings


@dataclass(frozen=True)
class SliceStaged:
    """What became of a slice: its scenes, and those of them that are refused; `left`: how many `--finish` reads itself, since a
    change of their files would not be seen."""

    done: SliceDone
    refused: tuple[SceneRefused, ...]
    left: int
    notes: tuple[str, ...] = ()


def stage_slice(
    source: Source, mask: QualityMask | None, uri: str, grid: Grid | None, settings: IngestSettings, share: Slice,
    progress: Progress | None = None,
) -> SliceStaged:  # fmt: skip
    """Stages every N-th of the scenes that `ingest` with these arguments would read, in order of date; what is staged stays.

    `settings.staging`: where. Scenes that are refused are staged as refusals, and read again with `retry_refused`.
    Raises what `ingest` raises before it reads pixels, and StorageFull.
    """
    listing, found, root = _compare(source, mask, uri, grid, settings)
    staged, layouts, cutting = prepare(source, found.reader, settings, root)
    own = share.of(found.plan.works)
    works = [work for work in own if work.fingerprint]
    isolated = IsolatedReader(found.reader, settings.memory_mb * MB, cutting.at_once)

    def stage(work: Work) -> tuple[SliceDone, SceneRefused | None]:
        there = staged.find(work)
        if there is None or (there.refused is not None and settings.retry_refused):
            return SliceDone(1, 1), stage_scene(staged, isolated, layouts, work, cutting.strips)
        return SliceDone(0, 1), there.refused

    done, refused = SliceDone(), []
    with ThreadPoolExecutor(1 if cutting.strips else cutting.at_once) as pool:
        for one, refusal in results_of([pool.submit(stage, work) for work in works]):
            done += one
            refused += [] if refusal is None else [refusal]
            if progress is not None:
                progress(done.size, len(works))
    notes = *listing.remarks(), *found.notes
    return SliceStaged(done, tuple(sorted(refused, key=lambda e: e.scene_id)), len(own) - len(works), notes)


@dataclass(frozen=True)
class Unstaged:
    """What an ingest would read of `scenes` scenes, and ids of those that are in no slice; `has_others`: of slices with another
    config or release something is there."""

    scenes: int
    missing: tuple[str, ...]
    has_others: bool = False


def find_unstaged(
    source: Source, mask: QualityMask | None, uri: str, grid: Grid | None, settings: IngestSettings
) -> Unstaged:  # fmt: skip
    """What `ingest` with these arguments would find missing in `settings.staging`; nothing is read, nothing written.

    Raises what `ingest` raises before it reads pixels.
    """
    _, found, root = _compare(source, mask, uri, grid, settings)
    staged, *_ = prepare(source, found.reader, settings, root)
    missing = tuple(staged.missing_of(found.plan.works))
    return Unstaged(len(found.plan.works), missing, bool(missing) and staged.has_others)


def _compare(
    source: Source, mask: QualityMask | None, uri: str, grid: Grid | None, settings: IngestSettings
) -> tuple[Listing, Comparison, zarr.Group | None]:
    """The listed scenes beside those of the cube, if there is one."""
    listing = list_scenes(source, settings)
    root = newest(store.open_repository(uri), uri) if store.has_repository(uri) else None
    now = np.datetime64("now", "ns")
    return listing, compare(source, mask, uri, grid, settings, listing, root, now=now, reads_files=False), root


def prepare(
    source: Source, reader: SceneReader, settings: IngestSettings, root: zarr.Group | None
) -> tuple[StagedScenes, tuple[ChunkLayout, ...], Cutting]:
    """Where scenes are staged for the cube `root` (None: a new one), how they are compressed, and how many are read at once."""
    assert settings.staging is not None
    bands, dtype = reader.source.bands, np.dtype(reader.source.dtype())
    if root is None:
        memory = icechunk.Repository.create(icechunk.in_memory_storage()).writable_session(store.BRANCH).store
        root = store.create_arrays(memory, reader.grid, bands, dtype, settings.chunk_px, {}, settings.shard_px)
    pixels = pixel_store(root)
    cutting = Cutting.of(reader, pixels.object_px, settings.memory_mb, settings.workers)
    stored = [(band.name, band.scale, band.offset, str(band.nodata), band.valid_range) for band in bands]
    # not the reader's source: that of a cube that is there knows more than the one of a new cube, and reads the same pixels
    how = source, reader.quality_mask, reader.resampling, reader.on_other_grid, reader.min_valid_fraction
    cube = stored, dtype.str, frame_attributes(reader.grid), reader.grid.shape, pixels.layouts
    return StagedScenes(settings.staging, job_of(how, cube, cutting.strips, store.release())), pixels.layouts, cutting
