"""`task: forecast`: its config, what the schema of the config cannot say, and the objects that it describes.

Packages are imported where they are needed: a command that only reads a cube must not wait for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from configs.build import build_variables
from configs.networks import AUTO, AutoModel, ConvLSTMModel, HistoryModel, Model, ModelOrAuto, build_network
from configs.run import CubeRun, StartedTraining, VariableConfig
from configs.schema import Finding, Fraction, Sections, Seed, Strict, UtcDate
from configs.sweep import Sweep
from configs.tasks.forecast_baselines import (
    DEFAULT_BASELINES,
    MOVING_BASELINES,
    OWN_BASELINES,
    WITHOUT_COVARIATES,
    Baseline,
    build_corrected,
)
from configs.tasks.forecast_covariates import CovariatesConfig
from configs.tasks.forecast_prediction import PredictionConfig
from configs.tasks.forecast_probabilities import check_probabilities
from configs.tasks.forecast_sampling import SamplingConfig
from configs.yaml_positions import Key
from pipelines.calendar import date_text
from pipelines.errors import RequestError
from pipelines.tiles import SMALLEST_BLOCK_PX

if TYPE_CHECKING:
    from models.covariates import CovariateScaling
    from models.residual_forecaster import ResidualForecaster
    from pipelines.learning.evaluation import EvaluationSettings
    from pipelines.learning.training import TrainingSettings
    from pipelines.samples.covariates import Covariates
    from pipelines.samples.prepare import ChannelStatistics, SampleSettings
    from pipelines.samples.sampling import WindowArrays

# ---------------------------------------------------------------- schema


class StepsConfig(Strict):
    """How irregular dates become steps."""

    mode: Literal["observed", "regular"] = Field(
        "observed", description="observed: the dates as they are; regular: every `every_days`"
    )
    every_days: float | None = Field(None, gt=0, description="regular: days between steps; minutes are fractions")
    tolerance_days: float | None = Field(None, gt=0, description="regular: how far the nearest date may be from its step")


class SamplesConfig(Strict):
    """What a network sees and what it must forecast."""

    variables: list[VariableConfig] = Field([], description="what is forecast; needed unless `model.use` brings it")
    context: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        10, description="steps before the issue date that a forecast is made from; auto: chosen with `model: auto`"
    )
    horizon: int = Field(5, ge=1, description="steps after the issue date that are forecast")
    stride: int = Field(1, ge=1, description="steps between the issue dates of consecutive training windows")
    steps: StepsConfig = StepsConfig()
    min_valid_fraction: float = Field(0.1, ge=0, le=1, description="windows with a smaller share of usable targets are left out")

    def check(self, sections: Sections) -> Iterator[Finding]:
        if not self.variables and getattr(sections.get("model"), "use", None) is None:
            yield Finding(
                ("samples", "variables"),
                "is required and missing",
                "for example [{name: red, bands: [red]}], or a trained model (--model)",
            )
        if self.context == AUTO and not isinstance(sections.get("model", self), AutoModel | None):
            yield Finding(("samples", "context"), "auto is chosen with the model, which is stated", "model: auto, or a number")
        names: set[str] = set()
        for index, variable in enumerate(self.variables):
            key: Key = ("samples", "variables", index)
            if variable.name in names:
                yield Finding((*key, "name"), f"variable {variable.name!r} is listed twice")
            names.add(variable.name)
            yield from variable.check_at(key, sections)
        steps, at_steps = self.steps, ("samples", "steps")
        if steps.mode == "regular" and steps.every_days is None:
            yield Finding(at_steps, "regular steps need every_days", "for example every_days: 16")
        for name in ("every_days", "tolerance_days") if steps.mode == "observed" else ():
            if getattr(steps, name) is not None:
                remedy = "add mode: regular, or take it out"
                yield Finding((*at_steps, name), "has no meaning for observed steps", remedy)
        if steps.every_days and steps.tolerance_days and steps.tolerance_days > steps.every_days:
            remedy = "at most every_days; half of it is usual"
            yield Finding((*at_steps, "tolerance_days"), "is longer than a step", remedy)


class SplitConfig(Strict):
    """Blocks in space with a buffer and a gap in time."""

    block_px: Annotated[int, Field(ge=SMALLEST_BLOCK_PX)] | Literal["auto"] = Field(
        AUTO,
        description="side of the blocks, each of which is for training, validation or test; auto: follows raster and network",
    )
    buffer_px: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        AUTO, description="pixels at the edge of a training block that are left out; auto: follows block and network"
    )
    test_fraction: Fraction = Field(0.2, description="share of the blocks that are for test")
    validation_fraction: Fraction = Field(0.2, description="share of the blocks that are for validation")
    validation_from: UtcDate = Field(description="first target date of validation; all before it is for training")
    test_from: UtcDate = Field(description="first target date of test")
    gap_days: float = Field(0, ge=0, description="days before `validation_from` and `test_from` that are left out")
    seed: Seed = Field(0, description="draws which block is for what")
    margin_px: int = Field(
        0,
        ge=0,
        # not written out while it is 0: what was trained without a margin stays as it is
        exclude_if=lambda value: value == 0,
        description="pixels around its block that a window also sees, and is neither trained nor scored on; for fields that move",
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        if self.test_from <= self.validation_from:
            problem = f"test_from ({date_text(self.test_from)}) must be after validation_from ({date_text(self.validation_from)})"
            yield Finding(("split", "test_from"), problem, "time runs training, validation, test")
        elif (self.test_from - self.validation_from).days < self.gap_days:
            remedy = "a shorter gap or an earlier validation_from"
            yield Finding(("split", "gap_days"), "the gap swallows the validation period", remedy)
        if self.test_fraction + self.validation_fraction >= 1:
            problem = "test_fraction + validation_fraction leave no block to train on"
            yield Finding(("split", "test_fraction"), problem, "together they must stay under 1")
        if isinstance(self.buffer_px, int) and isinstance(self.block_px, int) and 2 * self.buffer_px >= self.block_px:
            problem = f"a buffer of {self.buffer_px} on both sides leaves nothing of a block of {self.block_px} pixels"
            yield Finding(("split", "buffer_px"), problem, f"at most {(self.block_px - 1) // 2}")


class TrainingConfig(StartedTraining):
    """How the networks are trained."""

    epochs: int = Field(30, ge=1, description="most passes over the training windows")
    batch: int = Field(16, ge=1, description="windows per step of the optimiser")
    learning_rate: float = Field(1e-3, gt=0, description="of AdamW, at its peak")
    weight_decay: float = Field(1e-4, ge=0, description="of AdamW")
    loss: Literal["mae", "mse", "mse_mae", "huber", "intense_mae"] = Field(
        "huber",
        description="what training makes small; mse_mae: their sum, of standardised values; intense_mae: MAE that weighs large "
        "values more, which MAE dries out",
    )
    patience: int = Field(6, ge=1, description="epochs without a smaller validation loss after which training ends")
    augment: bool = Field(True, description="rotate and mirror training windows")
    centre_dates: bool = Field(
        False, description="do not learn what all pixels of a window share on a date beyond the baseline (haze, a late spring)"
    )
    refit: bool = Field(
        True,
        description="train once more on training and validation dates, with what was chosen before: as the baselines, which are "
        "fitted up to the test too",
    )
    sampling: SamplingConfig | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="of networks that read their own forecasts (predrnn, or model.feedback); default: they do in training too",
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        if self.sampling is not None:
            yield from self.sampling.check(sections)


Publish = Literal["best", "network", "beyond_doubt"]  # as `pipelines.learning.choice`, which is heavier to import


def _no_of_yaml(value: object) -> object:
    """YAML 1.1 reads an unquoted `no` as false."""
    return "no" if value is False else value


class EvaluationConfig(Strict):
    """What the network is compared with, and what is published."""

    baselines: list[Baseline] = Field(
        list(DEFAULT_BASELINES),
        description="methods in the same table; translation, optical_flow and moving_field are for images, not volumes",
    )
    moving: Annotated[Literal["auto", "no"], BeforeValidator(_no_of_yaml)] = Field(
        "auto",
        description="auto: those three as well where the training windows show a field that moves",
    )
    thresholds: list[float] = Field(
        [], description="events of the first variable that are scored by lead (CSI, FSS, bias): values of at least so much"
    )
    threshold_scale: float = Field(
        1.0, gt=0, description="what a value is multiplied by before it is compared: 12 makes mm in 5 minutes mm/h"
    )
    threshold_unit: str = Field("", description="the unit of `thresholds`, for the report")
    probabilities: bool = Field(
        False,
        exclude_if=lambda value: not value,
        description="whether probabilities of reaching `thresholds` are scored, and published as a map by lead",
    )
    publish: Publish = Field(
        "best",
        description="best: the mean of the methods that the validation part does not tell from its best one, else that one; "
        "network: always that; beyond_doubt: the network, or a mean with it, where it beats every baseline on the test part at "
        "`confidence`, else the best baseline",
    )
    combine: bool = Field(
        True,
        # not written out while it is the default: runs of before stay what they are
        exclude_if=lambda value: value,
        description="whether the mean of the best forecasts, network and baselines, is one of the methods that may be published",
    )
    margin: Fraction = Field(
        0.01, description="smallest difference that matters, a share of the baseline's error; a smaller one is called equal"
    )
    confidence: Fraction = Field(0.95, description="of the intervals of the measured figures")
    interval: Fraction = Field(0.9, description="nominal coverage of the prediction intervals")
    verify_dates: int = Field(
        20,
        ge=6,
        description="`driftline verify`: newest target dates over which a network that loses to its baseline gives way to it",
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        if self.probabilities:
            yield from check_probabilities(self.thresholds, self.threshold_scale, sections)


class ForecastRun(CubeRun):
    """A forecast: what comes in, what is learnt, what goes out."""

    task: Literal["forecast"] = "forecast"
    samples: SamplesConfig = Field(SamplesConfig(), description="what a network sees and what it must forecast")
    # not written out while there are none: models without them do not depend on it
    covariates: CovariatesConfig = Field(
        CovariatesConfig(),
        exclude_if=lambda value: value.is_empty,
        description="what networks and gradient boosting are given beside the images; see own-data.md",
    )
    split: SplitConfig
    model: ModelOrAuto = Field(
        ConvLSTMModel(),
        description="the network, and the baseline that it corrects; `auto` (or kind: auto, with settings) chooses both on the "
        "training part",
    )
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    prediction: PredictionConfig = PredictionConfig()
    sweep: Sweep = None

    @property
    def network(self) -> Model:
        """`model`, which is stated, or has been chosen (`configs.tasks.forecast_auto`)."""
        assert not isinstance(self.model, AutoModel), "a stage after `choose` has the run with what was chosen"
        return self.model


# ---------------------------------------------------------------- samples


def build_samples(run: ForecastRun, covariates: Covariates | None = None) -> SampleSettings:
    """What samples are made of, and where and when they may come from; see `flows.covariates` for those with covariates."""
    from pipelines.samples.plan import Sampling, Split
    from pipelines.samples.prepare import SampleSettings

    assert AUTO not in (run.samples.context, run.split.block_px, run.split.buffer_px), "resolved by `Forecast.resolve`"
    samples, split, sampling = run.samples, Split(**run.split.model_dump()), Sampling(**run.samples.steps.model_dump())
    lengths = {name: getattr(samples, name) for name in ("context", "horizon", "stride", "min_valid_fraction")}
    return SampleSettings(build_variables(samples.variables), split, sampling, **lengths, covariates=covariates)


def baselines_of(run: ForecastRun) -> list[Baseline]:
    """The baselines of the evaluation; with covariates gradient boosting without them too, which shows what they are worth."""
    asked = run.evaluation.baselines
    is_compared = "gradient_boosting" in asked and WITHOUT_COVARIATES not in asked and not run.covariates.is_empty
    return [*asked, WITHOUT_COVARIATES] if is_compared else asked


def bands_used(run: ForecastRun) -> list[str]:
    """The bands of the variables, each once."""
    return list(dict.fromkeys(band for variable in run.samples.variables for band in variable.bands))


# ---------------------------------------------------------------- models


def build_forecaster(
    run: ForecastRun, windows: Callable[[], Iterable[WindowArrays]], statistics: ChannelStatistics, step_days: float,
    axes: int = 2, covariates: CovariateScaling | None = None,
) -> ResidualForecaster:  # fmt: skip
    """An untrained forecaster; the baseline that it corrects is fitted on `windows()`, some of the training part.

    `statistics` are of the transformed variables over the training part; `axes` of space: 2 of images, 3 of volumes.
    """
    from models.history_forecaster import build_history_forecaster
    from models.networks.pixel_history import PixelHistorySettings
    from models.residual_forecaster import Scaling, build_forecaster

    model, samples = run.network, run.samples
    assert isinstance(samples.context, int), "resolved by `Forecast.resolve`"
    if axes > 2 and model.kind == "simvp":
        raise RequestError("model.kind: simvp is for images, these are volumes; take convlstm, convgru, trajgru or predrnn")
    if axes > 2 and (moving := [name for name in (*run.evaluation.baselines, model.baseline) if name in MOVING_BASELINES]):
        where = "model.baseline" if model.baseline in moving else "evaluation.baselines"
        raise RequestError(f"{where}: {moving[-1]} is for images, these are volumes; take it out")
    corrected = None if model.baseline == "none" else build_corrected(model.baseline, windows)
    scaling = Scaling(statistics.mean, statistics.std, tuple(v.transform for v in samples.variables), step_days)
    chosen = {"context": samples.context, "horizon": samples.horizon, "members": model.members, "seed": run.training.seed}
    if isinstance(model, HistoryModel):
        network = PixelHistorySettings(tuple(model.hidden), model.lags, model.dropout)
        return build_history_forecaster(corrected, scaling, **chosen, network=network, axes=axes, covariates=covariates)
    frames = build_network(model, samples.context, samples.horizon)
    return build_forecaster(corrected, scaling, **chosen, network=frames, axes=axes, covariates=covariates)


# ---------------------------------------------------------------- training


def build_training_settings(run: ForecastRun) -> TrainingSettings:
    from pipelines.learning.training import TrainingSettings

    own, sampling = {"loss", "augment", "centre_dates", "refit", "start_from", "sampling"}, run.training.sampling
    return TrainingSettings(**run.training.model_dump(exclude=own), sampling=None if sampling is None else sampling.build())


# ---------------------------------------------------------------- evaluation

MODEL: Literal["model"] = "model"  # the network's name beside the baselines in every table
COMBINATION: Literal["combination"] = "combination"  # the mean of several methods, likewise
Method = Baseline | Literal["model", "combination"]
# baselines that forecast a training window from other dates than its own: their errors of all the past make the intervals
FROM_THE_PAST: tuple[Baseline, ...] = (
    "persistence", "climatology", "same_date_last_year", "median_anomaly", "decaying_anomaly", "harmonic", *MOVING_BASELINES,
    *OWN_BASELINES,
)  # fmt: skip


def from_the_past(members: Sequence[Method]) -> tuple[Method, ...]:
    """Those of `FROM_THE_PAST`, and the combination of `members` where all of them are."""
    is_alike = bool(members) and all(name in FROM_THE_PAST for name in members)
    return (*FROM_THE_PAST, COMBINATION) if is_alike else FROM_THE_PAST


def build_evaluation_settings(run: ForecastRun) -> EvaluationSettings:
    from pipelines.learning.evaluation import EvaluationSettings
    from pipelines.learning.threshold_scores import Thresholds

    chosen = run.evaluation
    names = tuple(v.name for v in run.samples.variables)
    thresholds = Thresholds(tuple(chosen.thresholds), chosen.threshold_scale, chosen.threshold_unit)
    return EvaluationSettings(MODEL, names, chosen.margin, chosen.confidence, chosen.publish, thresholds)
