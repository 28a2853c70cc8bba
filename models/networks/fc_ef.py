"""FC-EF: two dates stacked as the bands of one image, and a U-Net (early fusion).

Daudt, Le Saux & Boulch 2018, arXiv:1810.08462, Figure 1a. Differences: the coarsest scale is not pooled once more, sizes
double by repetition instead of transposed convolution, and the norm is over channels (see `models.blocks.change`).

Shapes: B batch, T = 2 dates, C bands, H rows, W columns.
"""

from dataclasses import asdict

import torch
from torch import Tensor

from models.blocks.change import ChangeNetwork, Decoder, Encoder, NetworkConfig, padded, pair_frames
from models.contract import Description


class FCEF(ChangeNetwork):
    """See the module's docstring. Works on images of any size; windows must start at multiples of `stride_px`."""

    def __init__(self, config: NetworkConfig):
        super().__init__(config)
        self.encoder = Encoder(2 * config.bands + 1, config.widths, config.dropout)
        self.decoder = Decoder(config.widths, config.widths, config.dropout)

    def encoder_passes(self, dates: int) -> int:
        """1: both dates are one image."""
        return 1

    def describe(self) -> Description:
        """See `models.change_networks.rebuild_network`."""
        return {"kind": "fc_ef", **asdict(self.config)}

    def forward(self, x_BTCHW: Tensor, valid_BTHW: Tensor, elapsed_BT: Tensor) -> Tensor:
        """logit_B1HW of change; see `SiameseDCRN.forward` for the arguments. Raises ValueError unless T is 2."""
        first, second, seen = pair_frames(x_BTCHW, valid_BTHW, "fc_ef")
        features = self.encoder(padded(torch.cat([first, second, seen], dim=1), self.stride_px))
        logit_B1HW: Tensor = self.decoder(features)
        return logit_B1HW[..., : x_BTCHW.shape[-2], : x_BTCHW.shape[-1]]
