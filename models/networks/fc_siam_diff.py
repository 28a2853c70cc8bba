"""FC-Siam-diff: one encoder for both dates; the decoder gets the absolute difference of their features at every scale.

Daudt, Le Saux & Boulch 2018, arXiv:1810.08462, Figure 1c. Differences: the coarsest scale is compared too (there the decoder
starts from the second date's features alone), so the output is symmetric in the dates; it is not pooled once more, sizes
double by repetition, and the norm is over channels (see `models.blocks.change`).

Shapes: B batch, T = 2 dates, C bands, H rows, W columns.
"""

from dataclasses import asdict

import torch
from torch import Tensor

from models.blocks.change import ChangeNetwork, Decoder, Encoder, NetworkConfig, padded, pair_frames
from models.contract import Description


class FCSiamDiff(ChangeNetwork):
    """See the module's docstring. Works on images of any size; windows must start at multiples of `stride_px`."""

    def __init__(self, config: NetworkConfig):
        super().__init__(config)
        self.encoder = Encoder(config.bands + 1, config.widths, config.dropout)
        self.decoder = Decoder(config.widths, config.widths, config.dropout)

    def describe(self) -> Description:
        """See `models.change_networks.rebuild_network`."""
        return {"kind": "fc_siam_diff", **asdict(self.config)}

    def forward(self, x_BTCHW: Tensor, valid_BTHW: Tensor, elapsed_BT: Tensor) -> Tensor:
        """logit_B1HW of change; see `SiameseDCRN.forward` for the arguments. Raises ValueError unless T is 2."""
        first, second, seen = pair_frames(x_BTCHW, valid_BTHW, "fc_siam_diff")
        features = [self.encoder(padded(torch.cat([x, seen], dim=1), self.stride_px)) for x in (first, second)]
        compared = [(one - other).abs() for one, other in zip(*features, strict=True)]
        logit_B1HW: Tensor = self.decoder(compared)
        return logit_B1HW[..., : x_BTCHW.shape[-2], : x_BTCHW.shape[-1]]
