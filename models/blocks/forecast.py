"""What the forecasters' networks share: their configuration, their head, and how context and targets go through them.

A network reads T observed frames and predicts K corrections of a baseline. The last layer starts at zero, so an untrained network
corrects nothing.

Shapes as in `models.cells.convlstm`; T context steps, K target steps, C output channels.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from models.cells.recurrent_stack import CONVOLUTIONS, RecurrentStack, State
from models.contract import Network, layer_flops, over_space

TIME_FEATURES = 4  # season sine and cosine, elapsed since the previous step, offset from the issue date


@dataclass(frozen=True)
class Channels:
    """The channels of a network, which follow from the baseline and the data. A network's config is these and its settings."""

    outputs: int  # C, channels that are forecast
    frame_channels: int  # of a context frame, without the mask
    future_channels: int  # known in advance of a target date
    axes: int = field(default=2, kw_only=True)  # of space


class StatefulForecaster(Network):
    """A network that reads the frames into a state and unrolls the targets from it; a part `head` makes the corrections."""

    axes: int
    frame_dropout: float

    @property
    def stride_px(self) -> tuple[int, ...]:
        return (1,) * self.axes

    @abstractmethod
    def encode(
        self, frames_BTCHW: Tensor, valid_BTHW: Tensor, time_BTF: Tensor, elapsed_BT: Tensor, state: State | None = None
    ) -> State:
        """State after the frames; `state` is the previous one (None: zeros). One call or several in a row give the same state."""

    @abstractmethod
    def decode(self, state: State, futures_BKCHW: Tensor, time_BKF: Tensor, elapsed_BK: Tensor) -> tuple[Tensor, State]:
        """(correction_BKCHW, state after the last target) from the state at the issue date."""

    def forward(
        self, frames_BTCHW: Tensor, valid_BTHW: Tensor, time_BTF: Tensor, elapsed_BT: Tensor, futures_BKCHW: Tensor,
        time_BKF: Tensor, elapsed_BK: Tensor,
    ) -> Tensor:  # fmt: skip
        """correction_BKCHW in normalised units."""
        if self.training and self.frame_dropout > 0:
            frames_BTCHW, valid_BTHW = hide_frames(frames_BTCHW, valid_BTHW, self.frame_dropout)
        state = self.encode(frames_BTCHW, valid_BTHW, time_BTF, elapsed_BT)
        return self.decode(state, futures_BKCHW, time_BKF, elapsed_BK)[0]


class ForecasterNetwork(StatefulForecaster):
    """Encoder, forecaster and head. Works on images (of 3 axes: volumes) of any size: every layer has their resolution."""

    def __init__(
        self, encoder: RecurrentStack, forecaster: RecurrentStack, hidden: int, channels: Channels, frame_dropout: float
    ):
        super().__init__()
        self.encoder, self.forecaster, self.frame_dropout, self.axes = encoder, forecaster, frame_dropout, channels.axes
        self.head = zero_head(hidden, channels)

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        """Operations for `shape` (B, T, C, [D,] H, W) and K = `targets`; C is the network's own, whatever `shape` has."""
        batch, context, _, *space = shape
        parts = (self.encoder, self.forecaster, self.head)
        encoder, forecaster, head = (layer_flops(part, math.prod(space), rows=1) for part in parts)
        return batch * (context * encoder + targets * (forecaster + head))


def zero_head(hidden: int, channels: Channels) -> nn.Conv2d | nn.Conv3d:
    """The last layer, whose answer is 0 until it is trained."""
    head = CONVOLUTIONS[channels.axes](hidden, channels.outputs, 1)
    nn.init.zeros_(head.weight)
    assert head.bias is not None
    nn.init.zeros_(head.bias)
    return head


def hide_frames(frames_BTCHW: Tensor, valid_BTHW: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The frames and their mask with a random `share` of the frames of each sample masked as if cloudy."""
    kept_BT = torch.rand(valid_BTHW.shape[:2], device=valid_BTHW.device) >= share
    axes = valid_BTHW.ndim - 2
    return frames_BTCHW * over_space(kept_BT, axes + 1), valid_BTHW * over_space(kept_BT, axes)
