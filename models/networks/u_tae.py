"""U-TAE: a U-Net whose dates are joined at every scale by the attention of the coarsest one.

Garnot & Landrieu 2021, "Panoptic segmentation of satellite image time series with convolutional temporal attention networks",
arXiv:2107.07933, section 3.1. One encoder reads every date; at the coarsest scale `TimeAttention` weights the dates of each cell
for each head; the same weights, enlarged, join the features of the finer scales, channels in as many groups as there are heads.
Differences: the norm is over channels, sizes double by repetition (`models.blocks.change`), and a cell that is not seen on a date
weighs nothing at its own scale.

Shapes as in `models.blocks.segment`; G heads.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.blocks.change import doubled
from models.blocks.segment import ScaledConfig, ScaledNetwork, TimeAttention
from models.cells.recurrent_stack import CONVOLUTIONS
from models.contract import layer_flops


@dataclass(frozen=True)
class UTAEConfig(ScaledConfig):
    heads: int = 4  # divides every width


class UTAE(ScaledNetwork):
    config: UTAEConfig

    def __init__(self, config: UTAEConfig):
        super().__init__(config)
        if any(width % config.heads for width in config.widths):
            raise ValueError(f"the heads must divide every width, got {config.heads} heads and widths {config.widths}")
        self.attention = TimeAttention(config.widths[-1], config.widths[-1], config.heads)
        self.joins = nn.ModuleList(CONVOLUTIONS[config.axes](width, width, 1) for width in config.widths)

    def joining_flops(self, pixels: int, dates: int) -> int:
        scales = len(self.config.widths)
        attention = dates * (pixels >> 2 * (scales - 1)) * self.attention.linear_flops()
        return attention + sum(layer_flops(join, pixels >> 2 * s) for s, join in enumerate(self.joins))

    def join_dates(self, features: Sequence[Tensor], seen: Sequence[Tensor], years_BT: Tensor) -> Sequence[Tensor]:
        batch, dates, _, *space = features[-1].shape
        rows_PTD = features[-1].movedim((1, 2), (-2, -1)).flatten(0, -3)
        seen_PT = seen[-1][:, :, 0].movedim(1, -1).flatten(0, -2) > 0
        years_PT = years_BT[:, None].expand(batch, math.prod(space), dates).flatten(0, 1)
        values_PTD, weight_PTG = self.attention(rows_PTD, seen_PT, years_PT)
        weight, values = (one.unflatten(0, (batch, *space)).movedim((-2, -1), (1, 2)) for one in (weight_PTG, values_PTD))
        joined: list[Tensor] = []
        for s in reversed(range(len(features))):
            features_BTDHW = values if s == len(features) - 1 else features[s]
            joined.insert(0, self.joins[s](self._weighted(features_BTDHW, weight, seen[s])))
            if s:
                weight = doubled(weight.flatten(0, 1)).unflatten(0, (batch, dates))
        return joined

    def _weighted(self, features_BTDHW: Tensor, weight_BTGHW: Tensor, seen_BT1HW: Tensor) -> Tensor:
        """(B, D, H, W): the sum over dates, each group of channels with the weights of its head, which add up to 1."""
        weight_BTGHW = weight_BTGHW * seen_BT1HW
        weight_BTGHW = weight_BTGHW / weight_BTGHW.sum(1, keepdim=True).clamp(min=torch.finfo(weight_BTGHW.dtype).tiny ** 0.5)
        grouped = features_BTDHW.unflatten(2, (self.config.heads, -1))
        joined_BGDHW: Tensor = (grouped * weight_BTGHW[:, :, :, None]).sum(1)
        return joined_BGDHW.flatten(1, 2)
