"""What every run has: name, task, cube, quality mask, grid; and the variables that several tasks compute from bands.

YAML only fills the values of these frozen, typed trees; unknown keys are mistakes. Dates are ISO 8601, UTC. Shapes are (y, x).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from configs.findings import Finding, check_crs, closest
from configs.paths import CONNECT, WRITE
from configs.sources import Source, SourceDefaults
from configs.types import CubeUri, Name, OutputPath, Strict
from configs.yaml_positions import Key

Sections = Mapping[str, Any]  # the fields of a run -> their values; None for one that is wrong in itself


class SclQuality(Strict):
    """Sentinel-2 scene classification (Sen2Cor L2A PUM, SCL classes 0-11)."""

    kind: Literal["scl"]
    band: str = "SCL"
    keep: list[int] = Field([4, 5, 6, 7], description="classes that may be used")
    away_px: int = Field(0, ge=0, description="and this many pixels away from every class that is not kept")


class LandsatQuality(Strict):
    """Landsat quality bits: Collection 1 `BQA` or Collection 2 `QA_PIXEL` (USGS LSDS-1619)."""

    kind: Literal["landsat"]
    band: str = "QA_PIXEL"
    collection: Literal[1, 2] = 2
    away_px: int = Field(0, ge=0)


class MaskQuality(Strict):
    """A plain mask: `valid_values` are the values of usable pixels."""

    kind: Literal["mask"]
    band: str
    valid_values: list[int] = Field([1])
    away_px: int = Field(0, ge=0)


Quality = Annotated[SclQuality | LandsatQuality | MaskQuality, Field(discriminator="kind")]


class GridConfig(Strict):
    """The cube's grid. Left out: the grid of the first readable scene."""

    crs: str
    resolution: float = Field(gt=0, description="pixel size in CRS units")
    bounds: tuple[float, float, float, float] = Field(description="left, bottom, right, top in CRS units")


class CubeConfig(Strict):
    uri: Annotated[CubeUri | None, WRITE] = Field(None, description="default: runs/NAME/cube; a path or s3://bucket/prefix")
    chunk_px: int = Field(256, ge=16)
    resampling: Literal["nearest", "bilinear", "cubic", "average"] = "nearest"
    on_other_grid: Literal["reproject", "refuse"] = Field(
        "refuse", description="what happens to a scene whose CRS or grid differs from the cube's"
    )
    same_date: Literal["refuse", "mosaic"] = "refuse"
    min_valid_fraction: float = Field(0.0, ge=0, le=1, description="scenes with fewer usable pixels are refused")
    memory_mb: int = Field(512, ge=64, description="bound for pixel buffers during ingest")
    workers: int | None = Field(None, ge=1, description="default: the number of cores")
    dask: Annotated[str | None, CONNECT] = Field(None, description="scheduler address; default: threads of this process")


def check_grid(grid: GridConfig) -> Iterator[Finding]:
    yield from check_crs(("grid", "crs"), grid.crs)
    left, bottom, right, top = grid.bounds
    if left >= right or bottom >= top:
        yield Finding(("grid", "bounds"), f"{list(grid.bounds)} has no area", "order: left, bottom, right, top in CRS units")


class VariableConfig(Strict):
    """What is forecast, in physical values: a band, or an index of bands."""

    name: Name
    formula: Literal["band", "normalized_difference", "ratio"] = "band"
    bands: list[Name] = Field(min_length=1, max_length=2)
    transform: Literal["none", "log1p"] = Field("none", description="applied before the network sees it, undone after")
    valid_range: tuple[float, float] | None = Field(
        None, description="in physical values; outside is not valid, and no forecast or bound leaves it"
    )


def check_variable(key: Key, variable: VariableConfig, bands: list[str] | None) -> Iterator[Finding]:
    """Findings for one variable at `key`; `bands` are the source's, None if that section is wrong."""
    needs = 1 if variable.formula == "band" else 2
    if len(variable.bands) != needs:
        form = f"formula {variable.formula!r} takes {needs} band{'s' if needs > 1 else ''}, found {len(variable.bands)}"
        yield Finding((*key, "bands"), form, "formulas: band (1), normalized_difference (2), ratio (2)")
    if variable.valid_range and variable.valid_range[0] >= variable.valid_range[1]:
        yield Finding((*key, "valid_range"), "the first value must be smaller than the second")
    for position, band in enumerate(variable.bands):
        if bands is not None and band not in bands:
            yield Finding((*key, "bands", position), f"unknown band {band!r}", closest(band, bands, "the source's bands are"))


class Run(Strict):
    """What the runs of every task have."""

    name: Name
    task: str
    source: SourceDefaults
    quality: Quality | None = None
    cube: CubeConfig = CubeConfig()
    runs: OutputPath = Field("runs", description="folder under which runs/NAME/ is made")

    @classmethod
    def check(cls, sections: Sections) -> Iterator[Finding]:
        """What the schema cannot say: findings over values that do not fit each other, without looking at any file."""
        if (source := sections.get("source")) is not None:
            yield from source.check(quality_band(sections))

    @classmethod
    def check_files(cls, sections: Sections) -> Iterator[Finding]:
        """Findings for inputs that the run names and that are not there."""
        if (source := sections.get("source")) is not None:
            yield from source.check_files(quality_band(sections))


class CubeRun(Run):
    """A run over the one cube of one source."""

    source: Source
    grid: GridConfig | None = None

    @classmethod
    def check(cls, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        if (grid := sections.get("grid")) is not None:
            yield from check_grid(grid)


def quality_band(sections: Sections) -> str | None:
    """The band that the quality mask is made from."""
    quality: Quality | None = sections.get("quality")
    return None if quality is None else quality.band
