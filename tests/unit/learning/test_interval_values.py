"""Intervals that depend on what is forecast: rain on its logarithmic scale, and errors that grow with the value."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_forecaster import truth_window

from pipelines.learning.conformal import Intervals
from pipelines.learning.forecast_intervals import calibrate

DATES, NEW, PIXELS = 40, 200, 80


class Told:
    """Forecasts the last frame."""

    def forecast(self, x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K):
        return x_NCHW[-1:]


def windows_of(forecast_DP, truth_DP):
    """A window of one lead per date, five minutes apart."""
    made = []
    for number, (forecast_P, truth_P) in enumerate(zip(forecast_DP, truth_DP, strict=True)):
        window = truth_window(truth_P[None, None, None], [number * 5 / 1440])
        frames = np.stack([np.zeros_like(forecast_P), forecast_P])[:, None, None]
        made.append(replace(window, x_NCHW=torch.as_tensor(frames.astype(np.float32))))
    return made


def calibrated(forecast_DP, truth_DP, **options):
    windows = windows_of(forecast_DP, truth_DP)
    return calibrate({"it": Told()}, ["it"], windows[:30], windows[30:], **options)["it"].intervals


def drawn(rng, dates, transform):
    """Forecasts and truths of exchangeable dates; a third of the forecasts is 0; errors grow with the forecast, dates differ."""
    forecast_DP = rng.gamma(0.7, 2.0, size=(dates, PIXELS)) * (rng.random((dates, PIXELS)) > 1 / 3)
    spread_D1, shared_D1 = np.exp(rng.normal(scale=0.3, size=(dates, 1))), rng.normal(size=(dates, 1))
    error_DP = spread_D1 * (0.5 * shared_D1 + rng.normal(size=(dates, PIXELS))) * (0.05 + 0.2 * np.minimum(forecast_DP, 4))
    if transform == "log1p":
        return forecast_DP, np.maximum(np.expm1(np.log1p(forecast_DP) + error_DP), 0)
    return forecast_DP, forecast_DP + error_DP


@pytest.mark.parametrize("transform", ["none", "log1p"])
def test_exchangeable_dates_are_covered_as_promised_at_every_value(transform):
    rng, covered, wet, dry = np.random.default_rng(3), [], [], []
    for _ in range(8):
        intervals = calibrated(*drawn(rng, DATES, transform), transforms_C=(transform,))
        forecast_DP, truth_DP = drawn(rng, NEW, transform)
        lower, upper = (
            bound.reshape(forecast_DP.shape) for bound in intervals.bounds(forecast_DP[None, None].astype(np.float32))
        )
        inside_DP = (lower <= truth_DP + 1e-6) & (truth_DP <= upper + 1e-6)
        covered.append(inside_DP.mean())
        wet.append(inside_DP[forecast_DP > 2].mean())
        dry.append((upper - lower)[forecast_DP == 0].mean() / (upper - lower)[forecast_DP > 2].mean())
    assert 0.88 <= np.mean(covered) <= 0.92
    assert 0.8 <= np.mean(wet) <= 0.95
    assert np.mean(dry) < 0.25


def test_errors_that_do_not_depend_on_the_value_have_even_intervals():
    rng = np.random.default_rng(4)
    forecast_DP = rng.random((DATES, PIXELS))
    intervals = calibrated(forecast_DP, forecast_DP + rng.normal(size=(DATES, PIXELS)))
    values = np.linspace(0, 1, 50, dtype=np.float32)
    lower, upper = (bound.ravel() for bound in intervals.bounds(values[None, None]))
    np.testing.assert_allclose(upper - lower, 2 * 1.645, rtol=0.2)


RAIN = Intervals(
    0.9, ((0.5,),), ((0.5,),), 20, limits_C=((0.0, 100.0),), levels_L=(0.5, 0.9), factor_CL=((0.5, 1.0),), bounded_L=(True, True),
    transforms_C=("log1p",), value_CV=((0.0, 2.0),), below_CV=((1.0, 2.0),), above_CV=((0.0, 1.0),),
)  # fmt: skip


def test_margins_are_those_of_the_scale_and_of_the_value():
    y = np.array([0.0, np.expm1(1.0), np.expm1(3.0), np.nan], np.float32)[None, None]
    lower, upper = RAIN.bounds(y)
    np.testing.assert_allclose(lower[0, 0], [0.0, np.expm1(0.25), np.expm1(2.0), np.nan], rtol=1e-5)
    np.testing.assert_allclose(upper[0, 0], [0.0, np.expm1(1.25), np.expm1(3.5), np.nan], rtol=1e-5)
    quantile_Q4 = RAIN.quantiles(0, y[0])[:, 0]
    np.testing.assert_allclose(quantile_Q4[[0, 2, 4]], [lower[0, 0], y[0, 0], upper[0, 0]], rtol=1e-5)
    np.testing.assert_allclose(quantile_Q4[3, 1], np.expm1(1.125), rtol=1e-5)
    assert Intervals.from_json(RAIN.to_json()) == RAIN
