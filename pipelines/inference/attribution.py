"""What a network looked at: integrated gradients over time and space (Sundararajan et al. 2017, arXiv:1703.01365).

Shapes: T frames, C bands, H rows, W columns.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from pipelines.learning.validation_scores import mean_of_steps

STEPS = 24  # of the path from the baseline to the sample


class Differentiable(Protocol):
    """A model of sequences whose outputs have gradients."""

    def raw(self, i: int, x_BTCHW: torch.Tensor, valid_BT: torch.Tensor) -> torch.Tensor: ...


def integrated_gradients(
    model: Differentiable, member: int, x_TCHW: torch.Tensor, valid_T: torch.Tensor, baseline_C: torch.Tensor, output: int
) -> np.ndarray:
    """weight_THW float32: how much each pixel of each frame speaks for the output, summed over bands.

    The sum over all pixels is the output for the sample minus that for the baseline (frames of the bands' means), up to the error
    of `STEPS` midpoints. Networks with an answer for every frame: their mean over valid frames.
    """
    baseline = baseline_C.reshape(1, -1, *[1] * (x_TCHW.ndim - 2)).expand_as(x_TCHW)
    total = torch.zeros_like(x_TCHW)
    for step in range(STEPS):
        share = (step + 0.5) / STEPS
        x = (baseline + share * (x_TCHW - baseline)).detach().requires_grad_(True)
        y = mean_of_steps(model.raw(member, x[None], valid_T[None]), valid_T[None])
        (gradient,) = torch.autograd.grad(y[0, output], x)
        total += gradient / STEPS
    weight: np.ndarray = (total * (x_TCHW - baseline)).sum(1).detach().numpy()
    return weight
