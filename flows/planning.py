"""`--dry-run`: what a verb would do, and about how much disk, memory and time it would take. Nothing is changed.

The rates were measured on two idle cores without a GPU. Training often ends before its last epoch, which no plan knows.
"""

from __future__ import annotations

import math
import os
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from configs import build
from configs.run import CubeConfig, CubeRun
from configs.tasks import AnyRun
from configs.trained import used_by
from flows import Json
from flows.folder import RunFolder, finished
from flows.stage import stages_of
from flows.tasks import task_of
from pipelines.errors import MissingInput, RequestError
from pipelines.wording import counted

if TYPE_CHECKING:
    from pipelines.grid import Grid
    from pipelines.sources.source import Listing, Source

INGEST_BYTES_S = 15e6  # of pixels read, checked, compressed and written
SCENE_S = 0.02  # opening and committing one scene
STARTUP_MB = 800.0  # an interpreter with torch, the readers and the pictures
STARTUP_S = 8.0  # and what any stage draws and writes


@dataclass(frozen=True)
class PlannedStep:
    """One stage, in round numbers."""

    stage: str
    what: str
    seconds: float
    disk_mb: float
    memory_mb: float


def estimate(stage: str, what: str, seconds: float, disk_mb: float, memory_mb: float) -> PlannedStep:
    """A stage with this much time and memory beside those of the interpreter."""
    return PlannedStep(stage, what, STARTUP_S + seconds, disk_mb, STARTUP_MB + memory_mb)


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

    @property
    def pixels(self) -> int:
        return math.prod(self.shape)

    @property
    def shape_yx(self) -> tuple[int, int]:
        return self.shape[-2], self.shape[-1]

    @property
    def bytes(self) -> int:
        return self.dates * self.pixels * (self.bands * self.itemsize + 1)


def make_plan(run: AnyRun, verb: str) -> Json:
    """The plan as JSON values. Raises MissingInput where there is neither a source nor a cube."""
    folder = RunFolder.of(run)
    task = task_of(run.task)
    stages_of(task, verb)  # a verb that the task has
    extent, steps = task.plan(run, folder, "run" if verb == "predict" and used_by(run) is not None else verb)
    if used_by(run) is not None:
        copied = PlannedStep("train", "check the model and copy it; nothing is trained", STARTUP_S, 1.0, STARTUP_MB)
        steps = [copied if step.stage == "train" else step for step in steps]
    existing = folder.path
    while not existing.exists():
        existing = existing.parent
    return {
        "run": run.name,
        "verb": verb,
        "folder": str(folder.path),
        "cube": folder.cube_uri,
        "extent": {
            "dates": extent.dates,
            **({"z": extent.shape[0]} if len(extent.shape) > 2 else {}),
            "y": extent.shape_yx[0],
            "x": extent.shape_yx[1],
            "bands": extent.bands,
            "sites": extent.sites,
        },
        "notes": list(extent.notes),
        "finished_before": [step.stage for step in steps if finished(folder, step.stage)],
        "steps": [asdict(step) for step in steps],
        "seconds": round(sum(step.seconds for step in steps)),
        "disk_mb": round(sum(step.disk_mb for step in steps), 1),
        "peak_memory_mb": round(max((step.memory_mb for step in steps), default=0.0)),
        "disk_free_mb": round(shutil.disk_usage(existing).free / 1e6),
    }


def measure(run: CubeRun, folder: RunFolder, until: datetime, *, reads_source: bool) -> Extent:
    """From the source where the verb reads it, else from the cube; `train_dates` are those before `until`."""
    from pipelines.calendar import count_before
    from pipelines.grid import require_lonlat

    if reads_source:
        source = build.build_source(run)
        listing = source.list_scenes()
        grid = require_lonlat(build.build_grid(run) or source.native_grid())
        notes, refused = check_scenes(run, source, listing, grid)
        dates = [scene.observed_utc for scene in listing.scenes if scene.id not in refused]
        size = grid.shape, len(source.bands), source.dtype().itemsize
        return Extent(len(dates), count_before(dates, until), *size, notes=tuple(notes))
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
    )


def check_scenes(run: CubeRun, source: Source, listing: Listing, grid: Grid) -> tuple[list[str], set[str]]:
    """(what ingest would say of the scenes, the ids of those that it would refuse without reading pixels).

    Raises RequestError if it would refuse all of them.
    """
    from pipelines.cube.policy import Policy
    from pipelines.sources.layered import LayeredSource

    notes, refused = [*listing.remarks(), *build.grid_notes(run)], list(listing.refused)
    policy = Policy(**run.policy.model_dump())
    policy.require_used(listing)
    refused += policy.refusals(source, listing.scenes, reads_files=False)
    if policy.checksums is not None:
        notes.append(f"policy.checksums: files are compared with {policy.checksums} when they are ingested")
    if isinstance(source, LayeredSource):
        only_on = None if run.cube.on_other_grid == "reproject" else grid
        lines, of_files = source.remarks(listing.scenes, only_on)
        notes, refused = [*notes, *lines], [*refused, *of_files]
    ids = {error.scene_id for error in refused}
    if refused and not any(scene.id not in ids for scene in listing.scenes):
        shown = "\n".join(f"  {error}" for error in refused[:3])
        raise RequestError(f"all {counted(len(refused), 'scene')} would be refused; the first:\n{shown}")
    reasons = Counter(error.reason for error in refused)
    first = {error.reason: error for error in reversed(refused)}
    notes += [f"{counted(count, 'scene')} would be refused; the first: {first[reason]}" for reason, count in reasons.items()]
    return notes, ids


def plan_ingest(cube: CubeConfig, extent: Extent) -> PlannedStep:
    cores = cube.workers or os.cpu_count() or 1
    scenes = extent.dates * extent.sites
    seconds = 1 + (extent.bytes / INGEST_BYTES_S + scenes * SCENE_S) / min(cores, 8) * 2
    memory = 300 + min(cube.memory_mb, 2 * cores * extent.bytes / max(extent.dates, 1) / 1e6)
    what = f"{counted(scenes, 'scene')} into {'the cube' if extent.sites == 1 else f'{extent.sites} cubes'}"
    return PlannedStep("ingest", what, seconds, extent.bytes / 1.7 / 1e6, memory)


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
    lines.append(f"  {dates}, {pixels}, {bands} -> {Path(content['folder'])}")
    lines += [f"  note: {note}" for note in content["notes"]]
    lines.append(f"  {'step':<10}{'time':>10}{'disk':>12}{'memory':>12}  what")
    for step in content["steps"]:
        done = " (finished before; skipped if nothing changed)" if step["stage"] in content["finished_before"] else ""
        size = f"{step['disk_mb']:.0f} MB", f"{step['memory_mb']:.0f} MB"
        lines.append(f"  {step['stage']:<10}{round_time(step['seconds']):>10}{size[0]:>12}{size[1]:>12}  {step['what']}{done}")
    lines.append(
        f"  {'all':<10}{round_time(content['seconds']):>10}{content['disk_mb']:>9.0f} MB{content['peak_memory_mb']:>9.0f} MB"
    )
    lines.append("  estimates for two idle cores without a GPU; training often ends early")
    if content["disk_mb"] > content["disk_free_mb"]:
        lines.append(f"  NOT ENOUGH DISK: {content['disk_free_mb']} MB are free; set `runs` or `cube.uri` to another place")
    return lines


def round_time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
