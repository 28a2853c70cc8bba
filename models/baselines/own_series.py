"""Baselines from a pixel's own context, without a season: its mean, and its linear trend.

They are the references of series of seconds and minutes: volumes of a patient, cines, frames. Shapes and arguments as in
`models.baselines.pointwise`. Sums go over dates one by one, so a pixel's forecast does not depend on its tile.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.baselines.pointwise import context_arrays, context_days, mean_of_usable
from models.contract import Pointwise, over_space

APART = 1e-9  # of the squared length of the context; dates that vary less have no trend


@dataclass(frozen=True)
class ContextMean(Pointwise):
    """The mean of the pixel's valid values in the context, for every lead; without one the mean of usable dates, else 0."""

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Tensor:
        x_TCHW, valid_THW = context_arrays(x_NCHW, valid_NHW, context_T)
        total, count = torch.zeros_like(x_NCHW[0]), torch.zeros_like(x_NCHW[0, 0])
        for x_CHW, valid_HW in zip(x_TCHW, valid_THW, strict=True):
            total += x_CHW
            count += valid_HW
        mean_CHW = torch.where(count > 0, total / count.clamp(min=1), mean_of_usable(x_NCHW, valid_NHW, usable_N))
        return mean_CHW.expand(len(target_days_K), *mean_CHW.shape).clone()


@dataclass(frozen=True)
class ContextTrend(Pointwise):
    """The least-squares line through the pixel's valid values in the context, read off at the target dates.

    A pixel with fewer than two dates in the context has no trend: its forecast is that of `ContextMean`.
    """

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Tensor:
        y_KCHW = ContextMean().forecast(x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K)
        days_T = context_days(days_N, context_T)
        length = float(days_T[-1] - days_T[0])
        if length <= 0:
            return y_KCHW
        x_TCHW, valid_THW = context_arrays(x_NCHW, valid_NHW, context_T)
        time_T = ((days_T - days_T[-1]) / length).tolist()  # from -1 to 0, so that squares keep their digits
        count_HW = torch.zeros_like(x_NCHW[0, 0], dtype=torch.float64)
        time_HW = torch.zeros_like(count_HW)
        for time, valid_HW in zip(time_T, valid_THW, strict=True):
            count_HW += valid_HW
            time_HW += time * valid_HW
        time_HW /= count_HW.clamp(min=1)
        along_CHW, spread_HW = torch.zeros_like(x_NCHW[0], dtype=torch.float64), torch.zeros_like(count_HW)
        for time, x_CHW, valid_HW in zip(time_T, x_TCHW, valid_THW, strict=True):
            away_HW = (time - time_HW) * valid_HW
            along_CHW += away_HW * (x_CHW.double() - y_KCHW[0])
            spread_HW += away_HW.square()
        slope_CHW = torch.where(spread_HW > APART, along_CHW / spread_HW.clamp(min=APART), 0.0)
        time_K = ((target_days_K.double() - days_T[-1]) / length).to(x_NCHW.device)
        steps_K1HW = (over_space(time_K, time_HW.ndim) - time_HW)[:, None]
        return (y_KCHW + steps_K1HW * slope_CHW).to(x_NCHW.dtype)
