"""What `driftline predict` keeps of a forecast for later: its fields, and those of the method that it is compared with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from configs.tasks import forecast as config
from flows.folder import require
from flows.task import Invocation
from flows.tasks.forecast_methods import LEARNT, challenger_of, choose_request, name_of, ready_method, uses_covariates
from pipelines.calendar import is_elapsed
from pipelines.errors import ArtefactDamaged, RequestError, StateError
from pipelines.learning.result import Evaluation

if TYPE_CHECKING:
    from models.residual_forecaster import ResidualForecaster
    from pipelines.inference.archive import Who
    from pipelines.inference.job import Request
    from pipelines.inference.staging import Staged


def rival_of(evaluation: Evaluation | None, method: config.Method) -> config.Method | None:
    """What a forecast is compared with later: of the network, or of a combination, the best baseline, of a baseline the network.

    Of a baseline that a combination gave way to the combination. None where nothing could be evaluated, or the evaluation had no
    baseline.
    """
    if method not in LEARNT:
        return challenger_of(evaluation)
    name = evaluation.details.get("choice", {}).get("baseline") if evaluation else None
    return name or None


def keep_forecast(
    context: Invocation, evaluation: Evaluation | None, request: Request, network: ResidualForecaster, method: config.Method,
    staged: Staged,
) -> None:  # fmt: skip
    """The forecast and its rival's in the archive, before the products are written: a kill between the two loses nothing."""
    from pipelines.inference.archive import ABOUT, describe, keep

    run, folder, do = context.run, context.folder, partial(context.steps.do, "predict")
    if not run.prediction.archive:
        return
    if is_elapsed(request.target_utc[0]):
        context.steps.log("predict: not archived: no file states a date, so no later frame can be known as the truth")
        return
    rival = rival_of(evaluation, method)
    names = {"method": name_of(evaluation, method), "rival": name_of(evaluation, rival) if rival else ""}
    about = describe(
        request, config.build_samples(run).steps, **names,
        model_hash=require(folder, "train")["model_hash"], interval=run.evaluation.interval,
        archived_utc=datetime.now(UTC).isoformat(timespec="microseconds"),
    )  # fmt: skip
    if (folder.archive / about.name / ABOUT).exists():
        return
    fields: dict[Who, Staged] = {"published": staged}
    if rival:
        try:
            fields["rival"] = predict_rival(context, evaluation, request, network, rival)
        except (RequestError, ArtefactDamaged, StateError) as e:  # what is published does not depend on it
            context.steps.log(f"predict: archived without its rival {rival}, with which it cannot be compared later: {e}")
            about = replace(about, rival="")
    do("archive the forecast", lambda _: keep(about, request.grid, fields, folder.archive))
    shutil.rmtree(folder.rival, ignore_errors=True)


def predict_rival(
    context: Invocation, evaluation: Evaluation | None, request: Request, network: ResidualForecaster, rival: config.Method
) -> Staged:
    """The rival's fields, tile by tile, in a folder of their own."""
    from pipelines.inference.job import tile_side
    from pipelines.inference.predict import predict_fields

    chosen = context.run.prediction
    if request.covariates is None and uses_covariates(context, evaluation, rival):
        request = choose_request(context, with_covariates=True)
    made_by = f"{require(context.folder, 'train')['model_hash']} {name_of(evaluation, rival)}"
    forecaster, intervals = ready_method(context, evaluation, request, network, rival)
    sizes = tile_side(request.grid, chosen.tile_px), context.run.split.margin_px
    settings = context.folder.rival, *sizes, chosen.workers, made_by
    said = f"predict tiles of {'the network' if rival == config.MODEL else name_of(evaluation, rival)}, for the archive"
    return context.steps.do("predict", said, lambda show: predict_fields(request, forecaster, intervals, *settings, show))
