"""Sections of the report: what was measured of a forecast on held-out blocks and time; what changed in sites, how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.calendar import format_span
from pipelines.learning.result import COMBINATION, Evaluation, called, equal_text, members_text
from pipelines.products.charts import (
    draw_blocks,
    draw_coverage,
    draw_errors,
    draw_events,
    draw_f1,
    draw_interval_reliability,
    draw_reliability,
    draw_skill,
)
from pipelines.products.json_values import Json
from pipelines.products.patch_sentences import Told, told_table
from pipelines.products.predicted import PLANES
from pipelines.products.report import when
from pipelines.products.section import Column, Picture, Section, Table
from pipelines.products.tables import (
    area_table,
    coverage_by_date,
    event_tables,
    interval_table,
    label_tables,
    lead_tables,
    patch_table,
    site_table,
)
from pipelines.products.viewer import VIEWER
from pipelines.samples.audit import Audit
from pipelines.samples.plan import WindowPlan

MAP_CAPTION = (
    "Before and after with the change outlined, and how likely it is. F1 below the title: with every choice (the threshold too) "
    "made on other sites or strips. Figures on the last panel: of the map as published, with the shipped threshold."
)

CLUES = (
    Column("name", "metadata alone", "text"), Column("accuracy", "balanced accuracy"), Column("gap", "model minus metadata"),
    Column("low", "from"), Column("high", "to"), Column("said", "shortcut", "text"),
)  # fmt: skip


def maps_section(quicklook: Path, *, is_published: bool) -> Section:
    """The pictures of a forecast: maps, or of volumes the middle slice and the planes beside it."""
    drawn = {quicklook: "The forecast", quicklook.with_name(PLANES): "The last frame of the forecast, in three planes"}
    pictures = [Picture(path, text) for path, text in drawn.items() if is_published and path.exists()]
    title = "Slices" if len(pictures) > 1 else "Maps"
    viewer = quicklook.parent / "products" / VIEWER
    links = {f"products/{VIEWER}": "All frames and slices, in the volume viewer"} if is_published and viewer.exists() else {}
    return Section("maps", title, [] if pictures else ["No forecast is published."], pictures=pictures, links=links)


def scores_section(details: Json, shipped: str, protocol: str, drafts: Path) -> Section:
    """Errors by lead and skill against the other methods. `details`: metrics and skill, as in evaluation.json.

    The skill is that of the network and, where there is one, of the combination; what is published comes first and is drawn.
    """
    metrics, skills = with_names(details["metrics"]), {"network": details["skill"]}
    headings = {"network": "Skill of the network against every baseline"}
    if (combined := details.get("combined_skill")) is not None:
        skills[COMBINATION] = with_names(combined)
        headings[COMBINATION] = f"Skill of the combination, the mean of {members_text(details['choice']['members'])}"
    order = sorted(skills, key=lambda name: name != shipped)
    draw_errors(metrics, called(shipped), drafts / "errors.png")
    draw_skill(skills[order[0]], order[0], drafts / "skill.png")
    drawn = f"Skill of the {order[0]} against every {'other method' if order[0] == COMBINATION else 'baseline'}"
    pictures = [Picture(drafts / "errors.png", "Errors by lead"), Picture(drafts / "skill.png", drawn)]
    tables = [skill_table(headings[name], skills[name], name) for name in order]
    tables += lead_tables(metrics, called(shipped))
    text = [protocol, *([details["field_motion"]["sentence"]] if "field_motion" in details else [])]
    if equal := details.get("choice", {}).get("equal"):
        text.append(equal_text(equal))
    return Section("scores", "Scores on held-out blocks and held-out time", text, pictures=pictures, tables=tables)


def with_names(methods: Mapping[str, Any]) -> dict[str, Any]:
    """Methods under the names that people read."""
    return {called(name): found for name, found in methods.items()}


def skill_table(heading: str, skills: Mapping[str, Json], ours: str) -> Table:
    """How much smaller the error of `ours` is than that of each other method, with its interval."""
    titles = {
        "method": "other method" if ours == COMBINATION else "baseline",
        "saved": f"error reduction by the {ours}",
        "interval": "interval",
        "outcome": f"the {ours}",
    }
    rows = [
        {
            "method": name,
            "saved": percent(overall["skill"]),
            "interval": f"{percent(overall['low'])} to {percent(overall['high'])}",
            "outcome": overall["outcome"],
        }
        for name, overall in ((name, skill["overall"]) for name, skill in skills.items())
    ]
    return Table(heading, [Column(key, title, "text") for key, title in titles.items()], rows)


def events_section(scores: Json | None, shipped: str, drafts: Path) -> Section:
    """CSI, FSS and bias by lead and threshold; an empty section where the config names no thresholds."""
    if not scores:
        return Section("events", "Events")
    scores, shipped = {**scores, "methods": with_names(scores["methods"])}, called(shipped)
    draw_events(scores, shipped, drafts / "events.png")
    pictures = [Picture(drafts / "events.png", "Critical success index by lead")]
    return Section("events", "Events: where values reach a threshold", pictures=pictures, tables=event_tables(scores, shipped))


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f} %".replace("-", "−")


def intervals_section(measured: Json | None, shipped: str, drafts: Path) -> Section:
    """Coverage, width and scores of the prediction intervals; an empty section where there are none.

    Of runs of earlier versions `measured` holds only `overall` and `by_lead`.
    """
    if not measured:
        return Section("intervals", "Prediction intervals")
    draw_coverage(measured, drafts / "coverage.png")
    overall, leads = measured["overall"], measured["by_lead"]
    text = [
        f"Nominal coverage {100 * measured['nominal']:g} %, measured {100 * overall['coverage']:.1f} % of held-out pixels "
        f"({100 * overall['coverage_mean_of_dates']:.1f} % as the mean of dates); mean width {overall['mean_width']:.3g}; "
        f"calibrated on {measured['calibration_dates']} dates."
    ]
    if not measured["is_bounded"]:
        text.append("Those are too few dates for the nominal coverage: the largest error seen is used instead.")
    columns = [Column("what", "steps ahead", "text"), *[Column(str(lead["lead"]), f"{lead['lead']}") for lead in leads]]
    rows = [
        {"what": title, **{str(lead["lead"]): lead[key] for lead in leads}}
        for key, title in (("coverage", "coverage"), ("mean_width", "mean width"))
    ]
    pictures = [Picture(drafts / "coverage.png", f"Coverage of the intervals of {called(shipped)}")]
    tables = [Table("", columns, rows)]
    if "methods" in measured:
        shipped = called(shipped)
        draw_interval_reliability(with_names(measured["reliability"]), shipped, drafts / "interval-reliability.png")
        caption = f"Reliability: how much the intervals of {shipped} and of the others cover at every nominal level"
        pictures.append(Picture(drafts / "interval-reliability.png", caption))
        tables = [interval_table(with_names(measured["methods"]), shipped), *tables, *coverage_by_date(measured["by_date"])]
    return Section("intervals", "Prediction intervals", text, pictures=pictures, tables=tables)


def split_section(plan: WindowPlan, audit: Audit, drafts: Path) -> Section:
    """What was trained on and what was held out, as the audit of the windows found it."""
    tiles = sorted({(window.tile, window.part) for window in plan.windows})
    draw_blocks(tiles, plan.shape, drafts / "split.png")
    text = ["The audit found no pixel-date of a test window in a training window."] if audit.ok else list(audit.problems)
    columns = [
        Column("part", "part", "text"), Column("windows", "windows planned", "whole"),
        Column("issue_dates", "issue dates", "whole"), Column("share_of_raster", "share of area", "share"),
        Column("share_of_all", "share of raster x dates", "share"), Column("targets", "target dates", "text"),
    ]  # fmt: skip
    rows = [
        {"part": part, **row, "targets": " to ".join(when(date) for date in row["targets_from_to"] or ())}
        for part, row in audit.facts["parts"].items()
    ]
    picture, title = Picture(drafts / "split.png", "Blocks of the split"), "What was trained on, what was held out"
    return Section("split", title, text, audit_facts(audit), pictures=[picture], tables=[Table("", columns, rows)])


def audit_facts(audit: Audit) -> dict[str, Any]:
    """What was compared, label -> value; spans of days in words: a gap of 0.0035 days is 5 minutes."""
    shared = {f"pixel-dates in both {key.replace('_', ' and ')}": n for key, n in audit.facts["shared_pixel_dates"].items()}
    spans = {key: "–" if days is None else format_span(days) for key, days in audit.facts["least_gap_days"].items()}
    gaps = {f"least gap {key.replace('_', ' ')}": span for key, span in spans.items()}
    sizes = {"side of a block in pixels": audit.facts["block_px"], "buffer in pixels": audit.facts["buffer_px"]}
    return {**shared, **sizes, "least distance in pixels": audit.facts["least_distance_px"], **gaps}


def change_section(
    sites: Mapping[str, Json], largest: Sequence[Json], pictures: Mapping[str, Path], threshold: float, *, is_own: bool = True,
    told: Mapping[str, Told] | None = None,
) -> Section:  # fmt: skip
    """Maps, sites and largest patches. `sites`: name -> facts; `pictures`: site -> file; `threshold` of the published masks;
    `told`: site -> what sentences about its patches need.

    is_own: the model was trained by this run.
    """
    note = (
        f"With the shipped threshold ({threshold:.3f}), which was chosen on all labelled sites together. The figures under "
        "Evaluation have thresholds chosen without the site or strip, so areas and F1 differ from those of the maps."
    )
    caption = MAP_CAPTION
    if not is_own:
        note = f"With the threshold of the model ({threshold:.3f}), which was chosen where it was trained."
        caption = "Before and after with the change outlined, and how likely it is; the model was trained elsewhere."
    maps = [Picture(path, name, caption) for name, path in pictures.items() if path.exists()]
    patches = patch_table(largest, sum(facts["patches"] for facts in sites.values()))
    words = [told_table(largest, told)] if largest and told else []
    return Section("change", "What changed", pictures=maps, tables=[site_table(sites, note), *words, patches])


def evaluation_section(evaluation: Evaluation, drafts: Path, *, is_own: bool = True) -> Section:
    """Every method side by side, areas and curves; the curves are drawn into `drafts`."""
    details, shipped = evaluation.details, evaluation.shipped
    part = "strip" if details["note"] else "site"
    method = details["methods"][shipped]
    tables = label_tables(evaluation.methods, list(method["sites"]), shipped)
    if details["area"]:
        tables.append(area_table(details["area"], details["confidence"]))
    draw_f1(details["methods"], shipped, drafts / "f1.png")
    caption = (
        f"The threshold{' too' if is_own else ' of every index'} is chosen on other {part}s. Pooled over all pixels, with its "
        f"{details['confidence'] * 100:g} % interval ({method['f1_interval'].get('basis', 'blocks')}); "
        f"no method has seen the {part} that it is scored on."
    )
    curves = [Picture(drafts / "f1.png", "F1 of every method and site", caption)]
    if reliability := method.get("reliability"):
        draw_reliability([one for one in reliability["bins"] if one["pixels"]], drafts / "reliability.png")
        caption = (
            f"How often pixels that were given a probability have really changed, on {part}s that were left out. "
            f"Off by {reliability['expected_error']:.3f} on average."
        )
        curves.append(Picture(drafts / "reliability.png", "Stated probability against what happened", caption))
    return Section("evaluation", "Evaluation", text=[evaluation.protocol], pictures=curves, tables=tables)


def shortcut_section(audit: Json) -> Section:
    """What metadata alone reaches (`pipelines.learning.shortcuts`, as JSON)."""
    text = (
        "A random forest on metadata alone, on the same folds. It is a shortcut if its balanced accuracy is less than "
        f"{audit['near']:g} below the model's ({audit['model']:.3f}) and at least {audit['near']:g} above chance "
        f"({audit['chance']:.3f})."
    )
    rows = [{**clue, "said": _said(clue)} for clue in audit["clues"]]
    return Section("audit", "Shortcuts", [text], tables=[Table("", CLUES, rows)])


def _said(clue: Json) -> str:
    if clue["is_constant"]:
        return "no: the same for all labels"
    return "YES" if clue["is_shortcut"] else "cannot be excluded" if clue["could_be"] else "no"
