"""Everything that is published of predicted fields: COGs with their STAC collection, the model's item, and two pictures.

Of volumes NIfTI files with a JSON index; the pictures show the middle slice. Of frames without a position TIFF stacks with such
an index.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.calendar import is_elapsed, parse_utc
from pipelines.grid import ImagePlane
from pipelines.inference.staging import Field, Staged
from pipelines.learning.result import COMBINATION
from pipelines.products.canvas import day
from pipelines.products.cog import Lineage, iso, write_forecast_cogs
from pipelines.products.frame_products import write_frames
from pipelines.products.frames import Frame, read_variables, step_for
from pipelines.products.pictures import MOST_COLUMNS, Maps, draw_animation, draw_quicklook, draw_three_planes
from pipelines.products.probability_products import PICTURE, Chances, draw_chances, write_chances
from pipelines.products.sentences import Course
from pipelines.products.slices import SliceView, middle_slice
from pipelines.products.stac import ModelCard, forecast_item, write_collection, write_model_item
from pipelines.products.volume_products import Measured, write_volumes

if TYPE_CHECKING:
    from pipelines.inference.job import Request

CONTEXT_SHOWN = MOST_COLUMNS  # dates
THINNED_PX = 1 << 22  # that are read at a time to be thinned
CLEAR_ENOUGH = 0.2  # of the pixels; a cloudy date shows nothing
QUICKLOOK, ANIMATION, PLANES = "quicklook.png", "animation.gif", "planes.png"


@dataclass(frozen=True)
class ForecastFields:
    """What is published. `interval`: nominal coverage of the bounds; `metrics`: flat figures for the collection's summaries.

    chances: of rasters on Earth, what probabilities are published from.
    """

    name: str
    request: Request
    staged: Staged
    lineage: Lineage
    interval: float
    metrics: Mapping[str, float]
    chances: Chances | None = None


def publish_forecast(forecast: ForecastFields, card: ModelCard | None, folder: Path, pictures: Path, *, at: Path) -> Course:
    """Products into `folder`, pictures into `pictures`; what is expected of the first variable.

    `folder` will lie at `at`, and the pictures beside it. card: of the network; None where it has no part in what is published.
    """
    request, lineage, maps = forecast.request, forecast.lineage, make_maps(forecast)
    issued, title = day(parse_utc(lineage.issued_utc)), f"{forecast.name}: {maps.variable} forecast"
    hidden = "" if day(maps.context[-1].date) == issued else " (too few usable pixels to show)"
    zone = " after the first frame" if is_elapsed(maps.forecast[0].date) else " UTC"
    made_by = f"network {lineage.model_hash[:12]}" if lineage.method == "network" else f"baseline {lineage.method}"
    if lineage.method.startswith(COMBINATION):  # all names are too long for a picture; tags and report have them
        made_by = f"{COMBINATION} of {len(re.split(', | and ', lineage.method))} forecasts"
    subtitle = f"issued {issued}{zone}{hidden}, cube {lineage.snapshot}, {made_by}"
    if not request.grid.is_on_earth:
        subtitle = f"issued {day(parse_utc(lineage.issued_utc), exact=True)}{zone}, {made_by}"
    draw_quicklook(maps, pictures / QUICKLOOK, title, subtitle)
    draw_animation(maps, pictures / ANIMATION, title)
    if request.grid.is_volume:
        draw_planes(forecast, pictures / PLANES, title, subtitle)
    if not request.grid.is_on_earth:
        write = write_frames if isinstance(request.grid.frame, ImagePlane) else write_volumes
        return course_of_volumes(write(forecast, card, folder))
    grid, dates, units, staged = request.grid, request.target_utc, request.units, forecast.staged
    cogs = write_forecast_cogs(staged, grid, dates, units, lineage, folder, interval=forecast.interval)
    items = [
        forecast_item(grid, date, cog, [field for field in staged.fields if field.target == k], units, lineage)
        for k, (date, cog) in enumerate(zip(dates, cogs, strict=True))
    ]
    if forecast.chances is not None:
        fields = forecast.chances, staged, grid, dates, maps.variable
        draw_chances(*fields, pictures / PICTURE)
        for item, assets in zip(items, write_chances(*fields, maps.unit, lineage, folder), strict=True):
            item["assets"] |= assets
    write_collection(
        folder, forecast.name, "forecast", f"driftline forecast of {', '.join(units)}", items,
        pictures={"Quicklook": folder.parent / QUICKLOOK}, metrics=forecast.metrics, method=lineage.method,
        model_item=write_model_item(card, grid, folder, at=at) if card else None,
    )  # fmt: skip
    return course_of(maps)


def make_maps(forecast: ForecastFields) -> Maps:
    """Maps of the first variable, thinned so that a raster of any size fits: context, forecast, and the truth where it is known.

    A date of the context is left out where few pixels of all variables are usable.
    """
    request, staged = forecast.request, forecast.staged
    view = middle_slice(request.grid) if request.grid.is_volume else None
    dataset = request.dataset if view is None else view.of_dataset(request.dataset)
    times, name = dataset["time"].values, request.variables[0].name
    context = [int(i) for i in request.steps.context_T if i >= 0]
    apart = np.abs(times[None] - np.array(request.target_utc, times.dtype)[:, None])
    # None where no date is within a second (of fast series: half a step): the truth is not known (yet)
    close = min([np.timedelta64(1, "s"), *(np.diff(times) // 2)])
    observed = [int(row.argmin()) if row.min() <= close else None for row in apart]
    needed = sorted({*context, *(i for i in observed if i is not None)})
    images = {i: read_variables(dataset, i, request.variables) for i in needed}
    if view is not None:
        images = {i: np.stack([view.drawn(plane_YX) for plane_YX in planes]) for i, planes in images.items()}
    clear = [i for i in context if np.isfinite(images[i]).mean() >= CLEAR_ENOUGH][-CONTEXT_SHOWN:] or context[-1:]
    fields = {
        role: tuple(Frame(date, shown_of(staged, Field(k, name, role), view)) for k, date in enumerate(request.target_utc))
        for role in {field.role for field in staged.fields}
    }
    bounds = zip(fields.get("lower", ()), fields.get("upper", ()), strict=True)
    width = tuple(Frame(upper.date, upper.values_YX - lower.values_YX) for lower, upper in bounds)
    shown = tuple(Frame(times[i], images[i][0]) for i in clear)
    truth = tuple(None if i is None else Frame(times[i], images[i][0]) for i in observed)
    grid, note = (request.grid, "") if view is None else (view.grid, view.text)
    return Maps(name, request.units[name], grid, shown, fields["forecast"], truth, width, forecast.interval, len(context), note)


def shown_of(staged: Staged, field: Field, view: SliceView | None) -> np.ndarray:
    """What a picture shows of a field, (y, x) float32: the thinned map, or the slice of a volume, thinned alike."""
    if view is None:
        return thin(staged, field)
    step = step_for(view.grid.shape)
    return view.drawn(staged.read(field, slice(view.index, view.index + 1))[0][::step, ::step])


def thin(staged: Staged, field: Field) -> np.ndarray:
    """Every n-th pixel of the field, float32, as many as a picture can show; a strip of rows is in memory at a time."""
    step = step_for(staged.shape)
    strip = max(THINNED_PX // math.prod(staged.shape[1:]) // step, 1) * step
    rows = [slice(row, min(row + strip, staged.shape[0])) for row in range(0, staged.shape[0], strip)]
    return np.concatenate([staged.read(field, part, slice(None, None, step))[::step] for part in rows])


def draw_planes(forecast: ForecastFields, path: Path, title: str, subtitle: str) -> None:
    """Writes a PNG: the last target of the first variable in the three planes through the middle of the volume."""
    request, staged = forecast.request, forecast.staged
    name, last = request.variables[0].name, len(request.target_utc) - 1
    field, views = Field(last, name, "forecast"), [middle_slice(request.grid, dim) for dim in "zyx"]
    across_z, *others = views
    planes = [across_z.drawn(staged.read(field, slice(across_z.index, across_z.index + 1))[0])]
    rows = range(request.grid.shape[0])
    for view in others:
        taken = (view.index, slice(None)) if view.dim == "y" else (slice(None), view.index)
        planes.append(view.drawn(np.stack([staged.read(field, slice(row, row + 1), *taken)[0] for row in rows])))
    draw_three_planes(list(zip(views, planes, strict=True)), name, request.units[name], path, title, subtitle)


def course_of_volumes(rows: Sequence[Measured]) -> Course:
    """The means of the last observation and of the last time of the forecast, over the usable voxels of each."""
    of_first = [row for row in rows if row.variable == rows[0].variable]
    first, last = of_first[0], of_first[-1]
    return Course(first.variable, first.unit, iso(first.time), first.mean, iso(last.time), last.mean)


def course_of(maps: Maps) -> Course:
    """The means of the last observation shown and of the last date of the forecast, over the pixels that both show."""
    last, end = maps.context[-1], maps.forecast[-1]
    both = np.isfinite(last.values_YX) & np.isfinite(end.values_YX)
    observed, expected = (float(frame.values_YX[both].mean()) if both.any() else None for frame in (last, end))
    return Course(maps.variable, maps.unit, iso(last.date), observed, iso(end.date), expected)
