"""`task: detect`: boxes with scores in every frame of a sequence, learnt from samples with boxes. Schema, checks, objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from configs.networks import Channels
from configs.samples import AnswerColumnsConfig, AnswersConfig, SamplesEvaluation
from configs.schema import Finding, Fraction, Sections, Strict
from configs.sequences import MODEL, SampleModelConfig, SampleRun, SequenceTraining, build_recipe
from configs.yaml_positions import Key

if TYPE_CHECKING:
    from pipelines.inference.sample_boxes import Decode
    from pipelines.learning.box_evaluation import AskedBoxes
    from pipelines.learning.sample_training import SampleRecipe
    from pipelines.samples.sample_store import SampleLayout

ReferenceName = Literal["threshold", "single_frames"]
MOVING = ("rotate_degrees", "crop", "mixup")  # augmentations after which a box is no longer around its object

# ---------------------------------------------------------------- schema


class BoxColumnsConfig(AnswerColumnsConfig):
    """The columns of the table of boxes: a line for each box, in whole pixels of the file, both ends inside, all from 0."""

    answer: str = Field("label", description="the class of the box")
    frame: str = Field("frame", description="the frame of the box, the first one is 0")
    top: str = Field("top", description="its first row")
    left: str = Field("left", description="its first column")
    bottom: str = Field("bottom", description="its last row")
    right: str = Field("right", description="its last column")


class BoxAnswersConfig(AnswersConfig):
    """The boxes that are known. A frame without a line has none; a file without a line is not labelled."""

    kind: Literal["table", "source"] = Field(description="a CSV, or the source itself says it (moving_digits)")
    columns: BoxColumnsConfig = BoxColumnsConfig()

    def check_source(self, source: object) -> Iterator[Finding]:
        if getattr(source, "kind", None) == "idx":
            yield Finding(("labels", "kind"), "images of IDX files have labels, no boxes", "another source, or task: classify")
        elif (answer := getattr(source, "answer", "boxes")) != "boxes":
            yield Finding(("source", "answer"), f"{answer!r} is no box", "answer: boxes")


class CentrePointConfig(SampleModelConfig):
    """The network of boxes (Zhou et al. 2019, "Objects as Points"), with a recurrence over the frames."""

    kind: Literal["centre_convgru", "centre_convlstm", "centre_dcrn", "centre_frame"] = Field(
        "centre_convgru", description="the recurrence over the frames; centre_frame: none, each frame alone"
    )
    widths: list[Channels] = Field(
        [16, 32, 48, 64],
        min_length=3,
        max_length=6,
        description="channels of each scale, finest first; boxes are read at a quarter",
    )
    kernel: Literal[1, 3, 5, 7] = Field(3, description="side of the convolutions in the recurrence")
    bidirectional: bool = Field(False, description="a second recurrent layer reads from the end to the begin")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of features dropped in training")
    detach_every: int = Field(0, ge=0, description="frames after which the gradient is cut; 0: never")
    checkpointed: bool = Field(False, description="less memory in training, a third more time")

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        size = getattr(sections.get("frames"), "size", None)
        if size is not None and len(size) == 3:
            yield Finding(("model", "kind"), "boxes are of images, frames.size says volumes", "frames.size: [rows, columns]")

    def description(self, layout: SampleLayout) -> dict[str, Any]:
        names = ("kind", "kernel", "bidirectional", "dropout", "detach_every", "checkpointed")
        size = {"bands": len(layout.bands), "height": layout.size[-2], "width": layout.size[-1]}
        return {**{name: getattr(self, name) for name in names}, "widths": list(self.widths), "per_step": True, **size}


class DetectTraining(SequenceTraining):
    """How each network is trained."""

    loss: Literal["focal_l1"] = Field("focal_l1", description="focal loss of the centres, L1 of sizes and offsets")
    batch: int = Field(16, ge=1, description="samples of one step")
    epochs: int = Field(20, ge=1, description="at most")

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        neutral = type(self.augment)()
        for name in MOVING:
            if getattr(self.augment, name) != getattr(neutral, name):
                key: Key = ("training", "augment", name)
                yield Finding(key, "moves pixels away from their boxes", "take it out; flip moves the boxes too")


class DetectEvaluation(SamplesEvaluation):
    """What the boxes are measured against, by average precision at an overlap (intersection over union) of 0.5."""

    references: list[ReferenceName] = Field(
        ["threshold"],
        description="on the same folds; threshold: connected parts brighter than Otsu's threshold, named by a random forest, "
        "single_frames: the same network without recurrence, trained like the model",
    )
    must_equal: list[ReferenceName] = Field(["threshold"], description="references that may not be better beyond the interval")
    min_ap: Fraction | None = Field(None, description="smallest mean average precision")
    margin: Fraction = Field(0.01, description="smallest difference of mean average precisions that matters")


class DetectPrediction(Strict):
    """Which boxes are published."""

    least_score: Fraction = Field(0.3, description="of boxes that are published, and that precision and recall count")
    most_boxes: int = Field(20, ge=1, le=1000, description="of a frame, the surest ones")


class DetectRun(SampleRun):
    """Boxes in every frame of every sample: what comes in, what is known, what is learnt, what goes out."""

    task: Literal["detect"]
    labels: BoxAnswersConfig | None = Field(None, description="the known boxes; not needed where `model.use` names a model")
    model: CentrePointConfig = CentrePointConfig()
    training: DetectTraining = DetectTraining()
    evaluation: DetectEvaluation = DetectEvaluation()
    prediction: DetectPrediction = DetectPrediction()


# ---------------------------------------------------------------- objects


def recipe_of(run: DetectRun, decode: Decode) -> SampleRecipe:
    """How a network of the run is trained: every frame counts, and boxes move with their frames."""
    from pipelines.learning.validation_scores import box_precision
    from pipelines.samples.boxed_samples import BoxWindows

    recipe = build_recipe(run, run.training.loss, per_step=True)
    return replace(recipe, windows=BoxWindows, score=lambda learner: box_precision(decode, len(learner.outputs)))


def build_asked(run: DetectRun) -> AskedBoxes:
    from pipelines.learning.box_evaluation import AskedBoxes

    asked = run.evaluation.model_dump(include={"min_ap", "margin", "confidence"})
    return AskedBoxes(MODEL, tuple(run.evaluation.must_equal), least_score=run.prediction.least_score, **asked)
