"""A fraction of a pixel: how far a later date lies from the first, and the later date moved back by that much.

Pairs that are sold as registered lie up to a pixel apart, and every edge then looks like change. The shift is found by phase
correlation (scikit-image, https://scikit-image.org/docs/stable/api/skimage.registration.html) of gradient magnitudes, which
do not care whether a field grew brighter or darker, block by block and band by band; the median counts, so that clouds, real
change and blocks without an edge do not. One shift for the whole date: it is the scene that was placed wrongly.
"""

import itertools
from dataclasses import dataclass

import numpy as np

UPSAMPLING = 20  # steps of 1/20 pixel, far below what the interpolation can make use of
BLOCK_PX = 120  # about a kilometre at 10 m: enough edges, small enough that a cloud spoils few blocks
MIN_BLOCK_PX = 32
MIN_BLOCK_SEEN = 0.3  # share of a block's pixels that both dates must have seen
ROUNDS = 3  # a shift found on the moved image is added: the first finding is drawn towards 0
EDGE_PX = 2  # gradients this near to what was not seen are the mask's, not the image's
SMALLEST_PX = 0.05  # smaller shifts are noise of the estimate; interpolating for them would only blur
SMALLEST_GAIN = 0.001  # rise of the correlation; interpolation alone smooths, which raises it by less than this
HALO_PX = 2  # the cubic kernel reaches two pixels beyond the shifted place


@dataclass(frozen=True)
class Shift:
    """How far a date must be moved (down, right; pixels of the first date) to lie on the first one.

    `gain` is how much the correlation of both dates rises by it, mean of the bands; (0, 0) and 0 where nothing is moved,
    and `note` says why.
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
    """One window of two dates: `first_CHW`, `later_CHW` float32, 0 where invalid, and where each was seen."""

    first_CHW: np.ndarray
    later_CHW: np.ndarray
    first_seen_HW: np.ndarray
    later_seen_HW: np.ndarray


def estimate_shift(pairs: list[Pair], max_shift_px: float = 2.0) -> Shift:
    """The shift of the later date that the windows `pairs` (of one place) agree on; none where nothing is gained."""
    found = np.zeros(2)
    for _ in range(ROUNDS):
        votes_N2 = np.concatenate([_votes(_moved(pair, found)) for pair in pairs] or [np.zeros((0, 2))])
        if not len(votes_N2):
            return Shift(0.0, 0.0, 0.0, "too few pixels were seen on both dates to compare their places; not moved")
        step = np.median(votes_N2, axis=0)
        found = found + step
        if np.abs(found).max() > max_shift_px:
            text = f"({found[0]:+.2f}, {found[1]:+.2f}) px"
            return Shift(
                0.0, 0.0, 0.0, f"a shift of {text} was found and not believed (max_shift_px {max_shift_px:g}); not moved"
            )
        if np.abs(step).max() < 1 / UPSAMPLING:
            break
    if np.abs(found).max() < SMALLEST_PX:
        return Shift(0.0, 0.0, 0.0, "lies on the first date already")
    gain = _correlation(pairs, found) - _correlation(pairs, np.zeros(2))
    if not gain > SMALLEST_GAIN:
        return Shift(0.0, 0.0, 0.0, f"a shift of ({found[0]:+.2f}, {found[1]:+.2f}) px fits no better; not moved")
    return Shift(float(found[0]), float(found[1]), float(gain))


def _moved(pair: Pair, shift_yx: np.ndarray) -> Pair:
    later_CHW, seen_HW = move(pair.later_CHW, pair.later_seen_HW, (float(shift_yx[0]), float(shift_yx[1])))
    return Pair(pair.first_CHW, later_CHW, pair.first_seen_HW, seen_HW)


def _votes(pair: Pair) -> np.ndarray:
    """(votes, 2): the shift of every block and band that has something to compare."""
    from scipy.ndimage import binary_erosion, gaussian_filter

    seen_HW = binary_erosion(pair.first_seen_HW & pair.later_seen_HW, iterations=EDGE_PX)
    taper_HW = gaussian_filter(seen_HW.astype(np.float32), 2.0) * seen_HW  # a hard mask would correlate with itself, unmoved
    edges = [(_edges(pair.first_CHW[c]), _edges(pair.later_CHW[c])) for c in range(len(pair.first_CHW))]
    blocks = list(itertools.product(*(_even(length) for length in seen_HW.shape)))
    votes = [
        vote
        for rows, columns in blocks
        if seen_HW[rows, columns].mean() >= MIN_BLOCK_SEEN
        for first_HW, later_HW in edges
        if (vote := _vote(first_HW[rows, columns], later_HW[rows, columns], taper_HW[rows, columns])) is not None
    ]
    return np.array(votes).reshape(-1, 2)


def _even(length: int) -> list[slice]:
    count = max(1, round(length / BLOCK_PX))
    edges = np.linspace(0, length, count + 1).round().astype(int)
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges) if b - a >= MIN_BLOCK_PX]


def _edges(image_HW: np.ndarray) -> np.ndarray:
    """The gradient's magnitude, float32."""
    from scipy.ndimage import gaussian_gradient_magnitude

    return gaussian_gradient_magnitude(image_HW.astype(np.float32), 1.0)


def _vote(first_HW: np.ndarray, later_HW: np.ndarray, taper_HW: np.ndarray) -> np.ndarray | None:
    from skimage.registration import phase_cross_correlation

    height, width = first_HW.shape
    weight_HW = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]) * taper_HW
    windows = []
    for image_HW in (first_HW, later_HW):
        mean = float((image_HW * weight_HW).sum() / weight_HW.sum())
        windowed_HW = (image_HW - mean) * weight_HW
        if not np.abs(windowed_HW).max() > 1e-9 * max(abs(mean), 1e-30):
            return None  # nothing but one value: no edge that could tell a shift
        windows.append(windowed_HW)
    shift_yx, _, _ = phase_cross_correlation(*windows, upsample_factor=UPSAMPLING, normalization=None)
    return shift_yx


def _correlation(pairs: list[Pair], shift_yx: np.ndarray) -> float:
    """Pearson's correlation of the dates after the shift, mean over bands and windows, of slightly smoothed images.

    Smoothed, so that it is not the interpolation's own smoothing that counts.
    """
    from scipy.ndimage import binary_erosion, gaussian_filter

    found = []
    for pair in pairs:
        moved = _moved(pair, shift_yx)
        # the same pixels whatever the shift, and none whose smoothing saw what the interpolation left out
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
    """How well the edges of both dates correlate over all windows once the later one is moved, in the band where it is most.

    Crops of OSCD give .3 and more, however much was built; of two different places less than .1. None: too little to compare.
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
    """How many pixels around a window `move` must see."""
    largest = max(abs(shift_yx[0]), abs(shift_yx[1]))
    return 0 if largest == 0 else int(np.ceil(largest)) + HALO_PX


def move(x_CHW: np.ndarray, seen_HW: np.ndarray, shift_yx: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(x_CHW float32, seen_HW bool): the image moved down and right by `shift_yx` pixels, 0 where nothing was seen.

    Cubic convolution (Keys 1981, a = -1/2) where all 4 x 4 pixels were seen, else linear where the nearest 2 x 2 were, else
    not seen; what lies outside of the window was not seen. A window with `halo_px` around it gives the pixels of the whole.
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
    """Weights of the pixels at -1, 0, 1, 2 for a place `f` behind pixel 0 (Keys 1981, eq. 15)."""
    return (
        ((-0.5 * f + 1) * f - 0.5) * f,
        (1.5 * f - 2.5) * f * f + 1,
        ((-1.5 * f + 2) * f + 0.5) * f,
        (0.5 * f - 0.5) * f * f,
    )


def _interpolate(x_CHW: np.ndarray, seen_HW: np.ndarray, steps: list[int], taps: list[Taps]) -> tuple[np.ndarray, np.ndarray]:
    """Four taps down, then four across; seen where every pixel with a weight was."""
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
    """`array[i + step]` along the axis; 0 or False where that lies outside."""
    length = array.shape[axis]
    out = np.zeros_like(array)
    start, stop = max(0, -step), min(length, length - step)
    if start < stop:
        to, source = [slice(None)] * array.ndim, [slice(None)] * array.ndim
        to[axis], source[axis] = slice(start, stop), slice(start + step, stop + step)
        out[tuple(to)] = array[tuple(source)]
    return out
