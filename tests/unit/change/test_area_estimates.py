import numpy as np
import pytest

from pipelines.change.area_estimates import allocate_sample, estimate_area, estimate_areas
from pipelines.change.metrics import Counts

# Olofsson et al. 2014, Table 8, and the numbers of page 54: 640 pixels of 30 m in four map classes
NAMES = ("deforestation", "forest gain", "stable forest", "stable non-forest")
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
M2_PER_HECTARE = 10_000
MAPPED_M2 = np.array([200_000, 150_000, 3_200_000, 6_450_000]) * 900.0


@pytest.fixture
def paper():
    return dict(zip(NAMES, estimate_areas(COUNTS, MAPPED_M2), strict=True))


@pytest.mark.parametrize(
    ("name", "hectares", "margin"),
    [
        ("deforestation", 21_158, 6_158),
        ("forest gain", 11_686, 3_756),
        ("stable forest", 285_770, 15_510),
        ("stable non-forest", 581_386, 16_282),
    ],
)
def test_the_paper_areas_in_hectares(paper, name, hectares, margin):
    area = paper[name]
    assert round(area.value / M2_PER_HECTARE) == hectares
    assert (area.high - area.value) / M2_PER_HECTARE == pytest.approx(margin, abs=1)  # printed with z = 1.96
    assert (area.value - area.low) / M2_PER_HECTARE == pytest.approx(margin, abs=1)


def test_the_paper_standard_error_of_deforestation(paper):
    assert paper["deforestation"].standard_error / MAPPED_M2.sum() == pytest.approx(0.0035, abs=5e-5)


def test_estimated_areas_add_up_to_the_mapped_area_and_units_carry_through(paper):
    assert sum(area.value for area in paper.values()) == pytest.approx(MAPPED_M2.sum())
    double = estimate_areas(COUNTS, 2 * MAPPED_M2)
    assert double[0].standard_error == pytest.approx(2 * paper["deforestation"].standard_error)


def test_a_right_map_is_left_as_it_is():
    changed = estimate_areas(np.diag([50, 50]), [900.0, 100.0])[1]
    assert (changed.value, changed.standard_error) == (100.0, 0.0)


def test_a_class_that_is_not_mapped_has_the_area_that_was_missed():
    changed = estimate_areas([[98, 2], [0, 0]], [1000.0, 0.0])[1]
    assert changed.value == pytest.approx(20.0)
    assert changed.low == 0  # never below nothing


def test_a_class_that_is_never_true_has_no_area():
    assert estimate_areas([[50, 0], [50, 0]], [900.0, 100.0])[1].value == 0


def test_rare_classes_get_their_least_and_no_more_than_they_have():
    assert allocate_sample(640, [9_800_000, 200_000], least=75) == [75 + 481, 75 + 9]  # 480.2 and 9.8 by area
    assert allocate_sample(200, [10_000, 30], least=50) == [170, 30]
    assert allocate_sample(100, [10_000, 0], least=50) == [100, 0]
    assert allocate_sample(1000, [300, 90], least=50) == [300, 90], "all there are"
    assert sum(allocate_sample(1000, [61_231, 1_847, 333])) == 1000


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """200 samples of one map: the truth lies in about 95 % of the intervals, and the mapped area in hardly any."""
    counts = Counts(true_changed=1_250, false_changed=1_100, missed=540, true_unchanged=54_110)
    drawn = [estimate_area(counts, 100.0, total=2000, confidence=0.95, seed=seed) for seed in range(200)]
    truth, claimed = drawn[0]["labelled_m2"], drawn[0]["mapped_m2"]
    assert (truth, claimed) == (179_000.0, 235_000.0)
    intervals = [one["estimate"] for one in drawn]
    assert 0.9 <= np.mean([one["low"] <= truth <= one["high"] for one in intervals]) <= 0.99
    assert np.mean([one["low"] <= claimed <= one["high"] for one in intervals]) < 0.5


def test_an_area_is_estimated_near_the_labelled_one():
    counts = Counts(true_changed=8_000, false_changed=4_000, missed=2_000, true_unchanged=486_000)
    area = estimate_area(counts, 100.0, 2000, 0.95)
    assert area["mapped_m2"] == 1_200_000
    assert area["labelled_m2"] == 1_000_000
    assert area["estimate"]["low"] < 1_000_000 < area["estimate"]["high"]
    assert estimate_area(Counts(true_unchanged=1), 100.0, 100, 0.95)["estimate"] is None
