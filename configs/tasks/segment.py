"""`task: segment`: class maps from sequences, learnt from points, polygons or label rasters. Schema, checks, objects."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field

from configs.compute import STAGING, Staging
from configs.labels import ClassLabelsConfig, SiteRasters
from configs.networks import CHANGE_NETWORKS, PAIR_NETWORKS, PIXEL_KINDS, RECURRENT_UNETS, ClassModel
from configs.privacy import OF_PLACES, OF_VOLUMES
from configs.run import CubeRun, StartedTraining, VariableConfig
from configs.schema import Finding, Fraction, Name, Sections, Seed, Strict, UtcDate, check_must_equal
from configs.sites import PairsConfig, SitesSource
from configs.sources import Source
from configs.sweep import Sweep

if TYPE_CHECKING:
    from models.segmenter import Segmenter
    from pipelines.learning.class_evaluation import Asked
    from pipelines.learning.class_training import ClassRecipe
    from pipelines.samples.class_samples import Few

MODEL = "model"  # its name beside the references in every table
ReferenceName = Literal["random_forest", "nearest_mean_curve"]

# ---------------------------------------------------------------- schema


class ClassSplitConfig(Strict):
    """Blocks of N x N pixels (N x N x N voxels), whole, in folds; each fold is tested by networks that were not trained on it. Of
    several sites each is a fold."""

    block_px: int = Field(8, ge=1, description="side of a block; 1 splits by pixel, which neighbours give away")
    folds: int = Field(5, ge=2, le=20, description="parts of the blocks; one network each")
    seed: Seed = Field(0, description="of the assignment of blocks")
    networks: int = Field(1, ge=1, description="networks of each fold, which other blocks (or sites) validate; their mean counts")
    groups: list[list[Name]] = Field([], description="sites that are one fold together, since they touch or share a scene")


class ClassAugmentConfig(Strict):
    """What is done to training windows, anew in every epoch."""

    symmetries: bool = Field(True, description="the eight symmetries of the square")
    noise: float = Field(0.05, ge=0, description="standard deviation, in those of the variable")
    hidden_dates: float = Field(0.1, ge=0, lt=1, description="share of the dates hidden")
    early: float = Field(0.25, ge=0, le=1, description="share of the windows cut after a random date: learns to answer early")
    jitter_days: float = Field(8.0, ge=0, description="all dates moved by up to so many days")


class ClassTraining(StartedTraining):
    """How the network of each fold is trained."""

    loss: Literal["cross_entropy", "focal", "dice", "dice_focal", "lovasz"] = Field(
        "cross_entropy", description="over labelled pixels; the last two are of the second of two classes, as in `change`"
    )
    class_weights: bool = Field(True, description="rare classes weigh more, so that all weigh alike")
    draw: Literal["labels", "classes"] = Field(
        "labels", description="what windows are drawn by: all labels alike, or equally many of each class, however rare"
    )
    decision: Literal["most_likely", "largest_f1"] = Field(
        "most_likely", description="the class of a pixel; largest_f1: by weights with the largest mean F1 of all classes but "
        "the commonest on the blocks that validate (of two classes: a threshold)",
    )  # fmt: skip
    window_px: int = Field(
        16, ge=4, description="side of the crops of networks over space; of volumes they have all slices of thin ones"
    )
    windows: int = Field(512, ge=1, description="windows an epoch; labels repeat, differently augmented, where they are fewer")
    augment: ClassAugmentConfig = ClassAugmentConfig()
    epochs: int = Field(30, ge=1, description="at most")
    batch: int = Field(64, ge=1, description="windows of one step")
    learning_rate: float = Field(5e-3, gt=0, description="largest one of the cycle")
    weight_decay: float = Field(1e-2, ge=0, description="of AdamW")
    patience: int = Field(15, ge=1, description="epochs without a smaller validation loss after which training ends")
    # not written out while they leave nothing out: trainings of before there were such keys do not depend on them
    most_labels: int | None = Field(
        None,
        ge=1,
        exclude_if=lambda value: value is None,
        description="labels of each class that may be learnt from, drawn at random by `seed`, also by references; those that "
        "choose the epoch are among them. What is tested stays",
    )
    most_blocks: int | None = Field(
        None,
        ge=1,
        exclude_if=lambda value: value is None,
        description="blocks, or groups of sites, that may be learnt from, drawn as `most_labels`",
    )


class ClassEvaluationConfig(Strict):
    """What the map is measured against."""

    references: list[ReferenceName] = Field(["random_forest", "nearest_mean_curve"], description="fitted on the same labels")
    must_equal: list[ReferenceName] = Field(
        ["random_forest"], description="references that may not be better beyond the interval"
    )
    min_accuracy: Fraction | None = Field(None, description="smallest overall accuracy")
    measure: Literal["accuracy", "mean_f1"] = Field(
        "accuracy", description="what must be larger than if the commonest class were everywhere, and equal to `must_equal`; "
        "mean_f1 where a class is rare",
    )  # fmt: skip
    most_labels: int = Field(
        5000, ge=10, description="labels of a class that references learn from; of more so many are drawn at random"
    )
    near: Fraction = Field(0.05, description="metadata alone this near to the model's balanced accuracy makes it CONFOUNDED")
    margin: Fraction = Field(0.01, description="smallest difference of accuracy that matters")
    confidence: Fraction = Field(0.95, description="of the intervals")

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from check_must_equal(self.must_equal, self.references)


class ClassPrediction(Strict):
    """What is mapped, and how."""

    sites: list[Name] | None = Field(None, min_length=1, description="sites to map; default: all. They need no label")
    start: UtcDate | None = Field(None, description="of the span that is mapped; default: the latest one of the labels")
    stop: UtcDate | None = Field(None, description="the day after the last one")
    min_area_px: int = Field(1, ge=1, description="patches of fewer pixels become no polygon")
    tile_px: int = Field(256, ge=16, description="side of the tiles, of volumes at most 40: less memory, the same result")
    staging: Staging = STAGING

    def check(self, sections: Sections) -> Iterator[Finding]:
        kind = getattr(sections.get("source"), "kind", "")
        if kind and kind not in (*OF_PLACES, *OF_VOLUMES):
            remedy = "follow masks of its frames: `driftline track MASKS --run runs/NAME`"
            yield Finding(
                ("source", "kind"), f"{kind} has frames without a place, and class maps are of places and of volumes", remedy
            )
        if (self.start is None) != (self.stop is None):
            yield Finding(("prediction", "start"), "`start` and `stop` are given together or not at all")


class SegmentRun(CubeRun):
    """A class map: what comes in, what is known, what is learnt, what goes out."""

    task: Literal["segment"]
    source: Annotated[Source | SitesSource, Field(discriminator="kind")] = Field(  # type: ignore[assignment]
        description="where the scenes come from; sites have a cube each"
    )
    variables: list[VariableConfig] = Field([], description="what the model sees; default: every band as it is")
    pairs: PairsConfig | None = Field(
        None, description="the dates of a site are made comparable as for `task: change`; default: values as they are"
    )
    labels: Annotated[ClassLabelsConfig | SiteRasters, Field(discriminator="kind")] | None = Field(
        None, description="what is known; not needed where `model.use` names a model"
    )
    split: ClassSplitConfig = ClassSplitConfig()
    model: ClassModel = ClassModel()
    training: ClassTraining = ClassTraining()
    evaluation: ClassEvaluationConfig = ClassEvaluationConfig()
    prediction: ClassPrediction = ClassPrediction()
    sweep: Sweep = None


# ---------------------------------------------------------------- objects


class SeenByVariables(Protocol):
    """A run whose model sees `variables`, or every band of its source."""

    @property
    def source(self) -> Any: ...

    @property
    def variables(self) -> list[VariableConfig]: ...


def name_variables(run: SeenByVariables) -> list[VariableConfig]:
    return run.variables or [VariableConfig(name=band.name, bands=[band.name]) for band in run.source.bands]


def build_learner(
    run: SegmentRun, bands: int, classes: tuple[str, ...], number: int, axes: int = 2, year_days: float = 365.25
) -> Segmenter:
    """An untrained segmenter of one network, the one of that number; `axes` of space, `year_days`: as of `ClassSamples`."""
    from models.segmenter import build_segmenter

    own = {"kernel": 1} if axes == 3 and run.model.kind in RECURRENT_UNETS else {}
    of_data: dict[str, Any] = {"bands": bands}
    if run.model.kind not in CHANGE_NETWORKS:  # which are for images and have no sense of time
        of_data |= {"axes": axes, "year_days": year_days}
    return build_segmenter({**own, **run.model.description, **of_data}, classes, 1, run.training.seed * 100 + number)


def build_recipe(run: SegmentRun) -> ClassRecipe:
    from models.class_losses import class_loss
    from pipelines.learning.class_training import ClassRecipe
    from pipelines.learning.training import TrainingSettings
    from pipelines.samples.class_windows import Augmentation, WindowSettings

    chosen, own = run.training, {"loss", "class_weights", "draw", "decision", "window_px", "windows", "augment", "seed"}
    own |= {"start_from", "most_labels", "most_blocks"}
    named, side = chosen.model_dump(exclude=own), 1 if run.model.kind in PIXEL_KINDS else chosen.window_px
    windows, augment = WindowSettings(side, chosen.windows, chosen.class_weights, chosen.draw), chosen.augment.model_dump()
    return ClassRecipe(
        class_loss(chosen.loss), lambda seed: TrainingSettings(**named, seed=seed), windows, Augmentation(**augment), chosen.seed,
        run.split.networks, chosen.start_from is not None,
    )  # fmt: skip


def build_few(training: ClassTraining) -> Few | None:
    """The labels that may be learnt from; None for all that are not tested."""
    from pipelines.samples.class_samples import Few

    if training.most_labels is None and training.most_blocks is None:
        return None
    return Few(training.most_labels, training.most_blocks, training.seed)


def check_network(model: ClassModel, classes: int, dates: Set[int]) -> None:
    """Raises RequestError where the network cannot tell so many classes apart, or read so many dates."""
    from pipelines.errors import RequestError

    if model.kind in CHANGE_NETWORKS and classes != 2:
        raise RequestError(f"{model.kind} tells two classes apart, there are {classes}; set model.kind to u_tae or another")
    if model.kind in PAIR_NETWORKS and dates != {2}:
        found = ", ".join(map(str, sorted(dates)))
        raise RequestError(f"{model.kind} compares exactly 2 dates, there are {found}; set model.kind to siamese_dcrn or l_unet")


def build_asked(run: SegmentRun) -> Asked:
    from pipelines.learning.class_evaluation import Asked

    asked = run.evaluation.model_dump(include={"min_accuracy", "measure", "margin", "confidence", "most_labels"})
    return Asked(model=MODEL, must_equal=tuple(run.evaluation.must_equal), seed=run.training.seed, **asked)
