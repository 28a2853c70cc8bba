"""Which forecast is published, from errors on the validation part and skill on the test part."""

import numpy as np
import pytest
from tiny_forecaster import Constant, truth_window

from pipelines.errors import RequestError
from pipelines.learning.choice import choose, tally_errors
from pipelines.learning.intervals import Interval

BEATS = Interval(0.1, 0.05, 0.15, "dates", 25, independent=11.0)
LOSES = Interval(-0.1, -0.2, -0.05, "dates", 25, independent=11.0)
DOUBTFUL = Interval(0.1, -0.05, 0.25, "dates", 25, independent=11.0)


@pytest.mark.parametrize(
    ("publish", "network", "skill", "published"),
    [
        ("best", 0.9, BEATS, "model"),
        ("best", 0.9, DOUBTFUL, "model"),
        ("best", 0.9, LOSES, "climatology"),  # the test part may take the network back
        ("best", 0.995, BEATS, "climatology"),  # a gain below the margin is none; the test part never puts the network in
        ("best", 1.2, BEATS, "climatology"),
        ("network", 1.2, LOSES, "model"),
        ("beyond_doubt", 0.9, DOUBTFUL, "climatology"),
        ("beyond_doubt", 1.2, BEATS, "model"),
    ],
)
def test_what_is_published(publish: str, network: float, skill: Interval, published: str) -> None:
    """Of three baselines that are equal within the margin the simplest is the best one."""
    errors = {"gradient_boosting": 1.0, "harmonic": 1.004, "climatology": 1.006, "persistence": 2.0, "model": network}
    skills = dict.fromkeys(["gradient_boosting", "harmonic", "climatology", "persistence"], skill)
    choice = choose(errors, {"model": skills}, "model", publish, 0.01)
    assert (choice.published, choice.baseline) == (published, "climatology")
    assert choice.reason


def test_errors_of_validation_are_means_over_valid_pixels_of_each_variable_over_its_spread() -> None:
    values = np.stack([np.full((1, 4, 4), 3.0), np.full((1, 4, 4), 200.0)], axis=1)
    values[0, 1, 0] = 600.0  # a quarter of the second variable: mean 300, spread 173.2
    valid = np.ones((1, 4, 4), bool)
    found = tally_errors({"zero": Constant(0.0)}, [truth_window(values, [0.0], valid)]).means()
    assert found["zero"] == pytest.approx((3.0 + 300 / (400 * np.sqrt(3) / 4)) / 2)
    with pytest.raises(RequestError, match="no validation window has a valid target pixel"):
        tally_errors({"zero": Constant(0.0)}, [truth_window(values, [0.0], ~valid)]).means()
