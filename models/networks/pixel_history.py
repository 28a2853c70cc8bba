"""A network of a pixel's history: its last values and what earlier years say of the target dates, through dense layers.

What gradient boosting sees (`models.baselines.boosting_features`), and more of it, goes through layers that all pixels and target
dates share; neighbours count by means over 3 and 7 pixels that are among the inputs. One vector of the history serves every
target date. Shapes as in `models.blocks.pixel_history`; B batch, D features.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from models.blocks.forecast import TIME_FEATURES, Channels
from models.cells.recurrent_stack import CONVOLUTIONS
from models.contract import Description, Network, layer_flops, over_space


@dataclass(frozen=True)
class PixelHistorySettings:
    hidden: tuple[int, ...] = (128, 128)
    lags: int = 23
    dropout: float = 0.1

    def build(self, outputs: int, frame_channels: int, future_channels: int, axes: int = 2) -> "PixelHistory":
        return PixelHistory(PixelHistoryConfig(outputs, frame_channels, future_channels, axes=axes, **vars(self)))


@dataclass(frozen=True)
class PixelHistoryConfig(PixelHistorySettings, Channels):
    """What is needed to rebuild the network."""


class PixelHistory(Network):
    def __init__(self, config: PixelHistoryConfig):
        super().__init__()
        self.config, self.lags = config, config.lags
        convolution, last = CONVOLUTIONS[config.axes], config.hidden[-1]
        past = config.lags * (config.frame_channels + 1)
        self.encoder = nn.Sequential(*self._layers([past, *config.hidden]))
        self.decoder = nn.Sequential(*self._layers([last + config.future_channels + TIME_FEATURES, *config.hidden]))
        self.head = convolution(last, config.outputs, 1)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def _layers(self, widths: Sequence[int]) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [CONVOLUTIONS[self.config.axes](inputs, outputs, 1), nn.GELU(), nn.Dropout(self.config.dropout)]
        return layers

    @property
    def stride_px(self) -> tuple[int, ...]:
        return (1,) * self.config.axes

    def halo_px(self, steps: int) -> tuple[int, ...]:
        """0: it sees each pixel alone. The means among its inputs reach farther, which the forecaster states."""
        return (0,) * self.config.axes

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        batch, _, _, *space = shape
        encoder, decoder, head = (layer_flops(part, math.prod(space)) for part in (self.encoder, self.decoder, self.head))
        return batch * (encoder + targets * (decoder + head))

    def describe(self) -> Description:
        return {"kind": "history", **asdict(self.config)}

    def forward(self, lags_BLFHW: Tensor, seen_BLHW: Tensor, outlook_BKGHW: Tensor, time_BKF: Tensor) -> Tensor:
        """correction_BKCHW in normalised units."""
        past_BDHW = self.encoder(torch.cat([lags_BLFHW, seen_BLHW[:, :, None]], dim=2).flatten(1, 2))
        targets, space = outlook_BKGHW.shape[1], outlook_BKGHW.shape[3:]
        time_BKFHW = over_space(time_BKF, len(space)).expand(-1, -1, -1, *space)
        past_BKDHW = past_BDHW[:, None].expand(-1, targets, *past_BDHW.shape[1:])
        both_BKDHW = torch.cat([past_BKDHW, outlook_BKGHW, time_BKFHW], dim=2)
        correction: Tensor = self.head(self.decoder(both_BKDHW.flatten(0, 1))).unflatten(0, both_BKDHW.shape[:2])
        return correction
