"""A ConvLSTM cell and a stack of them, for irregular dates and missing pixels.

Equations (Shi et al. 2015, arXiv:1506.04214, eq. 3; `*` convolution, `o` elementwise; the peepholes are per channel, so that
the cell does not fix the size of the image):

    i = sigmoid(W_xi * x + W_hi * h + w_ci o c + b_i)
    f = sigmoid(W_xf * x + W_hf * h + w_cf o c + b_f)
    c' = f o c + i o tanh(W_xg * x + W_hg * h + b_g)
    o = sigmoid(W_xo * x + W_ho * h + w_co o c' + b_o)
    h' = o o tanh(c')

Three additions for irregular, cloudy series:
- elapsed time: before a step, h and c are multiplied by exp(-rate o elapsed), one learnt rate >= 0 per channel (the hidden decay
  of GRU-D, Che et al. 2018, eq. 10), almost no decay at the start;
- time features (season, lead...) enter every gate as a bias per channel;
- an invalid pixel keeps its (decayed) state.

Two implementations give the same numbers: one with gradients and `InPlaceConvLSTM` (less memory).

Shapes: B batch, T time, C input channels, D hidden channels, H rows, W columns, F time features; G = 4 D, gates in the order
i, f, o, g. All float32 unless the module was cast.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor, nn

from models.cells.in_place import InPlaceLayer, keep_or_replace
from models.cells.lstm_gates import next_state
from models.cells.recurrent_stack import LayerState, RecurrentCell, RecurrentStack, where_valid
from models.contract import over_space

INITIAL_RATE = 1e-3  # decay per unit of elapsed time before training: 0.1 %


class ConvLSTMCell(RecurrentCell):
    """One ConvLSTM layer. `forget_bias` is added to the forget gate's initial bias (Jozefowicz 2015).

    With `time_features` > 0 the cell takes `time_BF` and `elapsed_B`; else neither, and has no parameters for them.
    """

    maps = 2

    def __init__(
        self, inputs: int, hidden: int, kernel: int = 3, *, peepholes: bool = False, forget_bias: float = 1.0,
        time_features: int = 0, axes: int = 2,
    ):  # fmt: skip
        super().__init__(inputs, hidden, kernel, axes)
        self.gates = self.convolution(inputs + hidden, 4 * hidden)
        with torch.no_grad():
            assert self.gates.bias is not None
            self.gates.bias[hidden : 2 * hidden] += forget_bias
        self.peephole_3D = nn.Parameter(torch.zeros(3, hidden)) if peepholes else None  # rows: i, f, o
        self.time = nn.Linear(time_features, 4 * hidden, bias=False) if time_features else None
        raw = math.log(math.expm1(INITIAL_RATE))
        self.raw_rate_D = nn.Parameter(torch.full((hidden,), raw)) if time_features else None

    def keep_BD(self, elapsed_B: Tensor) -> Tensor:
        """Fraction of the state that is kept after `elapsed_B`, in (0, 1]; negative time counts as 0."""
        assert self.raw_rate_D is not None
        return torch.exp(-F.softplus(self.raw_rate_D) * elapsed_B.clamp(min=0)[:, None])

    def forward(
        self, x_BCHW: Tensor, state: LayerState | None = None, *, valid_B1HW: Tensor | None = None,
        elapsed_B: Tensor | None = None, time_BF: Tensor | None = None,
    ) -> LayerState:  # fmt: skip
        """(h_BDHW, c_BDHW) after one step. `valid_B1HW` is 1 for valid pixels; None: all are valid."""
        h, c = self.initial_state(x_BCHW) if state is None else state
        if elapsed_B is not None:
            keep = over_space(self.keep_BD(elapsed_B), self.axes)
            h, c = h * keep, c * keep
        gates = self.gates_of_input(x_BCHW) if state is None else self.gates(torch.cat([x_BCHW, h], dim=1))
        if self.time is not None and time_BF is not None:
            gates = gates + over_space(self.time(time_BF), self.axes)
        if self.peephole_3D is None:
            return where_valid(valid_B1HW, next_state(gates, c), (h, c))
        i, f, o, g = gates.chunk(4, dim=1)
        peephole = over_space(self.peephole_3D[:, None], self.axes)
        c_new = torch.sigmoid(f + peephole[1] * c) * c + torch.sigmoid(i + peephole[0] * c) * torch.tanh(g)
        return where_valid(valid_B1HW, (torch.sigmoid(o + peephole[2] * c_new) * torch.tanh(c_new), c_new), (h, c))

    def gates_of_input(self, x_BCHW: Tensor) -> Tensor:
        """What enters the gates at the first step, whose state is 0: half of the work or less."""
        convolve = F.conv2d if self.axes == 2 else F.conv3d
        gates: Tensor = convolve(x_BCHW, self.gates.weight[:, : self.inputs], self.gates.bias, padding=self.kernel // 2)
        return gates

    def in_place(self, like_BCHW: Tensor, state: LayerState | None) -> "InPlaceConvLSTM":
        return InPlaceConvLSTM(self, like_BCHW, state)


class InPlaceConvLSTM(InPlaceLayer):
    takes_dates = True

    def __init__(self, cell: ConvLSTMCell, like_BCHW: Tensor, state: LayerState | None):
        super().__init__(cell, like_BCHW, state)
        self.cell = cell
        self.c_ND = self.maps_BHWD[1].flatten(0, -2)
        assert cell.gates.bias is not None
        self.double_G = torch.ones_like(cell.gates.bias)
        self.double_G[3 * cell.hidden :] = 2
        self.weight = cell.gates.weight * over_space(self.double_G, cell.axes + 1)
        self.bias = cell.gates.bias * self.double_G

    def step(self, seen_N1: Tensor | None, elapsed_B: Tensor | None, time_BF: Tensor | None) -> None:
        cell = self.cell
        if elapsed_B is not None:
            keep_BHWD = cell.keep_BD(elapsed_B).reshape(-1, *[1] * cell.axes, cell.hidden)
            for one in self.maps_BHWD:
                one.mul_(keep_BHWD)
        gates_NG = self.convolved(self.weight, self.bias)
        if cell.time is not None and time_BF is not None:
            gates_NG.unflatten(0, (len(time_BF), -1)).add_((cell.time(time_BF) * self.double_G)[:, None])
        for block in self.blocks(gates_NG):
            seen_P1 = None if seen_N1 is None else seen_N1[block]
            advance(gates_NG[block], self.h_ND[block], self.c_ND[block], seen_P1, cell.peephole_3D)


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
    keep_or_replace(seen_P1, o.mul_(g), h_PD)
    keep_or_replace(seen_P1, c_new, c_PD)


class ConvLSTM(RecurrentStack):
    def __init__(
        self, inputs: int, hidden: Sequence[int], kernel: int = 3, *, peepholes: bool = False, forget_bias: float = 1.0,
        time_features: int = 0, dropout: float = 0.0, axes: int = 2,
    ):  # fmt: skip
        cell = partial(ConvLSTMCell, peepholes=peepholes, forget_bias=forget_bias, time_features=time_features, axes=axes)
        cells = (cell(before, after, kernel) for before, after in pairwise([inputs, *hidden]))
        super().__init__(cells, dropout)
