"""Forecasters' networks whose cells have no input of their own for dates: these are constant channels of the frames.

Shapes as in `models.blocks.forecast`.
"""

from torch import Tensor, cat, stack

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

    def decode(
        self, state: State, futures_BKCHW: Tensor, time_BKF: Tensor, elapsed_BK: Tensor, last_BCHW: Tensor | None = None
    ) -> tuple[Tensor, State]:
        known_BKCHW = cat([futures_BKCHW, as_channels(time_BKF, futures_BKCHW)], dim=2)
        if self.reads_its_forecasts:
            return self._decode_reading(state, known_BKCHW, last_BCHW)
        h_BKDHW, after = self.forecaster(known_BKCHW, state)
        return self.head(h_BKDHW.flatten(0, 1)).unflatten(0, h_BKDHW.shape[:2]), after

    def _decode_reading(self, state: State, known_BKCHW: Tensor, last_BCHW: Tensor | None) -> tuple[Tensor, State]:
        """As `decode`; every step reads the correction before."""
        last_BCHW = self.next_frame(state, known_BKCHW.shape[3:]) if last_BCHW is None else last_BCHW
        corrections = []
        for k in range(known_BKCHW.shape[1]):
            h_B1DHW, state = self.forecaster(cat([known_BKCHW[:, k], last_BCHW], dim=1)[:, None], state)
            last_BCHW = self.head(h_B1DHW[:, 0])
            corrections.append(last_BCHW)
        return stack(corrections, dim=1), state


def as_channels(time_BTF: Tensor, like_BTCHW: Tensor) -> Tensor:
    """(B, T, F, H, W): every time feature as a constant image of the size of `like_BTCHW`, views."""
    space = like_BTCHW.shape[3:]
    return over_space(time_BTF, len(space)).expand(-1, -1, -1, *space).to(like_BTCHW.dtype)
