"""Sections of the report about what was measured on held-out blocks and time: errors, intervals, and the split itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.calendar import format_span
from pipelines.products.curves import draw_blocks, draw_coverage, draw_errors, draw_skill
from pipelines.products.page import percent, when
from pipelines.products.section import Column, Picture, Section, Table
from pipelines.products.tables import lead_tables
from pipelines.samples.audit import Audit
from pipelines.samples.plan import WindowPlan

OUTCOMES = {"beats": "model is better", "loses": "model is worse"}


def scores_section(details: Mapping[str, Any], shipped: str, protocol: str, drafts: Path) -> Section:
    """Errors by lead and skill against every baseline. `details`: metrics and skill, as in evaluation.json."""
    content = {**details, "model": shipped}
    draw_errors(content, drafts / "errors.png")
    draw_skill(content, drafts / "skill.png")
    pictures = [Picture(drafts / "errors.png", "Errors by lead"), Picture(drafts / "skill.png", "Skill against every baseline")]
    tables = [skill_table(details["skill"]), *lead_tables(details["metrics"], shipped)]
    return Section("scores", "Scores on held-out blocks and held-out time", [protocol], pictures=pictures, tables=tables)


def skill_table(skill: Mapping[str, Any]) -> Table:
    """Error saved by the model against each baseline, over all leads."""
    columns = [
        Column("method", "baseline", "text"),
        Column("saved", "error saved by the model", "text"),
        Column("interval", "interval", "text"),
        Column("outcome", "outcome", "text"),
    ]
    rows = [_skill_row(name, of_baseline["overall"]) for name, of_baseline in skill.items()]
    return Table("Skill against every baseline", columns, rows)


def _skill_row(name: str, overall: Mapping[str, Any]) -> dict[str, str]:
    interval = f"{percent(overall['low'])} to {percent(overall['high'])}"
    outcome = OUTCOMES.get(overall["outcome"], overall["outcome"])
    return {"method": name, "saved": percent(overall["skill"]), "interval": interval, "outcome": outcome}


def intervals_section(measured: Mapping[str, Any] | None, drafts: Path) -> Section:
    """Coverage and width of the prediction intervals; an empty section where there are none."""
    if not measured:
        return Section("intervals", "Prediction intervals")
    draw_coverage(dict(measured), drafts / "coverage.png")
    overall, leads = measured["overall"], measured["by_lead"]
    text = [
        f"Nominal coverage {measured['nominal']:.0%}, measured {overall['coverage']:.1%} of held-out pixels; mean width "
        f"{overall['mean_width']:.3g}; calibrated on {measured['calibration_dates']} dates."
    ]
    if not measured["is_bounded"]:
        text.append("Those are too few dates for the nominal coverage: the largest error seen is used instead.")
    columns = [Column("what", "steps ahead", "text"), *[Column(str(lead["lead"]), f"{lead['lead']}") for lead in leads]]
    rows = [
        {"what": title, **{str(lead["lead"]): lead[key] for lead in leads}}
        for key, title in (("coverage", "coverage"), ("mean_width", "mean width"))
    ]
    picture = Picture(drafts / "coverage.png", "Coverage of the intervals")
    return Section("intervals", "Prediction intervals", text, pictures=[picture], tables=[Table("", columns, rows)])


def split_section(plan: WindowPlan, audit: Audit, drafts: Path) -> Section:
    """What was trained on and what was held out, as the audit of the windows found it."""
    tiles = sorted({(window.tile, window.part) for window in plan.windows})
    draw_blocks(tiles, plan.shape_yx, drafts / "split.png")
    text = ["The audit found no pixel-date of a test window in a training window."] if audit.ok else list(audit.problems)
    columns = [
        Column("part", "part", "text"),
        Column("windows", "windows", "whole"),
        Column("issue_dates", "issue dates", "whole"),
        Column("share_of_raster", "share of area", "share"),
        Column("targets", "target dates", "text"),
    ]
    rows = [{"part": part, **row, "targets": _period(row["targets_from_to"])} for part, row in audit.facts["parts"].items()]
    picture = Picture(drafts / "split.png", "Blocks of the split")
    title = "What was trained on, what was held out"
    return Section("split", title, text, audit_facts(audit), pictures=[picture], tables=[Table("", columns, rows)])


def audit_facts(audit: Audit) -> dict[str, Any]:
    """What was compared, label -> value; spans of days in words: a gap of 0.0035 days is 5 minutes."""
    shared = {f"pixel-dates in both {key.replace('_', ' and ')}": n for key, n in audit.facts["shared_pixel_dates"].items()}
    spans = {key: "–" if days is None else format_span(days) for key, days in audit.facts["least_gap_days"].items()}
    gaps = {f"least gap {key.replace('_', ' ')}": span for key, span in spans.items()}
    return {**shared, "least distance in pixels": audit.facts["least_distance_px"], **gaps}


def _period(dates: list[str] | None) -> str:
    return " to ".join(when(date) for date in dates) if dates else ""
