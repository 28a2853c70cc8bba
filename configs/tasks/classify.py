"""`task: classify`: a label for a whole sequence (or image), learnt from labelled samples. Schema, checks, objects."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from configs.cube_windows import WindowsSource
from configs.samples import AuditedEvaluation, SpanLabels
from configs.schema import Fraction
from configs.sequences import MODEL, LabelPrediction, SampleRun, SequenceModelConfig, SequenceTraining, build_recipe

if TYPE_CHECKING:
    from pipelines.learning.class_evaluation import Asked
    from pipelines.learning.sample_training import SampleRecipe

ReferenceName = Literal["commonest", "nearest_mean", "random_forest", "frame_cnn"]

# ---------------------------------------------------------------- schema


class ClassifyTraining(SequenceTraining):
    """How each network is trained."""

    loss: Literal["cross_entropy", "focal"] = Field("cross_entropy", description="of the labels")
    class_weights: bool = Field(True, description="rare classes weigh more, so that all weigh alike")
    draw: Literal["samples", "classes"] = Field(
        "samples", description="an epoch shows all samples, or equally many of each class (then class_weights are for steps only)"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of a label that goes to all classes alike")


class ClassifyEvaluation(AuditedEvaluation):
    """What the labels are measured against."""

    references: list[ReferenceName] = Field(
        ["commonest", "nearest_mean", "random_forest"],
        description="on the same folds; random_forest and nearest_mean read a small mean (and spread) over time, frame_cnn is a "
        "network on single frames, trained like the model",
    )
    must_equal: list[ReferenceName] = Field(["commonest"], description="references that may not be better beyond the interval")
    min_accuracy: Fraction | None = Field(None, description="smallest accuracy")
    measure: Literal["accuracy", "mean_f1"] = Field(
        "accuracy", description="what references are compared by; mean_f1 for rare classes"
    )


class ClassifyRun(SampleRun):
    """A label for every sample: what comes in, what is known, what is learnt, what goes out."""

    task: Literal["classify"]
    labels: SpanLabels | None = Field(None, description="what is known; not needed where `model.use` names a model")
    model: SequenceModelConfig = SequenceModelConfig()
    training: ClassifyTraining = ClassifyTraining()
    evaluation: ClassifyEvaluation = ClassifyEvaluation()
    prediction: LabelPrediction = LabelPrediction()

    @property
    def is_stepped(self) -> bool:
        """Whether steps are answered, not samples."""
        return self.prediction.per_step or self.has_spans

    @property
    def has_spans(self) -> bool:
        """Whether steps have the labels."""
        return self.labels is not None and self.labels.spans is not None

    @property
    def clock(self) -> Literal["frames", "seconds", "dates"]:
        """In what the ends of answered spans are given."""
        if isinstance(self.source, WindowsSource):
            return "dates"
        return "seconds" if self.labels is not None and self.labels.spans == "seconds" else "frames"


# ---------------------------------------------------------------- objects


def recipe_of(run: ClassifyRun) -> SampleRecipe:
    """How a network of the run is trained."""
    from pipelines.learning.validation_scores import accuracy

    chosen = run.training
    recipe = build_recipe(run, chosen.loss, chosen.label_smoothing, chosen.draw, per_step=run.model.per_step)
    return replace(recipe, score=lambda _: accuracy())


def build_asked(run: ClassifyRun) -> Asked:
    from pipelines.learning.class_evaluation import Asked

    asked = run.evaluation.model_dump(include={"min_accuracy", "measure", "margin", "confidence", "most_labels"})
    return Asked(model=MODEL, must_equal=tuple(run.evaluation.must_equal), seed=run.training.seed, **asked)
