"""`task: forecast`: its config, what the schema of the config cannot say, and the objects that it describes.

Packages are imported where they are needed: a command that only reads a cube must not wait for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from configs.build import build_variables
from configs.findings import Finding
from configs.networks import ConvLSTMModel, Model, build_network
from configs.run import CubeRun, Sections, VariableConfig, check_variable
from configs.sources import Source
from configs.types import Fraction, Strict, UtcDate
from configs.yaml_positions import Key

if TYPE_CHECKING:
    from torch import Tensor

    from models.baselines.climatology import Climatology
    from models.baselines.decaying_anomaly import DecayingAnomaly
    from models.baselines.persistence import Persistence
    from models.residual_forecaster import ResidualForecaster
    from pipelines.learning.evaluation import EvaluationSettings
    from pipelines.learning.training import TrainingSettings
    from pipelines.predictors import Forecaster
    from pipelines.progress import Progress
    from pipelines.samples.prepare import ChannelStatistics, SampleSettings
    from pipelines.samples.sampling import WindowArrays

# ---------------------------------------------------------------- schema


class StepsConfig(Strict):
    """How irregular dates become steps."""

    mode: Literal["observed", "regular"] = "observed"
    every_days: float | None = Field(None, gt=0, description="regular: distance of steps; minutes are fractions")
    tolerance_days: float | None = Field(None, gt=0, description="regular: how far the nearest date may lie")


class SamplesConfig(Strict):
    variables: list[VariableConfig] = Field(min_length=1)
    context: int = Field(10, ge=1)
    horizon: int = Field(5, ge=1)
    stride: int = Field(1, ge=1, description="steps between the issue dates of consecutive training windows")
    steps: StepsConfig = StepsConfig()
    min_valid_fraction: float = Field(0.1, ge=0, le=1, description="windows with a smaller share of usable targets are left out")


class SplitConfig(Strict):
    """Blocks in space with a buffer and a gap in time."""

    block_px: int = Field(64, ge=8)
    buffer_px: int = Field(2, ge=0)
    test_fraction: Fraction = 0.2
    validation_fraction: Fraction = 0.2
    validation_from: UtcDate
    test_from: UtcDate
    gap_days: float = Field(0, ge=0)
    seed: int = 0


class TrainingConfig(Strict):
    epochs: int = Field(30, ge=1)
    batch: int = Field(16, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    loss: Literal["mae", "mse", "huber"] = "huber"
    clip: float = Field(1.0, gt=0)
    patience: int = Field(6, ge=1)
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = Field(1, ge=1)
    augment: bool = Field(True, description="rotate and mirror training windows")
    centre_dates: bool = Field(
        False,
        description="do not learn what all pixels of a window share on a date beyond the baseline (haze, a late spring)",
    )
    seed: int = 0


Baseline = Literal["persistence", "climatology", "decaying_anomaly", "harmonic", "gradient_boosting"]


class EvaluationConfig(Strict):
    baselines: list[Baseline] = Field(["persistence", "climatology", "decaying_anomaly", "harmonic", "gradient_boosting"])
    must_beat: list[Baseline] = Field(["persistence", "climatology"])
    publish_if: Literal["smaller_error", "beyond_doubt"] = Field(
        "smaller_error",
        description="against must_beat: an error smaller by the margin, or in addition an interval of skill that lies above 0",
    )
    margin: Fraction = Field(
        0.01, description="smallest difference that matters, a share of the baseline's error; a smaller one is called equal"
    )
    confidence: Fraction = 0.95
    interval: Fraction = Field(0.9, description="nominal coverage of the prediction intervals")


MAX_SEAM = 0.1


class PredictionConfig(Strict):
    issue: UtcDate | Literal["latest"] = Field("latest", description="the last date that the forecast may use")
    dates: list[UtcDate] | None = Field(None, description="what to forecast; default: the next observed or regular steps")
    tile_px: int = Field(256, ge=16)
    workers: int = Field(1, ge=1)
    max_seam: float = Field(
        MAX_SEAM,
        gt=0,
        # not written out while it is the default: products of networks with a finite halo do not depend on it
        exclude_if=lambda value: value == MAX_SEAM,
        description="networks without a finite halo: how far overlapping tiles may disagree, in half widths of the intervals",
    )


class ForecastRun(CubeRun):
    """A forecast: what comes in, what is learnt, what goes out."""

    task: Literal["forecast"] = "forecast"
    samples: SamplesConfig
    split: SplitConfig
    model: Model = ConvLSTMModel()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    prediction: PredictionConfig = PredictionConfig()

    @classmethod
    def check(cls, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        yield from check_forecast(sections)


# ---------------------------------------------------------------- checks


def check_forecast(sections: Sections) -> Iterator[Finding]:
    """What a schema cannot say: values of different keys that do not fit each other."""
    samples: SamplesConfig | None = sections.get("samples")
    if samples is not None:
        yield from _check_variables(samples, sections.get("source"))
        yield from _check_steps(samples)
    for name, check in (("split", _check_split), ("evaluation", _check_evaluation)):
        if sections.get(name) is not None:
            yield from check(sections[name])
    if sections.get("prediction") is not None:
        yield from _check_prediction(sections["prediction"], samples)


def _check_variables(samples: SamplesConfig, source: Source | None) -> Iterator[Finding]:
    bands = [band.name for band in source.bands] if source is not None else None
    names: set[str] = set()
    for index, variable in enumerate(samples.variables):
        key: Key = ("samples", "variables", index)
        if variable.name in names:
            yield Finding((*key, "name"), f"variable {variable.name!r} is listed twice")
        names.add(variable.name)
        yield from check_variable(key, variable, bands)


def _check_steps(samples: SamplesConfig) -> Iterator[Finding]:
    steps = samples.steps
    if steps.mode == "regular" and steps.every_days is None:
        yield Finding(("samples", "steps"), "regular steps need every_days", "for example every_days: 16")
    if steps.mode == "observed":
        for name in ("every_days", "tolerance_days"):
            if getattr(steps, name) is not None:
                yield Finding(
                    ("samples", "steps", name), "has no meaning for observed steps", "add mode: regular, or take it out"
                )
    if steps.every_days and steps.tolerance_days and steps.tolerance_days > steps.every_days:
        yield Finding(("samples", "steps", "tolerance_days"), "is longer than a step", "at most every_days; half of it is usual")


def _check_split(split: SplitConfig) -> Iterator[Finding]:
    if split.test_from <= split.validation_from:
        problem = f"test_from ({split.test_from:%Y-%m-%d}) must be after validation_from ({split.validation_from:%Y-%m-%d})"
        yield Finding(("split", "test_from"), problem, "time runs training, validation, test")
    elif (split.test_from - split.validation_from).days < split.gap_days:
        yield Finding(
            ("split", "gap_days"), "the gap swallows the validation period", "a shorter gap or an earlier validation_from"
        )
    if split.test_fraction + split.validation_fraction >= 1:
        problem = "test_fraction + validation_fraction leave no block to train on"
        yield Finding(("split", "test_fraction"), problem, "together they must stay under 1")
    if 2 * split.buffer_px >= split.block_px:
        problem = f"a buffer of {split.buffer_px} on both sides leaves nothing of a block of {split.block_px} pixels"
        yield Finding(("split", "buffer_px"), problem, f"at most {(split.block_px - 1) // 2}")


def _check_evaluation(evaluation: EvaluationConfig) -> Iterator[Finding]:
    for index, name in enumerate(evaluation.must_beat):
        if name not in evaluation.baselines:
            problem = f"{name!r} must be beaten but is not among the baselines that are computed"
            yield Finding(("evaluation", "must_beat", index), problem, f"add {name} to evaluation.baselines")


def _check_prediction(prediction: PredictionConfig, samples: SamplesConfig | None) -> Iterator[Finding]:
    dates = prediction.dates
    if dates is None:
        return
    key: Key = ("prediction", "dates")
    if not dates:
        yield Finding(key, "the list is empty", "name at least one date, or leave it out for the next steps")
    if list(dates) != sorted(set(dates)):
        yield Finding(key, "the dates must rise and not repeat")
    if dates and prediction.issue != "latest" and min(dates) <= prediction.issue:
        problem = f"{min(dates):%Y-%m-%d} is not after the issue date {prediction.issue:%Y-%m-%d}"
        yield Finding(key, problem, "a forecast looks ahead: later dates, or an earlier issue")
    if samples is not None and len(dates) > samples.horizon:
        problem = f"{len(dates)} dates, but the model forecasts {samples.horizon} steps"
        yield Finding(key, problem, "fewer dates, or a longer samples.horizon (and train again)")


# ---------------------------------------------------------------- samples


def build_samples(run: ForecastRun) -> SampleSettings:
    """What samples are made of, and where and when they may come from."""
    from pipelines.samples.plan import Sampling, Split
    from pipelines.samples.prepare import SampleSettings

    samples = run.samples
    return SampleSettings(
        build_variables(samples.variables),
        Split(**run.split.model_dump()),
        Sampling(**samples.steps.model_dump()),
        samples.context,
        samples.horizon,
        samples.stride,
        samples.min_valid_fraction,
    )


# ---------------------------------------------------------------- models


def build_forecaster(
    run: ForecastRun, windows: Callable[[], Iterable[WindowArrays]], statistics: ChannelStatistics, step_days: float
) -> ResidualForecaster:
    """An untrained forecaster; the baseline that it corrects is fitted on `windows()`, some of the training part.

    `statistics` are of the transformed variables over the training part.
    """
    from models.residual_forecaster import Scaling, build_forecaster

    model, samples = run.model, run.samples
    corrected = None if model.baseline == "none" else build_corrected(model.baseline, windows)
    return build_forecaster(
        corrected,
        Scaling(statistics.mean, statistics.std, tuple(v.transform for v in samples.variables), step_days),
        context=samples.context,
        horizon=samples.horizon,
        members=model.members,
        network=build_network(model),
        seed=run.training.seed,
    )


def build_baselines(run: ForecastRun, windows: Callable[[], Iterable[WindowArrays]], progress: Progress) -> dict[str, Forecaster]:
    """The baselines of the evaluation by name, fitted on `windows()`."""
    names = run.evaluation.baselines
    baselines: dict[str, Forecaster] = {}
    for done, name in enumerate(names):
        progress(done, len(names))
        baselines[name] = build_baseline(name, run.training.seed, windows)
    return baselines


def build_baseline(name: Baseline, seed: int, windows: Callable[[], Iterable[WindowArrays]]) -> Forecaster:
    """A baseline that answers `forecast`, fitted on `windows()` where it has numbers of its own."""
    from models.baselines.decaying_anomaly import DecayingAnomaly
    from models.baselines.gradient_boosting import GradientBoosting
    from models.baselines.harmonic import HarmonicRegression

    match name:
        case "harmonic":
            return HarmonicRegression()
        case "gradient_boosting":
            return GradientBoosting(DecayingAnomaly().fit(windows()), seed=seed).fit(windows())
        case _:
            return build_corrected(name, windows)


def build_corrected(
    name: Literal["persistence", "climatology", "decaying_anomaly"], windows: Callable[[], Iterable[WindowArrays]]
) -> Persistence | Climatology | DecayingAnomaly:
    """A baseline that a network can correct."""
    from models.baselines.climatology import Climatology
    from models.baselines.decaying_anomaly import DecayingAnomaly
    from models.baselines.persistence import Persistence

    match name:
        case "persistence":
            return Persistence()
        case "climatology":
            return Climatology().fit(windows())
        case "decaying_anomaly":
            return DecayingAnomaly().fit(windows())


# ---------------------------------------------------------------- training


@dataclass(frozen=True)
class NormalisedLoss:
    """A loss over transformed, standardised values, so that channels weigh alike and a huber's bend means one deviation."""

    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    normalise: Callable[[Tensor], Tensor]

    def __call__(self, y_BKCHW: Tensor, target_BKCHW: Tensor, valid_BK1HW: Tensor) -> Tensor:
        return self.loss(self.normalise(y_BKCHW), self.normalise(target_BKCHW), valid_BK1HW)


def build_loss(run: ForecastRun, forecaster: ResidualForecaster) -> NormalisedLoss:
    from models.losses import masked_huber, masked_mae, masked_mse

    match run.training.loss:
        case "mae":
            loss = masked_mae
        case "mse":
            loss = masked_mse
        case "huber":
            loss = masked_huber
    return NormalisedLoss(loss, forecaster.normalise)


def build_target(run: ForecastRun) -> Callable[[dict[str, Tensor]], Tensor]:
    """What the networks learn from a batch: the truth, or the truth without the date's common part."""
    from models.losses import centred_target

    return centred_target if run.training.centre_dates else itemgetter("target_KCHW")


def build_training_settings(run: ForecastRun) -> TrainingSettings:
    from pipelines.learning.training import TrainingSettings

    return TrainingSettings(**run.training.model_dump(exclude={"loss", "augment", "centre_dates"}))


# ---------------------------------------------------------------- evaluation

MODEL = "model"  # the forecaster's name beside its baselines in every table


def build_evaluation_settings(run: ForecastRun) -> EvaluationSettings:
    from pipelines.learning.evaluation import EvaluationSettings

    chosen = run.evaluation
    names = tuple(v.name for v in run.samples.variables)
    return EvaluationSettings(
        MODEL,
        tuple(chosen.must_beat),
        names,
        chosen.margin,
        chosen.confidence,
        publish_if=chosen.publish_if,
    )
