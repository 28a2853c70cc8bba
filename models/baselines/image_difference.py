"""The simplest change index: the grey difference of two dates, and Otsu's threshold on it.

Shapes: T dates, C bands, H rows, W columns. Every index has `score(x_TCHW, valid_THW) -> score_HW`: float32 >= 0, the larger
the more likely changed; NaN where fewer than two dates are valid. With more than two dates a pixel's last valid date is
compared with its first one, as a change label does; a cloud on either end only shortens the period. `x` are prepared dates
(z-scores, coregistered), 0 where invalid. `fit(x_TCHW, valid_THW)` returns the index with its parameters of a site, measured on
the whole site; an index without parameters returns itself. So `fit(...).score(...)` works for all.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.contract import Pointwise


def first_and_last(x_TCHW: Tensor, valid_THW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(first_CHW, last_CHW, seen_HW): each pixel on its first and last valid date; `seen_HW` where these are two dates.

    0 where not valid twice.
    """
    dates = len(x_TCHW)
    if dates < 2:
        raise ValueError(f"change needs two dates, got {dates}")
    index_T11 = torch.arange(dates, device=x_TCHW.device)[:, None, None]
    first_HW = torch.where(valid_THW, index_T11, dates).amin(0)
    last_HW = torch.where(valid_THW, index_T11, -1).amax(0)
    seen_HW = last_HW > first_HW

    def on(date_HW: Tensor) -> Tensor:
        at_1CHW = date_HW.clamp(0, dates - 1)[None, None].expand(1, *x_TCHW.shape[1:])
        return torch.where(seen_HW, x_TCHW.gather(0, at_1CHW)[0], 0)

    return on(first_HW), on(last_HW), seen_HW


def as_score(score_HW: Tensor, seen_HW: Tensor) -> Tensor:
    """float32, NaN where invalid."""
    return torch.where(seen_HW, score_HW, torch.nan).float()


@dataclass(frozen=True)
class ImageDifference(Pointwise):
    """The absolute difference of the bands' mean (Singh 1989, https://doi.org/10.1080/01431168908903939, section 3.1)."""

    def fit(self, x_TCHW: Tensor, valid_THW: Tensor) -> "ImageDifference":
        """Itself: it has no parameters of a site."""
        return self

    def score(self, x_TCHW: Tensor, valid_THW: Tensor) -> Tensor:
        """score_HW; see the top of this file."""
        first_CHW, last_CHW, seen_HW = first_and_last(x_TCHW, valid_THW)
        return as_score((last_CHW - first_CHW).mean(0).abs(), seen_HW)


def otsu_threshold(score_HW: Tensor) -> float:
    """The score above which Otsu (1979) classifies a pixel as changed; infinity without differences.

    Otsu expects two modes: if 1 % of the pixels changed there is only one, and 10 % of the site are classified as changed.
    """
    from skimage.filters import threshold_otsu

    values = score_HW[torch.isfinite(score_HW)].cpu().numpy()
    if values.size == 0 or float(values.min()) == float(values.max()):
        return float(np.inf)
    return float(threshold_otsu(values))
