"""What the training of a forecast makes small, and towards what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from configs.tasks.forecast import ForecastRun
    from models.residual_forecaster import ResidualForecaster


@dataclass(frozen=True)
class NormalisedLoss:
    """A loss over transformed, standardised values, so that channels weigh alike and a huber's bend means one deviation."""

    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    normalise: Callable[[Tensor], Tensor]

    def __call__(self, y_BKCHW: Tensor, target_BKCHW: Tensor, valid_BK1HW: Tensor) -> Tensor:
        return self.loss(self.normalise(y_BKCHW), self.normalise(target_BKCHW), valid_BK1HW)


def build_loss(run: ForecastRun, forecaster: ResidualForecaster) -> NormalisedLoss:
    from models.losses import intense_mae, masked_huber, masked_mae, masked_mse, masked_mse_mae

    losses = {"mae": masked_mae, "mse": masked_mse, "mse_mae": masked_mse_mae, "huber": masked_huber, "intense_mae": intense_mae}
    return NormalisedLoss(losses[run.training.loss], forecaster.normalise)


def build_target(run: ForecastRun) -> Callable[[dict[str, Tensor]], Tensor]:
    """What the networks learn from a batch: the truth, or the truth without the date's common part."""
    from models.losses import centred_target

    return centred_target if run.training.centre_dates else itemgetter("target_KCHW")
