"""Forecasters' networks whose cells have no input of their own for dates: these are constant channels of the frames.

Shapes as in `models.blocks.forecast`.
"""

from torch import Tensor, cat

from models.blocks.forecast import ForecasterNetwork
from models.cells.recurrent_stack import State
from models.contract import over_space


class TimeAsChannels(ForecasterNetwork):
    """Encoder and forecaster of stacks that read (frame, validity, time features) and (what is known of a target, features)."""

    def encode(
        self, frames_BTCHW: Tensor, valid_BTHW: Tensor, time_BTF: Tensor, elapsed_BT: Tensor, state: State | None = None
    ) -> State:
        valid_BT1HW = valid_BTHW[:, :, None].to(frames_BTCHW.dtype)
        context = cat([frames_BTCHW, valid_BT1HW, as_channels(time_BTF, frames_BTCHW)], dim=2)
        after: State = self.encoder(context, state, valid_BT1HW=valid_BT1HW)[1]
        return after

    def decode(self, state: State, futures_BKCHW: Tensor, time_BKF: Tensor, elapsed_BK: Tensor) -> tuple[Tensor, State]:
        h_BKDHW, after = self.forecaster(cat([futures_BKCHW, as_channels(time_BKF, futures_BKCHW)], dim=2), state)
        return self.head(h_BKDHW.flatten(0, 1)).unflatten(0, h_BKDHW.shape[:2]), after


def as_channels(time_BTF: Tensor, like_BTCHW: Tensor) -> Tensor:
    """(B, T, F, H, W): every time feature as a constant image of the size of `like_BTCHW`, views."""
    space = like_BTCHW.shape[3:]
    return over_space(time_BTF, len(space)).expand(-1, -1, -1, *space).to(like_BTCHW.dtype)
