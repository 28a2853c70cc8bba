"""The baselines of a forecast, fitted on all that is known before a date: for the evaluation, and where one is the product."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, cast, get_args

from pipelines.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

    from models.baselines.gradient_boosting import GradientBoosting
    from models.baselines.pointwise import DecayingAnomaly
    from models.contract import Description
    from models.residual_forecaster import Corrected
    from pipelines.learning.field_motion import FieldMotion
    from pipelines.predictors import Forecaster
    from pipelines.progress import Progress
    from pipelines.samples.prepare import SampleSettings
    from pipelines.samples.refit import KnownWindows
    from pipelines.samples.sampling import WindowArrays

Baseline = Literal[
    "persistence",
    "climatology",
    "same_date_last_year",
    "median_anomaly",
    "decaying_anomaly",
    "harmonic",
    "gradient_boosting",
    "translation",
    "optical_flow",
    "moving_field",
    "boosting_without_covariates",
    "context_mean",
    "context_trend",
]
OWN_BASELINES: tuple[Baseline, ...] = ("context_mean", "context_trend")  # of series without a season
MOVING_BASELINES: tuple[Baseline, ...] = ("translation", "optical_flow", "moving_field")
WITHOUT_COVARIATES: Baseline = "boosting_without_covariates"
BOOSTED: frozenset[str] = frozenset({"gradient_boosting", WITHOUT_COVARIATES})
DEFAULT_BASELINES: tuple[Baseline, ...] = tuple(
    name for name in get_args(Baseline) if name not in (*MOVING_BASELINES, WITHOUT_COVARIATES, *OWN_BASELINES)
)
BOOSTED_WINDOWS = 480  # at most, evenly spread over blocks and dates


def fitted_baseline(
    name: Baseline, dataset: xr.Dataset, settings: SampleSettings, before: np.datetime64, seed: int = 0
) -> Forecaster:
    """A baseline fitted on the training blocks of an opened cube, with targets before `before` (UTC).

    For a forecast from an issue date, that is the moment after it; for a score, the first date of the test. Raises RequestError
    where it needs a fit and no window ends before that date.
    """
    return fitted_baselines([name], dataset, settings, before, seed)[name]


def fitted_baselines(
    names: Sequence[Baseline], dataset: xr.Dataset, settings: SampleSettings, before: np.datetime64, seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Forecaster]:  # fmt: skip
    """As `fitted_baseline`, several by name; `progress` counts them."""
    from models.baselines.last_season import SameDateLastYear
    from models.baselines.pointwise import Climatology, DecayingAnomaly
    from pipelines.samples.prepare import ENOUGH_WINDOWS
    from pipelines.samples.refit import windows_before

    windows = cache(lambda: windows_before(dataset, settings, before))
    few = cache(lambda: windows().thinned(ENOUGH_WINDOWS))
    rule, usual = cache(lambda: DecayingAnomaly().fit(few())), cache(lambda: Climatology().fit(few()))
    baselines: dict[str, Forecaster] = {}
    for done, name in enumerate(names):
        if progress is not None:
            progress(done, len(names))
        match name:
            case "climatology":
                baselines[name] = usual()
            case "same_date_last_year":
                baselines[name] = SameDateLastYear(usual())
            case "decaying_anomaly":
                baselines[name] = rule()
            case "gradient_boosting":
                baselines[name] = boost(rule(), windows().thinned(BOOSTED_WINDOWS), seed)
            case "boosting_without_covariates":
                baselines[name] = boost(rule(), windows().thinned(BOOSTED_WINDOWS), seed, uses_covariates=False)
            case _:
                baselines[name] = build_simple(name, few)
    return baselines


def describe_baselines(baselines: Mapping[str, Forecaster]) -> dict[str, Description]:
    """What was fitted, for the record: the numbers of each baseline that has some, and what gradient boosting chose."""
    fitted = {
        name: cast("GradientBoosting", one).describe() if name in BOOSTED else numbers_of(one) for name, one in baselines.items()
    }
    return {name: numbers for name, numbers in fitted.items() if numbers}


def numbers_of(baseline: object) -> Description:
    return asdict(baseline) if is_dataclass(baseline) and not isinstance(baseline, type) else {}


def sentence_of(chosen: Description) -> str:
    """What gradient boosting chose, for the log.

    >>> sentence_of({"channels": [{"ways": [{"formulation": "change", "is_centred": True, "trees": 60}]}]})
    'gradient boosting: 60 trees on the change since the last clear value, centred on each date'
    """
    learnt = {"change": "change since the last clear value", "residual": "residual of the decaying anomaly"}
    channels = []
    for channel in chosen["channels"]:
        ways = [
            f"{way['trees']} trees on the {learnt[way['formulation']]}" + ", centred on each date" * way["is_centred"]
            for way in channel["ways"]
        ]
        channels.append(" and ".join(ways) if len(ways) == 1 else f"mean of {' and '.join(ways)}")
    return "gradient boosting: " + "; ".join(channels)


def field_motion(windows: Callable[[], Iterable[WindowArrays]], count: int) -> FieldMotion:
    """Whether the field moves or a season returns, from `count` training windows of images."""
    from models.baselines.moving_field import MovingField
    from models.baselines.pointwise import Climatology, Persistence
    from pipelines.learning.field_motion import measure_motion

    methods: dict[str, Forecaster] = {"persistence": Persistence(), "moving": MovingField(), "usual": Climatology()}
    return measure_motion(methods, windows(), count)


def boost(rule: DecayingAnomaly, windows: KnownWindows, seed: int, *, uses_covariates: bool = True) -> Forecaster:
    from models.baselines.gradient_boosting import GradientBoosting

    try:
        return GradientBoosting(rule, seed=seed, uses_covariates=uses_covariates).fit(windows)
    except ValueError as e:
        least = windows.settings.min_valid_fraction
        remedy = "lower samples.min_valid_fraction, or take gradient_boosting out of evaluation.baselines"
        raise RequestError(f"{e} (windows with at least {least:.0%} of them): {remedy}") from e


def build_simple(name: str, windows: Callable[[], Iterable[WindowArrays]]) -> Forecaster:
    """A baseline of few numbers or none, fitted on `windows()`."""
    from models.baselines.last_season import MedianAnomaly
    from models.baselines.moving_field import MovingField
    from models.baselines.own_series import ContextMean, ContextTrend
    from models.baselines.pointwise import HarmonicRegression

    match name:
        case "context_mean":
            return ContextMean()
        case "context_trend":
            return ContextTrend()
        case "harmonic":
            return HarmonicRegression()
        case "translation":
            return MovingField(is_uniform=True)
        case "optical_flow":
            return MovingField()
        case "median_anomaly":
            return MedianAnomaly().fit(windows())
        case _:
            return build_corrected(name, windows)


def build_corrected(name: str, windows: Callable[[], Iterable[WindowArrays]]) -> Corrected:
    """A baseline that a network can correct: persistence, climatology, decaying_anomaly or moving_field."""
    from models.baselines.moving_field import MovingField
    from models.baselines.pointwise import Climatology, DecayingAnomaly, Persistence

    match name:
        case "persistence":
            return Persistence()
        case "climatology":
            return Climatology().fit(windows())
        case "decaying_anomaly":
            return DecayingAnomaly().fit(windows())
        case "moving_field":
            return MovingField().fit(windows())
    raise ValueError(f"no baseline {name!r}")
