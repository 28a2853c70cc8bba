"""Day-of-year climatology: the usual value of a pixel at this time of the year.

The mean over usable dates is weighted by the distance d in the year:

    w(d) = exp(-(d / s)^2 / 2) + 0.01 exp(-(d / 3s)^2 / 2) + 1e-5

The two small terms matter only without near observations: then a pixel gets the mean of its wider season, then its overall
mean. For a series shorter than a day d = 0 throughout: the climatology is then the plain mean.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from models.contract import Pointwise

TROPICAL_YEAR_DAYS = 365.2422
# Pixels are multiplied in blocks of one fixed size, so that a pixel's result does not depend on its tile: matrix libraries
# choose their kernels (and so the order of sums) by the shape. This bounds the memory too: N x 4608 x (C + 1) floats.
BLOCK_PX = 4608
WIDTHS_DAYS = (5.0, 7.0, 10.0, 15.0, 22.0, 30.0, 45.0)  # candidates of `fit`
ARGUMENTS = ("x_NCHW", "valid_NHW", "days_N", "context_T", "usable_N", "target_days_K")


def season_distance_days(days_M: Tensor, other_N: Tensor) -> Tensor:
    """Distance in the year, (M, N) float64, in [0, 183] days."""
    apart = torch.remainder(days_M.double()[:, None] - other_N.double()[None, :], TROPICAL_YEAR_DAYS)
    return torch.minimum(apart, TROPICAL_YEAR_DAYS - apart)


def season_weights(at_days_M: Tensor, days_N: Tensor, width_days: float) -> Tensor:
    """w(d) of the module's docstring, (M, N) float32."""
    scaled = season_distance_days(at_days_M, days_N) / width_days
    return (torch.exp(-scaled.square() / 2) + 0.01 * torch.exp(-(scaled / 3).square() / 2) + 1e-5).float()


def climatology_at(
    x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, usable_N: Tensor, at_days_M: Tensor, width_days: float
) -> Tensor:
    """Climatology on the dates `at_days_M`, (M, C, H, W) float32; 0 where a pixel is never valid on a usable date."""
    index_U = torch.nonzero(usable_N).flatten()
    channels, height, width = x_NCHW.shape[1:]
    pixels = height * width
    x_NCP, valid_NP = x_NCHW.reshape(-1, channels, pixels), valid_NHW.reshape(-1, pixels)
    mean_MCP = x_NCHW.new_zeros(len(at_days_M), channels, pixels)
    weights_MU = season_weights(at_days_M, days_N[index_U], width_days).to(x_NCHW.device)
    block_UEP = x_NCHW.new_zeros(len(index_U), channels + 1, BLOCK_PX)
    for start in range(0, pixels, BLOCK_PX):
        stop = min(start + BLOCK_PX, pixels)
        size = stop - start
        block_UEP[:, :channels, :size] = x_NCP[index_U, :, start:stop] * valid_NP[index_U, None, start:stop]
        block_UEP[:, channels, :size] = valid_NP[index_U, start:stop]
        sums_MEP = (weights_MU @ block_UEP.flatten(1)).reshape(len(at_days_M), channels + 1, BLOCK_PX)[..., :size]
        mean_MCP[..., start:stop] = sums_MEP[:, :channels] / sums_MEP[:, channels:].clamp(min=1e-12)
    return mean_MCP.reshape(-1, channels, height, width)


def thinned(window: Any, pixels: int = 2500) -> SimpleNamespace:
    """The window as tensors on every n-th row and column, so that about `pixels` remain: enough to fit a few parameters."""
    height, width = window.x_NCHW.shape[-2:]
    step = max(math.isqrt(height * width // pixels), 1)
    names = (*ARGUMENTS, "target_KCHW", "target_valid_KHW")
    tensors = {name: torch.as_tensor(getattr(window, name)) for name in names}
    return SimpleNamespace(**{n: t[..., ::step, ::step] if n.endswith("HW") else t for n, t in tensors.items()})


@dataclass(frozen=True)
class Climatology(Pointwise):
    """The day-of-year mean of every pixel over the usable dates; `width_days` is the standard deviation s of the window."""

    width_days: float = 15.0

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Tensor:
        """y_KCHW, physical values; see docs/design/001-spine.md for the arguments."""
        return climatology_at(x_NCHW, valid_NHW, days_N, usable_N, target_days_K, self.width_days)

    def fit(self, windows: Iterable[Any]) -> "Climatology":
        """The climatology with the width, out of `WIDTHS_DAYS`, of the smallest mean absolute error on the windows' targets.

        `windows` have the arguments of `forecast` and `target_KCHW`, `target_valid_KHW` as attributes.
        """
        errors_V = torch.zeros(len(WIDTHS_DAYS), dtype=torch.float64)
        for window in map(thinned, windows):
            seen_K1HW = window.target_valid_KHW[:, None] > 0
            for v, width_days in enumerate(WIDTHS_DAYS):
                y_KCHW = Climatology(width_days).forecast(*(getattr(window, name) for name in ARGUMENTS))
                errors_V[v] += torch.where(seen_K1HW, (y_KCHW - window.target_KCHW).abs(), 0.0).double().sum()
        return Climatology(WIDTHS_DAYS[int(errors_V.argmin())]) if float(errors_V.max()) > 0 else self
