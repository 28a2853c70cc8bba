"""Layers of change -> what people open: patches, COGs, STAC, pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from geopandas import GeoDataFrame

from pipelines.grid import Grid
from pipelines.monitoring.areas import MonitoredCube, follow_pixel
from pipelines.monitoring.context import MonitorContext
from pipelines.monitoring.detector import CHANGED, Direction
from pipelines.monitoring.layers import LayerRows, Layers
from pipelines.monitoring.messages import day_of, iso_of
from pipelines.monitoring.replay import require_copied
from pipelines.monitoring.seasons import Acquisitions, before_and_after, changed_by_half
from pipelines.products.before_after import ChangeMaps, Observation, draw_change_animation, draw_change_quicklook
from pipelines.products.charts import Series, draw_change_series, draw_growth
from pipelines.products.cog import Lineage, write_layers
from pipelines.products.frames import read_variables, thin_rows
from pipelines.products.json_values import Json, plain
from pipelines.products.layers import MONITOR_LAYERS
from pipelines.products.polygons import LAYERS, kept_pixels, outline_changes, strongest_pixel, write_polygons
from pipelines.products.stac import change_item, write_collection

SPLIT_DAYS = 183.0  # neighbours that changed further apart are two patches: the felling of the next winter is a new one
PICTURED = ("change_day", "detected_day", "recovered_day", "magnitude", "confidence", "status", "direction")
PIXELS_SHOWN = 3


@dataclass(frozen=True)
class Found:
    """What a monitoring run found: the layers, and the outlines of their patches of at least `min_area_px` pixels."""

    context: MonitorContext
    layers: Layers
    patches: GeoDataFrame
    min_area_px: int

    @property
    def cube(self) -> MonitoredCube:
        return self.context.cube


def find_patches(context: MonitorContext, min_area_px: int) -> Found:
    """The layers of the state and the patches in them. Raises StateError where a block changes while they are copied."""
    layers = Layers.open(context.monitoring.layers, partial(require_copied, context.monitoring))
    return Found(context, layers, outline_layers(layers, context.cube.grid, min_area_px), min_area_px)


def outline_layers(layers: Layers, grid: Grid, min_area_px: int) -> GeoDataFrame:
    """The changed patches, those of fewer than `min_area_px` pixels left out."""
    status = layers.map("status")
    return outline_changes(status, grid, described(layers), code=CHANGED, min_area_px=min_area_px, split_days=SPLIT_DAYS)


def growth(layers: Layers, grid: Grid, patches: GeoDataFrame, min_area_px: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(change day, day of the alarm, area in m²) per pixel of the patches; the area is the mean, so that the sum is theirs."""
    pixels = kept_pixels(layers.map("status"), grid, described(layers), CHANGED, min_area_px, SPLIT_DAYS)
    area_m2 = float(patches["area_m2"].sum()) / max(pixels.row.size, 1)
    return pixels.values["change_day"], pixels.values["detected_day"], np.full(pixels.row.size, area_m2)


def described(layers: Layers) -> dict[str, LayerRows]:
    """The layers that describe a patch."""
    return {name: layers.map(name) for name in LAYERS if name in layers.dtypes}


def write_changes(found: Found, lineage: Lineage, name: str, quicklook: Path, folder: Path) -> None:
    """COGs, patches and the STAC collection of the run `name` in `folder`; `quicklook` is where its picture will be."""
    cube, variable = found.cube, found.cube.variable.name
    start = iso_of(min(max(cube.dates[0].time_ns, cube.start_ns), cube.dates[-1].time_ns))
    maps = {layer: found.layers.map(layer) for layer in found.layers.dtypes}
    cogs = write_layers(maps, MONITOR_LAYERS, cube.grid, cube.unit, lineage, folder)
    vectors = write_polygons(found.patches, folder, "changes")
    item = change_item(
        name, f"What changed in {variable}", cube.grid, start, MONITOR_LAYERS, cogs, vectors, cube.unit, lineage,
        facts_of(found.patches),
    )  # fmt: skip
    text = f"driftline change of {variable}, monitored since {day_of(cube.start_ns)}"
    write_collection(folder, name, "change", text, [item], pictures={"Quicklook": quicklook}, metrics={})


def lineage_of(context: MonitorContext, config_hash: str, code_version: str) -> Lineage:
    """What the products were made from: cube, detector, config, code, the last date, and the monitored scenes."""
    cube = context.cube
    scenes = tuple(date.scene_id for date in cube.dates if date.time_ns >= cube.start_ns)
    detector = context.monitoring.made_for.detector
    return Lineage(cube.snapshot, detector, config_hash, code_version, iso_of(cube.dates[-1].time_ns), scenes)


def facts_of(patches: GeoDataFrame) -> Json:
    """What was found, in a few numbers; JSON values."""
    facts = {"patches": len(patches), "area_m2": round(float(patches["area_m2"].sum()), 1)}
    if not patches["first_date"].notna().any():
        return facts
    return facts | {"first_change": plain(patches["first_date"].min()), "last_change": plain(patches["last_date"].max())}


def draw_changes(found: Found, direction: Direction, name: str, folder: Path) -> None:
    """Before, after and the maps; the course of a few pixels; the changed area over time; the change as it became known."""
    cube, variable, last = found.cube, found.cube.variable.name, found.cube.dates[-1]
    maps = change_maps(found, direction)
    title = f"{name}: what changed in {variable} since {day_of(cube.start_ns)}"
    patches = f"{len(found.patches)} patch{'es' * (len(found.patches) != 1)}"
    area, until = f"{float(found.patches['area_m2'].sum()) / 1e4:.1f} ha", day_of(last.time_ns)
    subtitle = f"{patches}, {area}, until {until}; {found.context.expected.name} model, cube {cube.snapshot}"
    draw_change_quicklook(maps, folder / "quicklook.png", title, subtitle)
    shown = zip(found.patches["id"], maps.marked, strict=False)
    series = [series_of(found, f"{number}  {patch}", pixel) for number, (patch, pixel) in enumerate(shown, start=1)]
    text = "What the largest patches show"
    draw_change_series(series, folder / "series.png", text, variable, cube.unit, cube.start_day)
    grown = growth(found.layers, cube.grid, found.patches, found.min_area_px)
    draw_growth(*grown, folder / "growth.png", cube.start_day, last.day)
    # from the last date of the history, on which no change was known: every frame is a date that was observed
    first_day = max((date.day for date in cube.dates if date.day < cube.start_day), default=cube.start_day)
    draw_change_animation(maps, folder / "animation.gif", name, first_day, last.day)


def change_maps(found: Found, direction: Direction) -> ChangeMaps:
    """What the quicklook shows: the site before and after, the layers thinned, and in each of the largest patches the pixel with
    the strongest evidence.
    """
    cube, score = found.cube, found.layers.map("score")
    thinned = {name: thin_rows(found.layers.map(name)) for name in PICTURED}
    times = cube.dataset["time"].values
    usable_T = np.asarray(cube.dataset["valid_fraction"].values, np.float64)

    def read(index: int) -> np.ndarray:
        image_YX: np.ndarray = read_variables(cube.dataset, index, (cube.variable,))[0]
        return image_YX

    acquisitions = Acquisitions(times, usable_T, np.datetime64(cube.start_ns, "ns"), direction, read)
    before, after = (
        Observation(one.date, one.values, cube.variable.name, cube.unit, when=one.when)
        for one in before_and_after(acquisitions, changed_by_half(found.patches), thinned["status"] == CHANGED)
    )
    pixels = [strongest_pixel(outline, cube.grid, score) for outline in found.patches.geometry[:PIXELS_SHOWN]]
    return ChangeMaps(before, after, thinned, cube.grid, pixels)


def series_of(found: Found, name: str, pixel: tuple[int, int]) -> Series:
    """One pixel's observations beside what was expected of it, and when its change was found; `name` is that of its patch."""
    cube, (row, column) = found.cube, pixel
    x, y = cube.grid.affine @ (column + 0.5, row + 0.5)
    digits = 0 if cube.grid.spacing[-1] >= 1 else 5
    title = f"{name}: pixel row {row}, column {column}; x {x:.{digits}f}, y {y:.{digits}f}"
    days = (found.layers.map(name).at(row, column) for name in ("change_day", "detected_day", "recovered_day"))
    return Series(title, follow_pixel(cube, found.context.monitoring.detector, row, column), *days)
