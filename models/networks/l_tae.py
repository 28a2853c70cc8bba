"""L-TAE per pixel: one attention over all dates, then a small perceptron (Garnot & Landrieu 2020, arXiv:2007.00586).

Shapes as in `models.blocks.segment`; G heads. Each head weights the dates for its own share of the channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from models.blocks.segment import PixelNetwork, SegmentConfig, TimeAttention
from models.contract import layer_flops


@dataclass(frozen=True)
class LTAEConfig(SegmentConfig):
    hidden: int = 32
    heads: int = 4


class LTAE(PixelNetwork):
    config: LTAEConfig

    def __init__(self, config: LTAEConfig):
        super().__init__(config)
        self.attention = TimeAttention(config.bands + 1, config.hidden, config.heads)
        self.body = nn.Sequential(nn.Linear(config.hidden, config.hidden), nn.LayerNorm(config.hidden), nn.ReLU())
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden, config.classes)

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        batch, dates, _, *space = shape
        after = layer_flops(self.body, pixels=0, rows=1) + layer_flops(self.head, pixels=0, rows=1)
        return batch * math.prod(space) * (dates * self.attention.linear_flops() + after)

    def classify(self, frames_PTE: Tensor, seen_PT: Tensor, years_PT: Tensor) -> Tensor:
        values_PTD, weight_PTG = self.attention(frames_PTE, seen_PT, years_PT)
        by_head_PTGD = values_PTD.unflatten(-1, (self.config.heads, -1))
        joined_PD = (by_head_PTGD * weight_PTG[..., None]).sum(1).flatten(1)
        logit_PK: Tensor = self.head(self.dropout(self.body(joined_PD)))
        return logit_PK
