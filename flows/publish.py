"""What a run publishes, for every task: the gate, the products, summary.json and report.html.

`products/` always belong to one model, one verdict and one summary: files are written beside the old ones and take their place by
renames, and products of another model, or that the verdict no longer allows, are withdrawn. The record of the stage says at every
moment which files may lie there: before the first rename it names the old and the new ones, without a key, so that after a kill
nobody takes them for finished.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from configs.load import config_hash
from flows import code
from flows.folder import RunFolder, code_version, finished, read_json, require
from flows.steps import read_records, stage_costs
from flows.task import Building, Findings, Invocation, Record, Task
from pipelines.errors import ArtefactDamaged, MissingInput, NotPublished
from pipelines.files import replace_folder, write_json
from pipelines.learning.result import Evaluation

PICTURES = (".png", ".gif")


def publish(task: Task, context: Invocation, stage: str, key: str) -> Record:
    """The last stage of a task: products, then summary and report. Raises NotPublished, after the report, at a shut gate."""
    evaluation = current_evaluation(task, context)
    if task.is_gated:
        require_publishable(task, context, stage, evaluation)
    record = finished(context.folder, stage, key)
    is_new = record is None or not is_published(context.folder, record) or not task.is_whole(context, stage, record)
    if record is None or is_new:
        record = write_products(task, context, stage, key, evaluation)
    else:
        context.steps.skip(stage, "up to date")
    record = task.close(context, record, is_new=is_new)
    is_there = context.folder.summary.exists() and context.folder.report.exists()  # a kill leaves those of the run before
    if is_new or not is_there or finished(context.folder, "report", report_key(task, context)) is None:
        report(task, context)
    findings = task.find(context, current_evaluation(task, context), current_products(task, context))
    notes = [*record.get("notes", ()), *record.get("notified", ())]
    return {**record, "lines": [record["message"], *notes, *lines_of(context.folder, findings)], "skipped": not is_new}


def current_evaluation(task: Task, context: Invocation) -> Evaluation | None:
    """The evaluation of the model in the run's folder, None where there is none; one of another model does not count.

    Nor does one of version 0.1.0, whose record does not have the file's hash.
    """
    evaluated = finished(context.folder, "evaluate")
    if evaluated is None or "evaluation_sha256" not in evaluated or not context.folder.evaluation.exists():
        return None
    trained = finished(context.folder, "train") if "train" in task.stages else None
    if trained is not None and trained["model_hash"] != evaluated["model_hash"]:
        return None
    return read_evaluation(context.folder)


def read_evaluation(folder: RunFolder) -> Evaluation:
    """What `evaluate` left. Raises MissingInput or ArtefactDamaged, also for an evaluation of an earlier version."""
    path, remedy = folder.evaluation, "run `driftline evaluate CONFIG`"
    content = read_json(path, remedy)
    try:
        return Evaluation.from_json(content)
    except (KeyError, TypeError, AttributeError) as e:
        raise ArtefactDamaged(f"{path} is not an evaluation of this version ({e}); {remedy}") from e


def require_publishable(task: Task, context: Invocation, stage: str, evaluation: Evaluation | None) -> None:
    """Raises MissingInput without an evaluation of the model; NotPublished, with the report written, at a shut gate."""
    folder = context.folder
    if evaluation is None:
        folder.done("evaluate").unlink(missing_ok=True)  # a verdict on something else
        require(folder, "evaluate")
    assert evaluation is not None
    if evaluation.verdict.is_publishable or context.even_if_worse:
        return
    context.steps.skip(stage, "not published: the model does not beat what it must beat")
    withdraw(context, stage, "the verdict on the model that made them does not allow it")
    report(task, context)
    raise NotPublished(f"{evaluation.verdict.gate} The report says why: {folder.report}")


# ---------------------------------------------------------------- products


def write_products(task: Task, context: Invocation, stage: str, key: str, evaluation: Evaluation | None) -> Record:
    """Everything that is published, made beside what is there and put into its place; the record of the stage.

    Raises NotPublished, after the report, where the task finds that what it made must not be published.
    """
    folder = context.folder
    building = new_building(folder)
    try:
        about = task.predict(context, evaluation, building)
    except NotPublished as e:
        context.steps.skip(stage, "not published")
        report(task, context)
        raise NotPublished(f"{e}. To publish all the same: --even-if-worse") from e
    products = [f"{folder.products.name}/{path.name}" for path in sorted(building.products.iterdir())]
    pictures = sorted(path.name for path in building.pictures.iterdir())
    record = {"key": key, **about, "products": [*products, *pictures], "even_if_worse": context.even_if_worse}
    put_in_place(folder, stage, record, building, pictures)
    return record


def put_in_place(folder: RunFolder, stage: str, record: Record, building: Building, pictures: list[str]) -> None:
    """What was built takes the place of what was published; the record names every file that may be there, at every moment."""
    before = named_files(folder, stage)
    write_json(folder.done(stage), {**record, "key": "", "products": sorted({*before, *record["products"]})})
    replace_folder(building.products, folder.products)
    for name in pictures:
        (building.pictures / name).replace(folder.path / name)
    building.pictures.rmdir()
    for name in set(before) - set(record["products"]):
        (folder.path / name).unlink(missing_ok=True)
    write_json(folder.done(stage), record)


def named_files(folder: RunFolder, stage: str) -> list[str]:
    """Products and pictures that the record of the stage names, whether it is finished or not; relative to the run's folder.

    Records of version 0.1.0 name other files as well, which are not ours to remove (alerts.json).
    """
    try:
        record = read_json(folder.done(stage), "")
    except (MissingInput, ArtefactDamaged):
        return []
    names = record.get("products", ()) if isinstance(record, dict) else ()
    return [name for name in names if name.startswith(f"{folder.products.name}/") or name.endswith(PICTURES)]


def new_building(folder: RunFolder) -> Building:
    """Two empty folders beside the products; what a killed process left in them is removed."""
    building = Building(folder.path / ".products-building", folder.path / ".pictures-building")
    for path in (building.products, building.pictures):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    return building


def is_published(folder: RunFolder, record: Record) -> bool:
    """True if every file that the record names is there."""
    return all((folder.path / name).exists() for name in record["products"])


def withdraw(context: Invocation, stage: str, why: str) -> None:
    """Removes products that nothing stands for any more; the record goes last, so that the next run ends what a kill left."""
    folder, names = context.folder, named_files(context.folder, stage)
    if not names and not folder.products.exists():
        return
    for name in names:
        (folder.path / name).unlink(missing_ok=True)
    shutil.rmtree(folder.products, ignore_errors=True)
    folder.done(stage).unlink(missing_ok=True)
    context.steps.log(f"{stage}: what was published here is withdrawn: {why}")


def current_products(task: Task, context: Invocation) -> Record:
    """The record of what is published, {} where nothing is; what is not whole or of another model is withdrawn."""
    folder, stage = context.folder, task.stages[-1]
    record, evaluated = finished(folder, stage), finished(folder, "evaluate")
    if record is None:
        return {}
    if not record["key"] or not is_published(folder, record):
        withdraw(context, stage, "it is not whole")
        return {}
    if task.is_gated and (evaluated is None or evaluated["model_hash"] != record["model_hash"]):
        withdraw(context, stage, "another model has been trained since")
        return {}
    return record


# ---------------------------------------------------------------- summary and report


def report(task: Task, context: Invocation) -> Record:
    """Writes summary.json and report.html, also for what was not published. Raises MissingInput if there is nothing to say."""
    folder, steps = context.folder, context.steps
    task.check(context, "report")
    evaluation, predicted = current_evaluation(task, context), current_products(task, context)
    if task.is_gated or not predicted:
        needed = "evaluate" if task.is_gated else task.stages[-1]
        require(folder, needed)
    content = ReportContent(task, context, evaluation, predicted, task.find(context, evaluation, predicted))
    steps.do("report", "write the summary", lambda progress: write_summary_of(content))
    steps.do("report", "write the report", lambda progress: write_report_of(content))
    write_json(folder.done("report"), {"key": report_key(task, context)})
    message, lines = f"report: {folder.report}", lines_of(folder, content.findings)
    return {"message": message, "lines": lines, "report": str(folder.report), "task": task.name, "skipped": False}


@dataclass(frozen=True)
class ReportContent:
    """What summary and report are written from; `predicted` is {} where nothing is published."""

    task: Task
    context: Invocation
    evaluation: Evaluation | None
    predicted: Record
    findings: Findings


def write_summary_of(content: ReportContent) -> None:
    from pipelines.products.summary import Published, Refusal, StageCost, Summary, write_summary

    run, folder, task = content.context.run, content.context.folder, content.task
    evaluation, predicted, findings = content.evaluation, content.predicted, content.findings
    costs, records = stage_costs(folder.steps), read_records(folder.steps)
    evaluated, ingested = finished(folder, "evaluate") or {}, finished(folder, "ingest") or {}
    made = predicted or evaluated
    products = Published(
        files=tuple(predicted.get("products", ())),
        collection="products/collection.json" if predicted else "",
        cube_snapshot=predicted.get("snapshot", ""),
        model_hash=predicted.get("model_hash", ""),
        issued_utc=predicted.get("issued_utc", ""),
        target_utc=tuple(predicted.get("target_utc", ())),
        even_if_worse=predicted.get("even_if_worse", False),
    )
    summary = Summary(
        name=run.name,
        task=run.task,
        sentence=findings.sentence,
        verdict=evaluation.verdict if evaluation else None,
        criteria=evaluation.criteria if evaluation else (),
        shipped=evaluation.shipped if evaluation else "",
        methods={name: dict(figures) for name, figures in evaluation.methods.items()} if evaluation else {},
        found=dict(findings.found),
        largest=tuple(dict(row) for row in findings.largest),
        alerts=tuple(dict(row) for row in findings.alerts),
        sites={name: dict(facts) for name, facts in findings.sites.items()},
        computed=dict(findings.computed),
        evaluation=dict(evaluation.details) if evaluation else {},
        products=products,
        stages=tuple(StageCost(name, costs[name]["seconds"], costs[name]["peak_mb"]) for name in task.stages if name in costs),
        refused=tuple(Refusal(**refusal) for refusal in ingested.get("refused", ())),
        cube_snapshot=made.get("snapshot", ""),
        model_hash=made.get("model_hash", ""),
        config_hash=config_hash(run),
        driftline_version=code_version(),
        started_utc=records[0]["at_utc"] if records else "",
    )
    write_summary(summary, folder.summary)


def write_report_of(content: ReportContent) -> None:
    from pipelines.products.report import Report, write_report
    from pipelines.products.summary import read_summary

    folder, evaluation, predicted, findings = content.context.folder, content.evaluation, content.predicted, content.findings
    with tempfile.TemporaryDirectory(dir=folder.path, prefix=".report-") as drafts:
        sections = content.task.sections(content.context, evaluation, predicted, Path(drafts))
        written = Report(
            summary=read_summary(folder.summary),
            sections=[section for section in sections if not section.is_empty],
            cube=findings.cube,
            settings=findings.settings,
            notes=[*publication_notes(evaluation, predicted), *(evaluation.notes if evaluation else ()), *findings.notes],
            config_yaml=folder.config.read_text(encoding="utf-8") if folder.config.exists() else "",
        )
        write_report(written, folder.report)


def publication_notes(evaluation: Evaluation | None, predicted: Record) -> list[str]:
    """What a reader must see first: whether the verdict and what is published go together."""
    if evaluation is None or evaluation.verdict.is_publishable:
        return []
    if predicted:
        return ["This was published although the model does not beat what it must beat (--even-if-worse)."]
    return ["This model was not published: it does not beat what it must beat."]


def lines_of(folder: RunFolder, findings: Findings) -> list[str]:
    """Where that lies which a person wants to open, as far as it is there."""
    known = [*findings.lines, ("report", folder.report), ("numbers", folder.summary)]
    return [f"{what + ':':<9}{path}" for what, path in known if path.exists()]


def report_key(task: Task, context: Invocation) -> str:
    records = {stage: finished(context.folder, stage) for stage in task.stages if stage != "ingest"}
    refused = (finished(context.folder, "ingest") or {}).get("refused")
    return code.key({"config": config_hash(context.run), "refused": refused, "driftline": code_version(), **records}, ())
