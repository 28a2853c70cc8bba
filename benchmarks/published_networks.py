"""What OpenSTL trains on Moving MNIST and this programme has no config for: ConvLSTM-S, and the use of true frames in training.

https://github.com/chengtan9907/OpenSTL, commit c74deb5: configs/mmnist, openstl/models/convlstm_model.py,
openstl/utils/predrnn_utils.py. Shapes as in `models.blocks.forecast`.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.cells.convlstm import ConvLSTM
from models.cells.recurrent_stack import State
from models.cells.st_lstm import Increments
from models.networks.patched import PatchedSettings
from models.networks.predrnn_forecaster import PredRNNForecaster, PredRNNForecasterConfig
from pipelines.learning.schedules import ScheduledSampling

FIRST, LAST, STEEP = 0.2, 0.4, 0.04  # 25,000 and 50,000 of 125,000 steps; 5,000 of them


class OneStack(ConvLSTM):
    """With the step of `STLSTM`, whose second memory it does not have."""

    def step(self, x_BCHW: Tensor, state: State | None = None, **known: Tensor) -> Any:
        output, after = super().step(x_BCHW, state, **known)
        return output, after, list[Increments]()


class ConvLSTMS(PredRNNForecaster):
    """ConvLSTM-S: one stack that reads the frames, then its own forecasts, as PredRNN does."""

    def __init__(self, config: PredRNNForecasterConfig):
        super().__init__(config)
        self.stack = OneStack(config.inputs, config.hidden, config.kernel)  # type: ignore[assignment]


@dataclass(frozen=True)
class ConvLSTMSSettings:
    hidden: tuple[int, ...] = (128, 128, 128, 128)
    kernel: int = 5

    def build(self, outputs: int, frame_channels: int, future_channels: int, axes: int = 2) -> ConvLSTMS:
        settings = {"hidden": self.hidden, "kernel": self.kernel, "decoupling": 0.0}
        return ConvLSTMS(PredRNNForecasterConfig(outputs, frame_channels, future_channels, axes=axes, **settings))  # type: ignore[arg-type]


def convlstm_s(hidden: tuple[int, ...] = (128, 128, 128, 128)) -> PatchedSettings:
    """On patches of 4 x 4 pixels."""
    return PatchedSettings(ConvLSTMSSettings(hidden), 4)


@dataclass(frozen=True)
class PublishedSampling(ScheduledSampling):
    """OpenSTL's shares of true frames, with its steps as shares of 125,000; the context is forecast and learnt to the end."""

    def chances(self, step: int, steps: int) -> tuple[float, float]:
        """Of reading the truth (of a frame of the context, of a target).

        >>> PublishedSampling("scheduled").chances(25, 125), PublishedSampling("reverse").chances(24, 125)
        ((1.0, 0.5), (0.5, 0.5))
        """
        share = step / steps
        if self.kind == "scheduled":
            return 1.0, max(1 - share / LAST, 0.0)
        if share < FIRST:
            return 0.5, 0.5
        if share < LAST:
            return 1 - 0.5 * math.exp((FIRST - share) / STEEP), 0.5 * (LAST - share) / (LAST - FIRST)
        return 1.0, 0.0

    def drawn(self, batch: dict[str, Tensor], step: int, steps: int) -> dict[str, Tensor]:
        """`batch` with shown_T and shown_K, at every step."""
        x, target = batch["x_TCHW"], batch["target_KCHW"]
        of_context, of_targets = self.chances(step, steps)
        return batch | {
            "shown_T": torch.rand(x.shape[:2], device=x.device) < of_context,
            "shown_K": torch.rand(target.shape[:2], device=x.device) < of_targets,
        }
