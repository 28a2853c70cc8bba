"""One interpolation onto the common grid: exact where it can be, as SimpleITK does it elsewhere, missing outside."""

import numpy as np
import pytest

from pipelines.registration.resampling import Interpolation, resample
from pipelines.registration.volumes import Volume, coarser, to_itk
from tests.made_visits import Head, grid_of, made_visit, points_of, rigid

OBLIQUE = grid_of((20, 40, 44), (4.0, 3.5, 5.0), (12, -7, 20))
MOVED = rigid((3, -5, 4), (6, 2, -4))


def test_a_plane_is_kept_exactly_between_oblique_grids_and_is_missing_outside() -> None:
    weights, there, here = np.array([0.3, -1.2, 2.0]), OBLIQUE, grid_of()
    plane_ZYX = (points_of(there) @ weights + 10).reshape(there.shape)
    for how in ("linear", "bspline"):
        found = resample(plane_ZYX, there, MOVED, here, how).ravel()
        points = points_of(here) @ MOVED[:3, :3].T + MOVED[:3, 3]
        index = there.to_index(points)  # .5 is a centre
        size = np.array(there.shape[::-1])
        inside, deep = ((index >= 0) & (index <= size)).all(axis=1), ((index >= 3) & (index <= size - 3)).all(axis=1)
        assert np.array_equal(np.isfinite(found), inside)
        assert 0.2 < inside.mean() < 1
        error = np.abs(found - (points @ weights + 10))[deep].max()
        assert error < 1e-3 if how == "linear" else error < 2.0  # cubic feels its edge a little further


def test_the_same_as_simpleitk() -> None:
    sitk = pytest.importorskip("SimpleITK")
    visit, here = made_visit(Head(), MOVED, OBLIQUE), grid_of()
    transform = sitk.AffineTransform(MOVED[:3, :3].ravel().tolist(), MOVED[:3, 3].tolist())
    onto = to_itk(Volume(np.zeros(here.shape, np.float32), here))
    expected = sitk.GetArrayFromImage(sitk.Resample(to_itk(visit), onto, transform, sitk.sitkLinear, -1.0))
    found = resample(visit.values_ZYX, visit.grid, MOVED, here, "linear")
    both = np.isfinite(found) & (expected >= 0)
    assert both.mean() > 0.5
    assert np.abs(found - expected)[both].max() < 0.05


def test_the_same_voxels_are_copied_and_flipped_axes_are_no_movement() -> None:
    visit = made_visit(Head(), np.eye(4), OBLIQUE)
    assert np.array_equal(resample(visit.values_ZYX, OBLIQUE, np.eye(4), OBLIQUE, "bspline"), visit.values_ZYX)
    flipped = resample(visit.values_ZYX[:, ::-1, ::-1], OBLIQUE.flipped("x").flipped("y"), np.eye(4), OBLIQUE, "linear")
    assert np.allclose(flipped, visit.values_ZYX, atol=1e-3)


def test_what_is_missing_in_a_visit_stays_missing_and_spreads_by_no_more_than_a_voxel() -> None:
    visit = made_visit(Head(), np.eye(4), OBLIQUE)
    visit.values_ZYX[8:12, 10:20, 10:20] = np.nan
    found = resample(visit.values_ZYX, OBLIQUE, rigid((0.1, 0, 0)), OBLIQUE, "bspline")
    assert np.isnan(found[9:11, 11:19, 11:19]).all()
    assert np.isfinite(found[:6]).mean() > 0.97


@pytest.mark.parametrize("how", ["linear", "bspline"])
def test_what_is_beside_a_gap_is_not_made_darker(how: Interpolation) -> None:
    line = np.array([100.0, 100, np.nan, 100, 100]).reshape(1, 1, 5)
    grid = grid_of((1, 1, 5), (1.0, 1.0, 1.0))
    found = resample(line, grid, rigid((0.4, 0, 0)), grid, how).ravel()
    assert np.isnan(found[2])
    assert found[[0, 1, 3]] == pytest.approx(100)


def test_a_coarser_volume_has_the_means_of_blocks_at_their_centres() -> None:
    grid = grid_of((6, 8, 10), (1.0, 1.0, 3.0), (0, 0, 30))
    plane_ZYX = (points_of(grid) @ [1.0, 2.0, 3.0]).reshape(grid.shape)
    small = coarser(Volume(plane_ZYX.astype(np.float32), grid), 2.0)
    assert small.values_ZYX.shape == (6, 4, 5)
    assert np.allclose(small.values_ZYX.ravel(), points_of(small.grid) @ [1.0, 2.0, 3.0], atol=1e-3)
