"""Models that were trained elsewhere: the stage `train` of a run that uses one, weights to begin from, and what is said of them.

For every task with the stage `train`: a task only says what it was trained on (`TrainedTask.measure`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from configs.load import config_hash
from configs.trained import (
    CARDS,
    DESCRIPTION,
    SCORES,
    WEIGHTS,
    Trained,
    find_model,
    load_model,
    require_alike,
    require_same_images,
    used_by,
)
from flows.folder import RunFolder, code_version, finished, require
from flows.task import Invocation, Record, TrainedTask
from pipelines.errors import RequestError
from pipelines.files import write_bytes, write_json

if TYPE_CHECKING:
    from models.contract import Ensemble


class HasFolds(Protocol):
    """Samples or labels that are divided into folds."""

    def folds_digest(self) -> str:
        """Equal where no network has seen what its fold tests."""


Folded = TypeVar("Folded", bound=HasFolds)
STEPS = ("choosing", "earlier/resume")  # of `flows.tasks.forecast_training`

# ---------------------------------------------------------------- what a checkpoint says


def describe(task: TrainedTask, context: Invocation, snapshot: str) -> dict[str, Any]:
    """The metadata that the checkpoints of every task hold; the task adds its own."""
    run = context.run
    content = run.model_dump(mode="json")
    sections = {
        section: {name: part[name] for name in part if not names or name in names} if isinstance(part, dict) else part
        for section, names in task.describes.items()
        for part in [content[section]]
    }
    inputs = context.steps.do(
        "train", "describe what it was trained on", lambda progress: task.measure(context, is_training=True)
    )
    return {
        "run": run.name,
        "task": run.task,
        "bands": [band.name for band in inputs.bands],
        "config": sections,
        "inputs": inputs.to_json(),
        "cube": context.folder.cube_uri,
        "cube_snapshot": snapshot,
        "training": content["training"],
        "config_sha256": config_hash(run),
        "code_version": code_version(),
    }


def keep_scores(folder: RunFolder) -> None:
    """The evaluation goes with the model that was trained here, so that they travel together."""
    if folder.model.is_dir():
        write_bytes(folder.model / SCORES, folder.evaluation.read_bytes())


def drop_card(folder: RunFolder) -> None:
    """Removes the card of the model that another takes the place of."""
    for path in (folder.model / name for name in CARDS if folder.model.is_dir()):
        path.unlink(missing_ok=True)


def drop_steps(folder: RunFolder) -> None:
    """Removes what only an interrupted training of a forecaster goes on from, once its record is written: another one's steps."""
    for path in STEPS:
        shutil.rmtree(folder.model / path, ignore_errors=True)


def same_folds(context: Invocation, samples: Folded) -> Folded:
    """The samples or labels of the last ingest, to test the run's networks on.

    Raises RequestError where their folds are not those that the networks were trained on. A model that was trained elsewhere has
    none here.
    """
    if used_by(context.run) is not None:
        return samples
    folder, digest = context.folder, samples.folds_digest()
    trained, now = require(folder, "train"), require(folder, "ingest")["snapshot"]
    is_known = "folds" in trained or trained["snapshot"] == now  # a training of an earlier version does not say
    if not is_known or trained.get("folds", digest) != digest:
        raise RequestError(
            f"what {folder.path} has ingested has changed since the model was trained, and its folds with it: networks would be "
            "tested on places or groups that they have learnt from; run `driftline train CONFIG`"
        )
    return samples


# ---------------------------------------------------------------- a run that uses a model


def take_over(task: TrainedTask, context: Invocation) -> Record:
    """The model that `model.use` names, compared with the run's images and copied into its folder, in place of training.

    Raises RequestError where it does not fit, MissingInput, ArtefactDamaged.
    """
    run, folder = context.run, context.folder
    chosen = used_by(run)
    assert chosen is not None
    assert chosen.use is not None
    snapshot = require(folder, "ingest")["snapshot"]
    _, trained = load_model(chosen.use, task.checkpoint(), task.name)  # before anything of the run's own is replaced
    warnings, _ = match(task, context, trained, as_is=chosen.as_is)
    folder.model.mkdir(parents=True, exist_ok=True)
    if trained.folder.resolve() != folder.model.resolve():
        for name in (WEIGHTS, DESCRIPTION):  # the description last: it names the weights
            write_bytes(folder.model / name, (trained.folder / name).read_bytes())
        scores = trained.scores
        (folder.model / SCORES).unlink(missing_ok=True)
        if scores is not None:
            write_json(folder.model / SCORES, scores)
    about = about_training(trained)
    for line in (f"the model of {chosen.use}: {about}", *(f"WARNING {warning}" for warning in warnings)):
        context.steps.log(f"train: {line}")
    used = {"path": chosen.use, "run": trained.name, "about": about, "warnings": list(warnings), "as_is": chosen.as_is}
    message = f"uses the model of {chosen.use}, {about}"
    return {"snapshot": snapshot, "model_hash": str(task.checkpoint().hash(folder.model)), "used": used, "message": message}


def match(task: TrainedTask, context: Invocation, trained: Trained, *, as_is: bool) -> tuple[tuple[str, ...], Sequence[str]]:
    """(what a user must know of the model on these images, the areas that it has seen on such dates).

    Raises RequestError where it does not fit, unless `as_is`.
    """
    from pipelines.learning.reuse import compare, known_areas

    here = context.steps.do("train", "compare with the images of training", lambda progress: task.measure(context))
    of_training = trained.inputs
    warnings = compare(of_training, here).require(as_is=as_is)
    known = known_areas(of_training, here)
    if known and here.first_utc <= of_training.last_utc and of_training.first_utc <= here.last_utc:
        until = of_training.last_utc[:10]
        text = f"the model has seen this area ({', '.join(known)}) on dates up to {until}: scores here are not of unseen places"
        return (*warnings, text), known
    return warnings, ()


def about_training(trained: Trained) -> str:
    """`trained on demo (140 dates, 2015-08-01 to 2018-12-31), not trained here`."""
    inputs = trained.inputs
    dates = f"{inputs.dates} dates, " if inputs.dates else ""
    period = f"{dates}{inputs.first_utc[:10]} to {inputs.last_utc[:10]}" if inputs.first_utc else "dates unknown"
    return f"trained on {trained.name or 'an unknown run'} ({period}), not trained here"


# ---------------------------------------------------------------- weights to begin from


def check_start(task: TrainedTask, context: Invocation) -> Sequence[str]:
    """Compares the images with those of the model to begin from, and returns the areas that it has seen.

    Raises RequestError where they do not fit.
    """
    from pipelines.learning.reuse import require_bands

    run = context.run
    trained = find_model(run.training.start_from)
    require_bands(trained.bands, [band.name for band in run.source.bands])
    if trained.task in ("", task.name):
        load_model(run.training.start_from, task.checkpoint(), task.name)
        require_alike(run, trained, run.training.start_from)
    if trained.task not in ("", task.name) or trained.sections.get("variables"):
        require_same_images(run, trained, run.training.start_from)
    warnings, known = match(task, context, trained, as_is=run.model.as_is)
    for warning in warnings:
        context.steps.log(f"train: WARNING begun from {run.training.start_from}: {warning}")
    return known


def start(task: TrainedTask, context: Invocation, model: Ensemble, first: int = 0) -> None:
    """The untrained networks of `model` get the weights of those of `training.start_from`, one after the other from `first` on.

    Raises RequestError where the architectures differ; it names the fields.
    """
    origin, _ = load_model(context.run.training.start_from, task.checkpoint(), task.name)
    mine, others = (json.loads(json.dumps(one.describe_members())) for one in (model, origin))
    for number, own in enumerate(mine):
        other = others[(first + number) % len(others)]
        names = [name for name in {**own, **other} if own.get(name) != other.get(name)]
        if differing := [f"{name} = {own.get(name)} (there {other.get(name)})" for name in names]:
            raise RequestError(
                f"training.start_from: {context.run.training.start_from} has another architecture: {', '.join(differing)}; "
                "make the model of this run the same"
            )
        model.members[number].load_state_dict(origin.members[(first + number) % len(others)].state_dict())


# ---------------------------------------------------------------- what summary and report say


def used_record(folder: RunFolder) -> Mapping[str, Any]:
    """What the stage `train` says of a model that was trained elsewhere; {} for one that was trained here."""
    return (finished(folder, "train") or {}).get("used") or {}


def notes(folder: RunFolder, *, is_evaluated: bool) -> Sequence[str]:
    """What a reader must see first of a model that was trained elsewhere."""
    used = used_record(folder)
    if not used:
        return []
    scored = "" if is_evaluated else ", not evaluated here: nothing says how good it is on these images"
    return [f"The model was {used['about']}{scored}.", *(f"{warning[0].upper()}{warning[1:]}." for warning in used["warnings"])]
