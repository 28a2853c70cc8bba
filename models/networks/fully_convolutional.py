"""FC-EF, FC-Siam-conc and FC-Siam-diff: U-Nets for two dates (Daudt, Le Saux & Boulch 2018, arXiv:1810.08462, Figure 1a-c).

Differences: the Siamese ones concatenate or compare the coarsest scale too (there the decoder starts from the second date's
features alone), so that FC-Siam-diff is symmetric in the dates; the coarsest scale is not pooled once more; sizes double by
repetition instead of transposed convolution; the norm is over channels (see `models.blocks.change`, also for the shapes).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.blocks.change import ChangeNetwork, Decoder, Encoder, NetworkConfig, pair_frames


class FCEF(ChangeNetwork):
    """Early fusion: two dates stacked as the bands of one image."""

    kind = "fc_ef"

    def __init__(self, config: NetworkConfig):
        super().__init__(config)
        self.encoder = Encoder(2 * config.bands + 1, config.widths, config.dropout)
        self.decoder = Decoder(config.widths, config.widths, config.dropout)

    def encoder_passes(self, dates: int) -> int:
        return 1

    def features(self, x_BTCHW: Tensor, valid_BTHW: Tensor) -> Sequence[Tensor]:
        features: list[Tensor] = self.encoder(torch.cat(pair_frames(x_BTCHW, valid_BTHW, self.kind), dim=1))
        return features


class FCSiamConc(ChangeNetwork):
    """One encoder for both dates; the decoder gets the features of both at every scale."""

    kind = "fc_siam_conc"

    def __init__(self, config: NetworkConfig):
        super().__init__(config)
        self.encoder = Encoder(config.bands + 1, config.widths, config.dropout)
        self.decoder = Decoder([2 * width for width in config.widths], config.widths, config.dropout)

    def features(self, x_BTCHW: Tensor, valid_BTHW: Tensor) -> Sequence[Tensor]:
        return [torch.cat(both, dim=1) for both in features_of_pair(self, x_BTCHW, valid_BTHW)]


class FCSiamDiff(ChangeNetwork):
    """One encoder for both dates; the decoder gets the absolute difference of their features at every scale."""

    kind = "fc_siam_diff"

    def __init__(self, config: NetworkConfig):
        super().__init__(config)
        self.encoder = Encoder(config.bands + 1, config.widths, config.dropout)
        self.decoder = Decoder(config.widths, config.widths, config.dropout)

    def features(self, x_BTCHW: Tensor, valid_BTHW: Tensor) -> Sequence[Tensor]:
        return [(one - other).abs() for one, other in features_of_pair(self, x_BTCHW, valid_BTHW)]


def features_of_pair(network: ChangeNetwork, x_BTCHW: Tensor, valid_BTHW: Tensor) -> list[tuple[Tensor, Tensor]]:
    first, second, seen = pair_frames(x_BTCHW, valid_BTHW, network.kind)
    return list(zip(*(network.encoder(torch.cat([x, seen], dim=1)) for x in (first, second)), strict=True))
