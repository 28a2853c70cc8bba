import json

import numpy as np
import pytest

from pipelines.change.area_estimates import UNDEFINED, allocate_sample, estimate_areas
from pipelines.change.evaluation import estimate_area
from pipelines.change.metrics import Counts
from pipelines.errors import RequestError

# Olofsson et al. 2014, Table 8, and the numbers of page 54: 640 pixels of 30 m in four map classes
NAMES = ("deforestation", "forest gain", "stable forest", "stable non-forest")
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
MAPPED_M2 = np.array([200_000, 150_000, 3_200_000, 6_450_000]) * 900.0


@pytest.fixture
def paper():
    return estimate_areas(COUNTS, MAPPED_M2, NAMES)


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
    area = paper.of(name).to_json()["area_ha"]
    assert round(area["value"]) == hectares
    assert area["high"] - area["value"] == pytest.approx(margin, abs=1)  # printed with z = 1.96
    assert area["value"] - area["low"] == pytest.approx(margin, abs=1)


def test_the_paper_standard_error_of_deforestation(paper):
    assert paper.of("deforestation").area_m2.standard_error / MAPPED_M2.sum() == pytest.approx(0.0035, abs=5e-5)


@pytest.mark.parametrize(
    ("name", "users", "users_margin", "producers", "producers_margin"),
    [
        ("deforestation", 0.88, 0.07, 0.75, 0.21),
        ("forest gain", 0.73, 0.10, 0.85, 0.25),
        ("stable forest", 0.93, 0.04, 0.93, 0.03),
        ("stable non-forest", 0.96, 0.02, 0.96, 0.02),
    ],
)
def test_the_accuracies_of_the_paper_example(paper, name, users, users_margin, producers, producers_margin):
    one = paper.of(name)
    assert (round(one.users.value, 2), round(1.96 * one.users.standard_error, 2)) == (users, users_margin)
    assert (round(one.producers.value, 2), round(1.96 * one.producers.standard_error, 2)) == (producers, producers_margin)


def test_the_paper_overall_accuracy(paper):
    assert round(paper.overall.value, 2) == 0.95
    assert round(1.96 * paper.overall.standard_error, 2) == 0.02
    assert paper.sampled == 640


def test_estimated_areas_add_up_to_the_mapped_area_and_units_carry_through(paper):
    assert sum(one.area_m2.value for one in paper.classes) == pytest.approx(MAPPED_M2.sum())
    double = estimate_areas(COUNTS, 2 * MAPPED_M2, NAMES)
    assert double.of("deforestation").area_m2.standard_error == pytest.approx(
        2 * paper.of("deforestation").area_m2.standard_error
    )
    assert double.overall == paper.overall
    json.dumps(paper.to_json(), allow_nan=False)


def test_a_right_map_is_left_as_it_is():
    estimates = estimate_areas(np.diag([50, 50]), [900.0, 100.0], ["unchanged", "changed"])
    changed = estimates.of("changed")
    assert (changed.area_m2.value, changed.area_m2.standard_error) == (100.0, 0.0)
    assert (changed.users.value, changed.producers.value, estimates.overall.value) == (1, 1, 1)


def test_a_class_that_is_not_mapped_has_no_users_accuracy():
    estimates = estimate_areas([[98, 2], [0, 0]], [1000.0, 0.0], ["unchanged", "changed"])
    changed = estimates.of("changed")
    assert changed.area_m2.value == pytest.approx(20.0)
    assert changed.users == UNDEFINED
    assert changed.producers.value == 0
    assert changed.area_m2.low == 0  # never below nothing


def test_a_class_that_is_never_true_has_no_producers_accuracy():
    changed = estimate_areas([[50, 0], [50, 0]], [900.0, 100.0], ["unchanged", "changed"]).of("changed")
    assert (changed.area_m2.value, changed.users.value) == (0, 0)
    assert changed.producers == UNDEFINED


def test_too_few_samples_are_named():
    with pytest.raises(RequestError, match="'changed' has 1 samples; draw at least 2"):
        estimate_areas([[50, 0], [0, 1]], [900.0, 100.0], ["unchanged", "changed"])
    with pytest.raises(RequestError, match="no class is mapped anywhere"):
        estimate_areas([[50, 0], [0, 5]], [0.0, 0.0], ["unchanged", "changed"])
    with pytest.raises(RequestError, match="60 samples are too few for 50 in each of 2"):
        allocate_sample(60, [1000, 1000])
    with pytest.raises(ValueError, match="2 classes, but counts of shape"):
        estimate_areas(COUNTS, MAPPED_M2, ["a", "b"])


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
