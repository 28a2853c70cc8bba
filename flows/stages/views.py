"""Small maps for pictures and report: the context as seen, the forecast, and the truth where the cube has it."""

import re
from typing import Any

import numpy as np

from configs.tasks import forecast as build
from flows.invocation import Invocation
from pipelines.grid import parse_crs

CONTEXT_SHOWN = 5
CLEAR_ENOUGH = 0.2  # of the pixels; a cloudy date shows nothing


def forecast_maps(invocation: Invocation, forecast: Any, staged: Any) -> list[Any]:
    """`Maps` of every variable, thinned so that a raster of any size fits."""
    from pipelines.products.frames import extent_of, step_for

    run, dataset, steps = invocation.run, forecast.dataset, forecast.steps
    step = step_for(forecast.grid.shape_yx)
    context = [int(i) for i in steps.context_T if i >= 0]
    observed = observed_indices(dataset["time"].values, forecast.target_utc)
    frames = {i: read_frames(invocation, dataset, i, step) for i in {*context, *(i for i in observed if i is not None)}}
    seen = [i for i in context if np.isfinite(frames[i]).mean() >= CLEAR_ENOUGH][-CONTEXT_SHOWN:] or context[-1:]
    common = {"extent": extent_of(forecast.grid), "interval": run.evaluation.interval, **format_crs(forecast.grid.crs)}
    return [make_maps(forecast, staged, v.name, c, seen, observed, frames, common) for c, v in enumerate(run.samples.variables)]


def make_maps(forecast, staged, variable: str, c: int, seen, observed, frames, common) -> Any:
    from pipelines.inference.staging import Field
    from pipelines.products.frames import Frame, thin
    from pipelines.products.pictures import Maps

    def field(k: int, role: str) -> np.ndarray:
        return thin(staged, Field(k, variable, role))

    dates = forecast.target_utc
    times = forecast.dataset["time"].values
    has_bounds = any(f.role == "upper" for f in staged.fields)
    width = tuple(Frame(date, field(k, "upper") - field(k, "lower")) for k, date in enumerate(dates)) if has_bounds else ()
    return Maps(
        variable,
        forecast.units[variable],
        tuple(Frame(times[i], frames[i][c]) for i in seen),
        tuple(Frame(date, field(k, "forecast")) for k, date in enumerate(dates)),
        tuple(None if i is None else Frame(times[i], frames[i][c]) for i in observed),
        width,
        **common,
    )


def observed_indices(times: np.ndarray, dates: list[np.datetime64]) -> list[int | None]:
    """For each date the index of the cube's date within a second of it, or None: the truth is not known (yet)."""
    found: list[int | None] = []
    for date in dates:
        i = int(np.abs(times - date).argmin())
        found.append(i if abs(times[i] - date) <= np.timedelta64(1, "s") else None)
    return found


def read_frames(invocation: Invocation, dataset: Any, index: int, step: int) -> np.ndarray:
    """`read_variables` of what the run forecasts."""
    return read_variables(dataset, index, step, build.build_variables(invocation.run.samples.variables))


def read_variables(dataset: Any, index: int, step: int, variables: tuple[Any, ...]) -> np.ndarray:
    """(C, rows, columns) physical values of one date, every `step`-th pixel, NaN where not usable; read strip by strip."""
    from pipelines.cube.store import bands_of
    from pipelines.samples.variables import decode

    bands = bands_of(dataset)
    strip = max(step, 512 // step * step)
    parts = []
    for row in range(0, dataset.sizes["y"], strip):
        part = dataset.isel(time=[index], y=slice(row, row + strip))
        thinned = part.isel(y=slice(None, None, step), x=slice(None, None, step))
        x_NCYX, valid_NYX = decode(thinned["image"].values, thinned["valid"].values, bands, variables)
        parts.append(np.where(valid_NYX[0], x_NCYX[0], np.nan).astype(np.float32))
    return np.concatenate(parts, axis=1)


def projection_name(wkt2: str) -> str:
    """The projection's method, for a CRS that has no code: `Sinusoidal`, `Polar Stereographic (variant B)`."""
    method = re.search(r'METHOD\["([^"]+)"', wkt2)
    return method[1] if method else "a CRS without a code"


def format_crs(text: str) -> dict[str, str]:
    """Name and unit of a CRS for a figure's margin: `EPSG:3035`, or the projection where there is no code."""
    crs = parse_crs(text)
    code = crs.to_epsg()
    name = f"EPSG:{code}" if code else projection_name(crs.to_wkt(version="WKT2_2019"))
    unit = "degree" if crs.is_geographic else crs.linear_units or "m"
    return {"crs": name, "crs_unit": "m" if unit == "metre" else unit}
