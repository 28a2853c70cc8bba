import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.grid import Grid, PatientFrame

UTM = Grid("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (3, 4))


def test_centres_are_half_a_pixel_inside_the_upper_left_corner():
    np.testing.assert_array_equal(UTM.centres("x"), [500_005, 500_015, 500_025, 500_035])
    np.testing.assert_array_equal(UTM.centres("y"), [4_999_995, 4_999_985, 4_999_975])


def test_bounds_are_the_outer_edges():
    assert UTM.bounds_xy == (500_000, 4_999_970, 500_040, 5_000_000)


def test_a_window_keeps_the_position_of_every_pixel():
    part = UTM.window(slice(1, 3), slice(2, 4))
    np.testing.assert_array_equal(part.centres("x"), UTM.centres("x")[2:])
    np.testing.assert_array_equal(part.centres("y"), UTM.centres("y")[1:])


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
    assert UTM.has_same_frame(Grid(UTM.wkt, UTM.transform, UTM.shape_yx))


def oblique() -> Grid:
    """Voxels of 0.8 x 0.8 x 3 mm, turned by 30 degrees about x and by 20 about z."""
    turn_x, turn_z = np.eye(3), np.eye(3)
    turn_x[1:, 1:] = [[np.cos(np.pi / 6), -0.5], [0.5, np.cos(np.pi / 6)]]
    turn_z[:2, :2] = [[np.cos(np.pi / 9), -np.sin(np.pi / 9)], [np.sin(np.pi / 9), np.cos(np.pi / 9)]]
    matrix = np.column_stack([turn_z @ turn_x @ np.diag([0.8, 0.8, 3.0]), [-100.0, -80.0, 20.0]])
    return Grid.from_centres(PatientFrame("1.2.3"), matrix, (12, 30, 40))


def test_a_volume_knows_its_voxels_whatever_its_rotation():
    grid = oblique()
    assert grid.dims == ("z", "y", "x")
    np.testing.assert_allclose(grid.spacing, (3.0, 0.8, 0.8))
    assert grid.pixel_size == pytest.approx(3 * 0.8 * 0.8)
    np.testing.assert_allclose(grid.to_world((0.5, 0.5, 0.5)), (-100, -80, 20))  # the centre of the first voxel
    np.testing.assert_allclose(grid.to_index(grid.to_world([(3, 4, 5), (0, 0, 0)])), [(3, 4, 5), (0, 0, 0)], atol=1e-9)
    part = grid.window(slice(2, 5), slice(3, 9), slice(4, 8))
    assert part.shape == (3, 6, 4)
    np.testing.assert_allclose(part.to_world((1, 1, 1)), grid.to_world((5, 4, 3)))
    assert not grid.is_straight
    assert UTM.is_straight


def test_a_volume_is_compared_in_its_own_frame():
    grid = oblique()
    assert grid.is_aligned(oblique())
    assert not grid.is_aligned(Grid(PatientFrame("1.2.4"), grid.transform, grid.shape))
    assert not grid.is_aligned(Grid(UTM.crs, grid.transform, grid.shape))
    with pytest.raises(RequestError, match="coordinates of a patient"):
        _ = grid.crs
    with pytest.raises(RequestError, match=r"a map takes images \(y, x\); these are volumes of \(12, 30, 40\)"):
        grid.require_2d("a map")


@pytest.mark.parametrize(
    ("transform", "shape"), [(UTM.transform, (2, 3, 4)), (oblique().transform, (3, 4)), (UTM.transform, (3,))]
)
def test_a_transform_must_fit_its_shape(transform, shape):
    with pytest.raises(ValueError, match="6 numbers"):
        Grid("EPSG:32633", transform, shape)
