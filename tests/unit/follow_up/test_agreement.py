"""Which lesions count as detected, on masks that are written out; figures and their intervals."""

import numpy as np
import pytest

from pipelines.follow_up.agreement import compare, count_agreement, detected, dice, figures_of, has_lesions, lesion_f1, lesions_of
from pipelines.follow_up.conclusion import AskedFigures, conclude
from pipelines.learning.result import Evaluation

ML = 0.001  # a voxel of 1 mm³


def line(*spans: tuple[int, int], length: int = 400) -> np.ndarray:
    """(1, 1, length) bool: True in the half-open spans."""
    mask = np.zeros((1, 1, length), bool)
    for start, stop in spans:
        mask[0, 0, start:stop] = True
    return mask


def found_by(reference: np.ndarray, others: np.ndarray) -> list[bool]:
    return detected(lesions_of(reference, ML), lesions_of(others, ML)).tolist()


def test_a_lesion_is_detected_from_more_than_a_tenth_of_it() -> None:
    assert found_by(line((0, 100)), line((90, 100))) == [False]  # exactly 10 %
    assert found_by(line((0, 100)), line((89, 100))) == [True]


def test_what_lies_mostly_outside_detects_nothing() -> None:
    assert found_by(line((0, 100)), line((70, 171))) == [False]  # 71 of 101 voxels outside
    assert found_by(line((0, 100)), line((70, 170))) == [True]  # 70 %
    # the largest part makes 65 % of what is covered: the small one, mostly outside, does not matter
    assert found_by(line((0, 100)), line((0, 80), (95, 140))) == [True]


def test_lesions_of_three_cubic_millimetres_do_not_count() -> None:
    assert int(lesions_of(line((0, 3), (10, 14)), ML).max()) == 1


def test_a_reference_of_marks_that_do_not_count_has_no_lesions() -> None:
    assert not has_lesions(line((0, 3), (10, 13)), ML)
    assert has_lesions(line((0, 3), (10, 14)), ML)
    assert not has_lesions(line(), ML)


def test_figures_of_two_found_one_missed_and_one_false() -> None:
    reference, found = line((0, 20), (40, 60), (80, 100)), line((0, 20), (45, 65), (200, 220))
    counts = count_agreement(reference, {"ours": found, "none": line()}, ML)
    total = counts.by_method["ours"].sum(axis=0)
    assert total.tolist() == [60, 60, 35, 3, 2, 3, 2]
    assert float(dice(total)) == pytest.approx(70 / 120)
    assert float(lesion_f1(total)) == pytest.approx(2 / 3)
    assert float(lesion_f1(counts.by_method["none"].sum(axis=0))) == 0
    figures = figures_of(counts, 0.95)
    assert figures["ours"]["volume_difference_ml"].value == pytest.approx(0)
    assert figures["none"]["volume_difference_ml"].value == pytest.approx(-0.06)
    for one in figures["ours"].values():
        assert one.value is not None
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.value <= one.high


def test_intervals_shrink_with_more_lesions_and_cover_the_truth() -> None:
    """Lesions are found with probability 0.6: the 95 % interval of sensitivity holds it in most of 60 made patients."""
    draw = np.random.default_rng(0)
    held = []
    for _ in range(60):
        spans = [(20 * n, 20 * n + 10) for n in range(30)]
        found = [span for span in spans if draw.random() < 0.6]
        counts = count_agreement(line(*spans, length=700), {"ours": line(*found, length=700)}, ML)
        one = figures_of(counts, 0.95, 400)["ours"]["sensitivity"]
        assert one.low is not None
        assert one.high is not None
        held.append(one.low <= 0.6 <= one.high)
    assert np.mean(held) > 0.85


def test_the_difference_of_a_method_from_itself_is_nothing() -> None:
    reference, found = line((0, 20), (40, 60), (80, 100)), line((0, 20), (45, 65))
    counts = count_agreement(reference, {"proposal": found, "differencing": found}, ML)
    _, _, difference = compare([counts, counts], "lesion_f1", "proposal", "differencing", 0.95)
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_a_conclusion_says_what_two_patients_cannot_say() -> None:
    reference, good = line((0, 20), (40, 60), (80, 100)), line((0, 20), (45, 65))
    counts = count_agreement(reference, {"proposal": good, "differencing": line((300, 320))}, ML)
    thresholds = {name: {"proposal": 3.5, "differencing": 5.0} for name in "ab"}
    evaluation = conclude({"a": counts, "b": counts}, thresholds, AskedFigures(resamples=200), thresholds["a"])
    assert evaluation.verdict.outcomes["differencing"] == "beats"
    assert "say nothing of other patients" in " ".join(evaluation.notes)
    assert "chosen on 1 other patient" in " ".join(evaluation.notes)
    assert "not whether a lesion is new" in " ".join(evaluation.notes)
    assert Evaluation.from_json(evaluation.to_json()).verdict == evaluation.verdict
