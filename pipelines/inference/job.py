"""The request of one prediction over a whole cube, as plain values with a key."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import xarray as xr

from pipelines.cube.store import bands_of
from pipelines.errors import RequestError, StateError
from pipelines.inference.reading import band_bytes_per_column, chunk_rows
from pipelines.inference.staging import ROLES, Field
from pipelines.inference.tiling import plan_batches, window_of
from pipelines.predictors import Forecaster
from pipelines.samples.variables import Variable, used_bands
from pipelines.tiles import Tile

VERSION = 2  # of the meaning of the staged bytes; part of the key


class Intervals(Protocol):
    """Prediction intervals: bounds around a forecast that contain the truth with the nominal probability."""

    def bounds(self, y_KCHW: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class Job:
    """One prediction, as plain values; picklable. `times` are indices in the cube of the N dates that may be used.

    `context_T` are indices into `times`, -1 = no observation. `halo_px` (y, x); None = unbounded receptive field: windows that
    overlap by 2 * `blend_px` are blended. Windows start at multiples of `stride_px` (y, x).
    """

    snapshot: str
    model_hash: str
    variables: tuple[Variable, ...]
    shape_yx: tuple[int, int]
    times: tuple[int, ...]
    context_T: tuple[int, ...]
    target_days_K: tuple[float, ...]
    tile_px: int
    tiles_across: int
    halo_px: tuple[int, ...] | None
    stride_px: tuple[int, ...]
    blend_px: int
    bounds: str  # "" = no intervals, else a digest of their bounds

    @property
    def key(self) -> str:
        """SHA-256 of everything that the bytes depend on; fields staged with another key are not resumed."""
        values = {"version": VERSION, **asdict(self)}
        return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def fields(self) -> tuple[Field, ...]:
        roles = ROLES if self.bounds else ROLES[:1]
        return tuple(Field(k, v.name, role) for k in range(len(self.target_days_K)) for v in self.variables for role in roles)

    @property
    def reach_px(self) -> tuple[int, ...]:
        """How far a tile's window extends beyond the tile, in pixels (y, x)."""
        return (self.blend_px, self.blend_px) if self.halo_px is None else self.halo_px

    def window_of(self, tile: Tile) -> Tile:
        """The window that is needed to forecast `tile` exactly."""
        return window_of(tile, self.reach_px, self.shape_yx, self.stride_px)

    def batches(self) -> tuple[Tile, ...]:
        return plan_batches(self.shape_yx, self.tile_px, self.tiles_across)


def plan_job(
    dataset: xr.Dataset,
    snapshot: str,
    forecaster: Forecaster,
    variables: Sequence[Variable],
    context_T: np.ndarray,
    usable_N: np.ndarray,
    target_days_K: np.ndarray,
    intervals: Intervals | None = None,
    *,
    tile_px: int = 256,
    blend_px: int = 32,
    memory_mb: int = 256,
    model_hash: str = "",
) -> Job:
    """The job for these arguments (of the forecaster's contract, over all dates of the cube).

    Strips are as many tiles wide as `memory_mb` allows for one worker's rows of the cube. Raises RequestError if arguments
    do not match the cube.
    """
    usable_N, context_T = np.asarray(usable_N, bool), np.asarray(context_T, np.int64)
    halo_px, stride_px = _reach_of(forecaster, len(context_T) + len(target_days_K))
    _check_request(dataset, context_T, usable_N, target_days_K, tile_px, blend_px if halo_px is None else 0)
    times = np.flatnonzero(usable_N)
    shape_yx = (dataset.sizes["y"], dataset.sizes["x"])
    reach_y, reach_x = (blend_px, blend_px) if halo_px is None else map(sum, zip(halo_px, stride_px, (-1, -1), strict=True))
    bands = len(used_bands(bands_of(dataset), tuple(variables)))
    itemsize = dataset["image"].dtype.itemsize
    column = band_bytes_per_column(len(times), bands, itemsize, tile_px, reach_y, chunk_rows(dataset))
    across = max(1, int((memory_mb * 2**20 / column - 2 * reach_x) // tile_px))
    return Job(
        snapshot=snapshot,
        model_hash=model_hash,
        variables=tuple(variables),
        shape_yx=shape_yx,
        times=tuple(int(n) for n in times),
        context_T=tuple(int(np.searchsorted(times, n)) if n >= 0 else -1 for n in context_T),
        target_days_K=tuple(float(day) for day in np.asarray(target_days_K)),
        tile_px=tile_px,
        tiles_across=min(across, math.ceil(shape_yx[1] / tile_px)),
        halo_px=halo_px,
        stride_px=stride_px,
        blend_px=blend_px,
        bounds=_digest_of_bounds(intervals, len(target_days_K), len(variables)) if intervals is not None else "",
    )


def _reach_of(forecaster: Forecaster, steps: int) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """(halo, stride) of the forecaster per axis (y, x). Raises StateError for another number of axes."""
    halo_px, stride_px = forecaster.halo_px(steps), forecaster.stride_px
    if len(stride_px) != 2 or (halo_px is not None and len(halo_px) != 2):
        raise StateError(
            f"{type(forecaster).__name__} states halo {halo_px} and stride {stride_px}; expected two axes (y, x), as the cube has"
        )
    return halo_px, stride_px


def _check_request(
    dataset: xr.Dataset, context_T: np.ndarray, usable_N: np.ndarray, target_days_K: np.ndarray, tile_px: int, blend_px: int
) -> None:
    count = dataset.sizes["time"]
    if len(usable_N) != count:
        raise RequestError(f"`usable` covers {len(usable_N)} dates, the cube has {count}: was it made for another snapshot?")
    if not usable_N.any() or len(target_days_K) == 0:
        raise RequestError("no usable date or no target date; check prediction.issue and prediction.dates")
    outside = [int(n) for n in context_T if n >= count or (n >= 0 and not usable_N[n])]
    if outside:
        raise RequestError(f"context dates {outside} are not among the usable dates; all of the context must be usable")
    if tile_px < 1 or 2 * blend_px > tile_px:
        raise RequestError(f"tile_px {tile_px} must be at least {max(1, 2 * blend_px)} (twice the blended overlap)")


def _digest_of_bounds(intervals: Intervals, targets: int, variables: int) -> str:
    """Digest of the bounds around a few fixed forecasts: identifies the intervals whatever their class."""
    probe = np.broadcast_to(np.linspace(-1, 1, 9, dtype=np.float32)[None, None, None], (targets, variables, 1, 9)).copy()
    lower, upper = intervals.bounds(probe)
    return hashlib.sha256(np.stack([np.asarray(lower), np.asarray(upper)]).astype("<f8").tobytes()).hexdigest()
