"""What a forecast of a cube is asked for, and the job of predicting it: plain values with a key."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import xarray as xr

from pipelines.calendar import date_text, from_days, iso_utc, to_days
from pipelines.cube.store import bands_of, grid_of, space_dims
from pipelines.errors import RequestError, StateError
from pipelines.grid import Grid
from pipelines.inference.regions import Regions
from pipelines.inference.staging import ROLES, Field, Staged
from pipelines.inference.tiling import chunk_length, plan_batches, window_of
from pipelines.predictors import Forecaster
from pipelines.samples.covariates import Covariates, context_days
from pipelines.samples.prepare import SampleSettings
from pipelines.samples.variables import Variable, used_bands
from pipelines.samples.windows import ForecastSteps, steps_from
from pipelines.tiles import Box

VERSION = 2  # of the meaning of the staged bytes; part of the key
BLEND_PX = 32  # by which the windows of a method without a finite halo reach beyond their tile
VOLUME_TILE_PX = 64  # with their halo, tiles of volumes have a few times the pixels of a tile of 256 of an image


@dataclass(frozen=True)
class Request:
    """One forecast of a cube's version. `steps` are the forecaster's arguments; `scene_ids` those of the context, oldest first.

    target_utc: one date per lead. issued_utc: the last date of the context (ISO 8601). units: variable -> unit of its band, ""
    for an index of bands. notes: what a person must know of the choice. covariates: known up to the last target.
    uri: of the cube, so that other processes can open it.
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
    notes: tuple[str, ...] = ()
    covariates: Covariates | None = None
    uri: str = ""

    @property
    def targets_iso(self) -> list[str]:
        return [iso_utc(date) for date in self.target_utc]


def choose_dates(
    dataset: xr.Dataset, snapshot: str, settings: SampleSettings, *, issue: datetime | None = None,
    dates: Sequence[datetime] | None = None, step_days: float | None = None,
) -> Request:  # fmt: skip
    """The forecast from the last date up to `issue` (default: the last of all) for `dates` (default: the next steps).

    step_days: the step that the model was trained on. Raises RequestError as `steps_from` does, and for covariates whose future
    is not known.
    """
    times, notes = dataset["time"].values, []
    steps = steps_from(times, settings.steps, settings.context, settings.horizon, issue, dates, step_days)
    last, seen = times[steps.issue], np.flatnonzero(steps.context_T >= 0)
    issued = iso_utc(last)
    if issue is not None and np.datetime64(issue) - last > np.timedelta64(1, "D"):
        notes.append(f"issued from {issued}, the last date up to {date_text(issue)}, which was asked for")
    if seen[0] > 0 and steps.context_T[seen[0]] == 0:
        covered = f"{settings.context - seen[0]} of the {settings.context} steps of context"
        notes.append(f"the dates cover {covered}: scores and intervals are of forecasts from all of it")
    units, covariates = {band.name: band.unit for band in bands_of(dataset)}, None
    if settings.covariates is not None:
        known = context_days(to_days(times), steps.context_T)
        covariates = settings.covariates.ready(known, steps.target_days_K, settings.split.train_until_day)
        notes += covariates.notes
    return Request(
        dataset=dataset,
        snapshot=snapshot,
        variables=settings.variables,
        grid=grid_of(dataset),
        steps=steps,
        target_utc=list(from_days(steps.target_days_K)),
        issued_utc=issued,
        scene_ids=tuple(str(dataset["scene_id"].values[i]) for i in steps.context_T if i >= 0),
        units={v.name: units.get(v.bands[0], "") if v.formula == "band" else "" for v in settings.variables},
        notes=tuple(notes),
        covariates=covariates,
    )


def tile_side(grid: Grid, tile_px: int) -> int:
    """The side of tiles on this grid where `tile_px` is asked for: of volumes at most `VOLUME_TILE_PX`."""
    return min(tile_px, VOLUME_TILE_PX) if grid.is_volume else tile_px


class Intervals(Protocol):
    """Prediction intervals: bounds around a forecast that contain the truth with the nominal probability."""

    def bounds(self, y_KCHW: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class Job:
    """One prediction, as plain values; picklable. `times` are indices in the cube of the N dates that may be used.

    `context_T` are indices into `times`, -1 = no observation. `halo_px` per axis; None = unbounded receptive field: windows that
    overlap by 2 * `blend_px` are blended. Windows start at multiples of `stride_px` per axis.
    """

    snapshot: str
    model_hash: str
    variables: tuple[Variable, ...]
    shape: tuple[int, ...]
    times: tuple[int, ...]
    context_T: tuple[int, ...]
    target_days_K: tuple[float, ...]
    tile_px: int
    tiles_across: int
    halo_px: tuple[int, ...] | None
    stride_px: tuple[int, ...]
    blend_px: int
    bounds: str  # "" = no intervals, else a digest of their bounds
    covariates: str = ""  # a digest of them, where there are some
    device: str = ""  # "" = the CPU: another one rounds otherwise

    @property
    def key(self) -> str:
        """SHA-256 of everything that the bytes depend on; fields staged with another key are not resumed."""
        values = {"version": VERSION, **asdict(self)}
        for name in ("covariates", "device"):
            if not values[name]:  # as before there were any
                del values[name]
        return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def fields(self) -> tuple[Field, ...]:
        roles = ROLES if self.bounds else ROLES[:1]
        return tuple(Field(k, v.name, role) for k in range(len(self.target_days_K)) for v in self.variables for role in roles)

    def window_of(self, tile: Box) -> Box:
        """The window that is needed to forecast `tile` exactly."""
        reach_px = (self.blend_px,) * len(self.shape) if self.halo_px is None else self.halo_px
        return window_of(tile, reach_px, self.shape, self.stride_px)

    def batches(self) -> tuple[Box, ...]:
        return plan_batches(self.shape, self.tile_px, self.tiles_across)


@dataclass(frozen=True)
class Prediction:
    """A job, and what every worker does its part of it with; the fields go to `folder`, one on a disk or `s3://bucket/prefix`.

    uri: of the cube, so that other processes can open it; "" where the dataset is in memory, and is sent to them.
    """

    job: Job
    dataset: xr.Dataset
    forecaster: Forecaster
    intervals: Intervals | None
    folder: Path | str
    covariates: Covariates | None = None
    uri: str = ""

    @cached_property
    def regions(self) -> Regions:
        planes = tuple(field.plane for field in self.job.fields)
        return Regions(str(self.folder), self.job.key, planes, self.job.shape, self.job.batches())

    @property
    def staged(self) -> Staged:
        return Staged(self.regions, self.job.fields)


def plan_job(
    dataset: xr.Dataset, snapshot: str, forecaster: Forecaster, variables: Sequence[Variable], steps: ForecastSteps,
    intervals: Intervals | None = None, *, tile_px: int = 256, blend_px: int = BLEND_PX, memory_mb: int = 256,
    model_hash: str = "", covariates: Covariates | None = None, device: str = "",
) -> Job:  # fmt: skip
    """The job for these arguments; `steps` are over all dates of the cube.

    Strips are as many tiles wide as `memory_mb` allows for one worker's rows of the cube. Raises RequestError if arguments
    do not match the cube, StateError if the forecaster states another number of axes.
    """
    context_T, usable_N, targets = steps.context_T, steps.usable_N, len(steps.target_days_K)
    halo_px, stride_px = forecaster.halo_px(len(context_T) + targets), forecaster.stride_px
    dims = space_dims(dataset)
    if len(stride_px) != len(dims) or (halo_px is not None and len(halo_px) != len(dims)):
        stated = f"{type(forecaster).__name__} states halo {halo_px} and stride {stride_px}"
        raise StateError(f"{stated}; expected one number for each of the cube's axes ({', '.join(dims)})")
    _check_request(dataset, steps, tile_px, blend_px if halo_px is None else 0)
    times = np.flatnonzero(usable_N)
    shape = tuple(dataset.sizes[dim] for dim in dims)
    reach = [blend_px] * len(dims) if halo_px is None else [halo + px - 1 for halo, px in zip(halo_px, stride_px, strict=True)]
    # bytes per column of a `Slab` at most: twice while it grows, image and valid
    pixel = len(used_bands(bands_of(dataset), tuple(variables))) * dataset["image"].dtype.itemsize + 1
    between = math.prod(tile_px + 2 * px for px in reach[1:-1])
    column = 2 * len(times) * pixel * between * (tile_px + 2 * reach[0] + chunk_length(dataset))
    across = max(1, int((memory_mb * 2**20 / column - 2 * reach[-1]) // tile_px))
    return Job(
        snapshot=snapshot,
        model_hash=model_hash,
        variables=tuple(variables),
        shape=shape,
        times=tuple(int(n) for n in times),
        context_T=tuple(int(np.searchsorted(times, n)) if n >= 0 else -1 for n in context_T),
        target_days_K=tuple(float(day) for day in steps.target_days_K),
        tile_px=tile_px,
        tiles_across=min(across, math.ceil(shape[-1] / tile_px)),
        halo_px=halo_px,
        stride_px=stride_px,
        blend_px=blend_px,
        bounds=_digest_of_bounds(intervals, targets, len(variables)) if intervals is not None else "",
        covariates=covariates.key(float(steps.target_days_K[-1])) if covariates is not None else "",
        device=device,
    )


def _check_request(dataset: xr.Dataset, steps: ForecastSteps, tile_px: int, blend_px: int) -> None:
    count, usable_N = dataset.sizes["time"], steps.usable_N
    if len(usable_N) != count:
        raise RequestError(f"`usable` covers {len(usable_N)} dates, the cube has {count}: was it made for another snapshot?")
    if not usable_N.any() or len(steps.target_days_K) == 0:
        raise RequestError("no usable date or no target date; check prediction.issue and prediction.dates")
    outside = [int(n) for n in steps.context_T if n >= count or (n >= 0 and not usable_N[n])]
    if outside:
        raise RequestError(f"context dates {outside} are not among the usable dates; all of the context must be usable")
    if tile_px < 1 or 2 * blend_px > tile_px:
        raise RequestError(f"tile_px {tile_px} must be at least {max(1, 2 * blend_px)} (twice the blended overlap)")


def _digest_of_bounds(intervals: Intervals, targets: int, variables: int) -> str:
    """Digest of the bounds around a few fixed forecasts: identifies the intervals whatever their class."""
    values = np.concatenate([np.linspace(-1, 1, 41), np.geomspace(1.1, 1e4, 60)]).astype(np.float32)
    probe = np.broadcast_to(values[None, None, None], (targets, variables, 1, len(values))).copy()
    lower, upper = intervals.bounds(probe)
    return hashlib.sha256(np.stack([np.asarray(lower), np.asarray(upper)]).astype("<f8").tobytes()).hexdigest()
