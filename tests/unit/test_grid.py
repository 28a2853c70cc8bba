import numpy as np
import pytest

from pipelines.grid import Grid

UTM = Grid("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (3, 4))


def test_centres_are_half_a_pixel_inside_the_upper_left_corner():
    np.testing.assert_array_equal(UTM.x_centres(), [500_005, 500_015, 500_025, 500_035])
    np.testing.assert_array_equal(UTM.y_centres(), [4_999_995, 4_999_985, 4_999_975])


def test_bounds_are_the_outer_edges():
    assert UTM.bounds_xy == (500_000, 4_999_970, 500_040, 5_000_000)


def test_a_window_keeps_the_position_of_every_pixel():
    part = UTM.window(slice(1, 3), slice(2, 4))
    np.testing.assert_array_equal(part.x_centres(), UTM.x_centres()[2:])
    np.testing.assert_array_equal(part.y_centres(), UTM.y_centres()[1:])


@pytest.mark.parametrize(
    ("other", "aligned"),
    [
        (Grid("EPSG:32633", (10.0, 0.0, 500_000.0 + 1e-4, 0.0, -10.0, 5_000_000.0), (3, 4)), True),
        (Grid("EPSG:32633", (10.0, 0.0, 500_005.0, 0.0, -10.0, 5_000_000.0), (3, 4)), False),
        (Grid("EPSG:32634", UTM.transform, (3, 4)), False),
        (Grid("EPSG:32633", UTM.transform, (4, 4)), False),
        (Grid("EPSG:32633", (10.01, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (3, 4)), False),
    ],
)
def test_alignment_is_measured_at_the_corners(other: Grid, aligned: bool):
    assert UTM.is_aligned(other) is aligned
    assert other.is_aligned(UTM) is aligned


def test_equal_crs_in_different_notations_are_equal():
    assert UTM.has_same_crs(Grid(UTM.wkt, UTM.transform, UTM.shape_yx))


def test_the_geobox_of_odc_geo_is_equal():
    box = UTM.geobox
    assert box.shape == UTM.shape_yx
    assert tuple(box.affine)[:6] == UTM.transform
