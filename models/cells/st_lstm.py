"""An ST-LSTM cell and PredRNN's stack of them, whose second memory runs in zig-zag; invalid pixels keep what they have.

Equations (Wang et al. 2017, NeurIPS, "PredRNN", eq. 2 = Wang et al. 2021, arXiv:2103.09504, eq. 3; `*` convolution, `o`
elementwise):

    i  = sigmoid(W_xi * x + W_hi * h + b_i)          i' = sigmoid(W'_xi * x + W_mi * m + b'_i)
    f  = sigmoid(W_xf * x + W_hf * h + b_f)          f' = sigmoid(W'_xf * x + W_mf * m + b'_f)
    g  = tanh(W_xg * x + W_hg * h + b_g)             g' = tanh(W'_xg * x + W_mg * m + b'_g)
    c' = f o c + i o g                               m' = f' o m + i' o g'
    o  = sigmoid(W_xo * x + W_ho * h + W_co * c' + W_mo * m' + b_o)
    h' = o o tanh(W_1x1 * [c', m'])

c stays in its layer from step to step. m goes up through the layers within a step, and from the top one to the lowest of the next
step (the zig-zag). Decoupling (arXiv:2103.09504, eq. 5) keeps what is added to the two, i o g and i' o g', from being alike.

Shapes as in `models.cells.convlstm`. The state of the stack is (h_BDHW, c_BDHW) for each layer, then (m_BDHW,).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor, nn

from models.blocks.channel_norm import ChannelNorm
from models.cells.recurrent_stack import CONVOLUTIONS, LayerState, RecurrentCell, State, where_valid

Increments = tuple[Tensor, Tensor]  # (i o g, i' o g'), each BDHW


class STLSTMCell(RecurrentCell):
    """One layer; its state is (h, c, m), of which `m` comes from the layer below. `forget_bias` as in the ConvLSTM.

    `layer_norm`: every convolution's output is normalised over the channels of each pixel (in the paper over the image too,
    which fixes its size).
    """

    maps = 3

    def __init__(
        self, inputs: int, hidden: int, kernel: int = 3, axes: int = 2, *, layer_norm: bool = False, forget_bias: float = 1.0
    ):
        super().__init__(inputs, hidden, kernel, axes)
        self.from_input = self.convolution(inputs, 7 * hidden)  # i, f, g, i', f', g', o
        self.from_state = self.convolution(hidden, 4 * hidden, bias=False)  # i, f, g, o
        self.from_memory = self.convolution(hidden, 3 * hidden, bias=False)  # i', f', g'
        self.to_output = self.convolution(2 * hidden, hidden, bias=False)
        self.mix = CONVOLUTIONS[axes](2 * hidden, hidden, 1, bias=False)
        self.norms = nn.ModuleList(ChannelNorm(gates * hidden) if layer_norm else nn.Identity() for gates in (7, 4, 3, 1))
        with torch.no_grad():
            assert self.from_input.bias is not None
            for forget in (1, 4):
                self.from_input.bias[forget * hidden : (forget + 1) * hidden] += forget_bias

    def advance_telling(self, x_BCHW: Tensor, state: LayerState) -> tuple[LayerState, Increments]:
        """The state after one step with valid pixels everywhere, and what was added to c and m."""
        h, c, m = state
        of_input, of_state, of_memory, of_output = self.norms
        i_x, f_x, g_x, i_xm, f_xm, g_xm, o_x = of_input(self.from_input(x_BCHW)).chunk(7, dim=1)
        i_h, f_h, g_h, o_h = of_state(self.from_state(h)).chunk(4, dim=1)
        i_m, f_m, g_m = of_memory(self.from_memory(m)).chunk(3, dim=1)
        to_c = torch.sigmoid(i_x + i_h) * torch.tanh(g_x + g_h)
        to_m = torch.sigmoid(i_xm + i_m) * torch.tanh(g_xm + g_m)
        c_new, m_new = torch.sigmoid(f_x + f_h) * c + to_c, torch.sigmoid(f_xm + f_m) * m + to_m
        both = torch.cat([c_new, m_new], dim=1)
        o = torch.sigmoid(o_x + o_h + of_output(self.to_output(both)))
        h_new = o * torch.tanh(self.mix(both).to(c.dtype))  # of mixed precision: the state stays float32
        return (h_new, c_new, m_new), (to_c, to_m)

    def advance(self, x_BCHW: Tensor, state: LayerState) -> LayerState:
        return self.advance_telling(x_BCHW, state)[0]


class STLSTM(nn.Module):
    """A stack of ST-LSTM layers. All have equally many channels, since they hand on one memory."""

    def __init__(
        self, inputs: int, hidden: Sequence[int], kernel: int = 3, axes: int = 2, *, layer_norm: bool = False,
        forget_bias: float = 1.0,
    ):  # fmt: skip
        super().__init__()
        if len(set(hidden)) != 1:
            raise ValueError(f"the layers hand on one memory and need equally many channels, got {list(hidden)}")
        self.hidden = hidden[-1]
        self.cells = nn.ModuleList(
            STLSTMCell(before, after, kernel, axes, layer_norm=layer_norm, forget_bias=forget_bias)
            for before, after in pairwise([inputs, *hidden])
        )

    def initial_state(self, x_BCHW: Tensor) -> State:
        zeros = x_BCHW.new_zeros(x_BCHW.shape[0], self.hidden, *x_BCHW.shape[2:])
        return *((zeros, zeros) for _ in self.cells), (zeros,)

    def step(
        self, x_BCHW: Tensor, state: State | None = None, *, valid_B1HW: Tensor | None = None
    ) -> tuple[Tensor, State, list[Increments]]:
        """(output of the last layer h_BDHW, state, what each layer added to its two memories) after one step."""
        *layers, (m,) = self.initial_state(x_BCHW) if state is None else state
        output, after, added = x_BCHW, [], []
        for cell, (h, c) in zip(self.cells, layers, strict=True):
            assert isinstance(cell, STLSTMCell)
            new, increments = cell.advance_telling(output, (h, c, m))
            h, c, m = where_valid(valid_B1HW, new, (h, c, m))
            output = h
            after.append((h, c))
            added.append(increments)
        return output, (*after, (m,)), added


class Decoupling(nn.Module):
    """The mean |cosine| between what the two memories of a layer get, over samples and channels; 0: nothing in common.

    Equation 5 of arXiv:2103.09504: cosine over the pixels of a channel, after a 1 x 1 convolution that all layers share (text
    below the equation). A part of the training loss; predictions do not use it.
    """

    def __init__(self, hidden: int, axes: int = 2):
        super().__init__()
        self.adapter = CONVOLUTIONS[axes](hidden, hidden, 1, bias=False)

    def forward(self, increments: Increments) -> Tensor:
        c_BDN, m_BDN = (self.adapter(one).flatten(2) for one in increments)
        return F.cosine_similarity(c_BDN, m_BDN, dim=2).abs().mean()
