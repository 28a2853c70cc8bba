"""How far numbers are from what is known: mean absolute error, root mean square error, R2, with intervals over groups.

Shapes: P samples, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.learning.intervals import Interval, Unit, jackknife

COLUMNS = 5  # of the sums below: samples, |error|, error squared, known, known squared


def group_sums(known_P: np.ndarray, answer_P: np.ndarray, group_P: np.ndarray) -> np.ndarray:
    """sums_GX float64 of each group, in the order of the groups' numbers."""
    numbers, index_P = np.unique(group_P, return_inverse=True)
    known, error = known_P.astype(np.float64), answer_P.astype(np.float64) - known_P
    columns = (np.ones(len(known)), np.abs(error), error**2, known, known**2)
    return np.stack([np.bincount(index_P, one, minlength=len(numbers)) for one in columns], axis=1)


def absolute_error(sums_RX: np.ndarray) -> np.ndarray:
    """Mean absolute error, (R,)."""
    error: np.ndarray = sums_RX[:, 1] / sums_RX[:, 0]
    return error


def square_error(sums_RX: np.ndarray) -> np.ndarray:
    """Root mean square error, (R,)."""
    error: np.ndarray = np.sqrt(sums_RX[:, 2] / sums_RX[:, 0])
    return error


def explained(sums_RX: np.ndarray) -> np.ndarray:
    """R2 = 1 - sum of squared errors / sum of squared deviations from the mean, (R,); NaN where all known values are equal."""
    spread_R = sums_RX[:, 4] - sums_RX[:, 3] ** 2 / sums_RX[:, 0]
    share_R: np.ndarray = np.divide(sums_RX[:, 2], spread_R, out=np.full(len(sums_RX), np.nan), where=spread_R > 0)
    return 1 - share_R


def describe_numbers(
    known_P: np.ndarray, answer_P: np.ndarray, group_P: np.ndarray, confidence: float, unit: Unit = "groups"
) -> dict[str, Any]:
    """JSON values of the three figures with their intervals; `unit`: what groups are called."""
    sums_GX = group_sums(known_P, answer_P, group_P)
    far, why = (0.0, np.inf), ("no sample", "only one group")
    return {
        "mae": jackknife(sums_GX, absolute_error, confidence, unit, far, why).to_json(),
        "rmse": jackknife(sums_GX, square_error, confidence, unit, far, why).to_json(),
        "r2": jackknife(sums_GX, explained, confidence, unit, (-np.inf, 1.0), why).to_json(),
        "bias": float((answer_P - known_P).mean()),
    }


def gain(
    known_P: np.ndarray, ours_P: np.ndarray, theirs_P: np.ndarray, group_P: np.ndarray, confidence: float, unit: Unit = "groups"
) -> Interval:
    """Mean absolute error of theirs minus ours (positive: ours is better), in pairs over the same groups."""
    both_GX = np.hstack([group_sums(known_P, one, group_P) for one in (ours_P, theirs_P)])

    def statistic(sums_RX: np.ndarray) -> np.ndarray:
        difference: np.ndarray = absolute_error(sums_RX[:, COLUMNS:]) - absolute_error(sums_RX[:, :COLUMNS])
        return difference

    return jackknife(both_GX, statistic, confidence, unit, (-np.inf, np.inf), ("no sample", "only one group"))


def flat_numbers(described: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of a method for tables over methods."""
    return {
        "mae": described["mae"]["value"],
        "mae_low": described["mae"]["low"],
        "mae_high": described["mae"]["high"],
        "rmse": described["rmse"]["value"],
        "r2": described["r2"]["value"],
        "r2_low": described["r2"]["low"],
        "r2_high": described["r2"]["high"],
        "bias": described["bias"],
    }


def half_width(error_P: np.ndarray, group_P: np.ndarray, confidence: float) -> tuple[float, float]:
    """(half width of the interval around a number, share of samples that it holds for groups that it was not made from).

    The quantile of the absolute errors of held-out samples (split conformal prediction, Vovk et al. 2005); each group in turn is
    covered with the quantile of the others.
    """
    size_P = np.abs(error_P)

    def quantile(values: np.ndarray) -> float:
        level = min(1.0, np.ceil((len(values) + 1) * confidence) / len(values))
        return float(np.quantile(values, level, method="higher"))

    groups = np.unique(group_P)
    if len(groups) < 2:
        return quantile(size_P), float("nan")
    if len(groups) > 200:  # as many parts of whole groups
        part_P = np.unique(group_P, return_inverse=True)[1] % 200
        groups, group_P = np.unique(part_P), part_P
    held = [size_P[group_P == one] <= quantile(size_P[group_P != one]) for one in groups]
    return quantile(size_P), float(np.concatenate(held).mean())
