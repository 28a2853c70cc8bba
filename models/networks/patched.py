"""A forecaster's network on patches: its pixels are squares of `patch_px` pixels, whose values are its channels.

The cost falls by the square of `patch_px`, as PredRNN and ConvLSTM are run on Moving MNIST (arXiv:2103.09504, section 5.1). An
image whose sides are no multiples is filled up with missing pixels and cut off afterwards. The network inside gets the
validity of every pixel as further channels of a frame; a patch is valid if any of its pixels is.

Shapes as in `models.blocks.forecast`; P = patch_px.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor

from models.blocks.forecast import Shown, StatefulForecaster
from models.cells.recurrent_stack import State
from models.contract import Description, Network


class ForecasterSettings(Protocol):
    """Of the network inside; see `models.residual_forecaster.Settings`."""

    def build(self, outputs: int, frame_channels: int, future_channels: int, axes: int) -> Network: ...


@dataclass(frozen=True)
class PatchedSettings:
    network: ForecasterSettings
    patch_px: int

    def build(self, outputs: int, frame_channels: int, future_channels: int, axes: int = 2) -> "PatchedForecaster":
        each = self.patch_px**axes
        inside = self.network.build(each * outputs, each * (frame_channels + 1), each * future_channels, axes)
        return PatchedForecaster(inside, self.patch_px)


class PatchedForecaster(StatefulForecaster):
    network: StatefulForecaster

    def __init__(self, network: Network, patch_px: int):
        super().__init__()
        if not isinstance(network, StatefulForecaster):
            raise TypeError(f"patches are for networks with a state, not for {type(network).__name__}")
        self.network, self.patch_px, self.axes = network, patch_px, network.axes
        self.frame_dropout, self.reads_its_forecasts = network.frame_dropout, network.reads_its_forecasts

    @property
    def stride_px(self) -> tuple[int, ...]:
        return tuple(self.patch_px * side for side in self.network.stride_px)

    def halo_px(self, steps: int) -> tuple[int, ...] | None:
        """That of the network inside in patches, and one patch, which a window may cut."""
        halo = self.network.halo_px(steps)
        return halo and tuple(
            self.patch_px * (radius + stride) for radius, stride in zip(halo, self.network.stride_px, strict=True)
        )

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        batch, context, channels, *space = shape
        patches = [math.ceil(side / self.patch_px) for side in space]
        return self.network.flops((batch, context, channels, *patches), targets)

    def describe(self) -> Description:
        return {"kind": "patched", "patch_px": self.patch_px, "network": self.network.describe()}

    def auxiliary_loss(self) -> Tensor | None:
        parts = [one for one in (super().auxiliary_loss(), self.network.auxiliary_loss()) if one is not None]
        return torch.stack(parts).sum() if parts else None

    def forward(
        self, frames_BTCHW: Tensor, valid_BTHW: Tensor, time_BTF: Tensor, elapsed_BT: Tensor, futures_BKCHW: Tensor,
        time_BKF: Tensor, elapsed_BK: Tensor, shown: Shown | None = None,
    ) -> Tensor:  # fmt: skip
        """As of the network inside. With `shown` whole patches go round, as the network forecasts beyond the edge too."""
        dates, space = (time_BKF, elapsed_BK), futures_BKCHW.shape[3:]
        if shown is None:
            return super().forward(frames_BTCHW, valid_BTHW, time_BTF, elapsed_BT, futures_BKCHW, *dates)
        truth, valid = (filled_up(one, self.patch_px, self.axes) for one in (shown.truth_BKCHW, shown.valid_BKHW))
        shown = replace(shown, truth_BKCHW=truth, valid_BKHW=valid)
        frames, valid, futures = (filled_up(one, self.patch_px, self.axes) for one in (frames_BTCHW, valid_BTHW, futures_BKCHW))
        whole = super().forward(frames, valid, time_BTF, elapsed_BT, futures, *dates, shown)
        for axis, side in enumerate(space):
            whole = whole.narrow(3 + axis, 0, side)
        return whole

    def encode(
        self, frames_BTCHW: Tensor, valid_BTHW: Tensor, time_BTF: Tensor, elapsed_BT: Tensor, state: State | None = None
    ) -> State:
        of_pixels = torch.cat([frames_BTCHW, valid_BTHW[:, :, None].to(frames_BTCHW.dtype)], dim=2)
        frames = to_patches(of_pixels, self.patch_px)
        valid = frames[:, :, -(self.patch_px**self.axes) :].amax(dim=2)
        return self.network.encode(frames, valid, time_BTF, elapsed_BT, state)

    def next_frame(self, state: State, space: Sequence[int]) -> Tensor:
        patches = [math.ceil(side / self.patch_px) for side in space]
        return from_patches(self.network.next_frame(state, patches)[:, None], self.patch_px, space)[:, 0]

    def decode(
        self, state: State, futures_BKCHW: Tensor, time_BKF: Tensor, elapsed_BK: Tensor, last_BCHW: Tensor | None = None
    ) -> tuple[Tensor, State]:
        last = None if last_BCHW is None else to_patches(last_BCHW[:, None], self.patch_px)[:, 0]
        correction, after = self.network.decode(state, to_patches(futures_BKCHW, self.patch_px), time_BKF, elapsed_BK, last)
        return from_patches(correction, self.patch_px, futures_BKCHW.shape[3:]), after


def to_patches(x_BTCHW: Tensor, patch_px: int) -> Tensor:
    """(B, T, C P P, H / P, W / P), rounded up; pixels beyond the edge are 0.

    >>> to_patches(torch.arange(6.0).reshape(1, 1, 1, 2, 3), 2).flatten(3).tolist()  # two patches, four pixels of each
    [[[[0.0, 2.0], [1.0, 0.0], [3.0, 5.0], [4.0, 0.0]]]]
    """
    axes = x_BTCHW.ndim - 3
    padded = filled_up(x_BTCHW, patch_px, axes)
    for axis in range(axes):  # each axis of space becomes (patch, pixel in it)
        padded = padded.unflatten(3 + 2 * axis, (-1, patch_px))
    patches, inside = [3 + 2 * axis for axis in range(axes)], [4 + 2 * axis for axis in range(axes)]
    return padded.permute(0, 1, 2, *inside, *patches).flatten(2, 2 + axes)


def filled_up(x_BTHW: Tensor, patch_px: int, axes: int) -> Tensor:
    """With zeros (False) at the end of the last `axes`, to whole patches."""
    short = [-side % patch_px for side in x_BTHW.shape[-axes:]]
    return F.pad(x_BTHW, [width for side in short[::-1] for width in (0, side)]) if any(short) else x_BTHW


def from_patches(x_BTCHW: Tensor, patch_px: int, space: Sequence[int]) -> Tensor:
    """The reverse of `to_patches`, cut to `space`."""
    axes = len(space)
    parts = x_BTCHW.unflatten(2, (-1, *[patch_px] * axes))
    order = [place for axis in range(axes) for place in (3 + axes + axis, 3 + axis)]
    whole: Tensor = parts.permute(0, 1, 2, *order)
    for axis, side in enumerate(space):
        whole = whole.flatten(3 + axis, 4 + axis).narrow(3 + axis, 0, side)
    return whole
