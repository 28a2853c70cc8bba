"""What a pixel is expected to show on a day of the year, fitted robustly on its history.

    y(t) = a0 [+ a1 t] + sum over j of (b_j cos(2 pi j t) + c_j sin(2 pi j t)),   t in years of 365.2422 days

by iteratively reweighted least squares with Tukey's bisquare (Holland and Welsch 1977, https://doi.org/10.1080/03610927708827533; in
change detection CCDC, Zhu and Woodcock 2014), because clouds and haze that the mask missed lie in the history as well. A ridge keeps
short or one-sided histories from running away.
"""

import math
from dataclasses import dataclass

import numpy as np

TROPICAL_YEAR_DAYS = 365.2422
MAD_TO_SIGMA = 1.4826  # of a normal distribution
BISQUARE = 4.685  # 95 % efficiency on clean normal data
CHUNK_PX = 4096  # pixels whose weights and residuals are in memory at once


def season_features(days_N: np.ndarray, harmonics: int, trend: bool, origin_day: float = 0.0) -> np.ndarray:
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
class HarmonicExpectation:
    """`harmonics` waves of the year (and a line with `trend`); `ridge` is the weight of the penalty, in observations.

    The spread is the robust deviation of the history's residuals, never below `least_spread` (in units of the variable): a pixel
    of a few values that happen to lie on the curve would see a change in every breath of wind.
    """

    harmonics: int = 2
    trend: bool = False
    ridge: float = 0.5
    least_spread: float = 0.0
    iterations: int = 10
    halo_px: int = 0

    def fit(self, x_NYX: np.ndarray, valid_NYX: np.ndarray, days_N: np.ndarray) -> dict[str, np.ndarray]:
        """What the history says: `coefficients` (J, Y, X), `spread` (Y, X), `origin_day` (Y, X) and `count` (Y, X) of values used.

        x float32 physical values, anything where not `valid`; days float64 since 1970-01-01. Spread and coefficients are float32,
        0 where a pixel has no value.
        """
        shape_yx = x_NYX.shape[1:]
        origin_day = float(days_N[-1]) if len(days_N) else 0.0
        features_NJ = season_features(days_N, self.harmonics, self.trend, origin_day)
        x_PN, valid_PN = x_NYX.reshape(len(x_NYX), -1).T, valid_NYX.reshape(len(x_NYX), -1).T
        number = x_PN.shape[0]
        coefficients_PJ = np.zeros((number, features_NJ.shape[1]), np.float32)
        spread_P = np.zeros(number, np.float32)
        for start in range(0, number, CHUNK_PX):
            chunk = slice(start, start + CHUNK_PX)
            x_CN = np.where(valid_PN[chunk], x_PN[chunk], 0).astype(np.float64)
            coefficients_PJ[chunk], spread_P[chunk] = self._fit_chunk(x_CN, np.ascontiguousarray(valid_PN[chunk]), features_NJ)
        count_P = valid_PN.sum(axis=1).astype(np.int32)
        return {
            "coefficients": np.ascontiguousarray(coefficients_PJ.T).reshape(-1, *shape_yx),
            "spread": spread_P.reshape(shape_yx),
            "origin_day": np.full(shape_yx, origin_day),
            "count": count_P.reshape(shape_yx),
        }

    def _fit_chunk(self, x_PN: np.ndarray, valid_PN: np.ndarray, features_NJ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(coefficients (P, J), spread (P,)) by reweighting; starts from the weighted fit of least absolute values' first step."""
        weight_PN = valid_PN.astype(np.float64)
        coefficients_PJ = solve_ridge(x_PN, weight_PN, features_NJ, self.ridge)
        scale_P = np.zeros(len(x_PN))
        for _ in range(self.iterations):
            residual_PN = x_PN - coefficients_PJ @ features_NJ.T
            scale_P = MAD_TO_SIGMA * masked_median(np.abs(residual_PN), valid_PN)
            with np.errstate(divide="ignore", invalid="ignore"):
                u_PN = residual_PN / (BISQUARE * np.maximum(scale_P, 1e-9))[:, None]
            weight_PN = np.where(valid_PN & (np.abs(u_PN) < 1), (1 - u_PN**2) ** 2, 0)
            coefficients_PJ = solve_ridge(x_PN, weight_PN, features_NJ, self.ridge)
        residual_PN = x_PN - coefficients_PJ @ features_NJ.T
        scale_P = MAD_TO_SIGMA * masked_median(np.abs(residual_PN), valid_PN)
        # A curve of J numbers lies closer to its N values than the truth does.
        freedom_P = np.maximum(valid_PN.sum(axis=1) - features_NJ.shape[1], 1)
        scale_P = scale_P * np.sqrt(valid_PN.sum(axis=1) / freedom_P)
        return coefficients_PJ, np.maximum(scale_P, self.least_spread)

    def begin(self, fitted: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Nothing: the curve does not learn while it watches."""
        return {}

    def foretell(self, fitted: dict[str, np.ndarray], state: dict[str, np.ndarray], day: float) -> tuple[np.ndarray, np.ndarray]:
        """(expected_YX, spread_YX) on `day`, float32 physical values."""
        origin_day = float(fitted["origin_day"].flat[0]) if fitted["origin_day"].size else 0.0
        features_J = season_features(np.array([day]), self.harmonics, self.trend, origin_day)[0]
        # Summed term by term: a matrix product may round differently for tiles of another size.
        expected_YX = np.zeros(fitted["spread"].shape)
        for feature, plane_YX in zip(features_J, fitted["coefficients"], strict=True):
            expected_YX += feature * plane_YX
        return expected_YX.astype(np.float32), fitted["spread"]

    def advance(
        self, fitted: dict[str, np.ndarray], state: dict[str, np.ndarray], x_YX: np.ndarray, valid_YX: np.ndarray, day: float
    ) -> dict[str, np.ndarray]:
        """The state after this date: the same nothing."""
        return state


def solve_ridge(x_PN: np.ndarray, weight_PN: np.ndarray, features_NJ: np.ndarray, ridge: float) -> np.ndarray:
    """Weighted ridge solution of each pixel, (P, J) float64; the mean (feature 0) is free; all 0 for a pixel without a value."""
    number = features_NJ.shape[1]
    products_NK = (features_NJ[:, :, None] * features_NJ[:, None, :]).reshape(-1, number * number)
    normal_PJJ = (weight_PN @ products_NK).reshape(-1, number, number)
    right_PJ = (weight_PN * x_PN) @ features_NJ
    penalty_J = np.full(number, ridge)
    penalty_J[0] = 1e-9  # only keeps the system regular where nothing was seen
    return np.linalg.solve(normal_PJJ + np.diag(penalty_J), right_PJ[..., None])[..., 0]


def masked_median(value_PN: np.ndarray, valid_PN: np.ndarray) -> np.ndarray:
    """Median over N of the valid values, (P,); 0 where there is none. For an even number the mean of the middle two."""
    ordered_PN = np.sort(np.where(valid_PN, value_PN, np.inf), axis=1)
    count_P = valid_PN.sum(axis=1)
    low_P = np.maximum((count_P - 1) // 2, 0)
    high_P = np.minimum(count_P // 2, max(value_PN.shape[1] - 1, 0))
    rows = np.arange(len(value_PN))
    middle_P = (ordered_PN[rows, low_P] + ordered_PN[rows, np.where(count_P > 0, high_P, 0)]) / 2 if value_PN.shape[1] else 0
    return np.where(count_P > 0, middle_P, 0)
