"""The dark region around a point: what is connected to it, dark, and inside the box."""

import numpy as np
import pytest

from pipelines.tracking.dark_region import DarkRegion


@pytest.mark.parametrize(("seed_yx", "columns"), [((1, 1), [0, 1, 2]), ((1, 4), [4, 5]), ((1, 3), [])])
def test_the_region_is_the_part_around_the_seed(seed_yx: tuple[int, int], columns: list[int]) -> None:
    image_YX = np.tile(np.array([0, 0, 0, 90, 0, 0, 0], np.uint8), (3, 1))
    found = DarkRegion(seed_yx, box=(1, 0, 3, 6), below=50, blur_px=0).find(image_YX)
    expected = np.zeros((3, 7), bool)
    expected[1:3, columns] = True
    np.testing.assert_array_equal(found, expected)
