"""A GRU, an LSTM or a plain RNN per pixel: it reads the valid dates in order, and its last state gives the class.

Cho et al. 2014, arXiv:1406.1078 (GRU); Hochreiter & Schmidhuber 1997 (LSTM); Elman 1990 (RNN); for crops from series Rußwurm &
Körner 2018, arXiv:1802.02080. A date that is not valid leaves the state as it is. Shapes as in `models.blocks.segment`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.blocks.segment import PixelNetwork, SegmentConfig
from models.contract import layer_flops

CELLS: dict[str, type[nn.GRUCell] | type[nn.LSTMCell] | type[nn.RNNCell]]
CELLS = {"gru": nn.GRUCell, "lstm": nn.LSTMCell, "rnn": nn.RNNCell}


@dataclass(frozen=True)
class PixelRecurrentConfig(SegmentConfig):
    """`kind`: gru, lstm or rnn."""

    hidden: int = 32


class PixelRecurrent(PixelNetwork):
    config: PixelRecurrentConfig

    def __init__(self, config: PixelRecurrentConfig):
        super().__init__(config)
        self.cell = CELLS[config.kind](config.bands + 2, config.hidden)
        self.body = nn.Linear(config.hidden, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden, config.classes)

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        batch, dates, _, *space = shape
        step = 2 * (self.cell.weight_ih.numel() + self.cell.weight_hh.numel())
        return batch * math.prod(space) * (dates * step + layer_flops(self, pixels=0, rows=1))

    def classify(self, frames_PTE: Tensor, seen_PT: Tensor, years_PT: Tensor) -> Tensor:
        inputs_PTE = torch.cat([frames_PTE, years_PT[..., None]], dim=-1)
        h_PD = inputs_PTE.new_zeros(len(inputs_PTE), self.config.hidden)
        memory_PD = h_PD
        for input_PE, seen_P in zip(inputs_PTE.unbind(1), seen_PT.unbind(1), strict=True):
            seen_P1 = seen_P[:, None]
            if self.config.kind == "lstm":
                after, memory = self.cell(input_PE, (h_PD, memory_PD))
                memory_PD = torch.where(seen_P1, memory, memory_PD)
            else:
                after = self.cell(input_PE, h_PD)
            h_PD = torch.where(seen_P1, after, h_PD)
        logit_PK: Tensor = self.head(self.dropout(torch.relu(self.body(h_PD))))
        return logit_PK
