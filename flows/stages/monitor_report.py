"""What a watch left, in numbers and on one page: `summary.json` and `report.html`."""

from __future__ import annotations

from typing import Any

from configs.load import config_hash
from flows.folder import STAGES, code_version, finished, read_json, require
from flows.invocation import Invocation
from flows.stages.report import cube_facts
from flows.stages.reported import close_report
from flows.steps import read_records, stage_costs

MOST_LARGEST = 50
LEAST_FOUND, ENOUGH_PIXELS = 0.5, 20


def report(invocation: Invocation) -> dict[str, Any]:
    """Writes both. Raises MissingInput if nothing has been watched yet."""
    folder, steps = invocation.folder, invocation.steps
    require(folder, "monitor", "monitor")
    summary = steps.do("report", "write the summary", lambda progress: summarise(invocation))
    steps.do("report", "write the report", lambda progress: write_page(invocation, summary))
    close_report(invocation)
    return {"message": f"report: {folder.report}", "lines": product_lines(invocation), "report": str(folder.report)}


def product_lines(invocation: Invocation) -> list[str]:
    """Where things lie, for a person."""
    folder = invocation.folder
    places = {
        "report": folder.report,
        "picture": folder.quicklook,
        "map": folder.products / "change_date.tif",
        "patches": folder.products / "changes.gpkg",
        "alerts": folder.alerts,
        "summary": folder.summary,
    }
    return [f"{what + ':':<9} {path}" for what, path in places.items() if path.exists()]


def read_evaluation(invocation: Invocation) -> dict[str, Any]:
    """What `driftline evaluate` measured; empty if it has not been called."""
    path = invocation.folder.evaluation
    return read_json(path, "run `driftline evaluate CONFIG`") if path.exists() else {}


def summarise(invocation: Invocation) -> Any:
    import geopandas
    from pipelines.products.change_summary import ChangeSummary, write_change_summary

    from pipelines.products.summary import Stage

    run, folder = invocation.run, invocation.folder
    record, evaluation = require(folder, "monitor", "monitor"), read_evaluation(invocation)
    patches = geopandas.read_parquet(folder.products / "changes.parquet").drop(columns="geometry")
    dates = {"first_date": patches["first_date"].min(), "last_date": patches["last_date"].max()} if len(patches) else {}
    # patches of older versions do not count them
    recovered = {"pixels_recovered": int(patches["recovered_px"].sum())} if "recovered_px" in patches else {}
    costs, records = stage_costs(folder.steps), read_records(folder.steps)
    alert_log = read_json(folder.alerts, "run `driftline monitor CONFIG`")
    summary = ChangeSummary(
        name=run.name,
        task=run.task,
        stages=tuple(Stage(name, costs[name]["seconds"], costs[name]["peak_mb"]) for name in STAGES if name in costs),
        products={"folder": str(folder.products), "files": record["products"]},
        shipped=evaluation.get("shipped", ""),
        verdict=evaluation.get("sentence", record["message"]),
        criteria=criteria_of(run, evaluation),
        methods=evaluation.get("methods", {}),
        found={**record["change"], **recovered, "area_m2": float(patches["area_m2"].sum()), **dates},
        largest=tuple(patches.head(MOST_LARGEST).to_dict("records")),
        alerts=tuple(alert_log["alerts"]),
        computed=computed_of(record),
        evaluation=evaluation,
        refused=tuple((finished(folder, "ingest") or {}).get("refused", ())),
        cube_snapshot=record["snapshot"],
        model_hash=record["detector"],
        config_hash=config_hash(run),
        driftline_version=code_version(),
        started_utc=records[0]["at_utc"] if records else "",
    )
    write_change_summary(summary, folder.summary)
    return summary


def computed_of(record: dict[str, Any]) -> dict[str, Any]:
    """What the last look did, and what was not as it should be."""
    degraded = {"degraded": "; ".join(record["degraded"])} if record["degraded"] else {}
    facts = {name: record[name] for name in ("dates", "until", "threshold", "model")}
    return {**record["counts"], **facts, **degraded}


def write_page(invocation: Invocation, summary: Any) -> None:
    from pipelines.products.change_report import ChangeReportInput, monitoring_table, write_change_report

    from pipelines.cube.history import describe
    from pipelines.products.page import Picture

    run, folder = invocation.run, invocation.folder
    record = require(folder, "monitor", "monitor")
    described = describe(folder.cube_uri)
    maps = [
        Picture(
            folder.quicklook, "What changed", "Before and after, with the changed pixels outlined; when, how much, confidence."
        ),
        Picture(
            folder.animation, "As it became known", "Changed pixels from the date of their alarm on, coloured by date of change."
        ),
    ]
    series = [
        Picture(
            folder.path / "series.png",
            "What the largest patches show",
            "All usable observations of the pixel with the strongest evidence, what was expected of it, and when the alarm came.",
        )
    ]
    curves = [
        Picture(
            folder.path / "growth.png",
            "Changed area over time",
            "Pixels of the patches, by their date of change and by that of their alarm.",
        )
    ]
    tables = [monitoring_table(summary.methods, run.evaluation.drops, summary.shipped)] if summary.methods else []
    tables += [seen_table(summary.evaluation)] if summary.evaluation.get("pairs") else []
    test = run.monitoring.test
    settings = {
        "watched": f"{run.variable.name}, from {run.monitoring.start:%Y-%m-%d}",
        "expected": f"{record['model']} curve, learnt from what lies before",
        "test": f"{test.kind}, {test.direction}, drift {test.drift:g}, cap {test.cap:g}",
        "threshold": round(float(record["threshold"]), 3),
        "false alarms aimed at": f"{test.false_alarms:g} per 1000 stable pixels and year"
        if test.threshold is None
        else "threshold set by hand",
    }
    write_change_report(
        ChangeReportInput(
            summary=summary,
            config_yaml=folder.config.read_text(encoding="utf-8"),
            cube=cube_facts(described),
            settings=settings,
            tables=tables,
            maps=[picture for picture in maps if picture.path.exists()],
            series=[picture for picture in series if picture.path.exists()],
            curves=[picture for picture in curves if picture.path.exists()],
            notes=[*record["notes"], *summary.evaluation.get("notes", [])],
        ),
        folder.report,
    )


def seen_table(evaluation: dict[str, Any]) -> Any:
    """What each method found of the change that the images themselves show, the rules for pairs of seasons among them."""
    from pipelines.products.change_report import Column, Table

    rows = []
    for name, scores in evaluation["details"]["methods"].items():
        found = {f"found_{year}": seen["found"] for year, seen in scores.get("seen_in_images", {}).items()}
        rows.append({"method": name, "false_alarms": (scores.get("false_alarms") or {}).get("per_1000_px_year"), **found})
    rows += [{"method": f"{name.replace('_', ' ')}, season against season", **row} for name, row in evaluation["pairs"].items()]
    years = sorted({key for row in rows for key in row if key.startswith("found_")})
    columns = [
        Column("method", "method", "text"),
        Column("false_alarms", "false alarms per 1000 px and year", "number", "low"),
        *[Column(year, f"change of {year.removeprefix('found_')}: found", "share", "high") for year in years],
    ]
    note = (
        "Pixels whose season level first fell (or rose) beyond the limit in that year. The rules for pairs compare two seasons "
        "with the automatic thresholds of their literature (Otsu, chi square) and know no date."
    )
    return Table("Change that the images show", columns, rows, note=note, strong=[evaluation["shipped"]])


def criteria_of(run: Any, evaluation: dict[str, Any]) -> tuple[Any, ...]:
    """What the config asks for: no more false alarms than `monitoring.test.false_alarms`; and that it is not deaf.

    Silence alone is no merit: half of the largest drop, and half of what the images show, is the least that a watch must find.
    """
    from pipelines.products.change_summary import Criterion

    from flows.stages.monitor_evaluate import seen_of

    figures = evaluation.get("methods", {}).get(evaluation.get("shipped", ""), {})
    if figures.get("false_alarms") is None:
        return ()
    requested = run.monitoring.test.false_alarms
    criteria = [Criterion("false alarms per 1000 stable pixels and year", figures["false_alarms"], requested, "at most")]
    largest = f"{max(run.evaluation.drops, default=0):g}"
    if figures.get(f"found_{largest}") is not None:
        criteria.append(Criterion(f"drops of {largest} found", figures[f"found_{largest}"], LEAST_FOUND))
    seen = seen_of(evaluation["details"]["methods"][evaluation["shipped"]])
    if seen["pixels"] >= ENOUGH_PIXELS:
        criteria.append(Criterion("change that the images show found", seen["found"] / seen["pixels"], LEAST_FOUND))
    return tuple(criteria)
