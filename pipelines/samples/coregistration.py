"""Co-registration: the subpixel shift of a later date against the first, and its correction.

Pairs that are delivered as registered can be shifted by up to a pixel, and every edge then looks like change. The shift is
estimated by phase correlation (scikit-image, https://scikit-image.org/docs/stable/api/skimage.registration.html) of
gradient magnitudes, which do not depend on the sign of a change, per block and band. The median is used, so that clouds,
real change and blocks without edges have no effect. One shift per date, since the whole scene is shifted.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion, gaussian_filter, gaussian_gradient_magnitude

UPSAMPLING = 20  # steps of 1/20 pixel, far below the precision of the interpolation
BLOCK_PX = 120  # about 1 km at 10 m: enough edges, small enough that a cloud affects few blocks
MIN_BLOCK_PX = 32
MIN_BLOCK_SEEN = 0.3  # fraction of a block's pixels that must be valid on both dates
ROUNDS = 3  # a shift found on the moved image is added: the first estimate is biased towards 0
EDGE_PX = 2  # gradients this near to invalid pixels come from the mask, not the image
SMALLEST_PX = 0.05  # smaller shifts are noise of the estimate; interpolation would only blur
SMALLEST_GAIN = 0.001  # increase of the correlation; smoothing by interpolation alone gives less than this
HALO_PX = 2  # the cubic kernel extends two pixels beyond the shifted position

ShiftYX = tuple[float, float]  # down, right; pixels
Taps = tuple[float, float, float, float]  # weights of four neighbours


@dataclass(frozen=True)
class Shift:
    """Shift (down, right; pixels of the first date) that aligns a date with the first one.

    `gain` is the increase of the correlation of both dates, mean of the bands. If nothing is moved, shift and gain are 0 and
    `note` states the reason.
    """

    yx: ShiftYX = (0.0, 0.0)
    gain: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Pair:
    """One window of two dates: `first_CHW`, `later_CHW` float32, 0 where invalid, and the validity of each."""

    first_CHW: np.ndarray
    later_CHW: np.ndarray
    first_seen_HW: np.ndarray
    later_seen_HW: np.ndarray

    def moved(self, shift_yx: ShiftYX) -> Pair:
        """The pair with its later date moved."""
        later_CHW, seen_HW = move(self.later_CHW, self.later_seen_HW, shift_yx)
        return Pair(self.first_CHW, later_CHW, self.first_seen_HW, seen_HW)

    def seen_HW(self, margin_px: int) -> np.ndarray:
        """Pixels that are valid on both dates, as all are within `margin_px` of them."""
        seen_HW: np.ndarray = binary_erosion(self.first_seen_HW & self.later_seen_HW, iterations=margin_px)
        return seen_HW


def estimate_shift(pairs: Sequence[Pair], max_shift_px: float = 2.0) -> Shift:
    """The shift of the later date from all windows `pairs` (of one site); 0 if it does not improve the correlation."""
    dy = dx = 0.0
    for _ in range(ROUNDS):
        shifts_N2 = np.array([shift for pair in pairs for shift in _block_shifts(pair.moved((dy, dx)))])
        if not len(shifts_N2):
            return Shift(note="too few pixels are valid on both dates to estimate a shift; not moved")
        step_yx = np.median(shifts_N2, axis=0)
        dy, dx = dy + float(step_yx[0]), dx + float(step_yx[1])
        if max(abs(dy), abs(dx)) > max_shift_px:
            text = f"({dy:+.2f}, {dx:+.2f}) px"
            return Shift(note=f"the estimated shift of {text} exceeds max_shift_px {max_shift_px:g}; not moved")
        if np.abs(step_yx).max() < 1 / UPSAMPLING:
            break
    if max(abs(dy), abs(dx)) < SMALLEST_PX:
        return Shift(note="is aligned with the first date")
    gain = _correlation(pairs, (dy, dx)) - _correlation(pairs, (0.0, 0.0))
    if not gain > SMALLEST_GAIN:
        return Shift(note=f"a shift of ({dy:+.2f}, {dx:+.2f}) px gains nothing; not moved")
    return Shift((dy, dx), float(gain))


def _block_shifts(pair: Pair) -> list[np.ndarray]:
    """The shift (2,) of every block and band with enough valid pixels and edges."""
    seen_HW = pair.seen_HW(EDGE_PX)
    taper_HW = gaussian_filter(seen_HW.astype(np.float32), 2.0) * seen_HW  # a hard mask would correlate with itself at shift 0
    edges = list(zip(_edges(pair.first_CHW), _edges(pair.later_CHW), strict=True))
    cuts = []
    for length in seen_HW.shape:
        at = np.linspace(0, length, max(1, round(length / BLOCK_PX)) + 1).round().astype(int)
        cuts.append([slice(int(a), int(b)) for a, b in itertools.pairwise(at) if b - a >= MIN_BLOCK_PX])
    blocks = [block for block in itertools.product(*cuts) if seen_HW[block].mean() >= MIN_BLOCK_SEEN]
    found = (_block_shift(first[block], later[block], taper_HW[block]) for block in blocks for first, later in edges)
    return [shift_yx for shift_yx in found if shift_yx is not None]


def _edges(image_CHW: np.ndarray) -> list[np.ndarray]:
    """Gradient magnitude of each band, float32."""
    return [gaussian_gradient_magnitude(band_HW.astype(np.float32), 1.0) for band_HW in image_CHW]


def _block_shift(first_HW: np.ndarray, later_HW: np.ndarray, taper_HW: np.ndarray) -> np.ndarray | None:
    from skimage.registration import phase_cross_correlation

    height, width = first_HW.shape
    weight_HW = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]) * taper_HW
    windows = []
    for image_HW in (first_HW, later_HW):
        mean = float((image_HW * weight_HW).sum() / weight_HW.sum())
        windowed_HW = (image_HW - mean) * weight_HW
        if not np.abs(windowed_HW).max() > 1e-9 * max(abs(mean), 1e-30):
            return None  # constant values: no edge to estimate a shift from
        windows.append(windowed_HW)
    shift_yx, _, _ = phase_cross_correlation(*windows, upsample_factor=UPSAMPLING, normalization=None)
    return np.asarray(shift_yx)


def _correlation(pairs: Sequence[Pair], shift_yx: ShiftYX) -> float:
    """Pearson's correlation of the dates after the shift, mean over bands and windows, of slightly smoothed images.

    The images are smoothed first, so that the smoothing by interpolation does not raise the correlation.
    """
    found = []
    for pair in pairs:
        moved = pair.moved(shift_yx)
        # the same pixels whatever the shift, and none whose smoothing includes invalid pixels
        seen_HW = pair.seen_HW(EDGE_PX + HALO_PX + 2) & moved.later_seen_HW
        if np.count_nonzero(seen_HW) < MIN_BLOCK_PX**2:
            continue
        for bands in zip(moved.first_CHW, moved.later_CHW, strict=True):
            a, b = (gaussian_filter(band_HW.astype(np.float32), 1.0, truncate=2.0)[seen_HW] for band_HW in bands)
            spread = float(a.std() * b.std())
            if spread > 0:
                found.append(float(((a - a.mean()) * (b - b.mean())).mean()) / spread)
    return float(np.mean(found)) if found else 0.0


def likeness(pairs: Sequence[Pair], shift_yx: ShiftYX) -> float | None:
    """Correlation of the edges of both dates over all windows after the shift, in the band with the highest one.

    Crops of OSCD give 0.3 and more, however much was built; different sites less than 0.1. None: too few valid pixels.
    """
    both = []
    for pair in (pair.moved(shift_yx) for pair in pairs):
        seen_HW = pair.seen_HW(EDGE_PX)
        both.append([[edges_HW[seen_HW] for edges_HW in _edges(image)] for image in (pair.first_CHW, pair.later_CHW)])
    a_CN, b_CN = np.concatenate([np.array(edges) for edges in both], axis=2).astype(np.float64)
    if a_CN.shape[1] < MIN_BLOCK_PX**2:
        return None
    a_CN, b_CN = (edges_CN - edges_CN.mean(1, keepdims=True) for edges_CN in (a_CN, b_CN))
    length_C = np.sqrt((a_CN**2).sum(1) * (b_CN**2).sum(1))
    return float(((a_CN * b_CN).sum(1) / np.where(length_C > 0, length_C, 1)).max())


def halo_px(shift_yx: ShiftYX) -> int:
    """Pixels around a window that `move` needs."""
    largest = max(abs(shift_yx[0]), abs(shift_yx[1]))
    return 0 if largest == 0 else int(np.ceil(largest)) + HALO_PX


def move(x_CHW: np.ndarray, seen_HW: np.ndarray, shift_yx: ShiftYX) -> tuple[np.ndarray, np.ndarray]:
    """(x_CHW float32, seen_HW bool): the image moved down and right by `shift_yx` pixels, 0 where invalid.

    Cubic convolution (Keys 1981, a = -1/2) where all 4 x 4 pixels are valid, else linear where the nearest 2 x 2 are, else
    invalid; pixels outside the window are invalid. A window with `halo_px` around it gives the same pixels as the whole.
    """
    x_CHW = np.where(seen_HW, x_CHW, np.float32(0)).astype(np.float32, copy=False)
    if shift_yx == (0.0, 0.0):
        return x_CHW, seen_HW.copy()
    steps = [int(np.floor(-s)) for s in shift_yx]
    fractions = [float(-s - step) for s, step in zip(shift_yx, steps, strict=True)]
    cubic_CHW, whole_HW = _interpolate(x_CHW, seen_HW, steps, [_cubic(f) for f in fractions])
    linear_CHW, near_HW = _interpolate(x_CHW, seen_HW, steps, [(0.0, 1 - f, f, 0.0) for f in fractions])
    moved_CHW = np.where(whole_HW, cubic_CHW, np.where(near_HW, linear_CHW, np.float32(0)))
    return moved_CHW, near_HW | whole_HW


def _cubic(f: float) -> Taps:
    """Weights of the pixels at -1, 0, 1, 2 for a position `f` after pixel 0 (Keys 1981, eq. 15)."""
    before, after = ((-0.5 * f + 1) * f - 0.5) * f, (0.5 * f - 0.5) * f * f
    return before, (1.5 * f - 2.5) * f * f + 1, ((-1.5 * f + 2) * f + 0.5) * f, after


def _interpolate(x_CHW: np.ndarray, seen_HW: np.ndarray, steps: list[int], taps: list[Taps]) -> tuple[np.ndarray, np.ndarray]:
    """Four taps down, then four across; valid where every pixel with a weight is."""
    for axis in (-2, -1):
        summed_CHW, all_HW = np.zeros_like(x_CHW), np.ones_like(seen_HW)
        for at, weight in zip((-1, 0, 1, 2), taps[axis], strict=True):
            if weight != 0:
                summed_CHW += np.float32(weight) * _take(x_CHW, steps[axis] + at, axis)
                all_HW &= _take(seen_HW, steps[axis] + at, axis)
        x_CHW, seen_HW = summed_CHW, all_HW
    return x_CHW, seen_HW


def _take(array: np.ndarray, step: int, axis: int) -> np.ndarray:
    """`array[i + step]` along the axis; 0 or False outside."""
    index = np.arange(array.shape[axis]) + step
    taken = np.moveaxis(array.take(index, axis, mode="clip"), axis, -1)  # of a copy
    taken[..., (index < 0) | (index >= array.shape[axis])] = 0
    return np.moveaxis(taken, -1, axis)
