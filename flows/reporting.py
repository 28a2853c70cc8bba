"""summary.json and report.html, written from what a run has evaluated and published."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from configs.load import config_hash
from configs.privacy import AS_THEY_ARE, METADATA_ALONE, privacy_of
from flows import trained
from flows.costs import read_costs
from flows.folder import RunFolder, code_version, finished, first_altered
from flows.machine import FIGURES
from flows.steps import read_records, stage_costs
from flows.task import Findings, Invocation, Record, Task
from pipelines.learning.result import Evaluation

if TYPE_CHECKING:
    from pipelines.products.summary import StageCosts


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
        collection=index_of(predicted),
        cube_snapshot=predicted.get("snapshot", ""),
        model_hash=predicted.get("model_hash", ""),
        issued_utc=predicted.get("issued_utc", ""),
        target_utc=tuple(predicted.get("target_utc", ())),
        even_if_worse=predicted.get("even_if_worse", False),
        even_if_confounded=predicted.get("even_if_confounded", False),
    )
    summary = Summary(
        name=run.name,
        task=run.task,
        sentence=" ".join([findings.sentence, *trained.notes(folder, is_evaluated=evaluation is not None)[:1]]),
        trained=dict(trained.used_record(folder)),
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
        costs=costs_of(folder, task.stages),
        refused=tuple(Refusal(**refusal) for refusal in ingested.get("refused", ())),
        cube_snapshot=made.get("snapshot", ""),
        model_hash=made.get("model_hash", ""),
        config_hash=config_hash(run),
        driftline_version=code_version(),
        started_utc=records[0]["at_utc"] if records else "",
        privacy=privacy_of(run),
    )
    write_summary(summary, folder.summary)


def costs_of(folder: RunFolder, stages: Sequence[str]) -> tuple[StageCosts, ...]:
    """What each stage was planned to take, and took, as far as that is known."""
    from pipelines.products.summary import Cost, StageCosts

    def cost(figures: Mapping[str, float | None]) -> Cost:
        return Cost(*(figures.get(name) for name in FIGURES))

    rows = read_costs(folder)
    return tuple(
        StageCosts(
            stage,
            cost(row["actual"]),
            None if row.get("planned") is None else cost(row["planned"]),
            int(row.get("past_runs", 0)),
            str(row.get("at_utc", "")),
        )
        for stage in stages
        if (row := rows.get(stage)) is not None
    )


def index_of(predicted: Record) -> str:
    """The file that lists the others: a STAC collection, of volumes a plain index; "" where nothing is published."""
    volumes, products = "products/index.json", predicted.get("products", ())
    return "" if not products else volumes if volumes in products else "products/collection.json"


def write_report_of(content: ReportContent) -> None:
    from pipelines.products.report import Report, write_report
    from pipelines.products.summary import read_summary
    from pipelines.products.track_index import tracks_section
    from pipelines.products.training_sections import training_section

    folder, evaluation, predicted, findings = content.context.folder, content.evaluation, content.predicted, content.findings
    with tempfile.TemporaryDirectory(dir=folder.path, prefix=".report-") as drafts:
        networks = (finished(folder, "train") or {}).get("training", {}).get("members", [])
        sections = [
            *content.task.sections(content.context, evaluation, predicted, Path(drafts)),
            training_section(networks, Path(drafts)),
            tracks_section(folder.path),
        ]
        written = Report(
            summary=read_summary(folder.summary),
            sections=[section for section in sections if not section.is_empty],
            cube=findings.cube,
            settings=findings.settings,
            notes=[
                *trained.notes(folder, is_evaluated=evaluation is not None),
                *publication_notes(evaluation, predicted),
                *altered_notes(folder, predicted),
                *privacy_notes(privacy_of(content.context.run)),
                *(evaluation.notes if evaluation else ()),
                *findings.notes,
            ],
            config_yaml=folder.config.read_text(encoding="utf-8"),
        )
        write_report(written, folder.report)


def publication_notes(evaluation: Evaluation | None, predicted: Record) -> list[str]:
    """What a reader must see first: whether the verdict and what is published go together."""
    if evaluation is None or evaluation.verdict.is_publishable:
        return []
    if by := ", ".join(evaluation.verdict.confounded_by):
        known = f"CONFOUNDED: {by} gives the labels away as well as the model does"
        return [f"{known}. This was published all the same (--even-if-confounded)." if predicted else f"{known}. Not published."]
    if predicted:
        return ["This was published although the model does not beat what it must beat (--even-if-worse)."]
    return ["This model was not published: it does not beat what it must beat."]


def altered_notes(folder: RunFolder, predicted: Record) -> list[str]:
    """A product that another program wrote into, as a viewer may on opening it, stays until the next `run` makes it anew."""
    name = first_altered(folder, predicted)
    return [f"{name} was changed after it was published."] if name else []


def privacy_notes(statement: str) -> list[str]:
    """A line on images of patients: that they were read as they are, or that their dates are not the true ones."""
    if statement in (METADATA_ALONE, AS_THEY_ARE):
        return [f"The images were {statement}."]
    moved = "; if they have dates, all are moved by the same number of days" if not statement.startswith("not ") else ""
    return [f"The images of patients were {statement}{moved}."] if statement else []
