"""Recurrent layers as most repositories have them, which `bench_cores` compares with: eager, one fused convolution of the joined
input and state for all gates, layer after layer over the whole sequence, the outputs of every step kept.

Convolutional cells take and give a state as PyTorch's `nn.LSTMCell` and `nn.GRUCell` do; layers of vectors are a loop of those.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class UsualCell(nn.Module):
    gates: int  # convolutions of `hidden` channels in the fused one

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs + hidden, self.gates * hidden, 3, padding=1)


class UsualConvLSTMCell(UsualCell):
    """Shi et al. 2015 without peepholes; gates i, f, o, g."""

    gates = 4

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        i, f, o, g = torch.chunk(self.conv(torch.cat([x, h], dim=1)), 4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class UsualConvGRUCell(UsualCell):
    """Ballas et al. 2016; gates z, r."""

    gates = 2

    def __init__(self, inputs: int, hidden: int):
        super().__init__(inputs, hidden)
        self.candidate = nn.Conv2d(inputs + hidden, hidden, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        z, r = torch.chunk(torch.sigmoid(self.conv(torch.cat([x, h], dim=1))), 2, dim=1)
        g = torch.tanh(self.candidate(torch.cat([x, r * h], dim=1)))
        return (1 - z) * h + z * g


class UsualConvRNNCell(UsualCell):
    gates = 1

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(self.conv(torch.cat([x, h], dim=1)))


CELLS: dict[str, type[nn.Module]] = {
    "convlstm": UsualConvLSTMCell, "convgru": UsualConvGRUCell, "dcrn": UsualConvRNNCell,
    "lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell,
}  # fmt: skip


class UsualLayers(nn.Module):
    """`directions` 2: a second cell reads from the last step to the first, and the next layer reads both."""

    def __init__(self, kind: str, inputs: int, hidden: int, layers: int, directions: int):
        super().__init__()
        widths = [inputs, *[hidden * directions] * (layers - 1)]
        make = CELLS[kind]
        self.layers = nn.ModuleList(nn.ModuleList(make(width, hidden) for _ in range(directions)) for width in widths)
        self.hidden, self.maps = hidden, 2 if kind in ("convlstm", "lstm") else 1

    def forward(self, x_BTC: Tensor) -> Tensor:
        """(B, T, hidden x directions, ...) from (B, T, C, ...)."""
        for cells in self.layers:
            assert isinstance(cells, nn.ModuleList)
            outputs = [self.read(cell, x_BTC, is_reverse=n == 1) for n, cell in enumerate(cells)]
            x_BTC = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
        return x_BTC

    def read(self, cell: nn.Module, x_BTC: Tensor, *, is_reverse: bool) -> Tensor:
        zeros = x_BTC.new_zeros(len(x_BTC), self.hidden, *x_BTC.shape[3:])
        state: Sequence[Tensor] = (zeros,) * self.maps
        outputs = []
        for t in range(x_BTC.shape[1])[:: -1 if is_reverse else 1]:
            after = cell(x_BTC[:, t], tuple(state) if self.maps == 2 else state[0])
            state = after if self.maps == 2 else (after,)
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if is_reverse else outputs, dim=1)
