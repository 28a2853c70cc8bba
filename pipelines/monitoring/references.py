"""The methods that a monitor is compared with, each one a model and a test, so that all are calibrated and evaluated alike.

| name | model | test |
|---|---|---|
| `difference` | median of the same season in the history | one value off by more than the threshold |
| `three_low` | robust harmonic curve | three values in a row beyond the threshold |
| `harmonic_mosum`, `harmonic_ewma`, `harmonic_cusum` | robust harmonic curve | the sequential test |
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.calendar import TROPICAL_YEAR_DAYS
from pipelines.errors import RequestError
from pipelines.monitoring.detector import Calibration, Constant, Detector, Direction
from pipelines.monitoring.harmonic_model import HarmonicModel, masked_median
from pipelines.monitoring.sequential_test import Arrays, Cusum, Ewma, Mosum, Run, SequentialTest

REFERENCES = ("difference", "three_low", "harmonic_mosum", "harmonic_ewma", "harmonic_cusum")
BINS = 24  # of the year


@dataclass(frozen=True)
class SameSeason(Constant):
    """The median of the history's values within `window_days` of the day of the year; where there is none, of twice as many, ...
    The spread is 1: a difference is measured in units of the variable, as image differencing does."""

    window_days: float = 30.0
    halo_px: int = 0

    def fit(self, x_NYX: np.ndarray, valid_NYX: np.ndarray, days_N: np.ndarray) -> Arrays:
        """`season` (24, Y, X) float32, 0 where a pixel was never seen, and `count` (Y, X) int32."""
        shape_yx = x_NYX.shape[1:]
        number = math.prod(shape_yx)
        x_PN, valid_PN = x_NYX.reshape(-1, number).T, valid_NYX.reshape(-1, number).T
        season_SP = np.zeros((BINS, len(x_PN)), np.float32)
        day_of_year_N = np.mod(days_N, TROPICAL_YEAR_DAYS)
        for s in range(BINS):
            away_N = np.abs(day_of_year_N - (s + 0.5) * TROPICAL_YEAR_DAYS / BINS)
            away_N = np.minimum(away_N, TROPICAL_YEAR_DAYS - away_N)
            open_P, window = np.ones(len(x_PN), bool), self.window_days
            while open_P.any() and window < TROPICAL_YEAR_DAYS:
                near_N = away_N <= window
                found_P = open_P & valid_PN[:, near_N].any(axis=1)
                season_SP[s, found_P] = masked_median(x_PN[found_P][:, near_N], valid_PN[found_P][:, near_N])
                open_P, window = open_P & ~found_P, window * 2
        return {"season": season_SP.reshape(BINS, *shape_yx), "count": valid_NYX.sum(axis=0, dtype=np.int32)}

    def predict(self, fitted: Arrays, state: Arrays, day: float) -> tuple[np.ndarray, np.ndarray]:
        """(expected_YX, 1) float32."""
        s = int(np.mod(day, TROPICAL_YEAR_DAYS) / TROPICAL_YEAR_DAYS * BINS) % BINS
        return fitted["season"][s], np.ones(fitted["count"].shape, np.float32)


def build_references(
    names: Sequence[str], direction: Direction, min_history: int, drift: float = 2.0, cap: float = 4.0
) -> dict[str, Detector]:
    """Detectors by name, not calibrated yet (their thresholds are infinite). Raises RequestError for a name that is not known."""
    tests: dict[str, tuple[SameSeason | HarmonicModel, SequentialTest]] = {
        "difference": (SameSeason(), Run(1)),
        "three_low": (HarmonicModel(), Run(3)),
        "harmonic_mosum": (HarmonicModel(), Mosum(cap=cap)),
        "harmonic_ewma": (HarmonicModel(), Ewma(cap=cap)),
        "harmonic_cusum": (HarmonicModel(), Cusum(drift, cap)),
    }
    if unknown := [name for name in names if name not in tests]:
        raise RequestError(f"evaluation.references: unknown {', '.join(unknown)}; known: {', '.join(REFERENCES)}")
    return {name: Detector(*tests[name], Calibration(math.inf), direction, min_history) for name in names}
