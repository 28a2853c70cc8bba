"""Losses over labelled pixels of several classes, float32 scalars.

Shapes: `logit_BKHW`; `target_B1HW`, the number of the class, anything where `weight_B1HW` is 0; `HW`: all axes of space.
The weight is that of the pixel (0: not labelled) times that of its class. A batch without labels gives a gradient of 0, never
NaN. Written with products, which are deterministic on every device, unlike gathers.
"""

from functools import partial

import torch
from torch import Tensor

from models.contract import over_space
from models.losses import FOCUS, Loss, change_loss, weighted_mean

TWO_CLASS_LOSSES = ("dice_focal", "lovasz")
SMOOTH = 1.0  # pixels; keeps a class's Dice finite where a batch does not hold it


def class_loss(kind: str) -> Loss:
    """The loss of that name; those of rare change (`models.losses`) are for two classes. Raises ValueError."""
    known = {"cross_entropy": cross_entropy, "focal": focal, "dice": dice}
    if kind in TWO_CLASS_LOSSES:
        return partial(of_two_classes, change_loss(kind))
    if kind not in known:
        raise ValueError(f"expected one of {', '.join((*known, *TWO_CLASS_LOSSES))}, got the loss {kind!r}")
    return known[kind]


def of_two_classes(loss: Loss, logit_BKHW: Tensor, target_B1HW: Tensor, weight_B1HW: Tensor) -> Tensor:
    """A loss of the second class against the first. Raises ValueError for more classes."""
    if logit_BKHW.shape[1] != 2:
        raise ValueError(f"this loss is of two classes, there are {logit_BKHW.shape[1]}")
    return loss(logit_BKHW[:, 1:] - logit_BKHW[:, :1], target_B1HW.float(), weight_B1HW)


def cross_entropy(logit_BKHW: Tensor, target_B1HW: Tensor, weight_B1HW: Tensor) -> Tensor:
    """Weighted mean of -log p of the true class."""
    return weighted_mean(-_log_p(logit_BKHW, target_B1HW), weight_B1HW)


def focal(logit_BKHW: Tensor, target_B1HW: Tensor, weight_B1HW: Tensor) -> Tensor:
    """Weighted mean of -(1 - p)^gamma log p of the true class (Lin et al. 2017, arXiv:1708.02002, eq. 4)."""
    log_p_B1HW = _log_p(logit_BKHW, target_B1HW)
    return weighted_mean((-torch.expm1(log_p_B1HW)).clamp(min=0) ** FOCUS * -log_p_B1HW, weight_B1HW)


def dice(logit_BKHW: Tensor, target_B1HW: Tensor, weight_B1HW: Tensor) -> Tensor:
    """1 - the mean over classes of soft Dice (Milletari et al. 2016, arXiv:1606.04797), all pixels of a batch one set."""
    p_BKHW, truth_BKHW = torch.softmax(logit_BKHW.float(), dim=1), _one_hot(target_B1HW, logit_BKHW.shape[1])
    weight = weight_B1HW.float()
    others = (0, *range(2, p_BKHW.ndim))
    overlap_K = (weight * p_BKHW * truth_BKHW).sum(others)
    both_K = (weight * (p_BKHW.square() + truth_BKHW)).sum(others)
    return 1 - ((2 * overlap_K + SMOOTH) / (both_K + SMOOTH)).mean()


def _log_p(logit_BKHW: Tensor, target_B1HW: Tensor) -> Tensor:
    """log p of the class in `target`, (B, 1, H, W)."""
    log_p_BKHW = torch.log_softmax(logit_BKHW.float(), dim=1)
    return (log_p_BKHW * _one_hot(target_B1HW, logit_BKHW.shape[1])).sum(1, keepdim=True)


def _one_hot(target_B1HW: Tensor, classes: int) -> Tensor:
    """float32 (B, K, H, W)."""
    numbers_K11 = over_space(torch.arange(classes, device=target_B1HW.device), target_B1HW.ndim - 2)
    return (target_B1HW == numbers_K11).float()
