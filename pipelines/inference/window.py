"""Forecasts of single windows of the cube: with exact halos, or overlapping windows blended.

The cube is read along the first axis of space, each aligned slab of rows once; rows shared by two tiles stay in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from pipelines.calendar import to_days
from pipelines.cube.store import bands_of, space_dims
from pipelines.errors import StateError
from pipelines.inference.job import Intervals, Job, Prediction
from pipelines.inference.tiling import blend_weights, chunk_length, tiles_around
from pipelines.predictors import given_to
from pipelines.samples.covariates import Given, context_days
from pipelines.samples.variables import decode, used_bands
from pipelines.tiles import Box


class Slab:
    """A column of the cube along the first axis of space, read once from its first row (of volumes: slice) to the last.

    `times` and `bands` are indices along those axes, `across` one slice per axis of space after the first. `read(along)` may
    only move on; it returns views. What is in memory are the rows of the last call plus at most one chunk, so memory depends on
    the column's width, not on the raster. R rows; `*` the axes after the first.
    """

    def __init__(self, dataset: xr.Dataset, times: np.ndarray, bands: np.ndarray, across: Sequence[slice]):
        self.axis, *others = space_dims(dataset)
        inside = dict(zip(others, across, strict=True))
        self.image, self.valid = dataset["image"].isel({"band": bands, **inside}), dataset["valid"].isel(inside)
        self.times = times
        self.length = dataset.sizes[self.axis]
        self.chunk_px = chunk_length(dataset)
        self.first = 0
        sides = [one.stop - one.start for one in across]
        self.image_NBR = np.empty((len(times), len(bands), 0, *sides), dataset["image"].dtype)
        self.valid_NR = np.empty((len(times), 0, *sides), bool)

    def read(self, along: slice) -> tuple[np.ndarray, np.ndarray]:
        """(image_NBR* as stored, valid_NR* bool) of the rows `along`; `along.start` never decreases from call to call."""
        if along.start < self.first:
            raise ValueError(f"rows from {along.start} were already dropped; the slab now starts at {self.first}")
        held = self.first + self.image_NBR.shape[2]
        if along.stop > held:
            self._load(along, max(held, along.start))
        elif along.start > self.first:
            kept = slice(along.start - self.first, None)
            self.image_NBR, self.valid_NR = self.image_NBR[:, :, kept].copy(), self.valid_NR[:, kept].copy()
            self.first = along.start
        inside = slice(along.start - self.first, along.stop - self.first)
        return self.image_NBR[:, :, inside], self.valid_NR[:, inside]

    def _load(self, along: slice, held: int) -> None:
        """Extends the slab to the end of the chunk of the last requested row, one date at a time."""
        stop = min(math.ceil(along.stop / self.chunk_px) * self.chunk_px, self.length)
        rows, sides = stop - along.start, self.image_NBR.shape[3:]
        image_NBR = np.empty((*self.image_NBR.shape[:2], rows, *sides), self.image_NBR.dtype)
        valid_NR = np.empty((len(self.times), rows, *sides), bool)
        kept, old = slice(0, held - along.start), slice(along.start - self.first, held - self.first)
        if held > along.start:
            image_NBR[:, :, kept], valid_NR[:, kept] = self.image_NBR[:, :, old], self.valid_NR[:, old]
        for n, time in enumerate(self.times):
            part = {"time": time, self.axis: slice(held, stop)}
            image_NBR[n, :, kept.stop :] = self.image.isel(part).values
            valid_NR[n, kept.stop :] = self.valid.isel(part).values
        self.image_NBR, self.valid_NR, self.first = image_NBR, valid_NR, along.start


class Strip:
    """The windows of one region, read from the top down, and the forecast for each."""

    def __init__(self, prediction: Prediction, region: Box):
        self.job, self.forecaster, self.covariates = prediction.job, prediction.forecaster, prediction.covariates
        dataset, job = prediction.dataset, prediction.job
        bands = bands_of(dataset)
        used = used_bands(bands, job.variables)
        self.across, self.dims = across_of(job, region), space_dims(dataset)
        self.bands = tuple(bands[n] for n in used)
        self.slab = Slab(dataset, np.array(job.times), np.array(used), self.across.slices)
        self.dates = {
            "days_N": torch.from_numpy(np.ascontiguousarray(to_days(dataset["time"].values[list(job.times)]))),
            "context_T": torch.tensor(job.context_T, dtype=torch.int64),
            "usable_N": torch.ones(len(job.times), dtype=torch.bool),
            "target_days_K": torch.tensor(job.target_days_K, dtype=torch.float64),
        }

    def forecast(self, tile: Box) -> np.ndarray:
        """y_KCHW float32 of `tile`, from a window with the exact halo; NaN where the pixel was never observed."""
        window = self.job.window_of(tile)
        return self.forecast_window(window)[:, :, *tile.within(window)]

    def forecast_window(self, window: Box) -> np.ndarray:
        image_NBR, valid_NR = self.slab.read(window.slices[0])
        inside = Box(window.start[1:], window.stop[1:]).within(self.across)
        values, valid = decode(image_NBR[:, :, :, *inside], valid_NR[:, :, *inside], self.bands, self.job.variables)
        x_NCHW, valid_NHW = (torch.from_numpy(np.ascontiguousarray(array)) for array in (values, valid))
        with torch.inference_mode():
            given = given_to(self.forecaster, self._covariates(window))
            y_KCHW = self.forecaster.forecast(x_NCHW=x_NCHW, valid_NHW=valid_NHW, **self.dates, **given)
        y = np.array(y_KCHW.detach().cpu().numpy(), np.float32)
        expected = (len(self.job.target_days_K), len(self.job.variables), *window.shape)
        if y.shape != expected:
            axes = ", ".join(self.dims)
            raise StateError(f"the forecaster returned {y.shape}, expected (targets, variables, {axes}) = {expected}")
        y[:, :, ~valid.any(axis=0)] = np.nan
        return y

    def _covariates(self, window: Box) -> Given:
        if self.covariates is None:
            return {}
        dates = {name: self.dates[name].numpy() for name in ("days_N", "context_T", "target_days_K")}
        return self.covariates.of(window, context_days(dates["days_N"], dates["context_T"]), dates["target_days_K"])


def across_of(job: Job, region: Box) -> Box:
    """What the windows of `region` cover on the axes after the first; blending also needs the adjacent tiles."""
    if job.halo_px is None:
        window = region.grown(job.tile_px + job.blend_px, job.shape)
    else:
        tiles = region.cut(job.tile_px)
        window = Box.around(job.window_of(tile) for tile in (region, tiles[0], tiles[-1]))
    return Box(window.start[1:], window.stop[1:])


def blend(strip: Strip, region: Box, intervals: Intervals | None) -> tuple[np.ndarray, dict[str, float]]:
    """Weighted mean y_KCHW float32 of all windows that extend into `region`, and figures of their disagreement there.

    `seam_mean` and `seam_max` in physical units, over `seam_count` values; `seam_share` the mean in half widths of the intervals;
    nothing where no windows overlap.

    The disagreement of a pixel is the weighted standard deviation of the windows' forecasts around the blended one; with
    `intervals` also in half widths of the interval, which makes variables of any unit comparable. Windows are added in one
    order (row by row), so that the sum does not depend on the worker.
    """
    job = strip.job
    shape = (len(job.target_days_K), len(job.variables), *region.shape)
    total, square, weight = np.zeros(shape), np.zeros(shape), np.zeros(region.shape)
    views = np.zeros(region.shape, np.int16)
    for tile in tiles_around(region, job.tile_px, job.shape):
        window = tile.grown(job.blend_px, job.shape)
        if not window.overlaps(region):
            continue
        common = window.common(region)
        here, there = common.within(window), common.within(region)
        y = strip.forecast_window(window)[:, :, *here].astype(np.float64)
        w = blend_weights(tile, job.blend_px, job.shape)[here]
        total[:, :, *there] += w * y
        square[:, :, *there] += w * y**2
        weight[there] += w
        views[there] += 1
    mean = total / weight
    spread = np.sqrt(np.maximum(square / weight - mean**2, 0))[:, :, views > 1]
    is_known = np.isfinite(spread)
    share = _in_half_widths(spread, mean, views > 1, intervals)[is_known]
    spread = spread[is_known]
    if not spread.size:
        return mean.astype(np.float32), {}
    figures = {"seam_mean": spread.mean(), "seam_max": spread.max(), "seam_count": spread.size, "seam_share": share.mean()}
    return mean.astype(np.float32), {name: float(value) for name, value in figures.items()}


def _in_half_widths(spread_KCP: np.ndarray, y_KCHW: np.ndarray, at_HW: np.ndarray, intervals: Intervals | None) -> np.ndarray:
    """`spread_KCP` over half the interval's width of its pixel, infinite without intervals; 0 without disagreement."""
    half_KCP = np.zeros_like(spread_KCP)
    if intervals is not None:
        lower, upper = (np.asarray(bound, np.float64)[:, :, at_HW] for bound in intervals.bounds(y_KCHW.astype(np.float32)))
        half_KCP = (upper - lower) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread_KCP > 0, spread_KCP / half_KCP, 0.0)
