"""Forecaster + cube -> published forecast: steps, tiles, COGs, STAC, pictures; then the report, whatever the verdict."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.load import config_hash
from configs.tasks import forecast as build
from flows.folder import code_version, finished, stage_key, write_json
from flows.invocation import Invocation
from flows.stages.evaluate import load_model, read_evaluation
from flows.stages.report import product_lines, report
from flows.stages.reported import is_reported
from flows.stages.train import require_trained
from flows.stages.verdict import require_verdict
from flows.stages.views import forecast_maps
from pipelines.errors import NotPublished
from pipelines.progress import Progress


@dataclass(frozen=True)
class Forecast:
    """What is about to be published: where and when the forecast is, and from what it was made."""

    dataset: Any
    grid: Any
    steps: Any  # ForecastSteps
    target_utc: list[np.datetime64]
    units: dict[str, str]
    lineage: Any


def predict(invocation: Invocation) -> dict[str, Any]:
    """Predicts and publishes if anything has changed; hands back the record of the stage.

    Raises NotPublished, after the report is written, if the model does not beat what it must, or the tiles of a network without a
    finite halo do not agree, and `even_if_worse` is not set.
    """
    folder, steps = invocation.folder, invocation.steps
    trained, evaluated = require_trained(invocation), require_verdict(invocation)
    snapshot = newest_snapshot(invocation)
    if not evaluated["is_publishable"] and not invocation.even_if_worse:
        steps.skip("predict", "not published: the model does not beat what it must beat")
        report(invocation)
        raise NotPublished(
            f"{evaluated['message']} The report says so: {folder.report}. To publish all the same: --even-if-worse; "
            "to lower the bar: evaluation.must_beat"
        )
    key = predict_key(invocation, trained, evaluated, snapshot)
    record = finished(folder, "predict", key)
    if record is not None and all((folder.path / name).exists() for name in record["products"]):
        steps.skip("predict", "up to date")
        if not is_reported(invocation):
            report(invocation)
        return {**record, "lines": product_lines(folder, record), "skipped": True}
    record = make_forecast(invocation, key, trained, snapshot)
    report(invocation)
    return {**record, "lines": product_lines(folder, record)}


def newest_snapshot(invocation: Invocation) -> str:
    from pipelines.cube.store import head_snapshot

    return head_snapshot(invocation.folder.cube_uri)


def predict_key(invocation: Invocation, trained: dict[str, Any], evaluated: dict[str, Any], snapshot: str) -> str:
    run = invocation.run.model_dump(mode="json")
    parts = {"prediction": run["prediction"], "samples": run["samples"], "even_if_worse": invocation.even_if_worse}
    return stage_key(model=trained["model_hash"], evaluated=evaluated["key"], snapshot=snapshot, **parts)


def make_forecast(invocation: Invocation, key: str, trained: dict[str, Any], snapshot: str) -> dict[str, Any]:
    from pipelines.learning.conformal import Intervals

    folder, steps = invocation.folder, invocation.steps
    forecaster = steps.do("predict", "load the model", lambda progress: load_model(invocation)[0])
    intervals = Intervals.from_json(read_evaluation(invocation)["calibration"])
    forecast = steps.do("predict", "choose dates", lambda progress: choose_dates(invocation, snapshot, trained["model_hash"]))
    staged = steps.do(
        "predict", "predict tiles", lambda progress: predict_tiles(invocation, forecast, forecaster, intervals, progress)
    )
    seam = check_seams(invocation)
    paths = steps.do("predict", "write and publish", lambda progress: publish(invocation, forecast, staged, progress))
    record = {
        "key": key,
        "snapshot": snapshot,
        "model_hash": trained["model_hash"],
        "issue_utc": forecast.lineage.issued_utc,
        "target_utc": [str(date.astype("datetime64[s]")) for date in forecast.target_utc],
        "products": [str(path.relative_to(folder.path)) for path in paths],
        "even_if_worse": invocation.even_if_worse,
        "message": f"forecast for {len(forecast.target_utc)} dates",
        **({"seam": asdict(seam)} if seam.count else {}),
    }
    write_json(folder.done("predict"), record)
    return record


def choose_dates(invocation: Invocation, snapshot: str, model_hash: str) -> Forecast:
    """Context, targets and lineage of the forecast that the config asks for."""
    from pipelines.calendar import from_days
    from pipelines.cube.store import bands_of, grid_of, open_cube
    from pipelines.products.cog import Lineage, iso
    from pipelines.samples.windows import steps_from

    run = invocation.run
    dataset = open_cube(invocation.folder.cube_uri, snapshot)
    times, requested = dataset["time"].values, run.prediction
    issue = None if requested.issue == "latest" else requested.issue
    dates = list(requested.dates) if requested.dates is not None else None
    steps = steps_from(times, build.build_sampling(run), run.samples.context, run.samples.horizon, issue, dates)
    if issue is not None and np.datetime64(issue) - times[steps.issue] > np.timedelta64(1, "D"):
        invocation.steps.log(
            f"predict: issued from {iso(times[steps.issue])}, the last date up to {issue:%Y-%m-%d}, which was asked for"
        )
    scene_ids = tuple(str(dataset["scene_id"].values[i]) for i in steps.context_T if i >= 0)
    lineage = Lineage(snapshot, model_hash, config_hash(run), code_version(), iso(times[steps.issue]), scene_ids)
    units = {band.name: band.unit for band in bands_of(dataset)}
    of_variable = {v.name: units.get(v.bands[0], "") if v.formula == "band" else "" for v in run.samples.variables}
    return Forecast(dataset, grid_of(dataset), steps, list(from_days(steps.target_days_K)), of_variable, lineage)


def predict_tiles(invocation: Invocation, forecast: Forecast, forecaster: Any, intervals: Any, progress: Progress) -> Any:
    from pipelines.inference.predict import predict as predict_fields

    run, steps = invocation.run, forecast.steps
    return predict_fields(
        forecast.dataset,
        forecast.lineage.snapshot,
        forecaster,
        build.build_variables(run.samples.variables),
        steps.context_T,
        steps.usable_N,
        steps.target_days_K,
        intervals,
        invocation.folder.staging,
        run.prediction.tile_px,
        model_hash=forecast.lineage.model_hash,
        workers=run.prediction.workers,
        progress=progress,
    )


def check_seams(invocation: Invocation) -> Any:
    """How well the tiles agree. Raises NotPublished, after the report is written, if not well enough; see `predict`."""
    from pipelines.inference.predict import check_seam, seam_error

    try:
        return check_seam(invocation.folder.staging, invocation.run.prediction.max_seam)
    except NotPublished as e:
        if invocation.even_if_worse:
            return seam_error(invocation.folder.staging)
        invocation.steps.skip("predict", "not published: the tiles do not agree")
        report(invocation)
        raise NotPublished(f"{e}. To publish all the same: --even-if-worse") from e


def publish(invocation: Invocation, forecast: Forecast, staged: Any, progress: Progress) -> list[Path]:
    """Pictures, COGs and STAC beside the old ones, then in their place. Returns what was published."""
    from pipelines.products.cog import write_forecast_cogs
    from pipelines.products.model_item import write_model_item
    from pipelines.products.pictures import day, draw_animation, draw_quicklook
    from pipelines.products.stac import write_collection

    run, folder = invocation.run, invocation.folder
    maps = forecast_maps(invocation, forecast, staged)
    title = f"{run.name}: {maps[0].variable} forecast"
    lineage = forecast.lineage
    issued = day(np.datetime64(lineage.issued_utc.rstrip("Z")))
    subtitle = f"issued {issued} UTC, cube {lineage.snapshot}, model {lineage.model_hash[:12]}"
    draw_quicklook(maps[0], folder.quicklook, title, subtitle)
    draw_animation(maps[0], folder.animation, title)
    building = folder.path / ".products-building"
    shutil.rmtree(building, ignore_errors=True)
    cogs = write_forecast_cogs(
        staged, forecast.grid, forecast.target_utc, forecast.units, forecast.lineage, building, interval=run.evaluation.interval
    )
    write_collection(
        building,
        run.name,
        f"driftline forecast of {', '.join(forecast.units)}",
        forecast.grid,
        forecast.target_utc,
        cogs,
        list(staged.fields),
        forecast.units,
        forecast.lineage,
        pictures={"Quicklook": folder.quicklook},
        metrics=flat_metrics(read_evaluation(invocation)),
        model_item=write_model_item(model_card(invocation, forecast), forecast.grid, building, at=folder.products),
    )
    replace_folder(building, folder.products)
    return [*sorted(folder.products.iterdir()), folder.quicklook, folder.animation]


def model_card(invocation: Invocation, forecast: Forecast) -> Any:
    """What a stranger must know of the model, from what lies in the run's folder."""
    import torch

    from models.checkpoint import TENSORS
    from pipelines.products.cog import iso
    from pipelines.products.model_item import ModelCard

    run, folder = invocation.run, invocation.folder
    forecaster, metadata = load_model(invocation)
    return ModelCard(
        name=run.name,
        model_hash=forecast.lineage.model_hash,
        architecture=f"{run.model.kind} encoder-forecaster, {run.model.members} members, guide {run.model.baseline}",
        variables=tuple(v.name for v in run.samples.variables),
        context=run.samples.context,
        horizon=run.samples.horizon,
        parameters=sum(p.numel() for p in forecaster.parameters()),
        trained_from=iso(forecast.dataset["time"].values[0]),
        trained_to=iso(np.datetime64(run.split.test_from)),
        cube_snapshot=metadata["cube_snapshot"],
        framework_version=torch.__version__,
        hyperparameters={"model": run.model.model_dump(mode="json"), "training": run.training.model_dump(mode="json")},
        weights=folder.model / TENSORS,
    )


def flat_metrics(evaluation: dict[str, Any]) -> dict[str, float]:
    overall = evaluation["metrics"][evaluation["model"]]["overall"]
    return {name: value for name, value in overall.items() if isinstance(value, int | float)}


def replace_folder(new: Path, target: Path) -> None:
    """`new` takes the place of `target`; what was there goes once the new one stands."""
    old = target.with_name(f".{target.name}-old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
