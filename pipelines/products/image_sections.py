"""Sections of the report on drawn images, and its sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.learning.cpu_clock import CPU_SECONDS
from pipelines.learning.image_evaluation import facts_of
from pipelines.learning.result import Evaluation
from pipelines.products.canvas import INK, MUTED, drawing, tidy, title
from pipelines.products.charts import COLOURS, GREY
from pipelines.products.image_products import COMPLETED, NEW
from pipelines.products.json_values import Json
from pipelines.products.section import Column, Picture, Section, Table

METHODS = (
    Column("method", "method", "text"), Column("nats", "nats per image", "number", "low"), Column("nats_low", "from"),
    Column("nats_high", "to"), Column("standard_error", "standard error"),
    Column("bits_per_dimension", "bits per dimension", "number", "low"),
)  # fmt: skip


def image_sentence(name: str, predicted: Json, evaluation: Evaluation | None) -> str:
    """How many images were drawn, and how probable test images are, in one sentence."""
    measured = ""
    if evaluation is not None:
        reached = evaluation.details["methods"][evaluation.shipped]
        known = "" if reached["low"] is None else f" ({reached['low']:.2f} to {reached['high']:.2f})"
        new = {"no": "not seen in training", "yes": "seen in training"}.get(evaluation.details.get("seen", "no"))
        measured = f"{reached['value']:.2f}{known} nats per image on {evaluation.details['images']} images "
        measured += new or "that may have been seen in training"
    if not predicted:
        return f"No images of {name} are published{'; ' + measured if measured else ''}."
    drawn = f"{predicted['images']} new images, {predicted['completed']} test images completed"
    return f"{name}: {drawn}{'; ' + measured if measured else ''}."


def drawn_section(predicted: Json, folder: Path) -> Section:
    """What was drawn, with pictures in `folder`."""
    pictures = [Picture(folder / "quicklook.png", "New images", "Each pixel is drawn given those before it, in raster order.")]
    usual = "" if predicted["usual_px"] is None else f", test images {predicted['usual_px']:.0f}"
    caption = (
        f"A copy would differ in few pixels. New images differ from the nearest training image in {predicted['nearest_px']:.0f} "
        f"pixels in the median{usual}."
    )
    pictures.append(Picture(folder / "products" / NEW, "New images and the training images nearest to them", caption))
    if predicted["completed"]:
        caption = "The given rows are kept as they are; the others are drawn, several times."
        pictures.append(Picture(folder / "products" / COMPLETED, "Test images completed from their upper rows", caption))
    return Section("images", "Images", pictures=pictures)


def scores_section(evaluation: Evaluation) -> Section:
    """Methods side by side, on the same images."""
    rows = [{"method": name, **figures} for name, figures in evaluation.methods.items()]
    note = "The interval leaves out whole groups of images in turn; the standard error takes images as independent."
    tables = [Table("Methods", METHODS, rows, note, strong=[evaluation.shipped])]
    return Section("scores", "Scores on test images", [evaluation.protocol], facts_of(evaluation.details), tables=tables)


def curve_section(members: Sequence[Mapping[str, Any]], evaluation: Evaluation | None, drafts: Path) -> Section:
    """Nats per image of the validation part against CPU time; drawn into `drafts`."""
    rows = [row for one in members for row in one.get("curve", ()) if row.get(CPU_SECONDS) is not None]
    if len(rows) < 2:
        return Section("curve", "Nats against CPU time")
    draw_cost(rows, evaluation, drafts / "cost.png")
    last = rows[-1]
    caption = (
        f"{last[CPU_SECONDS] / 60:.1f} minutes of CPU in all, validation counted. Lines: references on the test part."
        if evaluation
        else f"{last[CPU_SECONDS] / 60:.1f} minutes of CPU in all, validation counted."
    )
    return Section("curve", "Nats against CPU time", pictures=[Picture(drafts / "cost.png", "Nats per image", caption)])


def draw_cost(rows: Sequence[Mapping[str, float]], evaluation: Evaluation | None, path: Path) -> None:
    """Writes a PNG: the curve over CPU minutes, and what references reach."""
    with drawing(path, (6.2, 3.3)) as figure:
        axes = figure.subplots()
        minutes = [row[CPU_SECONDS] / 60 for row in rows]
        axes.plot(minutes, [row["validation_loss"] for row in rows], "o-", color=COLOURS[0], lw=1.3, ms=3.5, label="validation")
        others = {} if evaluation is None else {k: v for k, v in evaluation.methods.items() if k != evaluation.shipped}
        for (name, figures), colour in zip(others.items(), (*COLOURS[1:6], GREY), strict=False):
            axes.axhline(float(figures["nats"] or 0), color=colour, lw=1, ls="--", label=name)
        if evaluation is not None:
            reached = float(evaluation.methods[evaluation.shipped]["nats"] or 0)
            axes.plot([minutes[-1]], [reached], "D", color=INK, ms=5, label="test")
        axes.set_xlabel("minutes of CPU", color=MUTED)
        title(axes, "Nats per image")
        axes.legend(frameon=False, fontsize=8)
        tidy(axes)
