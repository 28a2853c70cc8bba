"""Tiling for prediction: batches of tiles, the window that each tile needs, blend weights, and the cube's own chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import numpy as np
import xarray as xr

from pipelines.tiles import Box

MOST_BATCHES = 400  # one task each under a scheduler: 10,000 tiles stay below 500 tasks
LEAST_PX = 144**2
TILES_PER_BATCH = 16  # at most this many are lost in a kill, on small rasters


def plan_batches(shape: tuple[int, ...], tile_px: int, tiles_across: int = 4) -> tuple[Box, ...]:
    """Regions of whole tiles that cover every pixel of a raster of `shape` exactly once; pure, a few ints each.

    A region is at most `tiles_across` tiles wide on the last axis, and one on those between. It is processed along the first
    axis, so that rows (of volumes: slices) shared by two tiles are read once. There are at most about `MOST_BATCHES`, whatever
    the raster.
    """
    tiles = [math.ceil(size / tile_px) for size in shape]
    across = max(1, min(tiles_across, tiles[-1]))
    columns = math.prod(tiles[1:-1]) * math.ceil(tiles[-1] / across)
    requested = max(TILES_PER_BATCH, math.ceil(math.prod(tiles) / MOST_BATCHES))
    along = max(1, math.ceil(requested / across), math.ceil(tiles[0] * columns / MOST_BATCHES))
    regions = Box.whole(shape).cut((along * tile_px, *(tile_px for _ in shape[1:-1]), across * tile_px))
    return tuple(sorted(regions, key=lambda region: region.start[::-1]))


def tiles_around(region: Box, tile_px: int, shape: tuple[int, ...]) -> list[Box]:
    """The tiles of `region` and the tiles adjacent to it, row by row: those whose windows extend into it."""
    ring = region.grown(tile_px, shape)
    ends = (min(math.ceil(stop / tile_px) * tile_px, size) for stop, size in zip(ring.stop, shape, strict=True))
    return Box(ring.start, tuple(ends)).cut(tile_px)


def ramp(start: int, stop: int, blend_px: int, size: int) -> np.ndarray:
    """Blend weight of a window along one axis, float64, for the pixels of [start - blend, stop + blend) inside [0, size).

    It rises linearly over the 2 * blend_px pixels around `start` and falls likewise around `stop`, so that the weights of
    adjacent windows sum to 1 for tiles of at least 2 * blend_px pixels; there is no ramp at the raster's own edges.

    >>> (ramp(0, 4, 2, 8)[2:6] + ramp(4, 8, 2, 8)[:4]).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    positions = np.arange(max(start - blend_px, 0), min(stop + blend_px, size)) + 0.5
    rise = (positions - (start - blend_px)) / (2 * blend_px) if start > 0 and blend_px else np.ones_like(positions)
    fall = ((stop + blend_px) - positions) / (2 * blend_px) if stop < size and blend_px else np.ones_like(positions)
    return np.clip(np.minimum(rise, fall), 0, 1)


def blend_weights(tile: Box, blend_px: int, shape: tuple[int, ...]) -> np.ndarray:
    """Weights float64 of `tile.grown(blend_px, shape)`: the product of all axes' ramps."""
    spans = zip(tile.start, tile.stop, shape, strict=True)
    return reduce(np.multiply.outer, (ramp(start, stop, blend_px, size) for start, stop, size in spans))


def window_of(tile: Box, halo_px: Sequence[int], shape: tuple[int, ...], stride_px: Sequence[int]) -> Box:
    """The window needed to forecast `tile`: its exact halo per axis, and at least about `LEAST_PX` pixels of the raster.

    Its start is a multiple of `stride_px` on each axis, the cells of a network with pooling.

    For small inputs torch uses another convolution on the CPU with other rounding (`use_mkldnn` in
    aten/src/ATen/native/Convolution.cpp: more than 20480 elements); with this minimum every window uses the one of the whole
    image, and the difference is 0.0. Starts never move up from one tile row to the next.
    """
    spans = zip(tile.start, tile.stop, halo_px, least_sides(shape), shape, strict=True)
    extended = [_span(start - halo, stop + halo, least, size) for start, stop, halo, least, size in spans]
    starts = (start - start % px for (start, _), px in zip(extended, stride_px, strict=True))
    return Box(tuple(starts), tuple(stop for _, stop in extended))


def least_sides(shape: Sequence[int]) -> tuple[int, ...]:
    """Sides of the smallest window: equal ones of `LEAST_PX` pixels in all, longer where the raster is short on another axis.

    >>> least_sides((500, 500)), least_sides((36, 900)), least_sides((90, 90, 90))
    ((144, 144), (36, 576), (28, 28, 28))
    """
    side = math.ceil(round(LEAST_PX ** (1 / len(shape)), 6))
    sides = [min(size, side) for size in shape]
    for axis in reversed(range(len(shape))):
        others = math.prod(sides) // sides[axis]
        sides[axis] = min(shape[axis], max(side, math.ceil(LEAST_PX / others)))
    return tuple(sides)


def _span(start: int, stop: int, least: int, size: int) -> tuple[int, int]:
    """[start, stop) clipped to [0, size), extended to at least `least` (which is at most `size`)."""
    start = max(min(start, size - least), 0)
    return start, min(max(stop, start + least), size)


def chunk_length(dataset: xr.Dataset) -> int:
    """Length of one stored chunk of `image` on the first axis of space (rows, of volumes slices); 256 if it is not stated."""
    encoding, axis = dataset["image"].encoding, dataset["image"].dims[2]
    chunks = encoding.get("chunks") or encoding.get("preferred_chunks")
    if isinstance(chunks, dict):
        return int(chunks.get(axis, 256))
    return int(chunks[2]) if chunks else 256
