"""What sources of pictures without a position share: bands that are grey or colours, the frame, times without a date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipelines.calendar import UNKNOWN_ORIGIN
from pipelines.errors import RequestError, SceneRefused
from pipelines.grid import Grid, ImagePlane
from pipelines.scene import Asset, Band, Scene
from pipelines.sources.frame_mask import NO_MASK, FrameMask

COMPONENTS = ("gray", "red", "green", "blue")


@dataclass(frozen=True)
class ImageRequest:
    """What is asked of pictures: `components[i]` (gray, red, green or blue) becomes `bands[i]`.

    `start`: the moment of the first frame (UTC), where it is known. `pixel_mm`: size of a pixel (y, x); None: not known.
    """

    bands: tuple[Band, ...]
    components: tuple[str, ...]
    mask: FrameMask = NO_MASK
    pixel_mm: tuple[float, float] | None = None
    start: np.datetime64 | None = None

    def grid(self, shape_yx: tuple[int, int]) -> Grid:
        """The grid of frames of (rows, columns), from their upper left corner."""
        height, width = self.pixel_mm or (1.0, 1.0)
        return Grid(ImagePlane("mm" if self.pixel_mm else "px"), (width, 0.0, 0.0, 0.0, height, 0.0), shape_yx)

    @property
    def origin(self) -> np.datetime64:
        """The moment of the first frame, datetime64[ns]."""
        return UNKNOWN_ORIGIN if self.start is None else self.start.astype("datetime64[ns]")

    def scene(self, number: int, moment: np.datetime64, asset: Asset, width: int = 5) -> Scene:
        """The scene of a frame: its id and label are its number, since names of files may name a person."""
        assets = {band.name: asset for band in self.bands} | self.mask.assets
        return Scene(f"f{number:0{width}d}", moment, assets, label=f"frame {number}")

    def choose(self, planes_BYX: np.ndarray, held: Sequence[str], names: Sequence[str], scene: Scene, grid: Grid) -> np.ndarray:
        """The planes of the bands `names`, without what is masked. Raises SceneRefused(missing-band, wrong-grid)."""
        if planes_BYX.shape[1:] != grid.shape:
            sizes = f"{planes_BYX.shape[1]} x {planes_BYX.shape[2]} pixels, the cube {grid.shape[0]} x {grid.shape[1]}"
            detail = f"the frame has {sizes} (rows x columns); frames are not resampled: cut or scale it first"
            raise SceneRefused(scene.id, "wrong-grid", detail)
        wanted = dict(zip((band.name for band in self.bands), self.components, strict=True))
        missing = [wanted[name] for name in names if wanted[name] not in held]
        if missing:
            raise SceneRefused(scene.id, "missing-band", f"the frame has {', '.join(held)}, not {', '.join(missing)}")
        return self.mask.apply(planes_BYX[[list(held).index(wanted[name]) for name in names]])


def grey_of(planes_BYX: np.ndarray) -> np.ndarray:
    """(y, x) luma of red, green and blue (ITU-R BT.601), rounded, same dtype."""
    grey_YX = np.tensordot(np.array([0.299, 0.587, 0.114]), planes_BYX.astype(np.float64), axes=1)
    is_whole = planes_BYX.dtype.kind in "iu"
    luma: np.ndarray = (np.round(grey_YX) if is_whole else grey_YX).astype(planes_BYX.dtype)
    return luma


def check_times(times_ns: Sequence[int], where: str, remedy: str) -> None:
    """Raises RequestError unless the times of the frames ascend."""
    for number, (before, after) in enumerate(pairwise(times_ns), start=1):
        if after <= before:
            kind = "the same time as" if after == before else "an earlier time than"
            raise RequestError(f"{where}: frame {number} has {kind} frame {number - 1} ({after / 1e9:.6f} s); {remedy}")


def interval_notes(times_ns: Sequence[int]) -> list[str]:
    """A line where the frames are not evenly spaced in time."""
    steps: np.ndarray = np.diff(np.asarray(times_ns, np.int64)).astype(np.float64)
    if len(steps) < 2:
        return []
    usual = float(np.median(steps))
    gaps = int((steps > 1.5 * usual).sum())
    if float(np.abs(steps - usual).max()) <= max(0.01 * usual, 1e6):  # a millisecond: the resolution of many containers
        return []
    text = f"frames are {steps.min() / 1e9:.6g} to {steps.max() / 1e9:.6g} s apart (median {usual / 1e9:.6g} s)"
    return [text + (f"; {gaps} gaps are longer than 1.5 times the median" if gaps else "; their own times are kept")]
