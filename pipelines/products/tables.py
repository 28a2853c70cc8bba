"""The tables of the report: rows of summary.json and evaluation.json with titles, kinds of value and what is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pipelines.calendar import format_span
from pipelines.cube.history import describe
from pipelines.products.json_values import Json
from pipelines.products.report import is_there, when
from pipelines.products.section import Column, Table

MOST_ROWS = 25
FEWEST_COVERED = 5  # dates of the table of those that are covered least
MOST_SITES = 6  # in a table of other figures, so that it fits a page; more have tables of their own
METRICS = {"mae": "MAE", "rmse": "RMSE", "bias": "bias", "ssim": "SSIM"}
BETTER: Mapping[str, Literal["high", "low", ""]] = {"mae": "low", "rmse": "low", "bias": "", "ssim": "high"}
METHODS = {
    "difference": "difference to the same season", "three_low": "three low in a row", "harmonic_mosum": "harmonic MOSUM",
    "harmonic_ewma": "harmonic EWMA", "harmonic_cusum": "harmonic CUSUM",
}  # fmt: skip
TESTS = ("cusum", "mosum", "ewma")
STANDING = {True: "yes", False: "no", None: None}
METHOD = Column("method", "method", "text")

PATCHES = (
    Column("site", "site", "name"), Column("id", "patch", "name"), Column("area_m2", "area", "area"),
    Column("median_date", "changed (median)", "date"), Column("detected", "alarm", "date"), Column("magnitude", "magnitude"),
    Column("direction", "direction", "text"), Column("confidence", "confidence", "sure"),
    Column("probability", "probability", "share"), Column("score", "mean score"), Column("lon", "longitude", "degrees"),
    Column("lat", "latitude", "degrees"),
)  # fmt: skip
NUMBER, NOTIFIED = Column("number", "alert", "whole"), Column("notified", "notified", "text")
ALERTS = (NUMBER, *PATCHES[1:6], *PATCHES[7:], Column("standing", "still there", "text"), NOTIFIED)
SITES = (
    Column("site", "site", "text"), Column("from_utc", "from", "date"), Column("to_utc", "to", "date"),
    Column("seen", "observed", "share"), Column("changed", "mapped as changed", "share"), Column("patches", "patches", "whole"),
    Column("area_m2", "area of the patches", "area"),
)  # fmt: skip


def lead_tables(metrics: Mapping[str, Json], shipped: str) -> list[Table]:
    """Overall errors of every method, then each metric by lead, the shipped one first. `metrics[name]`: {overall, by_lead}."""
    names = list(dict.fromkeys(name for name in (shipped, *metrics) if name in metrics))
    used = [metric for metric in METRICS if any(metrics[name]["overall"].get(metric) is not None for name in names)]
    columns = [Column(metric, METRICS[metric], "number", BETTER[metric]) for metric in used]
    rows = [{"method": name, **metrics[name]["overall"]} for name in names]
    tables = [Table("Errors over all leads", [METHOD, *columns], rows, strong=[shipped])]
    leads = [lead["lead"] for lead in metrics[names[0]]["by_lead"]]
    for metric in (metric for metric in used if metric != "bias"):
        columns = [Column("method", "steps ahead", "text")]
        columns += [Column(str(lead), f"{lead}", "number", BETTER[metric]) for lead in leads]
        rows = [{"method": name, **{str(lead["lead"]): lead.get(metric) for lead in metrics[name]["by_lead"]}} for name in names]
        tables.append(Table(f"{METRICS[metric]} by steps ahead", columns, rows, strong=[shipped]))
    return tables


def event_tables(scores: Json, shipped: str) -> list[Table]:
    """CSI, FSS and bias of every method at each threshold over all leads, then CSI and FSS by lead."""
    names = list(dict.fromkeys(name for name in (shipped, *scores["methods"]) if name in scores["methods"]))
    square = f"{scores['near_px']} x {scores['near_px']} pixels"
    note = (
        "Events are values of at least the threshold. Counts are pooled over valid pixels and dates, the same for all methods; "
        f"FSS compares shares of events in squares of {square}; bias above 1: too large an area. The interval of CSI is from "
        f"{scores['dates']} target dates drawn again, as if they were independent."
    )
    tables = []
    for number, threshold in enumerate(scores["thresholds"]):
        of = f"at least {threshold:g} {scores['unit']}".strip()
        found = {name: scores["methods"][name][number] for name in names}
        columns = [
            METHOD, Column("csi", "CSI", "number", "high"), Column("csi_low", "from"), Column("csi_high", "to"),
            Column("fss", "FSS", "number", "high"), Column("bias", "bias"), Column("events", "events", "whole"),
        ]  # fmt: skip
        rows = [{"method": name, **found[name]["overall"]} for name in names]
        tables.append(Table(f"Events of {of}", columns, rows, strong=[shipped], note="" if number else note))
        for score in ("csi", "fss"):
            leads = [lead["lead"] for lead in found[names[0]]["by_lead"]]
            columns = [Column("method", "steps ahead", "text"), *[Column(str(k), f"{k}", "number", "high") for k in leads]]
            rows = [{"method": name, **{str(lead["lead"]): lead[score] for lead in found[name]["by_lead"]}} for name in names]
            tables.append(Table(f"{score.upper()} of {of} by steps ahead", columns, rows, strong=[shipped]))
    return tables


def interval_table(methods: Mapping[str, Json], shipped: str) -> Table:
    """The intervals of every method on the same pixels, beside those of the past's values and of constant errors."""
    columns = [
        METHOD, Column("coverage", "covered, pooled", "share"), Column("coverage_mean_of_dates", "mean of dates", "share"),
        Column("mean_width", "mean width", "number", "low"), Column("interval_score", "interval score", "number", "low"),
        Column("crps", "CRPS", "number", "low"),
    ]  # fmt: skip
    note = (
        "climatological: quantiles of each pixel's past values in the season; constant: quantiles of the network's errors on "
        "validation. "
        "The interval score adds to the width 2 / (1 - level) times how far the truth lies outside; CRPS: twice the "
        "mean pinball loss of the quantiles of all levels. Both in physical units, over all variables."
    )
    return Table("Intervals side by side", columns, _rows(methods), strong=[shipped], note=note)


def coverage_by_date(dates: Sequence[Json]) -> list[Table]:
    """The target dates of which the least is covered."""
    known = sorted((date for date in dates if date["coverage"] is not None), key=lambda date: float(date["coverage"]))
    if not known:
        return []
    columns = [
        Column("date", "target date", "text"), Column("coverage", "covered", "share"), Column("mean_width", "mean width"),
        Column("pixels", "pixels", "whole"),
    ]  # fmt: skip
    rows = [{**date, "date": str(date["date"]).removesuffix("T00:00:00")} for date in known[:FEWEST_COVERED]]
    return [Table("Dates that are covered least", columns, rows, note=f"{len(rows)} of {len(known)} test dates.")]


def monitoring_table(methods: Mapping[str, Json], drops: Sequence[float], shipped: str) -> Table:
    """The methods of monitoring side by side. Keys of a method: false_alarms, found_DROP and delay_DROP (days; `found_0.2`)."""
    columns = [METHOD, Column("false_alarms", "false alarms per 1000 px and year", "number", "low")]
    for drop in drops:
        columns.append(Column(f"found_{drop:g}", f"drop {drop:g}: found", "share", "high"))
        columns.append(Column(f"delay_{drop:g}", "median delay", "days", "low"))
    return labelled(Table("False alarms in stable pixels, and simulated breaks", columns, _rows(methods), strong=[shipped]))


def label_tables(methods: Mapping[str, Json], sites: Sequence[str], shipped: str) -> list[Table]:
    """The methods for labelled change side by side, leaving groups out. Keys: f1, spread, precision, recall, iou, f1_SITE ...

    Where there are many sites, their F1 stand in tables of their own, which fit a page.
    """
    rows, is_few = _rows(methods), len(sites) <= MOST_SITES
    of_sites = [Column(f"f1_{site}", f"F1 {site}" if is_few else site, "number", "high") for site in sites]
    columns = [
        METHOD, Column("f1", "F1, pooled", "number", "high"), Column("spread", "± over seeds", "number"),
        Column("precision", "precision", "number", "high"), Column("recall", "recall", "number", "high"),
        Column("iou", "IoU", "number", "high"), Column("average_precision", "average precision", "number", "high"),
    ]  # fmt: skip
    columns += of_sites if is_few else []
    used = [column for column in columns if column is METHOD or any(row.get(column.key) is not None for row in rows)]
    tables = [Table("Each group of sites or strips left out in turn", used, rows, strong=[shipped])]
    if not is_few:
        wide = 2 * MOST_SITES - 3
        parts = [of_sites[first : first + wide] for first in range(0, len(sites), wide)]
        titles = ["F1 per site", *["F1 per site, continued"] * (len(parts) - 1)]
        tables += [Table(title, [METHOD, *part], rows, strong=[shipped]) for title, part in zip(titles, parts, strict=True)]
    return [labelled(table) for table in tables]


def area_table(areas: Mapping[str, Json], confidence: float) -> Table:
    """Changed area per site. Keys of a site: mapped_m2, labelled_m2, sampled, estimate {value, low, high}."""
    columns = [
        Column("site", "site", "text"), Column("mapped_m2", "mapped when evaluated", "area"),
        Column("value", "estimated from a sample", "area"), Column("low", "at least", "area"), Column("high", "at most", "area"),
        Column("labelled_m2", "labelled changed", "area"), Column("sampled", "pixels sampled", "whole"),
    ]  # fmt: skip
    rows = [{"site": name, **area, **(area.get("estimate") or {})} for name, area in areas.items()]
    note = (
        "Mapped with a threshold that was chosen without the site or strip, as for F1 above; the published maps use the shipped "
        f"threshold, so their area differs. Estimates at {100 * confidence:g} % confidence, adjusted (Olofsson et al. 2014)."
    )
    return Table("Changed area, as evaluated", columns, rows, note)


def labelled(table: Table) -> Table:
    """The table with the names of its methods as labels for people; unknown names stay as they are."""

    def label_of(name: str) -> str:
        return METHODS.get(name) or " ".join(word.upper() if word in TESTS else word for word in name.split(" "))

    rows = [{**row, "method": label_of(row["method"])} for row in table.rows]
    return replace(table, rows=rows, strong=[label_of(name) for name in table.strong])


def _rows(methods: Mapping[str, Json]) -> list[Json]:
    return [{"method": name, **figures} for name, figures in methods.items()]


def patch_table(rows: Sequence[Json], count: int = 0, alerts: Sequence[Json] = ()) -> Table:
    """The largest patches with the alerts that they raised; `count`: how many patches there are in all."""
    of_patch = {alert["id"]: alert for alert in alerts}
    kept, total = [{**row, **_raised(of_patch.get(row["id"], {}))} for row in rows[:MOST_ROWS]], max(count, len(rows))
    note = f"The first {len(kept)} of {total}; all of them are in the polygon files." if total > len(kept) else ""
    return Table("", used_columns((*PATCHES, NUMBER, NOTIFIED), kept), kept, note)


def alert_table(alerts: Sequence[Json]) -> Table:
    """What the table of patches does not say: alerts that are new since an earlier run, and those whose patch is gone."""

    def order(alert: Json) -> tuple[int, float, int]:  # logs of older versions number no runs
        return -int(alert.get("look", 0)), -float(alert.get("area_m2") or 0.0), int(alert.get("number", 0))

    runs = [int(alert.get("look", 0)) for alert in alerts]
    new = max(runs) if len(set(runs)) > 1 else None
    told = [alert for alert in sorted(alerts, key=order) if alert.get("look") == new or alert.get("is_standing") is False]
    rows = [{**alert, **_raised(alert), "standing": STANDING[alert.get("is_standing")]} for alert in told]
    cut = f"The first {MOST_ROWS} of {len(rows)}. " if len(rows) > MOST_ROWS else ""
    note = f"{cut}New in the latest run, or their patch is gone; all alerts are in alerts.json."
    return Table("", used_columns(ALERTS, rows), rows[:MOST_ROWS], note)


def _raised(alert: Json) -> Json:
    """An alert's number and who was notified. `notify`: block -> when it was notified, "": not yet."""
    notified = [f"{block}: {when(at)[:16] if at else 'not yet'}" for block, at in (alert.get("notify") or {}).items()]
    return {"number": alert.get("number"), "notified": ", ".join(notified) or None}


def site_table(sites: Mapping[str, Json], note: str = "") -> Table:
    """The sites of labelled change, as published."""
    rows = [{"site": name, **facts} for name, facts in sites.items()]
    return Table("", used_columns(SITES, rows), rows, note)


def used_columns(columns: Sequence[Column], rows: Sequence[Json]) -> list[Column]:
    """Those columns of which some row has a value."""
    return [column for column in columns if any(is_there(row.get(column.key)) for row in rows)]


def cube_facts(uri: str, snapshot: str | None = None) -> dict[str, str]:
    """Label -> value of the cube's version `snapshot` (default: the newest); all of it is in `driftline info`."""
    cube = describe(uri, snapshot)
    shape, usable, grid = cube["shape"], cube["mean_valid_fraction"], cube["grid"]
    sizes = " x ".join(str(shape[dim]) for dim in ("z", "y", "x") if dim in shape)
    steps = " x ".join(f"{abs(step):g}" for step in grid.get("resolution_xy") or grid["spacing"])
    kind, unit = ("voxels" if "z" in shape else "pixels"), "" if "crs" in grid else f" {grid.get('image_plane', 'mm')}"
    dates = "frames" if cube["time_origin"] == "unknown" else "dates"
    first, last = (cube[end].replace("T", " ").removesuffix(" 00:00:00") for end in ("first", "last"))
    return {
        "cube": cube["uri"],
        "snapshot": cube["snapshot"],
        dates: f"{shape['time']}, {first} to {last}, {format_span(cube['median_step_days'])} apart",
        kind: f"{sizes} of {steps}{unit}",
        "bands": ", ".join(band["name"] for band in cube["bands"]),
        "usable share": f"{100 * usable:.0f} %" if usable is not None else "unknown",
    }
