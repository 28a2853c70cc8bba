"""Intensities of the visits of a patient made comparable, and smoothing within the brain. Arrays (Z, Y, X), spacing in mm."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pipelines.errors import RequestError

TO_SPREAD = 1.4826  # times the median absolute deviation: the standard deviation of a normal distribution
LEAST_BRAIN = 1000  # voxels
TRUNCATE = 3.0  # standard deviations, of Gaussian filters


def centre_and_spread(values_N: np.ndarray) -> tuple[float, float]:
    """Median, and the standard deviation that the median absolute deviation stands for; few outliers change neither."""
    centre = float(np.median(values_N))
    return centre, TO_SPREAD * float(np.median(np.abs(values_N - centre)))


def standardise(image_ZYX: np.ndarray, brain_ZYX: np.ndarray, visit: str) -> np.ndarray:
    """The image in robust standard deviations from the median of the brain, float32; 0 outside of it and where there is no value.

    MR intensities have no unit: a scanner's gain and offset are other ones at every visit. Raises RequestError, which names the
    `visit`, where the brain has no contrast.
    """
    inside = brain_ZYX & np.isfinite(image_ZYX)
    if np.count_nonzero(inside) < LEAST_BRAIN:
        raise RequestError(
            f"{visit}: fewer than {LEAST_BRAIN} voxels of the brain have values; look at the mask and the registration"
        )
    centre, spread = centre_and_spread(image_ZYX[inside])
    if not spread > 0:
        raise RequestError(f"{visit}: more than half of the brain has one and the same value; this is a mask, or not an image")
    return np.where(inside, (np.where(inside, image_ZYX, centre) - centre) / spread, 0).astype(np.float32)


def smooth(image_ZYX: np.ndarray, weight_ZYX: np.ndarray, sigma_mm: float, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Gaussian mean of the voxels with weight (float32, 0 to 1), 0 where none is near: the brain's edge does not bleed in."""
    sigma = [sigma_mm / step for step in spacing_mm]
    total = ndimage.gaussian_filter(image_ZYX * weight_ZYX, sigma, mode="constant", truncate=TRUNCATE)
    share = ndimage.gaussian_filter(weight_ZYX, sigma, mode="constant", truncate=TRUNCATE)
    smoothed: np.ndarray = np.where(share > 1e-3, total / np.maximum(share, 1e-3), 0).astype(np.float32)
    return smoothed


def box_of(mask_ZYX: np.ndarray, margin: int = 3) -> tuple[slice, ...]:
    """The part of the grid that holds all True voxels, with a margin; all of it where there is none."""
    found = ndimage.find_objects(mask_ZYX.astype(np.int8))
    if not found:
        return tuple(slice(0, size) for size in mask_ZYX.shape)
    return tuple(
        slice(max(part.start - margin, 0), min(part.stop + margin, size))
        for part, size in zip(found[0], mask_ZYX.shape, strict=True)
    )


def foreground(images_TZYX: np.ndarray) -> np.ndarray:
    """Where every visit shows more than air (Otsu of the mean, largest part, holes filled), for patients without a brain mask.

    Skull, scalp and eyes are in it: false changes there are to be expected.
    """
    from skimage.filters import threshold_otsu
    from skimage.measure import label

    is_seen: np.ndarray = np.isfinite(images_TZYX).all(axis=0)
    if not is_seen.any():
        return is_seen
    mean_ZYX = np.where(is_seen, np.where(is_seen, images_TZYX, 0).mean(axis=0), 0)
    parts = label(is_seen & (mean_ZYX > threshold_otsu(mean_ZYX[is_seen])))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest = parts == int(sizes.argmax())
    filled = [ndimage.binary_fill_holes(slice_YX) for slice_YX in largest]
    found: np.ndarray = np.stack(filled) & is_seen
    return found
