"""`--dry-run` of a forecast: how long its stages take, and how much memory and disk."""

import math
from itertools import pairwise
from statistics import fmean

from configs.networks import AutoModel, HistoryModel, SimVPModel, build_network
from configs.tasks import forecast_auto as auto
from configs.tasks.forecast import FROM_THE_PAST, ForecastRun, baselines_of
from flows.planning import MAPS, PACKED, Extent, PlannedStep, estimate, spread
from flows.tasks.forecast_choice import STEP_PIXELS
from pipelines.samples.plan import MOST_WINDOWS, PIECE_PIXELS
from pipelines.wording import counted

CALIBRATED_CHANNELS = 16  # of the network that `driftline doctor --calibrate` trains
TRAIN_FLOP_S = 50e9  # of convolution, forward and backward, one core
PREDICT_FLOP_S = 25e9  # of tiles of the raster
CACHE_BYTES_S = 60e6
WINDOW_S = 3e-4  # one window by one method, and for every pixel and date of its block:
PIXEL_DATE_S = 1e-7
BOOSTING_S = 20.0  # a fit of gradient boosting on so many rows or more, which is what it takes at most:
BOOSTING_ROWS, BOOSTING_MB = 100_000, 150.0
BOOSTING_FITS = 2.0, 2.0  # in evaluation, and in prediction: of what is published, and of its rival for the archive
PAST_WINDOWS = 1000  # at most, as in `pipelines.learning.past_errors`, which is heavier to import
TRIAL_S = 6.0  # of a candidate at an origin, whatever its size


def assumed(run: ForecastRun, extent: Extent) -> ForecastRun:
    """The run with what its config leaves open, as far as it is known before the run; of the network the dearest candidate."""
    stated = auto.with_split(run, extent.shape) if auto.has_open_split(run) else run
    if not isinstance(stated.model, AutoModel):
        return stated
    (hidden, kernel), members = auto.CHEAPEST_SIZES[-1], stated.model.members
    dearest = {"kind": "convlstm", "hidden": list(hidden), "kernel": kernel, "members": members}
    return auto.with_choice(stated, {"model": dearest, "context": auto.usual_context(stated)})


def plan_choose(run: ForecastRun, extent: Extent) -> PlannedStep:
    """The search without a candidate that is given up: its usual length is a half of that. Nothing where one was chosen."""
    if not isinstance(run.model, AutoModel):
        return PlannedStep("choose", f"chosen before: {run.model.kind}", 0.0, 0.0, 0.0)
    stated, sought = assumed(run, extent), auto.build_space(run, auto.wished_contexts(run), auto.YEAR_DAYS + 1)
    tries, origins = min(run.model.tries, sought.most()), run.model.origins
    pixels = min(PIECE_PIXELS, (int(stated.split.block_px) - 2 * int(stated.split.buffer_px)) ** 2)
    steps = auto.usual_context(run) + run.samples.horizon
    flops = 3 * STEP_PIXELS * steps * run.model.steps * flop_per_pixel_step(stated) / 3  # the dearest has three times the mean
    machine = extent.machine
    seconds = tries * origins * (flops / TRAIN_FLOP_S / machine.training + TRIAL_S / machine.numerics)
    what = f"at most {counted(tries, 'candidate')} at {counted(origins, 'origin')} inside the training part"
    disk = 2 * MOST_WINDOWS * pixels * steps * 16 / 1e6
    return estimate("choose", what, seconds, disk, 512.0, disk, machine=machine, busy=machine.threads)


TRAINER_MB = 100.0  # beside what any stage imports
CHOOSING_SHARE = 0.75  # of the training windows, from which the first network learns to choose epochs and scale
LEAST_ISSUES = 16  # of training windows for that, else they are chosen on validation (`pipelines.samples.refit`)
USUAL_EPOCHS = 0.5  # of those allowed: the best one, to which the other networks are trained
REFIT = 1.5  # windows up to the test, as a multiple of those before validation


def plan_train(run: ForecastRun, extent: Extent) -> PlannedStep:
    channels, steps = len(run.samples.variables), auto.usual_context(run) + run.samples.horizon
    share = 1 - run.split.test_fraction - run.split.validation_fraction
    starts = max(extent.train_dates // run.samples.stride - steps, 1)
    pixel_steps = extent.pixels * share * starts * steps
    block_px, network = int(run.split.block_px), run.network
    side = block_px + 2 * run.split.margin_px
    seen = (side / block_px) ** 2  # pixels that windows see for each that they are scored on
    epochs = run.training.epochs
    flops = 3 * flop_per_pixel_step(run) * pixel_steps * seen * epochs * network.members
    cached = extent.pixels * seen * (extent.dates * (4 * channels + 1) + starts * steps * channels * 4 * 2)
    choosing, again = (CHOOSING_SHARE if starts >= LEAST_ISSUES else 0.0), USUAL_EPOCHS * REFIT * run.training.refit
    caches = 1 + choosing + run.training.refit
    first = choosing / network.members + USUAL_EPOCHS if choosing else min(USUAL_EPOCHS + run.training.patience / epochs, 1)
    trainings = first + again
    if isinstance(network, HistoryModel):
        cached += extent.pixels * starts * (network.lags * (4 * channels + 2) + run.samples.horizon * 13 * channels) * 4
    machine, cached = extent.machine, caches * cached
    seconds = trainings * flops / train_flop_s(run) / machine.training + cached / CACHE_BYTES_S / machine.reading
    batch = run.training.batch * side**2 * steps * state_channels(run) * 4 * 12
    what = f"{counted(run.model.members, 'network')}, at most {counted(run.training.epochs, 'epoch')} each"
    what += "" if run.covariates.is_empty else f", with {run.covariates.sentence()}"
    read = read_mb(run, extent, 1 + caches)
    return estimate("train", what, seconds, cached / 1e6, TRAINER_MB + batch / 1e6, read, machine=machine, busy=machine.threads)


def plan_evaluate(run: ForecastRun, extent: Extent) -> PlannedStep:
    """Every baseline is fitted twice; all methods answer the validation windows twice and the test windows once, and those whose
    errors make the intervals answer the training windows.
    """
    split, baselines = run.split, baselines_of(run)
    block = int(split.block_px) ** len(extent.shape)
    blocks, later = extent.pixels / block, max(extent.dates - extent.train_dates, 2) / 2
    starts = max(extent.train_dates // run.samples.stride - int(run.samples.context) - run.samples.horizon, 1)
    past = min(blocks * (1 - split.test_fraction - split.validation_fraction) * starts, PAST_WINDOWS)
    validation, test = blocks * split.validation_fraction * later, blocks * split.test_fraction * later
    answers = past * sum(name in FROM_THE_PAST for name in baselines) + (2 * validation + test) * (1 + len(baselines))
    block *= extent.dates
    memory = block * 4 * 20 / 1e6
    answering, memory, busy = spread(run, answers * (WINDOW_S + block * PIXEL_DATE_S), memory)
    fitting = BOOSTING_FITS[0] * boosting_s(run, extent)
    seconds = answering + fitting
    what = f"the model beside {counted(len(baselines), 'baseline')}, intervals from {counted(round(past), 'window')} of the past"
    machine, read = extent.machine, read_mb(run, extent, 1)
    memory += BOOSTING_MB * (fitting > 0)
    busy = (answering * busy + fitting) / seconds
    return estimate("evaluate", what, seconds / machine.numerics, 0.5, memory, read, machine=machine, busy=busy)


def plan_predict(run: ForecastRun, extent: Extent) -> PlannedStep:
    horizon, steps = run.samples.horizon, auto.usual_context(run) + run.samples.horizon
    flops = extent.pixels * steps * flop_per_pixel_step(run) * run.model.members
    machine = extent.machine
    seconds, disk = (
        flops / PREDICT_FLOP_S / machine.inference + extent.bytes / 50e6 / machine.reading,
        2 * extent.pixels * horizon * len(run.samples.variables) * 3 * 4,
    )
    if (
        run.prediction.archive
    ):  # the rival's fields too: one of the two is the network's, the other is read alike and costs little
        seconds, disk = seconds + extent.bytes / 50e6 / machine.reading, 2 * disk
    band = extent.dates * extent.shape_yx[1] * min(run.prediction.tile_px, extent.shape_yx[0]) * 5 / 1e6
    seconds, memory, busy = spread(run, seconds, min(band, 768))
    seconds += BOOSTING_FITS[1] * boosting_s(run, extent) / machine.numerics
    memory += BOOSTING_MB * (boosting_s(run, extent) > 0)
    what, read = f"{counted(horizon, 'date')} x (value, lower, upper bound)", read_mb(run, extent, 1)
    return estimate("predict", what, seconds, disk / 1e6, memory, read, machine=machine, busy=busy, publishes=MAPS)


def read_mb(run: ForecastRun, extent: Extent, passes: float) -> float:
    """MB read where every block of the split is read so many times: with it come the chunks that it lies in."""
    block = int(run.split.block_px) ** len(extent.shape)
    blocks_of_chunk = max(min(run.cube.chunk_px, max(extent.shape)) ** len(extent.shape) / block, 1)
    return float(passes * extent.bytes / PACKED / 1e6 * min(blocks_of_chunk, max(extent.pixels / block, 1)))


def boosting_s(run: ForecastRun, extent: Extent) -> float:
    """Seconds of a fit of gradient boosting; 0 without it."""
    starts = max(extent.train_dates // run.samples.stride - int(run.samples.context) - run.samples.horizon, 1)
    rows = extent.pixels * starts * run.samples.horizon / 2  # about a half of them is usable
    return BOOSTING_S * min(rows / BOOSTING_ROWS, 1) * ("gradient_boosting" in baselines_of(run))


def flop_per_pixel_step(run: ForecastRun) -> float:
    """Multiplications and additions of one network per pixel and date.

    Of `kind: history` the dense layers over the lags once, and those of each target, per step.
    """
    import torch

    side = 240  # a multiple of all patches and halvings
    model, variables, context, horizon = run.network, len(run.samples.variables), int(run.samples.context), run.samples.horizon
    if isinstance(model, HistoryModel):
        past = [model.lags * (4 * variables + 2), *model.hidden]
        target = [model.hidden[-1] + 12 * variables + 4, *model.hidden]
        once, each = (sum(2 * i * o for i, o in pairwise(widths)) for widths in (past, target))
        return (once + horizon * each) / (context + horizon)
    settings = build_network(model, context, horizon)
    with torch.device("meta"):
        network = settings.build(variables, 2 * variables, 2 * variables + 1, 2)
    return network.flops((1, context, variables, side, side), horizon) / (side**2 * (context + horizon))


def train_flop_s(run: ForecastRun) -> float:
    """Of convolutions of 16 channels as calibrated; measured, 8 reach 0.64, 32 1.65, and 64 2.2 times as many per second."""
    if isinstance(run.network, HistoryModel):
        return TRAIN_FLOP_S
    channels: float = run.network.spatial if isinstance(run.network, SimVPModel) else fmean(run.network.hidden)
    return TRAIN_FLOP_S * min(math.pow(channels / CALIBRATED_CHANNELS, 0.65), 2.2)


def state_channels(run: ForecastRun) -> float:
    """Channels that a network keeps of a pixel and date, about."""
    match run.network:
        case SimVPModel() as model:
            return model.spatial
        case HistoryModel() as model:
            return sum(model.hidden)
        case model:
            return sum(model.hidden) / model.patch_px**2
