"""The recurrent layer of a deep convolutional recurrent network (DCRN), and a stack of them.

The recurrence as the project's users define it, with convolutions as products (a convolutional Elman layer, Elman 1990):

    h_t = tanh(W_rc * h_{t-1} + W_cx * x_t + b)

Invalid pixels keep their state. Shapes as in `models.cells.convlstm`; the state of a layer is (h_BDHW,).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from models.cells.in_place import InPlaceLayer, keep_or_replace
from models.cells.recurrent_stack import LayerState, RecurrentCell, RecurrentStack


class DCRNCell(RecurrentCell):
    def __init__(self, inputs: int, hidden: int, kernel: int = 3, axes: int = 2):
        super().__init__(inputs, hidden, kernel, axes)
        self.from_input = self.convolution(inputs, hidden)  # W_cx, b
        self.from_state = self.convolution(hidden, hidden, bias=False)  # W_rc

    def advance(self, x_BCHW: Tensor, state: LayerState) -> LayerState:
        sum_BDHW = self.from_state(state[0]) + self.from_input(x_BCHW)
        return (torch.tanh(sum_BDHW.to(state[0].dtype)),)  # of mixed precision: the state stays float32

    def in_place(self, like_BCHW: Tensor, state: LayerState | None) -> "InPlaceDCRN":
        return InPlaceDCRN(self, like_BCHW, state)


class InPlaceDCRN(InPlaceLayer):
    def __init__(self, cell: DCRNCell, like_BCHW: Tensor, state: LayerState | None):
        super().__init__(cell, like_BCHW, state)
        assert cell.from_input.bias is not None
        self.weight = 2 * torch.cat([cell.from_input.weight, cell.from_state.weight], dim=1)
        self.bias = 2 * cell.from_input.bias

    def step(self, seen_N1: Tensor | None, elapsed_B: Tensor | None, time_BF: Tensor | None) -> None:
        sum_ND = self.convolved(self.weight, self.bias)
        for block in self.blocks(sum_ND):
            new_PD = sum_ND[block].sigmoid_().mul_(2).sub_(1)  # tanh
            keep_or_replace(None if seen_N1 is None else seen_N1[block], new_PD, self.h_ND[block])


class DCRN(RecurrentStack):
    def __init__(self, inputs: int, hidden: Sequence[int], kernel: int = 3, axes: int = 2):
        super().__init__(DCRNCell(before, after, kernel, axes) for before, after in pairwise([inputs, *hidden]))
