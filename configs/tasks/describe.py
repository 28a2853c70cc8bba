"""`task: describe`: a sentence about a whole sequence, learnt from samples with captions. Schema, checks, objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from configs.networks import Channels
from configs.samples import AnswerColumnsConfig, AnswersConfig, SamplesEvaluation
from configs.schema import Finding, Fraction, Name, Sections, Strict
from configs.sequences import MODEL, SampleModelConfig, SampleRun, SequenceModelConfig, SequenceTraining, build_recipe

if TYPE_CHECKING:
    from pipelines.learning.caption_evaluation import AskedCaptions
    from pipelines.learning.sample_training import SampleRecipe
    from pipelines.samples.captioned_samples import CaptionedSamples
    from pipelines.samples.sample_store import SampleLayout

ReferenceName = Literal["commonest", "nearest", "forest_template", "network_template"]
TEMPLATES = ("forest_template", "network_template")
READER = ("widths", "grid", "hidden", "layers", "bidirectional", "dropout")  # how frames are read, shared with a classifier

# ---------------------------------------------------------------- schema


class CaptionColumnsConfig(AnswerColumnsConfig):
    """The columns of the table of captions."""

    answer: str = Field("caption", description="the sentence")


class CaptionAnswersConfig(AnswersConfig):
    """The sentences that are known, one for each sample; a file without a line is described too."""

    kind: Literal["table", "source"] = Field(description="a CSV, or the source itself says it (moving_digits)")
    columns: CaptionColumnsConfig = CaptionColumnsConfig()

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        if self.classes:
            yield Finding(("labels", "classes"), "are of labels, captions are sentences", "take it out")
        if getattr(sections.get("privacy"), "deidentify", False):
            problem = "captions are kept as they are written, and may name a patient"
            remedy = "read them, make a copy of the images with `driftline deidentify`, and use it with deidentify: false"
            yield Finding(("privacy", "deidentify"), problem, remedy)

    def check_source(self, source: object) -> Iterator[Finding]:
        if getattr(source, "kind", None) == "idx":
            yield Finding(("labels", "kind"), "images of IDX files have labels, no captions", "another source, or task: classify")
        elif (answer := getattr(source, "answer", "caption")) != "caption":
            yield Finding(("source", "answer"), f"{answer!r} is no sentence", "answer: caption")


class CaptionModelConfig(SampleModelConfig):
    """The network of sentences ("Show and Tell"): an encoder for each frame, an LSTM over the frames, an LSTM over words."""

    kind: Literal["caption_lstm"] = Field("caption_lstm", description="the network")
    widths: list[Channels] = Field([16, 32, 64], min_length=1, description="channels of each scale, finest first")
    grid: int = Field(1, ge=1, le=16, description="features of so many parts along each axis; 1: the mean. Motion needs more")
    hidden: Channels = Field(64, description="units of the LSTM over the frames")
    layers: int = Field(1, ge=1, le=8, description="of the LSTM over the frames")
    bidirectional: bool = Field(False, description="a second LSTM reads the frames from the end to the begin")
    embedding: Channels = Field(32, description="numbers that stand for a word")
    word_hidden: Channels = Field(64, description="units of the LSTM over words")
    attention: bool = Field(False, description="for each word the frames are weighted anew")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of features dropped in training")
    longest: int = Field(20, ge=1, le=200, description="words of a caption; longer ones are cut")
    least_count: int = Field(
        1, ge=1, description="captions that are learnt must have a word so many times; rarer ones are unknown"
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        size = getattr(sections.get("frames"), "size", None)
        if size is not None and len(size) == 3:
            yield Finding(("model", "kind"), "captions are of images, frames.size says volumes", "frames.size: [rows, columns]")

    def description(self, layout: SampleLayout) -> dict[str, Any]:
        size = {"bands": len(layout.bands), "height": layout.size[-2], "width": layout.size[-1]}
        own = ("kind", *READER, "embedding", "word_hidden", "attention", "longest")
        return {**{name: getattr(self, name) for name in own}, "widths": list(self.widths), "per_step": False, **size}


class CaptionTraining(SequenceTraining):
    """How each network is trained: with the true words before each word (teacher forcing)."""

    loss: Literal["cross_entropy"] = Field("cross_entropy", description="of the words, and the end of the caption")

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        if self.augment.mixup:
            yield Finding(("training", "augment", "mixup"), "two captions have no mean", "take it out")


class CaptionEvaluation(SamplesEvaluation):
    """What the captions are measured against, by exact match."""

    references: list[ReferenceName] = Field(
        ["commonest", "nearest"],
        description="on the same folds; commonest: the commonest caption, nearest: that of the sample whose mean and spread over "
        "time are nearest, forest_template and network_template: the caption that a classifier of each of `slots` fills in, a "
        "random forest on mean and spread, or a network that reads frames as the model does, trained like it",
    )
    must_equal: list[ReferenceName] = Field(["commonest"], description="references that may not be better beyond the interval")
    min_exact: Fraction | None = Field(None, description="smallest share of captions that match exactly")
    most_labels: int = Field(
        5000, ge=10, description="samples with one caption (or answer of a slot) that references learn from; of more, drawn ones"
    )
    slots: dict[Name, list[str]] = Field(
        {}, description="what captions say, by name: the phrases of which each caption has one at most; moving_digits: known"
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        asked = [name for name in self.references if name in TEMPLATES]
        if asked and not self.slots and getattr(sections.get("source"), "kind", "moving_digits") != "moving_digits":
            yield Finding(("evaluation", "references"), f"{asked[0]} needs slots", "evaluation.slots: {name: [phrase, ...]}")


class CaptionPrediction(Strict):
    """How captions are written."""

    beams: int = Field(5, ge=1, le=50, description="captions that are followed word by word; 1: the likeliest word each time")
    least_probability: Fraction = Field(0.5, description="a caption with less is marked as uncertain")
    shown: int = Field(6, ge=1, le=12, description="samples in the picture and the report")


class DescribeRun(SampleRun):
    """A sentence for every sample: what comes in, what is known, what is learnt, what goes out."""

    task: Literal["describe"]
    labels: CaptionAnswersConfig | None = Field(None, description="what is known; not needed where `model.use` names a model")
    model: CaptionModelConfig = CaptionModelConfig()
    training: CaptionTraining = CaptionTraining()
    evaluation: CaptionEvaluation = CaptionEvaluation()
    prediction: CaptionPrediction = CaptionPrediction()


# ---------------------------------------------------------------- objects


def recipe_of(run: DescribeRun, samples: CaptionedSamples) -> SampleRecipe:
    """How a network of the run is trained."""
    from pipelines.learning.validation_scores import exact_match
    from pipelines.samples.captioned_samples import begin_with_words

    recipe = build_recipe(run, "words", per_step=False)
    return replace(recipe, score=lambda _: exact_match(), begin=partial(begin_with_words, samples, run.model.least_count))


def classifier_recipe(run: DescribeRun) -> SampleRecipe:
    """How the classifiers of slots are trained: as the network."""
    return build_recipe(run, "cross_entropy", per_step=False)


def classifier_of(run: DescribeRun) -> SequenceModelConfig:
    """The network that reads frames as the model does, and answers with a class."""
    return SequenceModelConfig(kind="cnn_lstm", **{name: getattr(run.model, name) for name in READER})


def slots_of(run: DescribeRun) -> Mapping[str, list[str]]:
    """slot -> phrases: those of the config, else those that the source knows."""
    if run.evaluation.slots or run.source.kind != "moving_digits":
        return run.evaluation.slots
    from pipelines.sources.moving_digits import CAPTION_SLOTS

    return {name: list(phrases) for name, phrases in CAPTION_SLOTS.items()}


def build_asked(run: DescribeRun) -> AskedCaptions:
    from pipelines.learning.caption_evaluation import AskedCaptions

    asked = run.evaluation.model_dump(include={"min_exact", "margin", "confidence"})
    least, must = run.prediction.least_probability, tuple(run.evaluation.must_equal)
    return AskedCaptions(MODEL, must, least_probability=least, slots=slots_of(run), **asked)
