"""Which method a forecast is published with, and what the product needs of it: its intervals, and a baseline fitted anew."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from configs.tasks import forecast as config
from configs.trained import find_model
from flows.task import Invocation, Record
from pipelines.calendar import iso_utc
from pipelines.errors import RequestError
from pipelines.learning.result import Evaluation

if TYPE_CHECKING:
    from configs.tasks.forecast_baselines import Baseline
    from models.residual_forecaster import ResidualForecaster
    from pipelines.inference.job import Request
    from pipelines.predictors import Forecaster
    from pipelines.products.predicted import ForecastFields
    from pipelines.products.stac import ModelCard
    from pipelines.progress import Progress


def method_of(context: Invocation, evaluation: Evaluation | None) -> config.Method:
    """What is published: what the evaluation chose; the network where nothing could be scored, and with `--even-if-worse`."""
    if evaluation is None:
        return config.MODEL
    if context.even_if_worse and evaluation.shipped != config.MODEL:
        context.steps.log("predict: --even-if-worse publishes the network; write `evaluation: {publish: network}` in its place")
        return config.MODEL
    return cast("config.Method", evaluation.shipped)


def calibration_of(context: Invocation, evaluation: Evaluation | None, method: str) -> dict[str, Any]:
    """The intervals: calibrated here, else by the run that trained the model. Raises RequestError where none are known."""
    scores = evaluation.details if evaluation else (find_model(context.folder.model).scores or {}).get("details", {})
    found = scores.get("calibrations", {}).get(method, scores.get("calibration") if method == config.MODEL else None)
    if found is None:
        raise RequestError(
            f"the model in {context.folder.model} has no prediction intervals, and here are too few dates for them"
        )
    return dict(found)


def fit_baselines(context: Invocation, snapshot: str, before: np.datetime64, progress: Progress) -> dict[str, Forecaster]:
    """All baselines of the evaluation, fitted on the training blocks with targets before `before`."""
    from configs.tasks.forecast_baselines import fitted_baselines
    from pipelines.cube.store import open_cube

    run, dataset = context.run, open_cube(context.folder.cube_uri, snapshot)
    return fitted_baselines(run.evaluation.baselines, dataset, config.build_samples(run), before, run.training.seed, progress)


def fitted_baseline(context: Invocation, request: Request, name: Baseline) -> Forecaster:
    """The baseline that is published, fitted on the training blocks with targets up to the issue date."""
    from configs.tasks.forecast_baselines import fitted_baseline
    from pipelines.calendar import parse_utc
    from pipelines.predictors import InSpace

    run, after = context.run, parse_utc(request.issued_utc) + np.timedelta64(1, "us")
    fitted = fitted_baseline(name, request.dataset, config.build_samples(run), after, run.training.seed)
    return InSpace(fitted, len(request.grid.shape))


def describe(context: Invocation, fields: ForecastFields, forecaster: ResidualForecaster, metadata: Record) -> ModelCard:
    """What an external user must know of the model."""
    from models.checkpoint import TENSORS
    from pipelines.products.cog import iso
    from pipelines.products.stac import ModelCard
    from pipelines.samples.plan import as_utc

    run, request, inputs = context.run, fields.request, find_model(context.folder.model).inputs
    return ModelCard(
        name=fields.name,
        model_hash=fields.lineage.model_hash,
        architecture=f"{run.model.kind} encoder-forecaster, {run.model.members} members, baseline {run.model.baseline}",
        variables=tuple(request.units),
        context=len(request.steps.context_T),
        horizon=run.samples.horizon,
        parameters=sum(p.numel() for p in forecaster.parameters()),
        trained_from=inputs.first_utc or iso(request.dataset["time"].values[0]),
        trained_to=inputs.last_utc or iso_utc(as_utc(run.split.test_from)),
        cube_snapshot=metadata["cube_snapshot"],
        framework_version=version("torch"),
        hyperparameters={"model": run.model.model_dump(mode="json"), "training": metadata.get("training", {})},
        weights=context.folder.model / TENSORS,
    )
