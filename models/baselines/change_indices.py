"""Change indices, without training: the difference of the images, the change vector, IR-MAD.

Shapes: T dates, C bands, H rows, W columns. Every index has `score(x_TCHW, valid_THW) -> score_HW`: float32 >= 0, the larger
the more likely changed; NaN where fewer than two dates are valid. With more than two dates a pixel's last valid date is
compared with its first one, as a change label does; a cloud on either end only shortens the period. `x` are prepared dates
(z-scores, coregistered), 0 where invalid. `fit(x_TCHW, valid_THW)` returns the index with its parameters of a site, measured on
the whole site; an index without parameters returns itself. So `fit(...).score(...)` works for all.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from models.contract import Halo, Pointwise

LEAST_SPREAD = 1e-6  # of values in standard deviations; a band without differences stays at 0
MAX_FIT_PX = 1_000_000  # pixels, evenly spaced, that the fit of IR-MAD uses; bounds memory and time
MIN_RHO_GAP = 1e-6  # identical dates have a correlation of 1 and no variance to divide by


def first_and_last(x_TCHW: Tensor, valid_THW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(first_CHW, last_CHW, seen_HW): each pixel on its first and last valid date; `seen_HW` where these are two dates.

    0 where not valid twice.
    """
    dates = len(x_TCHW)
    if dates < 2:
        raise ValueError(f"change needs two dates, got {dates}")
    index_T11 = torch.arange(dates, device=x_TCHW.device)[:, None, None]
    first_HW = torch.where(valid_THW, index_T11, dates).amin(0)
    last_HW = torch.where(valid_THW, index_T11, -1).amax(0)
    seen_HW = last_HW > first_HW

    def on(date_HW: Tensor) -> Tensor:
        at_1CHW = date_HW.clamp(0, dates - 1)[None, None].expand(1, *x_TCHW.shape[1:])
        return torch.where(seen_HW, x_TCHW.gather(0, at_1CHW)[0], 0)

    return on(first_HW), on(last_HW), seen_HW


def as_score(score_HW: Tensor, seen_HW: Tensor) -> Tensor:
    return torch.where(seen_HW, score_HW, torch.nan).float()


class PlainIndex(Pointwise):
    """An index without parameters of a site."""

    def fit(self, x_TCHW: Tensor, valid_THW: Tensor) -> Self:
        return self


@dataclass(frozen=True)
class ImageDifference(PlainIndex):
    """The absolute difference of the bands' mean (Singh 1989, https://doi.org/10.1080/01431168908903939, section 3.1)."""

    def score(self, x_TCHW: Tensor, valid_THW: Tensor) -> Tensor:
        first_CHW, last_CHW, seen_HW = first_and_last(x_TCHW, valid_THW)
        return as_score((last_CHW - first_CHW).mean(0).abs(), seen_HW)


@dataclass(frozen=True)
class PlainChangeVector(PlainIndex):
    """The length of the vector from a pixel's bands on one date to those on another (Malila 1980), as a root mean square."""

    def score(self, x_TCHW: Tensor, valid_THW: Tensor) -> Tensor:
        first_CHW, last_CHW, seen_HW = first_and_last(x_TCHW, valid_THW)
        return as_score(length(last_CHW - first_CHW), seen_HW)


@dataclass(frozen=True)
class ChangeVector(Pointwise):
    """As `PlainChangeVector`, of the difference minus its mean over `background_px` squared, averaged over `mean_px` squared.

    Relevant changes are small in space, so the low-frequency component of the difference (haze, season, illumination of slopes)
    is subtracted. Means are of valid pixels only; both widths are odd. `spread_C` is the standard deviation of that difference
    over the whole site, per band, from `fit`; None: the dates already are in units of it (`pipelines.samples.pairs`). `cap` is
    the limit of a band's difference, in standard deviations: a car, a bright roof or a misaligned edge is very bright and one
    pixel wide, construction is moderately bright and wide. None: no cap.

    On the shared OSCD cities (one threshold, chosen on the other cities) this raises F1 from 0.13 to 0.37 without training: 0.25
    without the site's own deviations, 0.34 without the cap, which changes F1 by less than 0.01 from 3 to 5. The cap was chosen
    after about eighty variants had been tried on these five cities, so part of its gain is selection.
    """

    background_px: int = 61
    mean_px: int = 5
    spread_C: tuple[float, ...] | None = None
    cap: float | None = 4.0

    def __post_init__(self) -> None:
        if self.background_px % 2 == 0 or self.mean_px % 2 == 0:
            raise ValueError(f"expected odd widths, got {self.background_px} and {self.mean_px}")

    def halo_px(self, steps: int) -> Halo:
        """Radius of the pixels that a score depends on, whatever the number of dates."""
        radius = self.background_px // 2 + self.mean_px // 2
        return radius, radius

    def fit(self, x_TCHW: Tensor, valid_THW: Tensor) -> "ChangeVector":
        """The index with the spread of this site, which makes one threshold comparable across sites."""
        local_CHW, seen_HW = self.local_difference(x_TCHW, valid_THW)
        values_CN = local_CHW[:, seen_HW].double()
        spread_C = values_CN.std(1, correction=0) if values_CN.shape[1] else torch.zeros(len(values_CN))
        return replace(self, spread_C=tuple(float(one) if one > LEAST_SPREAD else 1.0 for one in spread_C))

    def score(self, x_TCHW: Tensor, valid_THW: Tensor) -> Tensor:
        local_CHW, seen_HW = self.local_difference(x_TCHW, valid_THW)
        if self.spread_C is not None:
            local_CHW = local_CHW / torch.tensor(self.spread_C, dtype=local_CHW.dtype, device=local_CHW.device)[:, None, None]
        if self.cap is not None:
            local_CHW = local_CHW.clamp(-self.cap, self.cap)
        return as_score(masked_mean(length(local_CHW)[None], seen_HW, self.mean_px)[0], seen_HW)

    def local_difference(self, x_TCHW: Tensor, valid_THW: Tensor) -> tuple[Tensor, Tensor]:
        """(local_CHW, seen_HW): the last date minus the first, minus the mean of its surroundings; 0 where not valid twice."""
        first_CHW, last_CHW, seen_HW = first_and_last(x_TCHW, valid_THW)
        difference_CHW = last_CHW - first_CHW
        local_CHW = difference_CHW - masked_mean(difference_CHW, seen_HW, self.background_px)
        return torch.where(seen_HW, local_CHW, 0), seen_HW


def length(difference_CHW: Tensor) -> Tensor:
    """(H, W): root mean square over the bands, independent of the number of bands."""
    return difference_CHW.square().mean(0).sqrt()


def masked_mean(x_CHW: Tensor, seen_HW: Tensor, width_px: int) -> Tensor:
    """(C, H, W): mean of the valid pixels of the square of `width_px` around each pixel; 0 where none is valid.

    Pixels beyond the array are invalid.
    """
    weight_1HW = seen_HW[None].to(x_CHW.dtype)
    count_1HW = _box(weight_1HW, width_px)
    mean_CHW = _box(x_CHW * weight_1HW, width_px) / count_1HW.clamp_min(0.5)
    return torch.where(count_1HW > 0.5, mean_CHW, 0)


def _box(x_CHW: Tensor, width_px: int) -> Tensor:
    """Sum over squares, row by row and then column by column: the order of summation does not depend on the tile."""
    half = width_px // 2
    across_CHW = avg_pool2d(x_CHW, (1, width_px), stride=1, padding=(0, half), divisor_override=1)
    return avg_pool2d(across_CHW, (width_px, 1), stride=1, padding=(half, 0), divisor_override=1)


# ---------------------------------------------------------------- IR-MAD


@dataclass(frozen=True)
class IrMad(Pointwise):
    """IR-MAD, the iteratively reweighted multivariate alteration detection of Nielsen (2007).

    https://doi.org/10.1109/TIP.2006.888195. Canonical correlation finds the combinations of the bands of both dates with the
    highest correlation; the MAD variates are their differences (eq. 2). Without change, the sum of their squares over their
    variances is chi square with as many degrees of freedom as bands (eq. 8); its probability weights the pixels of the next
    iteration, until the correlations converge. Invariant to gains and offsets. One fit per site, then each pixel alone.

    This is the index before its fit: `score` needs the whole site, or call `fit` on the site first. At most `rounds` of
    reweighting; 0 is plain MAD. The weights suppress the tails, so the variance of unchanged pixels is underestimated and the
    score overestimated accordingly.
    """

    rounds: int = 30
    tolerance: float = 1e-3

    def halo_px(self, steps: int) -> Halo:
        return None  # every pixel depends on all others through the fit

    def score(self, x_TCHW: Tensor, valid_THW: Tensor) -> Tensor:
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


# ---------------------------------------------------------------- thresholds without labels


def otsu_threshold(score_HW: Tensor) -> float:
    """The score above which Otsu (1979) classifies a pixel as changed; infinity without differences.

    Otsu expects two modes: if 1 % of the pixels changed there is only one, and 10 % of the site are classified as changed.
    """
    from skimage.filters import threshold_otsu

    values = score_HW[torch.isfinite(score_HW)].cpu().numpy()
    if values.size == 0 or float(values.min()) == float(values.max()):
        return math.inf
    return float(threshold_otsu(values))


def chi_square_threshold(bands: int, false_alarms: float = 0.01) -> float:
    """The score that unchanged pixels exceed with probability `false_alarms` in plain MAD, if they are normally distributed.

    Real pairs are not: on OSCD most pixels of a city exceed it.
    """
    from scipy.stats import chi2

    return float(chi2.isf(false_alarms, bands))
