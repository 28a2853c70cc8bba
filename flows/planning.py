"""`--dry-run`: what a verb would do, and about how much disk, memory and time it would take. Nothing is changed.

The rates were measured on two cores without a GPU; a plan is right to a factor of two or three, not to the minute.
"""

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs import build
from configs.run import CubeConfig
from configs.tasks import AnyRun
from configs.tasks.forecast import ForecastRun
from configs.tasks.monitor import MonitorRun
from flows.folder import RunFolder, finished
from flows.stage import stages_of
from flows.tasks import task_of
from pipelines.errors import MissingInput

INGEST_BYTES_S = 15e6  # of pixels read, checked, compressed and written
SCENE_S = 0.1  # opening and committing one scene
STARTUP_MB = 450.0  # an interpreter with torch and the readers
STARTUP_S = 5.0
TRAIN_FLOP_S = 15e9  # of convolution, forward and backward, two cores
PREDICT_FLOP_S = 25e9
CACHE_BYTES_S = 60e6


@dataclass(frozen=True)
class PlannedStep:
    """One stage, in round numbers."""

    stage: str
    what: str
    seconds: float
    disk_mb: float
    memory_mb: float


@dataclass(frozen=True)
class Extent:
    """How large the job is."""

    dates: int
    train_dates: int  # before validation
    shape_yx: tuple[int, int]
    bands: int
    itemsize: int

    @property
    def pixels(self) -> int:
        return self.shape_yx[0] * self.shape_yx[1]

    @property
    def bytes(self) -> int:
        return self.dates * self.pixels * (self.bands * self.itemsize + 1)


def make_plan(run: AnyRun, verb: str) -> dict[str, Any]:
    """The plan as JSON values. Raises MissingInput where there is neither a source to look at nor a cube."""
    folder = RunFolder.of(run)
    task = task_of(run.task)
    stages_of(task, verb)  # a verb that the task has
    extent, steps = task.plan(run, folder, verb)
    existing = folder.path
    while not existing.exists():
        existing = existing.parent
    return {
        "run": run.name,
        "verb": verb,
        "folder": str(folder.path),
        "cube": folder.cube_uri,
        "extent": {"dates": extent.dates, "y": extent.shape_yx[0], "x": extent.shape_yx[1], "bands": extent.bands},
        "finished_before": [step.stage for step in steps if finished(folder, step.stage)],
        "steps": [asdict(step) for step in steps],
        "seconds": round(sum(step.seconds for step in steps)),
        "disk_mb": round(sum(step.disk_mb for step in steps), 1),
        "peak_memory_mb": round(max((step.memory_mb for step in steps), default=0.0)),
        "disk_free_mb": round(shutil.disk_usage(existing).free / 1e6),
    }


def plan_forecast(run: ForecastRun, folder: RunFolder, verb: str) -> tuple[Extent, list[PlannedStep]]:
    extent = measure(run, folder, verb)
    planners = {"train": plan_train, "evaluate": plan_evaluate, "predict": plan_predict}
    steps = [plan_ingest(run.cube, extent)] if verb in ("ingest", "run") else []
    return extent, steps + [planner(run, extent) for name, planner in planners.items() if verb in (name, "run")]


def measure(run: ForecastRun | MonitorRun, folder: RunFolder, verb: str) -> Extent:
    """From the source where the verb reads it, else from the cube."""
    if verb in ("ingest", "run", "monitor"):
        source = build.build_source(run)
        listing = source.list_scenes()
        grid = build.build_grid(run) or source.native_grid()
        dates = [scene.observed_utc for scene in listing.scenes]
        return Extent(len(dates), count_before(dates, run), grid.shape_yx, len(source.bands), source.dtype().itemsize)
    from pipelines.cube.store import open_cube

    try:
        image = open_cube(folder.cube_uri)["image"]
    except MissingInput as e:
        raise MissingInput(f"{e} (there is nothing to plan from)") from e
    times = list(image["time"].values)
    return Extent(
        len(times), count_before(times, run), (image.sizes["y"], image.sizes["x"]), image.sizes["band"], image.dtype.itemsize
    )


def count_before(dates: list[Any], run: ForecastRun | MonitorRun) -> int:
    """Dates of the training period, or of the history."""
    until = run.monitoring.start if isinstance(run, MonitorRun) else run.split.validation_from
    return sum(date < np.datetime64(until, "ns") for date in dates)


def plan_ingest(cube: CubeConfig, extent: Extent) -> PlannedStep:
    cores = cube.workers or os.cpu_count() or 1
    seconds = STARTUP_S + (extent.bytes / INGEST_BYTES_S + extent.dates * SCENE_S) / min(cores, 8) * 2
    memory = 200 + min(cube.memory_mb, 2 * cores * extent.bytes / max(extent.dates, 1) / 1e6)
    return PlannedStep("ingest", f"{extent.dates} scenes into the cube", seconds, extent.bytes / 1.7 / 1e6, memory)


def plan_train(run: ForecastRun, extent: Extent) -> PlannedStep:
    channels, steps = len(run.samples.variables), run.samples.context + run.samples.horizon
    share = 1 - run.split.test_fraction - run.split.validation_fraction
    starts = max(extent.train_dates // run.samples.stride - steps, 1)
    pixel_steps = extent.pixels * share * starts * steps
    flops = 3 * flop_per_pixel_step(run) * pixel_steps * run.training.epochs * run.model.members
    values = extent.dates * extent.pixels * (4 * channels + 1)
    prepared = extent.pixels * starts * steps * channels * 4 * 2
    seconds = STARTUP_S + flops / TRAIN_FLOP_S + (values + prepared) / CACHE_BYTES_S
    batch = run.training.batch * run.split.block_px**2 * steps * sum(run.model.hidden) * 4 * 12
    what = f"{run.model.members} networks, at most {run.training.epochs} epochs each"
    return PlannedStep("train", what, seconds, (values + prepared) / 1e6, STARTUP_MB + batch / 1e6)


def plan_evaluate(run: ForecastRun, extent: Extent) -> PlannedStep:
    windows = extent.pixels * run.split.test_fraction * max(extent.dates, 1)
    seconds = STARTUP_S + windows * (1 + len(run.evaluation.baselines)) * run.samples.horizon / 2e6 + 10
    block = extent.dates * run.split.block_px**2 * 4 * 20
    what = f"the model beside {len(run.evaluation.baselines)} baselines"
    return PlannedStep("evaluate", what, seconds, 1.0, STARTUP_MB + block / 1e6)


def plan_predict(run: ForecastRun, extent: Extent) -> PlannedStep:
    steps = run.samples.context + run.samples.horizon
    fields = run.samples.horizon * len(run.samples.variables) * 3
    seconds = (
        STARTUP_S + extent.pixels * steps * flop_per_pixel_step(run) * run.model.members / PREDICT_FLOP_S + extent.bytes / 50e6
    )
    disk = 2 * extent.pixels * fields * 4
    band = extent.dates * extent.shape_yx[1] * min(run.prediction.tile_px, extent.shape_yx[0]) * 5
    return PlannedStep(
        "predict", f"{run.samples.horizon} dates, {fields} fields", seconds, disk / 1e6, STARTUP_MB + min(band / 1e6, 768)
    )


def flop_per_pixel_step(run: ForecastRun) -> float:
    """Multiplications and additions of one step of every layer at one pixel: four gates of a convolution over input and state."""
    inputs = [4 * len(run.samples.variables) + 4, *run.model.hidden]
    return sum(2 * 4 * h * (i + h) * run.model.kernel**2 for i, h in zip(inputs, run.model.hidden, strict=False))


def plan_lines(content: dict[str, Any]) -> list[str]:
    """The plan for people."""
    extent = content["extent"]
    lines = [f"plan of `driftline {content['verb']}` for {content['run']} (nothing was changed)"]
    lines.append(
        f"  {extent['dates']} dates, {extent['y']} x {extent['x']} pixels, {extent['bands']} bands -> {Path(content['folder'])}"
    )
    lines.append(f"  {'step':<10}{'time':>10}{'disk':>12}{'memory':>12}  what")
    for step in content["steps"]:
        done = " (finished before; skipped if nothing changed)" if step["stage"] in content["finished_before"] else ""
        size = f"{step['disk_mb']:.0f} MB", f"{step['memory_mb']:.0f} MB"
        lines.append(f"  {step['stage']:<10}{round_time(step['seconds']):>10}{size[0]:>12}{size[1]:>12}  {step['what']}{done}")
    lines.append(
        f"  {'all':<10}{round_time(content['seconds']):>10}{content['disk_mb']:>9.0f} MB{content['peak_memory_mb']:>9.0f} MB"
    )
    lines.append("  estimates for two cores without a GPU, right to a factor of two or three")
    if content["disk_mb"] > content["disk_free_mb"]:
        lines.append(f"  NOT ENOUGH DISK: {content['disk_free_mb']} MB are free; set `runs` or `cube.uri` to another place")
    return lines


def round_time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
