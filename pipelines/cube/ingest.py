"""Ingests scenes: plans what is new, writes each scene, commits. Readers see either the previous or the new version."""

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import icechunk
import numpy as np
import zarr

from pipelines.compute import HERE, Compute
from pipelines.cube import store
from pipelines.cube.comparison import RECORDED, compare, list_scenes, newest
from pipelines.cube.drift import find_drift
from pipelines.cube.history import REGISTRATION
from pipelines.cube.integrity import naming_damage, storage_errors
from pipelines.cube.plan import KnownRefusal, Step, cut_batches, plan_ingest
from pipelines.cube.policy import NO_POLICY, Policy
from pipelines.cube.quarantine import write_quarantine
from pipelines.cube.slicing import prepare
from pipelines.cube.staged_scenes import StagedScenes
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
from pipelines.cube.store import BRANCH, IMAGE
from pipelines.cube.writing import Outcome, Written, write_in_threads, write_with_dask
from pipelines.errors import DAMAGED, CubeBusy, SceneRefused, StateError
from pipelines.files import write_text
from pipelines.grid import Grid
from pipelines.progress import Progress
from pipelines.scene import Band, Scene
from pipelines.sources.layered import LayeredSource
from pipelines.sources.quality import QualityMask
from pipelines.sources.reading import SceneReader
from pipelines.sources.source import Listing, OnOtherGrid, Resampling, SameDate, Source

log = logging.getLogger(__name__)

MB = 2**20
OnMissing = Literal["keep", "drop"]
CONFLICT_TRIES = 5


@dataclass(frozen=True)
class IngestSettings:
    """Settings of an ingest. `memory_mb` limits the pixel buffers, not the interpreters (about 150 MB, 30 MB a worker)."""

    chunk_px: int = 256
    shard_px: int | None = None  # width of the objects that chunks are stored in; default: by the size of the raster
    resampling: Resampling = "nearest"
    on_other_grid: OnOtherGrid = "refuse"
    same_date: SameDate = "refuse"
    min_valid_fraction: float = 0.0
    memory_mb: int = 512
    workers: int | None = None  # default: the number of cores
    compute: Compute = HERE  # scenes are written here, unless it is a Dask cluster
    attributes: dict[str, Any] = field(default_factory=dict, hash=False)  # written to the cube: resolved config, its hash
    refused_json: Path | None = None  # an additional file for the refusals
    quarantine: str | None = None  # a folder for links to the files of refused scenes
    policy: Policy = NO_POLICY
    on_missing: OnMissing = "keep"  # what becomes of scenes of the cube that the source no longer lists
    retry_refused: bool = False  # reads scenes again that were refused before and have not changed
    staging: str | None = None  # where slices have left all scenes that are to be read (docs/design/030)
    commit_scenes: int = 64  # a killed ingest loses at most this many scenes (of a large cube an eighth),
    commit_mb: int = 1024  # or this much of pixels, whichever is less


@dataclass(frozen=True)
class IngestReport:
    """Result of an ingest: the cube's newest version, and the ids (refusals) of the scenes in order of date."""

    snapshot: str
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    unchanged: tuple[str, ...]
    dropped: tuple[str, ...]  # in the cube before, refused now
    refused: tuple[SceneRefused, ...]
    seconds: float
    notes: tuple[str, ...] = ()  # what was converted, doubted or not used, one line each
    missing: tuple[str, ...] = ()  # in the cube before, no longer listed by the source; dropped if `on_missing` says so
    drift: tuple[str, ...] = ()  # new scenes that look unlike those of the cube, one line each

    @property
    def is_new(self) -> bool:
        return bool(self.added or self.replaced or self.dropped)


def ingest(
    source: Source,
    quality_mask: QualityMask | None,
    uri: str,
    grid: Grid | None,
    settings: IngestSettings,
    progress: Progress | None = None,
) -> IngestReport:
    """Writes every new or reprocessed scene of `source` to the cube at `uri`, which is created if there is none.

    `grid`: default the cube's, else the source's native grid. Refused scenes are listed in the report and never stop the
    others. Without new scenes nothing is committed and the snapshot stays. Commits are made in batches; after a kill at any
    moment the cube is in one of its versions, and the same call completes the work. Other figures of registration are committed
    without new scenes, too.

    What can be read of the source is in the cube as it would be in a new one, whatever was ingested before: a scene that is
    refused for what it holds is dropped. Dates of scenes that cannot be read stay, unless another scene has that date; so do
    those of scenes that are no longer listed (`on_missing`). Scenes that were taken out by hand are refused ("dropped"). Dates
    that are marked as damaged are written again. With `settings.staging` scenes are taken from there, as `stage_slice` left them;
    only those whose files have changed since are read.

    Raises CubeBusy, CubeMismatch, StorageFull, MissingInput (no scenes), ArtefactDamaged, StateError (no date would be left,
    `on_missing: drop` would drop more than half of them, or scenes are not staged).
    """
    started = time.monotonic()
    listing = list_scenes(source, settings)
    with store.exclusive_writer(uri), storage_errors(uri):
        refused = {refusal.scene_id: refusal for refusal in listing.refused}
        run = _Ingest(source, quality_mask, uri, grid, settings, listing, progress, refused)
        for attempt in range(CONFLICT_TRIES):
            try:
                snapshot = run.write_all()
                break
            except icechunk.ConflictError:
                log.info("%s: another writer committed first (attempt %d); restarting from its version", uri, attempt + 1)
        else:
            raise CubeBusy(f"{uri}: another writer committed first {CONFLICT_TRIES} times; try again when it has finished")
    outcomes = (run.ids("added"), run.ids("replaced"), run.ids("unchanged"), run.dropped)
    new = {*outcomes[0], *outcomes[1]}
    with naming_damage(uri):
        drift = tuple(find_drift(store.open_repository(uri), BRANCH, new)) if new else ()
    noted = (*listing.remarks(), *run.remarks)
    report = IngestReport(snapshot, *outcomes, run.refusals(), time.monotonic() - started, noted, run.missing, drift)
    if settings.refused_json is not None:
        settings.refused_json.parent.mkdir(parents=True, exist_ok=True)
        write_text(settings.refused_json, json.dumps(refusals_as_json(report.refused), indent=1) + "\n")
    if settings.quarantine is not None:
        write_quarantine(Path(settings.quarantine), report.refused, listing.scenes)
    if not snapshot:
        shown = "\n".join(f"  {e}" for e in report.refused[:5])
        count = len(report.refused)
        raise StateError(f"none of the {count} scenes was accepted, so no cube was written; the first refusals:\n{shown}")
    after = f"the cube keeps what was accepted, nothing was made from it. All refusals: {settings.refused_json or uri}"
    settings.policy.require_few(report.refused, len(listing.scenes) + len(listing.refused), after)
    return report


@dataclass
class _Ingest:
    """One ingest: what was asked for, and what has become of the scenes (by id) so far."""

    source: Source
    quality_mask: QualityMask | None
    uri: str
    grid: Grid | None
    settings: IngestSettings
    listing: Listing
    progress: Progress | None
    refused: dict[str, SceneRefused]
    outcome: dict[str, Outcome] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    started_utc: np.datetime64 = field(default_factory=lambda: np.datetime64(time.time_ns(), "ns"))
    changed_utc: dict[str, np.datetime64] = field(default_factory=dict)
    read_again: dict[str, str] = field(default_factory=dict)  # id -> fingerprint of scenes whose files changed, not their pixels
    missing: tuple[str, ...] = ()
    staged: StagedScenes | None = None

    def write_all(self) -> str:
        """The newest snapshot after all batches, or "" if no date would be left: then the cube, if there is one, stays."""
        settings = self.settings
        repository = store.open_or_create_repository(self.uri)
        root = newest(repository, self.uri)
        found = compare(self.source, self.quality_mask, self.uri, self.grid, settings, self.listing, root, now=self.started_utc)
        reader, plan, fingerprints, self.changed_utc = found.reader, found.plan, found.fingerprints, found.changed_utc
        self.missing, self.remarks = found.missing, found.notes
        self.refused |= found.refused
        if isinstance(reader.source, LayeredSource):
            self.remarks += tuple(reader.source.remarks([work.scene for work in plan.works])[0])
        for scene_id in plan.unchanged:
            self.outcome.setdefault(scene_id, "unchanged")
        if settings.staging is not None:
            self.staged, *_ = prepare(self.source, reader, settings, root)
            self.staged.require(plan.works)
        total, done, most = len(plan.works), 0, max(1, settings.commit_mb * MB // reader.scene_bytes)
        for part in cut_batches(total, len(found.steps), settings.commit_scenes, most, may_be_empty=root is not None):
            batch = [work.scene for work in plan.works[part]]
            for _ in self._write_batch(repository, reader, batch, fingerprints, is_last=part.stop >= total):
                done += 1
                if self.progress is not None:
                    self.progress(done, total)
        self.remarks += () if self.staged is None else self.staged.notes()
        written = newest(repository, self.uri)
        has_dates = written is not None and any(not self._is_stale(step) for step in read_steps(written))
        return repository.lookup_branch(BRANCH) if has_dates else ""

    @property
    def _is_spread(self) -> bool:
        """Whether Dask's workers read; of what slices have read only chunks are left to be written."""
        return self.settings.compute.kind == "dask" and self.staged is None

    def _is_stale(self, step: Step) -> bool:
        """True for a date of the cube whose scene is refused for what it holds. Known when every scene has been read."""
        if step.scene_id in self.missing:
            return self.settings.on_missing == "drop"
        refusal = self.refused.get(step.scene_id)
        return refusal is not None and refusal.reason not in DAMAGED and step.scene_id not in self.outcome

    def _lies_anew(self, root: zarr.Group) -> bool:
        """Whether the visits of a patient have other figures of registration than those in the cube."""
        about = self.settings.attributes.get(REGISTRATION)
        return about is not None and root.attrs.get(REGISTRATION) != about

    def _write_batch(
        self,
        repository: icechunk.Repository,
        reader: SceneReader,
        scenes: list[Scene],
        fingerprints: dict[str, str],
        is_last: bool,
    ) -> Iterator[None]:
        """Writes `scenes` as one version; yields after each scene."""
        settings = self.settings
        session = repository.writable_session(BRANCH)
        if not store.has_layout(session.store):
            dtype = np.dtype(reader.source.dtype())
            layout = reader.grid, reader.source.bands, dtype, settings.chunk_px, settings.attributes, settings.shard_px
            store.create_arrays(session.store, *layout)
            if self._is_spread:  # workers write to forks, and only a clean session can be forked
                session.commit("create cube")
                session = repository.writable_session(BRANCH)
        root = zarr.open_group(session.store, mode="r+")
        steps = read_steps(root)
        works = list(plan_ingest(scenes, fingerprints, steps, (), self.changed_utc).works)
        if works and self._is_spread:
            results = write_with_dask(session, reader, works, len(steps), settings.memory_mb, settings.compute)
        else:
            resize_time(root, len(steps) + len(works))
            results = write_in_threads(root, reader, works, len(steps), settings.memory_mb, settings.workers, self.staged)
        written = []
        for one in results:
            written.append(one)
            yield
        written.sort(key=lambda one: one.work.scene.observed_utc)
        self._finish_batch(session, root, steps, written, reader.source.bands, is_last)

    def _finish_batch(
        self,
        session: icechunk.Session,
        root: zarr.Group,
        steps: tuple[Step, ...],
        written: list[Written],
        of_source: tuple[Band, ...],
        is_last: bool,
    ) -> None:
        """Sorts the dates, describes them and commits; without changes the session is discarded. The last batch drops dates."""
        outcome = {one.work.scene.id: one.outcome for one in written if one.refused is None}
        refused = {one.work.scene.id: one.refused for one in written if one.refused is not None}
        self.outcome |= outcome
        self.refused |= refused
        added, replaced = ([scene_id for scene_id, kind in outcome.items() if kind == which] for which in ("added", "replaced"))
        dropped = [step.scene_id for step in steps if is_last and self._is_stale(step)]
        now = self.started_utc  # a file that changes from here on is read again
        new = [(_step_of(one, now), one.slot) for one in written if one.slot is not None]
        self.read_again |= {
            one.work.scene.id: one.work.fingerprint for one in written if one.slot is None and one.refused is None
        }
        gone, taken = {one.work.replaces for one in written if one.slot is not None}, {step.time for step, _ in new}
        stay = [(step, n) for n, step in enumerate(steps) if not (n in gone or step.time in taken or step.scene_id in dropped)]
        again = self.read_again
        stay = [
            (replace(step, fingerprint=again[step.scene_id], ingested_utc=now) if step.scene_id in again else step, n)
            for step, n in stay
        ]
        positioned = sorted([*stay, *new], key=lambda pair: pair[0].time)
        bands, image = [store.band_as_json(band) for band in of_source], array_of(root, IMAGE)
        is_changed = bool(new or dropped) or json.loads(str(image.attrs["bands"])) != bands or (is_last and self._lies_anew(root))
        if positioned and is_changed:
            image.attrs["bands"] = json.dumps(bands)
            resize_time(root, len(steps) + len(written))
            sort_dates(root, [index for _, index in positioned])
            write_steps(root, [step for step, _ in positioned])
            write_refusals(root, _refusals_to_keep(read_refusals(root), written))
            root.attrs.update({**self.settings.attributes, **({RECORDED: 1} if is_last else {})})
            verify(root)
            message = f"ingest: {len(added)} added, {len(replaced)} replaced, {len(dropped)} dropped, {len(refused)} refused"
            changed = {"added": added, "replaced": replaced, "dropped": dropped}
            figures = {one.work.scene.id: one.figures for one in written if one.slot is not None}
            about = {"driftline": store.release(), **changed, "refused": refusals_as_json(refused.values()), "figures": figures}
            session.commit(message, about)
            self.dropped = (*self.dropped, *dropped)
        else:
            session.discard_changes()

    def ids(self, outcome: Outcome) -> tuple[str, ...]:
        return tuple(scene.id for scene in self.listing.scenes if self.outcome.get(scene.id) == outcome)

    def refusals(self) -> tuple[SceneRefused, ...]:
        rank = {scene.id: index for index, scene in enumerate(self.listing.scenes)}
        return tuple(sorted(self.refused.values(), key=lambda refusal: rank.get(refusal.scene_id, -1)))


def _step_of(one: Written, now: np.datetime64) -> Step:
    scene = one.work.scene
    paths = sorted({os.path.basename(asset.path) for part in (scene.parts or (scene,)) for asset in part.assets.values()})  # noqa: PTH119
    date, files = scene.observed_utc.astype("datetime64[ns]"), scene.label or " ".join(paths)
    return Step(date, scene.id, one.content_hash, one.work.fingerprint, files, now, one.valid_fraction)


def _refusals_to_keep(known: tuple[KnownRefusal, ...], written: list[Written]) -> list[KnownRefusal]:
    """The refusals to store: earlier ones that still hold, and those of this batch that have a fingerprint."""
    seen = {one.work.scene.id for one in written}
    fresh = [
        KnownRefusal(one.refused.scene_id, one.refused.reason, one.refused.detail, one.work.fingerprint)
        for one in written
        if one.refused is not None and one.work.fingerprint
    ]
    return [*(refusal for refusal in known if refusal.scene_id not in seen), *fresh]


def refusals_as_json(refused: Iterable[SceneRefused]) -> list[dict[str, str]]:
    return [{"scene_id": e.scene_id, "reason": e.reason, "detail": e.detail} for e in refused]
