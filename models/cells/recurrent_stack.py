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

from models.cells.in_place import InPlaceLayer, InPlaceRun

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
        """Maps of zeros for an image like `x_BCHW`, in the memory format of the weights; they share no memory."""
        shape = (x_BCHW.shape[0], self.hidden, *x_BCHW.shape[2:])
        return tuple(x_BCHW.new_zeros(shape).contiguous(memory_format=self.memory_format) for _ in range(self.maps))

    @property
    def memory_format(self) -> torch.memory_format:
        """channels-last after `.to(memory_format=torch.channels_last)` (of volumes `channels_last_3d`), which suits GPUs."""
        channels_last = torch.channels_last if self.axes == 2 else torch.channels_last_3d
        weight = next(one for one in self.parameters() if one.ndim == self.axes + 2)
        is_last = weight.is_contiguous(memory_format=channels_last) and not weight.is_contiguous()
        return channels_last if is_last else torch.contiguous_format

    def advance(self, x_BCHW: Tensor, state: LayerState) -> LayerState:
        """The state after one step with valid pixels everywhere."""
        raise NotImplementedError

    def forward(self, x_BCHW: Tensor, state: LayerState | None = None, *, valid_B1HW: Tensor | None = None) -> LayerState:
        """The state after one step; None is a state of zeros. `valid_B1HW` is 1 for valid pixels; None: all are valid."""
        before = self.initial_state(x_BCHW) if state is None else state
        return where_valid(valid_B1HW, self.advance(x_BCHW, before), before)

    def in_place(self, like_BCHW: Tensor, state: LayerState | None) -> InPlaceLayer:
        """The same layer without gradients, for images like `like_BCHW`, from a state (None: zeros) that it copies."""
        raise NotImplementedError


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

    def in_place(self, like_BCHW: Tensor, state: State | None) -> list[InPlaceLayer]:
        cells = [cell for cell in self.cells if isinstance(cell, RecurrentCell)]
        return [cell.in_place(like_BCHW, None if state is None else state[i]) for i, cell in enumerate(cells)]

    def forward(
        self, x_BTCHW: Tensor, state: State | None = None, *, valid_BT1HW: Tensor | None = None, elapsed_BT: Tensor | None = None,
        time_BTF: Tensor | None = None, is_reverse: bool = False,
    ) -> tuple[Tensor, State]:  # fmt: skip
        """(h_BTDHW of the last layer, state after the last step): T calls of `step`, time outermost.

        With `is_reverse` it reads from the last step to the first; the outputs keep their places.
        Without gradients (and dropout) the same numbers come from `InPlaceRun`, in channels-last memory.
        """
        known = by_step(x_BTCHW.shape[1], valid_BT1HW, elapsed_BT, time_BTF)
        if self.is_in_place:
            h_BTHWD = self.new_outputs(x_BTCHW)
            return h_BTHWD.movedim(-1, 2), self.read_in_place(x_BTCHW, state, known, h_BTHWD, is_reverse=is_reverse)
        outputs = []
        for n, t in enumerate(in_order(len(known), is_reverse)):
            if state is not None and n and self.detach_every and n % self.detach_every == 0:
                state = tuple(tuple(one.detach() for one in layer) for layer in state)
            step = partial(self.step, x_BTCHW[:, t], state, **known[t])
            is_kept = not (self.checkpointed and torch.is_grad_enabled())
            output, state = step() if is_kept else checkpoint(step, use_reentrant=False)
            outputs.append(output)
        assert state is not None, "a sequence has at least one step"
        return torch.stack(outputs[::-1] if is_reverse else outputs, dim=1), state

    @property
    def is_in_place(self) -> bool:
        """Neither gradients nor dropout are needed now."""
        return not torch.is_grad_enabled() and not (self.training and self.dropout > 0)

    def new_outputs(self, x_BTCHW: Tensor, directions: int = 1) -> Tensor:
        """(B, T, H, W, directions x D), not filled."""
        batch, steps, _, *space = x_BTCHW.shape
        last = [cell for cell in self.cells if isinstance(cell, RecurrentCell)][-1]
        return x_BTCHW.new_empty(batch, steps, *space, directions * last.hidden)

    def read_in_place(
        self, x_BTCHW: Tensor, state: State | None, known: list[dict[str, Tensor]], into_BTHWD: Tensor, *,
        is_reverse: bool = False,
    ) -> State:  # fmt: skip
        """The state after the last step read, which is the first if `is_reverse`; the outputs go into `into_BTHWD`."""
        run = InPlaceRun(self, x_BTCHW[:, 0], state)
        for t in in_order(len(known), is_reverse):
            into_BTHWD[:, t] = run.step(x_BTCHW[:, t], **known[t]).movedim(1, -1)
        return run.end()


def in_order(steps: int, is_reverse: bool) -> range:
    """
    >>> list(in_order(3, True))
    [2, 1, 0]
    """
    return range(steps)[:: -1 if is_reverse else 1]


def by_step(
    steps: int, valid_BT1HW: Tensor | None = None, elapsed_BT: Tensor | None = None, time_BTF: Tensor | None = None
) -> list[dict[str, Tensor]]:
    """The keyword arguments of a cell at every step."""
    of_steps = {"valid_B1HW": valid_BT1HW, "elapsed_B": elapsed_BT, "time_BF": time_BTF}
    return [{name: each[:, t] for name, each in of_steps.items() if each is not None} for t in range(steps)]


def read_both_ways(onward: RecurrentStack, reverse: RecurrentStack, x_BTCHW: Tensor, valid_BT1HW: Tensor | None = None) -> Tensor:
    """(B, T, 2 D, H, W): the outputs of `onward`, then of `reverse`, which reads from the last step (Schuster & Paliwal 1997)."""
    if onward.is_in_place and reverse.is_in_place:
        known, h_BTHWO = by_step(x_BTCHW.shape[1], valid_BT1HW), onward.new_outputs(x_BTCHW, 2)
        onward_BTHWD, reverse_BTHWD = h_BTHWO.chunk(2, dim=-1)
        onward.read_in_place(x_BTCHW, None, known, onward_BTHWD)
        reverse.read_in_place(x_BTCHW, None, known, reverse_BTHWD, is_reverse=True)
        return h_BTHWO.movedim(-1, 2)
    read = partial(reverse, is_reverse=True)
    return torch.cat([stack(x_BTCHW, valid_BT1HW=valid_BT1HW)[0] for stack in (onward, read)], dim=2)
