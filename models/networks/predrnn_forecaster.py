"""PredRNN: one stack of ST-LSTM layers that reads the frames, then its own predictions, with a memory that runs in zig-zag.

Wang et al. 2017 (NeurIPS, "PredRNN"); with `decoupling` above 0 PredRNN-v2 (Wang et al. 2021, arXiv:2103.09504). As there the
stack that reads the context goes on with the targets, and what it reads in the place of a frame is its last prediction.
Here it also reads what is known in advance of a target and the dates, which are constant channels; of a context frame the first
is 0, of a target validity and the remaining channels of a frame. Invalid pixels keep states and memory.

Shapes as in `models.blocks.forecast`.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from models.blocks.forecast import TIME_FEATURES, Channels, StatefulForecaster, zero_head
from models.blocks.time_as_channels import as_channels
from models.cells.recurrent_stack import State
from models.cells.st_lstm import STLSTM, Decoupling, Increments
from models.contract import Description, layer_flops


@dataclass(frozen=True)
class PredRNNSettings:
    hidden: tuple[int, ...] = (16, 16)  # equal numbers
    kernel: int = 3
    layer_norm: bool = False
    forget_bias: float = 1.0
    decoupling: float = 0.1  # weight of the decoupling loss beside the training loss; 0: PredRNN of 2017
    frame_dropout: float = 0.0  # fraction of context frames hidden in training

    def build(self, outputs: int, frame_channels: int, future_channels: int, axes: int = 2) -> "PredRNNForecaster":
        return PredRNNForecaster(PredRNNForecasterConfig(outputs, frame_channels, future_channels, axes=axes, **vars(self)))


@dataclass(frozen=True)
class PredRNNForecasterConfig(PredRNNSettings, Channels):
    """What is needed to rebuild the network."""

    @property
    def inputs(self) -> int:
        """Channels of the lowest layer's input: a frame, its validity, what is known of a target, the date."""
        return self.frame_channels + 1 + self.future_channels + TIME_FEATURES


class PredRNNForecaster(StatefulForecaster):
    reads_its_forecasts = True

    def __init__(self, config: PredRNNForecasterConfig):
        super().__init__()
        self.config, self.axes, self.frame_dropout = config, config.axes, config.frame_dropout
        self.stack = STLSTM(
            config.inputs, config.hidden, config.kernel, config.axes,
            layer_norm=config.layer_norm, forget_bias=config.forget_bias,
        )  # fmt: skip
        self.decoupling = Decoupling(config.hidden[-1], config.axes) if config.decoupling > 0 else None
        self.head = zero_head(config.hidden[-1], config)
        self._alike: list[Tensor] = []  # of every step and layer of a forward pass in training

    def halo_px(self, steps: int) -> tuple[int, ...]:
        """Radius of the receptive field of the last target, for `steps` = T + K.

        A layer adds a convolution of its input, state and memory and one for the output gate. The longest path goes through all
        layers at every step: up with the memory, then from the top one to the lowest.
        """
        radius = 2 * (self.config.kernel // 2) * len(self.config.hidden) * steps
        return (radius,) * self.axes

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        """As of `ForecasterNetwork`; the prediction that the first target reads is computed from the state."""
        batch, context, _, *space = shape
        stack, head = (layer_flops(part, math.prod(space)) for part in (self.stack, self.head))
        return batch * ((context + targets) * stack + (targets + 1) * head)

    def describe(self) -> Description:
        return {"kind": "predrnn", **asdict(self.config)}

    def auxiliary_loss(self) -> Tensor | None:
        alike, self._alike = self._alike, []
        of_context = super().auxiliary_loss()
        parts = [self.config.decoupling * torch.stack(alike).mean()] if alike else []
        parts += [] if of_context is None else [of_context]
        return torch.stack(parts).sum() if parts else None

    def encode(
        self, frames_BTCHW: Tensor, valid_BTHW: Tensor, time_BTF: Tensor, elapsed_BT: Tensor, state: State | None = None
    ) -> State:
        if state is None:
            self._alike = []
        valid_BT1HW = valid_BTHW[:, :, None].to(frames_BTCHW.dtype)
        unknown_BTCHW = zeros_of(frames_BTCHW, self.config.future_channels)
        x_BTCHW = torch.cat([frames_BTCHW, valid_BT1HW, unknown_BTCHW, as_channels(time_BTF, frames_BTCHW)], dim=2)
        for t in range(x_BTCHW.shape[1]):
            _, state, increments = self.stack.step(x_BTCHW[:, t], state, valid_B1HW=valid_BT1HW[:, t])
            self._compare(increments)
        assert state is not None, "a context has at least one step"
        return state

    def next_frame(self, state: State, space: Sequence[int]) -> Tensor:
        correction_BCHW: Tensor = self.head(state[len(self.stack.cells) - 1][0])
        return correction_BCHW

    def decode(
        self, state: State, futures_BKCHW: Tensor, time_BKF: Tensor, elapsed_BK: Tensor, last_BCHW: Tensor | None = None
    ) -> tuple[Tensor, State]:
        rest_BKCHW = zeros_of(futures_BKCHW, self.config.frame_channels - self.config.outputs + 1)
        known_BKCHW = torch.cat([rest_BKCHW, futures_BKCHW, as_channels(time_BKF, futures_BKCHW)], dim=2)
        corrections: list[Tensor] = []
        last_BCHW = self.next_frame(state, futures_BKCHW.shape[3:]) if last_BCHW is None else last_BCHW
        for k in range(known_BKCHW.shape[1]):
            top, state, increments = self.stack.step(torch.cat([last_BCHW, known_BKCHW[:, k]], dim=1), state)
            self._compare(increments)
            last_BCHW = self.head(top)
            corrections.append(last_BCHW)
        return torch.stack(corrections, dim=1), state

    def _compare(self, increments: list[Increments]) -> None:
        if self.decoupling is not None and self.training and torch.is_grad_enabled():
            self._alike += [self.decoupling(one) for one in increments]


def zeros_of(like_BTCHW: Tensor, channels: int) -> Tensor:
    batch, steps, _, *space = like_BTCHW.shape
    return like_BTCHW.new_zeros(batch, steps, channels, *space)
