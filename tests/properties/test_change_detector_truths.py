"""Properties of a detector for any series: symmetry, invariance to the level, and no memory but the state."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.monitoring.detector import Calibration, Detector, monitoring
from pipelines.monitoring.harmonic_model import HarmonicModel
from pipelines.monitoring.sequential_test import Cusum, Ewma, Mosum, Run

DAYS = np.arange(17000.0, 17000 + 4 * 365, 15)
PAST = DAYS < 17000 + 2 * 365
TESTS = st.sampled_from([(Cusum(), 6.0), (Mosum(4), 5.0), (Ewma(), 5.0), (Run(2), 3.0)])


@st.composite
def series(draw):
    """(x, valid) with a curve, noise, clouds and at most one step in the monitored period."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = draw(st.floats(-0.5, 0.5)) + 0.2 * np.sin(DAYS / 58)[:, None, None] + rng.normal(0, 0.03, (len(DAYS), 2, 3))
    x[draw(st.integers(PAST.sum(), len(DAYS))) :] += draw(st.sampled_from([-0.4, 0.0, 0.4]))
    valid = rng.random(x.shape) > draw(st.floats(0, 0.6))
    return np.where(valid, x, 0).astype(np.float32), valid


def judge(detector, x, valid):
    fitted = detector.fit(x[PAST], valid[PAST], DAYS[PAST])
    return detector.layers(fitted, monitoring(detector, fitted, x[~PAST], valid[~PAST], DAYS[~PAST]))


def build(test, direction="both"):
    return Detector(HarmonicModel(), test[0], Calibration(test[1]), direction)


@settings(max_examples=25)
@given(series(), TESTS)
def test_a_mirrored_series_changes_the_other_way(pair, test):
    x, valid = pair
    plain, mirrored = judge(build(test), x, valid), judge(build(test), -x, valid)
    np.testing.assert_array_equal(plain["detected_day"], mirrored["detected_day"])
    np.testing.assert_array_equal(plain["change_day"], mirrored["change_day"])
    np.testing.assert_array_equal(plain["direction"], -mirrored["direction"])
    np.testing.assert_array_equal(plain["magnitude"], -mirrored["magnitude"])


@settings(max_examples=25)
@given(series(), TESTS)
def test_direction_down_and_up_never_find_more_than_both(pair, test):
    x, valid = pair
    both, down, up = (judge(build(test, direction), x, valid) for direction in ("both", "down", "up"))
    first = np.fmin(down["detected_day"], up["detected_day"])
    np.testing.assert_array_equal(both["detected_day"], first)


@settings(max_examples=25)
@given(series(), TESTS, st.data())
def test_an_interrupted_monitoring_run_ends_in_equal_bits(pair, test, data):
    x, valid = pair
    detector = build(test)
    fitted = detector.fit(x[PAST], valid[PAST], DAYS[PAST])
    now, seen, days = x[~PAST], valid[~PAST], DAYS[~PAST]
    cut = data.draw(st.integers(0, len(days)))
    whole = monitoring(detector, fitted, now, seen, days)
    state = monitoring(detector, fitted, now[:cut], seen[:cut], days[:cut])
    for x_YX, valid_YX, day in zip(now[cut:], seen[cut:], days[cut:], strict=True):
        state = detector.advance(fitted, state, x_YX, valid_YX, float(day))
    assert {name: value.tobytes() for name, value in state.items()} == {name: value.tobytes() for name, value in whole.items()}


@settings(max_examples=25)
@given(series(), TESTS)
def test_values_under_clouds_are_ignored(pair, test):
    x, valid = pair
    other = np.where(valid, x, np.float32(-7))
    plain, clouded = judge(build(test), x, valid), judge(build(test), other, valid)
    for name in plain:
        np.testing.assert_array_equal(plain[name], clouded[name], err_msg=name)


@settings(max_examples=25)
@given(series(), TESTS)
def test_layers_agree_with_each_other(pair, test):
    layers = judge(build(test), *pair)
    found = layers["status"] == 2
    assert (np.isfinite(layers["detected_day"]) == found).all()
    assert (np.isfinite(layers["change_day"]) == found).all()
    assert ((layers["direction"] != 0) == found).all()
    assert ((layers["magnitude"] != 0) == found).all()
    assert (layers["score"][found] >= test[1]).all()
    assert (layers["change_day"][found] <= layers["detected_day"][found]).all()
    assert ((layers["confidence"] >= 0) & (layers["confidence"] <= 1)).all()


def test_a_shifted_season_is_only_a_shift():
    """The same series a year later gives the same change a year later."""
    rng = np.random.default_rng(0)
    x = 0.2 * np.cos(2 * np.pi * DAYS / 365.2422)[:, None, None] + rng.normal(0, 0.03, (len(DAYS), 3, 3))
    x[70:] -= 0.4
    valid = np.ones(x.shape, bool)
    detector, x = build((Cusum(), 6.0)), x.astype(np.float32)
    days = []
    for shift in (0.0, 365.2422):
        fitted = detector.fit(x[PAST], valid[PAST], DAYS[PAST] + shift)
        state = monitoring(detector, fitted, x[~PAST], valid[~PAST], DAYS[~PAST] + shift)
        days.append(detector.layers(fitted, state)["detected_day"] - shift)
    assert days[0] == pytest.approx(days[1], abs=1e-6)
