"""A forecaster that predicts each new date: what it is asked, what it keeps, and that a break is not absorbed."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from models.baselines.pointwise import DecayingAnomaly
from models.networks.encoder_forecaster import ConvLSTMSettings
from models.residual_forecaster import Scaling, build_forecaster
from pipelines.monitoring.detector import Calibration, Detector, monitoring
from pipelines.monitoring.forecaster_model import CLIP, ForecasterModel
from pipelines.monitoring.harmonic_model import HarmonicModel
from pipelines.monitoring.sequential_test import Cusum

START = 17897.0  # 2019-01-01
CONTEXT = 4


def series(shape_yx=(6, 7), years=3, step=20.0, seed=0):
    rng = np.random.default_rng(seed)
    days = np.arange(START - years * 365.25, START + 400, step)
    season = 0.5 + 0.2 * np.cos(2 * math.pi * days / 365.2422)
    x = season[:, None, None] + 0.02 * rng.normal(size=(len(days), *shape_yx))
    valid = rng.random(x.shape) > 0.2
    return np.where(valid, x, 0).astype(np.float32), valid, days


def real_forecaster(seed=0):
    """A guide and two networks with random weights that say something."""
    forecaster = build_forecaster(
        DecayingAnomaly(15.0, 3, 1000.0, 0.8),
        Scaling((0.5,), (0.2,), ("none",), 20.0),
        context=CONTEXT,
        horizon=2,
        members=2,
        network=ConvLSTMSettings(hidden=(4,)),
        seed=seed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for member in forecaster.members:
            for parameter in member.parameters():
                torch.nn.init.normal_(parameter, std=0.05)
    return forecaster.eval()


def value_model(forecaster, halo_px=0):
    return ForecasterModel(forecaster, CONTEXT, 20.0, halo_px, "test", HarmonicModel())


@dataclass
class Listening:
    """Answers the mean of the context's last frame and writes down what it was asked."""

    asked: list = field(default_factory=list)

    def forecast(self, x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K):
        self.asked.append((x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K))
        return x_NCHW[context_T[-1:]]


def split(x, valid, days):
    past = days < START
    return (x[past], valid[past], days[past]), (x[~past], valid[~past], days[~past])


def test_it_is_asked_for_the_new_date_from_the_last_frames_with_the_history_for_the_guide():
    past, (x, valid, days) = split(*series())
    forecaster = Listening()
    expected = value_model(forecaster)
    fitted = expected.fit(*past)
    state = expected.begin(fitted)
    for n in range(6):
        state = expected.advance(fitted, state, x[n], valid[n], float(days[n]))
    forecaster.asked.clear()
    expected.predict(fitted, state, float(days[6]))
    ((asked_x, _, asked_days, context_T, usable_N, target),) = forecaster.asked
    assert target.tolist() == [days[6]]
    np.testing.assert_array_equal(asked_days[context_T].numpy(), days[2:6])
    np.testing.assert_array_equal(asked_days[usable_N].numpy(), past[2])
    assert asked_x.shape[0] == len(past[2]) + CONTEXT, "a date costs the same whatever lies before it"
    assert state["frames"].shape == (CONTEXT, *x.shape[1:])


def test_it_begins_with_the_last_frames_of_the_history_but_never_looks_ahead():
    past, _ = split(*series())
    forecaster = Listening()
    expected = value_model(forecaster)
    fitted = expected.fit(*past)
    state = expected.begin(fitted)
    np.testing.assert_array_equal(state["frames_day"].ravel(), past[2][-CONTEXT:])
    forecaster.asked.clear()
    day = float(past[2][-CONTEXT]) + 1  # a calibration monitors a year in the middle of its history
    expected.predict(fitted, state, day)
    _, valid, days, context_T, _, _ = forecaster.asked[0]
    assert float(days[context_T].max()) < day
    assert not valid[context_T[:-1]].any(), "frames from later dates are frames on which nothing was seen"
    assert (torch.diff(days[context_T]) > 0).all()


def test_the_history_is_forecast_without_half_a_year_around_each_date():
    past, _ = split(*series())
    forecaster = Listening()
    value_model(forecaster).fit(*past)
    assert len(forecaster.asked) == len(past[2]) - 1
    for _, _, days, context_T, usable_N, target in forecaster.asked:
        assert float((days[usable_N] - target).abs().min()) > 182
        assert float(days[context_T].max()) < float(target)


def test_the_spread_is_how_far_off_it_was_on_the_history():
    (x, valid, days), _ = split(*series((20, 20)))
    forecaster = real_forecaster()
    expected = value_model(forecaster)
    fitted = expected.fit(x, valid, days)
    _, spread = expected.predict(fitted, expected.begin(fitted), START)
    error, known, _ = expected._errors(fitted)
    typical = 1.4826 * np.median(np.abs(error[known] - np.median(error[known])))
    assert float(np.median(spread)) == pytest.approx(typical, rel=0.3)


def test_a_break_of_six_spreads_is_still_more_than_four_after_ten_dates():
    past, (_, valid, days) = split(*series(step=12.0))
    expected = value_model(
        build_forecaster(
            DecayingAnomaly(15.0, 3, 1e6, 1.0), Scaling((0.5,), (0.2,), ("none",), 12.0), context=CONTEXT, horizon=1, members=0
        )
    )  # fmt: skip  a guide that carries every anomaly on for ever
    detector = Detector(expected, Cusum(), Calibration(9.0))
    fitted = detector.fit(*past)
    curve = {name.removeprefix("curve."): value for name, value in fitted.items() if name.startswith("curve.")}
    curve_at = [HarmonicModel().predict(curve, {}, float(day)) for day in days]
    broken = np.stack([mean - 6 * spread for mean, spread in curve_at])
    valid[:] = True
    state = monitoring(detector, fitted, broken[:10], valid[:10], days[:10])
    residual, _ = detector.residual(fitted, state, broken[10], float(days[10]))
    off = residual / curve_at[10][1]
    assert float(np.median(off)) < -(6 - CLIP) + 0.5
    assert float(off.max()) < -4 + 0.5


def test_a_tile_with_its_halo_is_the_whole():
    past, new = split(*series((40, 30)))
    forecaster = real_forecaster()
    halo, _ = forecaster.halo_px(CONTEXT + 1)
    assert halo == CONTEXT + 1
    expected = value_model(forecaster, halo)
    rows, outer = slice(12, 26), slice(12 - halo, 26 + halo)

    def predicted(past, new):
        fitted = expected.fit(*past)
        state = expected.begin(fitted)
        for x_YX, valid_YX, day in zip(*(part[:6] for part in new), strict=True):
            state = expected.advance(fitted, state, x_YX, valid_YX, float(day))
        return expected.predict(fitted, state, float(new[2][6]))

    whole = predicted(past, new)
    tile = predicted(*((x[:, outer], valid[:, outer], days) for x, valid, days in (past, new)))
    for of_tile, of_whole in zip(tile, whole, strict=True):
        np.testing.assert_allclose(of_tile[halo:-halo], of_whole[rows], atol=1e-5)


def test_nothing_seen_is_no_frame_and_frames_are_clipped():
    past, (x, valid, days) = split(*series())
    expected = value_model(Listening())
    fitted = expected.fit(*past)
    before = expected.begin(fitted)
    assert expected.advance(fitted, before, x[0], valid[0] & False, float(days[0])) is before
    after = expected.advance(fitted, before, x[0] + 100, valid[0], float(days[0]))
    assert float(after["frames"].max()) < 2
    assert after["frames_day"].ravel()[-1] == days[0]


def test_nothing_is_asked_of_an_empty_history():
    expected = value_model(Listening())
    shape = (3, 4)
    fitted = expected.fit(np.zeros((0, *shape), np.float32), np.zeros((0, *shape), bool), np.zeros(0))
    state = expected.begin(fitted)
    assert not fitted["count"].any()
    assert np.isnan(state["frames_day"]).all()
