"""Baselines for fields that move: the last frame, carried on along the motion of the context, as it is or blurred by lead.

Shapes as in `pointwise`; for images only. What comes from beyond the image, or from a pixel that is not valid, is not known:
there the forecast is persistence. So a window should see more than it is scored on (`split.margin_px`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.baselines.motion import blurred, carry, estimate_motion, inside, path_back
from models.baselines.pointwise import ARGUMENTS, Persistence, context_arrays, context_days, last_values
from models.contract import Halo

BLURS_PX = (0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)  # candidates of `fit`
FITTED_EVERY = 3  # windows overlap, and six numbers do not need all of those that are given


class Moved(NamedTuple):
    """A context in the frame of the moving field. Steps are the median interval of the context's dates."""

    motion_2HW: Tensor  # pixels per step
    steps_T: Tensor  # of the context, 0 the issue date and those before negative
    steps_K: Tensor  # of the targets
    aligned_TCHW: Tensor  # every frame carried on to the issue date, 0 where it is not known
    aligned_valid_THW: Tensor
    last_CHW: Tensor  # the newest valid value of each pixel, carried on to the issue date
    last_valid_HW: Tensor


@dataclass(frozen=True)
class MovingField:
    """y(p, lead) = the last frame, blurred by `blur_px_K[lead]`, at the place that p comes from.

    is_uniform: one motion for the whole image, a translation. blur_px_K: standard deviation in pixels by lead, the last one for
    all later leads; empty: no blur.
    """

    is_uniform: bool = False
    blur_px_K: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "blur_px_K", tuple(self.blur_px_K))  # a list where it was read from JSON

    @property
    def stride_px(self) -> tuple[int, ...]:
        return 1, 1

    def halo_px(self, steps: int) -> Halo:
        return None

    def moved(self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, target_days_K: Tensor) -> Moved:
        """The motion of the context, and its frames carried on along it to the issue date."""
        x_TCHW, valid_THW = context_arrays(x_NCHW, valid_NHW, context_T)
        days_T = context_days(days_N, context_T)
        step = float(torch.diff(days_T).median()) if len(days_T) > 1 else 1.0
        steps_T, steps_K = (days_T - days_T[-1]) / step, (target_days_K.double() - days_T[-1]) / step
        motion_2HW = estimate_motion(x_TCHW, valid_THW, steps_T, is_uniform=self.is_uniform)
        order_T = torch.argsort(-steps_T, stable=True)
        source_T2HW = torch.empty(len(steps_T), *motion_2HW.shape)
        source_T2HW[order_T] = path_back(motion_2HW[None], -steps_T[order_T])[0]
        aligned_TCHW = carry(x_TCHW, source_T2HW)
        aligned_valid_THW = (carry(valid_THW[:, None].float(), source_T2HW)[:, 0] > 0.999) & inside(source_T2HW)
        values, _, seen = last_values(aligned_TCHW, aligned_valid_THW, days_T, 1)
        aligned_TCHW = aligned_TCHW * aligned_valid_THW[:, None]
        return Moved(motion_2HW, steps_T, steps_K, aligned_TCHW, aligned_valid_THW, values[0], seen[0])

    def blurred_last(self, moved: Moved) -> Tensor:
        """The newest frame blurred as of each lead, before it is carried on, (K, C, H, W)."""
        sigmas = [self.blur_px_K[min(k, len(self.blur_px_K) - 1)] if self.blur_px_K else 0.0 for k in range(len(moved.steps_K))]
        return torch.cat([blurred(moved.last_CHW[None], moved.last_valid_HW[None, None], sigma) for sigma in sigmas])

    def carried(self, moved: Moved, y_KCHW: Tensor, otherwise_KCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(what is in the frame of the issue date, carried on to the leads, known (K, H, W)); elsewhere `otherwise`."""
        source_K2HW = path_back(moved.motion_2HW[None], moved.steps_K)[0]
        there_K1HW = carry(moved.last_valid_HW.float().expand(len(source_K2HW), 1, -1, -1), source_K2HW)
        known_KHW = (there_K1HW[:, 0] > 0.999) & inside(source_K2HW)
        return torch.where(known_KHW[:, None], carry(y_KCHW, source_K2HW), otherwise_KCHW), known_KHW

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Tensor:
        """y_KCHW; see `Persistence.forecast` for the arguments."""
        otherwise_KCHW = Persistence().forecast(x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K)
        moved = self.moved(x_NCHW, valid_NHW, days_N, context_T, target_days_K)
        return self.carried(moved, self.blurred_last(moved), otherwise_KCHW)[0]

    def fit(self, windows: Iterable[Any]) -> "MovingField":
        """With the blur of each lead, out of `BLURS_PX`, of the smallest mean absolute error on some windows' targets."""
        errors_SK = torch.zeros(0)
        for window in islice(windows, 0, None, FITTED_EVERY):
            x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K = (getattr(window, name) for name in ARGUMENTS)
            otherwise_KCHW = Persistence().forecast(x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K)
            moved = self.moved(x_NCHW, valid_NHW, days_N, context_T, target_days_K)
            if not len(errors_SK):
                errors_SK = torch.zeros(len(BLURS_PX), len(target_days_K), dtype=torch.float64)
            seen_K1HW = window.target_valid_KHW[:, None] > 0
            for number, sigma in enumerate(BLURS_PX):
                blurred_1CHW = blurred(moved.last_CHW[None], moved.last_valid_HW[None, None], sigma)
                y_KCHW, _ = self.carried(moved, blurred_1CHW.expand_as(otherwise_KCHW), otherwise_KCHW)
                error_KCHW = torch.where(seen_K1HW, (y_KCHW - window.target_KCHW).abs(), 0.0)
                errors_SK[number] += error_KCHW.double().sum(dim=(1, 2, 3))
        if not len(errors_SK) or float(errors_SK.max()) == 0:
            return self
        return replace(self, blur_px_K=tuple(BLURS_PX[int(best)] for best in errors_SK.argmin(dim=0)))
