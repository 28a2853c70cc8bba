import numpy as np
import pytest

from pipelines.cube.drift import FEWEST_SCENES, figures_of, find_outliers, sample_pixels
from pipelines.scene import Band

BANDS = (Band("red"), Band("nir"))


def figures(level, spread=100.0, seed=0):
    draw = np.random.default_rng(seed)
    image_BYX = draw.normal(level, spread, (2, 300, 200)).astype("float32")
    return figures_of(sample_pixels(image_BYX, draw.random((300, 200)) < 0.7))


def cube(count, season=200.0):
    return {f"s{n}": figures(1000 + season * np.sin(n), seed=n) for n in range(count)}


def test_figures_are_the_median_and_the_spread_of_usable_pixels():
    assert figures(1000.0) == [[pytest.approx(1000, abs=4), pytest.approx(100, abs=4)]] * 2
    image_BYX = np.full((2, 4, 4), 7, "uint16")
    image_BYX[:, 0] = 9999
    assert figures_of(sample_pixels(image_BYX, np.arange(16).reshape(4, 4) > 3)) == [[7.0, 0.0]] * 2
    assert figures_of(sample_pixels(image_BYX, np.zeros((4, 4), bool))) == []


def test_scenes_with_another_level_or_spread_are_listed_furthest_first():
    known = cube(30) | {"offset": figures(3000.0), "flat": figures(1000.0, 1.0), "empty": []}
    lines = find_outliers(known, {"offset", "flat", "s3", "empty"}, BANDS)
    assert [line.partition(":")[0] for line in lines] == ["flat", "offset"]
    assert " has the spread 1" in lines[0] or " has the spread 0.9" in lines[0]
    assert " has the median 3" in lines[1] or " has the median 2999" in lines[1]
    assert "(32 scenes, as stored)" in lines[1]


def test_a_season_is_no_drift_and_few_scenes_are_nothing_to_compare_with():
    assert find_outliers(cube(40), cube(40).keys(), BANDS) == []
    few = cube(FEWEST_SCENES - 2) | {"offset": figures(9000.0)}
    assert find_outliers(few, {"offset"}, BANDS) == []
    assert find_outliers(cube(FEWEST_SCENES - 1) | {"offset": figures(9000.0)}, {"offset"}, BANDS)
