"""`task: pretrain`: a network of class maps or of change learns from images without labels. Schema, checks, objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from configs.labels import build_span
from configs.networks import CHANGE_NETWORKS, PAIR_NETWORKS, RECURRENT_UNETS, ClassModel
from configs.run import CubeRun, TrainingDefaults, VariableConfig
from configs.schema import Finding, Fraction, Sections, Seed, Strict, UtcDate
from configs.sites import PairsConfig, SitesSource
from configs.sources import Source
from configs.tasks.segment import name_variables

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from models.filler import Filler
    from pipelines.learning.training import TrainingSettings
    from pipelines.samples.hidden_windows import HiddenSettings, Hiding
    from pipelines.samples.labels import Span

__all__ = ["PretrainRun", "name_variables"]

# ---------------------------------------------------------------- schema


class SpanConfig(Strict):
    """A span of time."""

    start: UtcDate = Field(description="its first day")
    stop: UtcDate = Field(description="the day after its last one")


class PretrainModel(ClassModel):
    """The network that is pretrained, as `model` of `task: segment` (or, of the same kind, of `task: change`) will have it."""

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        if self.kind in PAIR_NETWORKS:
            problem = f"{self.kind} sees a pixel only where both dates are valid: nothing hidden can be filled"
            yield Finding(("model", "kind"), problem, "siamese_dcrn or l_unet, or a network of class maps")
        if self.use is not None:
            yield Finding(("model", "use"), "names a model that is used as it is, and this run trains one", "take it out")


class PretrainSplit(Strict):
    """What validates. Nothing is tested here: what is tested later is left out by `source.sites` and `spans`."""

    block_px: int = Field(8, ge=1, description="side of the blocks that are held out whole; of several sites whole ones are")
    validation: Fraction = Field(0.2, description="share of the blocks, or sites, whose loss chooses the epoch")
    seed: Seed = Field(0, description="of the choice of blocks")

    def check(self, sections: Sections) -> Iterator[Finding]:
        is_of_sites = isinstance(sections.get("source"), SitesSource)
        if sections.get("pairs") and not is_of_sites:
            yield Finding(("pairs",), "are the dates of a site, and the source has none", "source: {kind: sites}, or take it out")
        if sections.get("pairs") and any(one.formula != "band" for one in sections.get("variables") or ()):
            yield Finding(("variables",), "indices of bands cannot be made comparable by `pairs`", "leave one of both out")
        if sections.get("spans") and is_of_sites:
            yield Finding(("spans",), "are of one cube; of a site all dates are one series", "take them out")
        for number, one in enumerate(sections.get("spans") or ()):
            if one.start >= one.stop:
                yield Finding(("spans", number, "stop"), "the span ends before it begins")


class PretrainTraining(TrainingDefaults):
    """What is hidden, and how the network learns to fill it."""

    objective: Literal["hidden_frames", "forecast"] = Field(
        "hidden_frames", description="fill what is hidden on dates anywhere, or forecast the dates after a random one"
    )
    hidden: Fraction = Field(0.3, description="of hidden_frames: share of the dates, or of the squares, that is hidden")
    patch_px: int = Field(
        0, ge=0, description="of hidden_frames: side of the squares that are hidden on each date; 0: dates are hidden whole"
    )
    horizon: int = Field(3, ge=1, description="of forecast: dates after the last visible one that count")
    loss: Literal["mae", "mse", "huber"] = Field("mae", description="over what is hidden and usable, in standard deviations")
    features: int = Field(16, ge=1, description="numbers that the network gives for a pixel, from which dates are filled")
    window_px: int = Field(8, ge=1, description="side of a window, which lies within a block (or site)")
    windows: int = Field(512, ge=1, description="windows of an epoch")
    symmetries: bool = Field(True, description="rotate and mirror windows")
    jitter_days: float = Field(8.0, ge=0, description="all dates of a window moved by up to so many days")
    epochs: int = Field(30, ge=1, description="at most")
    batch: int = Field(16, ge=1, description="windows of one step")
    learning_rate: float = Field(5e-3, gt=0, description="largest one of the cycle")
    weight_decay: float = Field(1e-2, ge=0, description="of AdamW")
    patience: int = Field(15, ge=1, description="epochs without a smaller validation loss after which training ends")


class PretrainRun(CubeRun):
    """Pretraining: images without labels in, a model to begin from (`training.start_from`) out."""

    task: Literal["pretrain"]
    source: Annotated[Source | SitesSource, Field(discriminator="kind")] = Field(  # type: ignore[assignment]
        description="where the scenes come from; sites have a cube each"
    )
    variables: list[VariableConfig] = Field([], description="what the model sees; default: every band as it is")
    pairs: PairsConfig | None = Field(
        None, description="the dates of a site are made comparable as for `task: change`; default: values as they are"
    )
    spans: list[SpanConfig] = Field(
        [], description="what is read of a cube, a series each whose dates count from its start; default: all dates as one"
    )
    split: PretrainSplit = PretrainSplit()
    model: PretrainModel = PretrainModel()
    training: PretrainTraining = PretrainTraining()


# ---------------------------------------------------------------- objects


def build_spans(run: PretrainRun) -> list[Span]:
    """Those of the config, none for all dates as one."""
    found = [build_span(one) for one in run.spans]
    return [span for span in found if span is not None]


def build_learner(run: PretrainRun, bands: int, axes: int = 2, year_days: float = 365.25) -> Filler:
    """An untrained network; `axes` and `year_days` as of `configs.tasks.segment.build_learner`."""
    from models.filler import build_filler

    own: dict[str, Any] = {"kernel": 1} if axes == 3 and run.model.kind in RECURRENT_UNETS else {}
    of_data: dict[str, Any] = {"bands": bands}
    if run.model.kind not in CHANGE_NETWORKS:
        usual = {"axes": (axes, 2), "year_days": (year_days, 365.25)}
        of_data |= {name: value for name, (value, default) in usual.items() if value != default}
    return build_filler({**own, **run.model.description, **of_data}, run.training.features, run.training.seed)


def build_hiding(training: PretrainTraining) -> Hiding:
    from pipelines.samples.hidden_windows import Hiding

    if training.objective == "forecast":
        return Hiding(horizon=training.horizon)
    return Hiding(training.hidden, training.patch_px)


def build_windows(training: PretrainTraining) -> HiddenSettings:
    from pipelines.samples.hidden_windows import HiddenSettings

    return HiddenSettings(training.window_px, training.windows, training.symmetries, training.jitter_days)


def build_training_settings(training: PretrainTraining) -> TrainingSettings:
    from pipelines.learning.training import TrainingSettings

    own = {"objective", "hidden", "patch_px", "horizon", "loss", "features", "window_px", "windows", "symmetries", "jitter_days"}
    return TrainingSettings(**training.model_dump(exclude=own))


def build_loss(training: PretrainTraining) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    from models.losses import masked_huber, masked_mae, masked_mse

    return {"mae": masked_mae, "mse": masked_mse, "huber": masked_huber}[training.loss]
