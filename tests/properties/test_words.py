"""Properties of grids and tiles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.grid import Grid
from pipelines.tiles import Box

SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 70))


@given(SHAPES, st.integers(1, 40))
def test_tiles_cover_every_pixel_exactly_once(shape_yx, tile_px):
    count = np.zeros(shape_yx, int)
    for tile in Box.whole(shape_yx).cut(tile_px):
        count[tile.rows, tile.columns] += 1
    assert (count == 1).all()


@given(SHAPES, st.integers(1, 40), st.integers(0, 50))
def test_a_tile_is_located_within_its_grown_tile(shape_yx, tile_px, halo):
    raster = np.arange(shape_yx[0] * shape_yx[1]).reshape(shape_yx)
    for tile in Box.whole(shape_yx).cut(tile_px):
        grown = tile.grown(halo, shape_yx)
        np.testing.assert_array_equal(raster[grown.rows, grown.columns][tile.within(grown)], raster[tile.rows, tile.columns])


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 30), st.integers(1, 30))
def test_overlap_is_symmetric_and_reflexive(row, col, height, width):
    one, two = Box((row, col), (row + height, col + width)), Box((10, 10), (20, 20))
    assert one.overlaps(one)
    assert one.overlaps(two) == two.overlaps(one)
    shared = set(range(row, row + height)) & set(range(10, 20)) and set(range(col, col + width)) & set(range(10, 20))
    assert one.overlaps(two) == bool(shared)


def test_shrinking_a_tile_to_nothing_raises():
    with pytest.raises(ValueError, match="nothing left after a margin of 5 pixels"):
        Box.whole((10, 30)).shrunk(5)


@given(SHAPES, st.floats(0.1, 1000), st.data())
def test_windows_of_windows_are_windows(shape_yx, pixel, data):
    grid = Grid("EPSG:3857", (pixel, 0.0, -7.5, 0.0, -pixel, 33.0), shape_yx)
    row = data.draw(st.integers(0, shape_yx[0] - 1))
    col = data.draw(st.integers(0, shape_yx[1] - 1))
    part = grid.window(slice(row, shape_yx[0]), slice(col, shape_yx[1]))
    np.testing.assert_allclose(part.centres("x"), grid.centres("x")[col:], rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(part.centres("y"), grid.centres("y")[row:], rtol=1e-9, atol=1e-6)
