"""Losses of labels and numbers of whole sequences, float32 scalars.

Shapes: B samples, T steps, K classes or numbers; y_BK, or y_BTK with an answer for every step; `target_BK` (probabilities of
classes, or numbers), which all steps of a sample share, or target_BTK; `weight_B` or weight_BT >= 0.
"""

import torch
from torch import Tensor

from models.box_losses import focal_l1
from models.losses import FOCUS, Loss, weighted_mean

LABEL_LOSSES = ("cross_entropy", "focal")
NUMBER_LOSSES = ("huber", "absolute", "squared")
WORD_LOSS = "words"


def sequence_loss(kind: str) -> Loss:
    """The loss of that name. Raises ValueError."""
    known: dict[str, Loss] = {
        "cross_entropy": cross_entropy,
        "focal": focal,
        "huber": huber,
        "absolute": absolute,
        "squared": squared,
        "focal_l1": focal_l1,
        WORD_LOSS: word_cross_entropy,
    }
    if kind not in known:
        raise ValueError(f"expected one of {', '.join(known)}, got the loss {kind!r}")
    return known[kind]


def cross_entropy(y: Tensor, target_BK: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of -sum(target log p); targets may be smoothed or mixed."""
    return weighted_mean(-(_for_steps(y, target_BK) * torch.log_softmax(y.float(), dim=-1)).sum(-1), weight)


def word_cross_entropy(y_BLK: Tensor, target_BL: Tensor, weight_BL: Tensor) -> Tensor:
    """Weighted mean of -log p over words, each given the true words before it; `target_BL` are numbers of words."""
    log_p_BLK = torch.log_softmax(y_BLK.float(), dim=-1)
    surprise_BL = -log_p_BLK.gather(-1, target_BL[..., None].long())[..., 0]
    return weighted_mean(surprise_BL, weight_BL)


def focal(y: Tensor, target_BK: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of -sum(target (1 - p)^gamma log p) (Lin et al. 2017, arXiv:1708.02002, eq. 4)."""
    log_p = torch.log_softmax(y.float(), dim=-1)
    return weighted_mean(-(_for_steps(y, target_BK) * (-torch.expm1(log_p)).clamp(min=0) ** FOCUS * log_p).sum(-1), weight)


def huber(y: Tensor, target_BK: Tensor, weight: Tensor) -> Tensor:
    """Half the square up to 1, linear beyond (Huber 1964), in standard deviations; the mean over numbers."""
    error = (y.float() - _for_steps(y, target_BK)).abs()
    return weighted_mean(torch.where(error <= 1, error.square() / 2, error - 0.5).mean(-1), weight)


def absolute(y: Tensor, target_BK: Tensor, weight: Tensor) -> Tensor:
    return weighted_mean((y.float() - _for_steps(y, target_BK)).abs().mean(-1), weight)


def squared(y: Tensor, target_BK: Tensor, weight: Tensor) -> Tensor:
    return weighted_mean((y.float() - _for_steps(y, target_BK)).square().mean(-1), weight)


def _for_steps(y: Tensor, target_BK: Tensor) -> Tensor:
    return target_BK if y.ndim == target_BK.ndim else target_BK[:, None]
