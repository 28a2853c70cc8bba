"""What `driftline predict` keeps of a forecast for later: its fields, and those of the method that it is compared with."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from configs.tasks import forecast as config
from flows.folder import require
from flows.staged import staging_of
from flows.task import Invocation
from flows.tasks.forecast_methods import LEARNT, challenger_of, name_of
from flows.tasks.forecast_tiles import Arranged, arrange_rival, predict_tiles
from pipelines.calendar import is_elapsed
from pipelines.errors import ArtefactDamaged, RequestError, StateError
from pipelines.learning.result import Evaluation
from pipelines.stored_files import files_at

if TYPE_CHECKING:
    from pipelines.inference.archive import Archived, Who
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


UNUSABLE = (RequestError, StateError)  # a rival that cannot be predicted


def rival_to_keep(context: Invocation, evaluation: Evaluation | None, arranged: Arranged) -> config.Method | None:
    """The rival of a forecast that goes into the archive; None where there is none, or the forecast is not archived (again)."""
    from pipelines.inference.archive import ABOUT

    if not context.run.prediction.archive or is_elapsed(arranged.request.target_utc[0]):
        return None
    is_kept = (context.folder.archive / archived_as(context, evaluation, arranged).name / ABOUT).exists()
    return None if is_kept else rival_of(evaluation, arranged.method)


def archived_as(context: Invocation, evaluation: Evaluation | None, arranged: Arranged) -> Archived:
    """What the archive says of a forecast."""
    from pipelines.inference.archive import describe

    rival = rival_of(evaluation, arranged.method)
    return describe(
        arranged.request, config.build_samples(context.run).steps, method=arranged.name,
        rival=name_of(evaluation, rival) if rival else "", model_hash=require(context.folder, "train")["model_hash"],
        interval=context.run.evaluation.interval, archived_utc=datetime.now(UTC).isoformat(timespec="microseconds"),
    )  # fmt: skip


def keep_forecast(context: Invocation, evaluation: Evaluation | None, arranged: Arranged, staged: Staged) -> None:
    """The forecast and its rival's in the archive, before the products are written: a kill between the two loses nothing."""
    from pipelines.inference.archive import ABOUT, keep

    folder, request = context.folder, arranged.request
    if not context.run.prediction.archive:
        return
    if is_elapsed(request.target_utc[0]):
        context.steps.log("predict: not archived: no file states a date, so no later frame can be known as the truth")
        return
    kept = archived_as(context, evaluation, arranged)
    if (folder.archive / kept.name / ABOUT).exists():
        return
    fields: dict[Who, Staged] = {"published": staged}
    if rival := rival_of(evaluation, arranged.method):
        said = f"predict tiles of {'the network' if rival == config.MODEL else name_of(evaluation, rival)}, for the archive"
        try:
            prediction = arrange_rival(context, evaluation, arranged, rival)
            fields["rival"] = predict_tiles(context, prediction, said)
        except UNUSABLE as e:  # what is published does not depend on it
            if context.is_finishing and not isinstance(e, ArtefactDamaged | RequestError):
                raise  # slices left some of it out
            context.steps.log(f"predict: archived without its rival {rival}, with which it cannot be compared later: {e}")
            kept = replace(kept, rival="")
    context.steps.do("predict", "archive the forecast", lambda _: keep(kept, request.grid, fields, folder.archive))
    files_at(staging_of(context)).remove("rival")
