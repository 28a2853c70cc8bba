"""Sections of the report on a class map, and its sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.learning.result import Evaluation
from pipelines.products.charts import draw_reliability
from pipelines.products.class_charts import draw_by_dates, draw_confusion
from pipelines.products.class_products import quicklook_name
from pipelines.products.json_values import Json
from pipelines.products.report import volume_text
from pipelines.products.report_sections import shortcut_section
from pipelines.products.section import Column, Picture, Section, Table
from pipelines.products.viewer import VIEWER

HECTARE_M2 = 1e4
AREAS = (
    Column("class", "class", "text"), Column("mapped_m2", "mapped", "area"), Column("value", "corrected", "area"),
    Column("low", "from", "area"), Column("high", "to", "area"), Column("labels", "held-out labels mapped so", "whole"),
)  # fmt: skip
VOLUMES = (
    Column("class", "class", "text"), Column("voxels", "voxels", "whole"), Column("mapped_mm3", "mapped", "volume"),
    Column("value", "corrected", "volume"), Column("low", "from", "volume"), Column("high", "to", "volume"),
    Column("labels", "held-out labels mapped so", "whole"),
)  # fmt: skip
PATCHES = (
    Column("class", "class", "text"), Column("id", "patch", "name"), Column("area_m2", "area", "area"),
    Column("confidence", "confidence", "share"), Column("lon", "longitude", "degrees"), Column("lat", "latitude", "degrees"),
)  # fmt: skip
METHODS = (
    Column("method", "method", "text"), Column("accuracy", "overall accuracy", "number", "high"), Column("accuracy_low", "from"),
    Column("accuracy_high", "to"), Column("balanced_accuracy", "balanced", "number", "high"),
    Column("mean_f1", "mean F1", "number", "high"), Column("calibration_error", "calibration error", "number", "low"),
)  # fmt: skip


def class_sentence(name: str, areas: Sequence[Json], span: str, evaluation: Evaluation | None) -> str:
    """What covers how much, and how sure, in one sentence."""
    measured = ""
    if evaluation is not None:
        reached = evaluation.details["methods"][evaluation.shipped]["accuracy"]
        share = f"{reached['value'] * 100:.0f}" if reached["value"] < 0.995 else f"{reached['value'] * 100:.1f}"
        measured = f"{share} % of the labels in blocks that the model had not seen are named rightly"
    if not areas:
        return f"No class map of {name} is published{'; ' + measured if measured else ''}."
    shown = [
        f"{row['class']} {_size(row, row['value'])}{_between_areas(row)}"
        for row in sorted(areas, key=lambda row: -row["value"])[:4]
    ]
    more = f" and {len(areas) - 4} more classes" if len(areas) > 4 else ""
    return f"{name}, {span}: {', '.join(shown)}{more}{'; ' + measured if measured else ', as mapped'}."


def _between_areas(row: Json) -> str:
    if row["low"] is None:
        return ""
    if "mapped_mm3" in row:
        return f" ({volume_text(row['low'])} to {volume_text(row['high'])})"
    return f" ({_hectares(row['low'])} to {_hectares(row['high'])})"


def _size(row: Json, value: float) -> str:
    return volume_text(value) if "mapped_mm3" in row else f"{_hectares(value)} ha"


def _hectares(area_m2: float) -> str:
    """`1850`, `12.3`: three digits, and all before the point."""
    hectares = area_m2 / HECTARE_M2
    return f"{hectares:.0f}" if hectares >= 100 else f"{hectares:.3g}"


def map_section(predicted: Json, folder: Path, confidence: float) -> Section:
    """The maps, areas of the classes and the largest patches; pictures lie in `folder`."""
    note = (
        "Mapped: by the mean of all networks. Corrected: what single networks map, with what the labels that each has not seen "
        f"say of each mapped class, and the {100 * confidence:g} % interval (Jeffreys in each mapped class, joined by MOVER). It "
        "holds as far as labels are a random sample of what is mapped so."
    )
    if "volumes" in predicted:
        caption = f"The class of every voxel in {predicted['span']}, and its calibrated probability, in the planes of the middle."
        tables = [Table("Volumes", VOLUMES, predicted["volumes"], note)]
        links = {f"products/{VIEWER}": "All slices, in the volume viewer"}
        shown = [Picture(folder / quicklook_name(""), "Class map", caption)]
        return Section("map", "Class map", pictures=shown, tables=tables, links=links)
    tables = [Table("Areas", AREAS, predicted["areas"], note), Table("The largest patches", PATCHES, predicted["largest"][:15])]
    caption = f"The class of every pixel in {predicted['span']}, and its calibrated probability."
    pictures = [Picture(folder / quicklook_name(site), site or "Class map", caption) for site in predicted["sites"] or [""]]
    return Section("map", "Class map", pictures=pictures, tables=tables)


def scores_section(evaluation: Evaluation, drafts: Path) -> Section:
    """Methods, classes, confusion, calibration, accuracy by dates; curves are drawn into `drafts`."""
    details, shipped = evaluation.details, evaluation.shipped
    ours = details["methods"][shipped]
    rows = [{"method": name, **figures} for name, figures in evaluation.methods.items()]
    figures = ("precision", "recall", "f1")
    columns = [Column("class", "class", "text"), Column("labels", "labels", "whole"), Column("blocks", "blocks", "whole")]
    for key in figures:
        columns += [Column(key, key if key != "f1" else "F1"), Column(f"{key}_shown", "interval", "text")]
    classes = [{**row, **{f"{key}_shown": between(row, key) for key in figures}} for row in ours["classes"]]
    tables = [Table("Methods", METHODS, rows, strong=[shipped]), Table(f"Classes, {shipped}", columns, classes)]
    draw_confusion(ours["confusion"], details["classes"], drafts / "confusion.png")
    pictures = [
        Picture(drafts / "confusion.png", "Confusion", "Held-out labels: true class in rows, predicted class in columns.")
    ]
    if reliability := ours.get("reliability"):
        named = "share really so", "the most likely class", "labels"
        draw_reliability(reliability["bins"], drafts / "reliability.png", *named)
        caption = f"After calibration by temperature on other blocks; off by {reliability['expected_error']:.3f} on average."
        pictures.append(Picture(drafts / "reliability.png", "Stated probability against what is true", caption))
    if len(details["by_dates"]) > 1:
        draw_by_dates(details["by_dates"], shipped, details["measure"], drafts / "dates.png")
        caption = f"{details['measure'].capitalize()} with the first dates only. References are fitted anew for each number."
        pictures.append(Picture(drafts / "dates.png", "Accuracy by dates seen", caption))
    return Section("scores", "Scores on blocks left out", [evaluation.protocol], pictures=pictures, tables=tables)


def audit_section(evaluation: Evaluation) -> Section:
    """What metadata alone can say, and the labels that were used and dropped."""
    labels = evaluation.details["labels"]
    audit = evaluation.details["audit"]
    shortcuts = shortcut_section(audit) if audit else Section("audit", "Labels")
    counts = [{"what": name, "labels": number} for name, number in labels["classes"].items()]
    dropped = [{"what": f"dropped: {reason}", "labels": number} for reason, number in labels["dropped"].items()]
    columns = (Column("what", "labels", "text"), Column("labels", "number", "whole"))
    spans = "; ".join(evaluation.details["spans"])
    tables = [
        *shortcuts.tables,
        Table(f"{labels['used']} of {labels['given']} labels used ({spans})", columns, [*counts, *dropped]),
    ]
    return Section("audit", "Shortcuts and labels" if audit else "Labels", shortcuts.text, tables=tables)


def between(row: Mapping[str, Any], key: str) -> str:
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return "–" if low is None or high is None else f"{low:.2f} to {high:.2f}"
