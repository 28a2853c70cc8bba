"""Many small series with an answer each: sources of samples, what becomes of their frames, how they are split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from configs import schema
from configs.cube_windows import PlaceLabelsConfig, WindowsSource, build_windows
from configs.labels import check_spans
from configs.paths import READ
from configs.schema import Finding, Fraction, InputPath, LocalPath, Name, Sections, Seed, Strict, missing_file
from configs.sources import BandConfig, PictureDefaults, SourceDefaults, _named_band

if TYPE_CHECKING:
    from pipelines.samples.sample_frames import FrameSettings
    from pipelines.sources.answers import Answers
    from pipelines.sources.samples import SampleSource

# ---------------------------------------------------------------- schema


class AnswerColumnsConfig(Strict):
    """The columns of the table of labels."""

    file: str = Field("file", description="name of the file, or its path below source.path")
    answer: str = Field("label", description="the class, or the number")
    group: str = Field("group", description="what stays together in a split (patient, clip set, site), where the table has it")
    part: str = Field("part", description="the part that the data set assigns a sample to (train, test), where the table has it")


class SpanColumnsConfig(AnswerColumnsConfig):
    """The columns of the table of labels."""

    start: str = Field("from", description="with `spans`: the first frame or second of the span, counted from 0")
    stop: str = Field("to", description="with `spans`: the frame or second at which the span has ended")


class AnswersConfig(Strict):
    """What is known of each sample."""

    kind: Literal["table", "folders", "source"] = Field(
        description="a CSV; the name of the folder that holds a sample; or the source itself says it (idx, moving_digits)"
    )
    path: Annotated[LocalPath | None, READ] = Field(None, description="of a table: the CSV file")
    columns: AnswerColumnsConfig = AnswerColumnsConfig()
    classes: list[str] = Field([], description="classes that count, in this order; default: all, sorted by name")

    def check(self, sections: Sections) -> Iterator[Finding]:
        if (self.kind == "table") != (self.path is not None):
            yield Finding(("labels", "path"), "is the CSV file of `kind: table`, and of nothing else")
        says = getattr(sections.get("source"), "kind", None) in ("idx", "moving_digits")
        if isinstance(sections.get("source"), WindowsSource):
            yield Finding(("labels", "kind"), "does not fit windows of a cube", "points, polygons or raster")
        elif says != (self.kind == "source") and sections.get("source") is not None:
            remedy = "kind: source" if says else "kind: table with a path, or kind: folders"
            yield Finding(("labels", "kind"), "does not fit the source", remedy)
        yield from self.check_source(sections.get("source"))

    @property
    def read_columns(self) -> dict[str, str]:
        """The columns of the table that are read, and copied where names are taken out."""
        return self.columns.model_dump()

    def check_source(self, source: object) -> Iterator[Finding]:
        """Findings for answers of another kind."""
        for answer, named, task in (("boxes", "boxes", "detect"), ("caption", "captions", "describe")):
            if getattr(source, "answer", None) == answer:
                yield Finding(("source", "answer"), f"{named} are no labels", f"another answer, or task: {task}")

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        if self.path is not None and not Path(self.path).is_file() and schema.is_of_patients(sections):
            yield Finding(
                ("labels", "path"), "there is no such file", "check the path (not repeated here: it may name a patient)"
            )
        elif self.path is not None:
            yield from missing_file(("labels", "path"), Path(self.path))


class SpanAnswersConfig(AnswersConfig):
    """What is known of each sample, or of spans of its frames."""

    columns: SpanColumnsConfig = SpanColumnsConfig()
    spans: Literal["frames", "seconds"] | None = Field(
        None,
        description="a line of the table is the label of a span of frames, whose ends are so given; default: of a whole sample",
    )

    @property
    def read_columns(self) -> dict[str, str]:
        return self.columns.model_dump(exclude=set() if self.spans else {"start", "stop"})

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        if self.spans is not None and self.kind != "table":
            yield Finding(("labels", "spans"), "are read from a table", "kind: table with a path, or take spans out")
        yield from check_spans(self.spans, sections)


class SampleFilesSource(PictureDefaults):
    """Every video, NIfTI or DICOM file or picture below `path`, or every folder of pictures or of a DICOM series, is a sample.

    Videos need driftline[video], DICOM and NIfTI files driftline[medical] and a section `privacy`.
    """

    kind: Literal["files"]
    path: InputPath = Field(description="the folder; files in folders below it count too")
    pattern: str = Field("*", description="samples whose path or name fits it (shell pattern), e.g. *.avi")
    unit: Literal["file", "folder"] = Field(
        "file", description="what a sample is; of folders the pictures are its frames, or their DICOM series"
    )

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check_files(sections)
        yield from schema.missing_images(Path(self.path), sections)


class IdxSource(SourceDefaults):
    """Images and labels in the format of MNIST: PART-images-idx3-ubyte and PART-labels-idx1-ubyte, plain or .gz."""

    kind: Literal["idx"]
    bands: list[Annotated[BandConfig, BeforeValidator(_named_band)]] = Field(
        [BandConfig(name="gray")], min_length=1, max_length=1, description="the one band"
    )
    path: InputPath = Field(description="the folder")
    most: int | None = Field(None, ge=1, description="images of each part that are taken, from the first on; default: all")

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        yield from schema.missing_folder(Path(self.path))


class MovingDigitsSource(SourceDefaults):
    """Clips made from the digits of IDX files, with known answers; it stands in for recordings of actions."""

    kind: Literal["moving_digits"]
    bands: list[Annotated[BandConfig, BeforeValidator(_named_band)]] = Field(
        [BandConfig(name="gray")], min_length=1, max_length=1, description="the one band"
    )
    path: InputPath = Field(description="the folder of IDX files")
    answer: Literal["digit", "direction", "digit_and_direction", "boxes", "caption"] = Field(
        "digit", description="what is asked of a clip"
    )
    clips: int = Field(2000, ge=1, le=1_000_000, description="of the part train, from the file with most images")
    test_clips: int = Field(500, ge=1, le=1_000_000, description="of the part test, from the other files")
    frames: int = Field(12, ge=2, le=100, description="of each clip")
    side: int = Field(48, ge=8, le=512, description="of each frame, pixels")
    digits: int = Field(1, ge=1, le=5, description="in each clip; more than one for boxes only")
    seed: Seed = Field(0, description="of all clips")

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        yield from schema.missing_folder(Path(self.path))


SamplesSource = Annotated[SampleFilesSource | IdxSource | MovingDigitsSource | WindowsSource, Field(discriminator="kind")]
AnySamplesSource = SampleFilesSource | IdxSource | MovingDigitsSource | WindowsSource
SampleLabels = Annotated[AnswersConfig | PlaceLabelsConfig, Field(discriminator="kind")]
SpanLabels = Annotated[SpanAnswersConfig | PlaceLabelsConfig, Field(discriminator="kind")]


class FramesConfig(Strict):
    """What becomes of the frames of each sample, so that all are of one size."""

    count: int | None = Field(
        None, ge=1, description="frames that are kept, evenly chosen; shorter samples are padded; default: those of the first"
    )
    size: list[Annotated[int, Field(ge=1, le=4096)]] | None = Field(
        None, min_length=2, max_length=3, description="(y, x), of volumes (z, y, x), pixels; default: as it is"
    )
    crop: tuple[float, float, float, float] = Field(
        (0.0, 0.0, 1.0, 1.0), description="what is kept, as shares: first row, first column, last row, last column"
    )
    fit: Literal["cut", "stretch", "pad"] = Field(
        "cut", description="frames of other proportions: both sides are cut alike, stretched, or padded with 0"
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        top, left, bottom, right = self.crop
        if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
            yield Finding(("frames", "crop"), f"{list(self.crop)} has no area", "shares from 0 to 1: top, left, bottom, right")


class SampleSplitConfig(Strict):
    """Folds of whole groups; each fold is tested by networks that were not trained on it. Or the test part of the data set."""

    test: Name | None = Field(None, description="the part that tests (e.g. t10k); then there are no folds")
    folds: int = Field(5, ge=2, le=50, description="parts of the groups; at least one network each")
    networks: int = Field(1, ge=1, description="networks of each fold, with other seeds and validation groups; their mean counts")
    validation_parts: int = Field(5, ge=2, description="one in so many of the other groups chooses epoch and temperature")
    seed: Seed = Field(0, description="of the assignment of groups")


class SampleAugmentConfig(Strict):
    """What is done to training samples, anew in every epoch; the defaults change nothing."""

    flip: Literal["none", "horizontal", "vertical", "both"] = Field("none", description="mirrored, each axis half of the time")
    rotate_degrees: float = Field(0.0, ge=0, le=180, description="turned by up to so much either way")
    crop: float = Field(1.0, gt=0, le=1, description="smallest side of the part that is shown, as a share")
    noise: float = Field(0.0, ge=0, description="standard deviation, in those of the band")
    brightness: float = Field(0.0, ge=0, description="standard deviation of the shift, in those of the band")
    contrast: float = Field(0.0, ge=0, description="standard deviation of the factor")
    hidden_frames: float = Field(0.0, ge=0, lt=1, description="share of the frames that are hidden")
    time_jitter: float = Field(0.0, ge=0, lt=0.5, description="share of the frames by which either end is cut at random")
    mixup: float = Field(0.0, ge=0, description="alpha of the Beta distribution by which two samples are mixed; 0: none")


class SamplesEvaluation(Strict):
    """What every task on samples asks of its model."""

    references: Sequence[str] = Field((), description="on the same folds")
    must_equal: Sequence[str] = Field((), description="references that may not be better beyond the interval")
    margin: Fraction = Field(0.01, description="smallest difference that matters")
    confidence: Fraction = Field(0.95, description="of the intervals")
    most_labels: int = Field(
        5000, ge=10, description="samples of a class that references learn from; of more so many are drawn at random"
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from schema.check_must_equal(self.must_equal, self.references)


class AuditedEvaluation(SamplesEvaluation):
    """Of tasks whose answers metadata could give away."""

    near: Fraction = Field(0.05, description="metadata alone this near to the model's balanced accuracy makes it CONFOUNDED")


# ---------------------------------------------------------------- objects


def build_sample_source(
    source: AnySamplesSource, labels: AnswersConfig | PlaceLabelsConfig | None, frames: FramesConfig
) -> SampleSource:
    """The source of samples. Raises RequestError, MissingInput for a table or cube that cannot be read."""
    from configs.build import build_bands, build_image_request

    match source:
        case WindowsSource():
            assert not isinstance(labels, AnswersConfig), "checked with the config"
            return build_windows(source, labels)
        case SampleFilesSource():
            from pipelines.sources.sample_files import SampleFiles

            assert not isinstance(labels, PlaceLabelsConfig), "checked with the config"
            table = None if labels is None or labels.path is None else Path(labels.path)
            return SampleFiles(
                Path(source.path), build_image_request(source), _answers(labels), source.pattern, source.unit, frames.count,
                source.frame_time, table,
            )  # fmt: skip
        case IdxSource():
            from pipelines.sources.idx import IdxSource as Idx

            return Idx(Path(source.path), build_bands(source)[0], source.most)
        case MovingDigitsSource():
            from pipelines.sources.moving_digits import MovingDigits

            how = source.model_dump(include={"answer", "clips", "test_clips", "frames", "side", "digits", "seed"})
            return MovingDigits(Path(source.path), band=build_bands(source)[0], **how)


def _answers(labels: AnswersConfig | None) -> Answers:
    """Raises RequestError, MissingInput."""
    from pipelines.sources.answers import AnswerColumns, Answers, BoxColumns, SpanColumns, read_answers, read_boxes, read_spans

    if labels is None or labels.path is None:
        return Answers(from_folders=labels is not None and labels.kind == "folders")
    table, named = Path(labels.path), labels.read_columns
    if "frame" in named:
        return read_boxes(table, BoxColumns(**named))
    if isinstance(labels, SpanAnswersConfig) and labels.spans is not None:
        return read_spans(table, SpanColumns(**named), labels.spans)
    return read_answers(table, AnswerColumns(**named))


def build_frames(frames: FramesConfig) -> FrameSettings:
    from pipelines.samples.sample_frames import FrameSettings

    return FrameSettings(frames.count, frames.crop, None if frames.size is None else tuple(frames.size), frames.fit)
