"""Thresholds from the history: the stated rate on noise, blindness to the future, and what is said where it cannot be done."""

import math
from dataclasses import asdict

import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.monitoring.calibration import calibrate, reached_by
from pipelines.monitoring.detector import CONFIDENCE_LEVELS, Calibration, Detector, Observations, monitoring
from pipelines.monitoring.harmonic_model import HarmonicModel
from pipelines.monitoring.sequential_test import Cusum, Ewma, Mosum
from pipelines.monitoring.stable import YearLevels, choose_stable

DAYS = np.arange(17000.0, 17000 + 7 * 365.25, 16)
START = 17000 + 5 * 365.25
PAST = START > DAYS


def noise(shape_yx=(30, 30), seed=0, level=0.7):
    x = level - 0.2 * np.cos(2 * np.pi * DAYS / 365.2422)[:, None, None]
    x = x + np.random.default_rng(seed).normal(0, 0.03, (len(DAYS), *shape_yx))
    return x.astype(np.float32), np.ones(x.shape, bool)


def probe(test=None, direction="down"):
    return Detector(HarmonicModel(), test or Cusum(1.0, 4.0), Calibration(math.inf), direction)


@pytest.mark.parametrize("direction", ["down", "both"])
@pytest.mark.parametrize("test", [Cusum(1.0, 4.0), Ewma(), Mosum()], ids=lambda t: type(t).__name__)
def test_the_rate_on_noise_is_the_stated_one(test, direction):
    x, valid = noise()
    requested = 50.0
    found, _ = calibrate(probe(test, direction), Observations(x, valid, DAYS), false_alarms=requested, start_day=START)
    fitted = found.fit(x[PAST], valid[PAST], DAYS[PAST])
    layers = found.layers(fitted, monitoring(found, fitted, x[~PAST], valid[~PAST], DAYS[~PAST]))
    rate = 1000 * np.isfinite(layers["detected_day"]).mean() / 2
    assert 0.5 * requested < rate < 1.6 * requested


def test_the_future_is_not_looked_at():
    x, valid = noise((20, 20))
    other = x.copy()
    other[~PAST] = -1
    a, _ = calibrate(probe(), Observations(x, valid, DAYS), false_alarms=30, start_day=START)
    b, _ = calibrate(probe(), Observations(other, valid, DAYS), false_alarms=30, start_day=START)
    assert a.key == b.key


def test_change_in_the_history_does_not_set_the_threshold():
    x, valid = noise()
    felled = x.copy()
    felled[(DAYS > START - 500) & PAST, :10] -= 0.4
    plain, _ = calibrate(probe(), Observations(x, valid, DAYS), false_alarms=30, start_day=START)
    changed, report = calibrate(probe(), Observations(felled, valid, DAYS), false_alarms=30, start_day=START)
    assert report.pixels <= 20 * 30
    assert changed.calibration.threshold == pytest.approx(plain.calibration.threshold, rel=0.2)


def test_a_wider_rate_gives_a_lower_threshold_and_the_report_says_what_it_rests_on():
    x, valid = noise()
    strict, report = calibrate(probe(), Observations(x, valid, DAYS), false_alarms=10, start_day=START)
    loose, _ = calibrate(probe(), Observations(x, valid, DAYS), false_alarms=100, start_day=START)
    assert loose.calibration.threshold < strict.calibration.threshold
    assert strict.calibration.false_alarms == 10
    assert len(strict.calibration.maxima) == len(CONFIDENCE_LEVELS)
    assert list(strict.calibration.maxima) == sorted(strict.calibration.maxima)
    assert len(report.years) == 5
    assert report.limit == pytest.approx(0.09, rel=0.15)  # three spreads
    assert 890 <= asdict(report)["pixels"] <= 900


def test_a_threshold_set_by_hand_is_kept_and_the_confidence_is_calibrated_all_the_same():
    x, valid = noise()
    found, _ = calibrate(probe(), Observations(x, valid, DAYS), false_alarms=10, start_day=START, threshold=8.9)
    assert found.calibration.threshold == 8.9
    assert found.calibration.false_alarms is None
    assert found.calibration.maxima
    young, report = calibrate(probe(), Observations(x, valid, DAYS), false_alarms=10, start_day=17000 + 200, threshold=8.9)
    assert young.calibration == Calibration(8.9)
    assert asdict(report) == {"pixels": 0, "years": {}, "limit": None}


def test_a_short_history_says_what_to_do():
    x, valid = noise((9, 9))
    with pytest.raises(
        RequestError, match=r"at least two years of history before monitoring.start 20\d\d-\d\d-\d\d, found 13 dates"
    ):
        calibrate(probe(), Observations(x, valid, DAYS), false_alarms=10, start_day=17000 + 200)
    with pytest.raises(RequestError, match=r"found no date; begin later, or set monitoring.test.threshold"):
        calibrate(probe(), Observations(x, valid, DAYS), false_alarms=10, start_day=16000)


def test_too_few_pixels_for_the_rate_say_how_many_are_needed():
    x, valid = noise((6, 6))
    with pytest.raises(RequestError, match=r"expected at least 1000 stable pixels times years in the history, found 180"):
        calibrate(probe(), Observations(x, valid, DAYS), false_alarms=1, start_day=START)


def test_a_share_reaches_the_threshold_at_most():
    assert reached_by(np.arange(1.0, 101), 0.1) == 91
    assert reached_by(np.zeros(5), 0.1) > 0
    assert reached_by(np.array([1.0, 2, 10, 10]), 0.5) == 10  # both that reach 10 are allowed
    assert reached_by(np.array([1.0, 2, 10, 10]), 0.25) > 10  # one is, so it lies beyond both
    assert reached_by(np.array([1.0, 10, 10, 12]), 0.5) == 12


def test_stable_pixels_lie_near_change_only_where_they_must():
    level = np.full((2, 60, 60), 0.9, np.float32)
    level[1, 30:] = 0.2
    wide = choose_stable(YearLevels(np.array([2016, 2017]), level, (6, 7, 8)), 0.15, "down")
    assert wide[:28].all()
    assert not wide[28:].any()
    narrow = choose_stable(YearLevels(np.array([2016, 2017]), level[:, 20:], (6, 7, 8)), 0.15, "down")
    assert narrow[:10].all()
    assert not narrow[10:].any()
    nothing = choose_stable(YearLevels(np.array([2016]), level[:1] * np.nan, (6, 7, 8)), 0.15, "down")
    assert nothing.all()
