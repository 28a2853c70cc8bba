"""L-UNet: a U-Net with a ConvLSTM across the dates in every skip, the coarsest scale included.

Papadomanolaki, Verma, Vakalopoulou, Gupta & Karantzalos 2019, "Detecting urban changes with recurrent neural networks from
multitemporal Sentinel-2 data", IGARSS, arXiv:1910.07778, Figure 1. One encoder reads every date; at each scale a ConvLSTM
reads the features of the dates in order, and its last output goes to the decoder. Differences: the norm is over channels, and
sizes double by repetition (see `models.blocks.change`).

Cells without valid pixels keep their state: a date without valid pixels has no effect. The days between the dates are not
used: with few labelled sites they would identify the site.

Shapes: B batch, T >= 2 dates, C bands, H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from models.blocks.change import ChangeNetwork, Decoder, Encoder, NetworkConfig, padded, seen_by_scale, series_frames
from models.cells.convlstm import ConvLSTM
from models.contract import Description


@dataclass(frozen=True)
class LUNetConfig(NetworkConfig):
    """What is needed to rebuild the network."""

    kernel: int = 3  # of the ConvLSTM, odd


class LUNet(ChangeNetwork):
    """See the module's docstring. Works on images of any size; windows must start at multiples of `stride_px`."""

    config: LUNetConfig

    def __init__(self, config: LUNetConfig):
        super().__init__(config)
        self.encoder = Encoder(config.bands + 1, config.widths, config.dropout)
        self.skips = nn.ModuleList(ConvLSTM(width, [width], config.kernel) for width in config.widths)
        self.decoder = Decoder(config.widths, config.widths, config.dropout)

    def lateral_cells(self, dates: int) -> int:
        """Radius in cells: each date adds one convolution at every scale."""
        return (self.config.kernel // 2) * dates

    def lateral_layers(self) -> Sequence[nn.Module]:
        """One ConvLSTM per scale."""
        return tuple(self.skips)

    def describe(self) -> Description:
        """See `models.change_networks.rebuild_network`."""
        return {"kind": "l_unet", **asdict(self.config)}

    def forward(self, x_BTCHW: Tensor, valid_BTHW: Tensor, elapsed_BT: Tensor) -> Tensor:
        """logit_B1HW of change between the first and the last date; see `SiameseDCRN.forward` for the arguments.

        Raises ValueError for fewer than two dates.
        """
        frames_BTEHW = padded(series_frames(x_BTCHW, valid_BTHW, "l_unet"), self.stride_px)
        skips: list[Any] = list(self.skips)
        scales = range(len(skips))
        ends: list[Any] = [None for _ in scales]
        states: list[Any] = [None for _ in scales]
        for t in range(frames_BTEHW.shape[1]):
            features = self.encoder(frames_BTEHW[:, t])
            seen = seen_by_scale(frames_BTEHW[:, t, -1:], len(scales))
            for s in scales:
                ends[s], states[s] = skips[s].step(features[s], states[s], valid_B1HW=seen[s])
        logit_B1HW: Tensor = self.decoder(ends)
        return logit_B1HW[..., : x_BTCHW.shape[-2], : x_BTCHW.shape[-1]]
