"""Average precision, precision and recall of boxes, against cases computed by hand."""

import numpy as np
import pytest

from pipelines.learning.box_metrics import (
    average_precision,
    count_boxes,
    describe_boxes,
    gain,
    mean_precision,
    score_boxes,
)
from pipelines.samples.boxes import Boxes, one_label, overlap

SQUARE, BESIDE, FAR = (0, 0, 10, 10), (0, 3, 10, 13), (30, 30, 40, 40)  # of SQUARE and BESIDE 70 of 130 pixels are shared


def boxes(*rows: tuple[int, int, tuple[int, ...], int, float]) -> Boxes:
    """(sample, frame, edges, class, score)."""
    return Boxes.of_table(np.array([[sample, frame, *edges, k, score] for sample, frame, edges, k, score in rows]))


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (SQUARE, SQUARE, 1),
        (SQUARE, FAR, 0),
        (SQUARE, BESIDE, 70 / 130),
        (SQUARE, (10, 0, 20, 10), 0),
        (SQUARE, (0, 0, 5, 10), 0.5),
    ],
)
def test_the_overlap_is_the_shared_part_of_the_union(one, other, shared):
    assert overlap(one, other) == pytest.approx(shared)
    assert overlap(other, one) == pytest.approx(shared)


@pytest.mark.parametrize(
    ("is_right", "known", "expected"),
    [
        ([1, 1], 2, 1.0),
        ([1, 0, 1], 2, 0.5 * 1 + 0.5 * 2 / 3),
        ([0, 1], 1, 0.5),
        ([0, 1, 1, 0], 4, 0.25 * 2 / 3 + 0.25 * 2 / 3),  # precision 1/2 at the first right box is raised to the later 2/3
        ([1], 4, 0.25),
        ([0, 0], 3, 0.0),
        ([], 3, 0.0),
    ],
)
def test_average_precision_by_hand(is_right, known, expected):
    assert average_precision(np.array(is_right, bool), np.ones(len(is_right)), known) == pytest.approx(expected)


def test_without_a_known_box_it_is_not_defined():
    assert np.isnan(average_precision(np.array([False]), np.ones(1), 0))


def test_a_known_box_is_found_once_and_in_its_frame_sample_and_class_alone():
    known = boxes((0, 0, SQUARE, 0, 1), (0, 1, SQUARE, 0, 1), (1, 0, SQUARE, 1, 1))
    found = boxes(
        (0, 0, BESIDE, 0, 0.9),  # right: an overlap of 0.54
        (0, 0, SQUARE, 0, 0.8),  # the better one comes too late
        (0, 1, FAR, 0, 0.7),
        (1, 0, SQUARE, 0, 0.6),  # another class
        (1, 0, SQUARE, 1, 0.5),
        (2, 0, SQUARE, 0, 0.4),  # a sample that is not asked for
    )
    scored = score_boxes(found, known, {0: 0, 1: 1}, 2)
    assert scored.is_right_X.tolist() == [True, False, False, False, True]
    assert mean_precision(scored, np.ones((1, 2)))[0] == pytest.approx((0.5 * 1 + 1.0) / 2)
    assert mean_precision(scored, np.array([[1.0, 0.0]]))[0] == pytest.approx(0.5)  # group 1 left out, and class 1 with it
    published = score_boxes(one_label(found, 0.55), known, {0: 0, 1: 1}, 2)
    assert count_boxes(published).sum(axis=0).tolist() == [[1, 3, 1], [0, 0, 1]]
    described = describe_boxes(scored, published, ["a", "b"], 0.95)
    assert described["precision"]["value"] == pytest.approx(1 / 4)
    assert described["recall"]["value"] == pytest.approx(1 / 3)
    assert [row["ap50"]["value"] for row in described["classes"]] == pytest.approx([0.5, 1.0])
    assert described["classes"][0]["known"] == 2


def test_the_best_known_box_that_is_left_is_taken():
    known = boxes((0, 0, SQUARE, 0, 1), (0, 0, BESIDE, 0, 1))
    found = boxes((0, 0, BESIDE, 0, 0.9), (0, 0, BESIDE, 0, 0.8))
    assert score_boxes(found, known, {0: 0}, 1).is_right_X.tolist() == [True, True]


def test_of_boxes_around_the_same_thing_the_surest_is_published():
    found = boxes(
        (0, 0, SQUARE, 0, 0.4),
        (0, 0, (0, 1, 10, 11), 1, 0.5),  # overlaps it by 0.82
        (0, 0, BESIDE, 1, 0.3),
        (0, 1, SQUARE, 1, 0.35),
        (0, 2, SQUARE, 1, 0.2),
    )
    assert one_label(found, 0.25).score_X.tolist() == [0.5, 0.3, 0.35]
    assert len(one_label(found, 0.9)) == 0


def test_a_difference_is_measured_in_pairs_of_groups():
    known = boxes(*((n, 0, SQUARE, 0, 1) for n in range(12)))
    groups = {n: n for n in range(12)}
    better = score_boxes(boxes(*((n, 0, SQUARE, 0, 0.9) for n in range(12))), known, groups, 1)
    worse = score_boxes(boxes(*((n, 0, SQUARE, 0, 0.9) for n in range(6))), known, groups, 1)
    found = gain(better, worse, 0.95)
    assert found.value == pytest.approx(0.5)
    assert found.outcome(0.01) == "beats"
    assert found.low is not None
    assert found.low < 0.5 < found.high
    assert gain(better, better, 0.95).outcome(0.01) == "equal"
