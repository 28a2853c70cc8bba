"""Tiling for prediction: batches of tiles, the window that each tile needs, blend weights, and the cube's own chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from pipelines.tiles import Tile

MOST_BATCHES = 400  # one task each under a scheduler: 10,000 tiles stay below 500 tasks
LEAST_SIDE_PX = 144
TILES_PER_BATCH = 16  # at most this many are lost in a kill, on small rasters


def plan_batches(shape_yx: tuple[int, int], tile_px: int, tiles_across: int = 4) -> tuple[Tile, ...]:
    """Regions of whole tiles that cover every pixel of a raster of `shape_yx` exactly once; pure, a few ints each.

    A region is at most `tiles_across` tiles wide and is processed downwards, so that rows shared by two tiles are read once.
    There are at most about `MOST_BATCHES`, whatever the raster.
    """
    rows, columns = (math.ceil(size / tile_px) for size in shape_yx)
    across = max(1, min(tiles_across, columns))
    strips = math.ceil(columns / across)
    requested = max(TILES_PER_BATCH, math.ceil(rows * columns / MOST_BATCHES))
    down = max(1, math.ceil(requested / across), math.ceil(rows * strips / MOST_BATCHES))
    height, width = down * tile_px, across * tile_px
    return tuple(
        Tile(row, min(row + height, shape_yx[0]), col, min(col + width, shape_yx[1]))
        for col in range(0, shape_yx[1], width)
        for row in range(0, shape_yx[0], height)
    )


def tiles_of(region: Tile, tile_px: int) -> list[Tile]:
    """The tiles of `region`, row by row; `region` starts on a tile corner (as those of `plan_batches` do)."""
    return [
        Tile(row, min(row + tile_px, region.row1), col, min(col + tile_px, region.col1))
        for row in range(region.row0, region.row1, tile_px)
        for col in range(region.col0, region.col1, tile_px)
    ]


def tiles_around(region: Tile, tile_px: int, shape_yx: tuple[int, int]) -> list[Tile]:
    """The tiles of `region` and the tiles adjacent to it, row by row: those whose windows extend into it."""
    ring = region.grown(tile_px, shape_yx)
    bottom, right = (
        min(math.ceil(stop / tile_px) * tile_px, size) for stop, size in zip((ring.row1, ring.col1), shape_yx, strict=True)
    )
    return tiles_of(Tile(ring.row0, bottom, ring.col0, right), tile_px)


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


def blend_weights(tile: Tile, blend_px: int, shape_yx: tuple[int, int]) -> np.ndarray:
    """Weights (y, x) float64 of `tile.grown(blend_px, shape_yx)`: the product of both axes' ramps."""
    down = ramp(tile.row0, tile.row1, blend_px, shape_yx[0])
    across = ramp(tile.col0, tile.col1, blend_px, shape_yx[1])
    weights: np.ndarray = down[:, None] * across[None, :]
    return weights


def window_of(tile: Tile, halo_px: Sequence[int], shape_yx: tuple[int, int], stride_px: Sequence[int] = (1, 1)) -> Tile:
    """The window needed to forecast `tile`: its exact halo (y, x), and at least about 144 x 144 pixels of the raster.

    Its first row and column are multiples of `stride_px` (y, x), the cells of a network with pooling.

    For small inputs torch uses another convolution on the CPU with other rounding (`use_mkldnn` in
    aten/src/ATen/native/Convolution.cpp: more than 20480 elements); with this minimum every window uses the one of the whole
    image, and the difference is 0.0. Starts never move up from one tile row to the next.
    """
    height = min(shape_yx[0], LEAST_SIDE_PX)
    width = min(shape_yx[1], max(LEAST_SIDE_PX, math.ceil(LEAST_SIDE_PX**2 / height)))
    height = min(shape_yx[0], max(LEAST_SIDE_PX, math.ceil(LEAST_SIDE_PX**2 / width)))
    row0, row1 = _span(tile.row0 - halo_px[0], tile.row1 + halo_px[0], height, shape_yx[0])
    col0, col1 = _span(tile.col0 - halo_px[1], tile.col1 + halo_px[1], width, shape_yx[1])
    return Tile(row0 - row0 % stride_px[0], row1, col0 - col0 % stride_px[1], col1)


def _span(start: int, stop: int, least: int, size: int) -> tuple[int, int]:
    """[start, stop) clipped to [0, size), extended to at least `least` (which is at most `size`)."""
    start = max(min(start, size - least), 0)
    return start, min(max(stop, start + least), size)


def chunk_rows(dataset: xr.Dataset) -> int:
    """Rows of one stored chunk of `image`; 256 if the dataset does not state it."""
    encoding = dataset["image"].encoding
    chunks = encoding.get("chunks") or encoding.get("preferred_chunks")
    if isinstance(chunks, dict):
        return int(chunks.get("y", 256))
    return int(chunks[-2]) if chunks else 256
