import pytest

from pipelines.learning.intervals import Interval, student_interval


@pytest.mark.parametrize(
    ("value", "low", "high", "outcome"),
    [
        (0.15, 0.1, 0.2, "beats"),
        (-0.15, -0.2, -0.1, "loses"),
        (0.0, -0.1, 0.1, "not distinguishable"),
        (0.03, -0.04, 0.11, "not distinguishable"),
        (0.001, -0.008, 0.01, "equal"),  # all of it within the margin
        (0.002, 0.001, 0.003, "equal"),  # not by chance, and too small to matter
        (-0.002, -0.003, -0.001, "equal"),
        (0.008, 0.001, 0.015, "equal"),
        (0.011, 0.001, 0.021, "beats"),
        (0.5, None, None, "not distinguishable"),
        (None, None, None, "not distinguishable"),
    ],
)
def test_the_outcome_takes_an_interval_without_zero_and_a_difference_that_matters(value, low, high, outcome):
    assert Interval(value, low, high, "dates", 9).outcome(margin=0.01) == outcome


def test_the_basis_says_what_was_counted():
    assert Interval(0, 0, 0, "dates", 25, independent=11.2).basis == "25 dates counted as 11 independent ones"
    assert Interval(0, 0, 0, "sites", 5).basis == "5 sites"
    assert Interval(0, 0, 0, "blocks", 96, sites=1).basis == "96 blocks of 1 site"


def test_students_t_is_that_of_the_tables():
    low, high = student_interval(0.0, 1.0, 4, 0.95)
    assert (low, high) == pytest.approx((-2.776, 2.776), abs=1e-3)
