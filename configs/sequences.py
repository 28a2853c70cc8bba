"""Networks of whole sequences and their training: what the tasks on samples share. Schema, checks, objects."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, assert_never

from pydantic import Field

from configs.cube_windows import WindowsSource
from configs.networks import Channels
from configs.privacy import PrivacyConfig
from configs.run import ModelConfig, Run, TrainingDefaults
from configs.samples import FramesConfig, SampleAugmentConfig, SampleLabels, SampleSplitConfig, SamplesSource
from configs.schema import Finding, Sections, Strict
from configs.sweep import Sweep

if TYPE_CHECKING:
    from models.sequence_model import SequenceModel
    from pipelines.learning.sample_training import SampleRecipe
    from pipelines.samples.labelled import SplitSettings
    from pipelines.samples.sample_store import SampleLayout

MODEL = "model"  # its name beside the references in every table
ONE_IMAGE = ("row_rnn", "row_lstm", "row_gru", "region_rnn", "region_lstm", "region_gru")

# ---------------------------------------------------------------- schema


class SampleModelConfig(ModelConfig):
    """A network that reads samples; `kind` names it."""

    @abstractmethod
    def description(self, layout: SampleLayout) -> dict[str, Any]:
        """What `models.sequence_model.rebuild_network` takes, without the outputs."""


class SequenceModelConfig(SampleModelConfig):
    """The network of whole sequences. Of one image: row_* (its rows), region_* (its patches). Of frames: cnn_* (an encoder for
    each frame, then a recurrent layer; cnn_tcn: dilated convolutions over time), dcrn, convgru, convlstm (convolution, pooling,
    convolutional recurrence), frame_cnn (no recurrence). Of volumes: volume_*."""

    kind: Literal[
        "row_rnn", "row_lstm", "row_gru", "region_rnn", "region_lstm", "region_gru", "cnn_rnn", "cnn_lstm", "cnn_gru",
        "cnn_tcn", "dcrn", "convgru", "convlstm", "frame_cnn", "volume_rnn", "volume_lstm", "volume_gru",
    ] = Field("cnn_lstm", description="the network")  # fmt: skip
    hidden: Channels = Field(64, description="units of recurrent layers over vectors, channels of cnn_tcn")
    layers: int = Field(
        1, ge=1, le=8, description="recurrent layers over vectors; of cnn_tcn blocks, each of which looks back twice as far"
    )
    bidirectional: bool = Field(False, description="a second recurrent layer reads from the end to the begin")
    widths: list[Channels] = Field([16, 32], min_length=1, description="channels of each scale (dcrn and its kin: of each block)")
    grid: int = Field(
        1, ge=1, le=16, description="of cnn_*, frame_cnn and volume_*: features of so many parts along each axis; 1: only the "
        "mean over the frame, which does not say where something is. Motion needs more",
    )  # fmt: skip
    patch_px: int = Field(8, ge=2, description="side of the patches of region_*")
    kernel: Literal[1, 3, 5, 7] = Field(
        3, description="side of the convolutions in the recurrence of dcrn, convgru, convlstm; steps of those of cnn_tcn"
    )
    flattened: bool = Field(False, description="dcrn and its kin: the dense layer reads the whole last map, not its mean")
    per_step: bool = Field(False, description="an answer after every frame (or row); the sample's is their mean")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of features dropped in training")
    detach_every: int = Field(0, ge=0, description="dcrn and its kin: frames after which the gradient is cut; 0: never")
    checkpointed: bool = Field(False, description="dcrn and its kin: less memory in training, a third more time")

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        frames = sections.get("frames")
        count, size = getattr(frames, "count", None), getattr(frames, "size", None)
        if self.kind in ONE_IMAGE and count not in (None, 1):
            yield Finding(
                ("model", "kind"), f"{self.kind} reads one image, frames.count is {count}", "frames.count: 1, or cnn_lstm"
            )
        if self.use is None and self.kind not in ONE_IMAGE and not self.per_step:
            if getattr(sections.get("labels"), "spans", None) is not None:
                yield Finding(
                    ("model", "per_step"), "answers once for a sample, labels.spans asks for each frame", "per_step: true"
                )
            if getattr(sections.get("prediction"), "per_step", False):
                yield Finding(("model", "per_step"), "answers once for a sample, so there is none of frames", "per_step: true")
        if self.kind in ONE_IMAGE and getattr(sections.get("labels"), "spans", None) is not None:
            yield Finding(("model", "kind"), f"{self.kind} reads one image, labels.spans are of frames", "cnn_lstm")
        if size is not None and (len(size) == 3) != self.kind.startswith("volume"):
            kind = "images" if len(size) == 2 else "volumes"
            yield Finding(("model", "kind"), f"{self.kind} is not for {kind}", f"frames.size says {kind}: cnn_* or volume_*")

    def description(self, layout: SampleLayout) -> dict[str, Any]:
        recurrent = {"hidden": self.hidden, "layers": self.layers, "bidirectional": self.bidirectional}
        widths, grid, own = {"widths": list(self.widths)}, {"grid": self.grid}, dict[str, Any]()
        match self.kind:  # mypy finds a kind without an arm
            case "row_rnn" | "row_lstm" | "row_gru":
                own = recurrent
            case "region_rnn" | "region_lstm" | "region_gru":
                own = {**recurrent, **widths, "patch_px": self.patch_px}
            case "cnn_rnn" | "cnn_lstm" | "cnn_gru":
                own = {**recurrent, **widths, **grid}
            case "cnn_tcn":
                own = {**widths, **grid, "hidden": self.hidden, "layers": self.layers, "kernel": self.kernel}
            case "volume_rnn" | "volume_lstm" | "volume_gru":
                own = {**recurrent, **widths, **grid, "depth": layout.size[0]}
            case "frame_cnn":
                own = {**widths, **grid}
            case "dcrn" | "convgru" | "convlstm":
                names = ("kernel", "bidirectional", "flattened", "detach_every", "checkpointed")
                own = {**widths, **{name: getattr(self, name) for name in names}}
            case other:
                assert_never(other)
        size = {"bands": len(layout.bands), "height": layout.size[-2], "width": layout.size[-1]}
        return {"kind": self.kind, "dropout": self.dropout, "per_step": self.per_step, **size, **own}


class SequenceTraining(TrainingDefaults):
    """How each network is trained."""

    optimizer: Literal["adamw", "adam", "sgd", "rmsprop"] = Field("adamw", description="sgd: with momentum 0.9")
    per_epoch: int | None = Field(None, ge=1, description="samples of an epoch; default: all")
    augment: SampleAugmentConfig = SampleAugmentConfig()
    epochs: int = Field(30, ge=1, description="at most")
    batch: int = Field(32, ge=1, description="samples of one step")
    learning_rate: float = Field(2e-3, gt=0, description="largest one of the cycle")
    weight_decay: float = Field(1e-2, ge=0, description="of weights, not of biases")
    patience: int = Field(10, ge=1, description="epochs without a smaller validation loss after which training ends")


class SamplePrediction(Strict):
    """What is answered, and what is shown of it."""

    explain: int = Field(3, ge=0, le=12, description="samples of which a picture shows what the network looked at")
    map: bool = Field(False, description="of windows of a cube: the answer of every pixel, as a raster")

    def check(self, sections: Sections) -> Iterator[Finding]:
        source = sections.get("source")
        if self.map and source is not None and not isinstance(source, WindowsSource):
            yield Finding(("prediction", "map"), "is of windows of a cube", "take it out, or source: {kind: windows}")


class LabelPrediction(SamplePrediction):
    """What is answered, and what is shown of it."""

    per_step: bool = Field(
        False,
        description="a line for each span of frames with one answer, in place of one for each sample; so it is with labels.spans",
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        if self.per_step and self.map:
            yield Finding(
                ("prediction", "map"), "is one answer for each pixel, prediction.per_step asks for many", "take one out"
            )


class SampleRun(Run):
    """What every run on samples has: what comes in, what is known, how it is split, what is learnt."""

    source: SamplesSource = Field(description="where the samples come from")
    frames: FramesConfig = FramesConfig()
    labels: SampleLabels | None = Field(None, description="what is known; not needed where `model.use` names a model")
    split: SampleSplitConfig = SampleSplitConfig()
    model: SampleModelConfig
    training: SequenceTraining = SequenceTraining()
    prediction: Strict
    sweep: Sweep = None
    privacy: PrivacyConfig | None = Field(
        None,
        exclude_if=lambda value: value is None,  # runs on what is not of patients do not depend on it
        description="of files of patients: samples and groups then have keyed names; default: files are read as they are, and "
        "DICOM and NIfTI files are refused",
    )


# ---------------------------------------------------------------- objects


def build_learner(
    model: SampleModelConfig, layout: SampleLayout, outputs: tuple[str, ...], seed: int, *, is_number: bool = False
) -> SequenceModel:
    """An untrained model of one network. Raises RequestError where the network cannot read such frames."""
    from models.sequence_model import build_sequence_model
    from pipelines.errors import RequestError

    described = model.description(layout)
    kind = described["kind"]
    if kind in ONE_IMAGE and layout.frames != 1:
        raise RequestError(f"{kind} reads one image, the samples have {layout.frames} frames: frames.count: 1, or cnn_lstm")
    if (len(layout.size) == 3) != kind.startswith("volume"):
        held, others = ("volumes", "volume_lstm") if len(layout.size) == 3 else ("images", "cnn_lstm")
        raise RequestError(f"{kind} does not read {held}; set model.kind to {others}")
    return build_sequence_model(described, outputs, 1, seed, is_number=is_number)


def build_split(split: SampleSplitConfig) -> SplitSettings:
    from pipelines.samples.labelled import SplitSettings

    return SplitSettings(**split.model_dump())


def build_recipe(run: SampleRun, loss: str, smoothing: float = 0.0, draw: str = "samples", *, per_step: bool) -> SampleRecipe:
    """How a network of the run is trained, with that loss."""
    from models.sequence_losses import sequence_loss
    from pipelines.learning.sample_training import SampleRecipe
    from pipelines.learning.training import TrainingSettings
    from pipelines.samples.sample_windows import SampleAugmentation

    chosen = run.training
    named = chosen.model_dump(include=set(TrainingSettings.__dataclass_fields__) - {"seed"})
    return SampleRecipe(
        sequence_loss(loss),
        lambda seed: TrainingSettings(**named, seed=seed),
        SampleAugmentation(**chosen.augment.model_dump()),
        chosen.seed,
        chosen.per_epoch,
        per_step,
        smoothing,
        draw,
    )
