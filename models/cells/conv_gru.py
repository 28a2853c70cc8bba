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


class ConvGRU(RecurrentStack):
    def __init__(self, inputs: int, hidden: Sequence[int], kernel: int = 3, axes: int = 2):
        super().__init__(ConvGRUCell(before, after, kernel, axes) for before, after in pairwise([inputs, *hidden]))
