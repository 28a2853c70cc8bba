import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.inference.tiling import blend_weights, plan_batches, ramp, tiles_around, tiles_of, window_of
from pipelines.tiles import Tile, tile_raster


@given(st.integers(1, 300), st.integers(1, 300), st.integers(16, 64), st.integers(1, 9))
def test_batches_cover_every_tile_exactly_once(height, width, tile_px, across):
    tiles = [tile for region in plan_batches((height, width), tile_px, across) for tile in tiles_of(region, tile_px)]
    assert sorted(tiles) == sorted(tile_raster((height, width), tile_px))


@pytest.mark.parametrize("across", [1, 4, 100])
def test_ten_thousand_tiles_are_fewer_than_500_tasks(across):
    assert len(plan_batches((25_600, 25_600), 256, across)) < 500
    assert len(plan_batches((256, 2_560_000), 256, across)) < 10_000 // across + 500


@given(st.integers(2, 12), st.integers(1, 5), st.integers(16, 90))
def test_blend_weights_sum_to_one(blend_px, factor, size):
    tile_px = 2 * blend_px * factor
    total = np.zeros((size, size))
    for tile in tile_raster((size, size), tile_px):
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
    around = tiles_around(Tile(8, 16, 0, 8), 8, (20, 20))
    assert around == [tile for tile in tile_raster((20, 20), 8) if tile.col0 < 16]


@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.integers(16, 200),
    st.tuples(st.integers(0, 60), st.integers(0, 60)),
    st.sampled_from([1, 2, 8]),
)
def test_windows_hold_the_halo_and_enough_pixels_and_never_move_up(height, width, tile_px, halo_px, stride):
    shape_yx, start = (height, width), 0
    for tile in tile_raster(shape_yx, tile_px):
        window, halo = window_of(tile, halo_px, shape_yx, (stride, stride)), tile.grown(halo_px, shape_yx)
        assert window.row0 <= halo.row0 <= halo.row1 <= window.row1 <= height
        assert window.col0 <= halo.col0 <= halo.col1 <= window.col1 <= width
        assert window.shape_yx[0] * window.shape_yx[1] >= min(height * width, 20736)
        assert (window.row0 % stride, window.col0 % stride) == (0, 0)
        assert window.row0 >= start
        start = window.row0
