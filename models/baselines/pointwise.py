"""Baselines that forecast every pixel from its own values: persistence, climatology, decaying anomaly, harmonic regression.

Shapes: N dates, T context steps, K target dates, C channels, H rows, W columns (`HW` stands for all axes of space, of volumes
D, H, W); P pixels, U usable dates. Values are physical,
float32; days float64. `forecast` gives y_KCHW; docs/design/001-spine.md describes its arguments, and `ARGUMENTS` names them.
`fit` takes windows with these and `target_KCHW`, `target_valid_KHW` as attributes.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.contract import Pointwise, over_space

TROPICAL_YEAR_DAYS = 365.2422
# Pixels are multiplied in blocks of one fixed size, so that a pixel's result does not depend on its tile: matrix libraries
# choose their kernels (and so the order of sums) by the shape. This bounds the memory too: N x 4608 x (C + 1) floats.
BLOCK_PX = 4608
WIDTHS_DAYS = (5.0, 7.0, 10.0, 15.0, 22.0, 30.0, 45.0)  # candidates of `fit`
ARGUMENTS = ("x_NCHW", "valid_NHW", "days_N", "context_T", "usable_N", "target_days_K")


def context_arrays(x_NCHW: Tensor, valid_NHW: Tensor, context_T: Tensor) -> tuple[Tensor, Tensor]:
    """(x_TCHW, valid_THW): the context steps; without an observation (index -1) x is 0 and valid is False. Copies."""
    seen_T = context_T >= 0
    index_T = context_T.clamp(min=0)
    valid_THW = valid_NHW[index_T] & over_space(seen_T, valid_NHW.ndim - 1)
    return x_NCHW[index_T] * valid_THW[:, None], valid_THW


def context_days(days_N: Tensor, context_T: Tensor) -> Tensor:
    """Days of the context steps, float64 (T,). A step without an observation gets the date halfway between its neighbours."""
    days = days_N.double()[context_T.clamp(min=0)]
    known = torch.nonzero(context_T >= 0).flatten()
    if len(known) == len(context_T) or len(known) == 0:
        return days
    position = torch.arange(len(context_T))
    right = torch.searchsorted(known, position).clamp(max=len(known) - 1)
    left = (torch.searchsorted(known, position, right=True) - 1).clamp(min=0)
    a, b = known[left], known[right]
    share = torch.where(b > a, (position - a).double() / (b - a).clamp(min=1), 0.0)
    inside = days[a] + share * (days[b] - days[a])
    step = (days[known[-1]] - days[known[0]]) / (known[-1] - known[0]).clamp(min=1)
    return inside + step * ((position - known[-1]).clamp(min=0) - (known[0] - position).clamp(min=0))


def mean_of_usable(x_NCHW: Tensor, valid_NHW: Tensor, usable_N: Tensor) -> Tensor:
    """(C, H, W): the mean of a pixel's valid values on usable dates, 0 without any."""
    total, count = torch.zeros_like(x_NCHW[0]), torch.zeros_like(x_NCHW[0, 0])
    for n in torch.nonzero(usable_N).flatten().tolist():
        total += x_NCHW[n] * valid_NHW[n]
        count += valid_NHW[n]
    return total / count.clamp(min=1)


@dataclass(frozen=True)
class Persistence(Pointwise):
    """The last valid value of the context for every lead; without one the mean of usable dates, else 0."""

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Tensor:
        last_CHW = mean_of_usable(x_NCHW, valid_NHW, usable_N)
        for x_CHW, valid_HW in zip(*context_arrays(x_NCHW, valid_NHW, context_T), strict=True):
            last_CHW = torch.where(valid_HW, x_CHW, last_CHW)
        return last_CHW.expand(len(target_days_K), *last_CHW.shape).clone()


# ---------------------------------------------------------------- climatology


def season_distance_days(days_M: Tensor, other_N: Tensor) -> Tensor:
    """Distance in the year, (M, N) float64, in [0, 183] days."""
    apart = torch.remainder(days_M.double()[:, None] - other_N.double()[None, :], TROPICAL_YEAR_DAYS)
    return torch.minimum(apart, TROPICAL_YEAR_DAYS - apart)


def season_weights(at_days_M: Tensor, days_N: Tensor, width_days: float) -> Tensor:
    """Weights by the distance d in the year, (M, N) float32: exp(-(d / s)^2 / 2) + 0.01 exp(-(d / 3s)^2 / 2) + 1e-5.

    The two small terms matter only without near observations: then a pixel gets the mean of its wider season, then its overall
    mean. For a series shorter than a day d = 0 throughout: the climatology is then the plain mean.
    """
    scaled = season_distance_days(at_days_M, days_N) / width_days
    return (torch.exp(-scaled.square() / 2) + 0.01 * torch.exp(-(scaled / 3).square() / 2) + 1e-5).float()


def climatology_at(
    x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, usable_N: Tensor, at_days_M: Tensor, width_days: float
) -> Tensor:
    """Climatology on the dates `at_days_M`, (M, C, H, W) float32: the mean over usable dates, weighted by `season_weights`.

    0 where a pixel is never valid on a usable date.
    """
    return climatologies_at(x_NCHW, valid_NHW, days_N, usable_N, at_days_M, (width_days,))[0]


def climatologies_at(
    x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, usable_N: Tensor, at_days_M: Tensor, widths_V: Sequence[float]
) -> Tensor:
    """`climatology_at` with each width, (V, M, C, H, W), and the same to the last bit.

    The pixels are copied into blocks once for all widths, which takes longer than to multiply them.
    """
    index_U = torch.nonzero(usable_N).flatten()
    channels, *space = x_NCHW.shape[1:]
    pixels, dates = math.prod(space), len(at_days_M)
    x_NCP, valid_NP = x_NCHW.reshape(-1, channels, pixels), valid_NHW.reshape(-1, pixels)
    mean_VMCP = x_NCHW.new_zeros(len(widths_V), dates, channels, pixels)
    weights_VMU = [season_weights(at_days_M, days_N[index_U], width_days).to(x_NCHW.device) for width_days in widths_V]
    block_UEP = x_NCHW.new_zeros(len(index_U), channels + 1, BLOCK_PX)
    for start in range(0, pixels, BLOCK_PX):
        stop = min(start + BLOCK_PX, pixels)
        size = stop - start
        block_UEP[:, :channels, :size] = x_NCP[index_U, :, start:stop] * valid_NP[index_U, None, start:stop]
        block_UEP[:, channels, :size] = valid_NP[index_U, start:stop]
        for mean_MCP, weights_MU in zip(mean_VMCP, weights_VMU, strict=True):
            sums_MEP = (weights_MU @ block_UEP.flatten(1)).reshape(dates, channels + 1, BLOCK_PX)[..., :size]
            mean_MCP[..., start:stop] = sums_MEP[:, :channels] / sums_MEP[:, channels:].clamp(min=1e-12)
    return mean_VMCP.reshape(len(widths_V), -1, channels, *space)


def thinned(window: Any, pixels: int = 2500) -> SimpleNamespace:
    """The window as tensors on every n-th pixel of each axis, about `pixels` of them: enough to fit a few parameters."""
    space = window.x_NCHW.shape[2:]
    step = max(int((math.prod(space) // pixels) ** (1 / len(space)) + 1e-9), 1)

    def thin(values: Tensor) -> Tensor:
        return values[(slice(None),) * (values.ndim - len(space)) + (slice(None, None, step),) * len(space)]

    names = (*ARGUMENTS, "target_KCHW", "target_valid_KHW")
    tensors = {name: torch.as_tensor(getattr(window, name)) for name in names}
    return SimpleNamespace(**{n: thin(t) if n.endswith("HW") else t for n, t in tensors.items()})


@dataclass(frozen=True)
class Climatology(Pointwise):
    """The day-of-year mean of every pixel over the usable dates; `width_days` is the standard deviation s of the window."""

    width_days: float = 15.0

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Tensor:
        return climatology_at(x_NCHW, valid_NHW, days_N, usable_N, target_days_K, self.width_days)

    def fit(self, windows: Iterable[Any]) -> "Climatology":
        """The climatology with the width, out of `WIDTHS_DAYS`, of the smallest mean absolute error on the windows' targets."""
        errors_V = torch.zeros(len(WIDTHS_DAYS), dtype=torch.float64)
        for window in map(thinned, windows):
            seen_K1HW = window.target_valid_KHW[:, None] > 0
            about = (window.x_NCHW, window.valid_NHW, window.days_N, window.usable_N, window.target_days_K)
            for v, y_KCHW in enumerate(climatologies_at(*about, WIDTHS_DAYS)):
                errors_V[v] += torch.where(seen_K1HW, (y_KCHW - window.target_KCHW).abs(), 0.0).double().sum()
        return Climatology(WIDTHS_DAYS[int(errors_V.argmin())]) if float(errors_V.max()) > 0 else self


# ---------------------------------------------------------------- decaying anomaly


class Parts(NamedTuple):
    """The parts of a `DecayingAnomaly`."""

    background_TCHW: Tensor  # climatology on the context's dates
    background_KCHW: Tensor  # climatology on the target dates
    anomaly_CHW: Tensor  # median of the last valid anomalies; 0 without any
    anomaly_day_HW: Tensor  # their mean date; the issue date without any
    y_KCHW: Tensor  # the forecast


def last_values(x_TCHW: Tensor, valid_THW: Tensor, days_T: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` latest valid values of each pixel, newest last, and their days: (count C H W), (count H W), seen (count H W).

    A pixel with fewer has seen = False, value 0 and the last day at the first positions.
    """
    values = x_TCHW.new_zeros(count, *x_TCHW.shape[1:])
    days = torch.full_like(values[:, 0], float(days_T[-1]), dtype=torch.float64)
    seen = torch.zeros_like(days, dtype=torch.bool)
    for x_CHW, valid_HW, day in zip(x_TCHW, valid_THW, days_T.tolist(), strict=True):
        values = torch.where(valid_HW, torch.cat([values[1:], x_CHW[None]]), values)
        days = torch.where(valid_HW, torch.cat([days[1:], torch.full_like(days[:1], day)]), days)
        seen = torch.where(valid_HW, torch.cat([seen[1:], torch.ones_like(seen[:1])]), seen)
    return values, days, seen


def median_of_seen(values_LCHW: Tensor, seen_LHW: Tensor) -> Tensor:
    """Median over the valid ones of L values, (C, H, W): the middle one, or the mean of the two middle ones; 0 without any."""
    ordered = torch.where(seen_LHW[:, None], values_LCHW, math.inf).sort(dim=0).values
    number_CHW = seen_LHW.sum(dim=0).expand_as(ordered[0])
    below = ordered.gather(0, ((number_CHW - 1).clamp(min=0) // 2)[None])[0]
    above = ordered.gather(0, (number_CHW // 2).clamp(max=len(ordered) - 1)[None])[0]
    above = torch.where(number_CHW % 2 == 1, below, above)
    return torch.where(number_CHW > 0, (below + above) / 2, 0.0)


@dataclass(frozen=True)
class DecayingAnomaly(Pointwise):
    """The usual value plus the part of the current anomaly that persists:

        y(pixel, day) = climatology(pixel, day) + share * a(pixel) * exp(-(day - day_a(pixel)) / decay_days)

    `a` is the median of the pixel's last `count` valid anomalies in the context (robust to one outlier), `day_a` their mean date.
    """

    width_days: float = 15.0
    count: int = 3
    decay_days: float = 90.0
    share: float = 0.9

    def parts(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Parts:
        """Background, anomaly and forecast; a network that corrects this baseline gets the same background."""
        arguments = (x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K)
        return next(self.parts_of_widths(arguments, (self.width_days,)))

    def parts_of_widths(self, arguments: tuple[Tensor, ...], widths_V: Sequence[float]) -> Iterator[Parts]:
        """`parts` with each width in place of `width_days`; `arguments` in the order of `ARGUMENTS`."""
        x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K = arguments
        days_T = context_days(days_N, context_T)
        at_days_M = torch.cat([days_T, target_days_K.double()])
        x_TCHW, valid_THW = context_arrays(x_NCHW, valid_NHW, context_T)
        issue = float(days_T[-1])
        for background_MCHW in climatologies_at(x_NCHW, valid_NHW, days_N, usable_N, at_days_M, widths_V):
            background_TCHW, background_KCHW = background_MCHW[: len(days_T)], background_MCHW[len(days_T) :]
            values, value_days, seen = last_values(x_TCHW - background_TCHW, valid_THW, days_T, self.count)
            anomaly_CHW = median_of_seen(values, seen)
            number_HW = seen.sum(dim=0)
            anomaly_day_HW = issue + torch.where(seen, value_days - issue, 0.0).sum(dim=0) / number_HW.clamp(min=1)
            age_KHW = over_space(target_days_K.double(), anomaly_day_HW.ndim).to(x_NCHW.device) - anomaly_day_HW
            lasting_KHW = (self.share * torch.exp(-age_KHW.clamp(min=0) / self.decay_days)).to(x_NCHW.dtype)
            y_KCHW = background_KCHW + lasting_KHW[:, None] * anomaly_CHW
            yield Parts(background_TCHW, background_KCHW, anomaly_CHW, anomaly_day_HW, y_KCHW)

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Tensor:
        return self.parts(x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K).y_KCHW

    def fit(self, windows: Iterable[Any]) -> "DecayingAnomaly":
        """The baseline with the `width_days`, `decay_days` and `share` of the smallest mean absolute error on the windows.

        The search runs over a grid (7 widths, 12 decays from 0.1 to 30 times the leads, 11 shares) on every n-th pixel, at most
        about 2500 per window. Absolute errors, because undetected clouds would dominate squared ones.
        """
        errors_VDS = torch.zeros(len(WIDTHS_DAYS), 12, 11, dtype=torch.float64)
        decays_D: Tensor | None = None
        for window in map(thinned, windows):
            tensors = tuple(getattr(window, name) for name in ARGUMENTS)
            if decays_D is None:
                lead_days = max(float(window.target_days_K[-1]) - float(context_days(window.days_N, window.context_T)[-1]), 1e-6)
                decays_D = lead_days * torch.logspace(-1, 1.5, 12, dtype=torch.float64)
            for v, parts in enumerate(self.parts_of_widths(tensors, WIDTHS_DAYS)):
                errors_VDS[v] += absolute_errors(parts, window, decays_D)
        if decays_D is None or float(errors_VDS.max()) == 0:
            return self
        v, d, s = (int(n) for n in torch.unravel_index(errors_VDS.argmin(), errors_VDS.shape))
        return replace(self, width_days=WIDTHS_DAYS[v], decay_days=float(decays_D[d]), share=s / 10)


def absolute_errors(parts: Parts, window: Any, decays_D: Tensor) -> Tensor:
    """Sum of absolute errors over the valid targets for each decay and each share 0, 0.1 ... 1, (D, 11) float64."""
    seen_KHW = window.target_valid_KHW > 0
    missed_RC = (window.target_KCHW - parts.background_KCHW).movedim(1, -1)[seen_KHW]
    anomaly_RC = parts.anomaly_CHW.movedim(0, -1).expand(*seen_KHW.shape, -1)[seen_KHW]
    age_R = (over_space(window.target_days_K.double(), parts.anomaly_day_HW.ndim) - parts.anomaly_day_HW).clamp(min=0)[seen_KHW]
    errors_DS = torch.zeros(len(decays_D), 11, dtype=torch.float64)
    for d, decay_days in enumerate(decays_D.tolist()):
        lasting_RC = torch.exp(-age_R / decay_days).float()[:, None] * anomaly_RC
        for s in range(11):
            errors_DS[d, s] = (missed_RC - s / 10 * lasting_RC).abs().sum()
    return errors_DS


# ---------------------------------------------------------------- harmonic regression


def season_trend_features(days_N: Tensor, issue_day: float, harmonics: int) -> Tensor:
    """[1, t, cos 1, sin 1, cos 2, ...] of each day, (N, 2 + 2 harmonics) float64."""
    years_N = (days_N.double() - issue_day) / TROPICAL_YEAR_DAYS
    # The angle is counted from 1970, so that its precision does not depend on the issue date; any fixed origin works.
    angle_N = 2 * math.pi * torch.remainder(days_N.double() / TROPICAL_YEAR_DAYS, 1)
    waves = [f(j * angle_N) for j in range(1, harmonics + 1) for f in (torch.cos, torch.sin)]
    return torch.stack([torch.ones_like(years_N), years_N, *waves], dim=1)


@dataclass(frozen=True)
class HarmonicRegression(Pointwise):
    """Harmonic regression with trend:

        y(t) = a0 + a1 t + sum over j of (b_j cos(2 pi j t) + c_j sin(2 pi j t)),   t in years since the issue date

    fitted by ridge-regularised least squares to each pixel's usable values (the season-trend model of Verbesselt et al. 2010,
    https://doi.org/10.1016/j.rse.2009.08.014, eq. 4-5). The penalty, of the weight of `ridge` observations, pulls everything but
    the mean towards 0, so a short series gives its mean, and the trend does not diverge.
    """

    harmonics: int = 2
    ridge: float = 1.0

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Tensor:
        issue_day = float(context_days(days_N, context_T)[-1])
        index_U = torch.nonzero(usable_N).flatten()
        features_UJ = season_trend_features(days_N[index_U], issue_day, self.harmonics).to(x_NCHW.device)
        targets_KJ = season_trend_features(target_days_K, issue_day, self.harmonics).to(x_NCHW.device)
        channels, *space = x_NCHW.shape[1:]
        x_NCP, valid_NP = x_NCHW.flatten(2), valid_NHW.flatten(1)
        y_KCP = x_NCHW.new_zeros(len(target_days_K), channels, math.prod(space))
        for start in range(0, math.prod(space), BLOCK_PX):
            block = slice(start, start + BLOCK_PX)
            coefficients_PJC = self.coefficients(x_NCP[index_U, :, block], valid_NP[index_U, block], features_UJ)
            y_KCP[:, :, block] = torch.einsum("kj,pjc->kcp", targets_KJ, coefficients_PJC).to(x_NCHW.dtype)
        return y_KCP.reshape(-1, channels, *space)

    def coefficients(self, x_UCP: Tensor, valid_UP: Tensor, features_UJ: Tensor) -> Tensor:
        """Ridge solution for each pixel, (P, J, C) float64; all 0 for a pixel without a value."""
        weight_PU = valid_UP.T.double()
        number = features_UJ.shape[1]
        products_UJJ = features_UJ[:, :, None] * features_UJ[:, None, :]
        normal_PJJ = (weight_PU @ products_UJJ.flatten(1)).reshape(-1, number, number)
        right_PJC = torch.einsum("pu,ucp,uj->pjc", weight_PU, x_UCP.double(), features_UJ)
        penalty_J = torch.full((number,), self.ridge, dtype=torch.float64, device=x_UCP.device)
        penalty_J[0] = 1e-9  # the mean is not penalised; this only keeps the system regular without observations
        coefficients_PJC: Tensor = torch.linalg.solve(normal_PJJ + torch.diag(penalty_J), right_PJC)
        return coefficients_PJC
