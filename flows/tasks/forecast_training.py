"""How a forecaster is trained: chosen on the last part of the training period, tried on validation, refitted up to the test.

Three trainings, so that nothing is chosen and measured on the same dates (docs/design/021):

1. the first network alone, on the earlier part of the training period; the later part chooses epochs and residual scale;
2. all networks, so many epochs, on the training part: the errors of this twin on validation decide what is published and how
   wide its intervals are;
3. all networks once more on training and validation dates, as the baselines are (`training.refit`): this one is tested and
   published.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.tasks import forecast as config
from configs.tasks.forecast_covariates import build_scaling, check_model, covariates_of
from configs.tasks.forecast_losses import build_loss, build_target
from configs.trained import find_model
from flows.covariates import samples_of
from flows.folder import load_checkpoint, require
from flows.task import Invocation, Record, TrainedTask
from flows.tasks.forecast_samples import cut, describe_shares, plan_samples, split_facts
from flows.trained import check_start, start
from pipelines.errors import RequestError
from pipelines.wording import counted

if TYPE_CHECKING:
    import xarray as xr

    from models.residual_forecaster import ResidualForecaster
    from pipelines.learning.training import TrainingReport
    from pipelines.progress import Progress
    from pipelines.samples.plan import WindowPlan
    from pipelines.samples.prepare import ChannelStatistics
    from pipelines.samples.sampling import SampleCache

EARLIER = "earlier"  # folder of the twin that has not learnt from validation, beside the model's files
Save = Callable[["ResidualForecaster", Path, "ChannelStatistics", Sequence[Record]], str]  # the hash of the saved model


@dataclass(frozen=True)
class Chosen:
    """What the last part of the training period chose. Where it has too few dates: from validation, `epochs` by each network."""

    epochs: int | None
    scale: float | None
    on_from: str = ""  # date of its first target

    def to_json(self) -> Record:
        return {"epochs": self.epochs, "residual_scale": self.scale, "targets_from": self.on_from}


def fit_networks(task: TrainedTask, context: Invocation, key: str, save: Save) -> Record:
    """The record of the stage `train`; the model lies in the run's folder, and its twin from before validation below it."""
    from pipelines.samples.prepare import channel_statistics, step_days, windows_to_fit
    from pipelines.samples.refit import windows_before

    run, folder, do = context.run, context.folder, partial(context.steps.do, "train")
    snapshot = require(folder, "ingest")["snapshot"]
    dataset, plan, found = do("plan windows and check the split", lambda _: plan_samples(context, snapshot))
    context.steps.log(f"train: {describe_shares(found)}")
    samples = samples_of(context.run, dataset)
    covariates = samples.covariates.measure(plan) if samples.covariates is not None else []
    statistics = do("measure the training part", lambda show: channel_statistics(dataset, plan, samples.variables, show))
    days = step_days(dataset, samples)

    def prepare(show: Progress) -> ResidualForecaster:
        windows = partial(windows_to_fit, dataset, plan, samples, show)
        return config.build_forecaster(run, windows, statistics, days, len(plan.shape), build_scaling(covariates))

    untrained = do("fit the baseline", prepare)
    if run.training.start_from is not None:
        check_start(task, context)
        check_model(covariates_of(find_model(run.training.start_from)), run.covariates)
        do("load the weights to begin from", lambda _: start(task, context, untrained))
    cuts = Cuts(context, snapshot, dataset, untrained)
    cache = do("cut windows", lambda show: cuts.of(plan, "", show))
    chosen, held_out = choose(context, cuts, plan, cache, key)
    forecaster = copy.deepcopy(untrained)
    report = train_all(context, forecaster, cache, held_out, chosen, folder.model / (EARLIER if run.training.refit else ""), key)
    if chosen.scale is None:
        validation = partial(cache.batches, "validation", run.training.batch)
        do("scale the correction", lambda _: forecaster.fit_residual_scale(validation()))
    if run.training.refit:
        do("save the model of before validation", lambda _: save(forecaster, folder.model / EARLIER, statistics, covariates))
        scale_K, epochs = forecaster.residual_scale_K, chosen.epochs
        if epochs is None:
            epochs = max((member.best_epoch for member in report.members), default=0)
        known = windows_before(dataset, samples, plan.split.validation_until).plan
        cache_up_to_test = do("cut windows up to the test", lambda show: cuts.of(known, "refit", show))
        forecaster = copy.deepcopy(untrained)
        settled = replace(chosen, epochs=epochs)
        report = train_all(context, forecaster, cache_up_to_test, held_out, settled, folder.model, key, "up to the test")
        forecaster.residual_scale_K.copy_(scale_K)
    else:
        shutil.rmtree(folder.model / EARLIER, ignore_errors=True)
    model_hash = do("save the model", lambda _: save(forecaster, folder.model, statistics, covariates))
    cuts.remove()
    return {
        "snapshot": snapshot,
        "model_hash": model_hash,
        "windows": cache.counts(),
        "split": split_facts(found),
        "residual_scale": [round(float(share), 4) for share in forecaster.residual_scale_K],
        "training": report.to_json(),
        "chosen": chosen.to_json(),
        "refit": run.training.refit,
        **({"covariates": covariates} if covariates else {}),
        "message": f"trained {counted(len(forecaster.members), 'network')}",
    }


@dataclass(frozen=True)
class Cuts:
    """The sample caches of a training: that of the plan, which the evaluation opens again, and others, removed afterwards."""

    context: Invocation
    snapshot: str
    dataset: xr.Dataset
    forecaster: ResidualForecaster

    def of(self, plan: WindowPlan, name: str, progress: Progress) -> SampleCache:
        return cut(self.context, self.snapshot, self.dataset, plan, self.forecaster, progress, name)

    def remove(self) -> None:
        for name in ("choosing", "refit"):
            shutil.rmtree(self.context.folder.samples / name, ignore_errors=True)


def choose(context: Invocation, cuts: Cuts, plan: WindowPlan, cache: SampleCache, key: str) -> tuple[Chosen, SampleCache]:
    """Epochs and residual scale, and the windows on which they were chosen."""
    from models.residual_scale import scale_of_least_error
    from pipelines.calendar import iso_utc
    from pipelines.samples.refit import choosing_plan

    run, do = context.run, partial(context.steps.do, "train")
    inner = choosing_plan(plan)
    if inner is None:
        context.steps.log("train: too few dates to choose epochs and scale before validation: both are chosen on it")
        return Chosen(None, None), cache
    try:
        held_out = do("cut windows to choose on", lambda show: cuts.of(inner, "choosing", show))
    except RequestError as e:
        context.steps.log(f"train: epochs and scale are chosen on validation, earlier windows do not do ({e})")
        return Chosen(None, None), cache
    alone = copy.deepcopy(cuts.forecaster)
    alone.members = alone.members[:1]
    report = train_all(
        context, alone, held_out, held_out, Chosen(None, None), context.folder.model / "choosing", key, "to choose"
    )
    batches = partial(held_out.batches, "validation", run.training.batch)
    scale = do("scale the correction", lambda _: scale_of_least_error(alone, batches()))
    epochs = report.members[0].best_epoch if len(report.members) else 0
    return Chosen(epochs, scale, iso_utc(inner.split.validation_from)), held_out


def train_all(
    context: Invocation, forecaster: ResidualForecaster, cache: SampleCache, held_out: SampleCache, chosen: Chosen, folder: Path,
    key: str, what: str = "",
) -> TrainingReport:  # fmt: skip
    """Trains in place on the training windows of `cache`; `held_out` shows the course, and chooses what is not chosen yet."""
    from pipelines.learning.member import frame_weight
    from pipelines.learning.training import TrainingReport, train

    run = context.run
    settings = replace(config.build_training_settings(run), stop_after=chosen.epochs)
    if chosen.scale is not None:
        forecaster.residual_scale_K.fill_(chosen.scale)
    training = cache.part("train", augment=run.training.augment, seed=run.training.seed)
    validation = held_out.part("validation")
    if chosen.epochs == 0:  # nothing was better than the baseline alone
        return TrainingReport((), len(training), len(validation))
    loss = build_loss(run, forecaster)
    how = partial(train, key=key, target_of=build_target(run), weight_of=frame_weight)

    def train_networks(show: Progress) -> TrainingReport:
        return how(forecaster, training, validation, loss, settings, folder, show)

    report: TrainingReport = context.steps.do("train", f"train the networks {what}".rstrip(), train_networks)
    return report


def earlier_model(context: Invocation, network: ResidualForecaster) -> ResidualForecaster:
    """The twin of the run's network that has not learnt from validation; the network itself where it was not refitted."""
    from models.checkpoint import FORECASTER

    folder = context.folder
    if not require(folder, "train").get("refit"):
        return network
    found: tuple[Any, Any] = load_checkpoint(lambda at: FORECASTER.load(at / EARLIER), folder)
    twin: ResidualForecaster = found[0]
    return twin
