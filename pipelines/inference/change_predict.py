"""A place of any size -> its change scores, tile by tile: every tile sees its whole halo, so the tiles are the whole.

What is asked about a window is a plain function, a network's logit or the detector's probability. Only one window is in memory.
Shapes: T dates, C channels, H rows, W columns.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipelines.errors import StateError
from pipelines.inference.tiling import window_of
from pipelines.samples.change_frames import new_array
from pipelines.tiles import Tile, tile_raster

Read = Callable[[Tile], tuple[np.ndarray, np.ndarray]]
Score = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
Progress = Callable[[int, int], None]


def score_place(
    read: Read,
    days_T: np.ndarray,
    shape_yx: tuple[int, int],
    score: Score,
    *,
    halo_px: int,
    stride_px: int,
    tile_px: int,
    out_HW: np.ndarray,
    progress: Progress | None = None,
) -> None:
    """Fills `out_HW` (float32) with `score(x_TCHW, valid_THW, days_T)`; NaN where no or only one date saw the pixel.

    `read(window)` is (x_TCHW float32, valid_THW bool). A window starts at multiples of `stride_px`, where the network's cells do,
    and reaches `halo_px` beyond its tile or to the raster's edge. Raises StateError where the score has another shape.
    """
    tiles = tile_raster(shape_yx, tile_px)
    for done, tile in enumerate(tiles, start=1):
        window = aligned_window(tile, halo_px, stride_px, shape_yx)
        x_TCHW, valid_THW = read(window)
        rows, columns = tile.within(window)
        seen_HW = np.count_nonzero(valid_THW[:, rows, columns], axis=0) >= 2
        if not seen_HW.any():
            out_HW[tile.rows, tile.columns] = np.nan
        else:
            score_HW = score(x_TCHW, valid_THW, days_T)
            if score_HW.shape != window.shape_yx:
                raise StateError(f"the score of a window of {window.shape_yx} (y, x) has shape {score_HW.shape}")
            out_HW[tile.rows, tile.columns] = np.where(seen_HW, score_HW[rows, columns], np.nan)
        if progress is not None:
            progress(done, len(tiles))


def aligned_window(tile: Tile, halo_px: int, stride_px: int, shape_yx: tuple[int, int]) -> Tile:
    """`window_of` with its first row and column moved up and left to multiples of `stride_px`."""
    window = window_of(tile, halo_px, shape_yx)
    return Tile(window.row0 - window.row0 % stride_px, window.row1, window.col0 - window.col0 % stride_px, window.col1)


def score_file(path: Path, shape_yx: tuple[int, int], fill: Callable[[np.ndarray], None]) -> np.ndarray:
    """The scores in the `.npy` file at `path`, a memory map; `fill(out_HW)` makes them where the file is not there yet.

    The file is there as a whole or not at all; its name must tell what it was made from.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}")
        out_HW = new_array(partial, np.float32, shape_yx)
        fill(out_HW)
        out_HW.flush()
        partial.replace(path)
    return np.load(path, mmap_mode="r", allow_pickle=False)
