"""Harmonic regression with trend, pixel by pixel.

    y(t) = a0 + a1 t + sum over j of (b_j cos(2 pi j t) + c_j sin(2 pi j t)),   t in years since the issue date

fitted by ridge-regularised least squares to each pixel's usable values (the season-trend model of Verbesselt et al. 2010,
https://doi.org/10.1016/j.rse.2009.08.014, eq. 4-5). The ridge pulls everything but the mean towards 0, so a short series gives
its mean, and the trend does not diverge.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.baselines.climatology import BLOCK_PX, TROPICAL_YEAR_DAYS
from models.baselines.decaying_anomaly import context_days
from models.contract import Pointwise


def season_trend_features(days_N: Tensor, issue_day: float, harmonics: int) -> Tensor:
    """[1, t, cos 1, sin 1, cos 2, ...] of each day, (N, 2 + 2 harmonics) float64."""
    years_N = (days_N.double() - issue_day) / TROPICAL_YEAR_DAYS
    # The angle is counted from 1970, so that its precision does not depend on the issue date; any fixed origin works.
    angle_N = 2 * math.pi * torch.remainder(days_N.double() / TROPICAL_YEAR_DAYS, 1)
    waves = [f(j * angle_N) for j in range(1, harmonics + 1) for f in (torch.cos, torch.sin)]
    return torch.stack([torch.ones_like(years_N), years_N, *waves], dim=1)


@dataclass(frozen=True)
class HarmonicRegression(Pointwise):
    """`harmonics` harmonics and a trend; `ridge` is the weight of the penalty, in observations."""

    harmonics: int = 2
    ridge: float = 1.0

    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor
    ) -> Tensor:
        """y_KCHW, physical values; see docs/design/001-spine.md for the arguments."""
        issue_day = float(context_days(days_N, context_T)[-1])
        index_U = torch.nonzero(usable_N).flatten()
        features_UJ = season_trend_features(days_N[index_U], issue_day, self.harmonics).to(x_NCHW.device)
        targets_KJ = season_trend_features(target_days_K, issue_day, self.harmonics).to(x_NCHW.device)
        channels, height, width = x_NCHW.shape[1:]
        x_NCP, valid_NP = x_NCHW.flatten(2), valid_NHW.flatten(1)
        y_KCP = x_NCHW.new_zeros(len(target_days_K), channels, height * width)
        for start in range(0, height * width, BLOCK_PX):
            block = slice(start, start + BLOCK_PX)
            coefficients_PJC = self.coefficients(x_NCP[index_U, :, block], valid_NP[index_U, block], features_UJ)
            y_KCP[:, :, block] = torch.einsum("kj,pjc->kcp", targets_KJ, coefficients_PJC).to(x_NCHW.dtype)
        return y_KCP.reshape(-1, channels, height, width)

    def coefficients(self, x_UCP: Tensor, valid_UP: Tensor, features_UJ: Tensor) -> Tensor:
        """Ridge solution for each pixel, (P, J, C) float64; all 0 for a pixel without a value."""
        weight_PU = valid_UP.T.double()
        number = features_UJ.shape[1]
        products_UJJ = features_UJ[:, :, None] * features_UJ[:, None, :]
        normal_PJJ = (weight_PU @ products_UJJ.flatten(1)).reshape(-1, number, number)
        right_PJC = torch.einsum("pu,ucp,uj->pjc", weight_PU, x_UCP.double(), features_UJ)
        penalty_J = torch.full((number,), self.ridge, dtype=torch.float64, device=x_UCP.device)
        penalty_J[0] = 1e-9  # the mean is not penalised; this only keeps the system regular without observations
        coefficients_PJC: Tensor = torch.linalg.solve(normal_PJJ + torch.diag(penalty_J), right_PJC)
        return coefficients_PJC
