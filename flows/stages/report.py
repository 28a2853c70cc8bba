"""What a run left, in numbers and on one page: `summary.json` and `report.html`."""

from typing import Any

from configs.load import config_hash
from flows.folder import STAGES, RunFolder, code_version, finished, read_json, require
from flows.invocation import Invocation
from flows.steps import read_records, stage_costs


def report(invocation: Invocation) -> dict[str, Any]:
    """Writes both, also for a model that was not published. Raises MissingInput if the run has not been evaluated."""
    folder, steps = invocation.folder, invocation.steps
    require(folder, "evaluate", "evaluate")
    summary = steps.do("report", "write the summary", lambda progress: summarise(invocation))
    steps.do("report", "write the report", lambda progress: write_page(invocation, summary))
    record = finished(folder, "predict") or {"products": []}
    return {"message": f"report: {folder.report}", "lines": product_lines(folder, record), "report": str(folder.report)}


def summarise(invocation: Invocation) -> Any:
    from pipelines.products.summary import Stage, Summary, write_summary

    run, folder = invocation.run, invocation.folder
    evaluation = read_json(folder.evaluation, "run `driftline evaluate CONFIG`")
    ingested, predicted = finished(folder, "ingest") or {}, current_prediction(invocation)
    costs = stage_costs(folder.steps)
    stages = tuple(Stage(name, costs[name]["seconds"], costs[name]["peak_mb"]) for name in STAGES if name in costs)
    records = read_records(folder.steps)
    summary = Summary(
        name=run.name,
        task=run.task,
        cube_snapshot=evaluation["snapshot"],
        split=read_json(folder.path / "split.json", "run `driftline train CONFIG`"),
        metrics=evaluation["metrics"],
        verdict={**evaluation["verdict"], "published": bool(predicted), "even_if_worse": bool((predicted or {}).get("even_if_worse"))},
        stages=stages,
        products=describe_products(folder, predicted),
        skill=evaluation["skill"],
        intervals=evaluation["intervals"],
        refused=tuple(ingested.get("refused", ())),
        model_hash=evaluation["model_hash"],
        config_hash=config_hash(run),
        driftline_version=code_version(),
        started_utc=records[0]["at_utc"] if records else "",
    )
    write_summary(summary, folder.summary)
    return summary


def current_prediction(invocation: Invocation) -> dict[str, Any] | None:
    """The record of the published forecast if it was made by the model that was evaluated."""
    evaluated, predicted = finished(invocation.folder, "evaluate") or {}, finished(invocation.folder, "predict")
    return predicted if predicted and predicted["model_hash"] == evaluated.get("model_hash") else None


def describe_products(folder: RunFolder, predicted: dict[str, Any] | None) -> dict[str, Any]:
    """Paths relative to the run's folder."""
    if predicted is None:
        return {}
    names = predicted["products"]
    return {
        "collection": "products/collection.json",
        "cogs": [name for name in names if name.endswith(".tif")],
        "quicklook": folder.quicklook.name,
        "animation": folder.animation.name,
        "issue_utc": predicted["issue_utc"],
        "target_utc": predicted["target_utc"],
        "cube_snapshot": predicted["snapshot"],
    }


def write_page(invocation: Invocation, summary: Any) -> None:
    from pipelines.products.report import write_report

    raise NotImplementedError(write_report)


def product_lines(folder: RunFolder, record: dict[str, Any]) -> list[str]:
    """Where things lie, for a person."""
    maps = [name for name in record["products"] if name.endswith(".tif")]
    lines = [f"map:     {folder.path / maps[0]}" + (f" (and {len(maps) - 1} more dates)" if len(maps) > 1 else "")] if maps else []
    if maps:
        lines.append(f"picture: {folder.quicklook}")
    return [*lines, f"report:  {folder.report}", f"numbers: {folder.summary}"]
