"""An encoder-forecaster of ConvLSTM layers: from T observed frames to K corrections of a baseline.

The encoder reads the context frame by frame. The forecaster starts from its state and unrolls the target dates; its inputs are
what is known in advance: the date, the lead, the baseline (Shi et al. 2015, section 3.3, with time as an input). Shapes as in
`models.blocks.forecast`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.blocks.forecast import TIME_FEATURES, Channels, ForecasterNetwork, described
from models.cells.convlstm import ConvLSTM
from models.cells.in_place import InPlaceRun, convolve
from models.cells.recurrent_stack import RecurrentStack, State
from models.contract import Description


@dataclass(frozen=True)
class ConvLSTMSettings:
    hidden: tuple[int, ...] = (16,)
    kernel: int = 3
    peepholes: bool = False
    forget_bias: float = 1.0
    dropout: float = 0.0
    frame_dropout: float = 0.0  # fraction of context frames hidden in training
    feedback: bool = False  # the part that forecasts reads its last forecast

    def build(self, outputs: int, frame_channels: int, future_channels: int, axes: int = 2) -> "EncoderForecaster":
        return EncoderForecaster(EncoderForecasterConfig(outputs, frame_channels, future_channels, axes=axes, **vars(self)))


@dataclass(frozen=True)
class EncoderForecasterConfig(ConvLSTMSettings, Channels):
    """What is needed to rebuild the network."""


class EncoderForecaster(ForecasterNetwork):
    def __init__(self, config: EncoderForecasterConfig):
        options = {name: getattr(config, name) for name in ("peepholes", "forget_bias", "dropout", "axes")}
        encoder, forecaster = (
            ConvLSTM(inputs, config.hidden, config.kernel, time_features=TIME_FEATURES, **options)
            for inputs in (config.frame_channels + 1, config.future_channels + (config.outputs if config.feedback else 0))
        )
        super().__init__(encoder, forecaster, config.hidden[-1], config, config.frame_dropout, feedback=config.feedback)
        self.config = config

    def halo_px(self, steps: int) -> tuple[int, ...]:
        """Radius of the receptive field of the last target. Exact for `steps` = T + K.

        The longest path from the first frame passes every layer once and T + K - 1 times from step to step; each of these is one
        convolution, `kernel // 2` pixels wide. A network that reads its forecasts goes through all layers at every step, at most.
        """
        layers = len(self.config.hidden)
        radius = (self.config.kernel // 2) * (layers * steps if self.config.feedback else steps - 1 + layers)
        return (radius,) * self.axes

    def describe(self) -> Description:
        """The config. It has no kind: a forecaster's network described without one is of this class."""
        return described(self.config)

    def encode(
        self, frames_BTCHW: Tensor, valid_BTHW: Tensor, time_BTF: Tensor, elapsed_BT: Tensor, state: State | None = None
    ) -> State:
        run = self._fast_run(self.encoder, frames_BTCHW, state)
        for t in range(frames_BTCHW.shape[1]):
            valid_B1HW = valid_BTHW[:, t, None].to(frames_BTCHW.dtype)
            frame_BCHW = torch.cat([frames_BTCHW[:, t], valid_B1HW], dim=1)
            known = {"valid_B1HW": valid_B1HW, "elapsed_B": elapsed_BT[:, t], "time_BF": time_BTF[:, t]}
            if run is None:
                _, state = self.encoder.step(frame_BCHW, state, **known)
            else:
                run.step(frame_BCHW, **known)
        after = state if run is None else run.state()
        assert after is not None, "a context has at least one step"
        return after

    def decode(
        self, state: State, futures_BKCHW: Tensor, time_BKF: Tensor, elapsed_BK: Tensor, last_BCHW: Tensor | None = None
    ) -> tuple[Tensor, State]:
        run = self._fast_run(self.forecaster, futures_BKCHW, state)
        if self.reads_its_forecasts and last_BCHW is None:
            last_BCHW = self._corrected(state[-1][0], run)
        corrections = []
        for k in range(futures_BKCHW.shape[1]):
            known, x_BCHW = {"elapsed_B": elapsed_BK[:, k], "time_BF": time_BKF[:, k]}, futures_BKCHW[:, k]
            if self.reads_its_forecasts and last_BCHW is not None:
                x_BCHW = torch.cat([x_BCHW, last_BCHW], dim=1)
            if run is None:
                h_BDHW, state = self.forecaster.step(x_BCHW, state, **known)
            else:
                h_BDHW = run.step(x_BCHW, **known)
            last_BCHW = self._corrected(h_BDHW, run)
            corrections.append(last_BCHW)
        return torch.stack(corrections, dim=1), state if run is None else run.state()

    def _corrected(self, h_BDHW: Tensor, run: InPlaceRun | None) -> Tensor:
        correction_BCHW: Tensor = self.head(h_BDHW) if run is None else convolve(h_BDHW, self.head.weight, self.head.bias)
        return correction_BCHW

    def _fast_run(self, stack: RecurrentStack, like_BTCHW: Tensor, state: State | None) -> InPlaceRun | None:
        """The same numbers faster; None where gradients or dropout are needed."""
        if torch.is_grad_enabled() or (self.training and (self.config.dropout > 0 or self.config.frame_dropout > 0)):
            return None
        return InPlaceRun(stack, like_BTCHW[:, 0], state)
