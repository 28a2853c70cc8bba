"""`task: segment`: a class map from a sequence, learnt from points, polygons or a label raster. Schema, checks, objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from configs.build import build_variables
from configs.run import CubeRun, TrainingDefaults, VariableConfig
from configs.schema import Finding, Fraction, InputPath, Name, Sections, Seed, Strict, UtcDate, check_crs, missing_file
from configs.yaml_positions import Key

if TYPE_CHECKING:
    from models.segmenter import Segmenter
    from pipelines.grid import Grid
    from pipelines.inference.class_map import Reference
    from pipelines.learning.class_evaluation import Asked
    from pipelines.learning.class_training import ClassRecipe
    from pipelines.samples.labels import Labels, Span
    from pipelines.samples.variables import Variable

MODEL = "model"  # its name beside the references in every table
PIXEL_KINDS = ("gru", "lstm", "l_tae")
Widths = list[Annotated[int, Field(ge=1, le=1024)]]
ReferenceName = Literal["random_forest", "nearest_mean_curve"]

# ---------------------------------------------------------------- schema


class ColumnsConfig(Strict):
    """The columns of a CSV, or the fields of polygons."""

    x: str = Field("longitude", description="of points, in labels.crs")
    y: str = Field("latitude", description="of points, in labels.crs")
    start: str = Field("from", description="first day of the time span")
    stop: str = Field("to", description="the day after the last one of the time span")
    label: str = Field("label", description="the class")


class ClassLabelsConfig(Strict):
    """What is known of which place and time."""

    kind: Literal["points", "polygons", "raster"] = Field(description="CSV with a point a line; GPKG or GeoJSON; GeoTIFF")
    path: InputPath = Field(description="the file")
    columns: ColumnsConfig = ColumnsConfig()
    crs: str = Field("EPSG:4326", description="of the coordinates of points")
    layer: str | None = Field(None, description="of a GeoPackage; default: its first")
    codes: dict[int, Name] = Field({}, description="code of a label raster -> class; other codes are unlabelled")
    band: int = Field(1, ge=1, description="number of the band of a label raster")
    on_cube_grid: bool = Field(False, description="a label raster without georeferencing, whose pixels are those of the cube")
    start: UtcDate | None = Field(None, description="labels within `start` and `stop` count; the span of those without their own")
    stop: UtcDate | None = Field(None, description="the day after the last one")
    classes: list[str] = Field([], description="classes that count, in this order; default: all, sorted by name")
    min_dates: int = Field(3, ge=1, description="labels with fewer usable dates in their span are dropped")

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from check_crs(("labels", "crs"), self.crs)
        if self.kind == "raster" and len(set(self.codes.values())) < 2:
            yield Finding(
                ("labels", "codes"), "a label raster needs the codes of two classes", "for example {1: forest, 2: water}"
            )
        if (self.start is None) != (self.stop is None):
            yield Finding(("labels", "start"), "`start` and `stop` are given together or not at all")
        if self.kind == "raster" and self.start is None:
            yield Finding(("labels", "start"), "a label raster has no dates of its own", "set labels.start and labels.stop")
        if self.start and self.stop and self.start >= self.stop:
            yield Finding(("labels", "stop"), "the span ends before it begins")

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        yield from missing_file(("labels", "path"), Path(self.path))


class ClassSplitConfig(Strict):
    """Blocks of N x N pixels, whole, in folds; each fold is tested by a network that was not trained on it."""

    block_px: int = Field(8, ge=1, description="side of a block; 1 splits by pixel, which neighbours give away")
    folds: int = Field(5, ge=2, le=20, description="parts of the blocks; one network each")
    seed: Seed = Field(0, description="of the assignment of blocks")


class ClassModel(Strict):
    """The network. Per pixel: gru, lstm, l_tae. Over space too: u_tae, unet_convgru, unet_convlstm."""

    kind: Literal["gru", "lstm", "l_tae", "u_tae", "unet_convgru", "unet_convlstm"] = Field("l_tae", description="the network")
    hidden: int = Field(32, ge=2, le=1024, description="channels of gru, lstm and l_tae")
    widths: Widths = Field([16, 32], min_length=1, description="channels of each scale of the others, finest first")
    heads: int = Field(4, ge=1, description="of the attention of l_tae and u_tae; divides the channels")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of channels dropped in training")

    def check(self, sections: Sections) -> Iterator[Finding]:
        widths = {"l_tae": [self.hidden], "u_tae": self.widths}.get(self.kind, [])
        if any(width % self.heads or width % 2 for width in widths):
            yield Finding(("model", "heads"), f"{self.heads} heads do not divide {widths} channels into even parts")

    @property
    def description(self) -> dict[str, Any]:
        """What `models.segmenter.rebuild_network` takes, without the variables and classes of the data."""
        attention = {"heads": self.heads} if self.kind in ("l_tae", "u_tae") else {}
        size = {"hidden": self.hidden} if self.kind in PIXEL_KINDS else {"widths": list(self.widths)}
        return {"kind": self.kind, "dropout": self.dropout, **size, **attention}


class ClassAugmentConfig(Strict):
    """What is done to training windows, anew in every epoch."""

    symmetries: bool = Field(True, description="the eight symmetries of the square")
    noise: float = Field(0.05, ge=0, description="standard deviation, in those of the variable")
    hidden_dates: float = Field(0.1, ge=0, lt=1, description="share of the dates hidden")
    early: float = Field(0.25, ge=0, le=1, description="share of the windows cut after a random date: learns to answer early")
    jitter_days: float = Field(8.0, ge=0, description="all dates moved by up to so many days")


class ClassTraining(TrainingDefaults):
    """How the network of each fold is trained."""

    loss: Literal["cross_entropy", "focal", "dice"] = Field("cross_entropy", description="over labelled pixels")
    class_weights: bool = Field(True, description="rare classes weigh more, so that all weigh alike")
    window_px: int = Field(16, ge=4, description="side of the crops of networks over space")
    windows: int = Field(512, ge=1, description="windows an epoch; labels repeat, differently augmented, where they are fewer")
    augment: ClassAugmentConfig = ClassAugmentConfig()
    epochs: int = Field(30, ge=1, description="at most")
    batch: int = Field(64, ge=1, description="windows of one step")
    learning_rate: float = Field(5e-3, gt=0, description="largest one of the cycle")
    weight_decay: float = Field(1e-2, ge=0, description="of AdamW")
    patience: int = Field(15, ge=1, description="epochs without a smaller validation loss after which training ends")


class ClassEvaluationConfig(Strict):
    """What the map is measured against."""

    references: list[ReferenceName] = Field(["random_forest", "nearest_mean_curve"], description="fitted on the same labels")
    must_equal: list[ReferenceName] = Field(
        ["random_forest"], description="references that may not be better beyond the interval"
    )
    min_accuracy: Fraction | None = Field(None, description="smallest overall accuracy; default: that of the commonest class")
    near: Fraction = Field(0.05, description="metadata alone this near to the model's balanced accuracy makes it CONFOUNDED")
    margin: Fraction = Field(0.01, description="smallest difference of accuracy that matters")
    confidence: Fraction = Field(0.95, description="of the intervals")

    def check(self, sections: Sections) -> Iterator[Finding]:
        for index, name in enumerate(self.must_equal):
            if name not in self.references:
                key: Key = ("evaluation", "must_equal", index)
                yield Finding(key, f"{name!r} is not among evaluation.references", f"add {name} there")


class ClassPrediction(Strict):
    """What is mapped, and how."""

    start: UtcDate | None = Field(None, description="of the span that is mapped; default: the latest one of the labels")
    stop: UtcDate | None = Field(None, description="the day after the last one")
    min_area_px: int = Field(1, ge=1, description="patches of fewer pixels become no polygon")
    tile_px: int = Field(256, ge=16, description="side of the tiles: less memory, the same result")

    def check(self, sections: Sections) -> Iterator[Finding]:
        if (self.start is None) != (self.stop is None):
            yield Finding(("prediction", "start"), "`start` and `stop` are given together or not at all")


class SegmentRun(CubeRun):
    """A class map: what comes in, what is known, what is learnt, what goes out."""

    task: Literal["segment"]
    variables: list[VariableConfig] = Field([], description="what the model sees; default: every band as it is")
    labels: ClassLabelsConfig
    split: ClassSplitConfig = ClassSplitConfig()
    model: ClassModel = ClassModel()
    training: ClassTraining = ClassTraining()
    evaluation: ClassEvaluationConfig = ClassEvaluationConfig()
    prediction: ClassPrediction = ClassPrediction()


# ---------------------------------------------------------------- objects


def build_span(section: ClassLabelsConfig | ClassPrediction) -> Span | None:
    import numpy as np

    from pipelines.samples.labels import Span

    if section.start is None or section.stop is None:
        return None
    return Span(np.datetime64(section.start, "s"), np.datetime64(section.stop, "s"))


def build_segment_variables(run: SegmentRun) -> tuple[Variable, ...]:
    named = run.variables or [VariableConfig(name=band.name, bands=[band.name]) for band in run.source.bands]
    return build_variables(named)


def read_labels(run: SegmentRun, grid: Grid) -> Labels:
    """Every label on the cube's grid. Raises MissingInput, RequestError."""
    from pipelines.samples.labels import Fields, read_points, read_polygons, read_raster, resolve_labels

    asked, span, fields = run.labels, build_span(run.labels), Fields(**run.labels.columns.model_dump())
    match asked.kind:
        case "points":
            given = read_points(Path(asked.path), fields, asked.crs, grid, span)
        case "polygons":
            given = read_polygons(Path(asked.path), fields, grid, span, asked.layer)
        case "raster":
            assert span is not None, "checked with the config"
            given = read_raster(Path(asked.path), asked.codes, grid, span, asked.band, on_grid=asked.on_cube_grid)
    return resolve_labels(given, grid, asked.classes, span)


def build_learner(run: SegmentRun, bands: int, classes: tuple[str, ...], fold: int) -> Segmenter:
    """An untrained segmenter of one network, of that fold."""
    from models.segmenter import build_segmenter

    return build_segmenter({**run.model.description, "bands": bands}, classes, 1, run.training.seed * 100 + fold)


def build_recipe(run: SegmentRun) -> ClassRecipe:
    from models.class_losses import class_loss
    from pipelines.learning.class_training import ClassRecipe
    from pipelines.learning.training import TrainingSettings
    from pipelines.samples.class_windows import Augmentation, WindowSettings

    chosen = run.training
    named = chosen.model_dump(exclude={"loss", "class_weights", "window_px", "windows", "augment", "seed"})
    side = 1 if run.model.kind in PIXEL_KINDS else chosen.window_px
    windows, augment = WindowSettings(side, chosen.windows, chosen.class_weights), Augmentation(**chosen.augment.model_dump())
    return ClassRecipe(class_loss(chosen.loss), lambda seed: TrainingSettings(**named, seed=seed), windows, augment, chosen.seed)


def build_references(run: SegmentRun, classes: int) -> dict[str, Callable[[], Reference]]:
    from models.baselines.class_references import NearestMeanCurve, RandomForest

    known: dict[str, Callable[[], Reference]] = {
        "random_forest": lambda: RandomForest(classes, run.training.seed),
        "nearest_mean_curve": lambda: NearestMeanCurve(classes),
    }
    return {name: known[name] for name in run.evaluation.references}


def build_asked(run: SegmentRun) -> Asked:
    from pipelines.learning.class_evaluation import Asked

    chosen = run.evaluation
    return Asked(MODEL, tuple(chosen.must_equal), chosen.min_accuracy, chosen.margin, chosen.confidence)
