"""A stack of recurrent convolutional cells with one state map each (ConvGRU, DCRN); ConvLSTM has two and its own stack.

Shapes as in `models.cells.convlstm`; the state of a layer is h_BDHW alone.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]  # h_BDHW of each layer


class RecurrentStack(nn.Module):
    """The output of a layer is the next one's input. A cell is called as `cell(x_BCHW, h_BDHW | None, valid_B1HW=) -> h_BDHW`."""

    def __init__(self, cells: Iterable[nn.Module]):
        super().__init__()
        self.cells = nn.ModuleList(cells)

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
