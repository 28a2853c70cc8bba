"""What the recurrent convolutional cells share, and a stack of them.

The state of a layer is a tuple of maps: (h_BDHW,) for ConvGRU and DCRN, (h_BDHW, c_BDHW) for ConvLSTM. Shapes as in
`models.cells.convlstm`; `HW` stands for all axes of space, of volumes (D, H, W).
"""

from collections.abc import Iterable
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}  # by the axes of space
DROPOUTS = {2: F.dropout2d, 3: F.dropout3d}  # of whole channels
LayerState = tuple[Tensor, ...]
State = tuple[LayerState, ...]  # of each layer


class RecurrentCell(nn.Module):
    """One layer: `forward` makes one step. `kernel` is odd; zero padding keeps the size. Invalid pixels keep their state.

    `axes` of space: 2 for images, 3 for volumes.
    """

    maps = 1  # in the state

    def __init__(self, inputs: int, hidden: int, kernel: int = 3, axes: int = 2):
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"the kernel must be odd to keep the size, got {kernel}")
        self.inputs, self.hidden, self.kernel, self.axes = inputs, hidden, kernel, axes

    def convolution(self, inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv2d | nn.Conv3d:
        return CONVOLUTIONS[self.axes](inputs, outputs, self.kernel, padding=self.kernel // 2, bias=bias)

    def initial_state(self, x_BCHW: Tensor) -> LayerState:
        """Maps of zeros for an image like `x_BCHW`; they share no memory."""
        shape = (x_BCHW.shape[0], self.hidden, *x_BCHW.shape[2:])
        return tuple(x_BCHW.new_zeros(shape) for _ in range(self.maps))

    def advance(self, x_BCHW: Tensor, state: LayerState) -> LayerState:
        """The state after one step with valid pixels everywhere."""
        raise NotImplementedError

    def forward(self, x_BCHW: Tensor, state: LayerState | None = None, *, valid_B1HW: Tensor | None = None) -> LayerState:
        """The state after one step; None is a state of zeros. `valid_B1HW` is 1 for valid pixels; None: all are valid."""
        before = self.initial_state(x_BCHW) if state is None else state
        return where_valid(valid_B1HW, self.advance(x_BCHW, before), before)


def where_valid(valid_B1HW: Tensor | None, after: LayerState, before: LayerState) -> LayerState:
    """`after`, but `before` at invalid pixels."""
    if valid_B1HW is None:
        return after
    seen_B1HW = valid_B1HW > 0
    return tuple(torch.where(seen_B1HW, new, old) for new, old in zip(after, before, strict=True))


class RecurrentStack(nn.Module):
    """The output of a layer is the next one's input, with spatial dropout between in training.

    In `forward`, after every `detach_every` steps the state is cut off from the gradient (truncated backpropagation through time,
    Williams & Peng 1990; 0: never); `checkpointed` computes every step again in the backward pass and keeps only the states.
    """

    def __init__(self, cells: Iterable[nn.Module], dropout: float = 0.0):
        super().__init__()
        self.cells = nn.ModuleList(cells)
        self.dropout = dropout
        self.detach_every, self.checkpointed = 0, False

    def step(self, x_BCHW: Tensor, state: State | None = None, **known: Tensor) -> tuple[Tensor, State]:
        """(output of the last layer h_BDHW, state of all layers) after one step; `known` are the keyword arguments of a cell."""
        output, after = x_BCHW, []
        for index, cell in enumerate(self.cells):
            after.append(cell(output, None if state is None else state[index], **known))
            output = DROPOUTS[x_BCHW.ndim - 2](after[-1][0], self.dropout, self.training)
        return output, tuple(after)

    def forward(
        self, x_BTCHW: Tensor, state: State | None = None, *, valid_BT1HW: Tensor | None = None, elapsed_BT: Tensor | None = None,
        time_BTF: Tensor | None = None,
    ) -> tuple[Tensor, State]:  # fmt: skip
        """(h_BTDHW of the last layer, state after the last step): T calls of `step`, time outermost."""
        known = {"valid_B1HW": valid_BT1HW, "elapsed_B": elapsed_BT, "time_BF": time_BTF}
        outputs = []
        for t in range(x_BTCHW.shape[1]):
            at_t = {name: values[:, t] for name, values in known.items() if values is not None}
            if state is not None and t and self.detach_every and t % self.detach_every == 0:
                state = tuple(tuple(one.detach() for one in layer) for layer in state)
            step = partial(self.step, x_BTCHW[:, t], state, **at_t)
            is_kept = not (self.checkpointed and torch.is_grad_enabled())
            output, state = step() if is_kept else checkpoint(step, use_reentrant=False)
            outputs.append(output)
        assert state is not None, "a sequence has at least one step"
        return torch.stack(outputs, dim=1), state
