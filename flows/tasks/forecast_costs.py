"""`--dry-run` of the task `forecast`: about how much time, disk and memory its stages take (flows/planning.py)."""

from __future__ import annotations

from configs.tasks.forecast import ForecastRun
from flows.folder import RunFolder
from flows.planning import STARTUP_MB, STARTUP_S, Extent, PlannedStep, measure, plan_ingest

TRAIN_FLOP_S = 15e9  # of convolution, forward and backward, two cores
PREDICT_FLOP_S = 25e9
CACHE_BYTES_S = 60e6


def plan_stages(run: ForecastRun, folder: RunFolder, stages: tuple[str, ...]) -> tuple[Extent, list[PlannedStep]]:
    """The extent of the cube and the steps of the stages."""
    extent = measure(run, folder, run.split.validation_from, reads_source="ingest" in stages)
    planned = {
        "ingest": lambda: plan_ingest(run.cube, extent),
        "train": lambda: plan_train(run, extent),
        "evaluate": lambda: plan_evaluate(run, extent),
        "predict": lambda: plan_predict(run, extent),
    }
    return extent, [planned[stage]() for stage in stages]


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
