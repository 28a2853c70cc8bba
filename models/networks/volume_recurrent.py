"""3-D CNN-RNN, -LSTM, -GRU: `models.networks.cnn_recurrent` with an encoder of 3-D convolutions, for series of volumes.

Tran et al. 2015, arXiv:1412.0767 (3-D convolutions); Donahue et al. 2015, arXiv:1411.4389 (recurrent layers over encoded frames).

Shapes as in `models.blocks.sequence`, with a depth: x_BTCDHW -> vectors_BTE -> features_BTD.
"""

from dataclasses import dataclass, field

from models.networks.cnn_recurrent import CNNRecurrent, CNNRecurrentConfig


@dataclass(frozen=True)
class VolumeRecurrentConfig(CNNRecurrentConfig):
    """`kind`: volume_rnn, volume_lstm or volume_gru."""

    depth: int = field(kw_only=True)  # slices


class VolumeRecurrent(CNNRecurrent):
    config: VolumeRecurrentConfig
    axes = 3

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(C, D, H, W)."""
        return self.config.bands, self.config.depth, self.config.height, self.config.width
