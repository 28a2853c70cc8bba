"""Recurrent layers over the regions of one image in reading order, joined with its global colour and texture.

The image is cut into patches of `patch_px` (the last row and column repeat the edge), a small CNN makes a vector of each, and the
recurrent layers read them row by row: Zuo et al. 2015, "Convolutional recurrent neural networks: learning spatial dependencies
for image representation", CVPR workshops; Visin et al. 2015, "ReNet", arXiv:1505.00393, section 2. Global features of the image:
mean, standard deviation and histogram of each band (Swain & Ballard 1991, "Color indexing"), and mean and standard deviation of
the absolute differences of neighbours along y and x (texture). Several frames are refused.

Shapes as in `models.blocks.sequence`; x_B1CHW -> patches (B, R, C, patch, patch) -> vectors_BRE -> last_BD; R regions; global_BG,
G = C (2 + BINS + 4); a bin's share is linear between the centres of the bins, so the histogram has a gradient.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor, nn

from models.blocks.sequence import FrameEncoder, RecurrentConfig, SequenceNetwork
from models.contract import layer_flops

BINS, REACH = 8, 2.0  # of the histogram: centres from -REACH to REACH standard deviations; what is beyond counts in the last


@dataclass(frozen=True)
class RegionRecurrentConfig(RecurrentConfig):
    """`kind`: region_rnn, region_lstm or region_gru."""

    patch_px: int = 8
    widths: tuple[int, ...] = (16, 32)  # channels of each scale of a patch, finest first
    joined: int = 32  # width of the dense layer over the global features


class RegionRecurrent(SequenceNetwork):
    config: RegionRecurrentConfig

    def __init__(self, config: RegionRecurrentConfig):
        super().__init__(config, config.features + config.joined)
        self.encoder = FrameEncoder(config.bands, config.widths, (config.patch_px, config.patch_px))
        self.recurrence = config.recurrence(config.widths[-1])
        self.whole = nn.Linear(config.bands * (BINS + 6), config.joined)

    @property
    def steps_within(self) -> int:
        return -(-self.config.height // self.config.patch_px) * -(-self.config.width // self.config.patch_px)

    def reading_flops(self, steps: int) -> int:
        whole = layer_flops(self.whole, 0, rows=1)
        return self.steps_within * self.encoder.flops() + self.recurrence.flops(self.steps_within) + whole

    def read(self, x_BTCHW: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        self.require_one_image(x_BTCHW)
        image_BCHW = x_BTCHW[:, 0]
        each_BRD, last_BD, _ = self.recurrence(self.encoder.each(patches_of(image_BCHW, self.config.patch_px)))
        whole_BJ = torch.relu(self.whole(global_features(image_BCHW)))
        wholes_BRJ = whole_BJ[:, None].expand(-1, each_BRD.shape[1], -1)
        return torch.cat([each_BRD, wholes_BRJ], dim=2), torch.cat([last_BD, whole_BJ], dim=1)


def patches_of(image_BCHW: Tensor, patch: int) -> Tensor:
    """(B, R, C, patch, patch), row by row; sides are filled up to multiples of `patch` with the values of the edge."""
    height, width = image_BCHW.shape[-2:]
    padded = F.pad(image_BCHW, (0, -width % patch, 0, -height % patch), mode="replicate")
    return padded.unfold(2, patch, patch).unfold(3, patch, patch).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)


def global_features(image_BCHW: Tensor) -> Tensor:
    """global_BG, band after band: mean, deviation, histogram, and those of the differences along y and x."""
    values_BCP = image_BCHW.flatten(2)
    centre_N = torch.linspace(-REACH, REACH, BINS, dtype=image_BCHW.dtype, device=image_BCHW.device)
    distance_BCPN = (values_BCP.clamp(-REACH, REACH)[..., None] - centre_N).abs() * (BINS - 1) / (2 * REACH)
    histogram_BCN = (1 - distance_BCPN).clamp(min=0).mean(2)
    slopes = [image_BCHW.diff(dim=axis).abs().flatten(2) for axis in (2, 3)]
    parts = [statistics_of(values_BCP), histogram_BCN, *(statistics_of(slope) for slope in slopes)]
    return torch.cat(parts, dim=2).flatten(1)


def statistics_of(values_BCP: Tensor) -> Tensor:
    """(B, C, 2): mean and standard deviation; the deviation of a constant is 0 and has a gradient."""
    mean_BC1 = values_BCP.mean(2, keepdim=True)
    variance_BC1 = (values_BCP - mean_BC1).square().mean(2, keepdim=True)
    return torch.cat([mean_BC1, (variance_BC1 + 1e-6).sqrt() - 1e-3], dim=2)
