import numpy as np

from pipelines.change.area_estimates import estimate_area
from pipelines.change.metrics import Counts


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
