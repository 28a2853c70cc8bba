"""`evaluation.probabilities`: what is scored on the test part, what is kept of it, and what `predict` publishes from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from configs.tasks import forecast as config
from configs.tasks.forecast import ForecastRun
from configs.trained import find_model
from flows.task import Invocation
from pipelines.errors import RequestError
from pipelines.learning.result import Evaluation

if TYPE_CHECKING:
    from pipelines.inference.job import Request
    from pipelines.learning.forecast_intervals import Calibrated
    from pipelines.learning.neighbourhood import Neighbourhood
    from pipelines.learning.probability_scores import ProbabilityTally
    from pipelines.predictors import Forecaster
    from pipelines.products.probability_products import Chances
    from pipelines.samples.sampling import PartWindows

PLACE = "probabilities"  # in the details of an evaluation


def neighbourhood_of(run: ForecastRun) -> Neighbourhood | None:
    """The reference of a run that asks for probabilities, to be told of validation windows."""
    from pipelines.learning.neighbourhood import Neighbourhood

    thresholds = config.build_evaluation_settings(run).thresholds
    return Neighbourhood([value / thresholds.scale for value in thresholds.values]) if run.evaluation.probabilities else None


def tally_of(run: ForecastRun, calibrated: Mapping[str, Calibrated], reference: Neighbourhood | None) -> ProbabilityTally | None:
    """What scores probabilities on the test part; None for a run that does not ask for them."""
    from pipelines.learning.probability_scores import ProbabilityTally

    if not run.evaluation.probabilities:
        return None
    distributions = {name: one.distribution for name, one in calibrated.items() if one.distribution is not None}
    return ProbabilityTally(distributions, config.build_evaluation_settings(run).thresholds, reference)


def with_probabilities(
    context: Invocation, evaluation: Evaluation, scored: ProbabilityTally | None, earlier: Mapping[str, Forecaster],
    validation: PartWindows,
) -> Evaluation:  # fmt: skip
    """The evaluation with the scores, and with what `predict` needs of the methods that it may publish.

    earlier: the forecasters that have not learnt from `validation`.
    """
    if scored is None:
        return evaluation
    from pipelines.learning.error_fields import fit_fields

    may_be_published = dict.fromkeys((evaluation.shipped, evaluation.details["choice"]["baseline"], config.MODEL))
    kept: dict[str, Any] = {}
    for name in (name for name in may_be_published if name in scored.distributions):
        known = scored.distributions[name]
        kept[name] = {"distribution": known.to_json()}
        if len(validation.plan.shape) == 2:
            measure = partial(fit_fields, earlier[name], known, validation, compute=context.run.compute.build())
            kept[name]["fields"] = context.steps.do("evaluate", f"measure how errors of {name} go together", measure).to_json()
    scores = scored.to_json(evaluation.shipped, context.run.evaluation.confidence)
    return replace(evaluation, details={**evaluation.details, PLACE: scores, "error_distributions": kept})


def chances_of(context: Invocation, evaluation: Evaluation | None, request: Request, method: config.Method) -> Chances | None:
    """What the published forecast's probabilities are made from; None where none are asked for, or the grid is not on Earth.

    Raises RequestError where the distribution of the errors is not known.
    """
    run = context.run
    if not run.evaluation.probabilities:
        return None
    if not request.grid.is_on_earth:
        context.steps.log("predict: probabilities are scored; maps of them are published of rasters with a CRS only")
        return None
    from pipelines.learning.error_distribution import ErrorDistribution
    from pipelines.learning.error_fields import ErrorFields
    from pipelines.products.probability_products import Chances

    details = evaluation.details if evaluation else (find_model(context.folder.model).scores or {}).get("details", {})
    found, lead_K = details.get("error_distributions", {}).get(method), request.steps.lead_K
    if found is None:
        raise RequestError(
            f"evaluation.probabilities: no errors of {method} are known; run `driftline evaluate CONFIG` with this key where "
            "there are dates enough for a test, or take it out"
        )
    distribution, fields = ErrorDistribution.from_json(found["distribution"]), ErrorFields.from_json(found["fields"])
    if lead_K is not None:
        distribution, fields = distribution.of_leads(lead_K), fields.of_leads(lead_K)
    thresholds = config.build_evaluation_settings(run).thresholds
    dated = distribution.at(request.steps.target_days_K)
    return Chances(dated, thresholds, fields, run.prediction.members, run.training.seed)
