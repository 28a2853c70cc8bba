"""A dark region around a fixed point of every frame of a cube, as PNG masks: something to track where nobody drew outlines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.errors import RequestError
from pipelines.files import replacing

ABOVE = 255  # of the masks' PNG files: the region


@dataclass(frozen=True)
class DarkRegion:
    """The pixels connected to `seed_yx` that are darker than `below` after a Gaussian blur of `blur_px`, inside of `box`.

    box: first row, first column, one past the last row, one past the last column.
    """

    seed_yx: tuple[int, int]
    box: tuple[int, int, int, int]
    below: float
    blur_px: float

    def find(self, image_YX: np.ndarray) -> np.ndarray:
        """The region (y, x), bool; nothing where the seed itself is not dark."""
        from scipy.ndimage import gaussian_filter, label

        is_dark = gaussian_filter(image_YX.astype(np.float32), self.blur_px) < self.below
        inside = np.zeros_like(is_dark)
        top, left, bottom, right = self.box
        inside[top:bottom, left:right] = is_dark[top:bottom, left:right]
        parts_YX, _ = label(inside)
        here = parts_YX[self.seed_yx]
        return np.asarray((parts_YX == here) & (here > 0))


def write_dark_region(
    cube_uri: str, folder: Path, region: DarkRegion, progress: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """Number of frames; writes `frame_0000.png` and so on, 0 or 255, of the first band of a cube of images.

    Raises RequestError for volumes, and what `open_cube` raises.
    """
    from PIL import Image

    from pipelines.cube.store import open_cube

    cube = open_cube(cube_uri)
    if cube["image"].dims != ("time", "band", "y", "x"):
        raise RequestError(f"the cube at {cube_uri} has no frames (time, band, y, x): its axes are {cube['image'].dims}")
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(cube.sizes["time"]):
        mask_YX = region.find(cube["image"].isel(time=number, band=0).values)
        with replacing(folder / f"frame_{number:04d}.png", flush=False) as draft:
            Image.fromarray(mask_YX.astype(np.uint8) * ABOVE).save(draft, format="PNG")
        progress(number + 1, cube.sizes["time"])
    return cube.sizes["time"]
