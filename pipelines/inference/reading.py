"""Reads the cube from top to bottom: each aligned band of rows once; rows shared by two tiles stay in memory."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr


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
            self._drop(rows.start)
        inside = slice(rows.start - self.first, rows.stop - self.first)
        return self.image_NBYX[:, :, inside], self.valid_NYX[:, inside]

    def _drop(self, start: int) -> None:
        kept = slice(start - self.first, None)
        self.image_NBYX, self.valid_NYX = self.image_NBYX[:, :, kept].copy(), self.valid_NYX[:, kept].copy()
        self.first = start

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


def chunk_rows(dataset: xr.Dataset) -> int:
    """Rows of one stored chunk of `image`; 256 if the dataset does not state it."""
    encoding = dataset["image"].encoding
    chunks = encoding.get("chunks") or encoding.get("preferred_chunks")
    if isinstance(chunks, dict):
        return int(chunks.get("y", 256))
    return int(chunks[-2]) if chunks else 256


def band_bytes_per_column(times: int, bands: int, itemsize: int, tile_px: int, halo_px: int, chunk_px: int) -> int:
    """Maximum bytes per column in a `RowBand`: twice while it grows, image and valid."""
    return 2 * times * (bands * itemsize + 1) * (tile_px + 2 * halo_px + chunk_px)
