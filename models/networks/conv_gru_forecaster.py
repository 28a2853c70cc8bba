"""An encoder-forecaster of ConvGRU layers: as `models.networks.encoder_forecaster`, with one state map per layer, not two.

The dates are constant input channels (season, elapsed, offset), since the cell has no input of its own for them; invalid
pixels keep their state. The last layer starts at zero, so an untrained network corrects nothing.

Shapes as in `models.networks.encoder_forecaster`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from models.cells.conv_gru import ConvGRU
from models.contract import Description, Network, layer_flops
from models.networks.encoder_forecaster import TIME_FEATURES, hide_frames


@dataclass(frozen=True)
class ConvGRUForecasterConfig:
    """What is needed to rebuild the network."""

    outputs: int  # C, channels that are forecast
    frame_channels: int  # of a context frame, without the mask
    future_channels: int  # known in advance of a target date
    hidden: tuple[int, ...] = (16,)
    kernel: int = 3
    frame_dropout: float = 0.0  # fraction of context frames hidden in training


@dataclass(frozen=True)
class ConvGRUSettings:
    """Configuration of the network; the number of channels follows from the baseline and the data."""

    hidden: tuple[int, ...] = (16,)
    kernel: int = 3
    frame_dropout: float = 0.0

    def build(self, outputs: int, frame_channels: int, future_channels: int) -> "ConvGRUForecaster":
        """An untrained network for these channels."""
        return ConvGRUForecaster(ConvGRUForecasterConfig(outputs, frame_channels, future_channels, **vars(self)))


class ConvGRUForecaster(Network):
    """See the module's docstring. Works on images of any size."""

    def __init__(self, config: ConvGRUForecasterConfig):
        super().__init__()
        self.config = config
        self.encoder = ConvGRU(config.frame_channels + 1 + TIME_FEATURES, config.hidden, config.kernel)
        self.forecaster = ConvGRU(config.future_channels + TIME_FEATURES, config.hidden, config.kernel)
        self.head = nn.Conv2d(config.hidden[-1], config.outputs, 1)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def halo_px(self, steps: int) -> tuple[int, ...]:
        """Radius of the receptive field of the last target. Exact for `steps` = T + K.

        Every step from date to date and from layer to layer adds two convolutions (the candidate reads the output of the reset
        gate), except the first frame's into the first layer, where there is no state yet.
        """
        radius = (self.config.kernel // 2) * (2 * (steps + len(self.config.hidden)) - 3)
        return radius, radius

    @property
    def stride_px(self) -> tuple[int, ...]:
        """(1, 1): windows may start anywhere, since every layer has the resolution of the image."""
        return 1, 1

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        """Operations for `shape` (B, T, C, H, W) and K = `targets`; C is the network's own, whatever `shape` has."""
        batch, context, _, height, width = shape
        encoder, forecaster, head = (layer_flops(part, height * width) for part in (self.encoder, self.forecaster, self.head))
        return batch * (context * encoder + targets * (forecaster + head))

    def describe(self) -> Description:
        """The kind and the config."""
        return {"kind": "convgru", **asdict(self.config)}

    def forward(
        self,
        frames_BTCHW: Tensor,
        valid_BTHW: Tensor,
        time_BTF: Tensor,
        elapsed_BT: Tensor,
        futures_BKCHW: Tensor,
        time_BKF: Tensor,
        elapsed_BK: Tensor,
    ) -> Tensor:
        """correction_BKCHW in normalised units; the arguments are those of `EncoderForecaster.forward`."""
        if self.training and self.config.frame_dropout > 0:
            frames_BTCHW, valid_BTHW = hide_frames(frames_BTCHW, valid_BTHW, self.config.frame_dropout)
        valid_BT1HW = valid_BTHW[:, :, None].to(frames_BTCHW.dtype)
        context = torch.cat([frames_BTCHW, valid_BT1HW, as_channels(time_BTF, frames_BTCHW)], dim=2)
        _, state = self.encoder(context, valid_BT1HW=valid_BT1HW)
        h_BKDHW, _ = self.forecaster(torch.cat([futures_BKCHW, as_channels(time_BKF, futures_BKCHW)], dim=2), state)
        residual_BKCHW: Tensor = self.head(h_BKDHW.flatten(0, 1)).unflatten(0, h_BKDHW.shape[:2])
        return residual_BKCHW


def as_channels(time_BTF: Tensor, like_BTCHW: Tensor) -> Tensor:
    """(B, T, F, H, W): every time feature as a constant image of the size of `like_BTCHW`, views."""
    return time_BTF[..., None, None].expand(-1, -1, -1, *like_BTCHW.shape[-2:]).to(like_BTCHW.dtype)
