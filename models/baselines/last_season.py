"""Baselines from the year before: the same date last year, and the climatology shifted by the current anomaly.

Shapes and arguments as in `models.baselines.pointwise`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from models.baselines.pointwise import (
    ARGUMENTS,
    TROPICAL_YEAR_DAYS,
    WIDTHS_DAYS,
    Climatology,
    DecayingAnomaly,
    absolute_errors,
    thinned,
)
from models.contract import Pointwise

FOREVER_DAYS = 1e9  # a decay so slow that the anomaly stays


@dataclass(frozen=True)
class SameDateLastYear(Pointwise):
    """The pixel's value on the target's day a year (365.2422 days) earlier, linear between the nearest usable values around it.

    Where only one side has a valid value within `tolerance_days`, that value; where neither has one, `otherwise`.
    """

    otherwise: Climatology = field(default_factory=Climatology)
    tolerance_days: float = 30.0

    def fit(self, windows: Iterable[Any]) -> "SameDateLastYear":
        """The baseline with a fitted climatology; it has no number of its own."""
        return replace(self, otherwise=self.otherwise.fit(windows))

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Tensor:
        y_KCHW = self.otherwise.forecast(x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K)
        for k, day in enumerate(target_days_K.tolist()):
            last_CHW, seen_HW = value_near(x_NCHW, valid_NHW, days_N, usable_N, day - TROPICAL_YEAR_DAYS, self.tolerance_days)
            y_KCHW[k] = torch.where(seen_HW, last_CHW, y_KCHW[k])
        return y_KCHW


def value_near(
    x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, usable_N: Tensor, day: float, tolerance_days: float
) -> tuple[Tensor, Tensor]:
    """(value_CHW, seen_HW): the valid values of usable dates before and after `day`, interpolated; 0 where there is none.

    Values farther than `tolerance_days` do not count. With one on one side only, it is that one.
    """
    offset_N = days_N.double() - day
    before_CHW, after_CHW = torch.zeros_like(x_NCHW[0]), torch.zeros_like(x_NCHW[0])
    before_days_HW = torch.full_like(before_CHW[0], -torch.inf)
    after_days_HW = torch.full_like(before_CHW[0], torch.inf)
    for n in torch.nonzero(usable_N & (offset_N.abs() <= tolerance_days)).flatten().tolist():
        offset = float(offset_N[n])
        if offset <= 0:  # dates rise, so the last one is the nearest
            before_CHW = torch.where(valid_NHW[n], x_NCHW[n], before_CHW)
            before_days_HW = torch.where(valid_NHW[n], offset, before_days_HW)
        else:
            is_first_HW = valid_NHW[n] & after_days_HW.isinf()
            after_CHW = torch.where(is_first_HW, x_NCHW[n], after_CHW)
            after_days_HW = torch.where(is_first_HW, offset, after_days_HW)
    has_before_HW, has_after_HW = before_days_HW.isfinite(), after_days_HW.isfinite()
    share_HW = torch.where(has_before_HW & has_after_HW, -before_days_HW / (after_days_HW - before_days_HW), has_after_HW.float())
    return torch.lerp(before_CHW, after_CHW, share_HW), has_before_HW | has_after_HW


@dataclass(frozen=True)
class MedianAnomaly(Pointwise):
    """Climatology on the target date plus a share of the median of the pixel's last `count` valid anomalies in the context.

    As `DecayingAnomaly`, but the share is the same for every lead and age: two numbers to fit instead of three.
    """

    width_days: float = 15.0
    count: int = 3
    share: float = 1.0

    @property
    def undamped(self) -> DecayingAnomaly:
        return DecayingAnomaly(self.width_days, self.count, decay_days=FOREVER_DAYS, share=self.share)

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Tensor:
        return self.undamped.forecast(x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K)

    def fit(self, windows: Iterable[Any]) -> "MedianAnomaly":
        """The baseline with the width and the share, of 0, 0.1 ... 1, of the smallest mean absolute error on the windows."""
        errors_VS = torch.zeros(len(WIDTHS_DAYS), 11, dtype=torch.float64)
        for window in map(thinned, windows):
            tensors = tuple(getattr(window, name) for name in ARGUMENTS)
            for v, parts in enumerate(self.undamped.parts_of_widths(tensors, WIDTHS_DAYS)):
                errors_VS[v] += absolute_errors(parts, window, torch.tensor([FOREVER_DAYS]))[0]
        if float(errors_VS.max()) == 0:
            return self
        v, s = (int(n) for n in torch.unravel_index(errors_VS.argmin(), errors_VS.shape))
        return replace(self, width_days=WIDTHS_DAYS[v], share=s / 10)
