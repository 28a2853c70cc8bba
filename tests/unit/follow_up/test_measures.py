"""Sizes and places of lesions, on grids in every direction."""

import numpy as np
import pytest

from pipelines.follow_up.measures import axial_axis, measure, side_of
from pipelines.grid import Grid, PatientFrame
from tests.made_lesions import GRID, ellipsoid


def test_an_ellipsoid_has_its_volume_diameters_and_place() -> None:
    found = measure(ellipsoid((5, -6, 3), (12, 8, 24)), GRID)
    assert found.volume_ml == pytest.approx(np.pi / 6 * 12 * 8 * 24 / 1000, rel=0.05)
    assert (found.axial_mm, found.perpendicular_mm) == (pytest.approx(12, abs=0.9), pytest.approx(8, abs=0.9))
    assert found.longest_mm == pytest.approx(24, abs=3)
    assert found.place_mm == (pytest.approx(5, abs=0.2), pytest.approx(-6, abs=0.2), pytest.approx(3, abs=0.2))


def test_one_voxel_is_as_large_as_a_voxel() -> None:
    mask = np.zeros(GRID.shape, bool)
    mask[3, 4, 5] = True
    found = measure(mask, GRID)
    assert found.volume_ml == pytest.approx(3 * 0.8 * 0.8 / 1000)
    assert (found.axial_mm, found.longest_mm, found.edge_voxels) == (pytest.approx(0.8), pytest.approx(3.0), 1)


def test_a_part_of_the_grid_gives_what_the_whole_gives() -> None:
    mask = ellipsoid((5, -6, 3), (12, 8, 24))
    part = tuple(slice(np.flatnonzero(mask.any(axis=others)).min(), None) for others in ((1, 2), (0, 2), (0, 1)))
    assert measure(mask[part], GRID, tuple(one.start for one in part)) == measure(mask, GRID)


def test_slices_that_are_sagittal_are_measured_across_axial_ones() -> None:
    turned = Grid.from_centres(PatientFrame(), ((0, 0, 3.0, -36), (0.8, 0, 0, -38), (0, -0.8, 0, 38)), (24, 96, 96))
    found = measure(ellipsoid((5, -6, 3), (12, 8, 24), turned), turned)
    assert axial_axis(turned) == 1
    assert (found.axial_mm, found.longest_mm) == (pytest.approx(12, abs=3), pytest.approx(24, abs=1.2))
    assert found.place_mm == (pytest.approx(5, abs=0.4), pytest.approx(-6, abs=0.4), pytest.approx(3, abs=0.4))


def test_sides_follow_lps() -> None:
    assert [side_of(x) for x in (20.0, -20.0, 0.2)] == ["left", "right", "midline"]
    with pytest.raises(ValueError, match="an empty mask"):
        measure(np.zeros(GRID.shape, bool), GRID)
