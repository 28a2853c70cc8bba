"""Reading the cube for change: a date of a block of tiles at a time, so that a stored chunk is unpacked once for all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from pipelines.cube.store import bands_of
from pipelines.inference.tiling import chunk_rows
from pipelines.monitoring.updates import CubeDate
from pipelines.samples.variables import Variable, decode, used_bands
from pipelines.tiles import Tile, tile_raster

BLOCK_MB = 256  # for the history of one block, which is fitted in one piece per tile
HELD_DATES = 4  # late dates that were read for a plan and are about to be used


@dataclass(frozen=True)
class Block:
    """Tiles that are read together, and the rectangle that covers them."""

    area: Tile
    tiles: tuple[Tile, ...]


def plan_blocks(dataset: xr.Dataset, tile_px: int, halo_px: int, dates: int) -> tuple[Block, ...]:
    """The raster's tiles in blocks: as many whole tiles as lie in one stored chunk, fewer where their history is too large."""
    height, width = dataset.sizes["y"], dataset.sizes["x"]
    side, chunk_px = tile_px, chunk_rows(dataset)
    while side * 2 <= chunk_px and (2 * side + 2 * halo_px) ** 2 * max(dates, 1) * 5 <= BLOCK_MB * 2**20:
        side *= 2
    blocks = []
    for area in tile_raster((height, width), side):
        inside = tile_raster(area.shape_yx, tile_px)
        tiles = (Tile(t.row0 + area.row0, t.row1 + area.row0, t.col0 + area.col0, t.col1 + area.col0) for t in inside)
        blocks.append(Block(area, tuple(tiles)))
    return tuple(blocks)


class BlockReader:
    """Decoded dates of one block. `reads` counts the dates that were read from the cube."""

    def __init__(self, dataset: xr.Dataset, variable: Variable, block: Block, halo_px: int):
        self.shape_yx = (dataset.sizes["y"], dataset.sizes["x"])
        self.halo_px = halo_px
        self.area = block.area.grown(halo_px, self.shape_yx)
        bands = bands_of(dataset)
        used = list(used_bands(bands, (variable,)))
        self.bands, self.variable = tuple(bands[i] for i in used), variable
        rows, columns = self.area.rows, self.area.columns
        self.image, self.valid = dataset["image"].isel(band=used, y=rows, x=columns), dataset["valid"].isel(y=rows, x=columns)
        self.held: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.reads = 0

    def read(self, date: CubeDate) -> tuple[np.ndarray, np.ndarray]:
        """(x_YX float32 physical values, 0 where invalid; valid_YX bool) of the block grown by the halo."""
        if date.index not in self.held:
            while len(self.held) >= HELD_DATES:
                self.held.pop(next(iter(self.held)))
            self.reads += 1
            image_BYX, valid_YX = self.image.isel(time=date.index).values, self.valid.isel(time=date.index).values
            x_NCYX, valid_NYX = decode(image_BYX[None], valid_YX[None], self.bands, (self.variable,))
            self.held[date.index] = (x_NCYX[0, 0], valid_NYX[0])
        return self.held[date.index]

    def cut(self, date: CubeDate, tile: Tile) -> tuple[np.ndarray, np.ndarray] | None:
        """The same for one tile grown by the halo, views; None if it was not seen. An empty scene is not even read."""
        if date.is_empty:
            return None
        x_YX, valid_YX = self.read(date)
        rows, columns = tile.grown(self.halo_px, self.shape_yx).within(self.area)
        if not valid_YX[rows, columns].any():
            return None
        return x_YX[rows, columns], valid_YX[rows, columns]
