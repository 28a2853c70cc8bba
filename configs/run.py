"""What every run has: name, task, cube, quality mask, grid; and the variables that several tasks compute from bands.

YAML only fills the values of these frozen, typed trees; unknown keys are mistakes. Dates are ISO 8601, UTC. Shapes are (y, x).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from configs.compute import ComputeConfig
from configs.paths import BELOW_SOURCE, READ, WRITE
from configs.privacy import PrivacyConfig
from configs.schema import (
    CubeUri,
    Finding,
    LocalPath,
    ModelPath,
    Name,
    RunsUri,
    Sections,
    Seed,
    Strict,
    check_crs,
    check_range,
    suggest,
)
from configs.sources import Source, SourceDefaults
from configs.yaml_positions import Key


class SclQuality(Strict):
    """Sentinel-2 scene classification (Sen2Cor L2A PUM, SCL classes 0-11)."""

    kind: Literal["scl"]
    band: str = Field("SCL", description="its name in the files")
    keep: list[int] = Field([4, 5, 6, 7], description="classes that may be used")
    away_px: int = Field(0, ge=0, description="usable pixels are more than this many pixels away from any other")


class LandsatQuality(Strict):
    """Landsat quality bits: Collection 1 `BQA` or Collection 2 `QA_PIXEL` (USGS LSDS-1619)."""

    kind: Literal["landsat"]
    band: str = Field("QA_PIXEL", description="its name in the files")
    collection: Literal[1, 2] = Field(2, description="of the Landsat archive; 1 has `BQA`, 2 has `QA_PIXEL`")
    away_px: int = Field(0, ge=0, description="usable pixels are more than this many pixels away from any other")


class MaskQuality(Strict):
    """A plain mask."""

    kind: Literal["mask"]
    band: str = Field(description="its name in the files")
    valid_values: list[int] = Field([1], description="values of usable pixels")
    away_px: int = Field(0, ge=0, description="usable pixels are more than this many pixels away from any other")


Quality = Annotated[SclQuality | LandsatQuality | MaskQuality, Field(discriminator="kind")]


class GridConfig(Strict):
    """The cube's grid."""

    crs: str = Field(description="EPSG code, PROJ string or WKT")
    resolution: float = Field(gt=0, description="pixel size in CRS units")
    bounds: tuple[float, float, float, float] = Field(description="left, bottom, right, top in CRS units")

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from check_crs(("grid", "crs"), self.crs)
        left, bottom, right, top = self.bounds
        if left >= right or bottom >= top:
            remedy = "order: left, bottom, right, top in CRS units"
            yield Finding(("grid", "bounds"), f"{list(self.bounds)} has no area", remedy)


class CubeConfig(Strict):
    """Where and how the cube is stored, and what becomes of scenes that do not fit."""

    uri: Annotated[CubeUri | None, WRITE] = Field(None, description="default: runs/NAME/cube; a path or s3://bucket/prefix")
    chunk_px: int = Field(256, ge=16, description="side of the blocks in which the cube is stored and read")
    shard_px: int | None = Field(
        None,
        ge=16,
        exclude_if=lambda value: value is None,
        description="width of the objects in which blocks that lie side by side are stored together, a multiple of `chunk_px`; "
        "default: 16 times `chunk_px` for rasters of more than 4096 pixels on a side, else `chunk_px`: an object for each block",
    )
    resampling: Literal["nearest", "bilinear", "cubic", "average"] = Field(
        "nearest", description="of reprojected bands; the quality band is always nearest"
    )
    on_other_grid: Literal["reproject", "refuse"] = Field(
        "refuse", description="what happens to a scene whose CRS or grid differs from the cube's"
    )
    same_date: Literal["refuse", "mosaic"] = Field("refuse", description="what happens to a second scene on a date")
    on_missing: Literal["keep", "drop"] = Field(
        "keep", description="what happens to a scene of the cube whose file is gone: it stays, or the cube follows the source"
    )
    min_valid_fraction: float = Field(0.0, ge=0, le=1, description="scenes with fewer usable pixels are refused")
    memory_mb: int = Field(512, ge=64, description="bound for pixel buffers during ingest, and for decoding one scene")
    quarantine: Annotated[LocalPath | None, WRITE] = Field(
        None,
        exclude_if=lambda value: value is None,
        description="a folder of links to the files of refused scenes, each with its reason; every ingest writes it again",
    )
    workers: int | None = Field(None, ge=1, description="threads of ingest; default: the number of cores")
    staging: Annotated[CubeUri | None, WRITE] = Field(
        None,
        exclude_if=lambda value: value is None,
        description="where `driftline ingest --slice` keeps scenes until `--finish`: a folder or s3://bucket/prefix that all "
        "slices can write; default: runs/NAME/staging",
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        if self.shard_px is not None and self.shard_px % self.chunk_px:
            problem = f"{self.shard_px} is no multiple of cube.chunk_px, {self.chunk_px}"
            yield Finding(("cube", "shard_px"), problem, f"for example {4 * self.chunk_px}")


class PolicyConfig(Strict):
    """Rules for archives, stricter than driftline's own; the defaults add none. See validation.md."""

    conversions: Literal["convert", "refuse"] = Field(
        "convert", description="refuse: scenes whose scale or offset differs from the cube's are refused, not converted"
    )
    unused: Literal["list", "refuse"] = Field(
        "list",
        description="refuse: a file, folder or variable that no scene uses ends the ingest; scenes whose files hold more bands "
        "than the config names are refused",
    )
    checksums: Annotated[LocalPath | None, BELOW_SOURCE] = Field(
        None,
        description="a list as sha256sum, sha512sum, sha1sum or md5sum writes it, below `source.path`; scenes with a file that "
        "is not in it, or differs, are refused",
    )
    max_refused: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share of the scenes; where more are refused, the run ends with exit code 1 after the ingest. Clouds and "
        "scenes that were taken out by hand do not count",
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        cube = sections.get("cube")
        if self.conversions == "refuse" and cube is not None and cube.on_other_grid == "reproject":
            problem = "cube.on_other_grid: reproject converts scenes to another grid, which policy.conversions refuses"
            yield Finding(("policy", "conversions"), problem, "set cube.on_other_grid: refuse, or conversions: convert")


class VariableConfig(Strict):
    """What is forecast or monitored, in physical values: a band, or an index of bands."""

    name: Name = Field(description="the name of the variable in tables, files and messages")
    formula: Literal["band", "normalized_difference", "ratio"] = Field(
        "band", description="normalized_difference: (first - second) / (first + second); ratio: first / second"
    )
    bands: list[Name] = Field(min_length=1, max_length=2, description="one; two of an index, in the order of the formula")
    transform: Literal["none", "log1p"] = Field("none", description="applied before the network sees it, undone after")
    valid_range: tuple[float, float] | None = Field(
        None, description="in physical values; outside is not valid, and no forecast or bound leaves it"
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from self.check_at(("variable",), sections)

    def check_at(self, key: Key, sections: Sections) -> Iterator[Finding]:
        """Findings for the variable at `key`; its bands are not looked up where the source is wrong."""
        needs = 1 if self.formula == "band" else 2
        if len(self.bands) != needs:
            form = f"formula {self.formula!r} takes {needs} band{'s' if needs > 1 else ''}, found {len(self.bands)}"
            yield Finding((*key, "bands"), form, "formulas: band (1), normalized_difference (2), ratio (2)")
        yield from check_range(key, self.valid_range)
        source = sections.get("source")
        known = [band.name for band in source.bands] if source is not None else self.bands
        for position, band in enumerate(self.bands):
            if band not in known:
                remedy = suggest(band, known, f"the source's bands are {', '.join(known)}")
                yield Finding((*key, "bands", position), f"unknown band {band!r}", remedy)


class ModelConfig(Strict):
    """What every model has: it is trained, or one that was trained before is used."""

    # not written out while they are the defaults: a model that is trained here does not depend on them
    use: Annotated[ModelPath | None, READ] = Field(
        None,
        exclude_if=lambda value: value is None,
        description="a model that was trained before, used as it is: runs/NAME, its folder `model`, or s3://bucket/prefix; "
        "what belongs to it (bands, variables, steps, architecture) need not be stated again",
    )
    as_is: bool = Field(
        False,
        exclude_if=lambda value: not value,
        description="of `use`: even if values or steps of the images are not like those that it was trained on",
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        if self.as_is and self.use is None and getattr(sections.get("training"), "start_from", None) is None:
            yield Finding(("model", "as_is"), "says how a model is used, and none is named", "add model.use, or take it out")
        if self.use is None and sections.get("labels", self) is None:  # tasks without labels have no such section
            remedy = "say where they are; only a run with a model that was trained before (model.use) needs none"
            yield Finding(("labels",), "is required and missing", remedy)


class TrainingDefaults(Strict):
    """What every training has."""

    clip: float = Field(1.0, gt=0, description="largest gradient norm; a larger one is scaled down to it")
    precision: Literal["32", "bf16-mixed", "16-mixed"] = Field("32", description="of the arithmetic; mixed: for GPUs")
    accelerator: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: a GPU if there is one")
    devices: int = Field(1, ge=1, description="GPUs, or processes on CPUs, that share each batch")
    seed: Seed = Field(0, description="of all that is random in training")
    # the following are not written out while they change nothing: trainings do not depend on them
    schedule: Literal["one_cycle", "cosine", "constant"] = Field(
        "one_cycle",
        exclude_if=lambda value: value == "one_cycle",
        description="of the learning rate over all steps; cosine: rises in the first 5 % of them, then falls to 0",
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        exclude_if=lambda value: value == 0,
        description="decay per step of the mean of the weights that is evaluated and kept in place of the last ones, such as "
        "0.999; 0: none",
    )
    micro_batch: int | None = Field(
        None,
        ge=1,
        exclude_if=lambda value: value is None,
        description="windows or samples that go through the network at a time: less memory, the same steps, more time; default: "
        "`batch`, and less where memory is short",
    )


class StartedTraining(TrainingDefaults):
    """What a training has that can begin from a trained model."""

    start_from: Annotated[ModelPath | None, READ] = Field(
        None,
        exclude_if=lambda value: value is None,
        description="a trained model (as of `model.use`) from whose weights training begins: of the same architecture, or one of "
        "another task, of which the layers that fit are copied",
    )


class Run(Strict):
    """What the runs of every task have."""

    name: Name = Field(description="the name of the run, and of its folder below `runs`")
    task: str = Field(description="which kind of run this is")
    source: SourceDefaults
    quality: Quality | None = Field(None, description="the band that marks clouds; default: all data are usable")
    cube: CubeConfig = CubeConfig()
    # not written out while it adds no rule: cubes and models do not depend on it
    policy: PolicyConfig = Field(PolicyConfig(), exclude_if=lambda value: value == PolicyConfig())
    runs: RunsUri = Field(
        "runs", description="folder under which runs/NAME/ is made, or s3://bucket/prefix, under which it is stored; see scale.md"
    )
    # not written out while it is the default: where work runs changes no result
    compute: ComputeConfig = Field(
        ComputeConfig(), exclude_if=lambda value: value == ComputeConfig(), description="where work runs; see scale.md"
    )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, task={self.task!r})"

    __str__ = __repr__


class CubeRun(Run):
    """A run over the one cube of one source."""

    source: Source = Field(description="where the scenes come from")
    grid: GridConfig | None = Field(None, description="default: the grid of the first readable scene")
    privacy: PrivacyConfig | None = Field(
        None,
        exclude_if=lambda value: value is None,  # runs on images of places do not depend on it
        description="of sources of patients' images; default: they are de-identified, with the defaults of this section",
    )
