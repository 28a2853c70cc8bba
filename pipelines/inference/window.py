"""Forecasts of single windows of the cube: with exact halos, or overlapping windows blended."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from pipelines.calendar import to_days
from pipelines.cube.store import bands_of
from pipelines.errors import StateError
from pipelines.inference.job import Intervals, Job
from pipelines.inference.ledger import Record
from pipelines.inference.reading import RowBand
from pipelines.inference.tiling import blend_weights, tiles_around, tiles_of
from pipelines.predictors import Forecaster
from pipelines.samples.variables import decode, used_bands
from pipelines.tiles import Tile


class Strip:
    """The windows of one region, read from the top down, and the forecast for each."""

    def __init__(self, job: Job, region: Tile, dataset: xr.Dataset, forecaster: Forecaster):
        self.job, self.forecaster = job, forecaster
        bands = bands_of(dataset)
        used = used_bands(bands, job.variables)
        self.columns = columns_of(job, region)
        self.bands = tuple(bands[n] for n in used)
        self.band = RowBand(dataset, np.array(job.times), np.array(used), self.columns)
        days = to_days(dataset["time"].values[list(job.times)])
        self.days_N = torch.from_numpy(np.ascontiguousarray(days))
        self.context_T = torch.tensor(job.context_T, dtype=torch.int64)
        self.usable_N = torch.ones(len(job.times), dtype=torch.bool)
        self.target_days_K = torch.tensor(job.target_days_K, dtype=torch.float64)

    def forecast(self, tile: Tile) -> np.ndarray:
        """y_KCHW float32 of `tile`, from a window with the exact halo; NaN where the pixel was never observed."""
        window = self.job.window_of(tile)
        rows, columns = tile.within(window)
        return self.forecast_window(window)[:, :, rows, columns]

    def forecast_window(self, window: Tile) -> np.ndarray:
        image_NBYX, valid_NYX = self.band.read(window.rows)
        inside = slice(window.col0 - self.columns.start, window.col1 - self.columns.start)
        x_NCYX, valid_NYX = decode(image_NBYX[..., inside], valid_NYX[..., inside], self.bands, self.job.variables)
        with torch.inference_mode():
            y_KCHW = self.forecaster.forecast(
                x_NCHW=torch.from_numpy(np.ascontiguousarray(x_NCYX)),
                valid_NHW=torch.from_numpy(np.ascontiguousarray(valid_NYX)),
                days_N=self.days_N,
                context_T=self.context_T,
                usable_N=self.usable_N,
                target_days_K=self.target_days_K,
            )
        y = np.array(y_KCHW.detach().cpu().numpy(), np.float32)
        expected = (len(self.job.target_days_K), len(self.job.variables), *window.shape_yx)
        if y.shape != expected:
            raise StateError(f"the forecaster returned {y.shape}, expected (targets, variables, rows, columns) = {expected}")
        y[..., ~valid_NYX.any(axis=0)] = np.nan
        return y


def columns_of(job: Job, region: Tile) -> slice:
    """The columns of the windows of `region`; blending also needs the adjacent tiles."""
    if job.halo_px is None:
        grown = region.grown(job.tile_px + job.blend_px, job.shape_yx)
        return grown.columns
    tiles = tiles_of(region, job.tile_px)
    window, first, last = (job.window_of(tile) for tile in (region, tiles[0], tiles[-1]))
    return slice(min(first.col0, last.col0, window.col0), max(first.col1, last.col1, window.col1))


def blend(job: Job, region: Tile, strip: Strip, intervals: Intervals | None = None) -> tuple[np.ndarray, Record]:
    """Weighted mean y_KCHW float32 of all windows that extend into `region`, and their disagreement there.

    The disagreement of a pixel is the weighted standard deviation of the windows' forecasts around the blended one; with
    `intervals` also in half widths of the interval, which makes variables of any unit comparable. Windows are added in one
    order (row by row), so that the sum does not depend on the worker.
    """
    shape = (len(job.target_days_K), len(job.variables), *region.shape_yx)
    total, square, weight = np.zeros(shape), np.zeros(shape), np.zeros(region.shape_yx)
    views = np.zeros(region.shape_yx, np.int16)
    for tile in tiles_around(region, job.tile_px, job.shape_yx):
        window = tile.grown(job.blend_px, job.shape_yx)
        if not window.overlaps(region):
            continue
        weights = blend_weights(tile, job.blend_px, job.shape_yx)
        common = _intersect(window, region)
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
    if not spread.size:
        return mean.astype(np.float32), Record(region.key, "")
    return mean.astype(np.float32), Record(
        region.key, "", float(spread.mean()), float(spread.max()), int(spread.size), float(share.mean())
    )


def _in_half_widths(spread_KCP: np.ndarray, y_KCHW: np.ndarray, at_HW: np.ndarray, intervals: Intervals | None) -> np.ndarray:
    """`spread_KCP` over half the interval's width of its pixel, infinite without intervals; 0 without disagreement."""
    half_KCP = np.zeros_like(spread_KCP)
    if intervals is not None:
        lower, upper = (np.asarray(bound, np.float64)[:, :, at_HW] for bound in intervals.bounds(y_KCHW.astype(np.float32)))
        half_KCP = (upper - lower) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread_KCP > 0, spread_KCP / half_KCP, 0.0)


def _intersect(one: Tile, other: Tile) -> Tile:
    return Tile(
        max(one.row0, other.row0),
        min(one.row1, other.row1),
        max(one.col0, other.col0),
        min(one.col1, other.col1),
    )
