"""Reads blocks of the cube, each decoded once; all reading in this package goes through here.

The cube's chunks hold one date of a square of pixels, so tiles that share chunks are read together if they fit in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from pipelines.cube.store import bands_of
from pipelines.errors import ArtefactDamaged
from pipelines.progress import Progress
from pipelines.samples.plan import WindowPlan
from pipelines.samples.variables import Variable, decode, used_bands
from pipelines.tiles import Tile

REGION_BYTES = 256 * 2**20  # stored pixels held at once; a single tile may need more


@dataclass(frozen=True)
class Block:
    """A decoded tile of all dates: `x_NCHW` float32 physical (0 where invalid), `valid_NHW` bool."""

    tile: Tile
    x_NCHW: np.ndarray
    valid_NHW: np.ndarray


def decoded_blocks(
    dataset: xr.Dataset, tiles: list[Tile], variables: tuple[Variable, ...], progress: Progress | None = None
) -> Iterator[Block]:
    """Each of `tiles` decoded, in an order that reads every stored chunk about once. `progress` counts tiles."""
    bands, done = bands_of(dataset), 0
    used = used_bands(bands, variables)
    is_slice = used == tuple(range(used[0], used[-1] + 1))  # storage reads slices without a copy
    image = dataset["image"].isel(band=slice(used[0], used[-1] + 1) if is_slice else list(used))
    chunks = dataset["image"].encoding.get("shards") or dataset["image"].encoding.get("chunks")
    bytes_per_pixel = dataset.sizes["time"] * len(used) * image.dtype.itemsize
    for region, members in group_tiles(tiles, int(chunks[-2]) if chunks else 256, bytes_per_pixel):
        image_NBYX = image.isel(y=region.rows, x=region.columns).values
        valid_NYX = dataset["valid"].isel(y=region.rows, x=region.columns).values.astype(bool, copy=False)
        for tile in members:
            rows, columns = tile.within(region)
            part = image_NBYX[:, :, rows, columns], valid_NYX[:, rows, columns]
            yield Block(tile, *decode(*part, tuple(bands[number] for number in used), variables))
            done += 1
            if progress is not None:
                progress(done, len(tiles))


def group_tiles(tiles: list[Tile], chunk: int, bytes_per_pixel: int) -> Iterator[tuple[Tile, list[Tile]]]:
    """(region, its tiles): tiles whose centres are in the same chunk are read as one region, if it fits in REGION_BYTES."""
    groups: dict[tuple[int, int], list[Tile]] = {}
    for tile in sorted(tiles):
        groups.setdefault(((tile.row0 + tile.row1) // 2 // chunk, (tile.col0 + tile.col1) // 2 // chunk), []).append(tile)
    for members in groups.values():
        rows, columns = [(t.row0, t.row1) for t in members], [(t.col0, t.col1) for t in members]
        region = Tile(min(rows)[0], max(row1 for _, row1 in rows), min(columns)[0], max(col1 for _, col1 in columns))
        height, width = region.shape_yx
        if height * width * bytes_per_pixel <= REGION_BYTES:
            yield region, members
        else:
            yield from ((tile, [tile]) for tile in members)


def check_fits(dataset: xr.Dataset, plan: WindowPlan) -> None:
    """Raises ArtefactDamaged if the plan was made for other dates or another raster than the cube's."""
    shape_yx = (dataset.sizes["y"], dataset.sizes["x"])
    if shape_yx != tuple(plan.shape_yx):
        raise ArtefactDamaged(
            f"the window plan is for a raster of {plan.shape_yx}, the cube has {shape_yx}: plan the windows again"
        )
    times = dataset["time"].values.astype("datetime64[ns]")
    if not np.array_equal(times, plan.times):
        raise ArtefactDamaged(
            f"the window plan is for {len(plan.times)} dates up to {plan.times[-1]}, "
            f"the cube has {len(times)} up to {times[-1]}: plan the windows again"
        )
