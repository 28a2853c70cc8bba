"""Forecasts of single windows of the cube: with exact halos, or overlapping windows blended.

The cube is read from top to bottom, each aligned band of rows once; rows shared by two tiles stay in memory.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import xarray as xr

from pipelines.calendar import to_days
from pipelines.cube.store import bands_of
from pipelines.errors import StateError
from pipelines.inference.job import Intervals, Job, Prediction
from pipelines.inference.staging import Record
from pipelines.inference.tiling import blend_weights, chunk_rows, tiles_around, tiles_of
from pipelines.samples.variables import decode, used_bands
from pipelines.tiles import Tile


class RowBand:
    """A strip of columns of the cube, read once from top to bottom.

    `times` and `bands` are indices along those axes. `read(rows)` may only move down; it returns views. The rows in memory are
    those of the last call plus at most one chunk, so memory depends on the strip's width, not on the raster.
    """

    def __init__(self, dataset: xr.Dataset, times: np.ndarray, bands: np.ndarray, columns: slice):
        self.image = dataset["image"].isel(x=columns, band=bands)
        self.valid = dataset["valid"].isel(x=columns)
        self.times = times
        self.height = dataset.sizes["y"]
        self.chunk_px = chunk_rows(dataset)
        self.first = 0
        width = columns.stop - columns.start
        self.image_NBYX = np.empty((len(times), len(bands), 0, width), dataset["image"].dtype)
        self.valid_NYX = np.empty((len(times), 0, width), bool)

    def read(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """(image_NBYX as stored, valid_NYX bool) of `rows`; `rows.start` never decreases from call to call."""
        if rows.start < self.first:
            raise ValueError(f"rows from {rows.start} were already dropped; the band now starts at {self.first}")
        held = self.first + self.image_NBYX.shape[2]
        if rows.stop > held:
            self._load(rows, max(held, rows.start))
        elif rows.start > self.first:
            kept = slice(rows.start - self.first, None)
            self.image_NBYX, self.valid_NYX = self.image_NBYX[:, :, kept].copy(), self.valid_NYX[:, kept].copy()
            self.first = rows.start
        inside = slice(rows.start - self.first, rows.stop - self.first)
        return self.image_NBYX[:, :, inside], self.valid_NYX[:, inside]

    def _load(self, rows: slice, held: int) -> None:
        """Extends the band to the end of the chunk of the last requested row, one date at a time."""
        stop = min(math.ceil(rows.stop / self.chunk_px) * self.chunk_px, self.height)
        image_NBYX = np.empty((*self.image_NBYX.shape[:2], stop - rows.start, self.image_NBYX.shape[3]), self.image_NBYX.dtype)
        valid_NYX = np.empty((len(self.times), stop - rows.start, self.image_NBYX.shape[3]), bool)
        kept, old = slice(0, held - rows.start), slice(rows.start - self.first, held - self.first)
        if held > rows.start:
            image_NBYX[:, :, kept], valid_NYX[:, kept] = self.image_NBYX[:, :, old], self.valid_NYX[:, old]
        for n, time in enumerate(self.times):
            image_NBYX[n, :, kept.stop :] = self.image.isel(time=time, y=slice(held, stop)).values
            valid_NYX[n, kept.stop :] = self.valid.isel(time=time, y=slice(held, stop)).values
        self.image_NBYX, self.valid_NYX, self.first = image_NBYX, valid_NYX, rows.start


class Strip:
    """The windows of one region, read from the top down, and the forecast for each."""

    def __init__(self, prediction: Prediction, region: Tile):
        self.job, self.forecaster = prediction.job, prediction.forecaster
        dataset, job = prediction.dataset, prediction.job
        bands = bands_of(dataset)
        used = used_bands(bands, job.variables)
        self.columns = columns_of(job, region)
        self.bands = tuple(bands[n] for n in used)
        self.band = RowBand(dataset, np.array(job.times), np.array(used), self.columns)
        self.dates = {
            "days_N": torch.from_numpy(np.ascontiguousarray(to_days(dataset["time"].values[list(job.times)]))),
            "context_T": torch.tensor(job.context_T, dtype=torch.int64),
            "usable_N": torch.ones(len(job.times), dtype=torch.bool),
            "target_days_K": torch.tensor(job.target_days_K, dtype=torch.float64),
        }

    def forecast(self, tile: Tile) -> np.ndarray:
        """y_KCHW float32 of `tile`, from a window with the exact halo; NaN where the pixel was never observed."""
        window = self.job.window_of(tile)
        return self.forecast_window(window)[:, :, *tile.within(window)]

    def forecast_window(self, window: Tile) -> np.ndarray:
        image_NBYX, valid_NYX = self.band.read(window.rows)
        inside = slice(window.col0 - self.columns.start, window.col1 - self.columns.start)
        x_NCYX, valid_NYX = decode(image_NBYX[..., inside], valid_NYX[..., inside], self.bands, self.job.variables)
        x_NCHW, valid_NHW = (torch.from_numpy(np.ascontiguousarray(array)) for array in (x_NCYX, valid_NYX))
        with torch.inference_mode():
            y_KCHW = self.forecaster.forecast(x_NCHW=x_NCHW, valid_NHW=valid_NHW, **self.dates)
        y = np.array(y_KCHW.detach().cpu().numpy(), np.float32)
        expected = (len(self.job.target_days_K), len(self.job.variables), *window.shape_yx)
        if y.shape != expected:
            raise StateError(f"the forecaster returned {y.shape}, expected (targets, variables, rows, columns) = {expected}")
        y[..., ~valid_NYX.any(axis=0)] = np.nan
        return y


def columns_of(job: Job, region: Tile) -> slice:
    """The columns of the windows of `region`; blending also needs the adjacent tiles."""
    if job.halo_px is None:
        return region.grown(job.tile_px + job.blend_px, job.shape_yx).columns
    tiles = tiles_of(region, job.tile_px)
    window, first, last = (job.window_of(tile) for tile in (region, tiles[0], tiles[-1]))
    return slice(min(first.col0, last.col0, window.col0), max(first.col1, last.col1, window.col1))


def blend(strip: Strip, region: Tile, intervals: Intervals | None) -> tuple[np.ndarray, Record]:
    """Weighted mean y_KCHW float32 of all windows that extend into `region`, and their disagreement there.

    The disagreement of a pixel is the weighted standard deviation of the windows' forecasts around the blended one; with
    `intervals` also in half widths of the interval, which makes variables of any unit comparable. Windows are added in one
    order (row by row), so that the sum does not depend on the worker.
    """
    job = strip.job
    shape = (len(job.target_days_K), len(job.variables), *region.shape_yx)
    total, square, weight = np.zeros(shape), np.zeros(shape), np.zeros(region.shape_yx)
    views = np.zeros(region.shape_yx, np.int16)
    for tile in tiles_around(region, job.tile_px, job.shape_yx):
        window = tile.grown(job.blend_px, job.shape_yx)
        if not window.overlaps(region):
            continue
        weights = blend_weights(tile, job.blend_px, job.shape_yx)
        rows, columns = (
            (max(window.row0, region.row0), min(window.row1, region.row1)),
            (max(window.col0, region.col0), min(window.col1, region.col1)),
        )
        common = Tile(*rows, *columns)
        here, there = common.within(window), common.within(region)
        y = strip.forecast_window(window)[:, :, here[0], here[1]].astype(np.float64)
        w = weights[here]
        total[:, :, there[0], there[1]] += w * y
        square[:, :, there[0], there[1]] += w * y**2
        weight[there] += w
        views[there] += 1
    mean = total / weight
    spread = np.sqrt(np.maximum(square / weight - mean**2, 0))[:, :, views > 1]
    is_known = np.isfinite(spread)
    share = _in_half_widths(spread, mean, views > 1, intervals)[is_known]
    spread = spread[is_known]
    seam = (float(spread.mean()), float(spread.max()), int(spread.size), float(share.mean())) if spread.size else ()
    return mean.astype(np.float32), Record(region.key, "", *seam)


def _in_half_widths(spread_KCP: np.ndarray, y_KCHW: np.ndarray, at_HW: np.ndarray, intervals: Intervals | None) -> np.ndarray:
    """`spread_KCP` over half the interval's width of its pixel, infinite without intervals; 0 without disagreement."""
    half_KCP = np.zeros_like(spread_KCP)
    if intervals is not None:
        lower, upper = (np.asarray(bound, np.float64)[:, :, at_HW] for bound in intervals.bounds(y_KCHW.astype(np.float32)))
        half_KCP = (upper - lower) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread_KCP > 0, spread_KCP / half_KCP, 0.0)
