"""One stage of any task: its key, whether it is up to date, its work, its record. Written once, for every task.

    check -> key over inputs and code -> up to date? -> work -> stages/NAME.json

A record holds the key, the inputs it was made from, and what the task says of the output.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from configs.trained import used_by
from flows import publish, trained
from flows.costs import Costs
from flows.folder import fingerprints, finished, first_altered, made_from, require
from flows.ingest_slices import require_slices
from flows.staged import note_on_compute
from flows.task import Invocation, Record, SlicedTask, Task, TrainedTask, key_of, stages_of
from flows.tasks import task_of
from pipelines.errors import NotPublished, RequestError
from pipelines.files import write_json
from pipelines.learning.result import Evaluation, NoTruth
from pipelines.wording import counted

logger = logging.getLogger(__name__)
NOTHING_TO_DO = "nothing to do: everything is up to date"


def carry_out(context: Invocation, verb: str) -> Record:
    """All stages of a verb, each skipping what is up to date; the record of the last one, with what ingest refused.

    Raises RequestError for a verb that the task does not have.
    """
    task = task_of(context.run.task)
    if context.is_finishing and verb == "ingest":
        require_slices(context.run)
    elif context.is_finishing and not (isinstance(task, SlicedTask) and verb in task.sliced):
        raise RequestError(f"--finish: `driftline {verb}` of a run with `task: {task.name}` has no slices; leave it out")
    if verb == "report":
        with storing(context):
            result = publish.report(task, task.resolve(context, verb))
        return with_place(context, result)
    if verb == "sweep":
        from flows.sweep import sweep

        with storing(context):
            result = sweep(task, context, run_stage)
        return with_place(context, result, "sweep/best.yaml")
    stages = stages_needed(task, context, verb)
    if context.is_finishing and verb != "ingest":  # a scene that came in now would put every slice behind
        stages = tuple(stage for stage in stages if stage != "ingest")
    if note := note_on_compute(task, context.run, stages):
        context.steps.log(note)
    costs, records = Costs(task, context, verb), dict[str, Record]()
    try:
        for stage in stages:
            with storing(context), costs.stage(stage):  # the last stage is the one that slices did
                one = replace(context, is_finishing=context.is_finishing and stage == stages[-1])
                records[stage] = run_stage(task, one, stage)
                costs.done(stage, records[stage])
    finally:
        for line in costs.lines():
            context.steps.log(line)
    result = list(records.values())[-1]
    is_skipped = all(record["skipped"] for record in records.values())
    if len(records) > 1 and is_skipped:
        context.steps.log(NOTHING_TO_DO)
        result = {**result, "message": NOTHING_TO_DO}
    result = {**result, "costs": list(costs.rows.values())}
    refused = records["ingest"]["refused"] if "ingest" in records else result.get("refused", [])
    return with_place(context, {**result, "task": task.name, "refused": refused, "skipped": is_skipped})


@contextmanager
def storing(context: Invocation) -> Iterator[None]:
    """Publishes what a stage has left, where the run is stored in S3; also the report on what must not be published."""
    try:
        yield
    except NotPublished:
        store(context)
        raise
    store(context)


def store(context: Invocation) -> None:
    """A new version of a run that is stored in S3, if anything has changed. Raises RunBusy, StateError."""
    copy = context.folder.copy
    version = copy.publish() if copy is not None else None
    if version is not None:
        new = [file for file in version.files.values() if version.version in file.object]
        size = f"{counted(len(new), 'file')}, {sum(file.bytes for file in new) / 1e6:.1f} MB"
        context.steps.log(f"stored {size}: {context.folder.stored}/versions/{version.version}")


def with_place(context: Invocation, result: Record, name: str = "report.html") -> Record:
    """The result of a verb with where the report, or the file `name`, is stored in S3, `stored`, if it is."""
    copy = context.folder.copy
    place = copy.place_of(name) if copy is not None else ""
    lines = {"lines": [*result["lines"], f"stored:  {place}"]} if "lines" in result else {}
    return {**result, **lines, "stored": place} if place else result


def stages_needed(task: Task, context: Invocation, verb: str) -> tuple[str, ...]:
    """As `stages_of`; `evaluate` and `predict` with a model that was trained before need no call of another verb first."""
    stages = tuple(stage for stage in stages_of(task, verb) if stage == verb or task.needs(context.run, stage))
    if verb in ("evaluate", "predict") and used_by(context.run) is not None:
        is_there = finished(context.folder, "ingest") is not None
        until = task.stages.index(stages[-1]) + 1
        needed = (stage for stage in task.stages[:until] if task.needs(context.run, stage))
        return tuple(stage for stage in needed if stage != "ingest" or not is_there)
    return stages


def run_stage(task: Task, context: Invocation, stage: str) -> Record:
    """The stage's record, with `skipped`; done anew where something that it depends on has changed."""
    if stage == "ingest":
        return ingest(task, context)
    context = task.resolve(context, stage)
    if stage == "verify":
        from flows.verify import verify

        return verify(task, context)
    task.check(context, stage)
    match stage:
        case "choose":
            from flows.tasks.forecast_choice import choose

            return choose(task, context)
        case "train":
            assert isinstance(task, TrainedTask), f"the task {task.name} names a stage `train` and has no `fit`"
            return train(task, context)
        case "evaluate":
            return evaluate(task, context)
        case _:
            return publish.publish(task, context, stage)


def ingest(task: Task, context: Invocation) -> Record:
    """Scenes into the cube; with nothing new the snapshot stays."""
    from pipelines.sources.isolation import end_workers

    try:
        found = task.ingest(context)
    finally:
        end_workers()
    lines, is_new = found.pop("lines", ()), found.pop("is_new")
    found = task.resolve(context, "ingest").finish("ingest", found)
    for line in (f"ingest: {found['message']}", *lines):
        context.steps.log(line)
    return {**found, "skipped": not is_new}


def train(task: TrainedTask, context: Invocation) -> Record:
    """A trained model in the run's folder: trained here, or taken from where `model.use` says."""
    key = key_of(task, context, "train")
    record = finished(context.folder, "train", key)
    if record is not None and task.is_whole(context, "train", record):
        context.steps.skip("train", "up to date")
        return {**record, "skipped": True}
    made_from = task.inputs(context, "train")
    made = task.fit(context, key) if used_by(context.run) is None else trained.take_over(task, context)
    trained.drop_card(context.folder)
    begun = context.folder.model / "begun.json"
    if not made.get("begun") and begun.exists():  # of a training before
        begun.unlink()
    record = context.finish("train", {"key": key, "made_from": made_from, **made})
    trained.drop_steps(context.folder)
    logger.info("trained %s: %s", context.run.name, record["model_hash"])
    return {**record, "skipped": False}


def evaluate(task: Task, context: Invocation) -> Record:
    """`evaluation.json` and the verdict."""
    folder, key = context.folder, key_of(task, context, "evaluate")
    record = finished(folder, "evaluate", key)
    if record is not None and not first_altered(folder, record) and task.is_whole(context, "evaluate", record):
        context.steps.skip("evaluate", "up to date")
        figures = headline(publish.read_evaluation(folder)) if record["files"] else {}
        return {**record, **figures, "skipped": True}
    try:
        evaluation, made_from = task.evaluate(context)
    except NoTruth as e:
        return leave_unscored(context, key, e)
    write_json(folder.evaluation, {**evaluation.to_json(), **made_from})
    if isinstance(task, TrainedTask) and used_by(context.run) is None:
        trained.keep_scores(folder)
    record = {
        "key": key,
        **made_from,
        "is_publishable": evaluation.verdict.is_publishable,
        "message": evaluation.verdict.sentence,
        "files": fingerprints(folder, [folder.evaluation.name]),
    }
    context.steps.log(evaluation.verdict.sentence)
    return {**context.finish("evaluate", record), **headline(evaluation), "skipped": False}


def leave_unscored(context: Invocation, key: str, reason: NoTruth) -> Record:
    """The record of a model that was trained elsewhere and cannot be scored here; it may be published, with a note."""
    folder, train = context.folder, require(context.folder, "train")
    if "used" not in train:
        raise reason
    message = f"not evaluated here: {reason}"
    context.steps.log(f"evaluate: {message}")
    folder.evaluation.unlink(missing_ok=True)
    record = {"key": key, **made_from(folder), "is_publishable": True, "message": message, "files": {}}
    return {**context.finish("evaluate", record), "skipped": False}


def headline(evaluation: Evaluation) -> dict[str, Any]:
    """Verdict and flat figures, for `--json`."""
    return {"verdict": evaluation.verdict.to_json(), "metrics": {name: dict(one) for name, one in evaluation.methods.items()}}
