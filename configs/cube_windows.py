"""Samples that are cut out of a cube: windows around labelled places, through the dates of a span. Schema, checks, objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from configs.labels import ColumnsConfig, build_span, check_spans
from configs.paths import READ
from configs.schema import CubeUri, Finding, InputPath, Name, Sections, Strict, UtcDate, check_crs, missing_file
from configs.sources import SourceDefaults

if TYPE_CHECKING:
    from pipelines.grid import Grid
    from pipelines.samples.cube_windows import CubeWindows
    from pipelines.samples.labels import Given, Labels, Span

PLACES = ("points", "polygons", "raster")  # kinds of labels that lie on the ground

# ---------------------------------------------------------------- schema


class WindowsSource(SourceDefaults):
    """Windows of a cube that another run has ingested: each labelled place is a sample. `bands` are names of the cube's bands,
    whose scale, nodata and unit the cube states."""

    kind: Literal["windows"]
    cube: Annotated[CubeUri, READ] = Field(description="the cube: runs/NAME/cube, a path or s3://bucket/prefix")
    window_px: int = Field(1, ge=1, le=257, description="side of the window around a place, odd")
    block_px: int = Field(8, ge=1, description="side of the blocks that stay together in a split; 1 splits by pixel")
    start: UtcDate | None = Field(
        None, description="labels whose span lies within `start` and `stop` count; the span of labels without their own"
    )
    stop: UtcDate | None = Field(None, description="the day after the last one")
    steps: int | None = Field(
        None, ge=1, le=1000, description="frames of each sample, evenly over its span, each the mean of the valid dates in it; "
        "default: the dates as they are, of which all spans must have equally many",
    )  # fmt: skip
    every_px: int = Field(1, ge=1, description="of label rasters, and of a cube without labels: one pixel in so many each way")
    min_frames: int = Field(1, ge=1, description="windows with fewer valid frames are refused")

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from super().check(sections)
        stated = SourceDefaults.model_fields.keys() & self.model_fields_set - {"bands"}
        for name in sorted(stated):
            yield Finding(("source", name), "is what the cube states", "take it out, or correct it where the cube is ingested")
        for index, band in enumerate(self.bands):
            if band.model_fields_set - {"name"}:
                yield Finding(("source", "bands", index), "is described by the cube", f"write its name only: {band.name}")
        if self.window_px % 2 == 0:
            yield Finding(("source", "window_px"), f"{self.window_px} has no middle", f"{self.window_px + 1}")
        if (self.start is None) != (self.stop is None):
            yield Finding(("source", "start"), "`start` and `stop` are given together or not at all")
        if self.start and self.stop and self.start >= self.stop:
            yield Finding(("source", "stop"), "the span ends before it begins")
        frames = sections.get("frames")
        if frames is not None and frames.model_fields_set:
            yield Finding(("frames",), "is not for windows of a cube", "source.steps and source.window_px say how large they are")
        if getattr(sections.get("split"), "test", None) is not None:
            yield Finding(
                ("split", "test"), "windows of a cube have no parts", "take it out: folds are blocks of source.block_px"
            )


class PlaceLabelsConfig(Strict):
    """What is known of places: points with a class or number each, polygons, or a raster."""

    kind: Literal["points", "polygons", "raster"] = Field(description="CSV with a point a line; GPKG or GeoJSON; GeoTIFF")
    path: InputPath = Field(description="the file")
    columns: ColumnsConfig = ColumnsConfig()
    crs: str = Field("EPSG:4326", description="of the coordinates of points")
    layer: str | None = Field(None, description="of a GeoPackage; default: its first")
    codes: dict[int, Name] = Field({}, description="code of a raster -> class; default: its values are numbers (`regress`)")
    band: int = Field(1, ge=1, description="number of the band of a raster")
    nodata: float | None = Field(None, description="value of a raster of numbers that is none, beside what the file says")
    on_cube_grid: bool = Field(False, description="a raster without georeferencing, whose pixels are those of the cube")
    classes: list[str] = Field([], description="classes that count, in this order; default: all, sorted by name")
    spans: Literal["dates"] | None = Field(
        None, description="labels of a place are those of the steps within their spans, of one sample through source.start and "
        "source.stop; default: each is of a sample of its own through its span",
    )  # fmt: skip

    def check(self, sections: Sections) -> Iterator[Finding]:
        yield from check_crs(("labels", "crs"), self.crs)
        yield from check_spans(self.spans, sections)
        if self.spans is not None and self.kind == "raster":
            yield Finding(("labels", "spans"), "a label raster has one span", "points or polygons, or take spans out")
        source, task = sections.get("source"), sections.get("task")
        if source is not None and not isinstance(source, WindowsSource):
            yield Finding(("labels", "kind"), "is of places", "table or folders, or source: {kind: windows}")
        if self.kind != "raster":
            return
        if isinstance(source, WindowsSource) and source.start is None:
            yield Finding(("source", "start"), "a label raster has no dates of its own", "set source.start and source.stop")
        if task == "classify" and len(set(self.codes.values())) < 2:
            yield Finding(("labels", "codes"), "the codes of two classes are needed", "for example {1: forest, 2: water}")
        if task == "regress" and self.codes:
            yield Finding(("labels", "codes"), "are of classes", "take them out: values are numbers, or task: classify")

    def check_files(self, sections: Sections) -> Iterator[Finding]:
        yield from missing_file(("labels", "path"), Path(self.path))


def groups_of(source: SourceDefaults) -> str:
    """What a split keeps together: `blocks of 5 x 5 pixels`."""
    return f"blocks of {source.block_px} x {source.block_px} pixels" if isinstance(source, WindowsSource) else "groups"


# ---------------------------------------------------------------- objects


def build_windows(source: WindowsSource, asked: PlaceLabelsConfig | None, snapshot: str | None = None) -> CubeWindows:
    """The windows, of the newest version of the cube or of `snapshot`. Raises MissingInput, RequestError."""
    from dataclasses import replace

    from pipelines.samples.cube_windows import WindowSettings, open_windows

    settings = WindowSettings(**source.model_dump(include=set(WindowSettings.__dataclass_fields__)))
    windows = open_windows(source.cube, [band.name for band in source.bands], settings, snapshot)
    span = build_span(source)
    labels = None if asked is None else _labels(asked, windows.grid, span, source.every_px)
    return replace(windows, labels=labels, span=span, per_step=asked is not None and asked.spans is not None)


def _labels(asked: PlaceLabelsConfig, grid: Grid, span: Span | None, every_px: int) -> Labels:
    from pipelines.samples.labels import resolve_labels

    labels = resolve_labels(_given(asked, grid, span), grid, asked.classes, span)
    if asked.kind != "raster" or every_px == 1:
        return labels
    first = (every_px - 1) // 2
    is_kept_P = (labels.row_P % every_px == first) & (labels.column_P % every_px == first)
    return labels.keep(is_kept_P, "thinned")


def _given(asked: PlaceLabelsConfig, grid: Grid, span: Span | None) -> Given:
    from pipelines.samples.label_values import read_values
    from pipelines.samples.labels import Fields, read_points, read_polygons, read_raster

    path, fields = Path(asked.path), Fields(**asked.columns.model_dump())
    if asked.kind == "points":
        return read_points(path, fields, asked.crs, grid, span)
    if asked.kind == "polygons":
        return read_polygons(path, fields, grid, span, asked.layer)
    assert span is not None, "checked with the config"
    if asked.codes:
        return read_raster(path, asked.codes, grid, span, asked.band, on_grid=asked.on_cube_grid)
    return read_values(path, grid, span, asked.band, asked.nodata, on_grid=asked.on_cube_grid)
