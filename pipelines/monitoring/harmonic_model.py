"""What a pixel is expected to show on a day of the year, and how far off it usually is, fitted robustly on its history.

    y(t) = a0 [+ a1 t] + sum over j of (b_j cos(2 pi j t) + c_j sin(2 pi j t)),   t in years

by iteratively reweighted least squares with Tukey's bisquare (Holland and Welsch 1977,
https://doi.org/10.1080/03610927708827533; CCDC detects change so: Zhu and Woodcock 2014), because clouds and haze that the mask
missed lie in the history as well. A ridge keeps short or one-sided histories from running away.

The spread of a new value has two parts: how far values lie from the curve in that season, and how well the history pins the
curve down on that day (the recursive residual of Brown, Durbin and Evans 1975): spread(t) sqrt(1 + f(t)' (F'WF)^-1 f(t)).
A season in which the history has few values thereby has a large spread, and a short history does not raise false alarms.

Shapes: J features, K = J (J + 1) / 2 entries of a symmetric matrix, N dates, P pixels in a row, (Y, X).
"""

import math
from dataclasses import dataclass

import numpy as np

from pipelines.calendar import TROPICAL_YEAR_DAYS
from pipelines.monitoring.detector import Constant
from pipelines.monitoring.sequential_test import Arrays

MAD_TO_SIGMA = 1.4826  # of a normal distribution
MEAN_TO_SIGMA = math.sqrt(math.pi / 2)  # mean absolute deviation of a normal distribution
BISQUARE = 4.685  # 95 % efficiency on clean normal data
ITERATIONS = 10
SEASON_RANGE = (0.5, 3.0)  # the spread of a season, in spreads of the year
LEAST_SHARE = 0.02  # of the spread of the values themselves: the least spread around the curve, also while it is fitted
LEAST_RELATIVE_SPREAD = 1e-3  # of the level: a series without any noise must not see a change in rounding
CHUNK_PX = 4096  # pixels whose weights and residuals are in memory at once


def season_features(days_N: np.ndarray, harmonics: int, trend: bool = False, origin_day: float = 0.0) -> np.ndarray:
    """[1, cos 1, sin 1, cos 2, ..., (years since `origin_day`)] of each day since 1970, (N, J) float64."""
    days_N = np.asarray(days_N, np.float64)
    angle_N = 2 * math.pi * np.mod(days_N / TROPICAL_YEAR_DAYS, 1)
    columns = [np.ones_like(angle_N)]
    for j in range(1, harmonics + 1):
        columns += [np.cos(j * angle_N), np.sin(j * angle_N)]
    if trend:
        columns.append((days_N - origin_day) / TROPICAL_YEAR_DAYS)
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class HarmonicModel(Constant):
    """`harmonics` waves of the year (and a line with `trend`).

    `ridge` is the penalty on everything but the mean, and `season_weight` what the seasons' spread must speak against to differ
    from the year's; both in observations. `least_spread` (units of the variable) bounds the spread below.
    """

    harmonics: int = 2
    trend: bool = False
    ridge: float = 0.1
    season_weight: float = 20.0
    least_spread: float = 0.0
    halo_px: int = 0

    def fit(self, x_NYX: np.ndarray, valid_NYX: np.ndarray, days_N: np.ndarray) -> Arrays:
        """What the history says, float32 unless said, all 0 where a pixel has no value.

        `coefficients` (J, Y, X); `inverse` (K, Y, X), the upper triangle of (F'WF)^-1 row by row; `spread` (Y, X) of the year and
        `season` (2, Y, X), the waves that a season adds to it; `origin_day` (Y, X) float64; `count` (Y, X) int32 of values used.
        x float32 physical values, anything where not `valid`; days float64 since 1970-01-01.
        """
        shape_yx = x_NYX.shape[1:]
        origin_day = float(days_N[-1]) if len(days_N) else 0.0
        features_NJ = season_features(days_N, self.harmonics, self.trend, origin_day)
        waves_NS = season_features(days_N, 1)[:, 1:]
        number, terms = math.prod(shape_yx), features_NJ.shape[1]
        x_NP, valid_NP = x_NYX.reshape(-1, number), valid_NYX.reshape(-1, number)
        names = {"coefficients": terms, "inverse": terms * (terms + 1) // 2, "spread": 1, "season": 2}
        rows = {name: np.zeros((length, number), np.float32) for name, length in names.items()}
        for start in range(0, number, CHUNK_PX):
            chunk = slice(start, start + CHUNK_PX)
            valid_PN = np.ascontiguousarray(valid_NP[:, chunk].T)
            x_PN = np.where(valid_PN, x_NP[:, chunk].T, 0).astype(np.float64)
            for name, value_PR in self._fit_chunk(x_PN, valid_PN, features_NJ, waves_NS).items():
                rows[name][:, chunk] = value_PR.T
        fitted = {name: value.reshape(-1, *shape_yx) for name, value in rows.items()}
        return fitted | {
            "spread": fitted["spread"][0],
            "origin_day": np.full(shape_yx, origin_day),
            "count": valid_NYX.sum(axis=0, dtype=np.int32),
        }

    def _fit_chunk(self, x_PN: np.ndarray, valid_PN: np.ndarray, features_NJ: np.ndarray, waves_NS: np.ndarray) -> Arrays:
        """(P, ...) float64 arrays of the names in `fit`, by reweighting from the plain ridge fit."""
        weight_PN = valid_PN.astype(np.float64)
        # without a floor the curve through most values of a series without noise rejects all others, and moves away from them
        distance_PN = np.abs(x_PN - masked_median(x_PN, valid_PN)[:, None])
        least_P = np.maximum(LEAST_SHARE * MAD_TO_SIGMA * masked_median(distance_PN, valid_PN), max(self.least_spread, 1e-9))
        for step in range(ITERATIONS + 1):
            normal_PJJ = penalised(weight_PN, features_NJ, self.ridge)
            coefficients_PJ = np.linalg.solve(normal_PJJ, ((weight_PN * x_PN) @ features_NJ)[..., None])[..., 0]
            residual_PN = np.where(valid_PN, x_PN - coefficients_PJ @ features_NJ.T, 0)
            scale_P = MAD_TO_SIGMA * masked_median(np.abs(residual_PN), valid_PN)
            if step < ITERATIONS:
                u_PN = residual_PN / (BISQUARE * np.maximum(scale_P, least_P))[:, None]
                weight_PN = np.where(valid_PN, np.clip(1 - u_PN**2, 0, None) ** 2, 0)
        inverse_PJJ = np.linalg.inv(normal_PJJ)
        # A curve of J numbers lies closer to its N values than the truth does.
        count_P = valid_PN.sum(axis=1)
        inflation_P = np.sqrt(count_P / np.maximum(count_P - features_NJ.shape[1], 1))
        floor_P = np.maximum(least_P, LEAST_RELATIVE_SPREAD * np.abs(coefficients_PJ[:, 0]))
        spread_P = np.maximum(scale_P * inflation_P, floor_P)
        seen_P = count_P > 0
        return {
            "coefficients": coefficients_PJ * seen_P[:, None],
            "inverse": inverse_PJJ[:, *np.triu_indices(features_NJ.shape[1])] * seen_P[:, None],
            "spread": (spread_P * seen_P)[:, None],
            "season": self._season(residual_PN * inflation_P[:, None], valid_PN, spread_P, waves_NS),
        }

    def _season(self, residual_PN: np.ndarray, valid_PN: np.ndarray, spread_P: np.ndarray, waves_NS: np.ndarray) -> np.ndarray:
        """(P, 2): ridge fit of one wave of the year to how much larger residuals are than the year's spread says."""
        size_PN = MEAN_TO_SIGMA * np.minimum(np.abs(residual_PN), 4 * spread_P[:, None])  # a cloud says nothing about a season
        weight_PN = valid_PN.astype(np.float64)
        ones_NT = np.concatenate([np.ones((len(waves_NS), 1)), waves_NS], axis=1)
        right_PT = (weight_PN * (size_PN - spread_P[:, None])) @ ones_NT
        return np.linalg.solve(penalised(weight_PN, ones_NT, self.season_weight), right_PT[..., None])[:, 1:, 0]

    def predict(self, fitted: Arrays, state: Arrays, day: float) -> tuple[np.ndarray, np.ndarray]:
        """(expected_YX, spread_YX) on `day`, float32 physical values. Summed term by term: a matrix product may round
        differently for tiles of another size."""
        origin_day = float(fitted["origin_day"].flat[0]) if fitted["origin_day"].size else 0.0
        features_J = season_features(np.array([day]), self.harmonics, self.trend, origin_day)[0]
        expected_YX = np.zeros(fitted["spread"].shape)
        for feature, plane_YX in zip(features_J, fitted["coefficients"], strict=True):
            expected_YX += feature * plane_YX
        uncertainty_YX = np.zeros(fitted["spread"].shape)
        for i, j, plane_YX in zip(*np.triu_indices(len(features_J)), fitted["inverse"], strict=True):
            uncertainty_YX += (1 if i == j else 2) * features_J[i] * features_J[j] * plane_YX
        waves_S = season_features(np.array([day]), 1)[0, 1:]
        year_YX = fitted["spread"].astype(np.float64)
        seasonal_YX = year_YX + waves_S[0] * fitted["season"][0] + waves_S[1] * fitted["season"][1]
        seasonal_YX = np.clip(seasonal_YX, SEASON_RANGE[0] * year_YX, SEASON_RANGE[1] * year_YX)
        spread_YX = seasonal_YX * np.sqrt(1 + np.maximum(uncertainty_YX, 0))
        return expected_YX.astype(np.float32), spread_YX.astype(np.float32)


def penalised(weight_PN: np.ndarray, features_NJ: np.ndarray, ridge: float) -> np.ndarray:
    """F'WF plus the penalty, (P, J, J). The mean is free; its own only keeps the system regular where nothing was seen."""
    number = features_NJ.shape[1]
    products_NK = (features_NJ[:, :, None] * features_NJ[:, None, :]).reshape(-1, number * number)
    penalty = np.diag([1e-9] + [max(ridge, 1e-6)] * (number - 1))
    normal_PJJ: np.ndarray = (weight_PN @ products_NK).reshape(-1, number, number) + penalty
    return normal_PJJ


def masked_median(values: np.ndarray, valid: np.ndarray, axis: int = 1, least: int = 1, fill: float = 0.0) -> np.ndarray:
    """Median of the valid values along `axis`, for an even number the mean of the middle two; `fill` with fewer than `least`."""
    if not values.shape[axis]:
        return np.full(values.any(axis=axis).shape, fill)
    ordered, count = np.sort(np.where(valid, values, np.inf), axis=axis), valid.sum(axis=axis, keepdims=True)
    low, high = np.maximum((count - 1) // 2, 0), np.where(count > 0, count // 2, 0)
    middle = (np.take_along_axis(ordered, low, axis) + np.take_along_axis(ordered, high, axis)) / 2
    return np.where(count >= least, middle, fill).squeeze(axis)
