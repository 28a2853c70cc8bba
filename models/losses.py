"""Losses over valid pixels.

Shapes: `y` and `target` are equal and of any shape (B K C H W for frames), `weight` broadcasts to it: 0 invalid, 1 valid, or
any weight >= 0. The mean is weighted; a batch without valid pixels gives 0 with a gradient of 0, never NaN.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor


def weighted_mean(error: Tensor, weight: Tensor) -> Tensor:
    """Scalar mean of `error` with `weight`; where the weight is 0 the error is ignored, even NaN."""
    weight = weight.to(error.dtype).expand_as(error)
    total = torch.where(weight > 0, error * weight, torch.zeros_like(error)).sum()
    return total / weight.sum().clamp(min=torch.finfo(error.dtype).tiny)


def _seen(y: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """`target` where it has weight, else `y` without gradient, so that the difference there is 0."""
    return torch.where((weight > 0).expand_as(y), target, y.detach())


def centred_target(batch: dict[str, Tensor]) -> Tensor:
    """The batch's target without the deviation from the baseline that a window's pixels share on a date, (B, K, C, ...).

    Haze, illumination and a late spring change a whole scene at once. No earlier frame predicts them, and with a few dozen dates
    a network memorises them instead. So the median over the valid pixels of (target - baseline) is subtracted before training.
    """
    target, seen_BK1HW = batch["target_KCHW"], batch["target_valid_KHW"][:, :, None]
    beyond = torch.where(seen_BK1HW, target - batch["baseline_KCHW"], torch.nan).flatten(3)
    shared = beyond.nanmedian(dim=-1).values.nan_to_num(0.0)
    centred: Tensor = target - shared.unflatten(2, (-1, *[1] * (target.ndim - 3)))
    return centred


def masked_mae(y: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute error, scalar."""
    return weighted_mean((y - _seen(y, target, weight)).abs(), weight)


def masked_mse(y: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean squared error, scalar."""
    return weighted_mean((y - _seen(y, target, weight)).square(), weight)


def masked_huber(y: Tensor, target: Tensor, weight: Tensor, delta: float = 1.0) -> Tensor:
    """Huber loss, scalar: half the square up to `delta`, linear beyond (Huber 1964); `delta` in the units of `y`."""
    return weighted_mean(F.huber_loss(y, _seen(y, target, weight), reduction="none", delta=delta), weight)
