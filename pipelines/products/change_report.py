"""One HTML file that tells what changed, readable anywhere: no network, no scripts, pictures inside.

Both ways of asking share it: watching a site (`task: monitor`) and labelled pairs (`task: change`). A section without content is
left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.products.change_summary import ChangeSummary, Criterion
from pipelines.products.labels import latest_run_first, method_label, name_facts
from pipelines.products.page import Picture, is_there, render_page, shown, when, write_page

MOST_ROWS = 25
MOST_SITES = 6  # in a table of other figures, so that it fits a page; more have tables of their own


@dataclass(frozen=True)
class Column:
    """`kind`: text, name (text that is not broken), number, share (a part of one, as percent), days, date, area (m²), see
    `shown`. `better`: high, low or "" (no best one).
    """

    key: str
    title: str
    kind: str = "number"
    better: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of figures; missing and None are dashes. `strong` names rows (by their first column) that are set in bold."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    note: str = ""
    strong: Sequence[str] = ()


@dataclass(frozen=True)
class ChangeReportInput:
    """What the report shows beside the summary.

    `maps`, `series` and `curves` are pictures: what changed, what the pixels say, and how well it is known. `tables` are the
    figures, the most important one first (see `monitoring_table`, `label_table`); `cube` are facts to list, for several sites
    name -> facts. `settings` are the few that a reader must know (threshold, false alarms aimed at); all are in
    `config_yaml`. `notes` are sentences that must be seen first.
    """

    summary: ChangeSummary
    config_yaml: str = ""
    cube: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    maps: Sequence[Picture] = ()
    series: Sequence[Picture] = ()
    curves: Sequence[Picture] = ()
    notes: Sequence[str] = ()


LARGEST = (
    Column("site", "site", "name"), Column("id", "patch", "name"), Column("area_m2", "area", "area"),
    Column("median_date", "changed", "date"), Column("detected", "alarm", "date"), Column("magnitude", "magnitude"),
    Column("direction", "direction", "text"), Column("confidence", "confidence", "sure"), Column("lon", "longitude", "degrees"),
    Column("lat", "latitude", "degrees"),
)  # fmt: skip
ALERTS = (
    Column("number", "alert", "whole"), *LARGEST[1:6], LARGEST[7], Column("standing", "still there", "text"),
    Column("told", "told", "text"),
)  # fmt: skip
PLACES = (
    Column("site", "site", "text"), Column("from_utc", "from", "date"), Column("to_utc", "to", "date"),
    Column("seen", "seen", "share"), Column("changed", "called changed", "share"), Column("patches", "patches", "whole"),
    Column("area_m2", "area of the patches", "area"),
)  # fmt: skip


def monitoring_table(methods: Mapping[str, Mapping[str, Any]], drops: Sequence[float], shipped: str) -> Table:
    """The methods of monitoring side by side. Keys of a method: false_alarms, found_DROP and delay_DROP (days; `found_0.2`)."""
    columns = [Column("method", "method", "text"), Column("false_alarms", "false alarms per 1000 px and year", "number", "low")]
    for drop in drops:
        columns.append(Column(f"found_{drop:g}", f"drop {drop:g}: found", "share", "high"))
        columns.append(Column(f"delay_{drop:g}", "median delay", "days", "low"))
    rows = [{"method": name, **figures} for name, figures in methods.items()]
    return Table("False alarms in stable pixels, and breaks that were put in", columns, rows, strong=[shipped])


def label_table(methods: Mapping[str, Mapping[str, Any]], sites: Sequence[str], shipped: str) -> Table:
    """The methods for labelled change side by side, leaving groups out. Keys: f1, spread, precision, recall, iou, f1_PLACE ..."""
    columns = [
        Column("method", "method", "text"), Column("f1", "F1, pooled", "number", "high"),
        Column("spread", "± over seeds", "number"), Column("precision", "precision", "number", "high"),
        Column("recall", "recall", "number", "high"), Column("iou", "IoU", "number", "high"),
        Column("average_precision", "average precision", "number", "high"),
        *[Column(f"f1_{site}", f"F1 {site}", "number", "high") for site in sites],
    ]  # fmt: skip
    rows = [{"method": name, **figures} for name, figures in methods.items()]
    used = [column for column in columns if column.kind == "text" or any(row.get(column.key) is not None for row in rows)]
    return Table("Each group of sites left out in turn", used, rows, strong=[shipped])


def label_tables(methods: Mapping[str, Mapping[str, Any]], sites: Sequence[str], shipped: str) -> list[Table]:
    """`label_table`; where there are many sites, their F1 in tables of their own, which fit a page."""
    if len(sites) <= MOST_SITES:
        return [label_table(methods, sites, shipped)]
    rows = [{"method": name, **figures} for name, figures in methods.items()]
    wide = 2 * MOST_SITES - 3
    tables = [label_table(methods, [], shipped)]
    for first in range(0, len(sites), wide):
        columns = [Column(f"f1_{site}", site, "number", "high") for site in sites[first : first + wide]]
        title = "F1 per site" if first == 0 else "F1 per site, continued"
        tables.append(Table(title, [Column("method", "method", "text"), *columns], rows, strong=[shipped]))
    return tables


def area_table(areas: Mapping[str, Mapping[str, Any]], confidence: float) -> Table:
    """Changed area per site. Keys of a site: mapped_m2, labelled_m2, sampled, estimate {value, low, high}."""
    columns = [
        Column("site", "site", "text"), Column("mapped_m2", "called changed when judged", "area"),
        Column("value", "estimated from a sample", "area"), Column("low", "at least", "area"), Column("high", "at most", "area"),
        Column("labelled_m2", "labelled changed", "area"), Column("sampled", "pixels sampled", "whole"),
    ]  # fmt: skip
    rows = [{"site": name, **area, **(area.get("estimate") or {})} for name, area in areas.items()]
    note = (
        "Called changed with a threshold that was chosen without the site, as for the F1 above; the published maps are made "
        "with the shipped threshold, so their area (Sites) is another. "
        f"Estimates with {confidence:.0%} confidence, error-adjusted after Olofsson et al. 2014."
    )
    return Table("Changed area, as judged", columns, rows, note)


def write_change_report(content: ChangeReportInput, path: Path) -> None:
    """Writes the report in one rename."""
    write_page(render_change_report(content), path)


def render_change_report(content: ChangeReportInput) -> str:
    """The report as one HTML text."""
    summary = content.summary
    sites = [{"site": name, **facts} for name, facts in summary.sites.items()]
    return render_page(
        "change_report.html",
        content,
        tone=tone_of(summary.criteria),
        headline=headline(summary.criteria),
        tables=[(labelled(table), best_of(table)) for table in content.tables],
        alerts=alert_table(summary.alerts),
        largest=Table("", used_columns(LARGEST, summary.largest), summary.largest[:MOST_ROWS]),
        patches=count_patches(summary),
        found=name_facts(summary.found),
        sites=Table("", used_columns(PLACES, sites), sites, sites_note(summary)),
    )


def labelled(table: Table) -> Table:
    """The table with its methods in words."""
    rows = [{**row, "method": method_label(row["method"])} if "method" in row else row for row in table.rows]
    return replace(table, rows=rows, strong=[method_label(name) for name in table.strong])


def count_patches(summary: ChangeSummary) -> int:
    """How many patches there are; `summary.largest` has the first few of them only."""
    counts = (summary.found.get(key) for key in ("patches", "objects"))  # labelled change, a watch
    return max(next((count for count in counts if isinstance(count, int)), 0), len(summary.largest))


def sites_note(summary: ChangeSummary) -> str:
    """Which threshold the maps of the sites were made with, where another one was judged."""
    threshold = summary.computed.get("threshold")
    if threshold is None or not summary.evaluation.get("area"):
        return ""
    return (
        f"With the shipped threshold ({shown(threshold, 'number')}), which was chosen on all labelled sites together. What is "
        "judged below is judged with thresholds chosen without the site, so areas and F1 differ from those of the maps."
    )


def alert_table(alerts: Sequence[Mapping[str, Any]]) -> Table:
    """See `latest_run_first`. `notify` of an alert is block -> time it was told at, "" where that is still to come."""
    rows = []
    for alert in latest_run_first(alerts):
        notified = [f"{block}: {when(at)[:16] if at else 'not yet'}" for block, at in (alert.get("notify") or {}).items()]
        standing = {True: "yes", False: "no", None: None}[alert.get("is_standing")]
        rows.append({**alert, "told": ", ".join(notified) or None, "standing": standing})
    return Table("", used_columns(ALERTS, rows), rows[:MOST_ROWS])


def used_columns(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Those columns of which some row has a value."""
    return [column for column in columns if any(is_there(row.get(column.key)) for row in rows)]


def tone_of(criteria: Sequence[Criterion]) -> str:
    """`good` if every mark is met, `bad` if none, else `unsure`; also where nothing was asked for."""
    met = [criterion.is_met for criterion in criteria]
    return "unsure" if not met or (any(met) and not all(met)) else "good" if all(met) else "bad"


def headline(criteria: Sequence[Criterion]) -> str:
    """How many marks are met, in words; "" where none were set."""
    met = sum(criterion.is_met for criterion in criteria)
    if not criteria:
        return ""
    if met == len(criteria):
        return "Every mark is met." if met > 1 else "The mark is met."
    return f"{met} of {len(criteria)} marks are met." if met else "No mark is met."


def best_of(table: Table) -> dict[str, float]:
    """The best value of each column that has one, where there are at least two to choose from."""
    best = {}
    for column in table.columns:
        values = [row[column.key] for row in table.rows if is_there(row.get(column.key))]
        if column.better and len(values) > 1:
            best[column.key] = max(values) if column.better == "high" else min(values)
    return best
