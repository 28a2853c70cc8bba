"""Sections of the report on boxes, and its sentence."""

from __future__ import annotations

from pathlib import Path

from pipelines.learning.result import Evaluation
from pipelines.products.json_values import Json
from pipelines.products.label_sections import folds_tables
from pipelines.products.section import Column, Picture, Section, Table

METHODS = (
    Column("method", "method", "text"), Column("ap50", "mean AP50", "number", "high"), Column("ap50_low", "from"),
    Column("ap50_high", "to"), Column("ap50_any", "AP50 of any class", "number", "high"),
    Column("precision", "precision", "number", "high"), Column("recall", "recall", "number", "high"),
)  # fmt: skip
COUNTS = (Column("what", "boxes", "text"), Column("boxes", "number", "whole"))


def box_sentence(name: str, predicted: Json, evaluation: Evaluation | None) -> str:
    """How many boxes were found, and how good they are, in one sentence."""
    measured = ""
    if evaluation is not None:
        reached = evaluation.details["methods"][evaluation.shipped]["ap50"]
        known = "" if reached["low"] is None else f" ({reached['low']:.3f} to {reached['high']:.3f})"
        value = "undefined" if reached["value"] is None else f"{reached['value']:.3f}"
        measured = f"mean AP50 {value}{known} in groups that the model had not seen"
    if not predicted:
        return f"No boxes of {name} are published{'; ' + measured if measured else ''}."
    counts = ", ".join(f"{n} {label}" for label, n in sorted(predicted["counts"].items(), key=lambda item: -item[1])[:5])
    found = f"{predicted['boxes']} boxes in {predicted['answered']} samples"
    return f"{name}: {found}{' (' + counts + ')' if counts else ''}{'; ' + measured if measured else ''}."


def boxes_section(predicted: Json, folder: Path) -> Section:
    """What was found, with a picture in `folder`."""
    rows = [{"what": label, "boxes": count} for label, count in predicted["counts"].items()]
    caption = "Samples evenly over those with boxes; boxes of tested samples by networks that have not seen their group."
    pictures = [Picture(folder / "quicklook.png", "Samples", caption)]
    return Section("answers", "Boxes", pictures=pictures, tables=[Table("Boxes by class", COUNTS, rows)] if rows else [])


def scores_section(evaluation: Evaluation) -> Section:
    """Methods, classes, and how samples were divided."""
    details, shipped = evaluation.details, evaluation.shipped
    rows = [{"method": name, **figures} for name, figures in evaluation.methods.items()]
    note = f"Precision and recall: of boxes as published, with a score of at least {details['least_score']:g}."
    columns = [Column("class", "class", "text"), Column("known", "known boxes", "whole")]
    for key, text in (("ap50", "AP50"), ("precision", "precision"), ("recall", "recall")):
        columns += [Column(key, text), Column(f"{key}_shown", "interval", "text")]
    classes = []
    for row in details["methods"][shipped]["classes"]:
        figures = {key: row[key]["value"] for key in ("ap50", "precision", "recall")}
        shown = {f"{key}_shown": _interval(row[key]) for key in figures}
        classes.append({"class": row["class"], "known": row["known"], **figures, **shown})
    tables = [Table("Methods", METHODS, rows, note, strong=[shipped]), Table(f"Classes, {shipped}", columns, classes)]
    return Section("scores", "Scores in groups left out", [evaluation.protocol], tables=[*tables, *folds_tables(details)])


def _interval(figure: Json) -> str:
    if figure["low"] is None or figure["high"] is None:
        return str(figure["reason"])
    return f"{figure['low']:.3f} to {figure['high']:.3f}"


def labels_section(evaluation: Evaluation) -> Section:
    """The boxes that were used and left out."""
    labels = evaluation.details["labels"]
    rows = [{"what": name, "boxes": number} for name, number in labels["classes"].items()]
    rows += [{"what": f"left out: {reason}", "boxes": number} for reason, number in labels["dropped"].items() if number]
    return Section("audit", "Labels", tables=[Table(f"Known boxes in {labels['samples']} samples", COUNTS, rows)])
