"""What a run publishes, for every task: the gate, the products, summary.json and report.html.

`products/` always belong to one task, model, evaluation and summary: files are written beside the old ones and take their place
by renames; what does not belong is withdrawn (`misfit`). The record of the stage says at every moment which files may lie there:
before the first rename it names the old and the new ones, without a key, so that after a kill nobody takes them for finished.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from configs.load import config_hash, write_resolved
from flows import code, trained
from flows.folder import RunFolder, code_version, fingerprints, finished, first_altered, readable, require
from flows.reporting import ReportContent, write_report_of, write_summary_of
from flows.task import Building, Findings, Invocation, Record, Task, key_of
from pipelines.errors import MissingInput, NotPublished, ProductShrinks
from pipelines.files import replace_folder
from pipelines.learning.result import Evaluation
from pipelines.products.covered import Covered, covered_by, shortfalls

if TYPE_CHECKING:
    pass

# of `driftline track --run`, which the report shows
TRACKS = ("track/index.json", "track/tracks.png", "track/growth.png", "track/motion.png")
PUBLISHED = re.compile(r"products/[^/.][^/]*|[^/]+\.(png|gif)")  # records can be edited; nothing else is ours to remove


def publish(task: Task, context: Invocation, stage: str) -> Record:
    """The last stage of a task: products, then summary and report. Raises NotPublished, after the report, at a shut gate."""
    folder, before = context.folder, covered_now(context.folder, stage)
    evaluation, record = standing(task, context, is_replacing=True)
    if task.is_gated and evaluation is not None:
        require_publishable(task, context, stage, evaluation)
    key = key_of(task, context, stage)
    is_new = record.get("key") != key or bool(first_altered(folder, record)) or not task.is_whole(context, stage, record)
    if is_new:
        record = write_products(task, context, stage, key, evaluation, before)
    else:
        context.steps.skip(stage, "up to date")
    record = task.close(context, record, is_new=is_new)
    reported = finished(folder, "report", report_key(task, context))
    if is_new or reported is None or first_altered(folder, reported):  # a kill leaves those of the run before
        report(task, context)
    findings = task.find(context, evaluation, finished(folder, stage) or {})
    of_model = trained.notes(folder, is_evaluated=evaluation is not None)
    notes = [*of_model, *record.get("notes", ()), *record.get("notified", ())]
    return {**record, "lines": [record["message"], *notes, *lines_of(folder, findings)], "skipped": not is_new}


# ---------------------------------------------------------------- what counts


def standing(task: Task, context: Invocation, *, is_replacing: bool = False) -> tuple[Evaluation | None, Record]:
    """(the evaluation that counts, the record of what is published or {}); what does not belong to the run is withdrawn.

    is_replacing: what is whole, if of another model, stays until what is made now takes its place: it may turn out to cover less.
    Raises MissingInput where a gated task has no evaluation that counts.
    """
    folder, stage = context.folder, task.stages[-1]
    evaluation, record = current_evaluation(task, context), finished(folder, stage)
    has_grounds = not task.is_gated or evaluation is not None or is_unscored(task, context)
    if why := misfit(task, folder, record, evaluation):
        is_whole = record is not None and record["key"] and all((folder.path / name).is_file() for name in record["files"])
        if not (is_replacing and is_whole and has_grounds):
            withdraw(context, stage, why)
        record = None
    if not has_grounds:
        raise MissingInput(f"{folder.path} has no evaluation of this model and config; run `driftline evaluate CONFIG` first")
    return evaluation, record or {}


def current_evaluation(task: Task, context: Invocation) -> Evaluation | None:
    """The evaluation whose key is the one that config and model give, None where there is none; the cube may have grown since."""
    folder = context.folder
    record = finished(folder, "evaluate")
    if record is None or not record["files"] or first_altered(folder, record):
        return None
    if record["key"] != key_of(task, context, "evaluate", record["snapshot"]):
        return None
    return read_evaluation(folder)


def is_unscored(task: Task, context: Invocation) -> bool:
    """True if `evaluate` found nothing to score the model by, for the model and config that are there."""
    record = finished(context.folder, "evaluate")
    return record is not None and not record["files"] and record["key"] == key_of(task, context, "evaluate", record["snapshot"])


def read_evaluation(folder: RunFolder) -> Evaluation:
    """What `evaluate` left."""
    return Evaluation.from_json(json.loads(folder.evaluation.read_text(encoding="utf-8")))


def misfit(task: Task, folder: RunFolder, record: Record | None, evaluation: Evaluation | None) -> str:
    """Why what lies there must not stay published, "" if it may, or if there is nothing."""
    if record is None:
        is_there = bool(named_files(folder)) or folder.products.exists()
        return "its record is missing, damaged, or of another task or version" if is_there else ""
    if not record["key"]:
        return "a run was stopped while it was put into its place"
    if missing := [name for name in record["files"] if not (folder.path / name).is_file()]:
        return f"{missing[0]} is missing"
    trained = finished(folder, "train") if "train" in task.stages else None
    if trained is not None and trained["model_hash"] != record["model_hash"]:
        return "another model has been trained since"
    if not task.is_gated or evaluation is None:
        return ""
    insisted = {name: bool(record.get(name)) for name in ("even_if_worse", "even_if_confounded")}
    if not evaluation.verdict.allows(**insisted):
        return "the verdict on the model that made it does not allow it"
    return "" if record.get("evaluated") == evaluated_key(folder) else "the model has been evaluated otherwise since"


def evaluated_key(folder: RunFolder) -> str:
    return str((finished(folder, "evaluate") or {}).get("key", ""))


def require_publishable(task: Task, context: Invocation, stage: str, evaluation: Evaluation) -> None:
    """Raises NotPublished, with the report written, at a shut gate."""
    if context.allows(evaluation.verdict):
        return
    confounded = evaluation.verdict.confounded_by
    why = f"CONFOUNDED by {', '.join(confounded)}" if confounded else "the model does not beat what it must beat"
    context.steps.skip(stage, f"not published: {why}")
    withdraw(context, stage, "the verdict on the model that made it does not allow it")
    report(task, context)
    raise NotPublished(f"{evaluation.verdict.gate} The report says why: {context.folder.report}")


# ---------------------------------------------------------------- products


def write_products(
    task: Task, context: Invocation, stage: str, key: str, evaluation: Evaluation | None, before: Covered
) -> Record:
    """Everything that is published, made beside what is there and put into its place; the record of the stage.

    Raises NotPublished, after the report, where the task finds that what it made must not be published, and ProductShrinks where
    it covers less than what is published did (`before`), which stays.
    """
    folder = context.folder
    building = new_building(folder)
    try:
        about = task.predict(context, evaluation, building)
    except NotPublished as e:
        context.steps.skip(stage, "not published")
        report(task, context)
        raise NotPublished(f"{e}. To publish all the same: --even-if-worse") from e
    if "dates" in about:
        about["refused_scenes"] = len((finished(folder, "ingest") or {"refused": []})["refused"])
    require_no_less(context, stage, before, covered(building.products, about))
    products = [f"{folder.products.name}/{path.name}" for path in sorted(building.products.iterdir())]
    pictures = sorted(path.name for path in building.pictures.iterdir())
    insisted = {name: getattr(context, name) for name in ("even_if_worse", "even_if_confounded")}
    about |= {"products": [*products, *pictures], **insisted, "evaluated": evaluated_key(folder)}
    return put_in_place(context, stage, {"key": key, **about}, building, pictures)


def covered_now(folder: RunFolder, stage: str) -> Covered:
    """What is published in the run's folder, if it is finished."""
    record = finished(folder, stage)
    return Covered() if record is None or not record["key"] else covered(folder.products, record)


def covered(products: Path, about: Record) -> Covered:
    """What products cover; of monitoring the record counts the dates, and the scenes that were refused."""
    dates = about.get("dates")
    return covered_by(products, *((dates, about.get("refused_scenes", 0)) if isinstance(dates, int) else ()))


def require_no_less(context: Invocation, stage: str, before: Covered, after: Covered) -> None:
    """Raises ProductShrinks, unless `--force` asks for it."""
    lost = list(shortfalls(before, after))
    if lost and not context.force:
        context.steps.skip(stage, "not published: it covers less than what is published")
        raise ProductShrinks(
            f"{context.folder.stored or context.folder.path}: what was made now covers less than what is published: "
            f"{'; '.join(lost)}. What is published stays. If this is meant: the same command with --force, or with "
            "--set name=..., which keeps both"
        )


def put_in_place(context: Invocation, stage: str, record: Record, building: Building, pictures: list[str]) -> Record:
    """What was built takes the place of what was published; the record names every file that may be there, at every moment."""
    folder = context.folder
    before = named_files(folder)
    context.finish(stage, {**record, "key": "", "files": {}, "products": sorted({*before, *record["products"]})})
    replace_folder(building.products, folder.products)
    for name in pictures:
        (building.pictures / name).replace(folder.path / name)
    building.pictures.rmdir()
    for name in before - set(record["products"]):
        (folder.path / name).unlink(missing_ok=True)
    return context.finish(stage, {**record, "files": fingerprints(folder, record["products"])})


def named_files(folder: RunFolder) -> set[str]:
    """Products and pictures that the summary or any record names, finished or not, of this task or of one before it."""
    listed = [readable(path).get("products") for path in (folder.summary, *folder.path.glob("stages/*.json"))]
    lists = [found.get("files") if isinstance(found, dict) else found for found in listed]
    names = [name for names in lists if isinstance(names, list) for name in names]
    return {name for name in names if isinstance(name, str) and PUBLISHED.fullmatch(name)}


def new_building(folder: RunFolder) -> Building:
    """Two empty folders beside the products; what a killed process left in them is removed."""
    building = Building(folder.path / ".products-building", folder.path / ".pictures-building")
    for path in (building.products, building.pictures):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    return building


def withdraw(context: Invocation, stage: str, why: str) -> None:
    """Removes products that nothing stands for any more, and the summary and report that speak of them.

    The records go last, so that the next run ends what a kill left.
    """
    folder = context.folder
    names = named_files(folder)
    if not names and not folder.products.exists():
        return
    for name in {*names, *reports(folder)}:
        (folder.path / name).unlink(missing_ok=True)
    shutil.rmtree(folder.products, ignore_errors=True)
    for path in folder.path.glob("stages/*.json"):
        if path == folder.done(stage) or "products" in readable(path):
            path.unlink(missing_ok=True)
    context.steps.log(f"{stage}: what was published here is withdrawn: {why}")


# ---------------------------------------------------------------- summary and report


def report(task: Task, context: Invocation) -> Record:
    """Writes summary.json and report.html, also for what was not published. Raises MissingInput if there is nothing to say."""
    folder, steps = context.folder, context.steps
    task.check(context, "report")
    evaluation, predicted = standing(task, context)
    if not task.is_gated:
        require(folder, task.stages[-1])
    write_resolved(context.run, folder.config)
    findings = task.find(context, evaluation, predicted)
    content = ReportContent(task, context, findings.evaluation or evaluation, predicted, findings)
    steps.do("report", "write the summary", lambda progress: write_summary_of(content))
    steps.do("report", "write the report", lambda progress: write_report_of(content))
    context.finish("report", {"key": report_key(task, context), "files": fingerprints(folder, reports(folder))})
    message, lines = f"report: {folder.report}", lines_of(folder, content.findings)
    return {"message": message, "lines": lines, "report": str(folder.report), "task": task.name, "skipped": False}


def lines_of(folder: RunFolder, findings: Findings) -> list[str]:
    """Where that lies which a person wants to open, as far as it is there."""
    known = [*findings.lines, ("report", folder.report), ("numbers", folder.summary)]
    return [f"{what + ':':<9}{path}" for what, path in known if path.exists()]


def reports(folder: RunFolder) -> list[str]:
    return [path.name for path in (folder.summary, folder.report, folder.report.with_suffix(".md"))]


def report_key(task: Task, context: Invocation) -> str:
    records = {stage: finished(context.folder, stage) for stage in task.stages if stage != "ingest"}
    refused = (finished(context.folder, "ingest") or {}).get("refused")
    tracks = fingerprints(context.folder, TRACKS)
    content = {"config": config_hash(context.run), "refused": refused, "driftline": code_version(), **records}
    return code.key({**content, **({"tracks": tracks} if tracks else {})}, ())
