"""A recurrent layer over the pixels of an image in raster order: a plain pixel RNN.

At pixel i it reads the pixel before, where it is (row and column), and with `above` also a window of earlier pixels: so many rows
above, with as many columns to either side, and as many pixels to the left. Its state then gives the pixel's logit:

    e_i = relu(W window_i + row_y + column_x + b);    h_i = GRU or LSTM(e_i, h_{i-1});    logit_i = w h_i + a

Theis & Bethge 2015, arXiv:1506.03478 (recurrence over causal neighbourhoods); cells: `models.cells.vector_recurrence`. Shapes:
B images, H rows, W columns, E embedding, D hidden, K values of the window.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from models.blocks.pixels import PixelConfig, PixelNetwork, PixelState
from models.cells.vector_recurrence import VectorRecurrence


@dataclass(frozen=True)
class PixelRNNConfig(PixelConfig):
    """`kind`: pixel_rnn."""

    cell: str = "gru"
    hidden: int = 128
    layers: int = 1
    above: int = 2
    embedding: int = 32


class PixelRNN(PixelNetwork):
    config: PixelRNNConfig

    def __init__(self, config: PixelRNNConfig):
        super().__init__(config)
        self.window = 1 + config.above * (2 * config.above + 2)
        self.embed = nn.Linear(self.window, config.embedding)
        self.row_HE = nn.Parameter(torch.zeros(config.height, config.embedding))
        self.column_WE = nn.Parameter(torch.zeros(config.width, config.embedding))
        self.recurrence = VectorRecurrence(config.cell, config.embedding, config.hidden, config.layers)
        self.head = nn.Linear(config.hidden, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def image_flops(self) -> int:
        pixels = self.config.height * self.config.width
        return self.recurrence.flops(pixels) + 2 * pixels * (self.embed.weight.numel() + self.head.weight.numel())

    def logits(self, x_BHW: Tensor) -> Tensor:
        each_BTD, _, _ = self.recurrence(self._embedded(self.windows(x_BHW)).flatten(1, 2))
        logit_BT1: Tensor = self.head(each_BTD)
        return logit_BT1.view(x_BHW.shape)

    def windows(self, x_BHW: Tensor) -> Tensor:
        """What is read at each pixel, window_BHWK: the pixel before, then the rows above, then the pixels to the left."""
        height, width, r = *x_BHW.shape[1:], self.config.above
        before_BHW = pad(x_BHW.flatten(1)[:, :-1], (1, 0)).view(x_BHW.shape)
        padded = pad(x_BHW, (r, r, r, 0))
        places = [(dy, dx) for dy in range(r) for dx in range(2 * r + 1)] + [(r, dx) for dx in range(r)]
        return torch.stack([before_BHW, *(padded[:, dy : dy + height, dx : dx + width] for dy, dx in places)], dim=-1)

    def _embedded(self, window_BHWK: Tensor) -> Tensor:
        return torch.relu(self.embed(window_BHWK) + self.row_HE[:, None] + self.column_WE)

    def start(self, x_BHW: Tensor) -> PixelState:
        return self.recurrence.initial_state(x_BHW)

    def logit_at(self, x_BHW: Tensor, y: int, x: int, state: PixelState) -> tuple[Tensor, PixelState]:
        top = max(0, y - max(1, self.config.above))
        window_BK = self.windows(x_BHW[:, top : y + 1])[:, y - top, x]
        input_BE = torch.relu(self.embed(window_BK) + self.row_HE[y] + self.column_WE[x])
        each_B1D, _, after = self.recurrence(input_BE[:, None], None, state)
        logit_B1: Tensor = self.head(each_B1D[:, 0])
        return logit_B1[:, 0], after
