"""The recurrent layer of a deep convolutional recurrent network (DCRN), and a stack of them.

The recurrence as the project's users define it, with convolutions as products (a convolutional Elman layer, Elman 1990):

    h_t = tanh(W_rc * h_{t-1} + W_cx * x_t + b)

Invalid pixels keep their state. Shapes as in `models.cells.convlstm`; the state of a layer is (h_BDHW,).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from models.cells.recurrent_stack import LayerState, RecurrentCell, RecurrentStack


class DCRNCell(RecurrentCell):
    def __init__(self, inputs: int, hidden: int, kernel: int = 3, axes: int = 2):
        super().__init__(inputs, hidden, kernel, axes)
        self.from_input = self.convolution(inputs, hidden)  # W_cx, b
        self.from_state = self.convolution(hidden, hidden, bias=False)  # W_rc

    def advance(self, x_BCHW: Tensor, state: LayerState) -> LayerState:
        return (torch.tanh(self.from_state(state[0]) + self.from_input(x_BCHW)),)


class DCRN(RecurrentStack):
    def __init__(self, inputs: int, hidden: Sequence[int], kernel: int = 3, axes: int = 2):
        super().__init__(DCRNCell(before, after, kernel, axes) for before, after in pairwise([inputs, *hidden]))
