"""Ingests samples: reads what is new or altered, shapes its frames, writes in transactions; see `sample_store`."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pipelines.compute import HERE, Compute
from pipelines.cube.ingest import refusals_as_json
from pipelines.cube.integrity import storage_errors
from pipelines.cube.steps import array_of
from pipelines.cube.store import BRANCH, band_as_json, exclusive_writer, has_layout, head_snapshot, open_or_create_repository
from pipelines.errors import RequestError, SceneRefused
from pipelines.files import write_json
from pipelines.progress import Progress, ignore_progress
from pipelines.samples.cube_windows import CubeWindows
from pipelines.samples.sample_frames import FrameSettings, shape_frames
from pipelines.samples.sample_store import (
    CURRENT,
    IMAGE,
    SECONDS,
    VALID,
    SampleLayout,
    column,
    create_arrays,
    facts_of,
    read_layout,
    seal,
)
from pipelines.samples.window_reading import cut_pieces, read_pieces
from pipelines.sources.isolation import Limits, isolated
from pipelines.sources.samples import DescribesItself, Frames, Sample, SampleListing, SampleSource
from pipelines.sources.source import DecodesFiles

MB = 1 << 20


@dataclass(frozen=True)
class SampleIngest:
    """`memory_mb`: for decoding. `commit_mb`: of shaped frames; a kill loses no more. `refused_json`: where refusals go.

    `compute`: who reads windows of a cube; several workers keep what they have read in `staging` until it is written.
    """

    frames: FrameSettings = field(default_factory=FrameSettings)
    memory_mb: int = 512
    commit_mb: int = 64
    refused_json: Path | None = None
    compute: Compute = HERE
    staging: Path | None = None


@dataclass(frozen=True)
class SampleReport:
    """What an ingest did, by ids. `gone`: no longer listed by the source, or refused now; the store keeps their pixels."""

    snapshot: str
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    gone: tuple[str, ...]
    unchanged: int
    refused: tuple[SceneRefused, ...]
    notes: tuple[str, ...]
    is_new: bool

    @property
    def message(self) -> str:
        """`3 added, 57 unchanged, 1 refused`."""
        counts = {"added": len(self.added), "replaced": len(self.replaced), "gone": len(self.gone), "unchanged": self.unchanged}
        counts["refused"] = len(self.refused)
        text = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no samples"
        return text + ("" if self.is_new else " (nothing new)")


def ingest_samples(source: SampleSource, uri: str, settings: SampleIngest, progress: Progress = ignore_progress) -> SampleReport:
    """Every new or altered sample into the store at `uri`, which is created if there is none; other `frames`: all are read again.

    Raises RequestError (no sample can be read), MissingInput, CubeBusy, CubeMismatch, StorageFull, ArtefactDamaged.
    """
    listing = source.list_samples()
    if not listing.samples:
        raise RequestError("the source lists no sample" + (f": {listing.refused[0]}" if listing.refused else ""))
    with exclusive_writer(uri), storage_errors(uri):
        run = _Ingest(source, uri, settings, listing, progress)
        report = run.write_all()
    if settings.refused_json is not None:
        write_json(settings.refused_json, refusals_as_json(report.refused))
    return report


def read_shaped(source: SampleSource, settings: FrameSettings, sample: Sample) -> Frames:
    """The frames of a sample as they are stored. Raises SceneRefused."""
    return shape_frames(source.read(sample), settings, sample.id)


def fingerprint(sample: Sample) -> str:
    """Changes with every change of the files that the file system notes. Raises SceneRefused(unreadable)."""
    try:
        stats = [path.stat() for path in sample.paths]
    except OSError as e:
        raise SceneRefused(sample.id, "unreadable", f"{e.strerror}: {Path(str(e.filename)).name}") from e
    noted = [(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats]
    return hashlib.sha256(f"{[path.name for path in sample.paths]}{noted}{sample.index}".encode()).hexdigest()[:32]


@dataclass
class _Ingest:
    """One call of `ingest_samples`."""

    source: SampleSource
    uri: str
    settings: SampleIngest
    listing: SampleListing
    progress: Progress
    refused: list[SceneRefused] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.repository = open_or_create_repository(self.uri)
        self.refused.extend(self.listing.refused)
        described: dict[str, Any] = {"frames": asdict(self.settings.frames), "bands": list(map(band_as_json, self.source.bands))}
        if isinstance(self.source, DescribesItself):
            described |= self.source.description
        self.wanted = json.loads(json.dumps(described))
        self.layout: SampleLayout | None = None
        self.known: dict[str, int] = {}  # id -> row
        self.marks: dict[str, str] = {}  # id -> digest column
        self._load()

    def _load(self) -> None:
        session = self.repository.readonly_session(BRANCH)
        if not has_layout(session.store):
            return
        root = zarr.open_group(session.store, mode="r")
        layout = read_layout(root, self.uri)
        if layout.settings != self.wanted:
            return
        self.layout = layout
        ids = column(root, "id").tolist()
        self.known = dict(zip(ids, range(len(ids)), strict=True))
        self.marks = dict(zip(ids, column(root, "digest").tolist(), strict=True))
        self.current = dict(zip(ids, column(root, CURRENT).tolist(), strict=True))

    def write_all(self) -> SampleReport:
        had_layout = self.layout is not None
        before = self._columns() if had_layout else {}
        fresh = list(self._to_read())
        each = None
        done = unchanged = len(self.listing.samples) - len(fresh)
        batch: list[tuple[Sample, str, Frames]] = []
        for sample, mark, frames in self._read(fresh):
            done += 1
            self.progress(done, len(self.listing.samples))
            if frames is None:
                continue
            batch.append((sample, mark, frames))
            each = each or max(1, self.settings.commit_mb * MB // max(1, frames.image_TCHW.nbytes))
            if len(batch) >= each:
                self._write(batch)
                batch = []
        if batch or self.layout is None:
            self._write(batch)
        gone = self._finish(before)
        is_new = bool(self.added or self.replaced or gone or self.is_relabelled or not had_layout)
        snapshot = head_snapshot(self.uri)
        return SampleReport(
            snapshot, tuple(self.added), tuple(self.replaced), gone, unchanged, tuple(self.refused), tuple(self._notes()), is_new
        )

    def _to_read(self) -> Iterator[tuple[Sample, str]]:
        """New and altered samples, with the mark of their state."""
        cached: dict[tuple[Path, ...], str] = {}
        for sample in self.listing.samples:
            try:
                mark = sample.state or cached.get(sample.paths) or fingerprint(Sample("", sample.paths))
            except SceneRefused as e:
                self.refused.append(SceneRefused(sample.id, e.reason, e.detail))
                continue
            cached[sample.paths] = mark
            mark = f"{mark}.{sample.index}"
            if self.marks.get(sample.id) != mark:
                yield sample, mark

    def _read(self, fresh: Sequence[tuple[Sample, str]]) -> Iterator[tuple[Sample, str, Frames | None]]:
        """In the given order; refusals are noted."""
        if spread := self._read_by_workers(fresh):
            for (sample, mark), found in zip(fresh, spread, strict=True):
                yield sample, mark, self._accepted(sample, found)
            return
        threads = os.cpu_count() or 1 if isinstance(self.source, DecodesFiles) else 1
        limits = Limits(memory_bytes=self.settings.memory_mb * MB, shared_by=threads)

        def read(sample: Sample) -> Frames | SceneRefused:
            work = partial(read_shaped, self.source, self.settings.frames)
            try:
                if isinstance(self.source, DecodesFiles):
                    return isolated(work, sample, label=sample.id, paths=sample.paths, limits=limits)
                return work(sample)
            except SceneRefused as e:
                return e

        if threads == 1:
            for sample, mark in fresh:
                yield sample, mark, self._accepted(sample, read(sample))
            return
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[tuple[Sample, str, Future[Frames | SceneRefused]]] = deque()
            for sample, mark in fresh:
                waiting.append((sample, mark, pool.submit(read, sample)))
                if len(waiting) > 2 * threads:
                    first, known, future = waiting.popleft()
                    yield first, known, self._accepted(first, future.result())
            for first, known, future in waiting:
                yield first, known, self._accepted(first, future.result())

    def _read_by_workers(self, fresh: Sequence[tuple[Sample, str]]) -> Iterator[Frames | SceneRefused] | None:
        """Windows of several parts of a cube, where there are several workers; else None."""
        compute, staging = self.settings.compute, self.settings.staging
        if not isinstance(self.source, CubeWindows) or staging is None or (compute.is_local and compute.at_once == 1):
            return None
        pieces = cut_pieces(self.source, [sample.id for sample, _ in fresh])
        return read_pieces(self.source, pieces, self.settings.frames, staging, compute) if len(pieces) > 1 else None

    def _accepted(self, sample: Sample, found: Frames | SceneRefused) -> Frames | None:
        """The frames if they fit the store's layout, which the first sample decides; otherwise the refusal is noted."""
        if isinstance(found, Frames):
            image, asked = found.image_TCHW, self.settings.frames
            if self.layout is None:
                count = asked.count or len(image)
                self.layout = SampleLayout(count, self.source.bands, image.shape[2:], image.dtype, self.wanted)
            problem = _misfit(image, self.layout)
            if problem is None:
                return found
            found = SceneRefused(sample.id, *problem)
        self.refused.append(found)
        return None

    # ------------------------------------------------------------ writing

    def _write(self, batch: Sequence[tuple[Sample, str, Frames]]) -> None:
        """One transaction: the frames and columns of a batch."""
        if self.layout is None:
            raise RequestError(f"no sample can be read; the first: {self.refused[0]}")
        session = self.repository.writable_session(BRANCH)
        is_there = has_layout(session.store)
        root = zarr.open_group(session.store, mode="r+") if is_there else create_arrays(session.store, self.layout)
        if is_there and read_layout(root, self.uri).settings != self.wanted:
            root = create_arrays(session.store, self.layout)
        first = array_of(root, IMAGE).shape[0]
        rows = np.array([self.known.get(sample.id, -1) for sample, _, _ in batch], int)
        rows[rows < 0] = first + np.arange(int((rows < 0).sum()))
        total = max([first, *(int(row) + 1 for row in rows)])
        for _, array in root.arrays():
            array.resize((total, *array.shape[1:]))
        _put(
            array_of(root, IMAGE),
            rows,
            np.stack([padded(frames.image_TCHW, self.layout.frames) for _, _, frames in batch]) if batch else None,
        )
        shown = [padded(frames.valid_T, self.layout.frames) for _, _, frames in batch]
        seconds = [padded(frames.seconds_T, self.layout.frames, np.nan) for _, _, frames in batch]
        columns: dict[str, Any] = {VALID: shown, SECONDS: seconds, CURRENT: [True] * len(batch)}
        columns |= {"id": [one.id for one, _, _ in batch], "digest": [mark for _, mark, _ in batch]}
        columns |= _texts([sample for sample, _, _ in batch])
        columns |= {name: [frames.facts.get(name, np.nan) for _, _, frames in batch] for name in facts_of(self.layout)}
        for name, values in columns.items():
            if batch:
                _put(array_of(root, name), rows, _array(values))
        seal(root)
        session.commit(f"{len(batch)} samples")
        for (sample, mark, _), row in zip(batch, rows.tolist(), strict=True):
            (self.replaced if sample.id in self.known else self.added).append(sample.id)
            self.known[sample.id], self.marks[sample.id] = row, mark

    def _columns(self) -> dict[str, np.ndarray]:
        root = zarr.open_group(self.repository.readonly_session(BRANCH).store, mode="r")
        return {name: column(root, name) for name in (CURRENT, "answer", "group", "part", "file")}

    def _finish(self, before: Mapping[str, np.ndarray]) -> tuple[str, ...]:
        """Answers, groups and parts as the source states them now; which samples it still lists. Returns those that left."""
        session = self.repository.writable_session(BRANCH)
        root = zarr.open_group(session.store, mode="r+")
        ids = column(root, "id")
        refused = {refusal.scene_id for refusal in self.refused}
        listed = {sample.id: sample for sample in self.listing.samples if sample.id not in refused}
        wanted = {name: column(root, name).copy() for name in (CURRENT, "answer", "group", "part", "file")}
        stated = {sample: _texts([listed[sample]]) for sample in ids.tolist() if sample in listed}
        for row, sample in enumerate(ids.tolist()):
            wanted[CURRENT][row] = sample in listed
            for name in ("answer", "group", "part", "file") if sample in listed else ():
                wanted[name][row] = stated[sample][name][0]
        now = {name: column(root, name) for name in wanted}
        was_current = before.get(CURRENT, np.zeros(0, bool))
        gone = tuple(ids[row] for row in range(len(was_current)) if was_current[row] and not wanted[CURRENT][row])
        changed = [name for name, values in wanted.items() if not np.array_equal(values, now[name])]
        self.is_relabelled = any(name in changed for name in ("answer", "group", "part", CURRENT))
        if changed:
            for name in changed:
                root[name][:] = wanted[name]  # type: ignore[index]
            seal(root)
            session.commit("answers and groups")
        return gone

    def _notes(self) -> Iterator[str]:
        yield from self.listing.notes
        unused = list(self.listing.unused)
        if unused:
            more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
            yield f"not used: {len(unused)} files or folders: {', '.join(unused[:3])}{more}"


def _misfit(image: np.ndarray, layout: SampleLayout) -> tuple[str, str] | None:
    """(reason, detail) of frames that cannot be stored beside the others."""
    if image.dtype != layout.dtype:
        return "wrong-dtype", f"holds {image.dtype}, the others {layout.dtype}; convert it"
    if len(image) > layout.frames:
        return "wrong-grid", f"has {len(image)} frames, the others {layout.frames}; set frames.count"
    if image.shape[2:] != layout.size:
        sizes = [" x ".join(map(str, size)) for size in (image.shape[2:], layout.size)]
        return "wrong-grid", f"has frames of {sizes[0]} pixels, the others of {sizes[1]}; set frames.size"
    if image.shape[1] != len(layout.bands):
        return "missing-band", f"has {image.shape[1]} bands, the others {len(layout.bands)}"
    return None


def padded(values: np.ndarray, length: int, fill: float = 0) -> np.ndarray:
    """`values` with `fill` behind, `length` along the first axis."""
    short = length - len(values)
    return values if not short else np.concatenate([values, np.full((short, *values.shape[1:]), fill, values.dtype)])


def _texts(samples: Sequence[Sample]) -> dict[str, list[str]]:
    return {
        "file": [_file_of(sample) for sample in samples],
        "answer": [sample.answer for sample in samples],
        "group": [sample.group or sample.id for sample in samples],
        "part": [sample.part for sample in samples],
    }


def _file_of(sample: Sample) -> str:
    """The name of the file, or of the folder of several, as tables of answers state it."""
    return "" if not sample.paths else (sample.paths[0] if len(sample.paths) == 1 else sample.paths[0].parent).name


def _array(values: Sequence[Any]) -> np.ndarray:
    return np.array(values, dtype=object) if values and isinstance(values[0], str) else np.asarray(values)


def _put(array: Any, rows: np.ndarray, values: np.ndarray | None) -> None:
    """Writes rows, those that follow each other at once."""
    if values is None or not len(rows):
        return
    if (np.diff(rows) == 1).all():
        array[int(rows[0]) : int(rows[-1]) + 1] = values
        return
    for k, row in enumerate(rows.tolist()):
        array[row : row + 1] = values[k : k + 1]


def first_layout(source: SampleSource, listing: SampleListing, frames: FrameSettings) -> SampleLayout:
    """The layout that the first readable sample would decide. Raises RequestError where none of the first ones can be read."""
    problems = []
    for sample in listing.samples[:5]:
        work = partial(read_shaped, source, frames)
        try:
            if isinstance(source, DecodesFiles):
                found = isolated(work, sample, label=sample.id, paths=sample.paths)
            else:
                found = work(sample)
        except SceneRefused as e:
            problems.append(str(e))
            continue
        image = found.image_TCHW
        return SampleLayout(frames.count or len(image), source.bands, image.shape[2:], image.dtype, {})
    raise RequestError(f"none of the first samples can be read: {'; '.join(problems) or 'there is none'}")
