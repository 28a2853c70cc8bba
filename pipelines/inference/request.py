"""What a forecast is asked for: from which dates of a cube, for which dates, on which grid; and its fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import xarray as xr

from pipelines.calendar import from_days
from pipelines.cube.store import bands_of, grid_of
from pipelines.grid import Grid
from pipelines.inference.job import Intervals
from pipelines.inference.predict import predict
from pipelines.inference.staging import Staged
from pipelines.predictors import Forecaster
from pipelines.progress import Progress
from pipelines.samples.prepare import SampleSettings
from pipelines.samples.variables import Variable
from pipelines.samples.windows import ForecastSteps, steps_from


@dataclass(frozen=True)
class Request:
    """One forecast of a cube's version. `steps` are the forecaster's arguments; `scene_ids` those of the context, oldest first.

    target_utc: one date per lead. issued_utc: the last date of the context (ISO 8601). units: variable -> unit, "" for none.
    note: what a person must know of the choice, "" for nothing.
    """

    dataset: xr.Dataset
    snapshot: str
    variables: tuple[Variable, ...]
    grid: Grid
    steps: ForecastSteps
    target_utc: list[np.datetime64]
    issued_utc: str
    scene_ids: tuple[str, ...]
    units: dict[str, str]
    note: str = ""

    @property
    def targets_iso(self) -> list[str]:
        """The target dates, ISO 8601."""
        return [f"{date.astype('datetime64[s]')}Z" for date in self.target_utc]


def choose_dates(
    dataset: xr.Dataset,
    snapshot: str,
    settings: SampleSettings,
    *,
    issue: datetime | None = None,
    dates: Sequence[datetime] | None = None,
) -> Request:
    """The forecast from the last date up to `issue` (default: the last of all) for `dates` (default: the next steps).

    Raises RequestError as `steps_from` does.
    """
    times = dataset["time"].values
    chosen = None if dates is None else list(dates)
    steps = steps_from(times, settings.steps, settings.context, settings.horizon, issue, chosen)
    issued = f"{times[steps.issue].astype('datetime64[s]')}Z"
    return Request(
        dataset,
        snapshot,
        settings.variables,
        grid_of(dataset),
        steps,
        list(from_days(steps.target_days_K)),
        issued,
        tuple(str(dataset["scene_id"].values[i]) for i in steps.context_T if i >= 0),
        units_of(dataset, settings.variables),
        _note(times[steps.issue], issue, issued),
    )


def predict_fields(
    request: Request,
    forecaster: Forecaster,
    intervals: Intervals,
    staging: Path,
    tile_px: int,
    workers: int,
    model_hash: str,
    progress: Progress | None = None,
) -> Staged:
    """The fields of the forecast and its bounds, in the folder `staging`; see `pipelines.inference.predict.predict`."""
    steps = request.steps
    return predict(
        request.dataset,
        request.snapshot,
        forecaster,
        request.variables,
        steps.context_T,
        steps.usable_N,
        steps.target_days_K,
        intervals,
        staging,
        tile_px,
        model_hash=model_hash,
        workers=workers,
        progress=progress,
    )


def units_of(dataset: xr.Dataset, variables: Sequence[Variable]) -> dict[str, str]:
    """Variable -> its unit: that of its band; an index of bands has none."""
    units = {band.name: band.unit for band in bands_of(dataset)}
    return {v.name: units.get(v.bands[0], "") if v.formula == "band" else "" for v in variables}


def _note(last: np.datetime64, issue: datetime | None, issued: str) -> str:
    """Where the date that was asked for is more than a day after the last one."""
    if issue is None or np.datetime64(issue) - last <= np.timedelta64(1, "D"):
        return ""
    return f"issued from {issued}, the last date up to {issue:%Y-%m-%d}, which was asked for"
