"""IR-MAD, the iteratively reweighted multivariate alteration detection of Nielsen (2007).

https://doi.org/10.1109/TIP.2006.888195. Canonical correlation finds the combinations of the bands of both dates with the
highest correlation; the MAD variates are their differences (eq. 2). Without change, the sum of their squares over their
variances is chi square with as many degrees of freedom as bands (eq. 8); its probability weights the pixels of the next
iteration, until the correlations converge. Invariant to gains and offsets. One fit per site, then each pixel alone.
Shapes and `score` as in `models.baselines.image_difference`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.baselines.image_difference import as_score, first_and_last
from models.contract import Halo, Pointwise

MAX_FIT_PX = 1_000_000  # pixels, evenly spaced, that the fit uses; bounds memory and time
MIN_RHO_GAP = 1e-6  # identical dates have a correlation of 1 and no variance to divide by


@dataclass(frozen=True)
class IrMad:
    """The index before its fit. `score` needs the whole site, or call `fit` on the site first.

    At most `rounds` of reweighting; 0 is plain MAD. The weights suppress the tails, so the variance of unchanged pixels is
    underestimated and the score overestimated accordingly.
    """

    rounds: int = 30
    tolerance: float = 1e-3

    @property
    def stride_px(self) -> tuple[int, ...]:
        """(1, 1): windows may start anywhere."""
        return 1, 1

    def halo_px(self, steps: int) -> Halo:
        """None: every pixel depends on all others through the fit."""
        return None

    def score(self, x_TCHW: Tensor, valid_THW: Tensor) -> Tensor:
        """score_HW (chi square) of a whole site."""
        return self.fit(x_TCHW, valid_THW).score(x_TCHW, valid_THW)

    def fit(self, x_TCHW: Tensor, valid_THW: Tensor) -> "FittedIrMad":
        """The transform of a site, float64; pixels are independent, so any sample of them works.

        Raises ValueError if too few pixels are valid twice to fit the bands.
        """
        first_CHW, last_CHW, seen_HW = first_and_last(x_TCHW, valid_THW)
        a_CN, b_CN = (image_CHW[:, seen_HW].double() for image_CHW in (first_CHW, last_CHW))
        bands, pixels = a_CN.shape
        if pixels < 4 * bands + 2:
            raise ValueError(f"{pixels} pixels are valid twice, IR-MAD with {bands} bands needs {4 * bands + 2}")
        every = -(-pixels // MAX_FIT_PX)
        a_CN, b_CN = a_CN[:, ::every], b_CN[:, ::every]
        weight_N = torch.ones_like(a_CN[0])
        rho_C = torch.zeros(bands, dtype=torch.float64, device=a_CN.device)
        fitted = _canonical(a_CN, b_CN, weight_N)
        for _ in range(self.rounds):
            if float((fitted.rho_C - rho_C).abs().max()) < self.tolerance:
                break
            rho_C = fitted.rho_C
            weight_N = unchanged_probability(fitted.chi_square(a_CN, b_CN), bands)
            if float(weight_N.sum()) < 4 * bands + 2:  # almost no pixel has weight: keep the last fit
                break
            fitted = _canonical(a_CN, b_CN, weight_N)
        return fitted


@dataclass(frozen=True)
class FittedIrMad(Pointwise):
    """The transform of one site: MAD = first_vectors (a - mean_a) - last_vectors (b - mean_b), of variance 2 (1 - rho)."""

    mean_first_C: Tensor
    mean_last_C: Tensor
    first_vectors_CC: Tensor
    last_vectors_CC: Tensor
    rho_C: Tensor

    def score(self, x_TCHW: Tensor, valid_THW: Tensor) -> Tensor:
        """score_HW (chi square) of the site or any window of it."""
        first_CHW, last_CHW, seen_HW = first_and_last(x_TCHW, valid_THW)
        chi_HW = self.chi_square(first_CHW.flatten(1).double(), last_CHW.flatten(1).double()).view(seen_HW.shape)
        return as_score(chi_HW, seen_HW)

    def chi_square(self, a_CN: Tensor, b_CN: Tensor) -> Tensor:
        """(N,): sum over the variates of MAD squared over its variance (eq. 8)."""
        u_CN = self.first_vectors_CC @ (a_CN - self.mean_first_C[:, None])
        v_CN = self.last_vectors_CC @ (b_CN - self.mean_last_C[:, None])
        variance_C = 2 * (1 - self.rho_C).clamp_min(MIN_RHO_GAP)
        return ((u_CN - v_CN).square() / variance_C[:, None]).sum(0)


def unchanged_probability(chi_square_N: Tensor, bands: int) -> Tensor:
    """P(chi square with `bands` degrees of freedom > value)."""
    probability_N: Tensor = torch.special.gammaincc(torch.full_like(chi_square_N, bands / 2), chi_square_N / 2)
    return probability_N


def chi_square_threshold(bands: int, false_alarms: float = 0.01) -> float:
    """The score that unchanged pixels exceed with probability `false_alarms` in plain MAD, if they are normally distributed.

    Real pairs are not: on OSCD most pixels of a city exceed it.
    """
    from scipy.stats import chi2

    return float(chi2.isf(false_alarms, bands))


def _canonical(a_CN: Tensor, b_CN: Tensor, weight_N: Tensor) -> FittedIrMad:
    """Weighted canonical correlation by singular values of the whitened cross covariance."""
    total = weight_N.sum()
    mean_a_C, mean_b_C = (a_CN @ weight_N) / total, (b_CN @ weight_N) / total
    a_CN, b_CN = a_CN - mean_a_C[:, None], b_CN - mean_b_C[:, None]
    whiten_a, whiten_b = _whitening((a_CN * weight_N) @ a_CN.T / total), _whitening((b_CN * weight_N) @ b_CN.T / total)
    left, rho_C, right_t = torch.linalg.svd(whiten_a @ ((a_CN * weight_N) @ b_CN.T / total) @ whiten_b.T)
    return FittedIrMad(mean_a_C, mean_b_C, left.T @ whiten_a, right_t @ whiten_b, rho_C.clamp(0, 1))


def _whitening(covariance_CC: Tensor) -> Tensor:
    """W with W covariance W^T = 1; directions without variance (a constant band) become 0."""
    values_C, vectors_CC = torch.linalg.eigh(covariance_CC)
    is_alive_C = values_C > 1e-12 * values_C.max().clamp_min(1e-300)
    scale_C = torch.where(is_alive_C, values_C.clamp_min(1e-300).rsqrt(), 0)
    whitening_CC: Tensor = scale_C[:, None] * vectors_CC.T
    return whitening_CC
