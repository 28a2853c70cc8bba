"""The ConvLSTM stack without gradients: the same numbers as `models.cells.convlstm`, with only the state in memory.

Input and hidden state of a layer share one channels-last buffer that the convolution reads directly, so nothing is
concatenated. All pointwise work is done in place in the convolution's output, one block of pixels at a time while it is in
the processor's cache. tanh(a) = 2 sigmoid(2 a) - 1 everywhere, because PyTorch's sigmoid is four times as fast on a CPU
(difference: one ulp of 1). The inner factor 2 of gate g is part of a copy of the weights.

Shapes as in `models.cells.convlstm`; P = pixels of one sample (H x W, of volumes D x H x W), E = inputs + hidden.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor

from models.cells.convlstm import ConvLSTMCell
from models.cells.recurrent_stack import LayerState, RecurrentStack, State
from models.contract import over_space

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


class _Layer:
    def __init__(self, cell: ConvLSTMCell, like_BCHW: Tensor, state: LayerState | None):
        batch, _, *space = like_BCHW.shape
        self.cell, self.pixels = cell, math.prod(space)
        self.xh_BHWE = like_BCHW.new_zeros(batch, *space, cell.inputs + cell.hidden)
        self.c_BPD = like_BCHW.new_zeros(batch, self.pixels, cell.hidden)
        flat_BPE = self.xh_BHWE.view(batch, self.pixels, -1)
        self.x_BPC, self.h_BPD = flat_BPE[..., : cell.inputs], flat_BPE[..., cell.inputs :]
        assert cell.gates.bias is not None
        self.double_G = torch.ones_like(cell.gates.bias)
        self.double_G[3 * cell.hidden :] = 2
        self.weight = cell.gates.weight * over_space(self.double_G, cell.axes + 1)
        self.bias = cell.gates.bias * self.double_G
        if state is not None:
            self.h_BPD.copy_(state[0].flatten(2).transpose(1, 2))
            self.c_BPD.copy_(state[1].flatten(2).transpose(1, 2))

    def state(self) -> LayerState:
        """(h_BDHW, c_BDHW), copies."""
        shape = (*self.xh_BHWE.shape[:-1], self.cell.hidden)
        return self.h_BPD.reshape(shape).movedim(-1, 1).clone(), self.c_BPD.view(shape).movedim(-1, 1).clone()

    def step(self, valid_BP1: Tensor | None, elapsed_B: Tensor | None, time_BF: Tensor | None) -> None:
        """Advances h and c by one step; the input is already in `x_BPC`."""
        cell, hidden = self.cell, self.cell.hidden
        if elapsed_B is not None:
            keep_B1D = cell.keep_BD(elapsed_B)[:, None]
            self.h_BPD.mul_(keep_B1D)
            self.c_BPD.mul_(keep_B1D)
        gates_BHWG = convolve(self.xh_BHWE.movedim(-1, 1), self.weight, self.bias).movedim(1, -1).to(self.c_BPD.dtype)
        gates_BPG = gates_BHWG.reshape(-1, self.pixels, 4 * hidden)
        bias_BG = cell.time(time_BF) * self.double_G if cell.time is not None and time_BF is not None else None
        size = max(BLOCK_BYTES // (16 * hidden), 64) if gates_BPG.device.type == "cpu" else self.pixels
        for b in range(len(gates_BPG)):
            for start in range(0, self.pixels, size):
                block = slice(start, start + size)
                gates_PG = gates_BPG[b, block]
                if bias_BG is not None:
                    gates_PG += bias_BG[b]
                seen_P1 = None if valid_BP1 is None else valid_BP1[b, block]
                advance(gates_PG, self.h_BPD[b, block], self.c_BPD[b, block], seen_P1, cell.peephole_3D)


def advance(gates_PG: Tensor, h_PD: Tensor, c_PD: Tensor, seen_P1: Tensor | None, peephole_3D: Tensor | None) -> None:
    """The pointwise half of a step, in place in `h_PD` and `c_PD`; `gates_PG` holds i, f, o, 2 g and is overwritten."""
    i, f, o, g = gates_PG.chunk(4, dim=1)
    if peephole_3D is None:
        gates_PG.sigmoid_()
    else:
        i.addcmul_(c_PD, peephole_3D[0]).sigmoid_()
        f.addcmul_(c_PD, peephole_3D[1]).sigmoid_()
        g.sigmoid_()
    c_new = c_PD.mul_(f) if seen_P1 is None else f.mul_(c_PD)
    c_new.addcmul_(i, g, value=2).sub_(i)  # f c + i (2 g - 1)
    if peephole_3D is not None:
        o.addcmul_(c_new, peephole_3D[2]).sigmoid_()
    torch.mul(c_new, 2, out=g).sigmoid_()
    g.mul_(2).sub_(1)  # tanh(c)
    if seen_P1 is None:
        torch.mul(o, g, out=h_PD)
        return
    h_new = o.mul_(g)
    torch.where(seen_P1, h_new, h_PD, out=h_PD)
    torch.where(seen_P1, c_new, c_PD, out=c_PD)


class InPlaceRun:
    """A stack of ConvLSTM layers during a sequence: `step` makes one step; holds the state. For one thread, without gradients."""

    def __init__(self, stack: RecurrentStack, like_BCHW: Tensor, state: State | None = None):
        cells = [cell for cell in stack.cells if isinstance(cell, ConvLSTMCell)]
        self.layers = [_Layer(cell, like_BCHW, None if state is None else state[i]) for i, cell in enumerate(cells)]

    @torch.no_grad()
    def step(
        self, x_BCHW: Tensor, *, valid_B1HW: Tensor | None = None, elapsed_B: Tensor | None = None, time_BF: Tensor | None = None
    ) -> Tensor:
        """Output of the last layer, h_BDHW: a channels-last view that the next step overwrites."""
        valid_BP1 = None if valid_B1HW is None else valid_B1HW.flatten(2).transpose(1, 2) > 0
        flowing_BPC = x_BCHW.flatten(2).transpose(1, 2)
        for layer in self.layers:
            layer.x_BPC.copy_(flowing_BPC)
            layer.step(valid_BP1, elapsed_B, time_BF)
            flowing_BPC = layer.h_BPD
        h_BDHW: Tensor = flowing_BPC.unflatten(1, x_BCHW.shape[2:]).movedim(-1, 1)
        return h_BDHW

    def state(self) -> State:
        return tuple(layer.state() for layer in self.layers)
