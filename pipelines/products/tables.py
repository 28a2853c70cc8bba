"""The tables of the report: rows of summary.json and evaluation.json with titles, kinds of value and what is best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipelines.products.labels import latest_run_first, method_label
from pipelines.products.page import is_there, when
from pipelines.products.section import Column, Table

MOST_ROWS = 25
MOST_SITES = 6  # in a table of other figures, so that it fits a page; more have tables of their own
METRICS = {"mae": "MAE", "rmse": "RMSE", "bias": "bias", "ssim": "SSIM"}

PATCHES = (
    Column("site", "site", "name"), Column("id", "patch", "name"), Column("area_m2", "area", "area"),
    Column("median_date", "changed", "date"), Column("detected", "alarm", "date"), Column("magnitude", "magnitude"),
    Column("direction", "direction", "text"), Column("confidence", "confidence", "sure"), Column("lon", "longitude", "degrees"),
    Column("lat", "latitude", "degrees"),
)  # fmt: skip
ALERTS = (
    Column("number", "alert", "whole"), *PATCHES[1:6], PATCHES[7], PATCHES[8], PATCHES[9],
    Column("standing", "still there", "text"), Column("notified", "notified", "text"),
)  # fmt: skip
SITES = (
    Column("site", "site", "text"), Column("from_utc", "from", "date"), Column("to_utc", "to", "date"),
    Column("seen", "observed", "share"), Column("changed", "mapped as changed", "share"), Column("patches", "patches", "whole"),
    Column("area_m2", "area of the patches", "area"),
)  # fmt: skip

# ---------------------------------------------------------------- methods


def lead_tables(metrics: Mapping[str, Mapping[str, Any]], shipped: str) -> list[Table]:
    """Overall errors of every method, then each metric by lead, the shipped one first. `metrics[name]`: {overall, by_lead}."""
    order = [name for name in (shipped, *metrics) if name in metrics]
    names = list(dict.fromkeys(order))
    shown = [metric for metric in METRICS if any(metrics[name]["overall"].get(metric) is not None for name in names)]
    columns = [Column(metric, METRICS[metric], "number", _better(metric)) for metric in shown]
    rows = [{"method": name, **{metric: metrics[name]["overall"].get(metric) for metric in shown}} for name in names]
    tables = [Table("Errors over all leads", [Column("method", "method", "text"), *columns], rows, strong=[shipped])]
    return tables + [_by_lead(metrics, names, metric, shipped) for metric in shown if metric != "bias"]


def _by_lead(metrics: Mapping[str, Mapping[str, Any]], names: Sequence[str], metric: str, shipped: str) -> Table:
    leads = [lead["lead"] for lead in metrics[names[0]]["by_lead"]]
    columns = [Column(str(lead), f"{lead}", "number", _better(metric)) for lead in leads]
    rows = [{"method": name, **{str(lead["lead"]): lead.get(metric) for lead in metrics[name]["by_lead"]}} for name in names]
    return Table(f"{METRICS[metric]} by steps ahead", [Column("method", "steps ahead", "text"), *columns], rows, strong=[shipped])


def _better(metric: str) -> Any:
    return {"ssim": "high", "bias": ""}.get(metric, "low")


def monitoring_table(methods: Mapping[str, Mapping[str, Any]], drops: Sequence[float], shipped: str) -> Table:
    """The methods of monitoring side by side. Keys of a method: false_alarms, found_DROP and delay_DROP (days; `found_0.2`)."""
    columns = [Column("method", "method", "text"), Column("false_alarms", "false alarms per 1000 px and year", "number", "low")]
    for drop in drops:
        columns.append(Column(f"found_{drop:g}", f"drop {drop:g}: found", "share", "high"))
        columns.append(Column(f"delay_{drop:g}", "median delay", "days", "low"))
    return labelled(Table("False alarms in stable pixels, and simulated breaks", columns, _rows(methods), strong=[shipped]))


def label_table(methods: Mapping[str, Mapping[str, Any]], sites: Sequence[str], shipped: str) -> Table:
    """The methods for labelled change side by side, leaving groups out. Keys: f1, spread, precision, recall, iou, f1_SITE ..."""
    columns = [
        Column("method", "method", "text"), Column("f1", "F1, pooled", "number", "high"),
        Column("spread", "± over seeds", "number"), Column("precision", "precision", "number", "high"),
        Column("recall", "recall", "number", "high"), Column("iou", "IoU", "number", "high"),
        Column("average_precision", "average precision", "number", "high"),
        *[Column(f"f1_{site}", f"F1 {site}", "number", "high") for site in sites],
    ]  # fmt: skip
    rows = _rows(methods)
    used = [column for column in columns if column.kind == "text" or any(row.get(column.key) is not None for row in rows)]
    return labelled(Table("Each group of sites left out in turn", used, rows, strong=[shipped]))


def label_tables(methods: Mapping[str, Mapping[str, Any]], sites: Sequence[str], shipped: str) -> list[Table]:
    """`label_table`; where there are many sites, their F1 in tables of their own, which fit a page."""
    if len(sites) <= MOST_SITES:
        return [label_table(methods, sites, shipped)]
    wide = 2 * MOST_SITES - 3
    tables = [label_table(methods, [], shipped)]
    for first in range(0, len(sites), wide):
        columns = [Column(f"f1_{site}", site, "number", "high") for site in sites[first : first + wide]]
        title = "F1 per site" if first == 0 else "F1 per site, continued"
        table = Table(title, [Column("method", "method", "text"), *columns], _rows(methods), strong=[shipped])
        tables.append(labelled(table))
    return tables


def area_table(areas: Mapping[str, Mapping[str, Any]], confidence: float) -> Table:
    """Changed area per site. Keys of a site: mapped_m2, labelled_m2, sampled, estimate {value, low, high}."""
    columns = [
        Column("site", "site", "text"), Column("mapped_m2", "mapped when evaluated", "area"),
        Column("value", "estimated from a sample", "area"), Column("low", "at least", "area"), Column("high", "at most", "area"),
        Column("labelled_m2", "labelled changed", "area"), Column("sampled", "pixels sampled", "whole"),
    ]  # fmt: skip
    rows = [{"site": name, **area, **(area.get("estimate") or {})} for name, area in areas.items()]
    note = (
        "Mapped with a threshold that was chosen without the site, as for the F1 above; the published maps use the shipped "
        f"threshold, so their area differs. Estimates with {confidence:.0%} confidence, error-adjusted (Olofsson et al. 2014)."
    )
    return Table("Changed area, as evaluated", columns, rows, note)


def labelled(table: Table) -> Table:
    """The table with the names of its methods as labels for people."""
    rows = [{**row, "method": method_label(row["method"])} for row in table.rows]
    return replace(table, rows=rows, strong=[method_label(name) for name in table.strong])


def _rows(methods: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"method": name, **figures} for name, figures in methods.items()]


# ---------------------------------------------------------------- what was found


def patch_table(rows: Sequence[Mapping[str, Any]], count: int | None = None) -> Table:
    """The largest patches; `count`: how many there are in all."""
    kept = rows[:MOST_ROWS]
    total = max(count or 0, len(rows))
    note = f"The first {len(kept)} of {total}; all of them are in the polygon files." if total > len(kept) else ""
    return Table("", used_columns(PATCHES, rows), kept, note)


def alert_table(alerts: Sequence[Mapping[str, Any]]) -> Table:
    """Alerts of the latest run first. `notify` of an alert: block -> time at which it was notified, "": not yet."""
    rows = list(_alert_rows(alerts))
    note = f"The first {MOST_ROWS} of {len(rows)}: those of the latest run first; all are in alerts.json."
    return Table("", used_columns(ALERTS, rows), rows[:MOST_ROWS], note if len(rows) > MOST_ROWS else "")


def _alert_rows(alerts: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for alert in latest_run_first(alerts):
        notified = [f"{block}: {when(at)[:16] if at else 'not yet'}" for block, at in (alert.get("notify") or {}).items()]
        standing = {True: "yes", False: "no", None: None}[alert.get("is_standing")]
        yield {**alert, "notified": ", ".join(notified) or None, "standing": standing}


def site_table(sites: Mapping[str, Mapping[str, Any]], note: str = "") -> Table:
    """The sites of labelled change, as published."""
    rows = [{"site": name, **facts} for name, facts in sites.items()]
    return Table("", used_columns(SITES, rows), rows, note)


def used_columns(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Those columns of which some row has a value."""
    return [column for column in columns if any(is_there(row.get(column.key)) for row in rows)]
