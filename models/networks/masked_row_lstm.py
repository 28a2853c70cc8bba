"""The Row LSTM of van den Oord et al. 2016, "Pixel recurrent neural networks", arXiv:1601.06759, sections 3.1, 3.3, 3.4, 3.6.

A masked 7 x 7 convolution, layers of LSTM that run over the rows from the top (all columns of a row at once), each with a
residual connection, and two 1 x 1 convolutions. Of row y a layer computes, with a convolution along the row for each product:

    i, f, o = sigmoid(U * h_{y-1} + W * x_y + b),    g = tanh(U_g * h_{y-1} + W_g * x_y + b_g)
    c_y = f o c_{y-1} + i o g,    h_y = o o tanh(c_y)

U (state to state) reads `kernel` columns of the row above; W (input to state) those of its own row up to its own column (mask B).
The first convolution leaves its own pixel out (mask A). So a pixel sees a triangle above it, which grows by (kernel - 1) / 2
columns a row, and of its own row the 3 + layers x (kernel - 1) / 2 pixels to its left: see `reach`. Masked taps are not computed.

W * x is computed for all rows at once, U * h row by row. Shapes: B images, H rows, W columns, D hidden (`hidden`), F features
(2 D), G gates (4 D). Maps lie as (features, H, B, W), so that every convolution of a row is one matrix product.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from models.blocks.pixels import PixelConfig, PixelNetwork, PixelState
from models.cells.lstm_gates import next_state

FIRST = 7  # side of the first convolution


@dataclass(frozen=True)
class MaskedRowLSTMConfig(PixelConfig):
    """`kind`: masked_row_lstm."""

    hidden: int = 24
    layers: int = 2
    kernel: int = 3
    head: int = 64  # features between the two last convolutions


class MaskedRowLSTM(PixelNetwork):
    config: MaskedRowLSTMConfig

    def __init__(self, config: MaskedRowLSTMConfig):
        super().__init__(config)
        features = 2 * config.hidden
        self.first = nn.Conv2d(1, features, FIRST, padding=FIRST // 2)
        self.layers = nn.ModuleList(RowLayer(config.hidden, config.kernel) for _ in range(config.layers))
        self.body, self.head = nn.Linear(features, config.head), nn.Linear(config.head, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def reach(self, above: int) -> tuple[int, int]:
        """(first, last) column that a pixel can see so many rows above it, relative to its own; outside it sees nothing.

        >>> network = MaskedRowLSTM(MaskedRowLSTMConfig("masked_row_lstm", 28, 28))
        >>> network.reach(0), network.reach(1), network.reach(5)
        ((-5, -1), (-6, 3), (-10, 7))
        """
        side, first = self.config.kernel // 2, FIRST // 2
        left = first + side * (self.config.layers + above)
        return -left, first + side * (above - 1) if above else -1

    def image_flops(self) -> int:
        config = self.config
        products = sum(layer.weight.numel() for layer in self.modules() if isinstance(layer, nn.Linear))
        state = sum(layer.of_state.numel() for layer in self.row_layers)
        return 2 * config.height * config.width * (self.first.weight.numel() + products + state)

    @property
    def row_layers(self) -> tuple["RowLayer", ...]:
        return tuple(layer for layer in self.layers if isinstance(layer, RowLayer))

    def _masked(self) -> Tensor:
        """The weight of the first convolution with mask A: nothing from its own pixel on."""
        middle, kept_HW = FIRST // 2, self.first.weight.new_ones(FIRST, FIRST)
        kept_HW[middle, middle:] = 0
        kept_HW[middle + 1 :] = 0
        return self.first.weight * kept_HW

    def logits(self, x_BHW: Tensor) -> Tensor:
        x_BFHW = torch.conv2d(x_BHW[:, None], self._masked(), self.first.bias, padding=FIRST // 2)
        x_FHBW = x_BFHW.permute(1, 2, 0, 3)
        for layer in self.row_layers:
            x_FHBW, _ = layer(x_FHBW, layer.start(x_FHBW))
        return self._answer(x_FHBW).permute(1, 0, 2)

    def _answer(self, x_FHBW: Tensor) -> Tensor:
        """logit_HBW."""
        body = torch.relu(per_pixel(self.body, torch.relu(x_FHBW)))
        return per_pixel(self.head, body)[0]

    def start(self, x_BHW: Tensor) -> PixelState:
        empty = x_BHW.new_zeros(2 * self.config.hidden, 1, len(x_BHW), x_BHW.shape[2])
        return tuple(part for layer in self.row_layers for part in layer.start(empty))

    def logit_at(self, x_BHW: Tensor, y: int, x: int, state: PixelState) -> tuple[Tensor, PixelState]:
        """The row is computed anew for each of its pixels; its own state counts from the next row on."""
        if x == 0 and y > 0:
            _, state = self._row(x_BHW, y - 1, state)
        logit_BW, _ = self._row(x_BHW, y, state)
        return logit_BW[:, x], state

    def _row(self, x_BHW: Tensor, y: int, before: PixelState) -> tuple[Tensor, PixelState]:
        """(logit_BW of row y, state of all layers after it)."""
        side = FIRST // 2
        rows_BHW = pad(x_BHW, (side, side, side, 0))[:, y : y + side + 1]
        weight = self._masked()[:, :, : side + 1]
        x_FHBW = torch.conv2d(rows_BHW[:, None], weight, self.first.bias).permute(1, 2, 0, 3)
        after = list[Tensor]()
        for k, layer in enumerate(self.row_layers):
            x_FHBW, state = layer(x_FHBW, before[2 * k : 2 * k + 2])
            after += state
        return self._answer(x_FHBW)[0], tuple(after)


class RowLayer(nn.Module):
    """One layer of LSTM over rows, with its residual connection. x_FHBW -> x_FHBW."""

    def __init__(self, hidden: int, kernel: int):
        super().__init__()
        self.hidden, self.kernel = hidden, kernel
        self.seen = kernel // 2 + 1  # taps of the input that mask B leaves
        self.of_input = nn.Linear(2 * hidden * self.seen, 4 * hidden)
        self.of_state = nn.Parameter(torch.empty(4 * hidden, hidden * kernel))
        self.up = nn.Linear(hidden, 2 * hidden)
        nn.init.orthogonal_(self.of_state)
        nn.init.xavier_uniform_(self.of_input.weight)
        with torch.no_grad():
            self.of_input.bias.zero_()[hidden : 2 * hidden] = 1  # forget gate (Jozefowicz et al. 2015)

    def start(self, x_FHBW: Tensor) -> PixelState:
        """(h_DBW, c_DBW) above the first row: zeros."""
        shape = self.hidden, *x_FHBW.shape[2:]
        return x_FHBW.new_zeros(shape), x_FHBW.new_zeros(shape)

    def forward(self, x_FHBW: Tensor, state: PixelState) -> tuple[Tensor, PixelState]:
        """(features of all given rows, state after the last one)."""
        given_GHBW = per_pixel(self.of_input, shifted(x_FHBW, self.seen - 1, self.seen))
        h_DBW, c_DBW = state
        rows = []
        for given_GBW in given_GHBW.unbind(1):
            taps = shifted(h_DBW, self.kernel // 2, self.kernel).flatten(1)
            gates_GP = torch.addmm(given_GBW.flatten(1), self.of_state, taps)
            new_h, new_c = next_state(gates_GP[None, :, None], c_DBW.flatten(1)[None, :, None])
            h_DBW, c_DBW = new_h.view(h_DBW.shape), new_c.view(c_DBW.shape)
            rows.append(h_DBW)
        return x_FHBW + per_pixel(self.up, torch.stack(rows, dim=1)), (h_DBW, c_DBW)


def shifted(x: Tensor, left: int, taps: int) -> Tensor:
    """`taps` copies of x (features, ..., W) as further features; the first is moved `left` columns to the right, and so on.

    Beyond the edges are zeros.
    """
    width = x.shape[-1]
    padded = pad(x, (left, taps - 1 - left))
    return torch.cat([padded[..., k : k + width] for k in range(taps)])


def per_pixel(layer: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer on the first axis of x."""
    y = torch.addmm(layer.bias[:, None], layer.weight, x.flatten(1))
    return y.view(-1, *x.shape[1:])
