"""A model of binary images: one network gives the probability of every pixel, given those before it (`models.blocks.pixels`).

The network corrects the logit of the mean training image, `base_HW`, and is built so that it begins there.

Shapes: B images, H rows, W columns; x is 0 or 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from models.blocks.pixels import PixelNetwork, PixelState
from models.checkpoint import Checkpoint
from models.contract import Description, Ensemble, seeded
from models.networks.masked_row_lstm import MaskedRowLSTM, MaskedRowLSTMConfig
from models.networks.pixel_rnn import PixelRNN, PixelRNNConfig

KINDS = ("masked_row_lstm", "pixel_rnn")


class PixelModel(Ensemble):
    """See the module's docstring."""

    base_HW: Tensor

    def __init__(self, members: Sequence[PixelNetwork]):
        super().__init__(members)
        if len(members) != 1:
            raise ValueError(f"expected one network, got {len(members)}: a mean of several has no order of pixels")
        self.register_buffer("base_HW", torch.zeros(self.size))

    @property
    def network(self) -> PixelNetwork:
        network = self.members[0]
        assert isinstance(network, PixelNetwork)
        return network

    def describe(self) -> Description:
        return {"members": self.describe_members()}

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns) of its images."""
        return self.network.config.height, self.network.config.width

    def set_base(self, p_HW: Tensor) -> None:
        """The share of training images in which each pixel is 1, above 0 and below 1. Raises ValueError."""
        if tuple(p_HW.shape) != self.size or not bool(((p_HW > 0) & (p_HW < 1)).all()):
            raise ValueError(f"expected shares between 0 and 1 of {self.size[0]} x {self.size[1]} pixels")
        self.base_HW.copy_(torch.logit(p_HW))

    def compute_member(self, i: int, batch: dict[str, Tensor]) -> Tensor:
        """For training: logit_BHW of `x_HW` with a leading B."""
        logit_BHW: Tensor = self.members[i](batch["x_HW"]) + self.base_HW
        return logit_BHW

    @torch.no_grad()
    def nats(self, x_BHW: Tensor) -> Tensor:
        """nats_B float64: minus the natural logarithm of the probability of each image."""
        return image_nats(self.compute_member(0, {"x_HW": x_BHW}), x_BHW)

    def start(self, x_BHW: Tensor) -> PixelState:
        """The state before the first pixel."""
        return self.network.start(x_BHW)

    @torch.no_grad()
    def logit_at(self, x_BHW: Tensor, y: int, x: int, state: PixelState) -> tuple[Tensor, PixelState]:
        """(logit_B of the pixel in row y and column x, state for the next pixel in raster order)."""
        logit_B, after = self.network.logit_at(x_BHW, y, x, state)
        return logit_B + self.base_HW[y, x], after


def image_nats(logit_BHW: Tensor, x_BHW: Tensor) -> Tensor:
    """nats_B float64 of images whose pixels have these logits of being 1."""
    return binary_cross_entropy_with_logits(logit_BHW, x_BHW, reduction="none").double().sum(dim=(1, 2))


def nats_per_image(logit_BHW: Tensor, target_BHW: Tensor, weight_B: Tensor) -> Tensor:
    """The loss: the weighted mean over images of -log p(x), a sum over pixels.

    >>> nats_per_image(torch.zeros(1, 1, 4), torch.ones(1, 1, 4), torch.ones(1)).item() / 4  # log 2
    0.6931471824645996
    """
    each_B = binary_cross_entropy_with_logits(logit_BHW, target_BHW, reduction="none").sum(dim=(1, 2))
    return (each_B * weight_B).sum() / weight_B.sum()


def build_pixel_model(description: Description, seed: int) -> PixelModel:
    """An untrained model, determined by the arguments alone."""
    return PixelModel([seeded(seed, lambda: rebuild_network(description))])


def rebuild_network(description: Description) -> PixelNetwork:
    """An untrained network from its `describe`. Raises ValueError, TypeError or KeyError."""
    match description["kind"]:
        case "masked_row_lstm":
            return MaskedRowLSTM(MaskedRowLSTMConfig(**description))
        case "pixel_rnn":
            return PixelRNN(PixelRNNConfig(**description))
    raise ValueError(f"expected one of {', '.join(KINDS)}, got the network {description['kind']!r}")


def rebuild_pixel_model(description: Description) -> PixelModel:
    return PixelModel([rebuild_network(member) for member in description["members"]])


PIXEL_MODEL = Checkpoint[PixelModel]("pixel-model", rebuild_pixel_model)
