"""What the trees of `gradient_boosting` see of a pixel and a target date, computed for whole tiles.

Shapes as in `models.baselines.pointwise`; F features, L lags. What is not known is NaN: trees have a branch for it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from models.baselines.last_season import value_near
from models.baselines.pointwise import TROPICAL_YEAR_DAYS, DecayingAnomaly, climatology_at, context_days, last_values
from models.contract import over_space
from models.covariates import features

Formulation = Literal["change", "residual"]
FORMULATIONS: tuple[Formulation, ...] = ("change", "residual")
NEIGHBOURHOODS_PX = (3, 7)
HALO_PX = max(NEIGHBOURHOODS_PX) // 2
SEARCHED = 3  # times the number of lags: so many dates back a pixel's valid values are searched for
LAST_YEAR_DAYS = 40.0  # how far a value may be from the target's day a year earlier


class Target(NamedTuple):
    """One target date of a tile: what the trees see, and what their result is added to."""

    features_FCHW: Tensor  # float32
    last_CHW: Tensor  # `change`: the last valid value; the climatology of a pixel without one
    rule_CHW: Tensor  # `residual`: the decaying anomaly

    def base(self, formulation: Formulation) -> Tensor:
        return self.last_CHW if formulation == "change" else self.rule_CHW


def features_of(
    arguments: Sequence[Tensor], rule: DecayingAnomaly, lags: int, given: Mapping[str, Tensor] | None = None
) -> Iterator[Target]:
    """Each target date of a window in turn; `arguments` are those of `forecast`.

    Lags are a pixel's last valid values up to the issue date, in the context or before it. The features: the lags, their
    anomalies (value - climatology) and their ages; the means of the last value and of the last anomaly over 3 and 7 pixels;
    climatology, its change since the issue date, median anomaly, decaying anomaly, the value a year earlier; lead, season; and of
    covariates, `given` as to a forecaster, what `models.covariates.features` lists.
    """
    x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K = arguments
    parts, issue_day, axes = rule.parts(*arguments), float(context_days(days_N, context_T)[-1]), valid_NHW.ndim - 1
    index_S = torch.nonzero(usable_N[: int(context_T.max()) + 1]).flatten()[-SEARCHED * lags :]
    index_S = index_S if len(index_S) else torch.zeros(1, dtype=torch.int64)  # nothing usable: one date, not valid
    x_SCHW, days_S = x_NCHW[index_S], days_N[index_S].double()
    valid_SHW = valid_NHW[index_S] & over_space(usable_N[index_S], axes)
    climatology_SCHW = climatology_at(x_NCHW, valid_NHW, days_N, usable_N, days_S, rule.width_days)
    values_LCHW, days_LHW, seen_LHW = last_values(x_SCHW, valid_SHW, days_S, lags)
    anomalies_LCHW, _, _ = last_values(x_SCHW - climatology_SCHW, valid_SHW, days_S, lags)
    seen_HW, shape_CHW = seen_LHW[-1], x_NCHW.shape[1:]
    of_issue = [*known(values_LCHW, seen_LHW[:, None]), *known(anomalies_LCHW, seen_LHW[:, None])]
    of_issue += [*means_around(values_LCHW[-1], seen_HW), *means_around(anomalies_LCHW[-1], seen_HW), parts.anomaly_CHW]
    for k, day in enumerate(target_days_K.tolist()):
        background_CHW, angle = parts.background_KCHW[k], 2 * np.pi * (day / TROPICAL_YEAR_DAYS % 1)
        last_year = value_near(x_NCHW, valid_NHW, days_N, usable_N, day - TROPICAL_YEAR_DAYS, LAST_YEAR_DAYS)
        planes = [*of_issue, *(age_HW.expand(shape_CHW) for age_HW in known((day - days_LHW).float(), seen_LHW))]
        planes += [background_CHW, background_CHW - parts.background_TCHW[-1], parts.y_KCHW[k], known(*last_year)]
        planes += [torch.full(shape_CHW, scalar) for scalar in (day - issue_day, float(np.sin(angle)), float(np.cos(angle)))]
        planes += features(given or {}, k, tuple(shape_CHW))
        last_CHW = torch.where(seen_HW, values_LCHW[-1], background_CHW)
        yield Target(torch.stack(planes), last_CHW, parts.y_KCHW[k])


def known(values: Tensor, seen: Tensor) -> Tensor:
    """The values, NaN where not seen."""
    return torch.where(seen, values, torch.nan)


def means_around(x_CHW: Tensor, seen_HW: Tensor) -> list[Tensor]:
    """Means of the valid pixels within squares (cubes) of 3 and 7 pixels, (C, H, W) each; NaN where none is valid.

    Shifted copies are added in one order whatever the shape of the tile, so a tile with its halo has the values of the whole.
    """
    weight_1HW = seen_HW[None].to(x_CHW.dtype)
    means = []
    for width_px in NEIGHBOURHOODS_PX:
        count_1HW, total_CHW = weight_1HW, x_CHW * weight_1HW
        for axis in range(1, x_CHW.ndim):
            count_1HW, total_CHW = (sum_along(values, axis, width_px) for values in (count_1HW, total_CHW))
        means.append(torch.where(count_1HW > 0, total_CHW / count_1HW.clamp(min=1), torch.nan))
    return means


def sum_along(values: Tensor, axis: int, width_px: int) -> Tensor:
    """Sums of `width_px` (odd) neighbours along an axis; beyond the edge are zeros."""
    edges = [0, 0] * values.ndim
    from_last = 2 * (values.ndim - 1 - axis)
    edges[from_last : from_last + 2] = [width_px // 2] * 2
    padded, length = pad(values, edges), values.shape[axis]
    total = padded.narrow(axis, 0, length).clone()
    for shift in range(1, width_px):
        total += padded.narrow(axis, shift, length)
    return total
