"""What a network of `kind: history` gets of a pixel: its last valid values, and what earlier years say of the target dates.

Values are normalised as the forecaster does it (`normalise`), anomalies are differences to the climatology of the same day.
Shapes as in `models.baselines.pointwise`; L lags (a pixel's last valid values up to the issue date, in the context or before it,
newest last), F channels of a lag, G channels of a target date.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor

from models.baselines.boosting_features import NEIGHBOURHOODS_PX, SEARCHED
from models.baselines.pointwise import TROPICAL_YEAR_DAYS, context_days, season_weights
from models.contract import over_space

HALO_PX = max(NEIGHBOURHOODS_PX) // 2
YEARS = 3  # before the target date
AROUND = (-1.0, 0.0, 1.0)  # steps
POOLS = {2: F.avg_pool2d, 3: F.avg_pool3d}  # by the axes of space


class History(NamedTuple):
    """float32, finite; 0 where nothing is known."""

    lags_LFHW: Tensor
    seen_LHW: Tensor  # 1 where there is such a value
    outlook_KGHW: Tensor


def lag_channels(variables: int) -> int:
    """F: value, anomaly, means of the anomaly over the neighbourhoods; age."""
    return (2 + len(NEIGHBOURHOODS_PX)) * variables + 1


def outlook_channels(variables: int) -> int:
    """G: climatology, its change since the issue date, the corrected baseline, anomalies of earlier years."""
    return (3 + YEARS * len(AROUND)) * variables


def history_of(
    arguments: tuple[Tensor, ...], baseline_KCHW: Tensor, lags: int, width_days: float, step_days: float,
    normalise: Callable[[Tensor], Tensor],
) -> History:  # fmt: skip
    """The history of every pixel of a tile; `arguments` are those of `forecast`, `width_days` is of the climatology."""
    x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K = arguments
    issue_day, axes = float(context_days(days_N, context_T)[-1]), valid_NHW.ndim - 1
    index_S = torch.nonzero(usable_N[: int(context_T.max()) + 1]).flatten()[-SEARCHED * lags :]
    index_S = index_S if len(index_S) else torch.zeros(1, dtype=torch.int64)  # nothing usable: one date, not valid
    days_S, valid_SHW = days_N[index_S].double(), valid_NHW[index_S] & over_space(usable_N[index_S], axes)
    at_days_M = torch.cat([days_S, torch.tensor([issue_day], dtype=torch.float64), target_days_K.double()])
    index_U = torch.nonzero(usable_N).flatten()
    usual_MCHW = normalise(means_of(season_weights(at_days_M, days_N[index_U], width_days), x_NCHW, valid_NHW, index_U)[0])
    usual_SCHW, usual_CHW, usual_KCHW = usual_MCHW[: len(days_S)], usual_MCHW[len(days_S)], usual_MCHW[len(days_S) + 1 :]
    normal_SCHW = normalise(x_NCHW[index_S])
    place_LHW, seen_LHW = last_places(valid_SHW, lags)
    both_LCHW = torch.cat([normal_SCHW, normal_SCHW - usual_SCHW], dim=1)
    both_LCHW = both_LCHW.gather(0, place_LHW[:, None].expand(-1, both_LCHW.shape[1], *place_LHW.shape[1:]))
    anomalies_LCHW = both_LCHW[:, x_NCHW.shape[1] :]
    around_LMHW = torch.cat([means_around(anomalies_LCHW, seen_LHW, width_px) for width_px in NEIGHBOURHOODS_PX], dim=1)
    age_L1HW = torch.log1p((issue_day - days_S[place_LHW]).clamp(min=0) / step_days).float()[:, None]
    lags_LFHW = torch.cat([both_LCHW, around_LMHW, age_L1HW], dim=1) * seen_LHW[:, None]
    shifts = [shift * step_days - year * TROPICAL_YEAR_DAYS for year in range(1, YEARS + 1) for shift in AROUND]
    at_days_KJ = target_days_K.double()[:, None] + torch.tensor(shifts, dtype=torch.float64)
    earlier_JCHW, is_known_JHW = values_around(x_NCHW, valid_NHW, days_N, usable_N, at_days_KJ.flatten(), step_days)
    earlier_KJCHW = normalise(earlier_JCHW).unflatten(0, at_days_KJ.shape) - usual_KCHW[:, None]
    earlier_KJCHW = earlier_KJCHW * is_known_JHW.unflatten(0, at_days_KJ.shape)[:, :, None]
    planes = [usual_KCHW, usual_KCHW - usual_CHW, normalise(baseline_KCHW) - usual_KCHW, earlier_KJCHW.flatten(1, 2)]
    return History(lags_LFHW, seen_LHW.float(), torch.cat(planes, dim=1))


def last_places(valid_SHW: Tensor, lags: int) -> tuple[Tensor, Tensor]:
    """(indices of each pixel's last `lags` valid dates, rising; whether there are so many), (L, H, W) each; 0 where not."""
    dates, *space = valid_SHW.shape
    number_SHW = torch.where(valid_SHW, over_space(torch.arange(dates), len(space)), -1)
    if dates < lags:
        number_SHW = torch.cat([number_SHW.new_full((lags - dates, *space), -1), number_SHW])
    place_LHW = number_SHW.sort(dim=0).values[-lags:]
    return place_LHW.clamp(min=0), place_LHW >= 0


def values_around(
    x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, usable_N: Tensor, at_days_J: Tensor, step_days: float
) -> tuple[Tensor, Tensor]:
    """(means of the valid values of usable dates around each day, whether there is any within a step), (J, C, H, W), (J, H, W).

    Weights exp(-(d / s)^2 / 2) by the distance d, with s = 0.4 steps: nearly the nearest value, without a jump.
    """
    apart_JN = (at_days_J[:, None] - days_N.double()).abs() / step_days
    weight_JN = torch.exp(-(apart_JN / 0.4).square() / 2) * (apart_JN <= 1) * usable_N
    index_U = torch.nonzero(weight_JN.amax(0) > 0).flatten()
    mean_JCHW, total_JHW = means_of(weight_JN[:, index_U].float(), x_NCHW, valid_NHW, index_U)
    return mean_JCHW, total_JHW > 0.01


def means_of(weight_JU: Tensor, x_NCHW: Tensor, valid_NHW: Tensor, index_U: Tensor) -> tuple[Tensor, Tensor]:
    """(weighted means of the valid values of the dates `index_U`, 0 without any; sums of their weights), (J, C, H, W), (J, H, W).

    Not `climatology_at`, which takes blocks of a fixed size: small training tiles are most of the work here.
    """
    valid_UHW = valid_NHW[index_U].float()
    total_JHW = torch.einsum("ju,u...->j...", weight_JU, valid_UHW)
    sum_JCHW = torch.einsum("ju,u...->j...", weight_JU, x_NCHW[index_U] * valid_UHW[:, None])
    return sum_JCHW / total_JHW.clamp(min=1e-9)[:, None], total_JHW


def means_around(x_LCHW: Tensor, seen_LHW: Tensor, width_px: int) -> Tensor:
    """Means of the values seen within squares (cubes) of `width_px` (odd), (L, C, H, W); 0 where there is none."""
    axes, seen_L1HW = seen_LHW.ndim - 1, seen_LHW[:, None].to(x_LCHW.dtype)
    wider = [F.pad(values, [width_px // 2] * 2 * axes) for values in (x_LCHW * seen_L1HW, seen_L1HW)]
    total_LCHW, count_L1HW = (POOLS[axes](values, width_px, 1) for values in wider)
    return total_LCHW / count_L1HW.clamp(min=1e-6)
