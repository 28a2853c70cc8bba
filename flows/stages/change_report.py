"""What a run of labelled change left, in numbers and on one page: `summary.json` and `report.html`."""

import tempfile
from pathlib import Path
from typing import Any

from configs.load import config_hash
from flows.folder import STAGES, RunFolder, code_version, finished, require
from flows.invocation import Invocation
from flows.stages.change_evaluate import read_change_evaluation
from flows.stages.change_train import require_detector
from flows.stages.reported import close_report
from flows.steps import read_records, stage_costs


def change_report(invocation: Invocation) -> dict[str, Any]:
    """Writes both, also for a detector that was not published. Raises MissingInput if the run has not been evaluated."""
    folder, steps = invocation.folder, invocation.steps
    require(folder, "evaluate", "evaluate")
    require_detector(invocation)
    summary = steps.do("report", "write the summary", lambda progress: summarise(invocation))
    steps.do("report", "write the report", lambda progress: write_page(invocation, summary))
    close_report(invocation)
    record = finished(folder, "predict") or {"products": []}
    return {"message": f"report: {folder.report}", "lines": product_lines(folder, record), "report": str(folder.report)}


def current_prediction(invocation: Invocation) -> dict[str, Any]:
    """The record of the published change if it was made by the detector that was evaluated, else {}."""
    evaluated, predicted = finished(invocation.folder, "evaluate") or {}, finished(invocation.folder, "predict")
    return predicted if predicted and predicted["model_hash"] == evaluated.get("model_hash") else {}


def summarise(invocation: Invocation) -> Any:
    from pipelines.products.change_summary import ChangeSummary, Criterion, write_change_summary

    from pipelines.products.summary import Stage

    run, folder = invocation.run, invocation.folder
    evaluation, predicted = read_change_evaluation(invocation), current_prediction(invocation)
    costs, records = stage_costs(folder.steps), read_records(folder.steps)
    methods = {name: figures_of(method) for name, method in evaluation["methods"].items()}
    f1 = methods[evaluation["model"]]["f1"]
    criteria = tuple(Criterion(f"F1 above {name}", f1, methods[name]["f1"] or 0.0) for name in run.evaluation.must_beat)
    sites = predicted.get("sites", {})
    found = {"patches": sum(p["patches"] for p in sites.values()), "area_m2": sum(p["area_m2"] for p in sites.values())}
    summary = ChangeSummary(
        name=run.name,
        task=run.task,
        stages=tuple(Stage(name, costs[name]["seconds"], costs[name]["peak_mb"]) for name in STAGES if name in costs),
        products={"folder": str(folder.products), "files": predicted.get("products", [])},
        shipped=evaluation["model"],
        verdict=evaluation["verdict"]["sentence"],
        criteria=criteria,
        methods=methods,
        found=found if sites else {},
        largest=tuple(predicted.get("largest", ())),
        computed={"threshold": predicted.get("threshold")} if predicted else {},
        sites=sites,
        evaluation=evaluation,
        refused=tuple((finished(folder, "ingest") or {}).get("refused", ())),
        cube_snapshot=evaluation["snapshot"],
        model_hash=evaluation["model_hash"],
        config_hash=config_hash(run),
        driftline_version=code_version(),
        started_utc=records[0]["at_utc"] if records else "",
    )
    write_change_summary(summary, folder.summary)
    return summary


def figures_of(method: dict[str, Any]) -> dict[str, Any]:
    """The flat figures of a method that the report's table shows."""
    pooled, spread = method["pooled"], method["spread"]
    figures = {key: pooled.get(key) for key in ("f1", "precision", "recall", "iou", "average_precision")}
    return {**figures, "spread": spread["std"] if spread else None} | {
        f"f1_{site}": scores["f1"] for site, scores in method["sites"].items()
    }


def write_page(invocation: Invocation, summary: Any) -> None:
    from pipelines.products.change_report import ChangeReportInput, area_table, label_tables, write_change_report

    from pipelines.products.charts import draw_f1, draw_reliability, scores_of
    from pipelines.products.page import Picture

    run, folder = invocation.run, invocation.folder
    evaluation, trained = summary.evaluation, require(folder, "train", "train")
    evaluated_sites = list(evaluation["methods"][evaluation["model"]]["sites"])
    maps = [
        Picture(
            folder.path / f"quicklook-{name}.png",
            name,
            "Before and after with the change outlined, and how likely it is. F1 below the title: as judged, with every choice "
            "(the threshold too) made on other sites. Figures on the last panel: of the map as published, shipped threshold.",
        )
        for name in summary.sites
    ]
    settings = {
        "model": f"{run.model.kind}, widths {run.model.widths}, fused with {run.model.fuse_with}",
        "left out in turn": ", ".join(trained["groups"]),
        "shipped threshold": round(float(trained["threshold"]), 3),
        "training": f"{run.training.epochs} epochs of {run.training.windows} windows of {run.training.window_px} px",
    }
    tables = label_tables(summary.methods, evaluated_sites, summary.shipped)
    if evaluation.get("area"):
        tables.append(area_table(evaluation["area"], run.evaluation.confidence))
    interval = evaluation["methods"][summary.shipped]["f1_interval"]
    words = (
        "As judged, the threshold too chosen on other sites. Pooled over all pixels, with its "
        f"{run.evaluation.confidence * 100:g} % interval ({interval.get('basis', 'blocks')}); no method has seen the site."
    )
    with tempfile.TemporaryDirectory(dir=folder.path, prefix=".report-") as drafts:
        curve = Path(drafts) / "f1.png"
        draw_f1(scores_of(evaluation["methods"]), summary.shipped, curve)
        curves = [Picture(curve, "F1 of every method and site", words)]
        if reliability := evaluation["methods"][summary.shipped].get("reliability"):
            drawn = Path(drafts) / "reliability.png"
            bins = [one for one in reliability["bins"] if one["pixels"]]
            claimed, happened, pixels = ([one[key] for one in bins] for key in ("claimed", "happened", "pixels"))
            draw_reliability(claimed, happened, pixels, drawn)
            said = (
                "How often pixels that were given a probability have really changed, on sites that were left out. "
                f"Off by {reliability['expected_error']:.3f} on average."
            )
            curves.append(Picture(drawn, "Stated probability against what happened", said))
        write_change_report(
            ChangeReportInput(
                summary=summary,
                config_yaml=folder.config.read_text(encoding="utf-8") if folder.config.exists() else "",
                cube=describe_sites(invocation),
                settings=settings,
                tables=tables,
                maps=[picture for picture in maps if picture.path.exists()],
                curves=curves,
                notes=notes_of(invocation, evaluation),
            ),
            folder.report,
        )


def notes_of(invocation: Invocation, evaluation: dict[str, Any]) -> list[str]:
    """What a reader must see first."""
    notes = [evaluation["note"]] if evaluation["note"] else []
    is_published, is_good = bool(current_prediction(invocation)), evaluation["verdict"]["is_publishable"]
    if not is_good and not is_published:
        notes.append("This detector was not published: it does not beat what it must beat.")
    if not is_good and is_published:
        notes.append("This change was published although the detector does not beat what it must beat (--even-if-worse).")
    return [*notes, *warnings_of(invocation)]


def warnings_of(invocation: Invocation) -> list[str]:
    """What makes it doubtful that the dates of a site can be compared, as it was measured when the site was prepared."""
    from pipelines.change.frames import frame_of

    sites = require(invocation.folder, "ingest", "ingest")["sites"]
    return [warning for name in sites for warning in frame_of(invocation.folder.samples / name).pair.warnings]


def describe_sites(invocation: Invocation) -> dict[str, dict[str, str]]:
    """name -> what a reader wants to know of the data of a site."""
    from pipelines.change.frames import frame_of
    from pipelines.cube.store import bands_of, grid_of, open_cube

    described = {}
    for name, about in require(invocation.folder, "ingest", "ingest")["sites"].items():
        dataset = open_cube(invocation.folder.cube_of(name), about["snapshot"])
        grid, shifts = grid_of(dataset), frame_of(invocation.folder.samples / name).pair.shift_T_yx
        moved = [f"date {t + 1} by {dy:+.2f} down, {dx:+.2f} right" for t, (dy, dx) in enumerate(shifts) if (dy, dx) != (0, 0)]
        described[name] = {
            "dates": ", ".join(str(date)[:10] for date in dataset["time"].values),
            "bands": ", ".join(band.name for band in bands_of(dataset)),
            "grid": f"{grid.shape_yx[0]} x {grid.shape_yx[1]} pixels of {grid.resolution_xy[0]:g}, {grid.crs[:60]}",
            "moved (pixels)": "; ".join(moved) or "no date",
            "label": f"{about['changed_fraction']:.2%} changed" if about["label_sha256"] else "none: predicted only",
        }
    return described


def product_lines(folder: RunFolder, record: dict[str, Any]) -> list[str]:
    """Where things lie, for a person."""
    masks = [name for name in record["products"] if name.endswith("-mask.tif")]
    patches = [name for name in record["products"] if name.endswith(".gpkg")]
    found: dict[str, Path] = {"map": folder.path / masks[0]} if masks else {}
    more = f" (and {len(masks) - 1} more sites)" if len(masks) > 1 else ""
    if patches:
        found |= {"patches": folder.path / patches[0], "picture": folder.quicklook}
    lines = [f"{what + ':':<9}{path}{more if what in ('map', 'patches') else ''}" for what, path in found.items()]
    return [*lines, f"report:  {folder.report}", f"numbers: {folder.summary}"]
