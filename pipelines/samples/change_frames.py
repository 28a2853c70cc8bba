"""What the networks see of a place: each date without its slow part, in units of how much the place differs by itself.

Sun, haze and season change a place slowly across the image; what was built or felled differs from its surroundings. So the mean
of the surroundings is taken from every date (`slow_px` pixels across), and what is left is divided by the spread of its
difference between the first and the last date. Then one threshold means the same in every place.

Like `pipelines.samples.pairs`: the spread is measured once over the whole place, so that a tile equals the whole.
Shapes: T dates, C bands, H rows, W columns.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter

from pipelines.errors import ArtefactDamaged
from pipelines.samples.change_windows import LabelledPlace
from pipelines.samples.pairs import Place, PlaceFrame, frame_from_json, read_prepared
from pipelines.samples.storage import full_disk, map_file
from pipelines.tiles import Tile, tile_raster

SLOW_PX = 61  # odd; what is wider than this is season or haze
MEASURED_PX = 512
LEAST_SPREAD = 1e-6  # of values in standard deviations; a band that does not differ at all stays at 0


@dataclass(frozen=True)
class ChangeFrame:
    """The constants of a place: those of its dates (`pair`), and the spread of its quick differences per band, float64."""

    pair: PlaceFrame
    spread_C: np.ndarray
    slow_px: int = SLOW_PX

    @property
    def reach_px(self) -> int:
        """How far a pixel's value depends on its surroundings."""
        return self.slow_px // 2

    def as_json(self) -> dict:
        return {"pair": self.pair.as_json(), "spread_C": self.spread_C.tolist(), "slow_px": self.slow_px}


def change_frame_from_json(fields: dict) -> ChangeFrame:
    """What `as_json` wrote."""
    return ChangeFrame(frame_from_json(fields["pair"]), np.array(fields["spread_C"], np.float64), int(fields["slow_px"]))


def without_slow_part(x_TCHW: np.ndarray, valid_THW: np.ndarray, slow_px: int) -> np.ndarray:
    """x_TCHW float32 minus the mean of the usable pixels in the `slow_px` squared around; 0 where not valid.

    The window ends at the array's edges, where the mean is one of fewer pixels.
    """
    out_TCHW = np.zeros(x_TCHW.shape, np.float32)
    for t, valid_HW in enumerate(valid_THW):
        weight_HW = uniform_filter(valid_HW.astype(np.float64), slow_px, mode="constant")
        safe_HW = np.maximum(weight_HW, 0.5 / slow_px**2)
        for c, x_HW in enumerate(x_TCHW[t]):
            mean_HW = uniform_filter(np.where(valid_HW, x_HW, 0).astype(np.float64), slow_px, mode="constant") / safe_HW
            out_TCHW[t, c] = np.where(valid_HW, x_HW - mean_HW, 0)
    return out_TCHW


def measure_change_frame(place: Place, pair: PlaceFrame, slow_px: int = SLOW_PX) -> ChangeFrame:
    """The frame of a place whose dates are prepared with `pair`; reads it square by square.

    The spread is the standard deviation of the quick difference between first and last date over pixels seen on both.
    """
    sums = np.zeros((2, len(place.bands)))
    count = 0
    for tile in tile_raster(place.shape_yx, MEASURED_PX):
        x_TCHW, valid_THW = _read_quick(place, pair, tile, slow_px)
        both_HW = valid_THW[0] & valid_THW[-1]
        difference_CN = (x_TCHW[-1] - x_TCHW[0])[:, both_HW].astype(np.float64)
        sums += difference_CN.sum(axis=1), (difference_CN**2).sum(axis=1)
        count += int(both_HW.sum())
    mean_C = sums[0] / max(count, 1)
    spread_C = np.sqrt(np.maximum(sums[1] / max(count, 1) - mean_C**2, 0))
    return ChangeFrame(pair, np.where(spread_C > LEAST_SPREAD, spread_C, 1.0), slow_px)


def _read_quick(place: Place, pair: PlaceFrame, tile: Tile, slow_px: int) -> tuple[np.ndarray, np.ndarray]:
    around = tile.grown(slow_px // 2, place.shape_yx)
    x_TCHW, valid_THW = read_prepared(place, pair, around)
    rows, columns = tile.within(around)
    return without_slow_part(x_TCHW, valid_THW, slow_px)[..., rows, columns], valid_THW[..., rows, columns]


def read_frames(place: Place, frame: ChangeFrame, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
    """(x_TCHW float32, 0 where not valid; valid_THW bool) of `tile`: what networks compare, the same as of the whole."""
    x_TCHW, valid_THW = _read_quick(place, frame.pair, tile, frame.slow_px)
    return x_TCHW / frame.spread_C.astype(np.float32)[:, None, None], valid_THW


# ---------------------------------------------------------------- on disk

ARRAYS = ("x", "valid", "label")
ABOUT = "place.json"


def write_place(place: Place, frame: ChangeFrame, label_HW: np.ndarray, folder: Path, about: dict) -> LabelledPlace:
    """The place decoded once into memory maps in `folder`, which is there as a whole or not at all.

    `about` is kept beside it (what it was made from) and comes back from `open_place`.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    dates, (height, width) = len(place.days_T), place.shape_yx
    shape = (dates, len(place.bands), height, width)
    x_TCHW = new_array(partial / "x.npy", np.float32, shape)
    valid_THW = new_array(partial / "valid.npy", bool, (dates, height, width))
    for tile in tile_raster(place.shape_yx, MEASURED_PX):
        x_TCHW[..., tile.rows, tile.columns], valid_THW[..., tile.rows, tile.columns] = read_frames(place, frame, tile)
    x_TCHW.flush()
    valid_THW.flush()
    np.save(partial / "label.npy", label_HW)
    content = {"name": place.name, "days_T": place.days_T.tolist(), "frame": frame.as_json(), "about": about}
    (partial / ABOUT).write_text(json.dumps(content), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return open_place(folder)


def new_array(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    """A new `.npy` memory map of zeros to write into. Its blocks are asked for first: a full disk is StorageFull, not SIGBUS."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as e:
        raise full_disk(e, path) from e
    return array


def open_place(folder: Path) -> LabelledPlace:
    """What `write_place` wrote, as memory maps. Raises ArtefactDamaged."""
    try:
        content = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        arrays = [map_file(folder / f"{name}.npy") for name in ARRAYS]
        return LabelledPlace(content["name"], arrays[0], arrays[1], np.array(content["days_T"], np.float64), arrays[2])
    except (OSError, ValueError, KeyError) as e:
        raise ArtefactDamaged(
            f"{folder}: the decoded place cannot be read ({e}); delete it and run `driftline train CONFIG`"
        ) from e


def frame_of(folder: Path) -> ChangeFrame:
    """The constants of a decoded place. Raises ArtefactDamaged."""
    try:
        return change_frame_from_json(json.loads((folder / ABOUT).read_text(encoding="utf-8"))["frame"])
    except (OSError, ValueError, KeyError) as e:
        raise ArtefactDamaged(
            f"{folder}: the decoded place cannot be read ({e}); delete it and run `driftline train CONFIG`"
        ) from e


def about_place(folder: Path) -> dict | None:
    """What `write_place` was told the place was made from; None where there is no whole place."""
    try:
        return json.loads((folder / ABOUT).read_text(encoding="utf-8"))["about"]
    except (OSError, ValueError, KeyError):
        return None
