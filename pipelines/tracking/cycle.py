"""The period of a curve that repeats, such as the area of a heart chamber: found by autocorrelation, refined by a fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize  # not signal, which imports stats
from scipy.special import stdtrit

LEAST_POINTS = 12
HARMONICS = 2
NOISE_SERIES = 199  # with which a peak of the autocorrelation is compared
FIRST_PEAK = 0.9  # of the highest one: the first peak so high is the period, later ones are its multiples
SHARE_EXPLAINED = 0.5  # of the variance, by the curve that repeats


@dataclass(frozen=True)
class Period:
    """In the unit of the times, with its interval; `cycles`: how many of them the curve is long."""

    period: float
    low: float
    high: float
    cycles: float


def find_period(time_N: np.ndarray, value_N: np.ndarray, level: float = 0.95) -> Period | str:
    """The period of `value_N` at the growing `time_N`, or why none was found.

    At least two cycles must be there, and the peak of the autocorrelation must be higher than in `level` of the made series of
    noise with the same correlation from point to point (AR(1), seed 0). The interval is that of a least-squares fit of a line and
    two harmonics, widened for residuals that are correlated; where cycles differ in length, it is that of their mean.

    >>> time = np.arange(60) / 20
    >>> round(find_period(time, np.cos(2 * np.pi * time / 0.8)).period, 6)
    0.8
    """
    if len(time_N) < LEAST_POINTS:
        return f"{len(time_N)} points, fewer than {LEAST_POINTS}"
    step = float(np.median(np.diff(time_N)))
    regular = time_N[0] + step * np.arange(round((time_N[-1] - time_N[0]) / step) + 1)
    curve = without_line(np.interp(regular, time_N, value_N)[None])[0]
    if curve.std() <= 1e-9 * max(float(np.abs(value_N).max()), 1e-300):
        return "the curve is a straight line"
    correlation = autocorrelation(curve[None])[0]
    lag = peak_lag(correlation)
    if lag == 0:
        return "no curve that repeats: less than two cycles, or none"
    highest = np.array([0.0 if (k := peak_lag(one)) == 0 else one[k] for one in autocorrelation(noise_like(curve))])
    if correlation[lag] <= np.quantile(highest, level):
        return "no more regular than noise"
    return fit_period(time_N, value_N, step * (lag + _vertex(correlation, lag)), level)


def autocorrelation(curves_MN: np.ndarray) -> np.ndarray:
    """(M, N // 2 + 2) correlation of each curve with itself, moved by 0, 1, ... points; each lag over the pairs that it has."""
    count = curves_MN.shape[1]
    centred = curves_MN - curves_MN.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(centred, 2 * count, axis=1)) ** 2
    sums = np.fft.irfft(power, axis=1)[:, : min(count // 2 + 2, count)]
    pairs = count - np.arange(sums.shape[1])
    result: np.ndarray = sums / pairs / np.maximum(sums[:, :1] / count, 1e-300)
    return result


def peak_lag(correlation: np.ndarray) -> int:
    """The first high peak behind the first negative value; 0 where there is none, within half of the curve."""
    negative = np.flatnonzero(correlation < 0)
    if not len(negative):
        return 0
    inner = np.arange(max(negative[0], 1), len(correlation) - 1)
    is_peak = (correlation[inner] >= correlation[inner - 1]) & (correlation[inner] > correlation[inner + 1])
    peaks = inner[is_peak & (correlation[inner] > 0)]
    if not len(peaks):
        return 0
    return int(peaks[correlation[peaks] >= FIRST_PEAK * correlation[peaks].max()][0])


def noise_like(curve: np.ndarray) -> np.ndarray:
    """(NOISE_SERIES, N) series of noise with the correlation of `curve` from point to point, without their lines."""
    follow = float(np.clip(autocorrelation(curve[None])[0, 1], 0, 0.99))
    shocks = np.random.default_rng(0).normal(size=(NOISE_SERIES, len(curve)))
    shocks[:, 0] /= np.sqrt(1 - follow**2)  # as if it had begun long before
    for point in range(1, len(curve)):
        shocks[:, point] += follow * shocks[:, point - 1]
    return without_line(shocks)


def without_line(curves_MN: np.ndarray) -> np.ndarray:
    """The curves less their straight lines by least squares; points at equal distances."""
    place_N = np.arange(curves_MN.shape[1]) - (curves_MN.shape[1] - 1) / 2
    slope_M = curves_MN @ place_N / (place_N @ place_N)
    level_M: np.ndarray = curves_MN.mean(axis=1)
    left: np.ndarray = curves_MN - level_M[:, None] - slope_M[:, None] * place_N
    return left


def _vertex(values: np.ndarray, at: int) -> float:
    """Where the parabola through three values has its extreme, from the middle one, -0.5 to 0.5."""
    before, here, after = values[at - 1 : at + 2]
    bend = before - 2 * here + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend else 0.0


def fit_period(time_N: np.ndarray, value_N: np.ndarray, first: float, level: float) -> Period | str:
    """The period near `first` that fits best, and its interval (Student's t)."""
    middle = time_N.mean()
    orders = np.arange(1, HARMONICS + 1)[:, None]

    def curve(time_N: np.ndarray, period: float, *weights: float) -> np.ndarray:
        angle = 2 * np.pi * orders * (time_N - middle) / period
        basis = np.concatenate([[np.ones_like(time_N)], [time_N - middle], np.cos(angle), np.sin(angle)])
        return np.asarray(np.array(weights) @ basis)

    scale = float(value_N.std())
    start = [first, 0.0, 0.0, *np.zeros(2 * HARMONICS)]
    start[3], start[3 + HARMONICS] = 1.0, 1.0
    try:
        values, covariance = optimize.curve_fit(curve, time_N, (value_N - value_N.mean()) / scale, start)
    except RuntimeError:
        return "no curve that repeats could be fitted"
    period, span = float(values[0]), float(time_N[-1] - time_N[0] + np.median(np.diff(time_N)))
    residual = (value_N - value_N.mean()) / scale - curve(time_N, *values)
    if not abs(period - first) < 0.25 * first or residual.var() > 1 - SHARE_EXPLAINED or span < 2 * period * (1 - 0.02):
        return "no curve that repeats could be fitted"
    follow = float(np.clip(autocorrelation(residual[None])[0, 1], 0, 0.9)) if residual.var() > 1e-18 else 0.0
    freedom = max(len(time_N) - len(values), 1)
    error = np.sqrt(float(covariance[0, 0]) * (1 + follow) / (1 - follow)) if np.isfinite(covariance[0, 0]) else np.inf
    half = float(stdtrit(freedom, 0.5 + level / 2)) * error
    return Period(period, max(period - half, 0.0), period + half, span / period)
