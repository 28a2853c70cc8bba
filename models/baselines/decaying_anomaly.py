"""Climatology plus a decaying anomaly: the usual value plus the part of the current anomaly that persists.

    y(pixel, day) = climatology(pixel, day) + share * a(pixel) * exp(-(day - day_a(pixel)) / decay_days)

`a` is the median of the pixel's last `count` valid anomalies in the context (robust to one outlier) and `day_a` the
mean date of those. Share, decay and the climatology's width are fitted on training windows, or given.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.baselines.climatology import ARGUMENTS, WIDTHS_DAYS, climatology_at, thinned
from models.baselines.persistence import context_arrays
from models.contract import Pointwise


class Parts(NamedTuple):
    """The parts of the baseline. Physical values, float32; days float64 in the same count as the input."""

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
    """Climatology + share x median anomaly of the last `count` valid values x exp(-age / decay_days)."""

    width_days: float = 15.0
    count: int = 3
    decay_days: float = 90.0
    share: float = 0.9

    def parts(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Parts:
        """Background, anomaly and forecast; a network that corrects this baseline gets the same background."""
        days_T = context_days(days_N, context_T)
        at_days_M = torch.cat([days_T, target_days_K.double()])
        background_MCHW = climatology_at(x_NCHW, valid_NHW, days_N, usable_N, at_days_M, self.width_days)
        background_TCHW, background_KCHW = background_MCHW[: len(days_T)], background_MCHW[len(days_T) :]
        x_TCHW, valid_THW = context_arrays(x_NCHW, valid_NHW, context_T)
        values, value_days, seen = last_values(x_TCHW - background_TCHW, valid_THW, days_T, self.count)
        anomaly_CHW = median_of_seen(values, seen)
        issue = float(days_T[-1])
        number_HW = seen.sum(dim=0)
        anomaly_day_HW = issue + torch.where(seen, value_days - issue, 0.0).sum(dim=0) / number_HW.clamp(min=1)
        age_KHW = (target_days_K.double()[:, None, None].to(x_NCHW.device) - anomaly_day_HW).clamp(min=0)
        lasting_KHW = (self.share * torch.exp(-age_KHW / self.decay_days)).to(x_NCHW.dtype)
        y_KCHW = background_KCHW + lasting_KHW[:, None] * anomaly_CHW
        return Parts(background_TCHW, background_KCHW, anomaly_CHW, anomaly_day_HW, y_KCHW)

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Tensor:
        """y_KCHW, physical values; see docs/design/001-spine.md for the arguments."""
        return self.parts(x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K).y_KCHW

    def fit(self, windows: Iterable[Any]) -> "DecayingAnomaly":
        """The baseline with the `width_days`, `decay_days` and `share` of the smallest mean absolute error on the windows.

        `windows` have the arguments of `forecast` and `target_KCHW`, `target_valid_KHW` as attributes. The search runs over a
        grid (7 widths, 12 decays from 0.1 to 30 times the leads, 11 shares) on every n-th pixel, at most about 2500 per window.
        Absolute errors, because undetected clouds would dominate squared ones.
        """
        errors_VDS = torch.zeros(len(WIDTHS_DAYS), 12, 11, dtype=torch.float64)
        decays_D: Tensor | None = None
        for window in map(thinned, windows):
            tensors = tuple(getattr(window, name) for name in ARGUMENTS)
            if decays_D is None:
                lead_days = max(float(window.target_days_K[-1]) - float(context_days(window.days_N, window.context_T)[-1]), 1e-6)
                decays_D = lead_days * torch.logspace(-1, 1.5, 12, dtype=torch.float64)
            for v, width_days in enumerate(WIDTHS_DAYS):
                parts = replace(self, width_days=width_days).parts(*tensors)
                errors_VDS[v] += _absolute_errors(parts, window, decays_D)
        if decays_D is None or float(errors_VDS.max()) == 0:
            return self
        v, d, s = (int(n) for n in torch.unravel_index(errors_VDS.argmin(), errors_VDS.shape))
        return replace(self, width_days=WIDTHS_DAYS[v], decay_days=float(decays_D[d]), share=s / 10)


def _absolute_errors(parts: Parts, window: Any, decays_D: Tensor) -> Tensor:
    """Sum of absolute errors over the valid targets for each decay and each share 0, 0.1 ... 1, (D, 11) float64."""
    seen_KHW = window.target_valid_KHW > 0
    missed_RC = (window.target_KCHW - parts.background_KCHW).permute(0, 2, 3, 1)[seen_KHW]
    anomaly_RC = parts.anomaly_CHW.permute(1, 2, 0).expand(*seen_KHW.shape, -1)[seen_KHW]
    age_R = (window.target_days_K.double()[:, None, None] - parts.anomaly_day_HW).clamp(min=0)[seen_KHW]
    errors_DS = torch.zeros(len(decays_D), 11, dtype=torch.float64)
    for d, decay_days in enumerate(decays_D.tolist()):
        lasting_RC = torch.exp(-age_R / decay_days).float()[:, None] * anomaly_RC
        for s in range(11):
            errors_DS[d, s] = (missed_RC - s / 10 * lasting_RC).abs().sum()
    return errors_DS


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
