"""Co-registration: the subpixel shift of a later date against the first, and its correction.

Pairs that are delivered as registered can be shifted by up to a pixel, and every edge then looks like change. The shift is
estimated by phase correlation (scikit-image, https://scikit-image.org/docs/stable/api/skimage.registration.html) of
gradient magnitudes, which do not depend on the sign of a change, per block and band. The median is used, so that clouds,
real change and blocks without edges have no effect. One shift per date, since the whole scene is shifted.
"""

import itertools
from dataclasses import dataclass

import numpy as np

UPSAMPLING = 20  # steps of 1/20 pixel, far below the precision of the interpolation
BLOCK_PX = 120  # about 1 km at 10 m: enough edges, small enough that a cloud affects few blocks
MIN_BLOCK_PX = 32
MIN_BLOCK_SEEN = 0.3  # fraction of a block's pixels that must be valid on both dates
ROUNDS = 3  # a shift found on the moved image is added: the first estimate is biased towards 0
EDGE_PX = 2  # gradients this near to invalid pixels come from the mask, not the image
SMALLEST_PX = 0.05  # smaller shifts are noise of the estimate; interpolation would only blur
SMALLEST_GAIN = 0.001  # increase of the correlation; smoothing by interpolation alone gives less than this
HALO_PX = 2  # the cubic kernel extends two pixels beyond the shifted position


@dataclass(frozen=True)
class Shift:
    """Shift (down, right; pixels of the first date) that aligns a date with the first one.

    `gain` is the increase of the correlation of both dates, mean of the bands. If nothing is moved, shift and gain are 0 and
    `note` states the reason.
    """

    dy_px: float
    dx_px: float
    gain: float
    note: str = ""

    @property
    def yx(self) -> tuple[float, float]:
        return self.dy_px, self.dx_px


@dataclass(frozen=True)
class Pair:
    """One window of two dates: `first_CHW`, `later_CHW` float32, 0 where invalid, and the validity of each."""

    first_CHW: np.ndarray
    later_CHW: np.ndarray
    first_seen_HW: np.ndarray
    later_seen_HW: np.ndarray


def estimate_shift(pairs: list[Pair], max_shift_px: float = 2.0) -> Shift:
    """The shift of the later date from all windows `pairs` (of one site); 0 if it does not improve the correlation."""
    found = np.zeros(2)
    for _ in range(ROUNDS):
        shifts_N2 = np.concatenate([_block_shifts(_moved(pair, found)) for pair in pairs] or [np.zeros((0, 2))])
        if not len(shifts_N2):
            return Shift(0.0, 0.0, 0.0, "too few pixels are valid on both dates to estimate a shift; not moved")
        step = np.median(shifts_N2, axis=0)
        found = found + step
        if np.abs(found).max() > max_shift_px:
            text = f"({found[0]:+.2f}, {found[1]:+.2f}) px"
            return Shift(0.0, 0.0, 0.0, f"the estimated shift of {text} exceeds max_shift_px {max_shift_px:g}; not moved")
        if np.abs(step).max() < 1 / UPSAMPLING:
            break
    if np.abs(found).max() < SMALLEST_PX:
        return Shift(0.0, 0.0, 0.0, "is aligned with the first date")
    gain = _correlation(pairs, found) - _correlation(pairs, np.zeros(2))
    if not gain > SMALLEST_GAIN:
        return Shift(0.0, 0.0, 0.0, f"a shift of ({found[0]:+.2f}, {found[1]:+.2f}) px gains nothing; not moved")
    return Shift(float(found[0]), float(found[1]), float(gain))


def _moved(pair: Pair, shift_yx: np.ndarray) -> Pair:
    later_CHW, seen_HW = move(pair.later_CHW, pair.later_seen_HW, (float(shift_yx[0]), float(shift_yx[1])))
    return Pair(pair.first_CHW, later_CHW, pair.first_seen_HW, seen_HW)


def _block_shifts(pair: Pair) -> np.ndarray:
    """(estimates, 2): the shift of every block and band with enough valid pixels and edges."""
    from scipy.ndimage import binary_erosion, gaussian_filter

    seen_HW = binary_erosion(pair.first_seen_HW & pair.later_seen_HW, iterations=EDGE_PX)
    taper_HW = gaussian_filter(seen_HW.astype(np.float32), 2.0) * seen_HW  # a hard mask would correlate with itself at shift 0
    edges = [(_edges(pair.first_CHW[c]), _edges(pair.later_CHW[c])) for c in range(len(pair.first_CHW))]
    blocks = list(itertools.product(*(_even(length) for length in seen_HW.shape)))
    shifts = [
        shift
        for rows, columns in blocks
        if seen_HW[rows, columns].mean() >= MIN_BLOCK_SEEN
        for first_HW, later_HW in edges
        if (shift := _block_shift(first_HW[rows, columns], later_HW[rows, columns], taper_HW[rows, columns])) is not None
    ]
    return np.array(shifts).reshape(-1, 2)


def _even(length: int) -> list[slice]:
    count = max(1, round(length / BLOCK_PX))
    edges = np.linspace(0, length, count + 1).round().astype(int)
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges) if b - a >= MIN_BLOCK_PX]


def _edges(image_HW: np.ndarray) -> np.ndarray:
    """Gradient magnitude, float32."""
    from scipy.ndimage import gaussian_gradient_magnitude

    magnitude_HW: np.ndarray = gaussian_gradient_magnitude(image_HW.astype(np.float32), 1.0)
    return magnitude_HW


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


def _correlation(pairs: list[Pair], shift_yx: np.ndarray) -> float:
    """Pearson's correlation of the dates after the shift, mean over bands and windows, of slightly smoothed images.

    The images are smoothed first, so that the smoothing by interpolation does not raise the correlation.
    """
    from scipy.ndimage import binary_erosion, gaussian_filter

    found = []
    for pair in pairs:
        moved = _moved(pair, shift_yx)
        # the same pixels whatever the shift, and none whose smoothing includes invalid pixels
        margin = EDGE_PX + HALO_PX + 2
        seen_HW = binary_erosion(pair.first_seen_HW & pair.later_seen_HW, iterations=margin) & moved.later_seen_HW
        if np.count_nonzero(seen_HW) < MIN_BLOCK_PX**2:
            continue
        for first_HW, later_HW in zip(moved.first_CHW, moved.later_CHW, strict=True):
            a, b = (gaussian_filter(image.astype(np.float32), 1.0, truncate=2.0)[seen_HW] for image in (first_HW, later_HW))
            spread = float(a.std() * b.std())
            if spread > 0:
                found.append(float(((a - a.mean()) * (b - b.mean())).mean()) / spread)
    return float(np.mean(found)) if found else 0.0


def likeness(pairs: list[Pair], shift_yx: tuple[float, float]) -> float | None:
    """Correlation of the edges of both dates over all windows after the shift, in the band with the highest one.

    Crops of OSCD give 0.3 and more, however much was built; different sites less than 0.1. None: too few valid pixels.
    """
    from scipy.ndimage import binary_erosion

    first, later = [], []
    for pair in pairs:
        moved = _moved(pair, np.array(shift_yx))
        seen_HW = binary_erosion(moved.first_seen_HW & moved.later_seen_HW, iterations=EDGE_PX)
        first.append(np.stack([_edges(band_HW)[seen_HW] for band_HW in moved.first_CHW]))
        later.append(np.stack([_edges(band_HW)[seen_HW] for band_HW in moved.later_CHW]))
    a_CN, b_CN = (np.concatenate(edges, axis=1).astype(np.float64) for edges in (first, later))
    if a_CN.shape[1] < MIN_BLOCK_PX**2:
        return None
    a_CN, b_CN = (edges_CN - edges_CN.mean(1, keepdims=True) for edges_CN in (a_CN, b_CN))
    length_C = np.sqrt((a_CN**2).sum(1) * (b_CN**2).sum(1))
    return float(((a_CN * b_CN).sum(1) / np.where(length_C > 0, length_C, 1)).max())


# ---------------------------------------------------------------- moving


def halo_px(shift_yx: tuple[float, float]) -> int:
    """Pixels around a window that `move` needs."""
    largest = max(abs(shift_yx[0]), abs(shift_yx[1]))
    return 0 if largest == 0 else int(np.ceil(largest)) + HALO_PX


def move(x_CHW: np.ndarray, seen_HW: np.ndarray, shift_yx: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(x_CHW float32, seen_HW bool): the image moved down and right by `shift_yx` pixels, 0 where invalid.

    Cubic convolution (Keys 1981, a = -1/2) where all 4 x 4 pixels are valid, else linear where the nearest 2 x 2 are, else
    invalid; pixels outside the window are invalid. A window with `halo_px` around it gives the same pixels as the whole.
    """
    if shift_yx == (0.0, 0.0):
        return np.where(seen_HW, x_CHW, np.float32(0)).astype(np.float32, copy=False), seen_HW.copy()
    x_CHW = np.where(seen_HW, x_CHW, np.float32(0)).astype(np.float32, copy=False)
    steps = [int(np.floor(-s)) for s in shift_yx]
    fractions = [float(-s - step) for s, step in zip(shift_yx, steps, strict=True)]
    cubic_CHW, whole_HW = _interpolate(x_CHW, seen_HW, steps, [_cubic(f) for f in fractions])
    linear_CHW, near_HW = _interpolate(x_CHW, seen_HW, steps, [(0.0, 1 - f, f, 0.0) for f in fractions])
    moved_CHW = np.where(whole_HW, cubic_CHW, np.where(near_HW, linear_CHW, np.float32(0)))
    return moved_CHW, near_HW | whole_HW


Taps = tuple[float, float, float, float]


def _cubic(f: float) -> Taps:
    """Weights of the pixels at -1, 0, 1, 2 for a position `f` after pixel 0 (Keys 1981, eq. 15)."""
    return (
        ((-0.5 * f + 1) * f - 0.5) * f,
        (1.5 * f - 2.5) * f * f + 1,
        ((-1.5 * f + 2) * f + 0.5) * f,
        (0.5 * f - 0.5) * f * f,
    )


def _interpolate(x_CHW: np.ndarray, seen_HW: np.ndarray, steps: list[int], taps: list[Taps]) -> tuple[np.ndarray, np.ndarray]:
    """Four taps down, then four across; valid where every pixel with a weight is."""
    for axis in (-2, -1):
        step, weights = steps[axis], taps[axis]
        summed_CHW, all_HW = np.zeros_like(x_CHW), np.ones_like(seen_HW)
        for at, weight in zip((-1, 0, 1, 2), weights, strict=True):
            if weight != 0:
                summed_CHW += np.float32(weight) * _take(x_CHW, step + at, axis)
                all_HW &= _take(seen_HW, step + at, axis)
        x_CHW, seen_HW = summed_CHW, all_HW
    return x_CHW, seen_HW


def _take(array: np.ndarray, step: int, axis: int) -> np.ndarray:
    """`array[i + step]` along the axis; 0 or False outside."""
    length = array.shape[axis]
    out = np.zeros_like(array)
    start, stop = max(0, -step), min(length, length - step)
    if start < stop:
        to, source = [slice(None)] * array.ndim, [slice(None)] * array.ndim
        to[axis], source[axis] = slice(start, stop), slice(start + step, stop + step)
        out[tuple(to)] = array[tuple(source)]
    return out
