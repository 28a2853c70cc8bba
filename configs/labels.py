"""What is known of which place and time: labels of classes and of change, of one cube and of sites. For tasks that learn them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from pydantic import Field

from configs import sites
from configs.paths import BELOW_SOURCE
from configs.privacy import OF_VOLUMES
from configs.run import Run
from configs.schema import Finding, InputPath, LocalPath, Name, Sections, Strict, UtcDate, check_crs, missing_file
from configs.sites import SitesSource, check_label_path

if TYPE_CHECKING:
    import numpy as np

    from pipelines.grid import Grid
    from pipelines.samples.label_codes import LabelSettings
    from pipelines.samples.labels import Labels, Span

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

    kind: Literal["points", "polygons", "raster"] = Field(
        description="CSV with a point a line; GPKG or GeoJSON; GeoTIFF, of volumes NIfTI"
    )
    path: InputPath = Field(description="the file")
    columns: ColumnsConfig = ColumnsConfig()
    crs: str = Field("EPSG:4326", description="of the coordinates of points")
    layer: str | None = Field(None, description="of a GeoPackage; default: its first")
    codes: dict[int, Name] = Field({}, description="code of a label raster -> class; other codes are unlabelled")
    band: int = Field(1, ge=1, description="number of the band of a label raster")
    on_cube_grid: bool = Field(False, description="a label raster without georeferencing, whose pixels are those of the cube")
    start: UtcDate | None = Field(
        None,
        description="labels within `start` and `stop` count; the span of those without their own; of volumes default: all times",
    )
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
        is_of_volumes = getattr(sections.get("source"), "kind", "") in OF_VOLUMES
        if is_of_volumes and self.kind != "raster":
            yield Finding(
                ("labels", "kind"), f"{self.kind} have a place on Earth, and volumes have none", "kind: raster, a NIfTI file"
            )
        if self.kind == "raster" and self.start is None and not is_of_volumes:
            yield Finding(("labels", "start"), "a label raster has no dates of its own", "set labels.start and labels.stop")
        if self.start and self.stop and self.start >= self.stop:
            yield Finding(("labels", "stop"), "the span ends before it begins")
        if isinstance(sections.get("source"), SitesSource):
            yield Finding(("labels", "kind"), "sites have a label raster each", "kind: site_rasters, with {site} in labels.path")

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        yield from missing_file(("labels", "path"), Path(self.path))


class SiteRasters(Strict):
    """A label raster of each site; all dates of a site are its span."""

    kind: Literal["site_rasters"] = Field(description="GeoTIFF of every site of `source: {kind: sites}`")
    path: Annotated[LocalPath, BELOW_SOURCE] = Field(description="path below source.path, e.g. {site}/{site}-cm.tif")
    codes: dict[int, Name] = Field(description="code -> class; other codes are unlabelled")
    band: int = Field(1, ge=1, description="number of the label's band in its file")
    grid_of: Literal["own", "first", "last"] = Field(
        "own", description="whose grid the label lies on: its own georeferencing, or the first or last scene's"
    )
    min_dates: int = Field(2, ge=1, description="labels with fewer usable dates are dropped")

    @property
    def classes(self) -> list[str]:
        """In the order of the codes."""
        return list(dict.fromkeys(self.codes.values()))

    def check(self, sections: Sections) -> Iterator[Finding]:
        if len(self.classes) < 2:
            yield Finding(("labels", "codes"), "two classes are needed", "for example {1: forest, 2: water}")
        yield from check_label_path(self.path, source := sections.get("source"))
        if sections.get("pairs") and any(one.formula != "band" for one in sections.get("variables") or ()):
            yield Finding(("variables",), "indices of bands cannot be made comparable by `pairs`", "leave one of both out")
        if source is not None and not isinstance(source, SitesSource):
            yield Finding(("labels", "kind"), "site_rasters are of `source: {kind: sites}`", "kind: raster for one cube")


class LabelsConfig(Strict):
    """Label rasters: which pixels changed. Codes that are in neither list are unknown and left out."""

    path: Annotated[LocalPath, BELOW_SOURCE] = Field(description="path below source.path, e.g. {site}/{site}-cm.tif")
    band: int = Field(1, ge=1, description="number of the label's band in its file")
    changed: list[int] = Field([1], min_length=1, description="codes that mean changed")
    unchanged: list[int] = Field([0], min_length=1, description="codes that mean not changed")
    grid_of: Literal["own", "first", "last"] = Field(
        "own", description="whose grid the label lies on: its own georeferencing, or the first or last scene's"
    )

    def check(self, sections: Sections) -> Iterator[Finding]:
        both, source = sorted(set(self.changed) & set(self.unchanged)), sections.get("source")
        if both:
            problem = f"the codes {both} mean changed and unchanged"
            yield Finding(("labels", "changed"), problem, "every code in one of the lists")
        yield from check_label_path(self.path, source)


def check_spans(spans: str | None, sections: Sections) -> Iterator[Finding]:
    """Findings where labels of spans cannot be learnt."""
    if spans is None:
        return
    if sections.get("task") != "classify":
        yield Finding(("labels", "spans"), "are labels, which `task: classify` learns", "task: classify, or take spans out")
    if getattr(getattr(sections.get("training"), "augment", None), "mixup", 0):
        yield Finding(("training", "augment", "mixup"), "mixes labelled steps with others", "0 where labels are of spans")
    if getattr(sections.get("prediction"), "map", False):
        yield Finding(("prediction", "map"), "is one answer for each pixel, labels.spans asks for many", "take one of both out")


AnySiteLabels = LabelsConfig | SiteRasters | None

# ---------------------------------------------------------------- objects


class Spanned(Protocol):
    @property
    def start(self) -> datetime | None: ...
    @property
    def stop(self) -> datetime | None: ...


def build_span(section: Spanned) -> Span | None:
    import numpy as np

    from pipelines.samples.labels import Span

    if section.start is None or section.stop is None:
        return None
    return Span(np.datetime64(section.start, "s"), np.datetime64(section.stop, "s"))


def read_labels(asked: ClassLabelsConfig, grid: Grid, classes: Sequence[str] = (), times_T: np.ndarray | None = None) -> Labels:
    """Every label on the cube's grid; `classes`: of a trained model. `times_T`: the cube's, the span of volumes without one.

    Raises MissingInput, RequestError.
    """
    from pipelines.samples.class_samples import whole_span
    from pipelines.samples.label_volumes import read_label_volume
    from pipelines.samples.labels import Fields, read_points, read_polygons, read_raster, resolve_labels

    span, fields = build_span(asked), Fields(**asked.columns.model_dump())
    if grid.is_volume:
        span = span or (None if times_T is None else whole_span(times_T))
        assert span is not None, "volumes come with their times"
        return resolve_labels(read_label_volume(Path(asked.path), asked.codes, grid, span), grid, classes or asked.classes, span)
    match asked.kind:
        case "points":
            given = read_points(Path(asked.path), fields, asked.crs, grid, span)
        case "polygons":
            given = read_polygons(Path(asked.path), fields, grid, span, asked.layer)
        case "raster":
            assert span is not None, "checked with the config"
            given = read_raster(Path(asked.path), asked.codes, grid, span, asked.band, on_grid=asked.on_cube_grid)
    return resolve_labels(given, grid, classes or asked.classes, span)


def label_file(run: Run, labels: AnySiteLabels, site: str, predicted: Sequence[str] | None, *, is_used: bool) -> Path | None:
    """The label raster of a site; None without `labels`, and where it is not there and not needed.

    It is not for sites that are `predicted`, nor with a model that was trained before (`is_used`). Raises MissingInput,
    RequestError.
    """
    if labels is None:
        return None
    return sites.label_file(run.source, labels.path, site, is_needed=site not in (predicted or ()) and not is_used)


def build_label_settings(asked: AnySiteLabels) -> LabelSettings | None:
    """How the label rasters of sites are read; None without any."""
    from pipelines.samples.label_codes import LabelSettings, change_labels

    match asked:
        case None:
            return None
        case LabelsConfig():
            return change_labels(tuple(asked.changed), tuple(asked.unchanged), asked.band, asked.grid_of)
        case SiteRasters():
            codes = tuple(tuple(code for code, of in asked.codes.items() if of == name) for name in asked.classes)
            return LabelSettings(codes, tuple(asked.classes), "labels.codes", asked.band, asked.grid_of)
