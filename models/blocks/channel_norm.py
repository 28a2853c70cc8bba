"""Normalisation over the channels of each pixel: it has no size of the image in it and does not let pixels see each other."""

import torch
from torch import Tensor, nn

SMALLEST_VARIANCE = 1e-5


class ChannelNorm(nn.Module):
    """Mean 0 and variance 1 over each of the `groups` of a pixel's channels, then a learnt scale and bias per channel.

    Layer normalisation (Ba et al. 2016, arXiv:1607.06450) with a pixel as the layer. The usual LayerNorm over (C, H, W) fixes
    the size of the image, GroupNorm takes statistics of the whole image, BatchNorm of the batch: tiles would differ from the
    whole, or samples depend on their neighbours. It has as many parameters as the last two.
    """

    def __init__(self, channels: int, groups: int = 1):
        super().__init__()
        if channels % groups:
            raise ValueError(f"{groups} groups do not divide {channels} channels")
        self.groups = groups
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        grouped = x_BCHW.unflatten(1, (self.groups, -1))
        centred = grouped - grouped.mean(dim=2, keepdim=True)
        variance = centred.square().mean(dim=2, keepdim=True)  # torch.var_mean over this axis is several times slower on a CPU
        normal_BCHW = (centred * torch.rsqrt(variance + SMALLEST_VARIANCE)).flatten(1, 2)
        scale, bias = (values[(..., *[None] * (x_BCHW.ndim - 2))] for values in (self.weight, self.bias))
        scaled: Tensor = normal_BCHW * scale + bias
        return scaled
