"""Persistence: the last valid value of every pixel."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.contract import Pointwise


def context_arrays(x_NCHW: Tensor, valid_NHW: Tensor, context_T: Tensor) -> tuple[Tensor, Tensor]:
    """(x_TCHW, valid_THW): the context steps; without an observation (index -1) x is 0 and valid is False. Copies."""
    seen_T = context_T >= 0
    index_T = context_T.clamp(min=0)
    valid_THW = valid_NHW[index_T] & seen_T[:, None, None]
    return x_NCHW[index_T] * valid_THW[:, None], valid_THW


def usable_mean(x_NCHW: Tensor, valid_NHW: Tensor, usable_N: Tensor) -> Tensor:
    """Mean of each pixel's usable values, (C, H, W); 0 where a pixel is never valid."""
    total, count = torch.zeros_like(x_NCHW[0]), torch.zeros_like(x_NCHW[0, 0])
    for n in torch.nonzero(usable_N).flatten().tolist():
        total += x_NCHW[n] * valid_NHW[n]
        count += valid_NHW[n]
    return total / count.clamp(min=1)


def last_clear(x_TCHW: Tensor, valid_THW: Tensor, otherwise_CHW: Tensor) -> Tensor:
    """The latest valid value of each pixel, (C, H, W); `otherwise_CHW` without one."""
    last_CHW = otherwise_CHW
    for x_CHW, valid_HW in zip(x_TCHW, valid_THW, strict=True):
        last_CHW = torch.where(valid_HW, x_CHW, last_CHW)
    return last_CHW


@dataclass(frozen=True)
class Persistence(Pointwise):
    """The last valid value of the context for every lead; without one the mean of usable dates, else 0."""

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Tensor:
        """y_KCHW, physical values; see docs/design/001-spine.md for the arguments."""
        x_TCHW, valid_THW = context_arrays(x_NCHW, valid_NHW, context_T)
        last_CHW = last_clear(x_TCHW, valid_THW, usable_mean(x_NCHW, valid_NHW, usable_N))
        return last_CHW.expand(len(target_days_K), *last_CHW.shape).clone()
