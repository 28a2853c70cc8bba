"""L-UNet: a U-Net with a ConvLSTM across the dates in every skip, the coarsest scale included.

Papadomanolaki, Verma, Vakalopoulou, Gupta & Karantzalos 2019, "Detecting urban changes with recurrent neural networks from
multitemporal Sentinel-2 data", IGARSS, arXiv:1910.07778, Figure 1. One encoder reads every date; at each scale a ConvLSTM
reads the features of the dates in order, and its last output goes to the decoder. Differences: the norm is over channels, and
sizes double by repetition (see `models.blocks.change`, also for the shapes).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from models.blocks.change import ChangeNetwork, Decoder, Encoder, NetworkConfig
from models.cells.convlstm import ConvLSTM
from models.cells.recurrent_stack import RecurrentStack


@dataclass(frozen=True)
class LUNetConfig(NetworkConfig):
    kernel: int = 3  # of the ConvLSTM, odd


class LUNet(ChangeNetwork):
    kind = "l_unet"
    config: LUNetConfig

    def __init__(self, config: LUNetConfig):
        super().__init__(config)
        self.encoder = Encoder(config.bands + 1, config.widths, config.dropout)
        self.skips = nn.ModuleList(ConvLSTM(width, [width], config.kernel) for width in config.widths)
        self.decoder = Decoder(config.widths, config.widths, config.dropout)

    def lateral_cells(self, dates: int) -> int:
        """Radius in cells: each date adds one convolution at every scale."""
        return (self.config.kernel // 2) * dates

    def lateral_layers(self) -> Sequence[RecurrentStack]:
        return [layer for layer in self.skips if isinstance(layer, RecurrentStack)]

    def features(self, x_BTCHW: Tensor, valid_BTHW: Tensor) -> Sequence[Tensor]:
        return self.read_dates(x_BTCHW, valid_BTHW)
