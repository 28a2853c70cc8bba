"""DCRN: blocks of convolution, max pooling and a convolutional recurrent layer; the last state through a dense layer.

The recurrence as the project's users define it (`*` convolution):

    h_t = tanh(W_rc * h_{t-1} + W_cx * x_t + b_c)

or a ConvGRU (Ballas et al. 2016, arXiv:1511.06432) or ConvLSTM (Shi et al. 2015, arXiv:1506.04214) in its place. Bidirectional: a
second layer reads the frames from the last to the first (Schuster & Paliwal 1997), and the channels of both are joined.

Shapes as in `models.blocks.sequence`; per block x_BTCHW -> (B, T, width, H / 2, W / 2) -> h_BTDHW; an odd side is rounded up.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.blocks.sequence import SequenceConfig, SequenceNetwork, pooled
from models.cells.conv_gru import ConvGRU
from models.cells.convlstm import ConvLSTM
from models.cells.dcrn import DCRN
from models.cells.recurrent_stack import RecurrentStack, read_both_ways
from models.contract import layer_flops, over_space

STACKS: dict[str, type[DCRN] | type[ConvGRU] | type[ConvLSTM]] = {"dcrn": DCRN, "convgru": ConvGRU, "convlstm": ConvLSTM}


@dataclass(frozen=True)
class ConvRecurrentConfig(SequenceConfig):
    """`kind`: dcrn, convgru or convlstm."""

    widths: tuple[int, ...] = (16, 32)  # channels of each block
    kernel: int = 3  # of the recurrent layer, odd
    bidirectional: bool = False
    flattened: bool = False  # the dense layer reads the whole last map, not its mean over space
    detach_every: int = 0  # steps after which the gradient is cut; 0: never
    checkpointed: bool = False  # compute every step again in the backward pass: less memory, a third more time


class RecurrentBlock(nn.Module):
    """One block; `forward` gives h_BTDHW, D = width or, bidirectional, 2 width."""

    def __init__(self, inputs: int, width: int, config: ConvRecurrentConfig):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, width, 3, padding=1)
        self.norm = nn.GroupNorm(1, width)
        self.onward = recurrent_layer(width, config)
        self.reverse = recurrent_layer(width, config) if config.bidirectional else None

    def forward(self, x_BTCHW: Tensor, valid_BT1HW: Tensor) -> Tensor:
        maps = torch.relu(self.norm(self.convolution(x_BTCHW.flatten(0, 1))))
        maps_BTDHW = nn.functional.max_pool2d(maps, 2, ceil_mode=True).unflatten(0, x_BTCHW.shape[:2])
        if self.reverse is not None:
            return read_both_ways(self.onward, self.reverse, maps_BTDHW, valid_BT1HW)
        h_BTDHW: Tensor = self.onward(maps_BTDHW, valid_BT1HW=valid_BT1HW)[0]
        return h_BTDHW

    def flops(self, steps: int, pixels: int, pixels_after: int) -> int:
        """Operations for one sample: `pixels` of a frame before the pooling and after it."""
        recurrent = sum(layer_flops(stack, pixels_after) for stack in (self.onward, self.reverse) if stack is not None)
        return steps * (layer_flops(self.convolution, pixels) + recurrent)


def recurrent_layer(width: int, config: ConvRecurrentConfig) -> RecurrentStack:
    stack = STACKS[config.kind](width, [width], config.kernel)
    stack.detach_every, stack.checkpointed = config.detach_every, config.checkpointed
    return stack


class ConvRecurrent(SequenceNetwork):
    config: ConvRecurrentConfig

    def __init__(self, config: ConvRecurrentConfig):
        cells = math.prod(pooled((config.height, config.width), len(config.widths))) if config.flattened else 1
        directions = 2 if config.bidirectional else 1
        super().__init__(config, directions * config.widths[-1] * cells)
        before = [config.bands, *(directions * width for width in config.widths[:-1])]
        self.blocks = nn.ModuleList(RecurrentBlock(before[i], width, config) for i, width in enumerate(config.widths))

    def reading_flops(self, steps: int) -> int:
        pixels = [math.prod(pooled(self.frame_shape[1:], times)) for times in range(len(self.blocks) + 1)]
        blocks = [block for block in self.blocks if isinstance(block, RecurrentBlock)]
        return sum(block.flops(steps, pixels[i], pixels[i + 1]) for i, block in enumerate(blocks))

    def read(self, x_BTCHW: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        valid_BT1HW = over_space(valid_BT, 3)
        for block in self.blocks:
            x_BTCHW = block(x_BTCHW, valid_BT1HW)
        width = self.config.widths[-1]
        last_BDHW = torch.cat([x_BTCHW[:, -1, :width], x_BTCHW[:, 0, width:]], dim=1)  # each direction after its last step
        return self.vectors(x_BTCHW), self.vectors(last_BDHW)

    def vectors(self, maps: Tensor) -> Tensor:
        return maps.flatten(-3) if self.config.flattened else maps.flatten(-2).mean(-1)
