"""A ConvGRU cell and a stack of them; invalid pixels keep their state.

Equations (Ballas et al. 2016, arXiv:1511.06432, section 3.1; `*` convolution, `o` elementwise; Cho et al. 2014 for the gates):

    z = sigmoid(W_z * x + U_z * h + b_z)
    r = sigmoid(W_r * x + U_r * h + b_r)
    g = tanh(W_g * x + U_g * (r o h) + b_g)
    h' = (1 - z) o h + z o g

Shapes as in `models.cells.convlstm`; the state of a layer is (h_BDHW,).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from models.cells.in_place import InPlaceLayer
from models.cells.recurrent_stack import LayerState, RecurrentCell, RecurrentStack


class ConvGRUCell(RecurrentCell):
    def __init__(self, inputs: int, hidden: int, kernel: int = 3, axes: int = 2):
        super().__init__(inputs, hidden, kernel, axes)
        self.gates = self.convolution(inputs + hidden, 2 * hidden)  # z, r
        self.candidate = self.convolution(inputs + hidden, hidden)

    def advance(self, x_BCHW: Tensor, state: LayerState) -> LayerState:
        (h_BDHW,) = state
        z, r = torch.sigmoid(self.gates(torch.cat([x_BCHW, h_BDHW], dim=1))).chunk(2, dim=1)
        g = torch.tanh(self.candidate(torch.cat([x_BCHW, r * h_BDHW], dim=1)))
        return ((1 - z) * h_BDHW + z * g,)

    def in_place(self, like_BCHW: Tensor, state: LayerState | None) -> "InPlaceConvGRU":
        return InPlaceConvGRU(self, like_BCHW, state)


class InPlaceConvGRU(InPlaceLayer):
    def __init__(self, cell: ConvGRUCell, like_BCHW: Tensor, state: LayerState | None):
        super().__init__(cell, like_BCHW, state)
        assert cell.candidate.bias is not None
        self.gates, self.weight, self.bias = cell.gates, 2 * cell.candidate.weight, 2 * cell.candidate.bias

    def step(self, seen_N1: Tensor | None, elapsed_B: Tensor | None, time_BF: Tensor | None) -> None:
        gates_NG = self.convolved(self.gates.weight, self.gates.bias)
        z_ND, r_ND = gates_NG.chunk(2, dim=1)
        for block in self.blocks(gates_NG):
            gates_NG[block].sigmoid_()
            h_PD, r_PD = self.h_ND[block], r_ND[block]
            reset_PD = r_PD * h_PD
            r_PD.copy_(h_PD)
            h_PD.copy_(reset_PD)
        before_ND = r_ND
        g_ND = self.convolved(self.weight, self.bias)
        for block in self.blocks(g_ND):
            g_PD, before_PD = g_ND[block], before_ND[block]
            g_PD.sigmoid_().mul_(2).sub_(1)  # tanh
            g_PD.sub_(before_PD).mul_(z_ND[block]).add_(before_PD)  # (1 - z) h + z g
            self.h_ND[block] = g_PD if seen_N1 is None else torch.where(seen_N1[block], g_PD, before_PD)


class ConvGRU(RecurrentStack):
    def __init__(self, inputs: int, hidden: Sequence[int], kernel: int = 3, axes: int = 2):
        super().__init__(ConvGRUCell(before, after, kernel, axes) for before, after in pairwise([inputs, *hidden]))
