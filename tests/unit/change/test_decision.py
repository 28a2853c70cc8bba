import numpy as np
import pytest
from scipy.special import expit

from pipelines.change.decision import CalibrationTally
from pipelines.errors import RequestError


def fit(value, label):
    tally = CalibrationTally()
    tally.add(np.asarray(value, np.float32), np.asarray(label, bool))
    return tally.fit("here")


def test_scale_and_bias_of_a_logistic_truth_are_found():
    rng = np.random.default_rng(0)
    value = rng.normal(0, 2, 200_000)
    scale, bias = fit(value, rng.random(200_000) < expit(1.5 * value - 3))
    assert scale == pytest.approx(1.5, abs=0.05)
    assert bias == pytest.approx(-3, abs=0.08)


def test_piece_by_piece_is_the_same_as_at_once_and_nan_is_left_out():
    value, label = np.linspace(-3, 3, 1000), np.arange(1000) % 7 > 3
    tally = CalibrationTally()
    for start in range(0, 1000, 100):
        tally.add(np.append(value[start : start + 100], np.nan), np.append(label[start : start + 100], True))
    assert tally.fit("here") == fit(value, label)


def test_a_value_that_says_the_opposite_gives_the_base_rate():
    value = np.linspace(-3, 3, 1000)
    scale, bias = fit(value, value < -1)
    assert scale == 0
    assert expit(bias) == pytest.approx(np.mean(value < -1), abs=1e-3)


def test_classes_that_values_separate_do_not_run_away():
    scale, bias = fit([-1.0] * 50 + [1.0] * 50, [False] * 50 + [True] * 50)
    assert np.isfinite([scale, bias]).all()
    assert expit(scale + bias) == pytest.approx(51 / 52, abs=1e-3)


def test_values_beyond_the_bins_count_at_their_end():
    scale, bias = fit([-1e9, -50, 50, 1e9] * 10, [False, False, True, True] * 10)
    assert np.isfinite([scale, bias]).all()
    assert scale > 0


def test_one_class_is_refused():
    with pytest.raises(RequestError, match=r"here has 0 changed and 3 unchanged pixels.*evaluation.groups"):
        fit([1, 2, 3], [False] * 3)
