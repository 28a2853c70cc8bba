"""`task: pair`: two images of one place and no label. Schema, checks, and the objects that it describes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from configs.compute import ComputeConfig
from configs.paths import READ
from configs.run import CubeConfig
from configs.schema import Finding, InputPath, ModelPath, Name, RunsUri, Sections, Strict, UtcDate
from configs.sites import PairsConfig

if TYPE_CHECKING:
    from models.baselines.change_indices import ChangeVector
    from models.change_detector import ChangeDetector
    from pipelines.cube.ingest import IngestSettings
    from pipelines.samples.pairs import PairSettings
    from pipelines.sources.image_pair import PairSource

THRESHOLD = 1.5  # docs/design/009-geometry-models-api.md compares it with rules that estimate a threshold


class PairImages(Strict):
    """Two images: each a GeoTIFF or JPEG2000 file of one or more bands, or a folder with one such file per band."""

    before: InputPath = Field(description="the earlier image; the maps are on the grid of its finest band")
    after: InputPath = Field(description="the later image")
    dates: tuple[UtcDate, UtcDate] | None = Field(None, description="of both images; default: those in the names, if any")
    bands: list[str] | None = Field(
        None, min_length=1, description="names of the bands to compare; default: those of the finest pixels that are in both"
    )
    nodata: float | None = Field(None, description="stored value of missing pixels, beside those that the files state")

    def check(self, sections: Sections) -> Iterator[Finding]:
        if self.dates is not None and self.dates[0] >= self.dates[1]:
            yield Finding(("images", "dates"), "the first date must be before the second")


class PairDetection(Strict):
    """How change is found."""

    model: Annotated[ModelPath | None, READ] = Field(
        None,
        description="a run of labelled change (runs/NAME or s3://...), its model or a checkpoint file; default: change vector "
        "analysis",
    )
    threshold: float | None = Field(
        None, ge=0, description="least score of a changed pixel; default: 1.5 standard deviations of the site, or the model's own"
    )
    min_area_px: int = Field(4, ge=1, description="changed patches of fewer pixels become no polygon")
    tile_px: int = Field(512, ge=16, description="images are scored in tiles of this side: less memory, the same result")

    def check(self, sections: Sections) -> Iterator[Finding]:
        images = sections.get("images")
        if self.model is not None and images is not None and images.bands is not None:
            problem = "a model compares the bands that it was trained on"
            yield Finding(("images", "bands"), problem, "leave them out, or leave detection.model out")
        if self.model is not None and self.threshold is not None and self.threshold > 1:
            problem = f"{self.threshold:g} is no probability, which is what a model gives"
            yield Finding(("detection", "threshold"), problem, "between 0 and 1, or leave it out")


class PairRun(Strict):
    """Two images of one place: what changed between them. `driftline change BEFORE AFTER` writes this config."""

    name: Name = Field(description="the name of the run, and of its folder below `runs`")
    task: Literal["pair"]
    images: PairImages
    cube: CubeConfig = CubeConfig(on_other_grid="reproject", resampling="bilinear", workers=1)
    pairs: PairsConfig = PairsConfig()
    detection: PairDetection = PairDetection()
    compute: ComputeConfig = Field(
        ComputeConfig(), exclude_if=lambda value: value == ComputeConfig(), description="where work runs; see scale.md"
    )
    runs: RunsUri = Field(
        "runs", description="folder under which runs/NAME/ is made, or s3://bucket/prefix, under which it is stored; see scale.md"
    )


# ---------------------------------------------------------------- objects


def build_pair_source(run: PairRun, wanted: list[str] | None = None) -> PairSource:
    """Both images, checked against each other. `wanted`: the bands of a model. Raises RequestError, MissingInput."""
    import numpy as np

    from pipelines.sources.image_pair import pair_images
    from pipelines.sources.images import read_image

    images = run.images
    before, after = (read_image(Path(path), images.nodata) for path in (images.before, images.after))
    dates = None if images.dates is None else [np.datetime64(date, "ns") for date in images.dates]
    return pair_images(before, after, wanted or images.bands, dates)


def build_pair_settings(run: PairRun) -> PairSettings:
    from pipelines.samples.pairs import PairSettings

    return PairSettings(**run.pairs.model_dump())


def build_pair_ingest(run: PairRun) -> IngestSettings:
    from pipelines.cube.ingest import IngestSettings

    return IngestSettings(**run.cube.model_dump(exclude={"uri"}))


def build_change_vector(spread_C: Sequence[float]) -> ChangeVector:
    """The change index of images without a model; `spread_C`: as `pipelines.change.pair_map.map_index` measures it."""
    from models.baselines.change_indices import ChangeVector

    return ChangeVector(spread_C=tuple(spread_C))


def load_detector(path: str | Path) -> tuple[ChangeDetector, dict[str, Any], str]:
    """(detector, metadata, hash). Raises MissingInput, ArtefactDamaged, RequestError (not a detector of labelled change)."""
    from configs.trained import load_model
    from models.checkpoint import DETECTOR

    detector, trained = load_model(path, DETECTOR, "change")
    return detector, trained.metadata, trained.hash
