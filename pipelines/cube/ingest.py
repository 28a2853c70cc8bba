"""Ingests scenes: plans what is new, writes each scene, commits. Readers see either the previous or the new version."""

import errno
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import icechunk
import numpy as np
import zarr

from pipelines.cube.lock import exclusive_writer
from pipelines.cube.plan import KnownRefusal, Plan, Step, Work, fingerprint_scenes, plan_ingest, refuse_duplicates
from pipelines.cube.steps import (
    array_of,
    read_refusals,
    read_steps,
    resize_time,
    sort_dates,
    verify,
    write_refusals,
    write_steps,
)
from pipelines.cube.store import (
    BRANCH,
    IMAGE,
    bands_of,
    create_arrays,
    first_line,
    grid_of,
    has_layout,
    open_cube,
    open_or_create_repository,
)
from pipelines.cube.validation import ExpectedContent
from pipelines.cube.writing import Reader, Written, write_in_threads, write_with_dask
from pipelines.errors import CubeBusy, CubeMismatch, MissingInput, SceneRefused, StateError, StorageFull
from pipelines.files import write_text
from pipelines.grid import Grid
from pipelines.progress import Progress
from pipelines.scene import Band, Scene
from pipelines.sources.source import Resampling, SameDate, Source, resolve_dates

log = logging.getLogger(__name__)

MB = 2**20
CONFLICT_TRIES = 5


@dataclass(frozen=True)
class IngestSettings:
    """Settings of an ingest. `memory_mb` limits the pixel buffers, not the interpreter (about 150 MB)."""

    chunk_px: int = 256
    resampling: Resampling = "nearest"
    on_other_grid: Literal["reproject", "refuse"] = "refuse"
    same_date: SameDate = "refuse"
    min_valid_fraction: float = 0.0
    memory_mb: int = 512
    workers: int | None = None  # default: the number of cores
    dask: str | None = None  # scheduler address; default: threads of this process
    attributes: dict[str, Any] = field(default_factory=dict, hash=False)  # written to the cube: resolved config, its hash
    refused_json: Path | None = None  # an additional file for the refusals
    commit_scenes: int = 64  # a killed ingest loses at most this many scenes,
    commit_mb: int = 4096  # or this much of pixels, whichever is less


@dataclass(frozen=True)
class IngestReport:
    """Result of an ingest; the three groups are scene ids in order of date. `snapshot` is the cube's newest version."""

    snapshot: str
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    unchanged: tuple[str, ...]
    refused: tuple[SceneRefused, ...]
    seconds: float


@dataclass
class _Tally:
    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    refused: dict[str, SceneRefused] = field(default_factory=dict)
    done: int = 0


def ingest(
    source: Source, quality_mask: Any, uri: str, grid: Grid | None, settings: IngestSettings, progress: Progress | None = None
) -> IngestReport:
    """Writes every new or reprocessed scene of `source` to the cube at `uri`, which is created if there is none.

    `grid`: default the cube's, else the source's native grid. Refused scenes are listed in the report and never stop the
    others. Without new scenes nothing is committed and the snapshot stays. Commits are made in batches; after a kill at any
    moment the cube is in one of its versions, and the same call completes the work.

    Raises CubeBusy, CubeMismatch, StorageFull, MissingInput (no scenes), StateError (a new cube, and every scene refused).
    """
    started = time.monotonic()
    listing = source.list_scenes()
    scenes, refused = _resolve(list(listing.scenes), list(listing.refused), settings.same_date)
    if not scenes and not refused:
        raise MissingInput("the source lists no scenes: check its path and pattern")
    tally = _Tally(refused={e.scene_id: e for e in refused})
    with exclusive_writer(uri), _storage_errors(uri):
        for attempt in range(CONFLICT_TRIES):
            try:
                snapshot = _ingest_all(source, quality_mask, uri, grid, settings, scenes, tally, progress)
                break
            except icechunk.ConflictError:
                log.info("%s: another writer committed first (attempt %d); restarting from its version", uri, attempt + 1)
        else:
            raise CubeBusy(f"{uri}: another writer committed first {CONFLICT_TRIES} times; try again when it has finished")
    report = _report(snapshot, scenes, tally, time.monotonic() - started)
    if settings.refused_json is not None:
        settings.refused_json.parent.mkdir(parents=True, exist_ok=True)
        write_text(settings.refused_json, json.dumps(refusals_as_json(report.refused), indent=1) + "\n")
    if not snapshot:
        raise StateError(_no_scene_message(report.refused))
    return report


def _resolve(scenes: list[Scene], refused: list[SceneRefused], same_date: SameDate) -> tuple[list[Scene], list[SceneRefused]]:
    """One scene per date: most sources resolve their dates themselves; here for those that do not."""
    if same_date == "mosaic" and not any(scene.parts for scene in scenes):
        resolved = resolve_dates(scenes, refused, same_date)
        scenes, refused = resolved.scenes, resolved.refused
    kept, duplicates = refuse_duplicates(scenes)
    return kept, [*refused, *duplicates]


def _ingest_all(
    source: Source,
    quality_mask: Any,
    uri: str,
    grid: Grid | None,
    settings: IngestSettings,
    scenes: list[Scene],
    tally: _Tally,
    progress: Progress | None,
) -> str:
    """The newest snapshot after all batches, or "" if the cube still has no version."""
    repository = open_or_create_repository(uri)
    root = _newest(repository)
    target = _target_grid(uri, source, grid) if root is not None else (grid or source.native_grid())
    expected = ExpectedContent(target.shape_yx, np.dtype(source.dtype()), tuple(source.bands), settings.min_valid_fraction)
    if root is not None:
        _check_match(uri, expected)
    chunk_px = settings.chunk_px if root is None else array_of(root, IMAGE).chunks[2]
    reader = Reader(source, quality_mask, target, expected, settings.on_other_grid, settings.resampling, chunk_px)
    context = repr((source, quality_mask, settings.resampling, settings.on_other_grid, settings.min_valid_fraction))
    fingerprints = fingerprint_scenes(scenes, context)
    plan = _plan(scenes, fingerprints, root)
    tally.unchanged = [scene_id for scene_id in plan.unchanged if scene_id not in {*tally.added, *tally.replaced}]
    tally.refused |= {e.scene_id: e for e in plan.refused}
    total, tally.done = len(plan.works), 0
    size = max(1, min(settings.commit_scenes, settings.commit_mb * MB // reader.scene_bytes))
    for first in range(0, total, size):
        ids = {work.scene.id for work in plan.works[first : first + size]}
        _write_batch(
            repository,
            reader,
            settings,
            [s for s in scenes if s.id in ids],
            fingerprints,
            tally,
            lambda n: _report_progress(progress, n, total),
        )
    return repository.lookup_branch(BRANCH) if _newest(repository) is not None else ""


def _report_progress(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


def _newest(repository: icechunk.Repository) -> zarr.Group | None:
    store = repository.readonly_session(BRANCH).store
    return zarr.open_group(store, mode="r") if has_layout(store) else None


def _plan(scenes: list[Scene], fingerprints: dict[str, str], root: zarr.Group | None) -> Plan:
    if root is None:
        return plan_ingest(scenes, fingerprints, ())
    return plan_ingest(scenes, fingerprints, read_steps(root), read_refusals(root))


def _target_grid(uri: str, source: Source, grid: Grid | None) -> Grid:
    """The grid of the existing cube, else `grid` or the source's. Raises CubeMismatch if `grid` differs from the cube's."""
    existing = grid_of(open_cube(uri))
    if grid is not None and not grid.is_aligned(existing):
        raise CubeMismatch(
            f"the cube at {uri} has the grid {existing.crs}, {existing.transform}, {existing.shape_yx} (y, x); "
            f"requested {grid.crs}, {grid.transform}, {grid.shape_yx}: omit the grid, or name a new cube (cube.uri)"
        )
    return existing


def _check_match(uri: str, expected: ExpectedContent) -> None:
    """Raises CubeMismatch unless bands, scale, offset, nodata and dtype are equal. Units and valid ranges may change."""
    cube = open_cube(uri)
    remedy = "name a new cube (cube.uri) or use the bands of this one"
    if cube[IMAGE].dtype != expected.dtype:
        raise CubeMismatch(f"the cube at {uri} stores {cube[IMAGE].dtype}, the source has {expected.dtype}: {remedy}")
    here, there = ([_comparable(band) for band in bands] for bands in (bands_of(cube), expected.bands))
    if here != there:
        raise CubeMismatch(
            f"the cube at {uri} has the bands (name, scale, offset, nodata) {here}, the source has {there}: {remedy}"
        )


def _comparable(band: Band) -> tuple[str, float, float, str]:
    return band.name, band.scale, band.offset, str(None if band.nodata is None else float(band.nodata))


# ---------------------------------------------------------------- one batch, one version


def _write_batch(
    repository: icechunk.Repository,
    reader: Reader,
    settings: IngestSettings,
    scenes: list[Scene],
    fingerprints: dict[str, str],
    tally: _Tally,
    report_done: Callable[[int], None],
) -> None:
    session = repository.writable_session(BRANCH)
    if not has_layout(session.store):
        create_arrays(
            session.store, reader.grid, reader.expected.bands, reader.expected.dtype, reader.chunk_px, settings.attributes
        )
        if settings.dask is not None:  # workers write to forks, and only a clean session can be forked
            session.commit("create cube")
            session = repository.writable_session(BRANCH)
    root = zarr.open_group(session.store, mode="r+")
    steps = read_steps(root)
    works = list(plan_ingest(scenes, fingerprints, steps).works)
    written = []
    for one in _write(session, root, reader, works, len(steps), settings):
        written.append(one)
        tally.done += 1
        report_done(tally.done)
    _finish_batch(session, root, reader, steps, written, settings, tally)


def _write(
    session: icechunk.Session, root: zarr.Group, reader: Reader, works: list[Work], first_slot: int, settings: IngestSettings
) -> Iterator[Written]:
    if settings.dask is not None:
        yield from write_with_dask(session, reader, works, first_slot, settings.memory_mb, settings.dask)
        return
    resize_time(root, first_slot + len(works))
    yield from write_in_threads(root, reader, works, first_slot, settings.memory_mb, settings.workers)


def _finish_batch(
    session: icechunk.Session,
    root: zarr.Group,
    reader: Reader,
    steps: tuple[Step, ...],
    written: list[Written],
    settings: IngestSettings,
    tally: _Tally,
) -> None:
    """Sorts the dates, describes them and commits; without changes the session is discarded."""
    written = sorted(written, key=lambda one: one.work.scene.observed_utc)
    refused = [one for one in written if one.refused is not None]
    new = [one for one in written if one.slot is not None]
    added = [one.work.scene.id for one in new if one.work.replaces is None]
    replaced = [one.work.scene.id for one in new if one.work.replaces is not None]
    if new:
        replaced_indices = {one.work.replaces for one in new}
        positioned = [(step, index) for index, step in enumerate(steps) if index not in replaced_indices]
        now = np.datetime64(time.time_ns(), "ns")
        positioned += [(_step_of(one, reader, now), one.slot) for one in new if one.slot is not None]
        positioned.sort(key=lambda pair: pair[0].time)
        resize_time(root, len(steps) + len(written))
        sort_dates(root, [index for _, index in positioned])
        write_steps(root, [step for step, _ in positioned])
        write_refusals(root, _refusals_to_keep(read_refusals(root), written))
        root.attrs.update(settings.attributes)
        verify(root)
        session.commit(
            _message(added, replaced, refused),
            _metadata(added, replaced, [*tally.refused.values(), *(o.refused for o in refused if o.refused)]),
        )
    else:
        session.discard_changes()
    tally.added += added
    tally.replaced += replaced
    tally.unchanged += [one.work.scene.id for one in written if one.slot is None and one.refused is None]
    tally.refused |= {one.work.scene.id: one.refused for one in refused if one.refused is not None}


def _step_of(one: Written, reader: Reader, now: np.datetime64) -> Step:
    scene = one.work.scene
    paths = sorted({os.path.basename(asset.path) for part in (scene.parts or (scene,)) for asset in part.assets.values()})  # noqa: PTH119
    return Step(
        time=scene.observed_utc.astype("datetime64[ns]"),
        scene_id=scene.id,
        content_hash=one.content_hash,
        fingerprint=one.work.fingerprint,
        source=" ".join(paths),
        ingested_utc=now,
        valid_fraction=one.valid_fraction,
    )


def _refusals_to_keep(known: tuple[KnownRefusal, ...], written: list[Written]) -> list[KnownRefusal]:
    """The refusals to store: earlier ones that still hold, and those of this batch that have a fingerprint."""
    seen = {one.work.scene.id for one in written}
    fresh = [
        KnownRefusal(one.refused.scene_id, one.refused.reason, one.refused.detail, one.work.fingerprint)
        for one in written
        if one.refused is not None and one.work.fingerprint
    ]
    return [*(refusal for refusal in known if refusal.scene_id not in seen), *fresh]


# ---------------------------------------------------------------- messages


def _message(added: list[str], replaced: list[str], refused: list[Written]) -> str:
    return f"ingest: {len(added)} added, {len(replaced)} replaced, {len(refused)} refused"


def _metadata(added: list[str], replaced: list[str], refused: list[SceneRefused]) -> dict[str, Any]:
    return {"driftline": code_version(), "added": added, "replaced": replaced, "refused": refusals_as_json(refused)}


def code_version() -> str:
    try:
        return version("driftline")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


def refusals_as_json(refused: list[SceneRefused] | tuple[SceneRefused, ...]) -> list[dict[str, str]]:
    return [{"scene_id": e.scene_id, "reason": e.reason, "detail": e.detail} for e in refused]


def _report(snapshot: str, scenes: list[Scene], tally: _Tally, seconds: float) -> IngestReport:
    rank = {scene.id: index for index, scene in enumerate(scenes)}

    def in_order(ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(ids, key=lambda scene_id: rank.get(scene_id, -1)))

    refused = tuple(tally.refused[scene_id] for scene_id in in_order(tally.refused))
    return IngestReport(snapshot, in_order(tally.added), in_order(tally.replaced), in_order(tally.unchanged), refused, seconds)


def _no_scene_message(refused: tuple[SceneRefused, ...]) -> str:
    shown = "\n".join(f"  {e}" for e in refused[:5])
    return f"none of the {len(refused)} scenes was accepted, so no cube was created; the first refusals:\n{shown}"


@contextmanager
def _storage_errors(uri: str) -> Iterator[None]:
    """Converts Icechunk errors, which hold the system's error as text: StorageFull for a full disk, else StateError."""
    try:
        yield
    except (icechunk.IcechunkError, OSError) as e:
        if isinstance(e, icechunk.ConflictError):
            raise
        codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if getattr(e, "errno", None) in codes or any(
            f"os error {code}" in str(e) or os.strerror(code) in str(e) for code in codes
        ):
            raise StorageFull(
                f"no space left for the cube at {uri}; what was committed before is intact. "
                "Free space and run the same command again: it resumes"
            ) from e
        raise StateError(f"the cube at {uri} could not be written: {first_line(e)}") from e
