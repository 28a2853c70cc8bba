"""Losses for rare change, over the pixels whose label is known and that were seen.

Shapes: `logit` and `target` (0 or 1) are equal, in training B 1 H W; `weight` broadcasts to them: 0 unknown or not seen, 1 (or
True) known. Whatever stands where the weight is 0 is not looked at, NaN neither. Every loss is a float32 scalar, finite and with
a gradient for batches in which nothing changed; where nothing is known it is 0 with a gradient of 0.

All pixels of a batch are taken together: a window without change has no Dice or Jaccard of its own.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor

from models.losses import weighted_mean

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

DICE_SMOOTH = 1.0  # pixels; keeps the ratio finite where nothing changed
FOCUS = 2.0  # gamma of Lin et al. 2017, their best
CHANGED_SHARE = 0.75  # alpha: weight of changed pixels; 1 - alpha of the others
CHANGED_WEIGHT = 10.0  # of changed pixels in the weighted cross-entropy
FOCAL_PER_DICE = 20.0  # focal to Dice 20 : 1 as in Kirillov et al. 2023, arXiv:2304.02643


def change_loss(kind: str) -> Loss:
    """The loss of that name. Raises ValueError for an unknown one."""
    match kind:
        case "dice":
            return dice
        case "focal":
            return focal
        case "lovasz":
            return lovasz_hinge
        case "cross_entropy":
            return weighted_cross_entropy
        case "dice_focal":
            return dice_focal
    raise ValueError(f"the loss is 'dice', 'focal', 'lovasz', 'cross_entropy' or 'dice_focal', not {kind!r}")


def dice(logit: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """1 - soft Dice with squares in the denominator (Milletari, Navab & Ahmadi 2016, arXiv:1606.04797, section 3)."""
    logit, target, weight = known_only(logit, target, weight)
    p = torch.sigmoid(logit)
    overlap = (weight * p * target).sum()
    both = (weight * (p.square() + target.square())).sum()
    return 1 - (2 * overlap + DICE_SMOOTH) / (both + DICE_SMOOTH)


def focal(logit: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean of -alpha_t (1 - p_t)^gamma log p_t (Lin et al. 2017, arXiv:1708.02002, eq. 5).

    Alpha favours the changed class, which is rare also in windows that are drawn around it; Lin et al. have 0.25 for boxes.
    """
    logit, target, weight = known_only(logit, target, weight)
    minus_log_p = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    alpha = target * CHANGED_SHARE + (1 - target) * (1 - CHANGED_SHARE)
    return weighted_mean(alpha * (-torch.expm1(-minus_log_p)) ** FOCUS * minus_log_p, weight)


def weighted_cross_entropy(logit: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean cross-entropy in which a changed pixel counts `CHANGED_WEIGHT` times."""
    logit, target, weight = known_only(logit, target, weight)
    error = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    return weighted_mean(error, weight * (1 + (CHANGED_WEIGHT - 1) * target))


def lovasz_hinge(logit: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The Lovasz extension of 1 - Jaccard of the hinge errors (Berman, Triki & Blaschko 2018, arXiv:1705.08790, algorithm 1).

    Pixels with any weight count alike.
    """
    known = (weight > 0).expand_as(logit)
    logit_P, changed_P = logit[known].float(), target[known] > 0.5
    if logit_P.numel() == 0:
        return known_only(logit, target, weight)[0].sum() * 0
    error_P, order_P = torch.sort(1 - logit_P * (2.0 * changed_P - 1), descending=True, stable=True)
    return torch.dot(torch.relu(error_P), jaccard_steps(changed_P[order_P]))


def jaccard_steps(changed_P: Tensor) -> Tensor:
    """How much the Jaccard loss grows as pixel after pixel, in this order, becomes wrong; float32, the sum is 1."""
    changed_P = changed_P.long()  # whole numbers: exact, and deterministic on a GPU
    total = changed_P.sum()
    overlap_P = total - changed_P.cumsum(0)
    union_P = total + (1 - changed_P).cumsum(0)
    loss_P = 1 - overlap_P / union_P
    return torch.diff(loss_P, prepend=loss_P.new_zeros(1))


def dice_focal(logit: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Dice for the rare class as a whole, focal for every pixel: `dice` + `FOCAL_PER_DICE` x `focal`."""
    return dice(logit, target, weight) + FOCAL_PER_DICE * focal(logit, target, weight)


def known_only(logit: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three as float32 of one shape, logit and target 0 without gradient where the weight is 0."""
    weight = weight.float().expand_as(logit)
    is_known = weight > 0
    return torch.where(is_known, logit.float(), 0), torch.where(is_known, target.float(), 0), weight
