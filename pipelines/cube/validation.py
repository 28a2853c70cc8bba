"""Validation of a slice before it is written to the cube. Every check raises SceneRefused; none changes anything."""

from dataclasses import dataclass

import numpy as np

from pipelines.errors import SceneRefused
from pipelines.scene import Band, Scene


@dataclass(frozen=True)
class ExpectedContent:
    """What the cube expects: `shape_yx` of the part that is read, the stored `dtype`, and the bands in order."""

    shape_yx: tuple[int, int]
    dtype: np.dtype
    bands: tuple[Band, ...]
    min_valid_fraction: float = 0.0


def check_scene(scene: Scene) -> None:
    """Raises SceneRefused(no-date) for a scene without id or date; a NaT could never be found again."""
    if not scene.id:
        raise SceneRefused("(no id)", "no-date", f"a scene without an id, observed at {scene.observed_utc}")
    if np.isnat(scene.observed_utc):
        raise SceneRefused(scene.id, "no-date", "its date could not be read; check the date pattern of the source")


def check_arrays(scene: Scene, image_BYX: np.ndarray, valid_YX: np.ndarray, expected: ExpectedContent) -> None:
    """Raises SceneRefused unless shape, bands and dtype are the cube's; nothing is cast or reshaped silently."""
    if image_BYX.ndim != 3 or image_BYX.shape[0] != len(expected.bands):
        names = ", ".join(band.name for band in expected.bands)
        raise SceneRefused(
            scene.id, "missing-band", f"the cube has {len(expected.bands)} bands ({names}), read {image_BYX.shape}"
        )
    if image_BYX.shape[1:] != expected.shape_yx or valid_YX.shape != expected.shape_yx:
        raise SceneRefused(
            scene.id,
            "wrong-grid",
            f"the cube's grid has {expected.shape_yx} pixels (y, x), read {image_BYX.shape[1:]} with a mask of {valid_YX.shape}",
        )
    if image_BYX.dtype != expected.dtype:
        raise SceneRefused(scene.id, "wrong-dtype", f"the cube stores {expected.dtype}, the scene is {image_BYX.dtype}")
    if valid_YX.dtype != np.bool_:
        raise SceneRefused(scene.id, "wrong-dtype", f"the mask must be bool, it is {valid_YX.dtype}")


def check_content(scene: Scene, has_data: bool, valid_px: int, total_px: int, min_valid_fraction: float) -> None:
    """Raises SceneRefused(all-nodata, all-cloud) without data, or with a valid fraction below the minimum."""
    if not has_data:
        raise SceneRefused(scene.id, "all-nodata", "every pixel on the cube's grid is nodata")
    fraction = valid_px / total_px
    if valid_px == 0:
        raise SceneRefused(scene.id, "all-cloud", "no pixel is usable (quality mask and valid range)")
    if fraction < min_valid_fraction:
        raise SceneRefused(
            scene.id,
            "all-cloud",
            f"{fraction:.2%} of the pixels are usable, cube.min_valid_fraction requires {min_valid_fraction:.2%}",
        )


def has_data(image_BYX: np.ndarray, bands: tuple[Band, ...]) -> bool:
    """True if any pixel of any band is neither nodata nor NaN."""
    for band, image_YX in zip(bands, image_BYX, strict=True):
        is_seen = np.isfinite(image_YX) if image_YX.dtype.kind == "f" else np.ones((), bool)
        if band.nodata is not None and not np.isnan(band.nodata):
            is_seen = is_seen & (image_YX != band.nodata)
        if is_seen.any():
            return True
    return False
