"""A TrajGRU cell and a stack of them: a ConvGRU whose state is read along learnt trajectories; invalid pixels keep theirs.

Equations (Shi et al. 2017, arXiv:1706.03458, eq. 3; `*` convolution, `o` elementwise; `z` and `1 - z` change places, so that z
opens the gate as in `models.cells.conv_gru`):

    U, V = gamma(x, h)                                           flow of each of L links, pixels
    s_l = warp(h, U_l, V_l)                                      h at the place from which link l comes, bilinear
    z = sigmoid(W_z * x + sum_l U_z^l s_l + b_z)                 the products with s_l are 1 x 1
    r = sigmoid(W_r * x + sum_l U_r^l s_l + b_r)
    g = tanh(W_g * x + r o sum_l U_g^l s_l + b_g)
    h' = (1 - z) o h + z o g

gamma has two layers of 5 x 5 convolutions with 32 channels and a leaky ReLU between (section 3.2). Two differences: the paper's
experiments take a leaky ReLU for tanh, and here a flow is bounded to `max_flow` pixels per axis and step, as max_flow
tanh(flow / max_flow), so that the halo is finite.

Shapes as in `models.cells.convlstm`; the state of a layer is (h_BDHW,). L links, A axes of space.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise, product

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor

from models.cells.recurrent_stack import CONVOLUTIONS, LayerState, RecurrentCell, RecurrentStack
from models.contract import over_space

FLOW_KERNEL, FLOW_CHANNELS = 5, 32
SLOPE = 0.2
FLOW_RADIUS = 2 * (FLOW_KERNEL // 2)  # pixels around that a flow depends on


class TrajGRUCell(RecurrentCell):
    def __init__(self, inputs: int, hidden: int, kernel: int = 3, axes: int = 2, *, links: int = 5, max_flow: float = 4.0):
        super().__init__(inputs, hidden, kernel, axes)
        if links < 1 or not max_flow > 0:
            raise ValueError(f"expected at least one link and a positive largest flow, got {links} and {max_flow}")
        self.links, self.max_flow = links, max_flow
        layer = CONVOLUTIONS[axes]
        wide = partial(layer, kernel_size=FLOW_KERNEL, padding=FLOW_KERNEL // 2)
        self.from_input = self.convolution(inputs, 3 * hidden)  # z, r, g
        self.from_links = layer(links * hidden, 3 * hidden, 1, bias=False)
        self.flow_of_input = wide(inputs, FLOW_CHANNELS)
        self.flow_of_state = wide(hidden, FLOW_CHANNELS, bias=False)
        self.flow = wide(FLOW_CHANNELS, links * axes)

    def flow_BLAHW(self, x_BCHW: Tensor, h_BDHW: Tensor) -> Tensor:
        """Pixels from each pixel to where each link comes from, axes in the order (y, x), of volumes (z, y, x)."""
        both = F.leaky_relu(self.flow_of_input(x_BCHW) + self.flow_of_state(h_BDHW), SLOPE)
        flow: Tensor = self.flow(both).unflatten(1, (self.links, self.axes))
        return self.max_flow * torch.tanh(flow / self.max_flow)

    def advance(self, x_BCHW: Tensor, state: LayerState) -> LayerState:
        (h_BDHW,) = state
        linked = self.from_links(warp(h_BDHW, self.flow_BLAHW(x_BCHW, h_BDHW)))
        (z_x, r_x, g_x), (z_h, r_h, g_h) = self.from_input(x_BCHW).chunk(3, dim=1), linked.chunk(3, dim=1)
        z, r = torch.sigmoid(z_x + z_h), torch.sigmoid(r_x + r_h)
        return ((1 - z) * h_BDHW + z * torch.tanh(g_x + r * g_h),)


def warp(h_BDHW: Tensor, flow_BLAHW: Tensor) -> Tensor:
    """(B, L D, H, W): `h` at every pixel plus each flow, linear between pixels along every axis, 0 outside the image.

    As `torch.nn.functional.grid_sample`, but without its coordinates from -1 to 1: these round differently in a tile and in the
    whole, are not exact for a flow of 0, and its gradient on a GPU has no deterministic implementation.
    """
    space, (batch, _, axes) = h_BDHW.shape[2:], flow_BLAHW.shape[:3]
    strides = [math.prod(space[axis + 1 :]) for axis in range(axes)]
    rows_ND = h_BDHW.flatten(2).transpose(1, 2).flatten(0, 1)
    places = torch.meshgrid(*(torch.arange(side, device=h_BDHW.device) for side in space), indexing="ij")
    whole_BLAHW = flow_BLAHW.detach().floor()
    share_BLAHW = flow_BLAHW - whole_BLAHW  # of the way to the next pixel
    low_BLAHW = torch.stack(places) + whole_BLAHW.long()
    first_B = math.prod(space) * over_space(torch.arange(batch, device=h_BDHW.device), axes + 1)
    total_BLHWD = h_BDHW.new_zeros(())
    for corner in product((0, 1), repeat=axes):
        index_BLHW, weight_BLHW = first_B, h_BDHW.new_ones(())
        for axis, upper in enumerate(corner):
            at, share = low_BLAHW[:, :, axis] + upper, share_BLAHW[:, :, axis]
            index_BLHW = index_BLHW + strides[axis] * at.clamp(0, space[axis] - 1)
            weight_BLHW = weight_BLHW * (share if upper else 1 - share) * ((at >= 0) & (at < space[axis]))
        taken_BLHWD = rows_ND.index_select(0, index_BLHW.flatten()).unflatten(0, index_BLHW.shape)
        total_BLHWD = total_BLHWD + taken_BLHWD * weight_BLHW[..., None]
    return total_BLHWD.movedim(-1, 2).flatten(1, 2)


class TrajGRU(RecurrentStack):
    is_in_place = False  # every step goes through autograd's operations

    def __init__(
        self, inputs: int, hidden: Sequence[int], kernel: int = 3, axes: int = 2, *, links: int = 5, max_flow: float = 4.0
    ):
        cell = partial(TrajGRUCell, kernel=kernel, axes=axes, links=links, max_flow=max_flow)
        super().__init__(cell(before, after) for before, after in pairwise([inputs, *hidden]))
