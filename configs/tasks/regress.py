"""`task: regress`: a number for a whole sequence (or image), learnt from samples with a number. Schema, checks, objects."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from configs.samples import AuditedEvaluation
from configs.schema import Fraction, Name, Strict
from configs.sequences import SamplePrediction, SampleRun, SequenceModelConfig, SequenceTraining, build_recipe

if TYPE_CHECKING:
    from pipelines.learning.sample_training import SampleRecipe

ReferenceName = Literal["mean", "random_forest", "frame_cnn"]

# ---------------------------------------------------------------- schema


class NumberConfig(Strict):
    """What the number is."""

    name: Name = Field("number", description="in tables, pictures and messages, e.g. tree_cover")
    unit: str = Field("", description="of the number, e.g. %")
    valid_range: tuple[float, float] | None = Field(None, description="answers outside are set to its nearer end")


class RegressTraining(SequenceTraining):
    """How each network is trained."""

    loss: Literal["huber", "absolute", "squared"] = Field("huber", description="of the number in standard deviations")


class RegressEvaluation(AuditedEvaluation):
    """What the numbers are measured against."""

    references: list[ReferenceName] = Field(
        ["mean", "random_forest"],
        description="on the same folds; random_forest reads all frames of small samples, else a small mean and spread over time, "
        "frame_cnn is a network on single frames, trained like the model",
    )
    must_equal: list[ReferenceName] = Field(["mean"], description="references that may not be better beyond the interval")
    min_r2: Fraction | None = Field(None, description="smallest share of the variance that is explained")
    margin: Fraction = Field(0.01, description="smallest difference of mean absolute errors that matters, in standard deviations")
    interval: Fraction = Field(0.9, description="share of the samples that the interval around a number is to hold")


class RegressRun(SampleRun):
    """A number for every sample: what comes in, what is known, what is learnt, what goes out."""

    task: Literal["regress"]
    model: SequenceModelConfig = SequenceModelConfig()
    number: NumberConfig = NumberConfig()
    training: RegressTraining = RegressTraining()
    evaluation: RegressEvaluation = RegressEvaluation()
    prediction: SamplePrediction = SamplePrediction()


# ---------------------------------------------------------------- objects


def recipe_of(run: RegressRun) -> SampleRecipe:
    """How a network of the run is trained."""
    from pipelines.learning.validation_scores import absolute_error

    recipe = build_recipe(run, run.training.loss, per_step=run.model.per_step)
    return replace(recipe, score=lambda learner: absolute_error(learner.target_std_MK[0]))
