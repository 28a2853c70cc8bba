"""What a forecast predicts, tile by tile: the published method, and the one that it is compared with later."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from configs.tasks import forecast as config
from configs.tasks.forecast_covariates import check_model
from flows.folder import load_checkpoint, require
from flows.task import Invocation
from flows.tasks.forecast_methods import choose_request, method_of, name_of, ready_method, uses_covariates
from pipelines.learning.result import Evaluation

if TYPE_CHECKING:
    from models.residual_forecaster import ResidualForecaster
    from pipelines.inference.job import Prediction, Request
    from pipelines.inference.staging import Staged


@dataclass(frozen=True)
class Arranged:
    """A forecast that is ready to be predicted: its method and that one's name, the request, the run's network."""

    method: config.Method
    name: str
    request: Request
    network: ResidualForecaster
    metadata: dict[str, Any]
    prediction: Prediction


def load_model(context: Invocation) -> tuple[ResidualForecaster, dict[str, Any]]:
    """(forecaster, metadata) of the run. Raises ArtefactDamaged, RequestError for a model of other covariates."""
    from models.checkpoint import FORECASTER

    forecaster, metadata = load_checkpoint(FORECASTER.load, context.folder)
    check_model(forecaster.covariates, context.run.covariates)
    return forecaster, metadata


def arrange(context: Invocation, evaluation: Evaluation | None) -> Arranged:
    """The forecast that is published, with baselines fitted anew."""
    do = partial(context.steps.do, "predict")
    network, metadata = do("load the model", lambda _: load_model(context))
    method = method_of(context, evaluation)
    used = uses_covariates(context, evaluation, method)
    request = do("choose dates", lambda _: choose_request(context, with_covariates=used))
    prediction = prediction_of(context, evaluation, request, network, method, staging_of(context))
    return Arranged(method, name_of(evaluation, method), request, network, metadata, prediction)


def arrange_rival(context: Invocation, evaluation: Evaluation | None, of: Arranged, rival: config.Method) -> Prediction:
    """The method that the published one is compared with later, for the same dates."""
    request = of.request
    if request.covariates is None and uses_covariates(context, evaluation, rival):
        request = choose_request(context, with_covariates=True)
    return prediction_of(context, evaluation, request, of.network, rival, f"{staging_of(context)}/rival")


def staging_of(context: Invocation) -> str:
    """Where tiles are kept until all are there; a place that the config names is shared by runs."""
    asked, folder = context.run.prediction.staging, context.folder
    own = f"{folder.stored}/staging" if folder.stored else str(folder.staging)
    return own if asked is None else f"{asked.rstrip('/')}/{context.run.name}"


def prediction_of(
    context: Invocation, evaluation: Evaluation | None, request: Request, network: ResidualForecaster, method: config.Method,
    staging: str,
) -> Prediction:  # fmt: skip
    """The tiles of one method."""
    from pipelines.inference.job import tile_side
    from pipelines.inference.predict import plan_prediction

    run, model_hash = context.run, require(context.folder, "train")["model_hash"]
    forecaster, intervals = ready_method(context, evaluation, request, network, method)
    made_by = model_hash if method == config.MODEL else f"{model_hash} {name_of(evaluation, method)}"
    sizes = tile_side(request.grid, run.prediction.tile_px), run.split.margin_px
    return plan_prediction(request, forecaster, intervals, staging, *sizes, run.compute.build(), made_by)


def predict_tiles(context: Invocation, prediction: Prediction, what: str = "predict tiles") -> Staged:
    """The finished fields. With `--finish` nothing is predicted: StateError where slices have left something out."""
    from pipelines.inference.predict import finish, predict

    if context.is_finishing:
        context.steps.do("predict", "check the tiles of all slices", lambda _: prediction.regions.require_whole())
        prediction.regions.sweep()
        return finish(prediction)
    return context.steps.do("predict", what, lambda show: predict(prediction, context.run.compute.build(), show))
