"""Cube -> forecaster: plan the windows and prove the split, cut them once, train the members, shrink, save."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

from configs.load import config_hash
from configs.tasks import forecast as build
from flows.folder import code_version, finished, require, stage_key, write_json
from flows.invocation import Invocation
from pipelines.errors import RequestError, StateError
from pipelines.progress import Progress

logger = logging.getLogger(__name__)
FIT_WINDOWS = 120


def train(invocation: Invocation) -> dict[str, Any]:
    """Trains if anything that the model depends on has changed; hands back the record of the stage."""
    run, folder, steps = invocation.run, invocation.folder, invocation.steps
    snapshot = require(folder, "ingest", "ingest")["snapshot"]
    key = train_key(invocation, snapshot)
    record = finished(folder, "train", key)
    if record is not None and is_model_whole(invocation, record):
        steps.skip("train", "up to date")
        return {**record, "skipped": True}
    dataset, plan = steps.do("train", "plan windows and prove the split", lambda progress: plan_samples(invocation, snapshot))
    statistics = steps.do("train", "measure the training part", lambda progress: measure(invocation, dataset, plan, progress))
    forecaster = steps.do("train", "fit the rule", lambda progress: prepare(invocation, dataset, plan, statistics, progress))
    cache = steps.do(
        "train", "cut windows", lambda progress: cut_samples(invocation, snapshot, dataset, plan, forecaster, progress)
    )
    report = steps.do("train", "train the networks", lambda progress: fit(invocation, forecaster, cache, key, progress))
    share = steps.do("train", "shrink towards the rule", lambda progress: fit_scale(invocation, forecaster, cache))
    model_hash = steps.do("train", "save the model", lambda progress: save(invocation, forecaster, snapshot, statistics))
    record = {
        "key": key,
        "snapshot": snapshot,
        "model_hash": model_hash,
        "made_from": sections(invocation),
        "windows": cache.counts(),
        "residual_scale": share,
        "training": report.to_json(),
        "message": f"trained {len(report.members)} networks",
    }
    write_json(folder.done("train"), record)
    logger.info("trained %s: %s", run.name, model_hash)
    return record


def train_key(invocation: Invocation, snapshot: str) -> str:
    return stage_key(snapshot=snapshot, **sections(invocation))


def sections(invocation: Invocation) -> dict[str, Any]:
    """The parts of the config that a model depends on."""
    run = invocation.run.model_dump(mode="json")
    return {name: run[name] for name in ("samples", "split", "model", "training")}


def require_trained(invocation: Invocation) -> dict[str, Any]:
    """The record of the training that this config describes.

    A model trained with another split would be judged on blocks that it has seen. Raises MissingInput, RequestError.
    """
    record, requested = require(invocation.folder, "train", "train"), sections(invocation)
    made_from = record.get("made_from", requested)
    for section, values in requested.items():
        for name, value in values.items():
            was = made_from.get(section, {}).get(name)
            if was != value:
                raise RequestError(
                    f"the model in {invocation.folder.model} was trained with {section}.{name} = {was}, the config says {value}; "
                    "run `driftline train CONFIG` first, or set it back"
                )
    return record


def is_model_whole(invocation: Invocation, record: dict[str, Any]) -> bool:
    """True if the model on disk is the one that the record speaks of."""
    from models.checkpoint import hash_forecaster

    try:
        return hash_forecaster(invocation.folder.model) == record["model_hash"]
    except FileNotFoundError:
        return False


def plan_samples(invocation: Invocation, snapshot: str) -> tuple[Any, Any]:
    """(dataset, window plan) of the snapshot. Raises StateError if the audit finds that test and training touch."""
    from pipelines.cube.store import open_cube
    from pipelines.samples.splits import audit, plan_windows

    run = invocation.run
    dataset = open_cube(invocation.folder.cube_uri, snapshot)
    shape_yx = dataset.sizes["y"], dataset.sizes["x"]
    split, every = build.build_split(run), build.build_sampling(run)
    samples = run.samples
    plan = plan_windows(dataset["time"].values, shape_yx, split, every, samples.context, samples.horizon, samples.stride)
    finding = audit(plan)
    write_json(invocation.folder.path / "split.json", {"ok": finding.ok, "problems": finding.problems, **finding.facts})
    if not finding.ok:
        raise StateError("the split leaks and was not used: " + "; ".join(finding.problems))
    return dataset, plan


def measure(invocation: Invocation, dataset: Any, plan: Any, progress: Progress) -> Any:
    """Statistics of the training part."""
    from pipelines.samples.statistics import channel_statistics

    return channel_statistics(dataset, plan, build.build_variables(invocation.run.samples.variables), progress)


def prepare(invocation: Invocation, dataset: Any, plan: Any, statistics: Any, progress: Progress) -> Any:
    """The untrained forecaster, its rule fitted on training windows."""
    from pipelines.calendar import median_step_days
    from pipelines.samples.reading import read_windows

    run = invocation.run
    variables, count = build.build_variables(run.samples.variables), len(plan.of_part("train"))
    baseline = build.build_corrected_baseline(
        run, lambda: every_nth(read_windows(dataset, plan, variables, "train"), count, progress)
    )
    step_days = run.samples.steps.every_days or median_step_days(dataset["time"].values)
    return build.build_forecaster(run, baseline, statistics.mean, statistics.std, step_days)


def every_nth(windows: Iterable[Any], count: int, progress: Progress | None = None) -> Iterator[Any]:
    """About FIT_WINDOWS of `count` windows, evenly spread: enough for the few numbers of a rule."""
    every = max(count // FIT_WINDOWS, 1)
    for done, window in enumerate(islice(windows, 0, None, every), start=1):
        yield window
        if progress is not None:
            progress(done * every, max(count, done * every))


def cut_samples(
    invocation: Invocation, snapshot: str, dataset: Any, plan: Any, forecaster: Any, progress: Progress | None = None
) -> Any:
    """The sample cache, opened if it is there."""
    from pipelines.samples.cache import build_samples

    run = invocation.run
    description = forecaster.describe()
    prepare_key = stage_key(baseline=description["baseline"], scaling=description["scaling"])
    return build_samples(
        dataset,
        snapshot,
        invocation.folder.samples,
        plan,
        build.build_variables(run.samples.variables),
        forecaster.prepare,
        progress,
        prepare_key=prepare_key,
        min_valid_fraction=run.samples.min_valid_fraction,
    )


def fit(invocation: Invocation, forecaster: Any, cache: Any, key: str, progress: Progress) -> Any:
    from pipelines.learning.batches import frame_weight
    from pipelines.learning.training import train as train_members

    settings = build.build_training_settings(invocation.run)
    loss = build.build_loss(invocation.run, forecaster)
    chosen = invocation.run.training
    training, validation = cache.part("train", augment=chosen.augment, seed=chosen.seed), cache.part("validation")
    target_of = build.build_target(invocation.run)
    return train_members(
        forecaster,
        training,
        validation,
        loss,
        settings,
        invocation.folder.model,
        progress,
        key=key,
        target_of=target_of,
        weight_of=frame_weight,
    )


def fit_scale(invocation: Invocation, forecaster: Any, cache: Any) -> list[float]:
    """The share of the residual that validation windows support, per lead."""
    share_K = forecaster.fit_residual_scale(cache.batches("validation", invocation.run.training.batch))
    return [round(float(share), 4) for share in share_K]


def save(invocation: Invocation, forecaster: Any, snapshot: str, statistics: Any) -> str:
    from models.checkpoint import save_forecaster

    run = invocation.run
    metadata = {
        "run": run.name,
        "task": run.task,
        "variables": [v.model_dump(mode="json") for v in run.samples.variables],
        "bands": [band.name for band in run.source.bands],
        "statistics": asdict(statistics),
        "cube_snapshot": snapshot,
        "samples": run.samples.model_dump(mode="json"),
        "split": run.split.model_dump(mode="json"),
        "training": run.training.model_dump(mode="json"),
        "config_sha256": config_hash(run),
        "code_version": code_version(),
    }
    return save_forecaster(forecaster, invocation.folder.model, metadata)
