"""SimVP with gated spatiotemporal attention (gSTA): convolutions only, all frames at once; the reference without recurrence.

Tan et al. 2022, "SimVP: towards simple yet powerful spatiotemporal predictive learning", arXiv:2211.12509. An encoder halves each
frame `scales` times, a translator mixes all frames as channels with large kernels, a decoder makes a frame of each of its states
and of an early map of the encoder (the skip).

- Large kernel (section 3.3): a depth-wise convolution, a dilated one, a 1 x 1 one whose halves are a gate and what it lets
  through.
- The translator gets T frames and gives K, so both numbers belong to the network; fewer targets are the first of the K. The
  skip of target k comes from frame k, from the last one on from the last.
- What is known of a target in advance (dates, lead, the baseline) is added to its skip; dates and validity of a frame are
  channels.
- Where the paper normalises over the batch or over the image, `ChannelNorm` does within a pixel, so samples do not mix and
  tiles equal the whole. The number of parameters is the same.

Images only. Shapes as in `models.blocks.forecast`; S channels of a state.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor, nn

from models.blocks.channel_norm import ChannelNorm
from models.blocks.forecast import TIME_FEATURES, Channels, hide_frames, zero_head
from models.blocks.time_as_channels import as_channels
from models.contract import Description, Network, layer_flops

DILATION = 3
FIRST_SCALE = 1e-2  # of what a block adds


@dataclass(frozen=True)
class SimVPSettings:
    context: int  # T, frames that are read
    horizon: int  # K, targets at most
    spatial: int = 16  # S, channels of a state; even
    temporal: int = 64  # channels of the translator
    scales: int = 1  # halvings of the frames
    blocks: int = 2  # of the translator, at least 2
    kernel: int = 11  # that the attention stands for, at half resolution for one scale
    expansion: int = 4  # of the channels in a block's second part
    frame_dropout: float = 0.0  # fraction of context frames hidden in training

    def build(self, outputs: int, frame_channels: int, future_channels: int, axes: int = 2) -> "SimVPForecaster":
        return SimVPForecaster(SimVPForecasterConfig(outputs, frame_channels, future_channels, axes=axes, **vars(self)))


@dataclass(frozen=True)
class SimVPForecasterConfig(SimVPSettings, Channels):
    """What is needed to rebuild the network."""


class SimVPForecaster(Network):
    def __init__(self, config: SimVPForecasterConfig):
        super().__init__()
        if config.axes != 2:
            raise ValueError(
                f"SimVP is for images, these have {config.axes} axes of space: take convlstm, convgru, trajgru or predrnn"
            )
        if config.blocks < 2:
            raise ValueError(f"the translator of SimVP has at least 2 blocks, got {config.blocks}")
        self.config = config
        width, hidden = config.spatial, config.temporal
        strides = [stride for _ in range(config.scales) for stride in (1, 2)]
        inputs = [config.frame_channels + 1 + TIME_FEATURES, *[width] * (len(strides) - 1)]
        self.encoder = nn.ModuleList(Layer(before, width, stride) for before, stride in zip(inputs, strides, strict=True))
        widths = [config.context * width, *[hidden] * (config.blocks - 1), config.horizon * width]
        self.translator = nn.Sequential(*(AttentionBlock(before, after, config) for before, after in pairwise(widths)))
        self.from_future = nn.Conv2d(config.future_channels + TIME_FEATURES, width, 3, padding=1)
        self.decoder = nn.ModuleList(Layer(width, width, -stride) for stride in strides[::-1])
        self.head = zero_head(width, config)

    @property
    def stride_px(self) -> tuple[int, ...]:
        return (2**self.config.scales,) * 2

    def halo_px(self, steps: int) -> tuple[int, ...]:
        """Of the longest path: down, through the translator, up again. All frames are read at once: `steps` has no effect."""
        scales, stride = self.config.scales, 2**self.config.scales
        resampling = 2 * sum(2**scale for scale in range(scales))  # two convolutions at each scale before it is halved
        up = sum(2 ** (scale + 1) + 2**scale for scale in range(scales))
        attention = sum(large_kernel_radii(self.config.kernel)) + 1
        radius = resampling + self.config.blocks * attention * stride + up
        return (stride * (math.ceil(radius / stride) + 1),) * 2

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        batch, context, _, *space = shape
        stride = self.stride_px[0]
        rows, columns = (math.ceil(side / stride) * stride for side in space)
        pixels, total = rows * columns, 0
        sizes = [pixels // 4**scale for scale in range(self.config.scales + 1)]
        for i, layer in enumerate(self.encoder):
            total += context * layer_flops(layer, sizes[(i + 1) // 2])
        total += layer_flops(self.translator, sizes[-1])
        for i, layer in enumerate(self.decoder):
            total += targets * layer_flops(layer, sizes[self.config.scales - (i + 1) // 2])
        return batch * (total + targets * layer_flops(nn.ModuleList([self.from_future, self.head]), pixels))

    def describe(self) -> Description:
        return {"kind": "simvp", **asdict(self.config)}

    def forward(
        self, frames_BTCHW: Tensor, valid_BTHW: Tensor, time_BTF: Tensor, elapsed_BT: Tensor, futures_BKCHW: Tensor,
        time_BKF: Tensor, elapsed_BK: Tensor,
    ) -> Tensor:  # fmt: skip
        """correction_BKCHW in normalised units. Raises ValueError for other numbers of dates than those of the network."""
        context, targets, space = frames_BTCHW.shape[1], futures_BKCHW.shape[1], frames_BTCHW.shape[-2:]
        if context != self.config.context or targets > self.config.horizon:
            raise ValueError(
                f"this SimVP reads {self.config.context} frames and forecasts at most {self.config.horizon}, got {context} and "
                f"{targets}: train one with these numbers"
            )
        if self.training and self.config.frame_dropout > 0:
            frames_BTCHW, valid_BTHW = hide_frames(frames_BTCHW, valid_BTHW, self.config.frame_dropout)
        valid_BT1HW = valid_BTHW[:, :, None].to(frames_BTCHW.dtype)
        seen = torch.cat([frames_BTCHW, valid_BT1HW, as_channels(time_BTF, frames_BTCHW)], dim=2)
        known = torch.cat([futures_BKCHW, as_channels(time_BKF, futures_BKCHW)], dim=2)
        skip, state = self.encode(self.filled_up(seen))
        states = self.translator(state.flatten(1, 2)).unflatten(1, (self.config.horizon, -1))[:, :targets]
        frame_of_target = [min(k, context - 1) for k in range(targets)]
        skips = skip[:, frame_of_target] + self.each(self.from_future, self.filled_up(known))
        whole = self.decode(states, skips)
        return whole[..., : space[0], : space[1]]

    def filled_up(self, x_BTCHW: Tensor) -> Tensor:
        """With zeros below and to the right, to multiples of the stride."""
        rows, columns = (-side % stride for side, stride in zip(x_BTCHW.shape[-2:], self.stride_px, strict=True))
        return F.pad(x_BTCHW, (0, columns, 0, rows)) if rows or columns else x_BTCHW

    def encode(self, x_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(the first map of every frame at full resolution, its state), (B, T, S, ...)."""
        first = state = self.each(self.encoder[0], x_BTCHW)
        for layer in self.encoder[1:]:
            state = self.each(layer, state)
        return first, state

    def decode(self, states_BKSHW: Tensor, skips_BKSHW: Tensor) -> Tensor:
        *layers, last = self.decoder
        for layer in layers:
            states_BKSHW = self.each(layer, states_BKSHW)
        return self.each(self.head, self.each(last, states_BKSHW + skips_BKSHW))

    @staticmethod
    def each(layer: nn.Module, x_BTCHW: Tensor) -> Tensor:
        """`layer` of every frame alone."""
        y: Tensor = layer(x_BTCHW.flatten(0, 1)).unflatten(0, x_BTCHW.shape[:2])
        return y


class Layer(nn.Module):
    """Convolution 3 x 3, normalisation, SiLU. `stride` 2 halves the image; -2 doubles it (each pixel's four from channels)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.doubles = stride == -2
        self.convolution = nn.Conv2d(inputs, outputs * (4 if self.doubles else 1), 3, max(stride, 1), padding=1)
        self.norm = ChannelNorm(outputs, groups=2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = self.convolution(x_BCHW)
        return F.silu(self.norm(F.pixel_shuffle(y, 2) if self.doubles else y))


class AttentionBlock(nn.Module):
    """Gated attention, then a perceptron of channels with a 3 x 3 depth-wise convolution inside; each is added, scaled.

    A 1 x 1 convolution follows where the number of channels changes.
    """

    def __init__(self, inputs: int, outputs: int, config: SimVPSettings):
        super().__init__()
        near, far = (2 * radius + 1 for radius in large_kernel_radii(config.kernel))
        wide, taps = config.expansion * inputs, (far - 1) // DILATION + 1
        self.first_norm, self.second_norm = ChannelNorm(inputs), ChannelNorm(inputs)
        self.before = nn.Conv2d(inputs, inputs, 1)
        self.near = nn.Conv2d(inputs, inputs, near, padding=near // 2, groups=inputs)
        self.far = nn.Conv2d(inputs, inputs, taps, padding=far // 2, groups=inputs, dilation=DILATION)
        self.gate = nn.Conv2d(inputs, 2 * inputs, 1)
        self.after = nn.Conv2d(inputs, inputs, 1)
        self.widen, self.narrow = nn.Conv2d(inputs, wide, 1), nn.Conv2d(wide, inputs, 1)
        self.around = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.scales_2C = nn.ParameterList(nn.Parameter(FIRST_SCALE * torch.ones(inputs, 1, 1)) for _ in range(2))
        self.change = nn.Conv2d(inputs, outputs, 1) if outputs != inputs else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = x_BCHW + self.scales_2C[0] * self.attend(self.first_norm(x_BCHW))
        wide = self.around(self.widen(self.second_norm(x_BCHW)))
        changed: Tensor = self.change(x_BCHW + self.scales_2C[1] * self.narrow(F.gelu(wide)))
        return changed

    def attend(self, x_BCHW: Tensor) -> Tensor:
        value, gate = self.gate(self.far(self.near(F.gelu(self.before(x_BCHW))))).chunk(2, dim=1)
        attended: Tensor = self.after(torch.sigmoid(gate) * value)
        return attended + x_BCHW


def large_kernel_radii(kernel: int) -> tuple[int, int]:
    """Radii of the convolution and of the dilated one that together stand for `kernel` (Guo et al. 2022, arXiv:2202.09741).

    >>> large_kernel_radii(21)  # 5 x 5, then 7 x 7 with a dilation of 3
    (2, 9)
    """
    taps = kernel // DILATION
    taps -= 1 - taps % 2  # odd
    return DILATION - 1, DILATION * (taps - 1) // 2
