"""A stack of convolutional recurrent layers without gradients: the numbers of its cells, with only the state in memory.

Input and hidden state of a layer share one channels-last buffer that the convolution reads directly, so nothing is
concatenated. All pointwise work is done in place in the convolution's output, one block of pixels at a time while it is in
the processor's cache. tanh(a) = 2 sigmoid(2 a) - 1 everywhere, because PyTorch's sigmoid is four times as fast on a CPU
(difference: one ulp of 1). The inner factor 2 is part of a copy of the weights. The equations are beside those of the cells.

Shapes as in `models.cells.convlstm`; N = pixels of all samples (B x H x W, of volumes B x D x H x W), E = inputs + hidden,
P = pixels of one block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor

if TYPE_CHECKING:
    from models.cells.recurrent_stack import LayerState, RecurrentCell, RecurrentStack, State

BLOCK_BYTES = 1 << 20  # of gates processed at once on a CPU; about half of a core's second-level cache


def convolve(x_BCHW: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolution with odd kernels and zero padding that keeps the size, without gradients.

    On a CPU oneDNN is called directly: PyTorch would use another algorithm for small images, and a tile would then differ from
    the same pixels of the whole image in the last digit.
    """
    padding = [side // 2 for side in weight.shape[2:]]
    if x_BCHW.device.type == "cpu" and x_BCHW.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        ones = [1] * len(padding)
        convolved: Tensor = torch.ops.aten.mkldnn_convolution(x_BCHW, weight, bias, padding, ones, ones, 1)
        return convolved
    return (F.conv2d if len(padding) == 2 else F.conv3d)(x_BCHW, weight, bias, padding=padding)


class InPlaceLayer(ABC):
    """The buffer of one layer and its state, zeros or a copy of `state`; a cell says how they advance."""

    takes_dates = False  # elapsed time and time features

    def __init__(self, cell: RecurrentCell, like_BCHW: Tensor, state: LayerState | None):
        batch, _, *space = like_BCHW.shape
        self.xh_BHWE = like_BCHW.new_zeros(batch, *space, cell.inputs + cell.hidden)
        self.x_BHWC, self.h_BHWD = self.xh_BHWE.tensor_split([cell.inputs], dim=-1)
        self.h_ND = self.xh_BHWE.flatten(0, -2)[:, cell.inputs :]
        others = (like_BCHW.new_zeros(batch, *space, cell.hidden) for _ in range(cell.maps - 1))
        self.maps_BHWD = (self.h_BHWD, *others)
        for one, values in zip(self.maps_BHWD, state or (), strict=state is not None):
            one.copy_(values.movedim(1, -1))

    def state(self) -> LayerState:
        """Maps (B, D, H, W), copies."""
        return tuple(one.movedim(-1, 1).clone() for one in self.maps_BHWD)

    def end(self) -> LayerState:
        """`state` without copies of maps that have memory of their own; the layer must not advance any more."""
        return self.h_BHWD.movedim(-1, 1).clone(), *(one.movedim(-1, 1) for one in self.maps_BHWD[1:])

    def convolved(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution of input and hidden state in the state's dtype, (N, channels), to be overwritten."""
        convolved_BCHW = convolve(self.xh_BHWE.movedim(-1, 1), weight, bias).to(self.xh_BHWE.dtype)
        return convolved_BCHW.movedim(1, -1).flatten(0, -2)

    def blocks(self, values_NG: Tensor) -> Iterator[slice]:
        """Slices of N; on a CPU of at most `BLOCK_BYTES` of `values_NG`, elsewhere one."""
        pixels, channels = values_NG.shape
        size = max(BLOCK_BYTES // (4 * channels), 64) if values_NG.device.type == "cpu" else pixels
        return (slice(start, start + size) for start in range(0, pixels, size))

    @abstractmethod
    def step(self, seen_N1: Tensor | None, elapsed_B: Tensor | None, time_BF: Tensor | None) -> None:
        """Advances the state by one step; the input is already in `x_BHWC`. Pixels that are not seen keep their state."""


def keep_or_replace(seen_P1: Tensor | None, new_PD: Tensor, old_PD: Tensor) -> None:
    """`new_PD` into `old_PD`, where seen."""
    if seen_P1 is None:
        old_PD.copy_(new_PD)
    else:
        torch.where(seen_P1, new_PD, old_PD, out=old_PD)


class InPlaceRun:
    """A stack during a sequence: `step` makes one step; holds the state. For one thread, without gradients or dropout."""

    def __init__(self, stack: RecurrentStack, like_BCHW: Tensor, state: State | None = None):
        with torch.no_grad():
            self.layers = stack.in_place(like_BCHW, state)

    @torch.no_grad()
    def step(
        self, x_BCHW: Tensor, *, valid_B1HW: Tensor | None = None, elapsed_B: Tensor | None = None, time_BF: Tensor | None = None
    ) -> Tensor:
        """Output of the last layer, h_BDHW: a channels-last view that the next step overwrites."""
        seen_N1 = None
        if valid_B1HW is not None:
            seen_N1 = (valid_B1HW > 0).expand(-1, -1, *x_BCHW.shape[2:]).reshape(-1, 1)
        flowing_BHWC = x_BCHW.movedim(1, -1)
        for layer in self.layers:
            layer.x_BHWC.copy_(flowing_BHWC)
            if not layer.takes_dates and (elapsed_B is not None or time_BF is not None):
                raise TypeError(f"{type(layer).__name__} takes neither elapsed time nor time features")
            layer.step(seen_N1, elapsed_B, time_BF)
            flowing_BHWC = layer.h_BHWD
        return flowing_BHWC.movedim(-1, 1)

    def end(self) -> State:
        """The state. The run is over: each layer gives its memory back before the next one's state is copied."""
        return tuple(self.layers.pop(0).end() for _ in range(len(self.layers)))

    def state(self) -> State:
        return tuple(layer.state() for layer in self.layers)
