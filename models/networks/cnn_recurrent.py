"""CNN-RNN, CNN-LSTM, CNN-GRU: one convolutional encoder for every frame, recurrent layers over the frames, a dense layer.

Donahue et al. 2015, "Long-term recurrent convolutional networks", arXiv:1411.4389, section 3; the features of a frame are the
mean over space of the last scale (Lin et al. 2013, arXiv:1312.4400), which does not say where something is: what moves needs a
`grid` (or `models.networks.conv_recurrent`).

Shapes as in `models.blocks.sequence`; x_BTCHW -> vectors_BTE -> features_BTD.
"""

from dataclasses import dataclass

from torch import Tensor

from models.blocks.sequence import FrameEncoder, RecurrentConfig, SequenceNetwork


@dataclass(frozen=True)
class CNNRecurrentConfig(RecurrentConfig):
    """`kind`: cnn_rnn, cnn_lstm or cnn_gru."""

    widths: tuple[int, ...] = (16, 32, 64)  # channels of each scale, finest first
    grid: int = 1  # parts of each axis whose means are kept


class CNNRecurrent(SequenceNetwork):
    config: CNNRecurrentConfig

    def __init__(self, config: CNNRecurrentConfig):
        super().__init__(config, config.features)
        self.encoder = FrameEncoder(config.bands, config.widths, self.frame_shape[1:], config.grid)
        self.recurrence = config.recurrence(self.encoder.outputs)

    def reading_flops(self, steps: int) -> int:
        return steps * self.encoder.flops() + self.recurrence.flops(steps)

    def read(self, x_BTCHW: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        each_BTD, last_BD, _ = self.recurrence(self.encoder.each(x_BTCHW), valid_BT)
        return each_BTD, last_BD
