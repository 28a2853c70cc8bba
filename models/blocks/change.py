"""The parts of the change networks: paired input, encoder, decoder, and the radius of the receptive field.

Every part works on images of any size and does not depend on the tile: convolutions with zero padding, max pooling by 2,
nearest upsampling by 2, no statistics over pixels. So a window that starts at multiples of `stride_px` and has the halo of
`receptive_radius` gives the same numbers as the whole image.

Features are normalised over the channels of each pixel (`PixelNorm`). Group, instance and layer norm over pixels use
statistics of the tile. Batch norm uses those of few windows from few cities, half of them around change, which do not hold in
another city, and differ between training and prediction. Without a norm 200 steps of FC-EF left a higher training loss.

Of volumes the convolutions are 3 x 3 x 3, and sizes halve and double in the plane of a slice alone: slices are few and thick.

Shapes: B batch, T dates, C bands, H rows, W columns, E input channels of an encoder, D channels of a scale.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor, nn

from models.cells.recurrent_stack import CONVOLUTIONS as CONVOLUTION_OF
from models.cells.recurrent_stack import DROPOUTS, RecurrentStack, State
from models.contract import Description, Network, layer_flops, over_space

CONVOLUTIONS = 2  # 3 x 3, per scale on the way down and per scale on the way up
NORM_FLOOR = 1e-3  # added to the mean square, so that values near 0 are not amplified
CHANGED_PRIOR = 0.05  # probability that an untrained network gives to change (Lin et al. 2017, arXiv:1708.02002, section 3.3)


@dataclass(frozen=True)
class NetworkConfig:
    """What every change network needs to be rebuilt."""

    bands: int
    widths: tuple[int, ...] = (16, 32, 64)  # channels of each scale, finest first
    dropout: float = 0.1


class UNetShaped(Network):
    """A network of `Encoder` and `Decoder` with `scales` scales, and layers of a radius of `lateral_cells` between them."""

    @property
    @abstractmethod
    def scales(self) -> int: ...

    @property
    def axes(self) -> int:
        """Of space: 2, or 3 of volumes."""
        return 2

    @property
    def stride_px(self) -> tuple[int, ...]:
        return *(1,) * (self.axes - 2), *(2 ** (self.scales - 1),) * 2

    def halo_px(self, steps: int) -> tuple[int, ...]:
        """Radius of the receptive field for a series of `steps` dates, a multiple of `stride_px`."""
        lateral = self.lateral_cells(steps)
        across = CONVOLUTIONS * (2 * self.scales - 1) + lateral  # slices, which no scale halves
        return *(across,) * (self.axes - 2), *(receptive_radius(self.scales, lateral),) * 2

    def lateral_cells(self, dates: int) -> int:
        """Radius, in cells of a scale, of the layers between encoder and decoder; 0: there are none."""
        return 0

    def padded_pixels(self, shape: Sequence[int]) -> int:
        """Pixels of a window, sides rounded up to multiples of `stride_px`."""
        return math.prod(side + -side % stride for side, stride in zip(shape, self.stride_px, strict=True))


class ChangeNetwork(UNetShaped):
    """What all change networks share: encoder, perhaps layers between the dates at every scale, decoder. Works on images of any
    size; windows must start at multiples of `stride_px`. A network has a `kind` and its own `features`.
    """

    kind: ClassVar[str]
    encoder: "Encoder"
    decoder: "Decoder"

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config

    @abstractmethod
    def features(self, x_BTCHW: Tensor, valid_BTHW: Tensor) -> Sequence[Tensor]:
        """The decoder's input, finest scale first, from dates whose height and width are multiples of `stride_px`."""

    def forward(self, x_BTCHW: Tensor, valid_BTHW: Tensor, elapsed_BT: Tensor) -> Tensor:
        """logit_B1HW of change between the first and the last date, float32.

        `x_BTCHW` float32, normalised per site, ignored where `valid_BTHW` (bool) is False. `elapsed_BT`, days since the previous
        date, is not used: with few labelled sites it would identify the site. Raises ValueError for a wrong number of dates.
        """
        features = self.features(padded(x_BTCHW, self.stride_px), padded(valid_BTHW, self.stride_px))
        logit_B1HW: Tensor = self.decoder(features)
        return logit_B1HW[..., : x_BTCHW.shape[-2], : x_BTCHW.shape[-1]]

    def describe(self) -> Description:
        """See `models.change_detector.rebuild_network`."""
        return {"kind": self.kind, **asdict(self.config)}

    @property
    def scales(self) -> int:
        return len(self.config.widths)

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        """Operations for `shape` (B, T, C, H, W): the encoder for every date, the layers between, and the decoder once."""
        batch, dates, pixels = *shape[:2], self.padded_pixels(shape[-2:])
        lateral = sum(layer_flops(layer, pixels >> 2 * s) for s, layer in enumerate(self.lateral_layers()))
        return batch * (self.encoder_passes(dates) * self.encoder.flops(pixels) + dates * lateral + self.decoder.flops(pixels))

    def encoder_passes(self, dates: int) -> int:
        """Number of calls of the encoder for a series of `dates`."""
        return dates

    def lateral_layers(self) -> Sequence[RecurrentStack]:
        """The layers between encoder and decoder, applied to every date, finest scale first."""
        return ()

    def read_dates(self, x_BTCHW: Tensor, valid_BTHW: Tensor) -> list[Tensor]:
        """The output h_BDHW of the lateral layer of every scale after the last date; each date goes through the encoder first.

        The frames are the bands, 0 where invalid, and the validity. Cells without valid pixels keep their state: a date without
        valid pixels has no effect. Without gradients one date is in memory at a time. Raises ValueError for fewer than two dates.
        """
        if x_BTCHW.shape[1] < 2:
            raise ValueError(f"{self.kind} needs at least 2 dates to compare, got {x_BTCHW.shape[1]}")
        layers = self.lateral_layers()
        states: dict[int, State] = {}
        for x_BCHW, valid_BHW in zip(x_BTCHW.unbind(1), valid_BTHW.unbind(1), strict=True):
            seen_B1HW = valid_BHW[:, None]
            frame_BEHW = torch.cat([torch.where(seen_B1HW, x_BCHW, 0), seen_B1HW.to(x_BCHW.dtype)], dim=1)
            features, seen = self.encoder(frame_BEHW), seen_by_scale(frame_BEHW[:, -1:], len(layers))
            for s, layer in enumerate(layers):
                _, states[s] = layer.step(features[s], states.get(s), valid_B1HW=seen[s])
        return [states[s][-1][0] for s in range(len(layers))]


class PixelNorm(nn.Module):
    """Root mean square norm over the channels of each pixel (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4), with a learnt gain
    and bias per channel. Independent of other pixels and samples, and the same in training and prediction.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gain_D = nn.Parameter(torch.ones(channels))
        self.bias_D = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BDHW: Tensor) -> Tensor:
        scale_B1HW = torch.rsqrt(x_BDHW.square().mean(dim=1, keepdim=True) + NORM_FLOOR)
        axes = x_BDHW.ndim - 2
        return x_BDHW * scale_B1HW * over_space(self.gain_D, axes) + over_space(self.bias_D, axes)


class ConvolutionBlock(nn.Module):
    """`CONVOLUTIONS` times 3 x 3 (x 3) convolution, norm and ReLU, then spatial dropout."""

    def __init__(self, inputs: int, outputs: int, dropout: float, axes: int = 2):
        super().__init__()
        widths, convolution = [inputs, *[outputs] * CONVOLUTIONS], CONVOLUTION_OF[axes]
        self.layers = nn.ModuleList(convolution(widths[i], outputs, 3, padding=1) for i in range(CONVOLUTIONS))
        for name, parameter in self.layers.named_parameters():  # He et al. 2015, arXiv:1502.01852, for a ReLU after a convolution
            if name.endswith("weight"):
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            else:
                nn.init.zeros_(parameter)
        self.norms = nn.ModuleList(PixelNorm(outputs) for _ in range(CONVOLUTIONS))
        self.dropout = dropout

    def forward(self, x_BEHW: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x_BEHW = F.relu(norm(layer(x_BEHW)))
        return DROPOUTS[x_BEHW.ndim - 2](x_BEHW, self.dropout, self.training)


class Encoder(nn.Module):
    """A block per scale, with 2 x 2 max pooling (of each slice) before each but the first."""

    def __init__(self, inputs: int, widths: Sequence[int], dropout: float, axes: int = 2):
        super().__init__()
        before = [inputs, *widths[:-1]]
        self.blocks = nn.ModuleList(ConvolutionBlock(before[i], width, dropout, axes) for i, width in enumerate(widths))

    def forward(self, x_BEHW: Tensor) -> list[Tensor]:
        """Features of every scale, finest first; scale s has (B, widths[s], H / 2^s, W / 2^s)."""
        features: list[Tensor] = []
        for s, block in enumerate(self.blocks):
            x_BEHW = block(x_BEHW if s == 0 else pooled(x_BEHW))
            features.append(x_BEHW)
        return features

    def flops(self, pixels: int) -> int:
        return sum(layer_flops(block, pixels >> 2 * s) for s, block in enumerate(self.blocks))


class Decoder(nn.Module):
    """From the coarsest scale up: double the size, concatenate the features of the scale, one block; at the end the logits.

    `inputs` are the channels of the features of every scale, finest first; `widths` those of the blocks. `outputs`: logits per
    pixel; the one of change begins at `CHANGED_PRIOR`, those of several classes at equal probabilities.
    """

    def __init__(self, inputs: Sequence[int], widths: Sequence[int], dropout: float, outputs: int = 1, axes: int = 2):
        super().__init__()
        scales = len(widths)
        deeper = [*widths[1:-1], inputs[-1]] if scales > 1 else []
        self.blocks = nn.ModuleList(ConvolutionBlock(deeper[s] + inputs[s], widths[s], dropout, axes) for s in range(scales - 1))
        self.head = CONVOLUTION_OF[axes](widths[0] if scales > 1 else inputs[0], outputs, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, math.log(CHANGED_PRIOR / (1 - CHANGED_PRIOR)) if outputs == 1 else 0.0)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x = features[-1]
        for s in reversed(range(len(self.blocks))):
            x = self.blocks[s](torch.cat([doubled(x), features[s]], dim=1))
        logit_BKHW: Tensor = self.head(x)
        return logit_BKHW

    def flops(self, pixels: int) -> int:
        return sum(layer_flops(block, pixels >> 2 * s) for s, block in enumerate(self.blocks)) + layer_flops(self.head, pixels)


def doubled(x_BDHW: Tensor) -> Tensor:
    """(B, D, 2 H, 2 W), every pixel four times, of volumes each slice so.

    Uses shapes only: its gradient is a sum, deterministic on every device.
    """
    *before, height, width = x_BDHW.shape
    four = x_BDHW[..., :, None, :, None].expand(*before, height, 2, width, 2)
    return four.reshape(*before, 2 * height, 2 * width)


def pooled(x_BDHW: Tensor) -> Tensor:
    """(B, D, H / 2, W / 2), the largest of four pixels, of volumes each slice so."""
    return F.max_pool2d(x_BDHW, 2) if x_BDHW.ndim == 4 else F.max_pool3d(x_BDHW, (1, 2, 2))


def padded(x: Tensor, stride_px: tuple[int, ...]) -> Tensor:
    """`x` (..., H, W) with zeros below and to the right, up to the next multiples of `stride_px` ([z,] y, x)."""
    below, right = -x.shape[-2] % stride_px[-2], -x.shape[-1] % stride_px[-1]
    return F.pad(x, (0, right, 0, below)) if below or right else x


def pair_frames(x_BTCHW: Tensor, valid_BTHW: Tensor, network: str) -> tuple[Tensor, Tensor, Tensor]:
    """(first_BCHW, second_BCHW, seen_B1HW) of exactly two dates, 0 where either is invalid.

    Pixels that are valid on one date only cannot be compared, so both dates are 0 there: a cloud is then equal on both dates.
    Raises ValueError for another number of dates.
    """
    if x_BTCHW.shape[1] != 2:
        raise ValueError(f"{network} compares exactly 2 dates, got {x_BTCHW.shape[1]}: choose two, or siamese_dcrn or l_unet")
    seen_B1HW = valid_BTHW[:, :1] & valid_BTHW[:, 1:]
    x_BTCHW = torch.where(seen_B1HW[:, None], x_BTCHW, 0)
    return x_BTCHW[:, 0], x_BTCHW[:, 1], seen_B1HW.to(x_BTCHW.dtype)


def seen_by_scale(seen_B1HW: Tensor, scales: int) -> list[Tensor]:
    """Per scale, finest first, 1 where at least one of a cell's pixels is valid."""
    seen = [seen_B1HW]
    for _ in range(scales - 1):
        seen.append(F.max_pool2d(seen[-1], 2))
    return seen


def receptive_radius(scales: int, lateral: int = 0) -> int:
    """Radius of the receptive field of a logit, in pixels, rounded up to a multiple of the stride 2^(scales - 1).

    For `Encoder` and `Decoder` of `scales` scales with layers between them of a radius of `lateral` cells at each scale.
    Follows the first and last cell that each layer reads from the logit back to the input, for every position within the
    stride and every scale at which decoder and encoder can meet.
    """
    stride: int = 2 ** (scales - 1)
    radius = 0
    for phase in range(stride):
        for turn in range(scales):
            first = last = phase
            for s in range(turn + 1):  # up the decoder, from the finest scale to the turning one
                if s < scales - 1:
                    first, last = first - CONVOLUTIONS, last + CONVOLUTIONS
                if s < turn:
                    first, last = first // 2, last // 2
            first, last = first - lateral, last + lateral
            for s in reversed(range(turn + 1)):  # down the encoder, back to the input
                first, last = first - CONVOLUTIONS, last + CONVOLUTIONS
                if s > 0:
                    first, last = 2 * first, 2 * last + 1
            radius = max(radius, phase - first, last - phase)
    return -(-radius // stride) * stride
