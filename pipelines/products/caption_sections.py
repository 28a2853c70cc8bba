"""Sections of the report on sentences about samples, and its sentence."""

from __future__ import annotations

from pathlib import Path

from pipelines.learning.result import Evaluation
from pipelines.products.charts import draw_reliability
from pipelines.products.json_values import Json
from pipelines.products.label_sections import folds_tables
from pipelines.products.section import Column, Picture, Section, Table

METHODS = (
    Column("method", "method", "text"), Column("exact", "exact match", "number", "high"), Column("exact_low", "from"),
    Column("exact_high", "to"), Column("bleu4", "BLEU", "number", "high"),
)  # fmt: skip
SHOWN = (
    Column("sample", "sample", "name"), Column("caption", "caption", "text"), Column("probability", "probability", "share"),
    Column("certainty", "certainty", "text"), Column("known", "known", "text"),
)  # fmt: skip
COUNTS = (Column("what", "samples", "text"), Column("samples", "number", "whole"))


def caption_sentence(name: str, predicted: Json, evaluation: Evaluation | None) -> str:
    """How many sentences were written, and how good they are, in one sentence."""
    measured = ""
    if evaluation is not None:
        exact = evaluation.details["methods"][evaluation.shipped]["exact"]
        known = "" if exact["low"] is None else f" ({exact['low']:.3f} to {exact['high']:.3f})"
        value = "undefined" if exact["value"] is None else f"{exact['value']:.3f}"
        measured = f"exact match {value}{known} on {evaluation.verdict.unit} that the model had not seen"
    if not predicted:
        return f"No captions of {name} are published{'; ' + measured if measured else ''}."
    sure = f"{predicted['uncertain']} of them uncertain"
    return f"{name}: {predicted['answered']} samples described, {sure}{'; ' + measured if measured else ''}."


def captions_section(predicted: Json, folder: Path) -> Section:
    """Some sentences, with a picture in `folder`."""
    caption = "From the surest to the least sure; tested samples by networks that have not seen their group."
    text = [
        f"A caption with a probability below {predicted['least_probability']:g} is uncertain: {predicted['uncertain']} of "
        f"{predicted['answered']}. All are in products/captions.csv, with the second likeliest."
    ]
    pictures = [Picture(folder / "quicklook.png", "Samples and their captions", caption)]
    return Section("answers", "Captions", text, pictures=pictures, tables=[Table("Captions", SHOWN, predicted["shown"])])


def scores_section(evaluation: Evaluation, drafts: Path) -> Section:
    """Methods, slots, calibration, and how samples were divided; curves are drawn into `drafts`."""
    details, shipped = evaluation.details, evaluation.shipped
    ours, sure = details["methods"][shipped], details["sure"]
    slots = [Column(f"slot_{name}", name, "number", "high") for name in ours["slots"]]
    rows = [{"method": name, **figures} for name, figures in evaluation.methods.items()]
    note = "Of a slot: the share of sentences that say of it what the known one says." if slots else ""
    tables = [Table("Methods", [*METHODS, *slots], rows, note, strong=[shipped])]
    shares = [
        {"what": f"probability of at least {sure['least_probability']:g}", "samples": sure["sure"], "exact": sure["sure_exact"]},
        {"what": "below: uncertain", "samples": sure["unsure"], "exact": sure["unsure_exact"]},
    ]
    tables.append(Table("Sure and uncertain captions", [*COUNTS, Column("exact", "exact match")], shares))
    draw_reliability(
        ours["reliability"]["bins"], drafts / "reliability.png", "share that match exactly", "the caption", "samples"
    )
    off = f"off by {ours['reliability']['expected_error']:.3f} on average."
    caption = f"The words' temperature was fitted on other groups; {off}"
    pictures = [Picture(drafts / "reliability.png", "Probability of captions against how many match", caption)]
    tables += folds_tables(details)
    return Section("scores", "Scores in groups left out", [evaluation.protocol], pictures=pictures, tables=tables)


def labels_section(evaluation: Evaluation) -> Section:
    """The captions that were used and left out."""
    labels = evaluation.details["labels"]
    rows = [{"what": name, "samples": number} for name, number in labels["classes"].items()]
    rows += [{"what": f"left out: {reason}", "samples": number} for reason, number in labels["dropped"].items() if number]
    return Section("audit", "Labels", tables=[Table("Known captions", COUNTS, rows)])
