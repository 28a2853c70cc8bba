import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.inference.tiling import blend_weights, plan_batches, ramp, tiles_around, window_of
from pipelines.tiles import Box

images = st.tuples(st.integers(1, 300), st.integers(1, 300))
volumes = st.tuples(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))


@given(images | volumes, st.integers(16, 64), st.integers(1, 9))
def test_batches_cover_every_tile_exactly_once(shape, tile_px, across):
    tiles = [tile for region in plan_batches(shape, tile_px, across) for tile in region.cut(tile_px)]
    assert sorted(tiles) == sorted(Box.whole(shape).cut(tile_px))


@pytest.mark.parametrize("across", [1, 4, 100])
def test_ten_thousand_tiles_are_fewer_than_500_tasks(across):
    assert len(plan_batches((25_600, 25_600), 256, across)) < 500
    assert len(plan_batches((256, 2_560_000), 256, across)) < 10_000 // across + 500


@given(st.integers(2, 12), st.integers(1, 5), st.integers(16, 90))
def test_blend_weights_sum_to_one(blend_px, factor, size):
    tile_px = 2 * blend_px * factor
    total = np.zeros((size, size))
    for tile in Box.whole((size, size)).cut(tile_px):
        window = tile.grown(blend_px, (size, size))
        total[window.rows, window.columns] += blend_weights(tile, blend_px, (size, size))
    whole = size // tile_px * tile_px  # a smaller tile at the end is normalised by the sum of its weights
    inner = max(whole - 2 * tile_px, 0)
    np.testing.assert_allclose(total[:inner, :inner], 1)
    assert (total > 0).all()


def test_the_ramp_is_linear_and_mirrored():
    np.testing.assert_allclose(ramp(4, 8, 2, 12), [0.125, 0.375, 0.625, 0.875, 0.875, 0.625, 0.375, 0.125])


def test_the_raster_has_no_ramp_at_its_own_edges():
    np.testing.assert_allclose(ramp(0, 8, 2, 8), 1)


def test_tiles_around_are_whole_tiles_of_the_raster():
    around = tiles_around(Box((8, 0), (16, 8)), 8, (20, 20))
    assert around == [tile for tile in Box.whole((20, 20)).cut(8) if tile.columns.start < 16]


@given(
    images | volumes,
    st.integers(16, 200),
    st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60)),
    st.sampled_from([1, 2, 8]),
)
def test_windows_hold_the_halo_and_enough_pixels_and_never_move_up(shape, tile_px, halo_px, stride):
    whole, halo_px, start = Box.whole(shape), halo_px[: len(shape)], 0
    for tile in whole.cut(tile_px):
        window = window_of(tile, halo_px, shape, (stride,) * len(shape))
        assert Box.around((window, tile.grown(halo_px, shape))) == window
        assert Box.around((window, whole)) == whole
        assert math.prod(window.shape) >= min(math.prod(shape), 20736)
        assert not any(first % stride for first in window.start)
        assert window.start[0] >= start
        start = window.start[0]
