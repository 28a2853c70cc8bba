"""What the forecasters' networks share: their configuration, their head, and how context and targets go through them.

A network reads T observed frames and predicts K corrections of a baseline. The last layer starts at zero, so an untrained network
corrects nothing.

Shapes as in `models.cells.convlstm`; T context steps, K target steps, C output channels.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.cells.recurrent_stack import CONVOLUTIONS, RecurrentStack, State
from models.contract import Description, Network, layer_flops, over_space

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

TIME_FEATURES = 4  # season sine and cosine, elapsed since the previous step, offset from the issue date


@dataclass(frozen=True)
class Channels:
    """The channels of a network, which follow from the baseline and the data. A network's config is these and its settings."""

    outputs: int  # C, channels that are forecast
    frame_channels: int  # of a context frame, without the mask
    future_channels: int  # known in advance of a target date
    axes: int = field(default=2, kw_only=True)  # of space


@dataclass(frozen=True)
class Shown:
    """In training: which frames are read as they were, not as the network forecasts them (`pipelines.learning.schedules`)."""

    context_BT: Tensor | None  # bool; the first frame is always shown; None: all
    targets_BK: Tensor  # bool
    truth_BKCHW: Tensor  # the corrections that would give the target; any values where it is not valid
    valid_BKHW: Tensor  # bool; elsewhere the forecast is read even of a target that is shown


class StatefulForecaster(Network):
    """A network that reads the frames into a state and unrolls the targets from it; a part `head` makes the corrections.

    One that reads its forecasts reads the last one before every target, so it may be shown the truth instead (`Shown`).
    """

    axes: int
    frame_dropout: float
    reads_its_forecasts = False
    _context_loss: Tensor | None = None

    @property
    def stride_px(self) -> tuple[int, ...]:
        return (1,) * self.axes

    @abstractmethod
    def encode(
        self, frames_BTCHW: Tensor, valid_BTHW: Tensor, time_BTF: Tensor, elapsed_BT: Tensor, state: State | None = None
    ) -> State:
        """State after the frames; `state` is the previous one (None: zeros). One call or several in a row give the same state."""

    @abstractmethod
    def decode(
        self, state: State, futures_BKCHW: Tensor, time_BKF: Tensor, elapsed_BK: Tensor, last_BCHW: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """(correction_BKCHW, state after the last target) from the state at the issue date.

        `last_BCHW` is what a network that reads its forecasts reads before the first target; None: what it makes of the state.
        """

    @abstractmethod
    def next_frame(self, state: State, space: Sequence[int]) -> Tensor:
        """The correction that the head makes of a state, (B, C, H, W): what is forecast of the step after it."""

    def forward(
        self, frames_BTCHW: Tensor, valid_BTHW: Tensor, time_BTF: Tensor, elapsed_BT: Tensor, futures_BKCHW: Tensor,
        time_BKF: Tensor, elapsed_BK: Tensor, shown: Shown | None = None,
    ) -> Tensor:  # fmt: skip
        """correction_BKCHW in normalised units. Raises ValueError for `shown` where the network reads no forecasts."""
        if self.training and self.frame_dropout > 0:
            frames_BTCHW, valid_BTHW = hide_frames(frames_BTCHW, valid_BTHW, self.frame_dropout)
        context, targets = (frames_BTCHW, valid_BTHW, time_BTF, elapsed_BT), (futures_BKCHW, time_BKF, elapsed_BK)
        if shown is None:
            return self.decode(self.encode(*context), *targets)[0]
        if not self.reads_its_forecasts:
            raise ValueError(f"this {type(self).__name__} reads no forecasts, so it cannot be shown the truth in their place")
        state = self.encode(*context) if shown.context_BT is None else self._encode_shown(*context, shown.context_BT)
        return self._decode_shown(state, *targets, shown)

    def _encode_shown(
        self, frames_BTCHW: Tensor, valid_BTHW: Tensor, time_BTF: Tensor, elapsed_BT: Tensor, shown_BT: Tensor
    ) -> State:
        """State after the context, where a frame that is not shown is the forecast of it; `auxiliary_loss` has their error."""
        state, errors = self.encode(frames_BTCHW[:, :1], valid_BTHW[:, :1], time_BTF[:, :1], elapsed_BT[:, :1]), []
        for t in range(1, frames_BTCHW.shape[1]):
            own_BCHW, at = self.next_frame(state, frames_BTCHW.shape[3:]), slice(t, t + 1)
            seen_B1HW = valid_BTHW[:, at]
            true_BCHW, rest_BCHW = frames_BTCHW[:, t].tensor_split([own_BCHW.shape[1]], dim=1)
            errors.append((own_BCHW - true_BCHW).square() * seen_B1HW)
            read_BCHW = torch.where(over_space(shown_BT[:, at], self.axes), true_BCHW, own_BCHW * seen_B1HW)
            frame_B1CHW = torch.cat([read_BCHW, rest_BCHW], dim=1)[:, None]
            state = self.encode(frame_B1CHW, seen_B1HW, time_BTF[:, at], elapsed_BT[:, at], state)
        if errors and self.training and torch.is_grad_enabled():
            each_B = torch.stack(errors, dim=1).flatten(1).sum(1)
            values_B = valid_BTHW[:, 1:].flatten(1).sum(1) * errors[0].shape[1]
            self._context_loss = (each_B / values_B.clamp(min=1)).mean()
        return state

    def _decode_shown(self, state: State, futures_BKCHW: Tensor, time_BKF: Tensor, elapsed_BK: Tensor, shown: Shown) -> Tensor:
        corrections: list[Tensor] = []
        last_BCHW = None
        for k in range(futures_BKCHW.shape[1]):
            at = slice(k, k + 1)
            y_B1CHW, state = self.decode(state, futures_BKCHW[:, at], time_BKF[:, at], elapsed_BK[:, at], last_BCHW)
            corrections.append(y_B1CHW)
            is_true_B1HW = over_space(shown.targets_BK[:, at], self.axes) & shown.valid_BKHW[:, at]
            last_BCHW = torch.where(is_true_B1HW, shown.truth_BKCHW[:, k], y_B1CHW[:, 0])
        return torch.cat(corrections, dim=1)

    def auxiliary_loss(self) -> Tensor | None:
        """The mean squared error of forecasts of the context, a mean over samples, where these have been made."""
        loss, self._context_loss = self._context_loss, None
        return loss


class ForecasterNetwork(StatefulForecaster):
    """Encoder, forecaster and head. Works on images (of 3 axes: volumes) of any size: every layer has their resolution."""

    def __init__(
        self, encoder: RecurrentStack, forecaster: RecurrentStack, hidden: int, channels: Channels, frame_dropout: float, *,
        feedback: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.reads_its_forecasts = feedback
        self.encoder, self.forecaster, self.frame_dropout, self.axes = encoder, forecaster, frame_dropout, channels.axes
        self.head = zero_head(hidden, channels)

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        """Operations for `shape` (B, T, C, [D,] H, W) and K = `targets`; C is the network's own, whatever `shape` has."""
        batch, context, _, *space = shape
        parts = (self.encoder, self.forecaster, self.head)
        encoder, forecaster, head = (layer_flops(part, math.prod(space), rows=1) for part in parts)
        return batch * (context * encoder + targets * (forecaster + head) + (head if self.reads_its_forecasts else 0))

    def next_frame(self, state: State, space: Sequence[int]) -> Tensor:
        correction_BCHW: Tensor = self.head(state[-1][0])
        return correction_BCHW


def described(config: "DataclassInstance") -> Description:
    """The fields of a network's config, without `feedback` where there is none, as before it could be chosen."""
    fields = asdict(config)
    return fields if fields["feedback"] else {name: value for name, value in fields.items() if name != "feedback"}


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
