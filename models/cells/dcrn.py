"""The recurrent layer of a deep convolutional recurrent network (DCRN), and a stack of them.

The recurrence as the project's users define it, with convolutions as products (a convolutional Elman layer, Elman 1990):

    h_t = tanh(W_rc * h_{t-1} + W_cx * x_t + b)

Invalid pixels keep their state.

Shapes as in `models.cells.convlstm`; the state of a layer is h_BDHW alone.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from models.cells.recurrent_stack import RecurrentStack


class DCRNCell(nn.Module):
    """One recurrent layer: `forward` makes one step. `kernel` is odd; zero padding keeps the size."""

    def __init__(self, inputs: int, hidden: int, kernel: int = 3):
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"the kernel must be odd to keep the size, got {kernel}")
        self.inputs, self.hidden, self.kernel = inputs, hidden, kernel
        self.from_input = nn.Conv2d(inputs, hidden, kernel, padding=kernel // 2)  # W_cx, b
        self.from_state = nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, bias=False)  # W_rc

    def forward(self, x_BCHW: Tensor, h_BDHW: Tensor | None = None, *, valid_B1HW: Tensor | None = None) -> Tensor:
        """h_BDHW after one step; None is a state of zeros. `valid_B1HW` is 1 for valid pixels; None: all are valid."""
        if h_BDHW is None:
            h_BDHW = x_BCHW.new_zeros(x_BCHW.shape[0], self.hidden, *x_BCHW.shape[-2:])
        h_new = torch.tanh(self.from_state(h_BDHW) + self.from_input(x_BCHW))
        return h_new if valid_B1HW is None else torch.where(valid_B1HW > 0, h_new, h_BDHW)


class DCRN(RecurrentStack):
    """A stack of recurrent layers."""

    def __init__(self, inputs: int, hidden: Sequence[int], kernel: int = 3):
        super().__init__(DCRNCell(before, after, kernel) for before, after in pairwise([inputs, *hidden]))
