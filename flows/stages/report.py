"""What a run left, in numbers and on one page: `summary.json` and `report.html`."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.load import config_hash
from flows.folder import STAGES, RunFolder, code_version, finished, read_json, require
from flows.invocation import Invocation
from flows.stages.reported import close_report
from flows.stages.train import plan_samples, require_trained
from flows.steps import read_records, stage_costs


def report(invocation: Invocation) -> dict[str, Any]:
    """Writes both, also for a model that was not published. Raises MissingInput if the run has not been evaluated."""
    folder, steps = invocation.folder, invocation.steps
    require(folder, "evaluate", "evaluate")
    require_trained(invocation)
    summary = steps.do("report", "write the summary", lambda progress: summarise(invocation))
    steps.do("report", "write the report", lambda progress: write_page(invocation, summary))
    close_report(invocation)
    record = finished(folder, "predict") or {"products": []}
    return {"message": f"report: {folder.report}", "lines": product_lines(folder, record), "report": str(folder.report)}


def summarise(invocation: Invocation) -> Any:
    from pipelines.products.summary import Stage, Summary, write_summary

    run, folder = invocation.run, invocation.folder
    evaluation = read_json(folder.evaluation, "run `driftline evaluate CONFIG`")
    ingested, predicted = finished(folder, "ingest") or {}, current_prediction(invocation)
    plan_samples(invocation, evaluation["snapshot"])  # writes the split anew, should its file have been damaged
    costs = stage_costs(folder.steps)
    stages = tuple(Stage(name, costs[name]["seconds"], costs[name]["peak_mb"]) for name in STAGES if name in costs)
    records = read_records(folder.steps)
    summary = Summary(
        name=run.name,
        task=run.task,
        cube_snapshot=evaluation["snapshot"],
        split=read_json(folder.path / "split.json", "run `driftline train CONFIG`"),
        metrics=evaluation["metrics"],
        verdict={
            **evaluation["verdict"],
            "published": bool(predicted),
            "even_if_worse": bool((predicted or {}).get("even_if_worse")),
        },
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
    from pipelines.cube.history import describe
    from pipelines.products.page import Picture
    from pipelines.products.report import ReportInput, write_report

    folder = invocation.folder
    evaluation = read_json(folder.evaluation, "run `driftline evaluate CONFIG`")
    published = current_prediction(invocation) is not None
    quicklook = [Picture(folder.quicklook, "The forecast")] if published and folder.quicklook.exists() else []
    with tempfile.TemporaryDirectory(dir=folder.path, prefix=".report-") as drafts:
        curves, coverage, split = draw_curves(invocation, evaluation, Path(drafts))
        content = ReportInput(
            summary,
            folder.config.read_text(encoding="utf-8"),
            cube_facts(describe(folder.cube_uri, evaluation["snapshot"])),
            summary.split,
            evaluation,
            quicklook,
            curves,
            coverage,
            split,
            notes_of(invocation, summary),
        )
        write_report(content, folder.report)


def cube_facts(cube: dict[str, Any]) -> dict[str, str]:
    """A few lines about the cube; all of it is in `driftline info`."""
    from pipelines.calendar import format_span
    from pipelines.products.page import when

    shape, grid = cube["shape"], cube["grid"]
    return {
        "place": cube["uri"],
        "snapshot": cube["snapshot"],
        "dates": f"{shape['time']}, {when(cube['first'])} to {when(cube['last'])}, {format_span(cube['median_step_days'])} apart",
        "pixels": f"{shape['y']} x {shape['x']} of {abs(grid['resolution_xy'][0]):g} x {abs(grid['resolution_xy'][1]):g}",
        "bands": ", ".join(band["name"] for band in cube["bands"]),
        "usable share": f"{cube['mean_valid_fraction']:.0%}" if cube["mean_valid_fraction"] is not None else "unknown",
    }


def draw_curves(invocation: Invocation, evaluation: dict[str, Any], drafts: Path) -> tuple[list[Any], list[Any], list[Any]]:
    """Pictures of the errors, of the coverage and of the split, drawn into `drafts`."""
    from pipelines.products.curves import draw_blocks, draw_coverage, draw_errors, draw_skill
    from pipelines.products.page import Picture

    draw_errors(evaluation, drafts / "errors.png")
    draw_skill(evaluation, drafts / "skill.png")
    curves = [Picture(drafts / "errors.png", "Errors by lead"), Picture(drafts / "skill.png", "Skill against every baseline")]
    coverage, split = [], []
    if evaluation.get("intervals"):
        draw_coverage(evaluation["intervals"], drafts / "coverage.png")
        coverage.append(Picture(drafts / "coverage.png", "Coverage of the intervals"))
    tiles, shape_yx = split_tiles(invocation, evaluation["snapshot"])
    draw_blocks(tiles, shape_yx, drafts / "split.png")
    split.append(Picture(drafts / "split.png", "Blocks of the split"))
    return curves, coverage, split


def split_tiles(invocation: Invocation, snapshot: str) -> tuple[list[tuple[Any, str]], tuple[int, int]]:
    """(tile, part) of every block that is used, and the raster's shape."""
    _, plan = plan_samples(invocation, snapshot)
    return sorted({(window.tile, window.part) for window in plan.windows}), plan.shape_yx


def notes_of(invocation: Invocation, summary: Any) -> list[str]:
    """What a reader must see first."""
    verdict, notes = summary.verdict, []
    if not verdict["published"] and not verdict["is_publishable"]:
        notes.append("This model was not published: it does not beat what it must beat.")
    if verdict["published"] and not verdict["is_publishable"]:
        notes.append("This forecast was published although the model does not beat what it must beat (--even-if-worse).")
    trained = finished(invocation.folder, "train") or {}
    return notes + share_notes(invocation.run.model.baseline, trained.get("residual_scale", trained.get("shrink", ())))


def share_notes(baseline: str, share_K: Sequence[float]) -> list[str]:
    """How much of the network's correction of its guide the validation windows support."""
    if baseline == "none" or not share_K:
        return []
    share = sum(share_K) / len(share_K)
    if share == 0:
        return [f"Validation supports none of the network's correction: this forecast is its guide ({baseline}) itself."]
    return [f"The network corrects its guide ({baseline}); validation supports {share:.0%} of the correction."]


def product_lines(folder: RunFolder, record: dict[str, Any]) -> list[str]:
    """Where things lie, for a person."""
    maps = [name for name in record["products"] if name.endswith(".tif")]
    lines = (
        [f"map:     {folder.path / maps[0]}" + (f" (and {len(maps) - 1} more dates)" if len(maps) > 1 else "")] if maps else []
    )
    if maps:
        lines.append(f"picture: {folder.quicklook}")
    return [*lines, f"report:  {folder.report}", f"numbers: {folder.summary}"]
