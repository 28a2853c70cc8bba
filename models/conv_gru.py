"""A ConvGRU cell and a stack of them, with pixels that were not seen holding their state.

Equations (Ballas et al. 2016, arXiv:1511.06432, section 3.1; `*` convolution, `o` elementwise; Cho et al. 2014 for the gates):

    z = sigmoid(W_z * x + U_z * h + b_z)
    r = sigmoid(W_r * x + U_r * h + b_r)
    g = tanh(W_g * x + U_g * (r o h) + b_g)
    h' = (1 - z) o h + z o g

Shapes as in `models.convlstm`; the state of a layer is h_BDHW alone.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]  # h_BDHW of each layer


class ConvGRUCell(nn.Module):
    """One ConvGRU layer: `forward` makes one step. `kernel` is odd; zero padding keeps the size."""

    def __init__(self, inputs: int, hidden: int, kernel: int = 3):
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"the kernel must be odd so that the size is kept, not {kernel}")
        self.inputs, self.hidden, self.kernel = inputs, hidden, kernel
        self.gates = nn.Conv2d(inputs + hidden, 2 * hidden, kernel, padding=kernel // 2)  # z, r
        self.candidate = nn.Conv2d(inputs + hidden, hidden, kernel, padding=kernel // 2)

    def forward(self, x_BCHW: Tensor, h_BDHW: Tensor | None = None, *, valid_B1HW: Tensor | None = None) -> Tensor:
        """h_BDHW after one step; None is a state of zeros. `valid_B1HW` is 1 where the pixel was seen; None means everywhere."""
        if h_BDHW is None:
            h_BDHW = x_BCHW.new_zeros(x_BCHW.shape[0], self.hidden, *x_BCHW.shape[-2:])
        z, r = torch.sigmoid(self.gates(torch.cat([x_BCHW, h_BDHW], dim=1))).chunk(2, dim=1)
        g = torch.tanh(self.candidate(torch.cat([x_BCHW, r * h_BDHW], dim=1)))
        h_new = (1 - z) * h_BDHW + z * g
        return h_new if valid_B1HW is None else torch.where(valid_B1HW > 0, h_new, h_BDHW)


class ConvGRU(nn.Module):
    """A stack of ConvGRU layers; the output of a layer is the next one's input."""

    def __init__(self, inputs: int, hidden: Sequence[int], kernel: int = 3):
        super().__init__()
        self.cells = nn.ModuleList(ConvGRUCell(before, after, kernel) for before, after in pairwise([inputs, *hidden]))

    def step(self, x_BCHW: Tensor, state: State | None = None, *, valid_B1HW: Tensor | None = None) -> tuple[Tensor, State]:
        """(output of the last layer h_BDHW, state of all layers) after one step."""
        output, after = x_BCHW, []
        for index, cell in enumerate(self.cells):
            output = cell(output, None if state is None else state[index], valid_B1HW=valid_B1HW)
            after.append(output)
        return output, tuple(after)

    def forward(self, x_BTCHW: Tensor, state: State | None = None, *, valid_BT1HW: Tensor | None = None) -> tuple[Tensor, State]:
        """(h_BTDHW of the last layer, state after the last step): T calls of `step`."""
        outputs = []
        for t in range(x_BTCHW.shape[1]):
            output, state = self.step(x_BTCHW[:, t], state, valid_B1HW=None if valid_BT1HW is None else valid_BT1HW[:, t])
            outputs.append(output)
        assert state is not None, "a sequence has at least one step"
        return torch.stack(outputs, dim=1), state
