import numpy as np
import pytest
from scipy.ndimage import fourier_shift, gaussian_filter

from pipelines.samples.coregistration import Pair, estimate_shift, halo_px, likeness, move

SHAPE = (180, 200)


def scene(seed: int = 0, shape=SHAPE) -> np.ndarray:
    """Two bands of blobs and edges, mean 0, deviation about 1."""
    rng = np.random.default_rng(seed)
    smooth = np.stack([gaussian_filter(rng.normal(size=shape), 2.0) for _ in range(2)])
    fields = np.stack([gaussian_filter(np.kron(rng.normal(size=(18, 20)), np.ones((10, 10))), 0.8)] * 2)[
        :, : shape[0], : shape[1]
    ]
    image = smooth / smooth.std() + fields
    return ((image - image.mean()) / image.std()).astype(np.float32)


def moved_exactly(image_CHW: np.ndarray, dy: float, dx: float) -> np.ndarray:
    """The image moved down and right, by the phases of its Fourier transform (it wraps around; tests crop the edges)."""
    return np.stack([np.fft.ifft2(fourier_shift(np.fft.fft2(band), (dy, dx))).real for band in image_CHW]).astype(np.float32)


def seen(shape=SHAPE) -> np.ndarray:
    return np.ones(shape, bool)


@pytest.mark.parametrize("shift", [(0.5, -0.3), (-0.95, 0.7), (1.6, 1.2), (0.0, 0.25)])
def test_known_shifts_are_recovered_with_noise_and_other_illumination(shift):
    first = scene()
    later = 1.7 * moved_exactly(first, -shift[0], -shift[1]) + 0.4
    later += np.random.default_rng(1).normal(0, 0.3, later.shape).astype(np.float32)
    found = estimate_shift([Pair(first, later, seen(), seen())])
    np.testing.assert_allclose(found.yx, shift, atol=0.1)
    assert found.gain > 0.001
    assert found.note == ""


def test_clouds_and_change_do_not_affect_the_shift():
    first, shift = scene(), (0.6, -0.8)
    later = moved_exactly(first, *(-s for s in shift))
    later[:, 40:70, 60:90] += 3.0  # something was built
    cloud_1, cloud_2 = seen(), seen()
    cloud_1[:60, :50], cloud_2[100:, 120:] = False, False
    found = estimate_shift([Pair(np.where(cloud_1, first, 0), np.where(cloud_2, later, 0), cloud_1, cloud_2)])
    np.testing.assert_allclose(found.yx, shift, atol=0.1)


def test_inverted_illumination_does_not_matter():
    first, shift = scene(), (0.4, 0.6)
    later = moved_exactly(first, *(-s for s in shift))
    later[1] *= -1.0  # dark fields become bright
    found = estimate_shift([Pair(first[1:], later[1:], seen(), seen())])
    # a correlation of -1 cannot increase: the shift is found, and not applied
    assert found.yx == (0.0, 0.0)
    assert "gains nothing" in found.note


def test_several_windows_give_one_shift():
    shift = (0.5, 0.5)
    pairs = [Pair(first := scene(seed), moved_exactly(first, -0.5, -0.5), seen(), seen()) for seed in (1, 2)]
    np.testing.assert_allclose(estimate_shift(pairs).yx, shift, atol=0.1)


def test_nothing_is_moved_without_a_gain():
    first = scene()
    same = estimate_shift([Pair(first, first.copy(), seen(), seen())])
    assert (same.yx, same.gain) == ((0.0, 0.0), 0.0)
    assert "is aligned" in same.note
    noise = np.random.default_rng(2).normal(size=first.shape).astype(np.float32)
    other = estimate_shift([Pair(first, noise, seen(), seen())])
    assert other.yx == (0.0, 0.0)
    assert other.note


def test_a_large_shift_is_rejected_with_a_note():
    first = scene()
    found = estimate_shift([Pair(first, moved_exactly(first, 4.0, 0.0), seen(), seen())], max_shift_px=2.0)
    assert found.yx == (0.0, 0.0)
    assert "exceeds max_shift_px 2" in found.note
    far = estimate_shift([Pair(first, moved_exactly(first, 4.0, 0.0), seen(), seen())], max_shift_px=5.0)
    np.testing.assert_allclose(far.yx, (-4.0, 0.0), atol=0.1)


@pytest.mark.parametrize("fill", [0.0, 5.0])
def test_without_edges_or_common_pixels_there_is_no_shift(fill):
    flat = np.full((2, *SHAPE), fill, np.float32)
    assert "too few pixels" in estimate_shift([Pair(flat, flat, seen(), seen())]).note
    left, right = seen(), seen()
    left[:, :100], right[:, 100:] = False, False
    first = scene()
    assert "too few pixels" in estimate_shift([Pair(first, first, left, right)]).note
    assert estimate_shift([]).yx == (0.0, 0.0)


# ---------------------------------------------------------------- moving


def test_whole_pixels_are_moved_exactly():
    x = np.arange(12, dtype=np.float32).reshape(1, 3, 4) + 1
    moved, where = move(x, np.ones((3, 4), bool), (1.0, -2.0))
    np.testing.assert_array_equal(moved[0], [[0, 0, 0, 0], [3, 4, 0, 0], [7, 8, 0, 0]])
    np.testing.assert_array_equal(where, moved[0] > 0)


def test_a_plane_is_moved_to_its_values():
    rows, columns = np.mgrid[:20, :24].astype(np.float32)
    plane = (2 * rows + 3 * columns)[None]
    moved, where = move(plane, np.ones((20, 24), bool), (0.25, -0.75))
    expected = 2 * (rows - 0.25) + 3 * (columns + 0.75)
    np.testing.assert_allclose(moved[0][where], expected[where], atol=1e-4)
    np.testing.assert_array_equal(where, (rows >= 1) & (columns <= 22))


def test_invalid_pixels_are_never_interpolated():
    mask = np.ones((20, 24), bool)
    mask[8:10, 11] = False
    x = np.where(mask, np.float32(7), np.float32(-1e6))[None]
    moved, where = move(x, mask, (0.5, 0.5))
    np.testing.assert_allclose(moved[0][where], 7, rtol=1e-6)
    assert not where[8:11, 11:13].any()
    assert where[7, 11]
    assert where[10, 13]
    assert (moved[0][~where] == 0).all()


def test_likeness_tells_one_site_from_two():
    first, other = scene(), scene(5)
    later = -2.0 * moved_exactly(first, -0.6, 0.8) + 5
    later += np.random.default_rng(1).normal(0, 0.5, later.shape).astype(np.float32)
    pair = Pair(first, later, seen(), seen())
    assert likeness([pair], (0.6, -0.8)) > 0.6
    assert likeness([pair], (0.6, -0.8)) > likeness([pair], (0.0, 0.0))
    assert abs(likeness([Pair(first, other, seen(), seen())], (0.0, 0.0))) < 0.1
    nothing = np.zeros(SHAPE, bool)
    assert likeness([Pair(first, later, seen(), nothing)], (0.0, 0.0)) is None
    assert likeness([Pair(first, np.ones_like(first), seen(), seen())], (0.0, 0.0)) == 0


def test_no_shift_is_a_copy():
    x, mask = scene(), seen()
    mask[3, 4] = False
    moved, where = move(x, mask, (0.0, 0.0))
    np.testing.assert_array_equal(moved, np.where(mask, x, 0))
    np.testing.assert_array_equal(where, mask)
    assert halo_px((0.0, 0.0)) == 0


@pytest.mark.parametrize("shift", [(0.3, -0.7), (-1.4, 0.0), (2.0, 1.5)])
def test_a_window_with_its_halo_equals_the_whole(shift):
    x, mask = scene(), np.random.default_rng(3).random(SHAPE) > 0.1
    whole, whole_seen = move(x, mask, shift)
    halo = halo_px(shift)
    rows, columns = slice(50, 90), slice(60, 120)
    around = slice(rows.start - halo, rows.stop + halo), slice(columns.start - halo, columns.stop + halo)
    part, part_seen = move(x[:, *around], mask[around], shift)
    inner = slice(halo, -halo), slice(halo, -halo)
    np.testing.assert_array_equal(part[:, *inner], whole[:, rows, columns])
    np.testing.assert_array_equal(part_seen[inner], whole_seen[rows, columns])
