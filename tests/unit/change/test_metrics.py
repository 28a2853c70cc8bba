import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from pipelines.change.metrics import (
    Counts,
    Reliability,
    ScoreHistogram,
    bin_of,
    count_changes,
    lower_edge,
    score_sites,
)


def best_threshold(score, label):
    histogram = ScoreHistogram()
    histogram.add(score, label)
    return histogram.best_threshold()


LABEL = np.array([[1, 1, 1, 0], [0, 0, 255, 255]], np.uint8)
MAPPED = np.array([[1, 1, 0, 1], [0, 0, 1, 0]], bool)


def test_counts_and_scores_by_hand():
    counts = count_changes(MAPPED, LABEL)
    assert counts == Counts(true_changed=2, false_changed=1, missed=1, true_unchanged=2)
    assert (counts.precision, counts.recall) == (2 / 3, 2 / 3)
    assert counts.f1 == pytest.approx(2 / 3)
    assert counts.iou == 0.5
    assert counts.pixels == 6
    assert counts.undefined == {}


@pytest.mark.parametrize("shape", [(8,), (2, 4), (2, 2, 2)], ids=["labels", "image", "volume"])
def test_what_is_counted_may_have_any_axes(shape):
    assert count_changes(MAPPED.reshape(shape), LABEL.reshape(shape)) == count_changes(MAPPED, LABEL)
    histogram, flat = ScoreHistogram(), ScoreHistogram()
    histogram.add(MAPPED.astype(np.float32).reshape(shape), LABEL.reshape(shape))
    flat.add(MAPPED.astype(np.float32).ravel(), LABEL.ravel())
    assert np.array_equal(histogram.pixels_2S, flat.pixels_2S)


def test_pixels_that_were_not_seen_do_not_count():
    usable = np.ones(LABEL.shape, bool)
    usable[0, 3] = False  # the false alarm
    assert count_changes(MAPPED, LABEL, usable) == Counts(2, 0, 1, 2)


def test_without_change_scores_are_none_with_a_reason_and_never_zero():
    counts = count_changes(np.array([True, False]), np.array([0, 0], np.uint8))
    assert (counts.precision, counts.recall, counts.f1, counts.iou) == (0.0, None, None, None)
    assert counts.undefined == dict.fromkeys(("recall", "f1", "iou"), "no usable pixel is labelled changed")
    assert counts.to_json()["undefined"] == counts.undefined


def test_change_that_is_missed_altogether_has_f1_zero_and_no_precision():
    counts = count_changes(np.array([False, False]), np.array([1, 0], np.uint8))
    assert (counts.precision, counts.recall, counts.f1, counts.iou) == (None, 0.0, 0.0, 0.0)
    assert counts.undefined == {"precision": "no usable pixel is mapped changed"}


def test_where_nothing_was_seen_nothing_is_said():
    counts = count_changes(np.array([True]), np.array([255], np.uint8))
    assert counts.to_json()["undefined"]["f1"] == "no pixel is both seen and labelled"


def test_sites_add_up_to_the_pool():
    table = score_sites({"a": Counts(2, 1, 1, 2), "b": Counts(0, 3, 0, 5)})
    assert table["pooled"]["f1"] == 2 * 2 / (2 * 2 + 4 + 1)
    assert table["mean_f1_of_sites"] == pytest.approx(2 / 3)
    assert table["sites_with_change"] == 1
    assert table["sites"]["b"]["f1"] is None


def test_wrong_codes_shapes_and_types_are_named():
    with pytest.raises(ValueError, match=r"codes \[2\]; 0 is unchanged"):
        count_changes(np.array([True]), np.array([2], np.uint8))
    with pytest.raises(ValueError, match=r"shape \(2,\), the label \(1,\)"):
        count_changes(np.array([True, False]), np.array([1], np.uint8))
    with pytest.raises(ValueError, match="not bool; compare the score"):
        count_changes(np.array([0.5]), np.array([1], np.uint8))
    with pytest.raises(ValueError, match="smallest is -1"):
        best_threshold(np.array([-1.0]), np.array([1], np.uint8))
    with pytest.raises(ValueError, match="between 0 and 1, not 0 and 2"):
        Reliability().add(np.array([0.0, 2.0]), np.array([1, 0], np.uint8))


def exact_best_f1(score, label):
    return max(count_changes(score >= threshold, label).f1 for threshold in np.unique(score))


@given(st.integers(0, 10_000), st.sampled_from([1.0, 40.0, 1e-6]))
def test_the_best_threshold_is_that_of_trying_all(seed, scale):
    rng = np.random.default_rng(seed)
    label = rng.choice([0, 0, 0, 1, 255], 60).astype(np.uint8)
    label[0] = 1
    score = (np.round(rng.random(60) * 64) / 64 * scale).astype(np.float32) if scale == 1 else rng.random(60, np.float32) * scale
    best = best_threshold(score, label)
    assert best.counts == count_changes(score >= best.value, label)  # what is promised is what the threshold gives
    assert best.counts.f1 == pytest.approx(exact_best_f1(score, label), abs=1e-3 if scale == 1 else 0.05)


def test_the_best_threshold_is_exact_where_scores_are_bin_edges():
    rng = np.random.default_rng(0)
    score = rng.integers(0, 1024, 500).astype(np.float32) / 1024
    label = (rng.random(500) < score**2).astype(np.uint8)
    assert best_threshold(score, label).counts.f1 == exact_best_f1(score, label)


def test_pieces_equal_the_whole_and_nan_is_not_seen():
    rng = np.random.default_rng(1)
    score = rng.random((40, 50), np.float32)
    score[3] = np.nan
    label = rng.choice([0, 1, 255], (40, 50)).astype(np.uint8)
    whole, pieces = ScoreHistogram(), ScoreHistogram()
    whole.add(score, label)
    pieces.add(score[:17], label[:17])
    pieces.add(score[17:], label[17:])
    assert np.array_equal(whole.pixels_2S, pieces.pixels_2S)
    assert whole.pixels_2S.sum() == np.count_nonzero((label != 255) & np.isfinite(score))
    best = whole.best_threshold()
    assert best.counts == count_changes(score >= best.value, label, np.isfinite(score))


def test_nothing_changed_has_no_threshold_and_no_area():
    histogram = ScoreHistogram()
    assert histogram.best_threshold() is None
    histogram.add(np.array([0.5, 0.1]), np.array([0, 0], np.uint8))
    assert histogram.best_threshold() is None
    assert histogram.average_precision() is None


def test_average_precision_is_that_of_scikit_learn():
    rng = np.random.default_rng(2)
    label = (rng.random(3000) < 0.03).astype(np.uint8)
    score = (np.round((rng.random(3000) * 0.7 + label * 0.3) * 512) / 512).astype(np.float32)  # with ties
    histogram = ScoreHistogram()
    histogram.add(score, label)
    assert histogram.average_precision() == pytest.approx(average_precision_score(label, score), abs=1e-12)


@given(st.floats(0, 2.0**120, width=32))
def test_every_score_lies_in_its_bin(score):
    index = bin_of(np.array([score]))
    assert lower_edge(index)[0] <= np.float32(score)
    assert lower_edge(index + 1)[0] > np.float32(score)


def test_the_edges_of_what_a_score_can_be_have_a_bin():
    histogram = ScoreHistogram()
    histogram.add(np.array([-0.0, 0.0, np.inf, 3.4e38], np.float32), np.array([0, 0, 1, 1], np.uint8))
    assert histogram.best_threshold().counts == Counts(2, 0, 0, 2)


def test_a_calibrated_probability_has_no_error_and_a_bold_one_has_its_excess():
    label = np.array([1, 0, 0, 0] * 25, np.uint8)
    honest, bold = Reliability(), Reliability()
    honest.add(np.full(100, 0.25), label)
    bold.add(np.full(100, 0.95), label)
    assert honest.expected_error() == pytest.approx(0.0)
    assert bold.expected_error() == pytest.approx(0.7)
    assert bold.table()[9] == pytest.approx({"from": 0.9, "to": 1.0, "pixels": 100, "claimed": 0.95, "happened": 0.25})
    assert bold.table()[0]["happened"] is None
    assert Reliability().expected_error() is None


def test_the_ends_of_the_scale_fall_into_the_outer_bins():
    table = Reliability(bins=4)
    table.add(np.array([0.0, 1.0, 0.25, np.nan]), np.array([0, 1, 0, 1], np.uint8))
    assert table.pixels.tolist() == [1, 1, 0, 1]
