"""What the networks see of a site: each date without its slow part, in units of how much the site differs by itself.

Sun, haze and season change a site slowly across the image; what was built or felled differs from its surroundings. So the mean
of the surroundings is taken from every date (`low_frequency_px` pixels across), and what is left is divided by the spread of its
difference between the first and the last date. Then one threshold means the same in every site.

Like `pipelines.change.pairs`: the spread is measured once over the whole site, so that a tile equals the whole.
Shapes: T dates, C bands, H rows, W columns.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter

from pipelines.change.pairs import Site, SiteFrame, frame_from_json, read_prepared
from pipelines.change.windows import LabelledSite
from pipelines.errors import ArtefactDamaged
from pipelines.files import naming_full_disk, replace_folder
from pipelines.samples.storage import map_file
from pipelines.tiles import Tile, tile_raster

SLOW_PX = 61  # odd; what is wider than this is season or haze
MEASURED_PX = 512
LEAST_SPREAD = 1e-6  # of values in standard deviations; a band that does not differ at all stays at 0


@dataclass(frozen=True)
class ChangeFrame:
    """The constants of a site: those of its dates (`pair`), and the spread of its quick differences per band, float64."""

    pair: SiteFrame
    spread_C: np.ndarray
    low_frequency_px: int = SLOW_PX

    @property
    def reach_px(self) -> int:
        """How far a pixel's value depends on its surroundings."""
        return self.low_frequency_px // 2

    def as_json(self) -> dict[str, Any]:
        return {"pair": self.pair.as_json(), "spread_C": self.spread_C.tolist(), "low_frequency_px": self.low_frequency_px}


def change_frame_from_json(fields: dict[str, Any]) -> ChangeFrame:
    """What `as_json` wrote."""
    return ChangeFrame(frame_from_json(fields["pair"]), np.array(fields["spread_C"], np.float64), int(fields["low_frequency_px"]))


def without_low_frequency(x_TCHW: np.ndarray, valid_THW: np.ndarray, low_frequency_px: int) -> np.ndarray:
    """x_TCHW float32 minus the mean of the usable pixels in the `low_frequency_px` squared around; 0 where not valid.

    The window ends at the array's edges, where the mean is one of fewer pixels.
    """
    out_TCHW = np.zeros(x_TCHW.shape, np.float32)
    for t, valid_HW in enumerate(valid_THW):
        weight_HW = uniform_filter(valid_HW.astype(np.float64), low_frequency_px, mode="constant")
        safe_HW = np.maximum(weight_HW, 0.5 / low_frequency_px**2)
        for c, x_HW in enumerate(x_TCHW[t]):
            mean_HW = uniform_filter(np.where(valid_HW, x_HW, 0).astype(np.float64), low_frequency_px, mode="constant") / safe_HW
            out_TCHW[t, c] = np.where(valid_HW, x_HW - mean_HW, 0)
    return out_TCHW


def measure_change_frame(site: Site, pair: SiteFrame, low_frequency_px: int = SLOW_PX) -> ChangeFrame:
    """The frame of a site whose dates are prepared with `pair`; reads it square by square.

    The spread is the standard deviation of the quick difference between first and last date over pixels seen on both.
    """
    sums = np.zeros((2, len(site.bands)))
    count = 0
    for tile in tile_raster(site.shape_yx, MEASURED_PX):
        x_TCHW, valid_THW = _read_quick(site, pair, tile, low_frequency_px)
        both_HW = valid_THW[0] & valid_THW[-1]
        difference_CN = (x_TCHW[-1] - x_TCHW[0])[:, both_HW].astype(np.float64)
        sums += difference_CN.sum(axis=1), (difference_CN**2).sum(axis=1)
        count += int(both_HW.sum())
    mean_C = sums[0] / max(count, 1)
    spread_C = np.sqrt(np.maximum(sums[1] / max(count, 1) - mean_C**2, 0))
    return ChangeFrame(pair, np.where(spread_C > LEAST_SPREAD, spread_C, 1.0), low_frequency_px)


def _read_quick(site: Site, pair: SiteFrame, tile: Tile, low_frequency_px: int) -> tuple[np.ndarray, np.ndarray]:
    around = tile.grown(low_frequency_px // 2, site.shape_yx)
    x_TCHW, valid_THW = read_prepared(site, pair, around)
    rows, columns = tile.within(around)
    return without_low_frequency(x_TCHW, valid_THW, low_frequency_px)[..., rows, columns], valid_THW[..., rows, columns]


def read_frames(site: Site, frame: ChangeFrame, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
    """(x_TCHW float32, 0 where not valid; valid_THW bool) of `tile`: what networks compare, the same as of the whole."""
    x_TCHW, valid_THW = _read_quick(site, frame.pair, tile, frame.low_frequency_px)
    return x_TCHW / frame.spread_C.astype(np.float32)[:, None, None], valid_THW


# ---------------------------------------------------------------- on disk

ARRAYS = ("x", "valid", "label")
ABOUT = "site.json"


def write_site(site: Site, frame: ChangeFrame, label_HW: np.ndarray, folder: Path, about: dict[str, Any]) -> LabelledSite:
    """The site decoded once into memory maps in `folder`, which is there as a whole or not at all.

    `about` is kept beside it (what it was made from) and comes back from `open_site`.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    dates, (height, width) = len(site.days_T), site.shape_yx
    shape = (dates, len(site.bands), height, width)
    x_TCHW = new_array(partial / "x.npy", np.float32, shape)
    valid_THW = new_array(partial / "valid.npy", bool, (dates, height, width))
    for tile in tile_raster(site.shape_yx, MEASURED_PX):
        x_TCHW[..., tile.rows, tile.columns], valid_THW[..., tile.rows, tile.columns] = read_frames(site, frame, tile)
    x_TCHW.flush()
    valid_THW.flush()
    np.save(partial / "label.npy", label_HW)
    content = {"name": site.name, "days_T": site.days_T.tolist(), "frame": frame.as_json(), "about": about}
    (partial / ABOUT).write_text(json.dumps(content), encoding="utf-8")
    replace_folder(partial, folder)
    return open_site(folder)


def new_array(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    """A new `.npy` memory map of zeros to write into. Its blocks are asked for first: a full disk is StorageFull, not SIGBUS."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with naming_full_disk(path), path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def open_site(folder: Path) -> LabelledSite:
    """What `write_site` wrote, as memory maps. Raises ArtefactDamaged."""
    try:
        content = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        arrays = [map_file(folder / f"{name}.npy") for name in ARRAYS]
        return LabelledSite(content["name"], arrays[0], arrays[1], np.array(content["days_T"], np.float64), arrays[2])
    except (OSError, ValueError, KeyError) as e:
        raise ArtefactDamaged(
            f"{folder}: the decoded site cannot be read ({e}); delete it and run `driftline train CONFIG`"
        ) from e


def frame_of(folder: Path) -> ChangeFrame:
    """The constants of a decoded site. Raises ArtefactDamaged."""
    try:
        return change_frame_from_json(json.loads((folder / ABOUT).read_text(encoding="utf-8"))["frame"])
    except (OSError, ValueError, KeyError) as e:
        raise ArtefactDamaged(
            f"{folder}: the decoded site cannot be read ({e}); delete it and run `driftline train CONFIG`"
        ) from e


def about_site(folder: Path) -> dict[str, Any] | None:
    """What the site was made from, as given to `write_site`; None where there is no whole site."""
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["about"]
        return about
    except (OSError, ValueError, KeyError):
        return None
