"""Platt scaling (Platt 1999) of scores that come piece by piece: probability = sigmoid(scale x value + bias).

Counted in bins of 0.01, so any number of pixels fits in 128 kB. The scale is never negative: a higher value is never a lower
probability. Values that say nothing, or the opposite, give the share of changed pixels everywhere.
"""

from __future__ import annotations

import math

import numpy as np

from pipelines.errors import RequestError

LIMIT = 40.0  # logits beyond it are as good as it
BINS = 8000
STEPS = 100


class CalibrationTally:
    """Values of unchanged and of changed pixels, from which scale and bias are fitted."""

    def __init__(self) -> None:
        self.pixels_2S = np.zeros((2, BINS), np.int64)  # [unchanged, changed], values ascending

    def add(self, value: np.ndarray, is_changed: np.ndarray) -> None:
        """Flat arrays of one length; values that are NaN are left out."""
        known = ~np.isnan(value)
        index = ((np.clip(value[known], -LIMIT, LIMIT) + LIMIT) * (BINS / (2 * LIMIT))).astype(np.int64)
        index, changed = np.minimum(index, BINS - 1), is_changed[known]
        for row, chosen in enumerate((index[~changed], index[changed])):
            self.pixels_2S[row] += np.bincount(chosen, minlength=BINS)

    def fit(self, whose: str) -> tuple[float, float]:
        """(scale >= 0, bias) of the largest likelihood, with Platt's smoothed targets (section 2.2).

        Raises RequestError where a class is missing; `whose` names the sites in the message.
        """
        unchanged, changed = (int(n) for n in self.pixels_2S.sum(axis=1))
        if not unchanged or not changed:
            raise RequestError(
                f"{whose} has {changed} changed and {unchanged} unchanged pixels that are labelled and seen; what is left out "
                "needs both: with three groups of sites or more put the site together with another in evaluation.groups, or "
                "leave it out of source.sites; with fewer add labelled sites"
            )
        used = self.pixels_2S.any(axis=0)
        value_S = ((np.arange(BINS) + 0.5) * (2 * LIMIT / BINS) - LIMIT)[used]
        weight_2S = self.pixels_2S[:, used].astype(np.float64)
        return _maximise(value_S, weight_2S, np.array([1 / (unchanged + 2), (changed + 1) / (changed + 2)]))


def _maximise(value_S: np.ndarray, weight_2S: np.ndarray, target_2: np.ndarray) -> tuple[float, float]:
    """Newton steps, halved while they make the likelihood smaller; the bias alone where the scale would be negative."""
    total_S, wanted_S = weight_2S.sum(axis=0), target_2 @ weight_2S
    rate = wanted_S.sum() / total_S.sum()
    flat = np.array([0.0, math.log(rate / (1 - rate))])
    design_2S = np.stack([value_S, np.ones_like(value_S)])

    def loss(numbers: np.ndarray) -> float:
        logit_S = numbers @ design_2S
        return float(np.sum(total_S * np.logaddexp(0, logit_S) - wanted_S * logit_S))

    numbers, least = flat, loss(flat)
    for _ in range(STEPS):
        p_S = 1 / (1 + np.exp(-(numbers @ design_2S)))
        gradient = design_2S @ (total_S * p_S - wanted_S)
        hessian = (design_2S * (total_S * p_S * (1 - p_S))) @ design_2S.T + 1e-9 * np.eye(2)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while (tried := loss(numbers - size * step)) > least and size > 1e-6:
            size /= 2
        if tried >= least - 1e-12 * abs(least):
            break
        numbers, least = numbers - size * step, tried
    return (float(numbers[0]), float(numbers[1])) if numbers[0] > 0 else (0.0, float(flat[1]))
