"""Which method a forecast is published with, and what the product needs of it: its intervals, and a baseline fitted anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from configs.tasks import forecast as config
from configs.trained import find_model
from flows.covariates import samples_of
from flows.folder import RunFolder, finished, read_json, require
from flows.task import Invocation, Record
from flows.tasks.forecast_samples import require_units
from pipelines.calendar import iso_utc
from pipelines.errors import ArtefactDamaged, RequestError
from pipelines.learning.result import Evaluation, equal_text, forecast_criteria, members_text, named

if TYPE_CHECKING:
    from configs.tasks.forecast_baselines import Baseline
    from models.residual_forecaster import ResidualForecaster
    from pipelines.inference.job import Request
    from pipelines.learning.choice import ErrorSums
    from pipelines.learning.conformal import Intervals
    from pipelines.learning.field_motion import FieldMotion
    from pipelines.learning.verification import Scored, Standing
    from pipelines.predictors import Forecaster
    from pipelines.products.predicted import ForecastFields
    from pipelines.products.stac import ModelCard
    from pipelines.progress import Progress
    from pipelines.samples.sampling import PartWindows


LEARNT: tuple[config.Method, ...] = (config.MODEL, config.COMBINATION)  # what gives way to a baseline, once it has become worse


def method_of(context: Invocation, evaluation: Evaluation | None) -> config.Method:
    """What is published: what the evaluation chose, the network where nothing could be scored, and with `--even-if-worse`.

    Of a network or combination that has become worse than its baseline on dates that arrived since (`driftline verify`) the
    baseline.
    """
    if evaluation is None:
        return config.MODEL
    if context.even_if_worse and evaluation.shipped != config.MODEL:
        instead = f"the network in place of {named(evaluation.shipped)}, which the evaluation chose"
        context.steps.log(f"predict: --even-if-worse publishes {instead}; write `evaluation: {{publish: network}}` in its place")
        return config.MODEL
    fallback = fallback_of(context)
    is_known = fallback is not None and fallback.baseline == evaluation.details.get("choice", {}).get("baseline")
    chosen = fallback.baseline if fallback and is_known and evaluation.shipped in LEARNT else evaluation.shipped
    return cast("config.Method", chosen)


def challenger_of(evaluation: Evaluation | None) -> config.Method:
    """What is compared with the best baseline as the truth arrives: the network, unless the evaluation chose a combination."""
    return config.COMBINATION if evaluation is not None and evaluation.shipped == config.COMBINATION else config.MODEL


def members_of(evaluation: Evaluation | None) -> tuple[config.Method, ...]:
    """Of the combination, () where there is none."""
    return tuple(evaluation.details.get("choice", {}).get("members", ())) if evaluation else ()


def forecasts_of(evaluation: Evaluation | None, method: config.Method) -> tuple[config.Method, ...]:
    """What a method is made of: the members of the combination, else it alone."""
    return members_of(evaluation) if method == config.COMBINATION else (method,)


def uses_covariates(context: Invocation, evaluation: Evaluation | None, method: config.Method) -> bool:
    """Whether a forecast by this method needs the run's covariates."""
    given = (config.MODEL, "gradient_boosting")
    return not context.run.covariates.is_empty and any(name in given for name in forecasts_of(evaluation, method))


def name_of(evaluation: Evaluation | None, method: config.Method) -> str:
    """The method in archive and products: a combination with its members, so that no other one is taken for it."""
    return f"combination of {members_text(members_of(evaluation))}" if method == config.COMBINATION else method


def fallback_of(context: Invocation) -> Standing | None:
    """How a network that may be published no longer did against its baseline; None while it may."""
    if context.even_if_worse or context.run.evaluation.publish == "network":
        return None
    found = standing_of(context)
    return found if found is not None and found.loses else None


def compared_of(context: Invocation) -> str:
    """The method that `driftline verify` compares with its baseline: the network, unless the evaluation chose a combination."""
    return str((finished(context.folder, "evaluate") or {}).get("challenger", config.MODEL))


def standing_of(context: Invocation, compared: str | None = None) -> Standing | None:
    """How the run's network, or the combination that was chosen (or `compared`), did on dates that arrived after its forecasts.

    As `driftline verify` left it; None: not known.
    """
    if not context.folder.verification.exists():
        return None
    from pipelines.learning.verification import Rules, standing
    from pipelines.samples.plan import as_utc

    run, model_hash = context.run, require(context.folder, "train")["model_hash"]
    chosen = run.evaluation
    challenger = compared_of(context) if compared is None else compared
    rules = Rules(challenger, as_utc(run.split.test_from), chosen.verify_dates, chosen.confidence, chosen.margin)
    return standing(read_scores(context.folder).values(), model_hash, rules)


def read_scores(folder: RunFolder) -> dict[str, Scored]:
    """What `driftline verify` scored so far, by the archived forecast's name. Raises ArtefactDamaged."""
    from pipelines.learning.verification import Scored

    if not folder.verification.exists():
        return {}
    remedy = "remove it and run `driftline verify CONFIG`, which scores anew what the archive still holds"
    content = read_json(folder.verification, remedy)
    try:
        return {name: Scored.from_json(one) for name, one in content["forecasts"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise ArtefactDamaged(f"{folder.verification} is not of this version ({e}); {remedy}") from e


def change_of_method(context: Invocation, evaluation: Evaluation | None, method: config.Method) -> dict[str, str]:
    """What the record of a forecast says where it is not by the method that the evaluation chose, or is by it again (`again`).

    Of a network that gave way to its baseline (`fallback`), and of one that `--even-if-worse` asks for (`insisted`).
    """
    if context.even_if_worse and evaluation is not None and evaluation.shipped != method:
        return {"insisted": f"Published is the network, as --even-if-worse asks, not {named(evaluation.shipped)}."}
    found, before = standing_of(context), finished(context.folder, "predict") or {}
    if found is None or evaluation is None or evaluation.shipped not in LEARNT:
        return {}
    sentence = found.sentence(context.run.evaluation.confidence)
    if method not in LEARNT:
        return {"fallback": f"{sentence}: published is {method}."}
    is_back = before.get("fallback") and method == evaluation.shipped
    return {"again": f"{sentence}: {found.ours} is published again."} if is_back else {}


def as_published(evaluation: Evaluation, predicted: Record) -> Evaluation:
    """The evaluation of what is published, where that is not what the evaluation chose: verdict, criteria and intervals."""
    why, method = predicted.get("fallback") or predicted.get("insisted"), predicted.get("method")
    if not why or not method or evaluation.shipped == method:
        return evaluation
    details = dict(evaluation.details)
    for one, of_all in (("intervals", "intervals_of"), ("calibration", "calibrations")):
        details[one] = details.get(of_all, {}).get(method, details.get(one))
    before = evaluation.verdict.sentence.replace("Published is ", "The evaluation had chosen ", 1)
    verdict = replace(evaluation.verdict, published=method, sentence=f"{why} {before}")
    if method == config.MODEL and (skills := details.get("skill")):
        verdict = replace(verdict, outcomes={name: skill["overall"]["outcome"] for name, skill in skills.items()})
    errors = {name: error for name, one in evaluation.methods.items() if isinstance(error := one.get("mae"), float)}
    baselines = {name: error for name, error in errors.items() if name not in LEARNT}
    criteria = forecast_criteria(method, errors[method], baselines, verdict.margin) if method in errors else ()
    return replace(evaluation, shipped=method, verdict=verdict, criteria=criteria, details=details)


def choose_request(context: Invocation, *, with_covariates: bool) -> Request:
    """The forecast that the config asks for, from the newest version of the cube.

    with_covariates: for a method that uses them, so that those known ahead must be known.
    """
    from pipelines.cube.store import head_snapshot, open_cube
    from pipelines.inference.job import choose_dates

    run, uri = context.run, context.folder.cube_uri
    issue, snapshot = run.prediction.issue, head_snapshot(uri)
    cube = open_cube(uri, snapshot)
    samples, trained = samples_of(context.run, cube), find_model(context.folder.model)
    require_units(trained.metadata.get("covariates", ()), samples.covariates)
    samples = samples if with_covariates else replace(samples, covariates=None)
    last, dates = None if issue == "latest" else issue, run.prediction.dates
    request = choose_dates(cube, snapshot, samples, issue=last, dates=dates, step_days=trained.inputs.step_days)
    for note in request.notes:
        context.steps.log(f"predict: {note}")
    return replace(request, uri=uri)


def ready_method(
    context: Invocation, evaluation: Evaluation | None, request: Request, network: ResidualForecaster, method: config.Method
) -> tuple[Forecaster, Intervals]:
    """The method ready to answer the request, baselines fitted anew, and its intervals."""
    from pipelines.learning.conformal import Intervals
    from pipelines.predictors import Combination

    do, lead_K = partial(context.steps.do, "predict"), request.steps.lead_K
    intervals = Intervals.from_json(calibration_of(context, evaluation, method))
    wanted = forecasts_of(evaluation, method)
    names = cast("list[Baseline]", [name for name in wanted if name not in LEARNT])
    found: dict[str, Forecaster] = {config.MODEL: network if lead_K is None else network.of_leads(lead_K)}
    if names:
        said = f"fit the baseline{'s' * (len(names) > 1)} {', '.join(names)}"
        found |= do(said, lambda show: refitted_baselines(context, request, names, show))
    if lead_K is not None:
        intervals = intervals.of_leads(lead_K)
    forecaster = Combination({name: found[name] for name in wanted}) if method == config.COMBINATION else found[method]
    return forecaster, intervals.at(request.steps.target_days_K)


def calibration_of(context: Invocation, evaluation: Evaluation | None, method: str) -> dict[str, Any]:
    """The intervals: calibrated here, else by the run that trained the model. Raises RequestError where none are known."""
    scores = evaluation.details if evaluation else (find_model(context.folder.model).scores or {}).get("details", {})
    found = scores.get("calibrations", {}).get(method, scores.get("calibration") if method == config.MODEL else None)
    if found is None:
        raise RequestError(
            f"the model in {context.folder.model} has no prediction intervals, and here are too few dates for them"
        )
    return dict(found)


def choose_baselines(context: Invocation, training: PartWindows, axes: int) -> tuple[list[Baseline], FieldMotion | None]:
    """The baselines of the evaluation, with those of a moving field where the training windows show one; and what they show."""
    from configs.tasks.forecast_baselines import MOVING_BASELINES, field_motion

    names = list(config.baselines_of(context.run))
    if context.run.evaluation.moving == "no" or axes > 2:
        return names, None
    found = field_motion(lambda: training, len(training))
    context.steps.log(f"evaluate: {found.sentence}")
    return [*names, *(name for name in MOVING_BASELINES if found.moves and name not in names)], found


def members_to_combine(context: Invocation, errors: ErrorSums) -> tuple[config.Method, ...]:
    """What the combination is the mean of, by the errors on the validation part; () where there is none."""
    from pipelines.learning.choice import choose_members

    if equal := errors.equal:
        context.steps.log(f"evaluate: {equal_text(equal)}")
    choose = partial(choose_members, errors.means(), errors.dates, equal, context.run.network.baseline)
    members = choose() if context.run.evaluation.combine else ()
    if members:
        context.steps.log(f"evaluate: the combination is the mean of {members_text(members)}")
    return cast("tuple[config.Method, ...]", members)


def with_combination(forecasters: Mapping[str, Forecaster], members: Sequence[config.Method]) -> dict[str, Forecaster]:
    """The forecasters, and the mean of those that are named."""
    from pipelines.predictors import Combination

    known = dict(forecasters)
    return {**known, config.COMBINATION: Combination({name: known[name] for name in members})} if members else known


def fit_baselines(
    context: Invocation, snapshot: str, names: list[Baseline], before: np.datetime64, progress: Progress
) -> dict[str, Forecaster]:
    """The baselines of the evaluation, fitted on the training blocks with targets before `before`."""
    from configs.tasks.forecast_baselines import fitted_baselines
    from pipelines.cube.store import open_cube

    run, dataset = context.run, open_cube(context.folder.cube_uri, snapshot)
    return fitted_baselines(names, dataset, samples_of(run, dataset), before, run.training.seed, progress)


def refitted_baselines(context: Invocation, request: Request, names: list[Baseline], progress: Progress) -> dict[str, Forecaster]:
    """The baselines that are published, fitted on the training blocks with targets up to the issue date."""
    from configs.tasks.forecast_baselines import fitted_baselines
    from pipelines.calendar import parse_utc
    from pipelines.predictors import InSpace

    run, after = context.run, parse_utc(request.issued_utc) + np.timedelta64(1, "us")
    samples = samples_of(context.run, request.dataset)
    fitted = fitted_baselines(names, request.dataset, samples, after, run.training.seed, progress)
    return {name: InSpace(one, len(request.grid.shape)) for name, one in fitted.items()}


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
        architecture=f"{architecture_of(run.network.kind)}, {run.network.members} members, baseline {run.network.baseline}",
        variables=tuple(request.units),
        context=len(request.steps.context_T),
        horizon=run.samples.horizon,
        parameters=sum(p.numel() for p in forecaster.parameters()),
        trained_from=inputs.first_utc or iso(request.dataset["time"].values[0]),
        trained_to=inputs.last_utc or iso_utc(as_utc(run.split.test_from)),
        cube_snapshot=metadata["cube_snapshot"],
        framework_version=version("torch"),
        hyperparameters={
            "model": run.model.model_dump(mode="json"),
            "training": metadata.get("training", {}),
            **({"covariates": metadata["covariates"]} if metadata.get("covariates") else {}),
        },
        weights=context.folder.model / TENSORS,
    )


def architecture_of(kind: str) -> str:
    match kind:
        case "history":
            return "dense layers over each pixel's history"
        case "simvp":
            return "simvp of all frames at once"
    return f"{kind} encoder-forecaster"
