"""Siamese DCRN: one encoder for every date, a recurrent layer across the dates at every scale, a decoder to full resolution.

The recurrence over convolutional features is that of ReCNN (Mou, Bruzzone & Zhu 2018, arXiv:1803.02642) and SiamCRNN (Chen, Wu,
Du & Zhang 2019, arXiv:1908.06632): there a patch gives one vector per date and one decision, so their recurrent layer is fully
connected; here every cell of every scale is such a vector, which is the same layer as a 1 x 1 convolution
(`kernel` 1, the default), and the decoder joins the scales. With `kernel` 3 the states of adjacent cells are read too.

The recurrent layer is a ConvLSTM, a ConvGRU or the DCRN layer. Shapes as in `models.blocks.change`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from models.blocks.change import ChangeNetwork, Decoder, Encoder, NetworkConfig
from models.cells.conv_gru import ConvGRU
from models.cells.convlstm import ConvLSTM
from models.cells.dcrn import DCRN
from models.cells.recurrent_stack import RecurrentStack


@dataclass(frozen=True)
class SiameseDCRNConfig(NetworkConfig):
    recurrence: str = "convlstm"  # "convlstm" | "convgru" | "dcrn"
    kernel: int = 1  # of the recurrent layer, odd


class SiameseDCRN(ChangeNetwork):
    kind = "siamese_dcrn"
    config: SiameseDCRNConfig

    def __init__(self, config: SiameseDCRNConfig):
        super().__init__(config)
        self.encoder = Encoder(config.bands + 1, config.widths, config.dropout)
        self.recurrences = nn.ModuleList(recurrent_layer(config.recurrence, width, config.kernel) for width in config.widths)
        self.decoder = Decoder(config.widths, config.widths, config.dropout)

    def lateral_cells(self, dates: int) -> int:
        """Radius in cells of a layer's last output in the first date; with `kernel` 1 independent of `dates`.

        Every date adds one convolution; two for a GRU, whose candidate reads the states selected by its reset gate, except the
        first date, before which there is no state.
        """
        return (self.config.kernel // 2) * (2 * dates - 1 if self.config.recurrence == "convgru" else dates)

    def lateral_layers(self) -> Sequence[RecurrentStack]:
        return [layer for layer in self.recurrences if isinstance(layer, RecurrentStack)]

    def features(self, x_BTCHW: Tensor, valid_BTHW: Tensor) -> Sequence[Tensor]:
        return self.read_dates(x_BTCHW, valid_BTHW)


def recurrent_layer(kind: str, width: int, kernel: int) -> RecurrentStack:
    """One layer of `width` channels in and out. Raises ValueError for an unknown kind."""
    match kind:
        case "convlstm":
            return ConvLSTM(width, [width], kernel)
        case "convgru":
            return ConvGRU(width, [width], kernel)
        case "dcrn":
            return DCRN(width, [width], kernel)
    raise ValueError(f"expected the recurrence 'convlstm', 'convgru' or 'dcrn', got {kind!r}")
