"""Layers of change -> what people open: patches, COGs, STAC, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.grid import Grid
from pipelines.monitoring.areas import MonitoredCube, follow_pixel
from pipelines.monitoring.context import MonitorContext
from pipelines.monitoring.detector import CHANGED, Direction
from pipelines.monitoring.layers import Layers
from pipelines.monitoring.messages import day_of, iso_of
from pipelines.monitoring.seasons import Acquisitions, Composite, before_and_after, changed_by_half
from pipelines.products.animation import draw_change_animation
from pipelines.products.before_after import ChangeMaps, Marker, Observation, draw_change_quicklook, thin_rows
from pipelines.products.charts import draw_growth
from pipelines.products.cog import Lineage
from pipelines.products.frames import read_variables, step_for
from pipelines.products.layer_cog import write_layers
from pipelines.products.layer_stac import ChangeItem, write_change_collection
from pipelines.products.layers import MONITOR_LAYERS
from pipelines.products.pixel_series import Series, draw_change_series, strongest_pixel
from pipelines.products.polygons import LAYERS, kept_pixels, outline_changes, write_polygons

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

SPLIT_DAYS = 183.0  # neighbours that changed further apart are two patches: the felling of the next winter is a new one
STEM = "changes"
PICTURED = ("change_day", "detected_day", "recovered_day", "magnitude", "confidence", "status", "direction")
PIXELS_SHOWN = 3


@dataclass(frozen=True)
class ChangedPixels:
    """(rows, columns) bool of a status layer, made strip by strip."""

    status: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.status.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        is_changed: np.ndarray = np.asarray(self.status[rows]) == CHANGED
        return is_changed


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

    @property
    def last_ns(self) -> int:
        """The last date of the cube."""
        return self.cube.dates[-1].time_ns


def find_patches(context: MonitorContext, min_area_px: int) -> Found:
    """The layers of the state and the patches in them."""
    layers = Layers.open(context.monitoring.layers)
    return Found(context, layers, outline_layers(layers, context.cube.grid, min_area_px), min_area_px)


def outline_layers(layers: Layers, grid: Grid, min_area_px: int) -> GeoDataFrame:
    """The changed patches, those of fewer than `min_area_px` pixels left out."""
    return outline_changes(
        ChangedPixels(layers.map("status")), grid, described(layers), min_area_px=min_area_px, split_days=SPLIT_DAYS
    )


def growth(layers: Layers, grid: Grid, patches: GeoDataFrame, min_area_px: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(change day, day of the alarm, area in m²) per pixel of the patches; the area is the mean, so that the sum is theirs."""
    pixels = kept_pixels(ChangedPixels(layers.map("status")), grid, described(layers), min_area_px, SPLIT_DAYS)
    area_m2 = float(patches["area_m2"].sum()) / max(pixels.row.size, 1)
    return pixels.values["change_day"], pixels.values["detected_day"], np.full(pixels.row.size, area_m2)


def described(layers: Layers) -> dict[str, np.ndarray]:
    """The layers that describe a patch."""
    return {name: layers.map(name) for name in LAYERS if name in layers.dtypes}


# ---------------------------------------------------------------- files


def write_changes(found: Found, lineage: Lineage, name: str, quicklook: Path, folder: Path) -> None:
    """COGs, patches and the STAC collection of the run `name` in `folder`; `quicklook` is where its picture will be."""
    cube, variable = found.cube, found.cube.variable.name
    start, end = iso_of(min(max(cube.dates[0].time_ns, cube.start_ns), found.last_ns)), iso_of(found.last_ns)
    maps = {layer: found.layers.map(layer) for layer in found.layers.dtypes}
    cogs = write_layers(maps, MONITOR_LAYERS, cube.grid, cube.unit, lineage, end, folder)
    vectors = write_polygons(found.patches, folder, STEM)
    item = ChangeItem(
        name, f"What changed in {variable}", cube.grid, start, end, MONITOR_LAYERS, cogs, vectors, cube.unit, lineage,
        facts_of(found.patches),
    )  # fmt: skip
    text = f"driftline change of {variable}, monitored since {day_of(cube.start_ns)}"
    write_change_collection(folder, name, text, [item], pictures={"Quicklook": quicklook})


def lineage_of(context: MonitorContext, config_hash: str, code_version: str) -> Lineage:
    """What the products were made from: cube, detector, config, code, the last date, and the monitored scenes."""
    cube = context.cube
    scenes = tuple(date.scene_id for date in cube.dates if date.time_ns >= cube.start_ns)
    detector = context.monitoring.made_for.detector
    return Lineage(cube.snapshot, detector, config_hash, code_version, iso_of(cube.dates[-1].time_ns), scenes)


def facts_of(patches: GeoDataFrame) -> dict[str, Any]:
    """What was found, in a few numbers; JSON values."""
    dates = patches["first_date"].dropna()
    facts: dict[str, Any] = {"patches": len(patches), "area_m2": round(float(patches["area_m2"].sum()), 1)}
    if len(dates):
        facts |= {"first_change": _iso(dates.min()), "last_change": _iso(patches["last_date"].dropna().max())}
    return facts


def _iso(moment: Any) -> str | None:
    """ISO 8601 in UTC, to the second, of a pandas Timestamp; None for a missing one."""
    return f"{np.datetime64(moment.to_datetime64(), 's')}Z" if moment == moment else None


# ---------------------------------------------------------------- pictures


def draw_changes(found: Found, direction: Direction, name: str, folder: Path) -> None:
    """Before, after and the maps; the course of a few pixels; the changed area over time; the change as it became known."""
    cube, context = found.cube, found.context
    variable, start, end_day = cube.variable.name, day_of(cube.start_ns), cube.dates[-1].day
    maps = change_maps(found, direction)
    title = f"{name}: what changed in {variable} since {start}"
    subtitle = (
        f"{count_patches(found.patches)}, until {day_of(found.last_ns)}; {context.expected.name} model, cube {cube.snapshot}"
    )
    draw_change_quicklook(maps, folder / "quicklook.png", title, subtitle)
    series = [series_of(found, marker) for marker in maps.markers]
    draw_change_series(series, folder / "series.png", variable, cube.unit, cube.start_day, title="What the largest patches show")
    grown = growth(found.layers, cube.grid, found.patches, found.min_area_px)
    draw_growth(*grown, folder / "growth.png", cube.start_day, end_day)
    # from the last date of the history, on which no change was known: every frame is a date that was observed
    first_day = max((date.day for date in cube.dates if date.day < cube.start_day), default=cube.start_day)
    draw_change_animation(maps, folder / "animation.gif", name, first_day, end_day)


def count_patches(patches: GeoDataFrame) -> str:
    """`3 patches, 1.2 ha`."""
    return f"{len(patches)} patch{'es' * (len(patches) != 1)}, {float(patches['area_m2'].sum()) / 1e4:.1f} ha"


def change_maps(found: Found, direction: Direction) -> ChangeMaps:
    """What the quicklook shows: the site before and after, the layers thinned, and a marker in each of the largest patches."""
    cube = found.cube
    thinned = {name: thin_rows(found.layers.map(name)) for name in PICTURED}
    times = cube.dataset["time"].values
    usable_T = np.asarray(cube.dataset["valid_fraction"].values, np.float64)
    step = step_for(cube.shape_yx)

    def read(index: int) -> np.ndarray:
        image_YX: np.ndarray = read_variables(cube.dataset, index, step, (cube.variable,))[0]
        return image_YX

    def observation(composite: Composite) -> Observation:
        return Observation(composite.date, composite.values, cube.variable.name, cube.unit, when=composite.when)

    acquisitions = Acquisitions(times, usable_T, np.datetime64(cube.start_ns, "ns"), direction, read)
    before, after = before_and_after(acquisitions, changed_by_half(found.patches), thinned["status"] == CHANGED)
    markers = markers_of(found.patches, found.layers, cube.grid)
    return ChangeMaps(observation(before), observation(after), thinned, cube.grid, cube.variable.name, cube.unit, markers=markers)


def markers_of(patches: GeoDataFrame, layers: Layers, grid: Grid) -> Sequence[Marker]:
    """In each of the largest patches the pixel with the strongest evidence."""
    score = layers.map("score")
    pixels = [strongest_pixel(outline, grid, score) for outline in patches.geometry[:PIXELS_SHOWN]]
    return [Marker(row, column, str(number)) for number, (row, column) in enumerate(pixels, start=1)]


def series_of(found: Found, marker: Marker) -> Series:
    """One pixel's observations beside what was expected of it, and when its change was found."""
    cube = found.cube
    course = follow_pixel(cube, found.context.monitoring.detector, marker.row, marker.column)

    def day(name: str) -> float:
        return float(found.layers.map(name)[marker.row, marker.column])

    x, y = cube.grid.affine @ (marker.column + 0.5, marker.row + 0.5)
    title = f"Patch {marker.text}: row {marker.row}, column {marker.column} ({x:.0f}, {y:.0f})"
    return Series(
        title, course.days, course.values, course.curve_days, course.expected, course.spread,
        day("change_day"), day("detected_day"), day("recovered_day"), marker.text,
    )  # fmt: skip
