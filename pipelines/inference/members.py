"""Members of an ensemble from a finished forecast: its distribution at the places of a correlated noise field.

    member m = the value below which the truth stays with the probability Phi(z_m)

z_m is a field of standard normal noise with the correlation of the errors in space and along the leads (`ErrorFields`). So the
members of a pixel have its distribution, and those of neighbouring pixels go together. Everything is drawn from (seed, member,
scale, lead, block of rows): the same whichever rows are asked for. Axes: K leads, J scales, R rows, W columns.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.special import ndtr

from pipelines.learning.error_distribution import ErrorDistribution
from pipelines.learning.error_fields import SCALES_PX, ErrorFields

REACH = 3  # standard deviations of the smoothing
HALO_PX = round(REACH * max(SCALES_PX))
BLOCK_ROWS = 256


def member_values(
    y_RW: np.ndarray, k: int, rows: slice, distribution: ErrorDistribution, fields: ErrorFields, seed: int, member: int
) -> np.ndarray:
    """The values of a member at lead `k` on these rows, like the forecast `y_RW` there, float32; NaN where that is NaN."""
    z_RW = noise(fields, k, rows, y_RW.shape[1], seed, member)
    return distribution.member(k, y_RW, ndtr(z_RW))


def noise(fields: ErrorFields, k: int, rows: slice, width: int, seed: int, member: int) -> np.ndarray:
    """Standard normal noise of lead `k` on these rows of a raster of this width, (R, W) float64."""
    z_RW = np.zeros((rows.stop - rows.start, width))
    for number, (scale, weight) in enumerate(zip(SCALES_PX, fields.weight_KJ[k], strict=True)):
        if weight > 0:
            z_RW += np.sqrt(weight) * smoothed(_along_leads(fields, k, rows, width, (seed, member, number)), scale)
    return z_RW


def _along_leads(fields: ErrorFields, k: int, rows: slice, width: int, key: tuple[int, ...]) -> np.ndarray:
    """White noise of lead `k` with `HALO_PX` around: of each lead so much as the autoregression leaves of it."""
    z_RW, left = np.zeros((rows.stop - rows.start + 2 * HALO_PX, width + 2 * HALO_PX)), 1.0
    for lead in range(k, -1, -1):
        along = fields.along_K[lead] if lead else 0.0
        z_RW += left * np.sqrt(1 - along**2) * _white(rows, width, (*key, lead))
        left *= along
        if left == 0:
            break
    return z_RW


def _white(rows: slice, width: int, key: tuple[int, ...]) -> np.ndarray:
    """White noise of these rows with `HALO_PX` around, drawn in blocks of rows of the whole raster."""
    first, last = rows.start, rows.stop + 2 * HALO_PX  # the raster's halo begins at 0
    numbers = range(first // BLOCK_ROWS, (last - 1) // BLOCK_ROWS + 1)
    shape = BLOCK_ROWS, width + 2 * HALO_PX
    blocks = np.concatenate([np.random.default_rng((*key, number)).standard_normal(shape) for number in numbers])
    return blocks[first - numbers[0] * BLOCK_ROWS :][: last - first]


def smoothed(white_RW: np.ndarray, scale: float) -> np.ndarray:
    """The noise without its halo, smoothed by a Gaussian of `scale` pixels, with a variance of 1."""
    inside = slice(HALO_PX, -HALO_PX)
    if scale == 0:
        return white_RW[inside, inside]
    reach = round(REACH * scale)
    kernel = np.exp(-((np.arange(-reach, reach + 1) / scale) ** 2) / 2)
    kernel /= np.sqrt((kernel**2).sum())  # of each axis, so that the variance stays
    for axis in (0, 1):
        white_RW = ndimage.correlate1d(white_RW, kernel, axis=axis, mode="constant")
    found_RW: np.ndarray = white_RW[inside, inside]
    return found_RW
