"""Boxes in every frame: an encoder of frames, a convolutional recurrent layer at a quarter of the side, maps of centre points.

Zhou et al. 2019, "Objects as Points", arXiv:1904.07850 (`models.blocks.centre_points`), with a recurrence over the frames:
ConvGRU, ConvLSTM or DCRN (`models.networks.conv_recurrent`), or none (`centre_frame`): each frame alone.
The encoder has a convolution of 3 with GroupNorm at each scale; scales coarser than a quarter are brought back by repetition
and added (Lin et al. 2017, "Feature pyramid networks", arXiv:1612.03144, section 3), so that a cell sees all of a large object.

Shapes as in `models.blocks.sequence` and `models.blocks.centre_points`; x_BTCHW -> h_BTDHW of (H / 4, W / 4) -> y_BTDHW of
K + 4 channels; an odd side is rounded up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.blocks.centre_points import GEOMETRY, PRIOR
from models.blocks.sequence import SequenceConfig, SequenceNetwork, pooled
from models.cells.recurrent_stack import RecurrentStack, read_both_ways
from models.contract import layer_flops, over_space
from models.networks.conv_recurrent import STACKS

QUARTER = 2  # the scale of the cells: 2 ** QUARTER is their STRIDE
PREFIX = "centre_"


@dataclass(frozen=True)
class CentrePointConfig(SequenceConfig):
    """`kind`: centre_convgru, centre_convlstm, centre_dcrn or centre_frame. `outputs`: classes."""

    per_step: bool = True
    widths: tuple[int, ...] = (16, 32, 32, 64)  # channels of each scale, finest first; at least three
    kernel: int = 3  # of the recurrent layer, odd
    bidirectional: bool = False
    detach_every: int = 0  # steps after which the gradient is cut; 0: never
    checkpointed: bool = False  # compute every step again in the backward pass: less memory, a third more time


class PyramidEncoder(nn.Module):
    """maps_NDHW of the quarter of the side, D = widths[QUARTER], for images x_NCHW."""

    def __init__(self, inputs: int, widths: Sequence[int]):
        super().__init__()
        before = [inputs, *widths[:-1]]
        self.layers = nn.ModuleList(nn.Conv2d(before[i], width, 3, padding=1) for i, width in enumerate(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for width in widths)
        self.laterals = nn.ModuleList(nn.Conv2d(width, widths[QUARTER], 1) for width in widths[QUARTER + 1 :])
        self.smooth = nn.Conv2d(widths[QUARTER], widths[QUARTER], 3, padding=1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        scales = []
        for scale, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            x_NCHW = x_NCHW if scale == 0 else nn.functional.max_pool2d(x_NCHW, 2, ceil_mode=True)
            x_NCHW = torch.relu(norm(layer(x_NCHW)))
            scales.append(x_NCHW)
        joined_NDHW = scales[QUARTER]
        height, width = joined_NDHW.shape[-2:]
        for n, (coarse, lateral) in enumerate(zip(scales[QUARTER + 1 :], self.laterals, strict=True), start=1):
            enlarged = lateral(coarse).repeat_interleave(2**n, -2).repeat_interleave(2**n, -1)
            joined_NDHW = joined_NDHW + enlarged[..., :height, :width]
        maps_NDHW: Tensor = torch.relu(self.smooth(joined_NDHW))
        return maps_NDHW

    def flops(self, shape_yx: tuple[int, ...]) -> int:
        """Operations for one image."""
        pixels = [math.prod(pooled(shape_yx, scale)) for scale in range(len(self.layers))]
        convolutions = sum(layer_flops(layer, pixels[scale]) for scale, layer in enumerate(self.layers))
        laterals = sum(layer_flops(one, pixels[QUARTER + 1 + i]) for i, one in enumerate(self.laterals))
        return convolutions + laterals + layer_flops(self.smooth, pixels[QUARTER])


class PointHead(nn.Module):
    """y of each map: K logits, which begin at the rate `PRIOR`, and `GEOMETRY` channels."""

    def __init__(self, features: int, classes: int):
        super().__init__()
        self.inner = nn.Conv2d(features, features, 3, padding=1)
        self.outer = nn.Conv2d(features, classes + GEOMETRY, 1)
        if self.outer.bias is not None:
            nn.init.constant_(self.outer.bias[:classes], math.log(PRIOR / (1 - PRIOR)))

    def forward(self, maps: Tensor) -> Tensor:
        y: Tensor = self.outer(torch.relu(self.inner(maps.flatten(0, -4)))).unflatten(0, maps.shape[:-3])
        return y


class CentrePoint(SequenceNetwork):
    config: CentrePointConfig

    def __init__(self, config: CentrePointConfig):
        if len(config.widths) <= QUARTER:
            raise ValueError(f"{config.kind} needs the channels of at least {QUARTER + 1} scales, got widths {config.widths}")
        width = config.widths[QUARTER]
        super().__init__(config, width * (2 if config.bidirectional else 1))
        self.encoder = PyramidEncoder(config.bands, config.widths)
        self.onward = self._recurrent_layer(width)
        self.reverse = self._recurrent_layer(width) if config.bidirectional else None

    def _recurrent_layer(self, width: int) -> RecurrentStack | None:
        recurrence = self.config.kind.removeprefix(PREFIX)
        if recurrence == "frame":
            return None
        stack = STACKS[recurrence](width, [width], self.config.kernel)
        stack.detach_every, stack.checkpointed = self.config.detach_every, self.config.checkpointed
        return stack

    def build_head(self, features: int) -> nn.Module:
        return PointHead(features, self.config.outputs)

    def reading_flops(self, steps: int) -> int:
        cells = math.prod(pooled(self.frame_shape[1:], QUARTER))
        recurrent = sum(layer_flops(stack, cells) for stack in (self.onward, self.reverse) if stack is not None)
        return steps * (self.encoder.flops(self.frame_shape[1:]) + recurrent + layer_flops(self.head, cells))

    def read(self, x_BTCHW: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The maps of every frame, and of the last one."""
        maps_BTDHW: Tensor = self.encoder(x_BTCHW.flatten(0, 1)).unflatten(0, x_BTCHW.shape[:2])
        if self.onward is None:
            return maps_BTDHW, maps_BTDHW[:, -1]
        valid_BT1HW = over_space(valid_BT, 3)
        if self.reverse is not None:
            h_BTDHW = read_both_ways(self.onward, self.reverse, maps_BTDHW, valid_BT1HW)
        else:
            h_BTDHW = self.onward(maps_BTDHW, valid_BT1HW=valid_BT1HW)[0]
        return h_BTDHW, h_BTDHW[:, -1]
