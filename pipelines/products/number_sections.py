"""Sections of the report on numbers of samples, and its sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.learning.result import Evaluation
from pipelines.products.json_values import Json
from pipelines.products.label_charts import draw_numbers
from pipelines.products.label_sections import folds_tables
from pipelines.products.section import Column, Picture, Section, Table

METHODS = (
    Column("method", "method", "text"), Column("mae", "mean absolute error", "number", "low"), Column("mae_low", "from"),
    Column("mae_high", "to"), Column("rmse", "root mean square error", "number", "low"), Column("r2", "R2", "number", "high"),
    Column("r2_low", "from"), Column("r2_high", "to"), Column("bias", "mean error"),
)  # fmt: skip


def number_sentence(name: str, predicted: Json, evaluation: Evaluation | None) -> str:
    """How many samples were answered, and how good the answers are, in one sentence."""
    measured = ""
    if evaluation is not None:
        ours, unit = evaluation.details["methods"][evaluation.shipped], evaluation.details["unit"]
        error = f"mean absolute error {ours['mae']['value']:.3g}{' ' + unit if unit else ''}, R2 {ours['r2']['value']:.3f}"
        measured = f"{error} on {evaluation.verdict.unit} that the model had not seen"
    if not predicted:
        return f"No numbers of {name} are published{'; ' + measured if measured else ''}."
    span = f"{predicted['number']} from {predicted['least']:.3g} to {predicted['most']:.3g}"
    return f"{name}: {predicted['answered']} samples, {span}{'; ' + measured if measured else ''}."


def scores_section(evaluation: Evaluation, drafts: Path) -> Section:
    """Methods, the interval, and held-out answers against what is known; the picture is drawn into `drafts`."""
    details, unit = evaluation.details, evaluation.verdict.unit
    rows = [{"method": name, **figures} for name, figures in evaluation.methods.items()]
    interval = details["interval"]
    note = (
        f"Interval of {interval['confidence']:.0%}: plus or minus {interval['half_width']:.3g}, the quantile of held-out errors; "
        f"it holds {interval['held']:.1%} of the samples of {unit} that it was not made from."
    )
    known_P, answer_P = np.asarray(details["known"]), np.asarray(details["answered"])
    draw_numbers(known_P, answer_P, drafts / "numbers.png", details["number"], unit)
    picture = Picture(drafts / "numbers.png", "Answered against known", f"Each dot is a sample; its {unit} were left out.")
    tables = [Table("Methods", METHODS, rows, note, strong=[evaluation.shipped]), *folds_tables(details)]
    return Section("scores", f"Scores on {unit} left out", [evaluation.protocol], pictures=[picture], tables=tables)
