import numpy as np
import pytest

from pipelines.learning.area_estimates import allocate_sample, estimate_areas, jeffreys

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
def test_the_paper_areas_and_standard_errors_in_hectares(paper, name, hectares, margin):
    area = paper[name]
    assert round(area.value / M2_PER_HECTARE) == hectares
    assert 1.96 * area.standard_error / M2_PER_HECTARE == pytest.approx(margin, abs=1)  # printed with z = 1.96
    assert area.low < area.value < area.high


def test_estimated_areas_add_up_to_the_mapped_area_and_units_carry_through(paper):
    assert sum(area.value for area in paper.values()) == pytest.approx(MAPPED_M2.sum())
    double = estimate_areas(COUNTS, 2 * MAPPED_M2)
    assert double[0].high == pytest.approx(2 * paper["deforestation"].high)


def test_a_map_without_an_error_in_the_sample_is_not_said_to_be_free_of_errors():
    changed = estimate_areas(np.diag([50, 50]), [900.0, 100.0])[1]
    assert (changed.value, changed.standard_error) == (100.0, 0.0)
    assert changed.low == pytest.approx(100 * 0.951, abs=0.5)
    assert changed.high == pytest.approx(100 + 900 * 0.049, abs=0.5)


def test_a_class_that_is_not_mapped_has_the_area_that_was_missed():
    changed = estimate_areas([[98, 2], [0, 0]], [1000.0, 0.0])[1]
    assert changed.value == pytest.approx(20.0)
    assert 0 < changed.low < 20


def test_a_mapped_class_without_a_sample_widens_the_interval_by_its_area():
    first, second = estimate_areas([[50, 0], [0, 0]], [900.0, 100.0])
    assert first.high == 1000
    assert second.high > 100


def test_rare_classes_get_their_least_and_no_more_than_they_have():
    assert allocate_sample(640, [9_800_000, 200_000], least=75) == [75 + 481, 75 + 9]  # 480.2 and 9.8 by area
    assert allocate_sample(200, [10_000, 30], least=50) == [170, 30]
    assert allocate_sample(100, [10_000, 0], least=50) == [100, 0]
    assert allocate_sample(1000, [300, 90], least=50) == [300, 90], "all there are"
    assert sum(allocate_sample(1000, [61_231, 1_847, 333])) == 1000


def test_jeffreys_bounds_lie_inside_0_and_1_and_close_where_all_or_none_were_found():
    low, high = jeffreys(np.array([0, 5, 10]), np.array([10, 10, 10]))
    assert low[0] == 0
    assert high[2] == 1
    assert np.allclose([low[1], high[1]], [0.224, 0.776], atol=2e-3)  # Brown, Cai & DasGupta 2001, Table 5: 0.224, 0.776


@pytest.mark.parametrize(
    ("shares", "right", "total"),
    [((0.7, 0.25, 0.047, 0.003), (0.98, 0.95, 0.9, 0.8), 500), ((0.9, 0.09, 0.007, 0.003), (0.99, 0.9, 0.7, 0.6), 1000)],
)
def test_the_intervals_of_200_cases_hold_the_truth_as_often_as_they_say(shares, right, total):
    """Classes down to 0.3 % of the area: 92 to 98 % of the intervals of all classes, 90 to 100 % of each (200 cases: +-0.03)."""
    truth_K, rng = np.array(shares), np.random.default_rng(0)
    joint_KS = np.diag(truth_K * right)  # true class by map class
    for k, share in enumerate(truth_K):
        others = np.arange(len(truth_K)) != k
        joint_KS[k, others] = share * (1 - right[k]) * truth_K[others] / truth_K[others].sum()
    mapped_S = joint_KS.sum(axis=0)
    sizes = allocate_sample(total, np.round(mapped_S * 1e6), least=50)
    held = []
    for _ in range(200):
        sample_SK = np.array([rng.multinomial(n, joint_KS[:, s] / mapped_S[s]) for s, n in enumerate(sizes)])
        held.append([one.low <= true <= one.high for one, true in zip(estimate_areas(sample_SK, mapped_S), truth_K, strict=True)])
    assert 0.92 <= np.mean(held) <= 0.98
    assert (np.mean(held, axis=0) >= 0.9).all()
