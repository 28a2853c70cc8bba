"""Everything that is published of predicted fields: COGs with their STAC collection, the model's item, and two pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.inference.staging import Field, Staged
from pipelines.products.canvas import day
from pipelines.products.cog import Lineage, iso, write_forecast_cogs
from pipelines.products.frames import Frame, read_variables, step_for
from pipelines.products.pictures import MOST_COLUMNS, Maps, draw_animation, draw_quicklook
from pipelines.products.sentences import Course
from pipelines.products.stac import ModelCard, forecast_item, write_collection, write_model_item

if TYPE_CHECKING:
    from pipelines.inference.job import Request

CONTEXT_SHOWN = MOST_COLUMNS  # dates
CLEAR_ENOUGH = 0.2  # of the pixels; a cloudy date shows nothing
QUICKLOOK, ANIMATION = "quicklook.png", "animation.gif"


@dataclass(frozen=True)
class ForecastFields:
    """What is published. `interval`: nominal coverage of the bounds; `metrics`: flat figures for the collection's summaries."""

    name: str
    request: Request
    staged: Staged
    lineage: Lineage
    interval: float
    metrics: Mapping[str, float]


def publish_forecast(forecast: ForecastFields, card: ModelCard, folder: Path, pictures: Path, *, at: Path) -> Course:
    """COGs, STAC collection and model item into `folder`, two pictures into `pictures`; what is expected of the first variable.

    `folder` will lie at `at`, and the pictures beside it.
    """
    request, lineage, maps = forecast.request, forecast.lineage, make_maps(forecast)
    issued, title = day(np.datetime64(lineage.issued_utc.rstrip("Z"))), f"{forecast.name}: {maps.variable} forecast"
    hidden = "" if day(maps.context[-1].date) == issued else " (too few usable pixels to show)"
    subtitle = f"issued {issued} UTC{hidden}, cube {lineage.snapshot}, model {lineage.model_hash[:12]}"
    draw_quicklook(maps, pictures / QUICKLOOK, title, subtitle)
    draw_animation(maps, pictures / ANIMATION, title)
    grid, dates, units, staged = request.grid, request.target_utc, request.units, forecast.staged
    cogs = write_forecast_cogs(staged, grid, dates, units, lineage, folder, interval=forecast.interval)
    items = [
        forecast_item(grid, date, cog, [field for field in staged.fields if field.target == k], units, lineage)
        for k, (date, cog) in enumerate(zip(dates, cogs, strict=True))
    ]
    write_collection(
        folder, forecast.name, "forecast", f"driftline forecast of {', '.join(units)}", items,
        pictures={"Quicklook": folder.parent / QUICKLOOK}, metrics=forecast.metrics,
        model_item=write_model_item(card, grid, folder, at=at),
    )  # fmt: skip
    return course_of(maps)


def make_maps(forecast: ForecastFields) -> Maps:
    """Maps of the first variable, thinned so that a raster of any size fits: context, forecast, and the truth where it is known.

    A date of the context is left out where few pixels of all variables are usable.
    """
    request, staged = forecast.request, forecast.staged
    times, name = request.dataset["time"].values, request.variables[0].name
    context = [int(i) for i in request.steps.context_T if i >= 0]
    apart = np.abs(times[None] - np.array(request.target_utc, times.dtype)[:, None])
    # None where no date is within a second: the truth is not known (yet)
    observed = [int(row.argmin()) if row.min() <= np.timedelta64(1, "s") else None for row in apart]
    needed = sorted({*context, *(i for i in observed if i is not None)})
    images = {i: read_variables(request.dataset, i, request.variables) for i in needed}
    clear = [i for i in context if np.isfinite(images[i]).mean() >= CLEAR_ENOUGH][-CONTEXT_SHOWN:] or context[-1:]
    fields = {
        role: tuple(Frame(date, thin(staged, Field(k, name, role))) for k, date in enumerate(request.target_utc))
        for role in {field.role for field in staged.fields}
    }
    bounds = zip(fields.get("lower", ()), fields.get("upper", ()), strict=True)
    width = tuple(Frame(upper.date, upper.values_YX - lower.values_YX) for lower, upper in bounds)
    shown = tuple(Frame(times[i], images[i][0]) for i in clear)
    truth = tuple(None if i is None else Frame(times[i], images[i][0]) for i in observed)
    return Maps(name, request.units[name], request.grid, shown, fields["forecast"], truth, width, forecast.interval, len(context))


def thin(staged: Staged, field: Field) -> np.ndarray:
    """Every n-th pixel of the field, float32, as many as a picture can show; reads row by row."""
    step = step_for(staged.shape)
    rows = range(0, staged.shape[0], step)
    return np.concatenate([staged.read(field, slice(row, row + 1), slice(None, None, step)) for row in rows])


def course_of(maps: Maps) -> Course:
    """The means of the last observation shown and of the last date of the forecast, over the pixels that both show."""
    last, end = maps.context[-1], maps.forecast[-1]
    both = np.isfinite(last.values_YX) & np.isfinite(end.values_YX)
    observed, expected = (float(frame.values_YX[both].mean()) if both.any() else None for frame in (last, end))
    return Course(maps.variable, maps.unit, iso(last.date), observed, iso(end.date), expected)
