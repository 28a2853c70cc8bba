"""Everything that is published of predicted fields: COGs with their STAC collection, the model's item, and two pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.inference.staging import Field, Staged
from pipelines.products.cog import Lineage, iso, write_forecast_cogs
from pipelines.products.course import Course
from pipelines.products.frames import Frame, crs_labels, extent_of, read_variables, step_for, thin
from pipelines.products.model_item import ModelCard, write_model_item
from pipelines.products.pictures import Maps, day, draw_animation, draw_quicklook
from pipelines.products.stac import write_collection

if TYPE_CHECKING:
    from torch import nn

    from pipelines.inference.job import Request

CONTEXT_SHOWN = 5  # dates
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
    maps = make_maps(forecast.request, forecast.staged, forecast.interval)
    draw_pictures(maps[0], forecast.lineage, forecast.name, pictures)
    write_files(forecast, card, folder, at=at)
    return course_of(maps[0])


def write_files(forecast: ForecastFields, card: ModelCard, folder: Path, *, at: Path) -> None:
    """COGs, STAC collection and model item into `folder`, which will lie at `at`."""
    request, staged, lineage = forecast.request, forecast.staged, forecast.lineage
    grid, dates, units = request.grid, request.target_utc, request.units
    cogs = write_forecast_cogs(staged, grid, dates, units, lineage, folder, interval=forecast.interval)
    write_collection(
        folder,
        forecast.name,
        f"driftline forecast of {', '.join(units)}",
        grid,
        dates,
        cogs,
        list(staged.fields),
        units,
        lineage,
        pictures={"Quicklook": folder.parent / QUICKLOOK},
        metrics=dict(forecast.metrics),
        model_item=write_model_item(card, grid, folder, at=at),
    )


def draw_pictures(maps: Maps, lineage: Lineage, name: str, folder: Path) -> None:
    """`quicklook.png` and `animation.gif` of one variable into `folder`."""
    title = f"{name}: {maps.variable} forecast"
    issued = day(np.datetime64(lineage.issued_utc.rstrip("Z")))
    subtitle = f"issued {issued} UTC, cube {lineage.snapshot}, model {lineage.model_hash[:12]}"
    draw_quicklook(maps, folder / QUICKLOOK, title, subtitle)
    draw_animation(maps, folder / ANIMATION, title)


def describe_model(
    forecaster: nn.Module,
    forecast: ForecastFields,
    *,
    architecture: str,
    horizon: int,
    trained_snapshot: str,
    trained_until: datetime,
    hyperparameters: dict[str, Any],
    weights: Path,
) -> ModelCard:
    """The card of a trained forecaster. `trained_until`: where the test period begins; `weights`: the file of the tensors."""
    import torch

    request = forecast.request
    return ModelCard(
        name=forecast.name,
        model_hash=forecast.lineage.model_hash,
        architecture=architecture,
        variables=tuple(request.units),
        context=len(request.steps.context_T),
        horizon=horizon,
        parameters=sum(p.numel() for p in forecaster.parameters()),
        trained_from=iso(request.dataset["time"].values[0]),
        trained_to=iso(np.datetime64(trained_until)),
        cube_snapshot=trained_snapshot,
        framework_version=torch.__version__,
        hyperparameters=hyperparameters,
        weights=weights,
    )


# ---------------------------------------------------------------- small maps


def make_maps(request: Request, staged: Staged, interval: float) -> list[Maps]:
    """`Maps` of every variable, thinned so that a raster of any size fits: context, forecast, and the truth where it is known."""
    dataset, step = request.dataset, step_for(request.grid.shape_yx)
    times = dataset["time"].values
    context = [int(i) for i in request.steps.context_T if i >= 0]
    observed = observed_indices(times, request.target_utc)
    needed = sorted({*context, *(i for i in observed if i is not None)})
    images = {i: read_variables(dataset, i, step, request.variables) for i in needed}
    clear = [i for i in context if np.isfinite(images[i]).mean() >= CLEAR_ENOUGH][-CONTEXT_SHOWN:] or context[-1:]

    def frames(indices: Sequence[int | None], c: int) -> tuple[Frame | None, ...]:
        return tuple(None if i is None else Frame(times[i], images[i][c]) for i in indices)

    return [
        Maps(
            variable.name,
            request.units[variable.name],
            tuple(frame for frame in frames(clear, c) if frame is not None),
            field_frames(request, staged, variable.name),
            frames(observed, c),
            width_frames(request, staged, variable.name),
            extent=extent_of(request.grid),
            interval=interval,
            **crs_labels(request.grid.crs),
        )
        for c, variable in enumerate(request.variables)
    ]


def field_frames(request: Request, staged: Staged, variable: str, role: str = "forecast") -> tuple[Frame, ...]:
    """The staged field of each target date, thinned."""
    return tuple(Frame(date, thin(staged, Field(k, variable, role))) for k, date in enumerate(request.target_utc))


def width_frames(request: Request, staged: Staged, variable: str) -> tuple[Frame, ...]:
    """The width of the interval on each target date; empty where there are no bounds."""
    if not any(field.role == "upper" for field in staged.fields):
        return ()
    upper, lower = (field_frames(request, staged, variable, role) for role in ("upper", "lower"))
    return tuple(Frame(u.date, u.values_YX - low.values_YX) for u, low in zip(upper, lower, strict=True))


def observed_indices(times: np.ndarray, dates: Sequence[np.datetime64]) -> list[int | None]:
    """For each date the index of the cube's date within a second of it, or None: the truth is not known (yet)."""
    found: list[int | None] = []
    for date in dates:
        i = int(np.abs(times - date).argmin())
        found.append(i if abs(times[i] - date) <= np.timedelta64(1, "s") else None)
    return found


def course_of(maps: Maps) -> Course:
    """The means of the last observation shown and of the last date of the forecast, over the pixels that both show."""
    last, end = maps.context[-1], maps.forecast[-1]
    both = np.isfinite(last.values_YX) & np.isfinite(end.values_YX)
    observed, expected = (float(frame.values_YX[both].mean()) if both.any() else None for frame in (last, end))
    return Course(maps.variable, maps.unit, iso(last.date), observed, iso(end.date), expected)
