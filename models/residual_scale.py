"""How much of a learnt correction is used: the share that held-out windows support. Shapes as in `models.residual_forecaster`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from models.residual_forecaster import ResidualForecaster

SCALES = tuple(tenth / 10 for tenth in range(11))  # of the residual, that `scale_of_least_error` tries


@torch.no_grad()
def scale_of_least_error(forecaster: ResidualForecaster, batches: Iterable[dict[str, Tensor]]) -> float:
    """The share of the residual, of 0, 0.1 ... 1, with the smallest mean absolute error in normalised units; 0 without a target.

    For windows that decide nothing else: unlike `fit_residual_scale` it takes off no standard error, and what it leads to is
    compared with the baseline on other dates. Batches as there.
    """
    error_S = torch.zeros(len(SCALES), dtype=torch.float64)
    with evaluating(forecaster):
        for batch in batches:
            batch = {name: values.to(forecaster.mean_C.device) for name, values in batch.items()}
            residual_BKCHW, truth_BKCHW = forecaster.residual(batch), forecaster.normalise(batch["target_KCHW"])
            expected_BKCHW = truth_BKCHW - forecaster.normalise(batch["baseline_KCHW"])
            seen_BK1HW = (batch["target_valid_KHW"] > 0)[:, :, None]
            for s, scale in enumerate(SCALES):
                missed_BKCHW = torch.where(seen_BK1HW, (expected_BKCHW - scale * residual_BKCHW).abs(), 0.0)
                error_S[s] += missed_BKCHW.double().sum().cpu()
    return SCALES[int(error_S.argmin())]


def cautious_share(sums_D2: Tensor) -> float:
    """Least-squares scale minus one standard error, in [0, 1], from (sum of truth x residual, sum of residual^2) per date.

    The standard error is that of the jackknife over dates (Efron & Stein 1981); a single date has none. One-standard-error
    rule: Hastie, Tibshirani & Friedman 2009, section 7.10.
    """
    cross, square = sums_D2.sum(dim=0).tolist()
    share, dates = float(cross / square), len(sums_D2)
    if dates > 1:
        rest_D2 = sums_D2.sum(dim=0) - sums_D2
        without_D = rest_D2[:, 0] / rest_D2[:, 1]
        share -= math.sqrt(float((without_D - without_D.mean()).square().sum()) * (dates - 1) / dates)
    return min(max(share, 0.0), 1.0)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """The module in evaluation mode inside the block; its previous mode is restored afterwards."""
    before = module.training
    if before:
        module.eval()
    try:
        yield module
    finally:
        if before:
            module.train()
