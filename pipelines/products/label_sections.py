"""Sections of the report on labels and numbers of samples, and its sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.learning.result import Evaluation
from pipelines.products.charts import draw_reliability
from pipelines.products.class_charts import draw_confusion
from pipelines.products.class_sections import METHODS, between
from pipelines.products.json_values import Json
from pipelines.products.report_sections import shortcut_section
from pipelines.products.section import Column, Picture, Section, Table


def counts_of(item: str) -> Sequence[Column]:
    """Columns of a table of numbers of samples, or of steps."""
    return Column("what", f"{item}s", "text"), Column("samples", "number", "whole")


def label_sentence(name: str, predicted: Json, evaluation: Evaluation | None) -> str:
    """How many samples were answered, and how good the answers are, in one sentence."""
    measured = ""
    if evaluation is not None:
        reached = evaluation.details["methods"][evaluation.shipped]["accuracy"]
        known = "" if reached["low"] is None else f" ({reached['low']:.3f} to {reached['high']:.3f})"
        measured = f"accuracy {reached['value']:.3f}{known} on {evaluation.verdict.unit} that the model had not seen"
    if not predicted:
        return f"No labels of {name} are published{'; ' + measured if measured else ''}."
    counts = ", ".join(f"{n} {label}" for label, n in sorted(predicted["counts"].items(), key=lambda item: -item[1])[:5])
    if "spans" in predicted:
        counts = f"{predicted['spans']} spans of steps: {counts}"
    return f"{name}: {predicted['answered']} samples labelled ({counts}){'; ' + measured if measured else ''}."


def answers_section(predicted: Json, folder: Path) -> Section:
    """What was answered, with pictures in `folder`."""
    item = "step" if "spans" in predicted else "sample"
    rows = [{"what": label, "samples": count} for label, count in predicted.get("counts", {}).items()]
    first = "most wrong steps" if "spans" in predicted else "least sure answers"
    pictures = [Picture(folder / "quicklook.png", "Samples", f"The samples with the {first} come first.")]
    if (folder / "products" / "looked-at.png").is_file():
        caption = "Integrated gradients of one network: which pixels of which frames speak for the answer."
        pictures.append(Picture(folder / "products" / "looked-at.png", "What the network looked at", caption))
    if "map" in predicted:
        caption = f"{predicted['map']['answered']:.1%} of the pixels have a valid frame from {predicted['map']['span']}."
        pictures.insert(0, Picture(folder / "products" / "map.png", "Map", caption))
    return Section(
        "answers",
        "Answers",
        pictures=pictures,
        tables=[Table(f"{item.capitalize()}s by answer", counts_of(item), rows)] if rows else [],
    )


def scores_section(evaluation: Evaluation, drafts: Path) -> Section:
    """Methods, classes, confusion and calibration; curves are drawn into `drafts`."""
    details, shipped, unit = evaluation.details, evaluation.shipped, evaluation.verdict.unit
    item = details.get("item", "sample")
    ours = details["methods"][shipped]
    rows = [{"method": name, **figures} for name, figures in evaluation.methods.items()]
    figures = ("precision", "recall", "f1")
    columns = [Column("class", "class", "text"), Column("labels", f"{item}s", "whole"), Column("blocks", unit, "whole")]
    for key in figures:
        columns += [Column(key, key if key != "f1" else "F1"), Column(f"{key}_shown", "interval", "text")]
    classes = [{**row, **{f"{key}_shown": between(row, key) for key in figures}} for row in ours["classes"]]
    tables = [Table("Methods", METHODS, rows, strong=[shipped]), Table(f"Classes, {shipped}", columns, classes)]
    tables += folds_tables(details)
    draw_confusion(ours["confusion"], details["classes"], drafts / "confusion.png")
    pictures = [
        Picture(drafts / "confusion.png", "Confusion", f"Held-out {item}s: true class in rows, answered class in columns.")
    ]
    if reliability := ours.get("reliability"):
        named = "share really so", "the most likely class", f"{item}s"
        draw_reliability(reliability["bins"], drafts / "reliability.png", *named)
        caption = f"After calibration by temperature on other groups; off by {reliability['expected_error']:.3f} on average."
        pictures.append(Picture(drafts / "reliability.png", "Stated probability against what is true", caption))
    return Section("scores", f"Scores on {unit} left out", [evaluation.protocol], pictures=pictures, tables=tables)


def folds_tables(details: Mapping[str, Any]) -> Sequence[Table]:
    """How the samples were divided, and what single networks reach."""
    names = ("fold", "groups", "train", "validation", "test")
    columns = [Column(name, name, "whole") for name in names]
    return [Table("Folds", columns, details["folds"], "Groups: those that the fold tests.")]


def audit_section(evaluation: Evaluation) -> Section:
    """What metadata alone can say, and the samples that were used and dropped."""
    labels, audit = evaluation.details["labels"], evaluation.details["audit"]
    shortcuts = shortcut_section(audit) if audit else Section("audit", "Labels")
    rows = [{"what": name, "samples": number} for name, number in labels["classes"].items()]
    rows += [{"what": f"dropped: {reason}", "samples": number} for reason, number in labels["dropped"].items() if number]
    item = evaluation.details.get("item", "sample")
    tables = [*shortcuts.tables, Table(f"{labels['samples']} {item}s with an answer", counts_of(item), rows)]
    return Section("audit", "Shortcuts and labels" if audit else "Labels", shortcuts.text, tables=tables)
