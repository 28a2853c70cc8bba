"""`--dry-run` of a forecast: how long its stages take, and how much memory and disk."""

from itertools import pairwise

from configs.networks import HistoryModel
from configs.tasks.forecast import ForecastRun
from flows.planning import Extent, PlannedStep, estimate
from pipelines.wording import counted

TRAIN_FLOP_S = 30e9  # of convolution, forward and backward, two cores
PREDICT_FLOP_S = 25e9
CACHE_BYTES_S = 60e6
CHOOSING_SHARE = 0.75  # of the training windows, from which the first network learns to choose epochs and scale


def plan_train(run: ForecastRun, extent: Extent) -> PlannedStep:
    channels, steps = len(run.samples.variables), run.samples.context + run.samples.horizon
    share = 1 - run.split.test_fraction - run.split.validation_fraction
    starts = max(extent.train_dates // run.samples.stride - steps, 1)
    pixel_steps = extent.pixels * share * starts * steps
    flops = 3 * flop_per_pixel_step(run) * pixel_steps * run.training.epochs * run.model.members
    cached = extent.pixels * (extent.dates * (4 * channels + 1) + starts * steps * channels * 4 * 2)
    trainings = 1 + CHOOSING_SHARE / run.model.members + run.training.refit
    if isinstance(run.model, HistoryModel):
        cached += extent.pixels * starts * (run.model.lags * (4 * channels + 2) + run.samples.horizon * 13 * channels) * 4
    seconds = trainings * (flops / TRAIN_FLOP_S + cached / CACHE_BYTES_S)
    batch = run.training.batch * run.split.block_px**2 * steps * sum(run.model.hidden) * 4 * 12
    what = f"{counted(run.model.members, 'network')}, at most {counted(run.training.epochs, 'epoch')} each"
    return estimate("train", what, seconds, cached / 1e6, batch / 1e6)


def plan_evaluate(run: ForecastRun, extent: Extent) -> PlannedStep:
    windows, baselines = extent.pixels * run.split.test_fraction * max(extent.dates, 1), len(run.evaluation.baselines)
    seconds = windows * (1 + baselines) * run.samples.horizon / 2e6 + 10
    block = extent.dates * run.split.block_px**2 * 4 * 20
    return estimate("evaluate", f"the model beside {counted(baselines, 'baseline')}", seconds, 1.0, block / 1e6)


def plan_predict(run: ForecastRun, extent: Extent) -> PlannedStep:
    horizon, steps = run.samples.horizon, run.samples.context + run.samples.horizon
    flops = extent.pixels * steps * flop_per_pixel_step(run) * run.model.members
    seconds, disk = flops / PREDICT_FLOP_S + extent.bytes / 50e6, 2 * extent.pixels * horizon * len(run.samples.variables) * 3 * 4
    if (
        run.prediction.archive
    ):  # the rival's fields too: one of the two is the network's, the other is read alike and costs little
        seconds, disk = seconds + extent.bytes / 50e6, 2 * disk
    band = extent.dates * extent.shape_yx[1] * min(run.prediction.tile_px, extent.shape_yx[0]) * 5 / 1e6
    return estimate("predict", f"{counted(horizon, 'date')} x (value, lower, upper bound)", seconds, disk / 1e6, min(band, 768))


def flop_per_pixel_step(run: ForecastRun) -> float:
    """Multiplications and additions of one step of every layer at one pixel: four gates of a convolution over input and state.

    Of `kind: history` the dense layers over the lags once, and those of each target, per step.
    """
    model, variables = run.model, len(run.samples.variables)
    if isinstance(model, HistoryModel):
        past = [model.lags * (4 * variables + 2), *model.hidden]
        target = [model.hidden[-1] + 12 * variables + 4, *model.hidden]
        once, each = (sum(2 * i * o for i, o in pairwise(widths)) for widths in (past, target))
        return (once + run.samples.horizon * each) / (run.samples.context + run.samples.horizon)
    inputs = [4 * variables + 4, *model.hidden]
    return sum(2 * 4 * h * (i + h) * model.kernel**2 for i, h in zip(inputs, model.hidden, strict=False))
