"""Layers of change -> what people open: patches, COGs, STAC, pictures."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.load import config_hash
from flows.folder import code_version
from flows.invocation import Invocation
from flows.stages.monitor_views import course_of, criteria_of, observations, unit_of
from flows.stages.predict import replace_folder
from pipelines.progress import Progress

SPLIT_DAYS = 183.0  # neighbours that changed further apart are two patches: the felling of the next winter is news
STEM = "changes"
PICTURED = ("change_day", "detected_day", "recovered_day", "magnitude", "confidence", "status", "direction")


@dataclass
class Changed:
    """(rows, columns) bool of a status layer, made strip by strip."""

    status: Any
    shape: tuple[int, ...]

    def __getitem__(self, rows: slice) -> np.ndarray:
        from pipelines.monitoring.detector import CHANGED

        return np.asarray(self.status[rows]) == CHANGED


def outline(run: Any, layers: Any, grid: Any) -> Any:
    """The changed patches as a GeoDataFrame, those of fewer than `monitoring.min_area_px` pixels left out."""
    from pipelines.products.polygons import outline_changes

    return outline_changes(*_changed(layers, grid), min_area_px=run.monitoring.min_area_px, split_days=SPLIT_DAYS)


def growth(run: Any, layers: Any, grid: Any, frame: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(change day, day of the alarm, area in m²) per pixel of the patches; the area is the mean, so that the sum is theirs."""
    from pipelines.products.polygons import kept_pixels

    pixels = kept_pixels(*_changed(layers, grid), run.monitoring.min_area_px, SPLIT_DAYS)
    area_m2 = float(frame["area_m2"].sum()) / max(pixels.row.size, 1)
    return pixels.values["change_day"], pixels.values["detected_day"], np.full(pixels.row.size, area_m2)


def _changed(layers: Any, grid: Any) -> tuple[Changed, Any, dict[str, np.ndarray]]:
    """What patches are made of: where something changed, the grid, and the layers that describe it."""
    from pipelines.products.polygons import LAYERS

    status = layers.map("status")
    return Changed(status, status.shape), grid, {name: layers.map(name) for name in LAYERS if name in layers.dtypes}


def publish(invocation: Invocation, context: Any, frame: Any, progress: Progress) -> list[Path]:
    """Pictures, COGs, patches and STAC beside the old ones, then in their place; the files."""
    from pipelines.monitoring.layers import Layers
    from pipelines.products.layer_cog import write_layers
    from pipelines.products.layer_stac import ChangeItem, write_change_collection
    from pipelines.products.layers import MONITOR_LAYERS
    from pipelines.products.polygons import write_polygons

    run, folder = invocation.run, invocation.folder
    layers = Layers.open(context.monitoring.layers)
    lineage, unit = lineage_of(invocation, context), unit_of(invocation, context.monitoring.dataset)
    times = context.monitoring.dataset["time"].values
    start, end = max(times[0], np.datetime64(run.monitoring.start, "ns")), times[-1]
    progress(0, 3)
    pictures = draw(invocation, context, layers, frame)
    progress(1, 3)
    building = folder.path / ".products-building"
    shutil.rmtree(building, ignore_errors=True)
    maps = {name: layers.map(name) for name in layers.dtypes}
    cogs = write_layers(maps, MONITOR_LAYERS, context.grid, unit, lineage, as_iso(end), building)
    vectors = write_polygons(frame, building, STEM)
    progress(2, 3)
    item = ChangeItem(
        run.name, f"What changed in {run.variable.name}", context.grid, as_iso(min(start, end)), as_iso(end), MONITOR_LAYERS,
        cogs, vectors, unit, lineage, facts_of(frame),
    )  # fmt: skip
    text = f"driftline change of {run.variable.name}, watched since {run.monitoring.start:%Y-%m-%d}"
    write_change_collection(building, run.name, text, [item], pictures={"Quicklook": folder.quicklook})
    replace_folder(building, folder.products)
    return [*sorted(folder.products.iterdir()), *pictures]


def draw(invocation: Invocation, context: Any, layers: Any, frame: Any) -> list[Path]:
    """Before, after and the maps; the course of a few pixels; the changed area over time; the change as it became known."""
    from pipelines.monitoring.detector import CHANGED
    from pipelines.products.animation import draw_change_animation
    from pipelines.products.before_after import ChangeMaps, draw_change_quicklook, thin_rows
    from pipelines.products.charts import draw_growth
    from pipelines.products.pixel_series import draw_change_series

    run, folder, dataset = invocation.run, invocation.folder, context.monitoring.dataset
    markers = criteria_of(frame, layers, context.grid)
    thinned = {name: thin_rows(layers.map(name)) for name in PICTURED}
    unit = unit_of(invocation, dataset)
    before, after = observations(invocation, dataset, frame, thinned["status"] == CHANGED)
    maps = ChangeMaps(before, after, thinned, context.grid, run.variable.name, unit, markers=markers)
    until = str(dataset["time"].values[-1])[:10]
    area = float(frame["area_m2"].sum()) / 1e4
    title = f"{run.name}: what changed in {run.variable.name} since {run.monitoring.start:%Y-%m-%d}"
    found = f"{len(frame)} patch{'es' * (len(frame) != 1)}, {area:.1f} ha"
    subtitle = f"{found}, until {until}; {context.name} expectation, cube {context.snapshot}"
    draw_change_quicklook(maps, folder.quicklook, title, subtitle)
    series, curve = folder.path / "series.png", folder.path / "growth.png"
    start_day, end_day = context.monitoring.start_ns / 86_400e9, context.monitoring.dates[-1].day
    courses = [course_of(context, layers, marker) for marker in markers]
    draw_change_series(courses, series, run.variable.name, unit, start_day, title="What the largest patches show")
    change_day, detected_day, area_m2 = growth(run, layers, context.grid, frame)
    draw_growth(change_day, detected_day, area_m2, curve, start_day, end_day)
    # from the last date of the history, on which nothing was known yet: every frame is a date that was observed
    unknowing_day = max((date.day for date in context.monitoring.dates if date.day < start_day), default=start_day)
    draw_change_animation(maps, folder.animation, run.name, unknowing_day, end_day)
    return [folder.quicklook, series, curve, folder.animation]


def facts_of(frame: Any) -> dict[str, Any]:
    """What was found, in a few numbers; JSON values."""
    dates = frame["first_date"].dropna()
    return {
        "patches": len(frame),
        "area_m2": round(float(frame["area_m2"].sum()), 1),
        **({"first_change": as_iso(dates.min()), "last_change": as_iso(frame["last_date"].dropna().max())} if len(dates) else {}),
    }


def as_iso(moment: Any) -> str:
    """ISO 8601 in UTC, to the second."""
    if hasattr(moment, "to_datetime64"):
        moment = moment.to_datetime64()
    return f"{np.datetime64(moment, 's')}Z"


def lineage_of(invocation: Invocation, context: Any) -> Any:
    from pipelines.products.cog import Lineage

    dates = context.monitoring.dates
    scenes = tuple(date.scene_id for date in dates if date.time_ns >= context.monitoring.start_ns)
    until = as_iso(np.datetime64(dates[-1].time_ns, "ns"))
    detector = context.monitoring.made_for.detector
    return Lineage(context.snapshot, detector, config_hash(invocation.run), code_version(), until, scenes)
