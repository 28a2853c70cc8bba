"""How the errors of a forecast go together in space and from lead to lead: what the members of an ensemble need.

Each error is given its place in its distribution (`ErrorDistribution.below`) and the standard normal value there. The
correlation of these over distance r, of the validation windows, is fitted by Gaussians of several scales,

    sum_j weight_j exp(-r^2 / (4 scale_j^2))        weight_j >= 0, sum 1; scale 0: of single pixels

which is that of white noise smoothed by `scale_j`: noise with the spectrum of the errors, as STEPS draws it in Fourier space
(Bowler et al. 2006, Seed et al. 2013), but of a finite reach, so that the noise of a tile is that of the whole raster. From lead
to lead it is an autoregression of first order (`along_K`). Pixels whose value is frequent (no rain) say nothing of correlation
and are left out. Axes: K leads, J scales; H rows, W columns, R distances.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import fft, optimize
from scipy.stats import norm

from pipelines.compute import HERE, Compute
from pipelines.learning.error_distribution import ErrorDistribution
from pipelines.learning.window_work import Pass, WindowTally, tell_all
from pipelines.predictors import Forecaster
from pipelines.progress import Progress
from pipelines.samples.sampling import WindowArrays

SCALES_PX = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)  # standard deviations of the smoothing
FARTHEST_PX = 32
MOST_WINDOWS = 60
FREQUENT = 0.1  # a truth whose span of probabilities is wider is a frequent value
LEAST_PAIRS = 200


@dataclass(frozen=True)
class ErrorFields:
    """weight_KJ: shares of the variance by scale, `SCALES_PX`; along_K: correlation with the lead before, 0 of the first."""

    weight_KJ: tuple[tuple[float, ...], ...]
    along_K: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return {"weight_KJ": [list(weight_J) for weight_J in self.weight_KJ], "along_K": list(self.along_K)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ErrorFields:
        return cls(tuple(map(tuple, content["weight_KJ"])), tuple(content["along_K"]))

    def of_leads(self, lead_K: np.ndarray) -> ErrorFields:
        """Those of these leads, from 0; the correlation of two that are apart is the product over the steps between."""
        steps = np.concatenate([[0], lead_K])
        along = [float(np.prod(self.along_K[before + 1 : lead + 1])) for before, lead in pairwise(steps)]
        return ErrorFields(tuple(self.weight_KJ[lead] for lead in lead_K), (0.0, *along[1:]))


def fit_fields(
    forecaster: Forecaster, distribution: ErrorDistribution, windows: Iterable[WindowArrays], progress: Progress | None = None,
    compute: Compute = HERE,
) -> ErrorFields:  # fmt: skip
    """From the errors of `forecaster` on windows that it has not learnt from, about `MOST_WINDOWS` of them, of images."""
    tally = FieldTally(distribution)
    tell_all([Pass({FieldTally.method: forecaster}, windows, [tally], MOST_WINDOWS)], compute, progress)
    both_K, size_K = tally.along_KX[:, 0], np.sqrt(tally.along_KX[:, 1] * tally.along_KX[:, 2])
    along_K = np.divide(both_K, size_K, out=np.zeros_like(both_K), where=size_K > 0).clip(0, 0.999).round(4)
    return ErrorFields(tuple(map(weights, tally.sums_KRX)), tuple(along_K.tolist()))


class FieldTally(WindowTally):
    """Sums of products of the errors of one method, apart in space (K, R, 2) and from the lead before (K, 3)."""

    method = "one"
    rng: np.random.Generator

    def __init__(self, distribution: ErrorDistribution):
        self.distribution, self.rng = distribution, np.random.default_rng(0)
        self.sums_KRX, self.along_KX = np.zeros((0, 0, 2)), np.zeros((0, 3))

    def draw(self, window: WindowArrays, names: Sequence[str]) -> None:
        for valid_HW in window.target_valid_KHW:
            self.rng.random(int(valid_HW.sum()))

    def measure(
        self, window: WindowArrays, forecasts: Mapping[str, np.ndarray], rng: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray]:
        assert rng is not None, "a tally that draws has a generator"
        z_KHW, known_KHW = normal_scores(forecasts[self.method][:, 0], window, self.distribution, rng)
        along_KX = np.zeros((len(z_KHW), 3))
        for k in range(1, len(z_KHW)):
            both_HW = known_KHW[k] & known_KHW[k - 1]
            before_n, after_n = z_KHW[k - 1][both_HW], z_KHW[k][both_HW]
            along_KX[k] = (before_n * after_n).sum(), (before_n**2).sum(), (after_n**2).sum()
        return np.stack([distances(z_HW, known_HW) for z_HW, known_HW in zip(z_KHW, known_KHW, strict=True)]), along_KX

    def include(self, measured: tuple[np.ndarray, np.ndarray]) -> None:
        sums_KRX, along_KX = measured
        self.sums_KRX = self.sums_KRX + sums_KRX if len(self.sums_KRX) else sums_KRX
        self.along_KX = self.along_KX + along_KX if len(self.along_KX) else along_KX


def normal_scores(
    y_KHW: np.ndarray, window: WindowArrays, distribution: ErrorDistribution, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(standard normal values of the errors, where they are known), (K, H, W) both."""
    at, truth_KHW = distribution.at(window.target_days_K.numpy()), window.target_KCHW.numpy()[:, 0]
    z_KHW, known_KHW = np.zeros(truth_KHW.shape), window.target_valid_KHW.numpy().copy()
    for k, known_HW in enumerate(known_KHW):
        low_n, high_n = at.below(k, y_KHW[k][known_HW].astype(np.float64), truth_KHW[k][known_HW].astype(np.float64))
        z_KHW[k][known_HW] = norm.ppf(np.clip(low_n + rng.random(len(low_n)) * (high_n - low_n), 1e-4, 1 - 1e-4))
        known_HW[known_HW] = high_n - low_n < FREQUENT
    return z_KHW, known_KHW


def distances(z_HW: np.ndarray, known_HW: np.ndarray) -> np.ndarray:
    """(R, 2): sums of products of all pairs of known pixels about r pixels apart, and their number."""
    size = [fft.next_fast_len(side + FARTHEST_PX, real=True) for side in z_HW.shape]
    spectra = [fft.rfft2(one_HW, size) for one_HW in (z_HW * known_HW, known_HW.astype(np.float64))]
    product_HW, pairs_HW = (fft.irfft2(np.abs(one) ** 2, size) for one in spectra)
    apart = [np.minimum(np.arange(side), side - np.arange(side)) for side in size]
    r_HW = np.rint(np.hypot(apart[0][:, None], apart[1][None])).astype(int)
    near_HW = (r_HW <= FARTHEST_PX) & (apart[0][:, None] <= FARTHEST_PX) & (apart[1][None] <= FARTHEST_PX)
    parts = [np.bincount(r_HW[near_HW], one_HW[near_HW], FARTHEST_PX + 1) for one_HW in (product_HW, pairs_HW)]
    return np.stack(parts, axis=1)


def weights(sums_RX: np.ndarray) -> tuple[float, ...]:
    """The shares of the scales that fit the correlation best; of single pixels alone where there are too few pairs."""
    enough_R = sums_RX[:, 1] >= LEAST_PAIRS
    alone = (1.0, *(0.0 for _ in SCALES_PX[1:]))
    if not enough_R[0] or sums_RX[0, 0] <= 0:
        return alone
    correlation_R = sums_RX[:, 0] / np.maximum(sums_RX[:, 1], 1) / (sums_RX[0, 0] / sums_RX[0, 1])
    r_R = np.flatnonzero(enough_R)
    curve_RJ = np.stack([np.exp(-((r_R / (2 * scale)) ** 2)) if scale else (r_R == 0) * 1.0 for scale in SCALES_PX], axis=1)
    counts_R = np.where(r_R == 0, 10.0, 1.0)  # the sum is 1
    found_J, _ = optimize.nnls(curve_RJ * counts_R[:, None], correlation_R[r_R] * counts_R)
    return tuple((found_J / found_J.sum()).round(4).tolist()) if found_J.sum() > 0 else alone
