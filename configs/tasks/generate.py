"""`task: generate`: new images, pixel by pixel, by networks that learnt from images without labels. Schema, checks, objects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, assert_never

from pydantic import Field

from configs.networks import Channels
from configs.run import ModelConfig, Run, TrainingDefaults
from configs.samples import FramesConfig, IdxSource
from configs.schema import Finding, Fraction, Name, Sections, Seed, Strict, check_must_equal
from configs.sequences import MODEL
from configs.sweep import Sweep

if TYPE_CHECKING:
    from models.pixel_model import PixelModel
    from pipelines.learning.image_evaluation import AskedImages
    from pipelines.learning.training import TrainingSettings
    from pipelines.samples.binary_images import Binarisation
    from pipelines.samples.labelled import SplitSettings

MOST_PIXELS = 10_000  # of an image, for the reference `logistic`: 1.6 GB
ReferenceName = Literal["independent", "mixture", "logistic"]

# ---------------------------------------------------------------- schema


class BinariseConfig(Strict):
    """How grey values become 0 and 1."""

    how: Literal["sampled", "threshold"] = Field(
        "sampled",
        description="sampled: 1 with the probability value / white, drawn once, the same in all epochs; threshold: 1 above it",
    )
    threshold: Fraction = Field(0.5, description="share of white")
    white: float | None = Field(None, gt=0, description="the stored value that is surely 1; default: the type's largest")
    seed: Seed = Field(0, description="of what is drawn")


class ImageSplitConfig(Strict):
    """Which images test: the part that the data set names, or whole groups; what is left learns and validates."""

    test: Name | None = Field(None, description="the part that tests (e.g. t10k)")
    folds: int = Field(5, ge=2, le=50, description="without such a part one in so many groups tests")
    validation_parts: int = Field(5, ge=2, description="one in so many of the other groups chooses the epoch")
    seed: Seed = Field(0, description="of the assignment of groups")


class PixelModelConfig(ModelConfig):
    """The network. masked_row_lstm: the Row LSTM of van den Oord et al. 2016, which sees a triangle of earlier pixels. pixel_rnn:
    a recurrent layer over all pixels in raster order, which can remember all of them."""

    kind: Literal["masked_row_lstm", "pixel_rnn"] = Field("pixel_rnn", description="the network")
    hidden: Channels = Field(96, description="units of a recurrent layer; of masked_row_lstm per column: 16 to 32")
    layers: int = Field(1, ge=1, le=12, description="recurrent layers")
    kernel: Literal[3, 5, 7] = Field(3, description="of masked_row_lstm: columns of the row above that a step reads")
    head: Channels = Field(64, description="of masked_row_lstm: features between the last two convolutions")
    cell: Literal["lstm", "gru", "rnn"] = Field("lstm", description="of pixel_rnn")
    above: int = Field(2, ge=0, le=8, description="of pixel_rnn: rows above that are read beside the pixel before")
    embedding: Channels = Field(32, description="of pixel_rnn: features of what is read at a pixel")

    def description(self, size: tuple[int, int]) -> dict[str, Any]:
        """What `models.pixel_model.rebuild_network` takes."""
        names: tuple[str, ...]
        match self.kind:
            case "masked_row_lstm":
                names = ("hidden", "layers", "kernel", "head")
            case "pixel_rnn":
                names = ("hidden", "layers", "cell", "above", "embedding")
            case other:
                assert_never(other)
        return {"kind": self.kind, "height": size[0], "width": size[1], **{name: getattr(self, name) for name in names}}

    def flops(self, size: tuple[int, int]) -> int:
        """Operations of the network for one image, as its own `image_flops` has them; a plan need not load torch for it."""
        hidden, wide = self.hidden, 2 * self.hidden
        match self.kind:
            case "masked_row_lstm":
                layer = 4 * hidden * (wide * (self.kernel // 2 + 1) + hidden * self.kernel) + wide * hidden
                weights = 49 * wide + self.layers * layer + (wide + 1) * self.head
            case "pixel_rnn":
                gates, window = {"lstm": 4, "gru": 3, "rnn": 1}[self.cell], 1 + self.above * (2 * self.above + 2)
                inputs = self.embedding + (self.layers - 1) * hidden  # of all layers
                weights = window * self.embedding + gates * hidden * (inputs + self.layers * hidden) + hidden
            case other:
                assert_never(other)
        return 2 * size[0] * size[1] * weights


class GenerateTraining(TrainingDefaults):
    """How the network is trained; the loss is minus the logarithm of the probability of an image."""

    optimizer: Literal["adamw", "adam", "sgd", "rmsprop"] = Field("adamw", description="sgd: with momentum 0.9")
    per_epoch: int | None = Field(None, ge=1, description="images of an epoch, drawn anew; default: all")
    epochs: int = Field(6, ge=1, description="at most")
    batch: int = Field(64, ge=1, description="images of one step")
    learning_rate: float = Field(1e-2, gt=0, description="largest one of the cycle")
    weight_decay: float = Field(1e-4, ge=0, description="of weights, not of biases")
    patience: int = Field(10, ge=1, description="epochs without a smaller validation loss after which training ends")


class GenerateEvaluation(Strict):
    """What the probabilities of held-out images are measured against, in nats per image."""

    references: list[ReferenceName] = Field(
        ["independent", "mixture", "logistic"],
        description="on the same images; independent: the mean image, mixture: several mean images (EM), logistic: each pixel "
        "on all before it",
    )
    must_equal: list[ReferenceName] = Field(
        ["independent", "mixture"], description="references that may not be better beyond the interval"
    )
    components: int = Field(50, ge=2, le=1000, description="of the mixture")
    max_nats: float | None = Field(None, gt=0, description="most nats per image")
    margin: float = Field(0.5, ge=0, description="smallest difference in nats per image that matters")
    confidence: Fraction = Field(0.95, description="of the intervals")

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from check_must_equal(self.must_equal, self.references)


class GeneratePrediction(Strict):
    """What is drawn."""

    images: int = Field(64, ge=1, le=10_000, description="new images")
    completed: int = Field(8, ge=0, le=1000, description="test images whose lower part is drawn anew")
    completions: int = Field(5, ge=1, le=100, description="of each of them")
    given: Fraction = Field(0.5, description="share of the rows that a completion keeps, from the top")
    seed: Seed = Field(0, description="of all that is drawn")


class GenerateRun(Run):
    """New images like those of a source: what comes in, what is learnt, what goes out."""

    task: Literal["generate"]
    source: IdxSource = Field(description="where the images come from; its labels are not used")
    frames: FramesConfig = FramesConfig()
    binarise: BinariseConfig = BinariseConfig()
    split: ImageSplitConfig = ImageSplitConfig()
    model: PixelModelConfig = PixelModelConfig()
    training: GenerateTraining = GenerateTraining()
    evaluation: GenerateEvaluation = GenerateEvaluation()
    prediction: GeneratePrediction = GeneratePrediction()
    sweep: Sweep = None

    @property
    def labels(self) -> None:
        """None are read; the ingest of samples asks."""
        return


# ---------------------------------------------------------------- objects


def check_size(run: GenerateRun, size: Sequence[int]) -> None:
    """Raises RequestError where a reference needs more memory for images of that size than a machine should be asked for."""
    from pipelines.errors import RequestError

    pixels = math.prod(size)
    if "logistic" in run.evaluation.references and pixels > MOST_PIXELS:
        raise RequestError(
            f"evaluation.references: logistic has a weight for each two of {pixels} pixels, about {16 * pixels**2 / 1e9:.1f} GB "
            f"while it learns; it is for at most {MOST_PIXELS} pixels. Take it out, or make the images smaller (frames.size)"
        )


def build_model(run: GenerateRun, size: tuple[int, ...]) -> PixelModel:
    """An untrained model of images of that size (rows, columns)."""
    from models.pixel_model import build_pixel_model

    return build_pixel_model(run.model.description((size[-2], size[-1])), run.training.seed)


def build_binarisation(run: GenerateRun) -> Binarisation:
    from pipelines.samples.binary_images import Binarisation

    return Binarisation(**run.binarise.model_dump())


def build_split(run: GenerateRun) -> SplitSettings:
    from pipelines.samples.labelled import SplitSettings

    return SplitSettings(**run.split.model_dump())


def build_training(run: GenerateRun) -> TrainingSettings:
    from pipelines.learning.training import TrainingSettings

    return TrainingSettings(**run.training.model_dump(include=set(TrainingSettings.__dataclass_fields__)))


def build_asked(run: GenerateRun) -> AskedImages:
    from pipelines.learning.image_evaluation import AskedImages

    asked = run.evaluation.model_dump(include={"max_nats", "margin", "confidence"})
    return AskedImages(MODEL, tuple(run.evaluation.must_equal), **asked)
