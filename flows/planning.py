"""`--dry-run`: what a verb would do, and about how much disk, memory and time it would take. Nothing is changed.

The constants were measured on two idle cores without a GPU; `flows.machine` knows how this machine compares, and what runs took
on it, which corrects the plans of later ones. Training often ends before its last epoch, which no plan knows.
"""

from __future__ import annotations

import math
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from configs import build
from configs.originals import frames_of
from configs.privacy import PrivacyConfig, copy_of
from configs.run import CubeConfig, CubeRun, Run
from configs.tasks import AnyRun
from configs.trained import used_by
from flows import Json
from flows.folder import RunFolder, exclusive_run, finished
from flows.machine import FIGURES, Machine, core_count, past_runs, ratios, read_machine, stage_key
from flows.staged import note_on_compute
from flows.task import stages_of
from flows.tasks import task_of
from pipelines.errors import MissingInput, RunBusy
from pipelines.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from flows.task import Task
    from pipelines.cube.comparison import Preview
    from pipelines.samples.labels import Span

PACKED = 2.0  # times as small are pixels in a cube; measured 1.6 (Sentinel-2 in 10 m) to 2.6 (MODIS)
INGEST_BYTES_S = 15e6  # of pixels read, checked, compressed and written
SCENE_S = 0.02  # opening and committing one scene
DECODER_MB = 40.0  # a process that decodes files, beside what it shares with the others
STARTUP_MB = 700.0  # an interpreter with torch, the readers and the pictures
WORKER_MB = 450.0  # another, of `compute: {kind: processes}`
STARTUP_S = 3.5
STARTUP_READ_MB = 40.0  # modules of Python
LATER_S = 1.0  # a stage whose call has imported all of that before
# seconds, MB on the disk and MB read for products, pictures and report: maps of several dates, or little more than tables
MAPS, TABLES = (1.5, 4.0, 120.0), (0.5, 0.7, 20.0)
PUBLISHING_MB = 120.0  # of memory for that
MOST_NAMES = 20  # of scenes that are gone


@dataclass(frozen=True)
class PlannedStep:
    """One stage: wall clock on idle cores and CPU seconds of all processes, what the disk grows by, peak memory, bytes read.

    `plain`: the same figures before runs of the past (`past_runs` of them) corrected them.
    """

    stage: str
    what: str
    seconds: float
    disk_mb: float
    memory_mb: float
    read_mb: float = 0.0
    cpu_seconds: float = 0.0
    past_runs: int = 0
    plain: dict[str, float] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, float]:
        return {name: round(getattr(self, name), 2) for name in FIGURES}

    def to_json(self) -> Json:
        return {"stage": self.stage, "what": self.what, **self.figures, "past_runs": self.past_runs}


def estimate(
    stage: str, what: str, seconds: float, disk_mb: float, memory_mb: float, read_mb: float = 0.0, *, machine: Machine,
    busy: float = 1.0, publishes: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> PlannedStep:  # fmt: skip
    """A stage with this much time, memory and reading beside those of the interpreter; `busy` cores on average.

    publishes: seconds, MB written and MB read beside.
    """
    wrote_s, wrote_mb, then_read_mb = publishes
    fixed = STARTUP_S / machine.starting + wrote_s / machine.numerics
    held_mb = STARTUP_MB + memory_mb + PUBLISHING_MB * any(publishes)
    size = disk_mb + wrote_mb, held_mb, STARTUP_READ_MB + then_read_mb + read_mb
    return PlannedStep(stage, what, fixed + seconds, *size, cpu_seconds=fixed + seconds * busy)


def spread(run: Run, seconds: float, memory_mb: float) -> tuple[float, float, float]:
    """(seconds, MB, busy cores) of work on tiles, of which one takes `memory_mb`, where `compute` says that it is done.

    What workers of a scheduler elsewhere take is not known.
    """
    compute = run.compute.build()
    workers = compute.workers or (1 if compute.kind == "threads" else core_count())
    if compute.address or (workers == 1 and compute.kind == "threads"):
        return seconds, memory_mb, 1.0
    busy = min(workers, core_count())
    return seconds / busy, workers * (memory_mb + (0.0 if compute.kind == "threads" else WORKER_MB)), busy


@dataclass(frozen=True)
class Extent:
    """How large the job is."""

    dates: int
    train_dates: int  # before validation
    shape: tuple[int, ...]  # (y, x), of volumes (z, y, x)
    bands: int
    itemsize: int
    sites: int = 1  # whose pixels `shape` counts as those of one
    notes: tuple[str, ...] = ()  # what ingest would convert, doubt, refuse or not use
    ingest: Preview | None = None  # what it would do, scene by scene
    times: tuple[np.datetime64, ...] = ()  # of the dates; not of sites
    refused: tuple[str, ...] = ()  # the reason of each scene or sample that ingest would refuse
    to_read: int | None = None  # scenes or samples that an ingest reads; None: as `ingest` says, else all
    repeated_bytes: int = 0  # of the source's files, that every scene reads whole
    machine: Machine = field(default_factory=read_machine)

    def dates_in(self, span: Span | None) -> int:
        """Dates within the span; all of them where there is none, or their times are not known."""
        import numpy as np

        return int(span.holds(np.array(self.times)).sum()) if span and self.times else self.dates

    @property
    def pixels(self) -> int:
        return math.prod(self.shape)

    @property
    def shape_yx(self) -> tuple[int, int]:
        return self.shape[-2], self.shape[-1]

    @property
    def bytes(self) -> int:
        return self.dates * self.pixels * (self.bands * self.itemsize + 1)


def fetched(folder: RunFolder) -> RunFolder:
    """The folder; of a run in S3 it is brought to what is published first."""
    if folder.copy is not None:
        with suppress(RunBusy), exclusive_run(folder):  # another command at work here has fetched it
            folder.copy.fetch()
    return folder


def make_plan(run: AnyRun, verb: str) -> Json:
    """The plan as JSON values. Raises MissingInput where there is neither a source nor a cube."""
    folder = fetched(RunFolder.of(run))
    task = task_of(run.task)
    stages_of(task, verb)  # a verb that the task has
    extent, steps = plan_steps(task, run, folder, verb)
    note = note_on_compute(task, run, [step.stage for step in steps])
    existing = folder.path
    while not existing.exists():
        existing = existing.parent
    return {
        "run": run.name,
        "verb": verb,
        "folder": folder.stored or str(folder.path),
        "cube": folder.cube_uri,
        "extent": {
            "dates": extent.dates,
            **({"z": extent.shape[0]} if len(extent.shape) > 2 else {}),
            "y": extent.shape_yx[0],
            "x": extent.shape_yx[1],
            "bands": extent.bands,
            "sites": extent.sites,
        },
        "notes": [*extent.notes, *([note] if note else [])],
        "rates": extent.machine.note,
        "refused": dict(Counter(extent.refused)),
        **({} if extent.ingest is None else {"ingest": {**ingest_counts(extent.ingest), "gone": list(extent.ingest.missing)}}),
        "finished_before": [step.stage for step in steps if finished(folder, step.stage)],
        "steps": [step.to_json() for step in steps],
        "seconds": round(sum(step.seconds for step in steps)),
        "cpu_seconds": round(sum(step.cpu_seconds for step in steps)),
        "read_mb": round(sum(step.read_mb for step in steps), 1),
        "disk_mb": round(sum(step.disk_mb for step in steps), 1),
        "peak_memory_mb": round(max((step.memory_mb for step in steps), default=0.0)),
        "disk_free_mb": round(shutil.disk_usage(existing).free / 1e6),
    }


def plan_steps(
    task: Task, run: AnyRun, folder: RunFolder, verb: str, ingested: Json | None = None
) -> tuple[Extent, list[PlannedStep]]:
    """How large the job is, and its stages, corrected by what runs of like size took. `ingested`: see `Task.plan`."""
    extent, steps = task.plan(run, folder, "run" if verb == "predict" and used_by(run) is not None else verb, ingested)
    if used_by(run) is not None:
        copied = estimate("train", "check the model and copy it; nothing is trained", 0.0, 1.0, 0.0, machine=extent.machine)
        steps = [copied if step.stage == "train" else step for step in steps]
    stages = [step.stage for step in steps if step.stage != "ingest"]
    saved = (STARTUP_S - LATER_S) / extent.machine.starting
    steps = [
        replace(step, seconds=step.seconds - saved, cpu_seconds=step.cpu_seconds - saved) if step.stage in stages[1:] else step
        for step in steps
    ]
    return extent, [corrected(run, step) for step in steps]


def corrected(run: AnyRun, step: PlannedStep) -> PlannedStep:
    """The step times the median of what runs of its kind and size took here by what was planned for them."""
    plain = step.figures
    known, count = ratios(plain, past_runs(stage_key(run, step.stage)))
    now = {name: plain[name] * known.get(name, 1.0) for name in FIGURES}
    return PlannedStep(step.stage, step.what, past_runs=count, plain=plain, **now)


def measure(run: CubeRun, folder: RunFolder, until: datetime, *, reads_source: bool, ingested: Json | None = None) -> Extent:
    """From the source where the verb reads it, else from the cube; `train_dates` are those before `until`."""
    from pipelines.calendar import count_before

    if reads_source and ingested is None:
        found, notes = preview_ingest(run, folder)
        reader, dates = found.reader, list(found.times)
        size = reader.grid.shape, len(reader.source.bands), reader.source.dtype().itemsize
        refused = tuple(error.reason for error in found.refused)
        until_then = count_before(dates, until)
        return Extent(
            len(dates),
            until_then,
            *size,
            notes=tuple(notes),
            ingest=found,
            times=found.times,
            refused=refused,
            repeated_bytes=repeated_bytes(run),
        )
    from pipelines.cube.store import open_cube

    try:
        image = open_cube(folder.cube_uri)["image"]
    except MissingInput as e:
        raise MissingInput(f"{e} (there is nothing to plan from)") from e
    times, sizes = list(image["time"].values), image.sizes
    return Extent(
        len(times),
        count_before(times, until),
        tuple(sizes[dim] for dim in ("z", "y", "x") if dim in sizes),
        sizes["band"],
        image.dtype.itemsize,
        times=tuple(times),
        to_read=read_by(ingested),
        repeated_bytes=repeated_bytes(run) if reads_source else 0,
    )


def repeated_bytes(run: CubeRun) -> int:
    """Bytes of the source's files that every scene reads whole."""
    from pipelines.sources.layered import LayeredSource

    source = build.build_source(run)
    return source.repeated_bytes() if isinstance(source, LayeredSource) else 0


def read_by(ingested: Json | None) -> int | None:
    """Scenes or samples that an ingest has read, by its record."""
    return None if ingested is None or "added" not in ingested else int(ingested["added"]) + int(ingested["replaced"])


def preview_ingest(run: CubeRun, folder: RunFolder) -> tuple[Preview, list[str]]:
    """What ingest would do, and what it would say of the scenes. Raises what ingest raises before it reads pixels."""
    from pipelines.cube.comparison import preview
    from pipelines.cube.shards import shard_width

    settings = build.build_ingest_settings(run, folder.refused)
    is_original = run.source.kind in ("dicom", "images") and Path(run.source.path).resolve() != copy_of(run).resolve()
    is_copied = is_original and (run.privacy or PrivacyConfig()).deidentify
    hides_names = is_copied and run.source.kind == "images" and run.privacy is not None
    if hides_names:
        frames_of(run)  # raises without a name
    uri = None if is_copied else folder.cube_uri
    found = preview(build.build_source(run), build.build_quality_mask(run), uri, build.build_grid(run), settings)
    notes = [
        *build.grid_notes(run),
        *(["notes on the pictures are given when they are de-identified"] if hides_names else found.notes),
    ]
    if is_copied and finished(folder, "ingest"):
        notes.append("the images are de-identified first: which of them the cube has already is known when that is done")
    width = shard_width(found.reader.grid.shape, settings.chunk_px, settings.shard_px)
    if width and not found.has_cube:
        together = f"blocks of {settings.chunk_px} px are stored together in objects {width} px wide"
        notes.append(f"{together} (cube.shard_px)")
    if settings.policy.checksums is not None:
        notes.append(f"policy.checksums: files are compared with {settings.policy.checksums} when they are ingested")
    if found.missing:
        fate = "would be taken out of the cube" if settings.on_missing == "drop" else "the cube keeps them"
        notes.append(f"no longer in the source: {_names(found.missing)}; {fate} (cube.on_missing: {settings.on_missing})")
    if found.dropped:
        notes.append(f"in the cube, and would be dropped since they are refused now: {_names(found.dropped)}")
    reasons = Counter(error.reason for error in found.refused)
    first = {error.reason: error for error in reversed(found.refused)}
    notes += [
        f"{counted(count, 'scene')} would be refused{f', {reason}' if hides_names else f'; the first: {first[reason]}'}"
        for reason, count in reasons.items()
    ]
    if found.remembered:
        notes.append(
            f"{found.remembered} of these were refused before and have not changed: only --retry-refused reads them again"
        )
    return found, notes


def _names(scene_ids: Sequence[str]) -> str:
    """The ids, of many the first."""
    more = f" and {len(scene_ids) - MOST_NAMES} more" if len(scene_ids) > MOST_NAMES else ""
    return f"{', '.join(scene_ids[:MOST_NAMES])}{more}"


def plan_ingest(cube: CubeConfig, extent: Extent) -> PlannedStep:
    cores, found, machine = cube.workers or os.cpu_count() or 1, extent.ingest, extent.machine
    scenes = extent.dates * extent.sites if extent.to_read is None else extent.to_read
    scenes = scenes if found is None else len(found.added) + len(found.replaced)
    written = extent.bytes * scenes / max(extent.dates * extent.sites, 1)
    cores = min(cores, 8)
    work = 2 * (written / INGEST_BYTES_S + scenes * SCENE_S) / machine.numerics
    seconds = 1 + work / cores
    memory = 330 + (1 + cores) * DECODER_MB + min(cube.memory_mb, 2 * cores * extent.bytes / max(extent.dates, 1) / 1e6)
    what = f"{counted(scenes, 'scene')} into {'the cube' if extent.sites == 1 else f'{extent.sites} cubes'}"
    if found is not None and found.has_cube:
        parts = {word: number for word, number in ingest_counts(found).items() if number}
        what = f"{', '.join(f'{number} {word}' for word, number in parts.items())}{'' if scenes else ' (nothing to read)'}"
    read = 100 + 2.5 * written / 1e6 + scenes * extent.repeated_bytes / 1e6
    return PlannedStep("ingest", what, seconds, written / PACKED / 1e6, memory, read, 1 + work)


def ingest_counts(found: Preview) -> dict[str, int]:
    """How many scenes are of each kind."""
    counts = {"new": found.added, "reprocessed": found.replaced, "unchanged": found.unchanged, "gone": found.missing}
    return {word: len(ids) for word, ids in counts.items()} | {"refused": len(found.refused)}


def plan_lines(content: Json) -> list[str]:
    """The plan for people."""
    extent = content["extent"]
    lines = [f"plan of `driftline {content['verb']}` for {content['run']} (nothing was changed)"]
    dates, bands, sites = counted(extent["dates"], "date"), counted(extent["bands"], "band"), extent["sites"]
    shape = " x ".join(str(extent[dim]) for dim in ("z", "y", "x") if dim in extent)
    pixels = (
        f"{shape} {'voxels' if 'z' in extent else 'pixels'}"
        if sites == 1
        else f"{extent['y'] * extent['x']} pixels in {sites} sites"
    )
    lines.append(f"  {dates}, {pixels}, {bands} -> {content['folder']}")
    lines += [f"  note: {note}" for note in content["notes"]]
    lines.append(f"  {'step':<10}{'time':>10}{'CPU':>10}{'disk':>12}{'memory':>12}{'read':>12}  what")
    for step in content["steps"]:
        is_open = step["stage"] in content["finished_before"] and not (step["stage"] == "ingest" and "ingest" in content)
        done = " (finished before; skipped if nothing changed)" if is_open else ""
        lines.append(f"  {step['stage']:<10}{figure_columns(step)}  {step['what']}{done}")
    lines.append(f"  {'all':<10}{figure_columns({**content, 'memory_mb': content['peak_memory_mb']})}")
    lines += [f"  {text}" for text in (correction_text(content["steps"]), content["rates"]) if text]
    lines.append("  estimates for idle cores without a GPU; training often ends early")
    if content["disk_mb"] > content["disk_free_mb"]:
        lines.append(f"  NOT ENOUGH DISK: {content['disk_free_mb']} MB are free; set `runs` or `cube.uri` to another place")
    return lines


def figure_columns(figures: Json) -> str:
    times = "".join(f"{round_time(figures[name]):>10}" for name in ("seconds", "cpu_seconds"))
    return times + "".join(f"{figures[name]:>9.0f} MB" for name in ("disk_mb", "memory_mb", "read_mb"))


def correction_text(steps: Sequence[Json]) -> str:
    """Which stages were corrected, and by how many runs."""
    known = [f"{step['stage']} by {counted(step['past_runs'], 'run')}" for step in steps if step["past_runs"]]
    return f"corrected by what the last runs of like size took here: {', '.join(known)}" if known else ""


def round_time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
