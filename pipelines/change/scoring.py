"""A site of any size -> its change scores, tile by tile: every tile sees its whole halo, so the tiles are the whole.

What is computed of a window is a plain function, a network's logit or the detector's probability. Only one window is in memory.
Shapes: T dates, C channels, H rows, W columns.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipelines.change.frames import new_array
from pipelines.errors import RequestError, StateError
from pipelines.files import replacing
from pipelines.inference.tiling import window_of
from pipelines.progress import Progress
from pipelines.tiles import Tile, tile_raster

Read = Callable[[Tile], tuple[np.ndarray, np.ndarray]]
Score = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def score_site(
    read: Read,
    days_T: np.ndarray,
    shape_yx: tuple[int, int],
    score: Score,
    *,
    halo_px: tuple[int, ...] | None,
    stride_px: tuple[int, ...],
    tile_px: int,
    out_HW: np.ndarray,
    progress: Progress | None = None,
) -> None:
    """Fills `out_HW` (float32) with `score(x_TCHW, valid_THW, days_T)`; NaN where no or only one date saw the pixel.

    `read(window)` is (x_TCHW float32, valid_THW bool). A window starts at multiples of `stride_px`, where the network's cells do,
    and reaches `halo_px` beyond its tile or to the raster's edge; both are (y, x). Raises StateError where the score has another
    shape, RequestError where a score without a finite halo would need several tiles.
    """
    tiles = tile_raster(shape_yx, tile_px)
    if halo_px is None and len(tiles) > 1:
        raise RequestError(
            f"this score needs the whole raster of {shape_yx} (y, x) at once: set prediction.tile_px to at least "
            f"{max(shape_yx)}, or take a network with a finite halo"
        )
    for done, tile in enumerate(tiles, start=1):
        window = window_of(tile, halo_px or (0, 0), shape_yx, stride_px)
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


def score_file(path: Path, shape_yx: tuple[int, int], fill: Callable[[np.ndarray], None]) -> np.ndarray:
    """The scores in the `.npy` file at `path`, a memory map; `fill(out_HW)` makes them where the file is not there yet.

    The file is there as a whole or not at all; its name must identify what it was made from.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, flush=False, mark="partial") as draft:
            out_HW = new_array(draft, np.float32, shape_yx)
            fill(out_HW)
            out_HW.flush()
    score_HW: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return score_HW
