"""The detector on series whose change is known: when, how much, which way; and what the contract promises about states."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.monitoring.detector import (
    CHANGED,
    CONFIDENCE_LEVELS,
    LAYER_DTYPES,
    NOT_MONITORED,
    NOTHING_FOUND,
    Calibration,
    Detector,
    monitoring,
)
from pipelines.monitoring.harmonic_model import HarmonicModel
from pipelines.monitoring.sequential_test import Cusum, Ewma, Mosum, Run

DAYS = np.arange(17000.0, 17000 + 5 * 365, 10)
START = 17000 + 3 * 365
PAST = START > DAYS
TESTS = [(Cusum(), 8.0), (Mosum(), 7.0), (Ewma(), 7.0), (Run(3), 4.0)]


def forest(noise=0.03, shape_yx=(3, 4), seed=0):
    """(x, valid) of a green summer and a grey winter, a third of it clouded."""
    rng = np.random.default_rng(seed)
    x = 0.6 - 0.2 * np.cos(2 * np.pi * DAYS / 365.2422)[:, None, None] + rng.normal(0, noise, (len(DAYS), *shape_yx))
    valid = rng.random(x.shape) > 0.33
    return np.where(valid, x, 0).astype(np.float32), valid


def detector(test=None, threshold=8.0, direction="both", **more):
    return Detector(HarmonicModel(), test or Cusum(), Calibration(threshold), direction, **more)


def judge(found, x, valid):
    fitted = found.fit(x[PAST], valid[PAST], DAYS[PAST])
    return found.layers(fitted, monitoring(found, fitted, x[~PAST], valid[~PAST], DAYS[~PAST]))


def with_step(x, valid, size, day=START + 200):
    return np.where(valid & (day <= DAYS)[:, None, None], x + np.float32(size), x).astype(np.float32)


@pytest.mark.parametrize(("test", "threshold"), TESTS, ids=lambda v: type(v).__name__)
def test_a_constant_series_has_no_change(test, threshold):
    x = np.full((len(DAYS), 2, 2), 0.7, np.float32)
    layers = judge(detector(test, threshold), x, np.ones(x.shape, bool))
    assert (layers["status"] == NOTHING_FOUND).all()
    assert np.isnan(layers["change_day"]).all()
    assert not layers["direction"].any()


@pytest.mark.parametrize("size", [-0.3, 0.3])
def test_a_step_is_found_with_its_date_size_and_direction(size):
    x, valid = forest()
    day = START + 200
    layers = judge(detector(), with_step(x, valid, size, day), valid)
    assert (layers["status"] == CHANGED).all()
    assert (layers["direction"] == np.sign(size)).all()
    np.testing.assert_allclose(layers["magnitude"], size, atol=0.05)
    for y, column in np.ndindex(x.shape[1:]):
        acquisitions = DAYS[valid[:, y, column] & (day <= DAYS)]
        assert layers["change_day"][y, column] <= acquisitions[1]  # within one observation of the truth
        assert layers["change_day"][y, column] >= DAYS[valid[:, y, column] & (day > DAYS)][-1]
        assert (
            acquisitions[3] <= layers["detected_day"][y, column] <= acquisitions[5]
        )  # a capped look adds 2 of the 8 that are needed


@pytest.mark.parametrize(("test", "threshold"), TESTS, ids=lambda v: type(v).__name__)
def test_every_test_finds_a_large_step(test, threshold):
    x, valid = forest()
    layers = judge(detector(test, threshold, "down"), with_step(x, valid, -0.4), valid)
    assert (layers["status"] == CHANGED).all()
    assert (layers["detected_day"] - (START + 200) < 200).all()


def test_only_the_wanted_direction_alarms():
    x, valid = forest()
    rising = with_step(x, valid, 0.3)
    assert (judge(detector(direction="down"), rising, valid)["status"] == NOTHING_FOUND).all()
    assert (judge(detector(direction="up"), rising, valid)["status"] == CHANGED).all()


def test_the_first_change_is_kept_and_a_return_is_said():
    x, valid = forest()
    broken = with_step(with_step(x, valid, -0.3), valid, 0.3, START + 400)
    layers = judge(detector(direction="down"), broken, valid)
    assert (layers["status"] == CHANGED).all()
    assert (layers["detected_day"] < START + 400).all()
    assert (layers["recovered_day"] > START + 400).all()
    assert np.isnan(judge(detector(direction="down"), with_step(x, valid, -0.3), valid)["recovered_day"]).all()


def test_one_terrible_date_is_no_change():
    x, valid = forest()
    n = int(np.flatnonzero(~PAST)[20])
    x[n], valid[n] = -1, True
    assert (judge(detector(), x, valid)["status"] == NOTHING_FOUND).all()


def test_a_pixel_without_enough_history_is_not_monitored():
    x, valid = forest()
    valid[PAST, 0, 0] = False
    valid[np.flatnonzero(PAST)[:11], 0, 0] = True
    layers = judge(detector(min_history=12), with_step(x, valid, -0.4), valid)
    assert layers["status"][0, 0] == NOT_MONITORED
    assert np.isnan(layers["detected_day"][0, 0])
    assert layers["score"][0, 0] == 0
    assert (layers["status"].ravel()[1:] == CHANGED).all()


@pytest.mark.parametrize("test", [test for test, _ in TESTS], ids=lambda t: type(t).__name__)
def test_night_by_night_equals_a_replay_bit_for_bit(test):
    x, valid = forest()
    x = with_step(x, valid, -0.2)
    found = detector(test)
    fitted = found.fit(x[PAST], valid[PAST], DAYS[PAST])
    whole = monitoring(found, fitted, x[~PAST], valid[~PAST], DAYS[~PAST])
    state = found.begin(fitted)
    for n in np.flatnonzero(~PAST):
        stored = {name: value.tobytes() for name, value in state.items()}  # as a file does
        state = {name: np.frombuffer(stored[name], value.dtype).reshape(value.shape) for name, value in state.items()}
        state = found.advance(fitted, state, x[n], valid[n], float(DAYS[n]))
    assert {name: value.tobytes() for name, value in state.items()} == {name: value.tobytes() for name, value in whole.items()}


def test_a_tile_is_watched_as_the_whole():
    x, valid = forest(shape_yx=(6, 7))
    x = with_step(x, valid, -0.2)
    found = detector()
    fitted = found.fit(x[PAST], valid[PAST], DAYS[PAST])
    whole = monitoring(found, fitted, x[~PAST], valid[~PAST], DAYS[~PAST])
    part = {name: value[..., 2:5, 3:] for name, value in fitted.items()}
    tile = monitoring(found, part, x[~PAST, 2:5, 3:], valid[~PAST, 2:5, 3:], DAYS[~PAST])
    for name, value in whole.items():
        np.testing.assert_array_equal(tile[name], value[..., 2:5, 3:], err_msg=name)


def test_an_all_cloud_date_changes_no_bit():
    x, valid = forest()
    found = detector()
    fitted = found.fit(x[PAST], valid[PAST], DAYS[PAST])
    state = monitoring(found, fitted, x[~PAST][:30], valid[~PAST][:30], DAYS[~PAST][:30])
    after = found.advance(fitted, state, np.full(x.shape[1:], -9, np.float32), np.zeros(x.shape[1:], bool), 99999.0)
    assert {name: value.tobytes() for name, value in after.items()} == {name: value.tobytes() for name, value in state.items()}


def test_arrays_end_in_y_x_and_keep_their_dtype():
    x, valid = forest()
    found = detector()
    fitted = found.fit(x[PAST], valid[PAST], DAYS[PAST])
    begun = found.begin(fitted)
    after = found.advance(fitted, begun, x[-1], valid[-1], float(DAYS[-1]))
    for arrays in (fitted, begun, after, found.layers(fitted, after)):
        assert all(value.shape[-2:] == (3, 4) for value in arrays.values())
    assert {name: value.dtype for name, value in begun.items()} == {name: value.dtype for name, value in after.items()}
    assert {name: plane.dtype for name, plane in found.layers(fitted, after).items()} == LAYER_DTYPES


def test_confidence_is_the_share_of_stable_pixels_that_stay_below():
    maxima = tuple(np.linspace(0, 11, len(CONFIDENCE_LEVELS)))
    found = replace(detector(), calibration=Calibration(8.0, 10.0, maxima))
    x, valid = forest()
    quiet, loud = judge(found, x, valid), judge(found, with_step(x, valid, -0.4), valid)
    assert (loud["confidence"] == 1).all()
    assert (quiet["confidence"] < 0.99).all()
    assert (judge(detector(), x, valid)["confidence"] == 0).all()


def test_the_key_tells_settings_apart():
    keys = {
        detector().key,
        detector(threshold=9.0).key,
        detector(direction="up").key,
        detector(Cusum(cap=5)).key,
        detector(Mosum()).key,
        detector(min_history=13).key,
        replace(detector(), value_model=HarmonicModel(3)).key,
    }
    assert len(keys) == 7
    assert detector().key == detector().key
