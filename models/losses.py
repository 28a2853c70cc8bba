"""Losses over valid pixels, float32 scalars: of values, and of the logits of rare change.

Shapes: `y` (or `logit`) and `target` are equal and of any shape (B K C H W for frames, B 1 H W for change), `weight` broadcasts
to it: 0 invalid or unknown, 1 valid, or any weight >= 0. Values where the weight is 0 are ignored, even NaN. The mean is
weighted; a batch without valid pixels gives 0 with a gradient of 0, never NaN.

Targets of change are 0 or 1. All pixels of a batch are one set: Dice and Jaccard are not defined for a window without change.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

DICE_SMOOTH = 1.0  # pixels; keeps the ratio finite without change
FOCUS = 2.0  # gamma of Lin et al. 2017, their best value
CHANGED_SHARE = 0.75  # alpha: weight of changed pixels; 1 - alpha of the others
CHANGED_WEIGHT = 10.0  # of changed pixels in the weighted cross-entropy
FOCAL_PER_DICE = 20.0  # focal to Dice 20 : 1 as in Kirillov et al. 2023, arXiv:2304.02643


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
    return weighted_mean((y - _seen(y, target, weight)).abs(), weight)


def masked_mse(y: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return weighted_mean((y - _seen(y, target, weight)).square(), weight)


def masked_mse_mae(y: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """MSE + MAE, scalar: large errors weigh as in the MSE, and what is probably 0 becomes 0, not a faint mean."""
    return masked_mse(y, target, weight) + masked_mae(y, target, weight)


def masked_huber(y: Tensor, target: Tensor, weight: Tensor, delta: float = 1.0) -> Tensor:
    """Huber loss, scalar: half the square up to `delta`, linear beyond (Huber 1964); `delta` in the units of `y`."""
    return weighted_mean(F.huber_loss(y, _seen(y, target, weight), reduction="none", delta=delta), weight)


def intense_mae(y: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """MAE whose weight grows by 1 with every unit that the target lies above 0, the mean of standardised values.

    The best guess by plain MAE is the median, which is below a threshold wherever the threshold is more likely missed than
    reached: rain dries out. With weights that grow with the truth it moves towards the large values that may come.
    """
    return weighted_mean((y - _seen(y, target, weight)).abs(), weight * (1 + _seen(y, target, weight).clamp(min=0)))


# ---------------------------------------------------------------- rare change


def change_loss(kind: str) -> Loss:
    """The loss of that name. Raises ValueError for an unknown name."""
    known = {
        "dice": dice,
        "focal": focal,
        "lovasz": lovasz_hinge,
        "cross_entropy": weighted_cross_entropy,
        "dice_focal": dice_focal,
    }
    if kind not in known:
        raise ValueError(f"expected 'dice', 'focal', 'lovasz', 'cross_entropy' or 'dice_focal', got the loss {kind!r}")
    return known[kind]


def dice(logit: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """1 - soft Dice with squares in the denominator (Milletari, Navab & Ahmadi 2016, arXiv:1606.04797, section 3)."""
    logit, target, weight = known_only(logit, target, weight)
    p = torch.sigmoid(logit)
    overlap = (weight * p * target).sum()
    both = (weight * (p.square() + target.square())).sum()
    return 1 - (2 * overlap + DICE_SMOOTH) / (both + DICE_SMOOTH)


def focal(logit: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean of -alpha_t (1 - p_t)^gamma log p_t (Lin et al. 2017, arXiv:1708.02002, eq. 5).

    Alpha favours the changed class, which is rare even in windows around change; Lin et al. use 0.25 for boxes.
    """
    logit, target, weight = known_only(logit, target, weight)
    minus_log_p = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    alpha = target * CHANGED_SHARE + (1 - target) * (1 - CHANGED_SHARE)
    return weighted_mean(alpha * (-torch.expm1(-minus_log_p)) ** FOCUS * minus_log_p, weight)


def weighted_cross_entropy(logit: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean cross-entropy with the weight `CHANGED_WEIGHT` for changed pixels."""
    logit, target, weight = known_only(logit, target, weight)
    error = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    return weighted_mean(error, weight * (1 + (CHANGED_WEIGHT - 1) * target))


def lovasz_hinge(logit: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The Lovasz extension of 1 - Jaccard of the hinge errors (Berman, Triki & Blaschko 2018, arXiv:1705.08790, algorithm 1).

    All pixels with a weight above 0 count equally.
    """
    known = (weight > 0).expand_as(logit)
    logit_P, changed_P = logit[known].float(), target[known] > 0.5
    if logit_P.numel() == 0:
        return known_only(logit, target, weight)[0].sum() * 0
    error_P, order_P = torch.sort(1 - logit_P * (2.0 * changed_P - 1), descending=True, stable=True)
    return torch.dot(torch.relu(error_P), jaccard_steps(changed_P[order_P]))


def jaccard_steps(changed_P: Tensor) -> Tensor:
    """Increase of the Jaccard loss as pixel after pixel, in this order, becomes wrong; float32, the sum is 1."""
    changed_P = changed_P.long()  # integers: exact, and deterministic on a GPU
    total = changed_P.sum()
    overlap_P = total - changed_P.cumsum(0)
    union_P = total + (1 - changed_P).cumsum(0)
    loss_P = 1 - overlap_P / union_P
    return torch.diff(loss_P, prepend=loss_P.new_zeros(1))


def dice_focal(logit: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """`dice` + `FOCAL_PER_DICE` x `focal`: Dice for the rare class as a whole, focal for every pixel."""
    return dice(logit, target, weight) + FOCAL_PER_DICE * focal(logit, target, weight)


def known_only(logit: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three as float32 of one shape; logit and target are 0 without gradient where the weight is 0."""
    weight = weight.float().expand_as(logit)
    is_known = weight > 0
    return torch.where(is_known, logit.float(), 0), torch.where(is_known, target.float(), 0), weight
