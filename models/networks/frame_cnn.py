"""The reference without memory: one convolutional encoder for every frame, the mean over the valid frames of the frames' logits.

Karpathy et al. 2014, "Large-scale video classification with convolutional neural networks", CVPR, section 3 ("single-frame"). The
order of the frames has no effect. With `per_step` each frame has its own logits.

Shapes as in `models.blocks.sequence`; x_BTCHW -> vectors_BTD -> their mean_BD: the head is linear, so this is the logits' mean.
"""

from dataclasses import dataclass

from torch import Tensor

from models.blocks.sequence import FrameEncoder, SequenceConfig, SequenceNetwork


@dataclass(frozen=True)
class FrameCNNConfig(SequenceConfig):
    """`kind`: frame_cnn."""

    widths: tuple[int, ...] = (16, 32, 64)  # channels of each scale, finest first
    grid: int = 1  # parts of each axis whose means are kept


class FrameCNN(SequenceNetwork):
    config: FrameCNNConfig

    def __init__(self, config: FrameCNNConfig):
        super().__init__(config, config.widths[-1] * config.grid**2)
        self.encoder = FrameEncoder(config.bands, config.widths, self.frame_shape[1:], config.grid)

    def reading_flops(self, steps: int) -> int:
        return steps * self.encoder.flops()

    def read(self, x_BTCHW: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        each_BTD = self.encoder.each(x_BTCHW)
        seen_BT1 = valid_BT[..., None].to(each_BTD.dtype)
        return each_BTD, (each_BTD * seen_BT1).sum(1) / seen_BT1.sum(1).clamp(min=1)
