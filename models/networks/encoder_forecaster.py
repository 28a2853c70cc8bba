"""An encoder-forecaster of ConvLSTM layers: from T observed frames to K corrections of a baseline.

The encoder reads the context frame by frame. The forecaster starts from its state and unrolls the target dates; its inputs are
what is known in advance: the date, the lead, the baseline (Shi et al. 2015, section 3.3, with time as an input). The last
layer starts at zero, so an untrained network corrects nothing.

Shapes as in `models.cells.convlstm`; T context steps, K target steps, C output channels.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from models.cells.convlstm import ConvLSTM, State
from models.cells.in_place import InPlaceRun, convolve
from models.contract import Description, Network, layer_flops

TIME_FEATURES = 4  # season sine and cosine, elapsed since the previous step, offset from the issue date


@dataclass(frozen=True)
class EncoderForecasterConfig:
    """What is needed to rebuild the network."""

    outputs: int  # C, channels that are forecast
    frame_channels: int  # of a context frame, without the mask
    future_channels: int  # known in advance of a target date
    hidden: tuple[int, ...] = (16,)
    kernel: int = 3
    peepholes: bool = False
    forget_bias: float = 1.0
    dropout: float = 0.0
    frame_dropout: float = 0.0  # fraction of context frames hidden in training


@dataclass(frozen=True)
class ConvLSTMSettings:
    """Configuration of the network; the number of channels follows from the baseline and the data."""

    hidden: tuple[int, ...] = (16,)
    kernel: int = 3
    peepholes: bool = False
    forget_bias: float = 1.0
    dropout: float = 0.0
    frame_dropout: float = 0.0

    def build(self, outputs: int, frame_channels: int, future_channels: int) -> "EncoderForecaster":
        """An untrained network for these channels."""
        return EncoderForecaster(EncoderForecasterConfig(outputs, frame_channels, future_channels, **vars(self)))


class EncoderForecaster(Network):
    """See the module's docstring. Works on images of any size."""

    def __init__(self, config: EncoderForecasterConfig):
        super().__init__()
        self.config = config
        self.encoder = _stack(config, config.frame_channels + 1)
        self.forecaster = _stack(config, config.future_channels)
        self.head = nn.Conv2d(config.hidden[-1], config.outputs, 1)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def halo_px(self, steps: int) -> tuple[int, ...]:
        """Radius of the receptive field of the last target. Exact for `steps` = T + K.

        The longest path from the first frame passes every layer once and T + K - 1 times from step to step; each of these is one
        convolution, `kernel // 2` pixels wide.
        """
        radius = (self.config.kernel // 2) * (steps - 1 + len(self.config.hidden))
        return radius, radius

    @property
    def stride_px(self) -> tuple[int, ...]:
        """(1, 1): windows may start anywhere, since every layer has the resolution of the image."""
        return 1, 1

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        """Operations for `shape` (B, T, C, H, W) and K = `targets`; C is the network's own, whatever `shape` has."""
        batch, context, _, height, width = shape
        pixels = height * width
        frames = context * layer_flops(self.encoder, pixels, rows=1)
        return batch * (frames + targets * (layer_flops(self.forecaster, pixels, rows=1) + layer_flops(self.head, pixels)))

    def describe(self) -> Description:
        """The config. It has no kind: a forecaster's network described without one is of this class."""
        return asdict(self.config)

    def _is_plain(self) -> bool:
        """True if gradients or dropout are needed; otherwise the in-place run gives the same numbers faster."""
        return torch.is_grad_enabled() or (self.training and (self.config.dropout > 0 or self.config.frame_dropout > 0))

    def encode(
        self, frames_BTCHW: Tensor, valid_BTHW: Tensor, time_BTF: Tensor, elapsed_BT: Tensor, state: State | None = None
    ) -> State:
        """State after the frames; `state` is the previous one (None: zeros). One call or several in a row give the same state."""
        run = None if self._is_plain() else InPlaceRun(self.encoder, frames_BTCHW[:, 0], state)
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

    def decode(self, state: State, futures_BKCHW: Tensor, time_BKF: Tensor, elapsed_BK: Tensor) -> tuple[Tensor, State]:
        """(correction_BKCHW, state after the last target) from the state at the issue date."""
        run = None if self._is_plain() else InPlaceRun(self.forecaster, futures_BKCHW[:, 0], state)
        corrections = []
        for k in range(futures_BKCHW.shape[1]):
            known = {"elapsed_B": elapsed_BK[:, k], "time_BF": time_BKF[:, k]}
            if run is None:
                h_BDHW, state = self.forecaster.step(futures_BKCHW[:, k], state, **known)
                corrections.append(self.head(h_BDHW))
            else:
                corrections.append(convolve(run.step(futures_BKCHW[:, k], **known), self.head.weight, self.head.bias))
        return torch.stack(corrections, dim=1), state if run is None else run.state()

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
        """correction_BKCHW in normalised units."""
        if self.training and self.config.frame_dropout > 0:
            frames_BTCHW, valid_BTHW = hide_frames(frames_BTCHW, valid_BTHW, self.config.frame_dropout)
        state = self.encode(frames_BTCHW, valid_BTHW, time_BTF, elapsed_BT)
        return self.decode(state, futures_BKCHW, time_BKF, elapsed_BK)[0]


def hide_frames(frames_BTCHW: Tensor, valid_BTHW: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The frames and their mask with a random `share` of the frames of each sample masked as if cloudy."""
    kept_BT = torch.rand(valid_BTHW.shape[:2], device=valid_BTHW.device) >= share
    return frames_BTCHW * kept_BT[:, :, None, None, None], valid_BTHW * kept_BT[:, :, None, None]


def _stack(config: EncoderForecasterConfig, inputs: int) -> ConvLSTM:
    return ConvLSTM(
        inputs,
        config.hidden,
        config.kernel,
        peepholes=config.peepholes,
        forget_bias=config.forget_bias,
        time_features=TIME_FEATURES,
        dropout=config.dropout,
    )
