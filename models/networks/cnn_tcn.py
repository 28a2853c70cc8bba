"""An encoder for every frame, then residual blocks of dilated causal convolutions over time.

Bai, Kolter and Koltun 2018, "An empirical evaluation of generic convolutional and recurrent networks for sequence modeling",
arXiv:1803.01271, section 3, without its weight normalisation and its dropout within blocks; block i looks back 2 (kernel - 1) 2^i
steps. Masked steps are taken out before the convolutions. Shapes as in `models.blocks.sequence`; x_BTCHW -> each_BTD -> y_BTD.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.blocks.sequence import FrameEncoder, SequenceConfig, SequenceNetwork
from models.contract import layer_flops


@dataclass(frozen=True)
class CNNTCNConfig(SequenceConfig):
    """`kind`: cnn_tcn."""

    widths: tuple[int, ...] = (16, 32)  # channels of each scale, finest first
    hidden: int = 64
    layers: int = 2
    kernel: int = 3
    grid: int = 1


class CNNTCN(SequenceNetwork):
    config: CNNTCNConfig

    def __init__(self, config: CNNTCNConfig):
        super().__init__(config, features=config.hidden)
        self.encoder = FrameEncoder(config.bands, config.widths, self.frame_shape[1:], config.grid)
        inputs = [self.encoder.outputs] + [config.hidden] * (config.layers - 1)
        self.blocks = nn.ModuleList(CausalBlock(n, config.hidden, config.kernel, 2**i) for i, n in enumerate(inputs))

    def reading_flops(self, steps: int) -> int:
        return steps * self.encoder.flops() + sum(block.flops(steps) for block in self.blocks if isinstance(block, CausalBlock))

    def read(self, x_BTCHW: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        each_BTD = self.encoder.each(x_BTCHW)
        first_BT = torch.argsort((~valid_BT).int(), dim=1, stable=True)  # valid steps first, in their order
        y_BDT = _taken(each_BTD, first_BT).transpose(1, 2)
        for block in self.blocks:
            y_BDT = block(y_BDT)
        held_BT = (valid_BT.cumsum(1) - 1).clamp(min=0)
        y_BTD = _taken(y_BDT.transpose(1, 2), held_BT)
        return y_BTD, y_BTD[:, -1]


class CausalBlock(nn.Module):
    """Twice a causal convolution and ReLU; added to the input (1 x 1 convolution where the widths differ)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int):
        super().__init__()
        self.past = (kernel - 1) * dilation
        self.across: nn.Module = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.first = nn.Conv1d(inputs, outputs, kernel, dilation=dilation)
        self.second = nn.Conv1d(outputs, outputs, kernel, dilation=dilation)

    def forward(self, x_BDT: Tensor) -> Tensor:
        y_BDT = x_BDT
        for layer in (self.first, self.second):
            y_BDT = torch.relu(layer(nn.functional.pad(y_BDT, (self.past, 0))))
        across_BDT: Tensor = self.across(x_BDT)
        return torch.relu(y_BDT + across_BDT)

    def flops(self, steps: int) -> int:
        return sum(layer_flops(layer, steps) for layer in (self.first, self.second, self.across) if isinstance(layer, nn.Conv1d))


def _taken(x_BTD: Tensor, index_BT: Tensor) -> Tensor:
    return x_BTD.gather(1, index_BT[..., None].expand(-1, -1, x_BTD.shape[-1]))
