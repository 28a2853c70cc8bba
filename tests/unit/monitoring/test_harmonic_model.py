"""The robust harmonic curve on series whose curve is known."""

import numpy as np
import pytest

from pipelines.monitoring.harmonic_model import HarmonicModel, masked_median, season_features

DAYS = np.arange(17000.0, 17000 + 3 * 365, 12)  # three years, every 12 days
CURVE = 0.6 + 0.2 * np.cos(2 * np.pi * DAYS / 365.2422) - 0.1 * np.sin(4 * np.pi * DAYS / 365.2422)


def series(values_N, valid_N=None):
    x = np.asarray(values_N, np.float32)[:, None, None]
    valid = np.ones(x.shape, bool) if valid_N is None else np.asarray(valid_N)[:, None, None]
    return np.where(valid, x, np.float32(0)), valid, DAYS


def predict(value_model, fitted, day):
    expected, spread = value_model.predict(fitted, value_model.begin(fitted), day)
    return float(expected[0, 0]), float(spread[0, 0])


def test_a_curve_of_the_year_is_found_again():
    value_model = HarmonicModel(ridge=1e-6)
    fitted = value_model.fit(*series(CURVE))
    assert fitted["coefficients"][:, 0, 0] == pytest.approx([0.6, 0.2, 0, 0, -0.1], abs=1e-4)
    assert predict(value_model, fitted, DAYS[5] + 3 * 365.2422)[0] == pytest.approx(CURVE[5], abs=1e-4)


def test_clouds_that_the_mask_missed_do_not_move_the_curve():
    hazy = CURVE.copy()
    hazy[::9] -= 0.5
    noisy = hazy + np.random.default_rng(0).normal(0, 0.01, len(DAYS))
    value_model = HarmonicModel()
    fitted = value_model.fit(*series(noisy))
    assert fitted["coefficients"][:, 0, 0] == pytest.approx([0.6, 0.2, 0, 0, -0.1], abs=0.015)
    assert 0.006 < float(fitted["spread"][0, 0]) < 0.02


def test_the_spread_is_the_deviation_of_the_noise():
    noise = np.random.default_rng(1).normal(0, 0.05, (len(DAYS), 40, 40))
    x = (CURVE[:, None, None] + noise).astype(np.float32)
    fitted = HarmonicModel().fit(x, np.ones(x.shape, bool), DAYS)
    assert float(np.median(fitted["spread"])) == pytest.approx(0.05, rel=0.05)


def test_a_noisy_season_has_a_wider_spread():
    summer = np.cos(2 * np.pi * DAYS / 365.2422) < 0
    noise = np.random.default_rng(2).normal(0, 1, (len(DAYS), 20, 20)) * np.where(summer, 0.01, 0.05)[:, None, None]
    x = (CURVE[:, None, None] + noise).astype(np.float32)
    value_model = HarmonicModel()
    fitted = value_model.fit(x, np.ones(x.shape, bool), DAYS)
    january, july = DAYS[0] - DAYS[0] % 365.2422, DAYS[0] - DAYS[0] % 365.2422 + 182
    wide, narrow = (np.median(value_model.predict(fitted, {}, day)[1]) for day in (january, july))
    assert wide > 1.5 * narrow


def test_a_season_that_the_history_lacks_is_judged_with_caution():
    summer = np.cos(2 * np.pi * DAYS / 365.2422) < 0.3
    noisy = CURVE + np.random.default_rng(3).normal(0, 0.02, len(DAYS))
    value_model = HarmonicModel()
    fitted = value_model.fit(*series(noisy, summer))
    january = DAYS[0] - DAYS[0] % 365.2422
    assert predict(value_model, fitted, january)[1] > 1.5 * predict(value_model, fitted, january + 182)[1]


def test_a_series_without_noise_and_with_a_gap_is_as_expected():
    """Half of the values lie so near to the curve that a scale of theirs would reject the season beside the gap."""
    days = 17534.0 + 16 * np.arange(110)
    values = np.round(0.6 + 0.2 * np.sin(2 * np.pi * (np.mod(days, 365.2422) - 80) / 365.2422), 4)
    season = np.mod(days, 365.2422)
    seen = (season > 60) & (season < 330)
    history = days < days[55]
    x, valid = (one[history, None, None] for one in (values.astype(np.float32), seen))
    value_model = HarmonicModel()
    fitted = value_model.fit(np.where(valid, x, np.float32(0)), valid, days[history])
    later = [
        (value, *predict(value_model, fitted, day))
        for day, value in zip(days[~history & seen], values[~history & seen], strict=True)
    ]
    assert max(abs(value - expected) / spread for value, expected, spread in later) < 3
    assert max(abs(value - expected) for value, expected, _ in later) < 0.01


def test_the_trend_is_followed_only_where_asked():
    rising = 0.3 + 0.1 * (DAYS - DAYS[0]) / 365.2422
    later = DAYS[-1] + 365.2422
    straight, flat = HarmonicModel(trend=True, ridge=1e-6), HarmonicModel()
    assert predict(straight, straight.fit(*series(rising)), later)[0] == pytest.approx(rising[-1] + 0.1, abs=0.002)
    assert predict(flat, flat.fit(*series(rising)), later)[0] < 0.5


def test_a_pixel_never_seen_and_an_empty_history_are_all_zero():
    x, _, days = series(CURVE)
    for part in (slice(None), slice(0, 0)):
        fitted = HarmonicModel().fit(x[part], np.zeros(x[part].shape, bool), days[part])
        assert all(not fitted[name].any() for name in ("coefficients", "inverse", "spread", "season", "count"))
        expected, spread = HarmonicModel().predict(fitted, {}, 18000.0)
        assert not expected.any()
        assert not spread.any()


def test_a_tile_is_fitted_as_the_whole():
    rng = np.random.default_rng(4)
    x = (CURVE[:, None, None] + rng.normal(0, 0.05, (len(DAYS), 70, 70))).astype(np.float32)  # more than one chunk
    valid = rng.random(x.shape) > 0.3
    whole = HarmonicModel().fit(x, valid, DAYS)
    tile = HarmonicModel().fit(x[:, 60:, :9], valid[:, 60:, :9], DAYS)
    for name in whole:
        np.testing.assert_allclose(tile[name], whole[name][..., 60:, :9], rtol=1e-5, atol=1e-6, err_msg=name)


def test_features_do_not_depend_on_the_century():
    a, b = season_features(np.array([100.0]), 2), season_features(np.array([100.0 + 60 * 365.2422]), 2)
    np.testing.assert_allclose(a, b, atol=1e-9)


def test_masked_median_knows_odd_even_and_nothing():
    values = np.array([[3.0, 1, 2, 9], [4, 1, 3, 2], [1, 2, 3, 4]])
    valid = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
    assert masked_median(values, valid).tolist() == [2, 2.5, 0]
