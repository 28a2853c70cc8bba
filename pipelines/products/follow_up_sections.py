"""Sections of the report on patients that are followed, and its sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.follow_up.change_score import METHODS
from pipelines.follow_up.events import EVENTS
from pipelines.learning.result import Evaluation
from pipelines.products.json_values import Json
from pipelines.products.section import Column, Picture, Section, Table

NAMES = {"proposal": "proposal", "differencing": "simple differencing"}
CAPTION = "Before, after, and the score of change; the patient's left is on the right."
FIGURES = {
    "dice": "Dice",
    "lesion_f1": "lesion-wise F1",
    "sensitivity": "lesions detected",
    "precision": "found lesions that are true",
    "false_lesions": "false lesions",
    "volume_difference_ml": "volume, found minus reference [ml]",
}


def follow_up_sentence(name: str, patients: Mapping[str, Json], evaluation: Evaluation | None) -> str:
    """What was found in all patients, and how well change is found, in a sentence or two."""
    measured = ""
    if evaluation is not None:
        ours = evaluation.methods[evaluation.shipped]
        if ours["lesion_f1"] is not None and ours["dice"] is not None:
            measured = f" Change is found with a lesion-wise F1 of {ours['lesion_f1']:.3f} and a Dice of {ours['dice']:.3f}."
    if not patients:
        return f"No lesions of {name} are published.{measured}"
    if len(patients) == 1:
        return f"{next(iter(patients.values()))['sentence']}{measured}"
    counts = {event: sum(facts["events"][event] for facts in patients.values()) for event in EVENTS}
    shown = ", ".join(f"{count} {event}" for event, count in counts.items() if count) or "none"
    return f"{name}: lesions of {len(patients)} patients: {shown}.{measured}"


def lesions_section(patients: Mapping[str, Json], largest: list[Json], products: Path, decisions: str) -> Section:
    """Counts by event, volumes, the lesions that change most, links to the pages; pictures lie in `products`."""
    rows = [
        {
            "patient": name,
            **facts["events"],
            "before": f"{facts['volume_before_ml']:.3f}",
            "after": f"{facts['volume_after_ml']:.3f}",
            "confirmed": facts["decided"]["confirmed"],
            "moved": facts["decided"]["moved"],
            "rejected": facts["decided"]["rejected"],
        }
        for name, facts in patients.items()
    ]
    columns = [
        Column("patient", "patient", "text"),
        *(Column(event, event, "whole") for event in EVENTS),
        Column("before", "lesions at the first visit [ml]", "text"),
        Column("after", "at the last [ml]", "text"),
        *(Column(name, name, "whole") for name in ("confirmed", "moved", "rejected")),
    ]
    note = f"A row of a table is a lesion and a pair of visits. Decisions of readers are read from {decisions}."
    tables = [Table("Patients", columns, rows, note)]
    if largest:
        named = [Column("patient", "patient", "text"), Column("lesion", "lesion", "whole"), Column("event", "event", "text")]
        named += [
            Column("visits", "visits", "text"),
            Column("change_ml", "change [ml]"),
            Column("axial_mm", "axial diameter [mm]"),
        ]
        named += [Column("place_mm", "position x, y, z [mm]", "text"), Column("status", "status", "text")]
        tables.append(Table("Lesions that change most", named, largest))
    if lost := [f"{name}: {text}" for name, facts in patients.items() for text in facts["unmatched"]]:
        rows = [{"decision": text} for text in lost]
        tables.append(Table("Decisions that find no lesion", [Column("decision", "decision", "text")], rows))
    pictures = [
        Picture(
            path,
            f"{name}: lesions that change most",
            "Before, after, and the score of change; the patient's left is on the right.",
        )
        for name in patients
        if (path := products / f"{name}-key-images.png").is_file()
    ]
    links = {f"products/{name}.html": f"{name}: tables, pictures, decisions" for name in patients}
    return Section("lesions", "Lesions", links=links, tables=tables, pictures=pictures)


def agreement_section(evaluation: Evaluation) -> Section:
    """Proposal and simple differencing against the reference, for each patient, with intervals."""
    details = evaluation.details
    rows = [
        {
            "patient": name,
            "method": NAMES[method],
            "threshold": f"{details['thresholds'][name][method]:.2f}",
            **{key: _shown(figures[method][key], key) for key in FIGURES},
        }
        for name, figures in details["patients"].items()
        for method in METHODS
    ]
    columns = [Column("patient", "patient", "text"), Column("method", "method", "text"), Column("threshold", "threshold", "text")]
    columns += [Column(key, title, "text") for key, title in FIGURES.items()]
    reference = [{"patient": name, **one} for name, one in details["reference"].items()]
    known = [Column("patient", "patient", "text"), Column("lesions", "lesions of the reference", "whole")]
    known.append(Column("volume_ml", "their volume [ml]"))
    note = f"In brackets: {100 * evaluation.verdict.confidence:g} % intervals over the places of change of that patient."
    tables = [Table("Agreement with the reference", columns, rows, note), Table("Reference", known, reference)]
    return Section("agreement", "Change against the reference", [evaluation.protocol], tables=tables)


def _shown(one: Mapping[str, Any], key: str) -> str:
    digits = 0 if key == "false_lesions" else 3
    if one["value"] is None:
        return "–"
    between = "" if one["low"] is None else f" ({one['low']:.{digits}f} to {one['high']:.{digits}f})"
    return f"{one['value']:.{digits}f}{between}"
