"""`--dry-run` of a forecast: how long its stages take, and how much memory and disk."""

from configs.networks import SimVPModel, build_network
from configs.tasks.forecast import FROM_THE_PAST, ForecastRun, baselines_of
from flows.planning import Extent, PlannedStep, estimate
from pipelines.wording import counted

TRAIN_FLOP_S = 30e9  # of convolution, forward and backward, two cores
PREDICT_FLOP_S = 25e9
CACHE_BYTES_S = 60e6
WINDOW_S = 5e-4  # one window by one method, and for every pixel and date of its block:
PIXEL_DATE_S = 2e-7
BOOSTING_S = 10.0  # a fit of gradient boosting, whose rows are limited
PAST_WINDOWS = 1000  # at most, as in `pipelines.learning.past_errors`, which is heavier to import


def plan_train(run: ForecastRun, extent: Extent) -> PlannedStep:
    channels, steps = len(run.samples.variables), run.samples.context + run.samples.horizon
    share = 1 - run.split.test_fraction - run.split.validation_fraction
    starts = max(extent.train_dates // run.samples.stride - steps, 1)
    pixel_steps = extent.pixels * share * starts * steps
    side = run.split.block_px + 2 * run.split.margin_px
    seen = (side / run.split.block_px) ** 2  # pixels that windows see for each that they are scored on
    flops = 3 * flop_per_pixel_step(run) * pixel_steps * seen * run.training.epochs * run.model.members
    cached = extent.pixels * seen * (extent.dates * (4 * channels + 1) + starts * steps * channels * 4 * 2)
    seconds = flops / TRAIN_FLOP_S + cached / CACHE_BYTES_S
    batch = run.training.batch * side**2 * steps * state_channels(run) * 4 * 12
    what = f"{counted(run.model.members, 'network')}, at most {counted(run.training.epochs, 'epoch')} each"
    what += "" if run.covariates.is_empty else f", with {run.covariates.sentence()}"
    return estimate("train", what, seconds, cached / 1e6, batch / 1e6)


def plan_evaluate(run: ForecastRun, extent: Extent) -> PlannedStep:
    """Every baseline is fitted twice; all methods answer the validation windows twice and the test windows once, and those whose
    errors make the intervals answer the training windows.
    """
    split, baselines = run.split, baselines_of(run)
    blocks, later = extent.pixels / split.block_px ** len(extent.shape), max(extent.dates - extent.train_dates, 2) / 2
    starts = max(extent.train_dates // run.samples.stride - run.samples.context - run.samples.horizon, 1)
    past = min(blocks * (1 - split.test_fraction - split.validation_fraction) * starts, PAST_WINDOWS)
    validation, test = blocks * split.validation_fraction * later, blocks * split.test_fraction * later
    answers = past * sum(name in FROM_THE_PAST for name in baselines) + (2 * validation + test) * (1 + len(baselines))
    block = split.block_px ** len(extent.shape) * extent.dates
    seconds = answers * (WINDOW_S + block * PIXEL_DATE_S) + 2 * BOOSTING_S * ("gradient_boosting" in baselines)
    what = f"the model beside {counted(len(baselines), 'baseline')}, intervals from {counted(round(past), 'window')} of the past"
    return estimate("evaluate", what, seconds, 1.0, block * 4 * 20 / 1e6)


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
    """Multiplications and additions of one network per pixel and date."""
    import torch

    samples, side = run.samples, 240  # a multiple of all patches and halvings
    variables = len(samples.variables)
    settings = build_network(run.model, samples.context, samples.horizon)
    with torch.device("meta"):
        network = settings.build(variables, 2 * variables, 2 * variables + 1, 2)
    flops = network.flops((1, samples.context, variables, side, side), samples.horizon)
    return flops / (side**2 * (samples.context + samples.horizon))


def state_channels(run: ForecastRun) -> float:
    """Channels that a network keeps of a pixel and date, about."""
    model = run.model
    return model.spatial if isinstance(model, SimVPModel) else sum(model.hidden) / model.patch_px**2
