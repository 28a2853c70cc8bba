"""What the networks of labels and numbers of whole sequences share: their input, their head, an encoder of frames.

`forward(x_BTCHW, valid_BT) -> y_BK`, or y_BTK with `per_step`: logits of classes or standardised numbers, as the loss decides. A
step that is not valid holds the state, so it has no effect, whatever its values; y_BK is the answer after the last valid step.
Every network reads the whole frame: there is no halo. No layer uses statistics over the batch.

Shapes: B batch, T steps (frames), C bands, H rows, W columns, K outputs, D features, N frames of all samples. `HW` stands for all
axes of space, of volumes (D, H, W).
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from models.cells.recurrent_stack import CONVOLUTIONS
from models.cells.vector_recurrence import VectorRecurrence
from models.contract import Description, Halo, Network, layer_flops, over_space

POOLINGS = {2: nn.functional.max_pool2d, 3: nn.functional.max_pool3d}  # by the axes of space


@dataclass(frozen=True)
class SequenceConfig:
    """What every network of whole sequences needs to be rebuilt; `kind` names the network."""

    kind: str
    bands: int
    outputs: int  # classes or numbers
    height: int
    width: int
    per_step: bool = False  # an answer for every step
    dropout: float = 0.1


@dataclass(frozen=True)
class RecurrentConfig(SequenceConfig):
    """With recurrent layers over vectors; `kind` ends in _rnn, _lstm or _gru."""

    hidden: int = 64
    layers: int = 1
    bidirectional: bool = False

    def recurrence(self, inputs: int) -> VectorRecurrence:
        layer = self.kind.rpartition("_")[2]
        return VectorRecurrence(layer, inputs, self.hidden, self.layers, bidirectional=self.bidirectional, dropout=self.dropout)

    @property
    def features(self) -> int:
        return self.hidden * (2 if self.bidirectional else 1)


class SequenceNetwork(Network):
    """A network says how it reads a sequence; checks, mask, dropout and head (of `features` inputs) are here."""

    axes = 2  # of space

    @property
    def steps_within(self) -> int:
        """Steps that it makes out of one image (rows, patches), which `per_step` answers; 0: its steps are the frames."""
        return 0

    def __init__(self, config: SequenceConfig, features: int):
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        self.head = self.build_head(features)

    def build_head(self, features: int) -> nn.Module:
        """From features to outputs."""
        return nn.Linear(features, self.config.outputs)

    @abstractmethod
    def read(self, x_BTCHW: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        """(features_BTD after every step, features_BD after the last valid step); invalid steps of `x_BTCHW` are 0."""

    @abstractmethod
    def reading_flops(self, steps: int) -> int:
        """Operations of `read` for one sample of `steps` steps, all valid."""

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self.config.bands, self.config.height, self.config.width

    @property
    def stride_px(self) -> tuple[int, ...]:
        return (1,) * self.axes

    def halo_px(self, steps: int) -> Halo:
        return None

    def describe(self) -> Description:
        """See `models.sequence_model.rebuild_network`."""
        return asdict(self.config)

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        batch, steps = shape[:2]
        answers = (self.steps_within or steps) if self.config.per_step else 1
        return batch * (self.reading_flops(steps) + layer_flops(self.head, 0, rows=answers))

    def forward(self, x_BTCHW: Tensor, valid_BT: Tensor) -> Tensor:
        """y_BK, with `per_step` y_BTK. `x_BTCHW` is standardised, `valid_BT` bool. Raises ValueError for other shapes."""
        self.require_shapes(x_BTCHW, valid_BT)
        seen_BT1HW = over_space(valid_BT, 1 + self.axes)
        each_BTD, last_BD = self.read(torch.where(seen_BT1HW, x_BTCHW, 0), valid_BT)
        y: Tensor = self.head(self.dropout(each_BTD if self.config.per_step else last_BD))
        return y

    def require_shapes(self, x_BTCHW: Tensor, valid_BT: Tensor) -> None:
        """Raises ValueError if these are no sequences of this network's frames."""
        bands, *space = self.frame_shape
        if x_BTCHW.ndim != 3 + self.axes or tuple(x_BTCHW.shape[2:]) != self.frame_shape or not x_BTCHW.shape[1]:
            expected = f"(samples, steps, {bands} bands, {', '.join(f'{side} px' for side in space)})"
            raise ValueError(f"{self.config.kind} expects {expected}, got {tuple(x_BTCHW.shape)}")
        if valid_BT.shape != x_BTCHW.shape[:2] or valid_BT.dtype != torch.bool:
            found = f"{valid_BT.dtype} {tuple(valid_BT.shape)}"
            raise ValueError(f"{self.config.kind} expects a bool (samples, steps) = {tuple(x_BTCHW.shape[:2])}, got {found}")

    def require_one_image(self, x_BTCHW: Tensor) -> None:
        """Raises ValueError for more than one step."""
        if x_BTCHW.shape[1] != 1:
            raise ValueError(
                f"{self.config.kind} makes a sequence out of one image, got {x_BTCHW.shape[1]} frames:"
                " keep one frame, or choose a network of series such as cnn_lstm"
            )


class FrameEncoder(nn.Module):
    """A vector per frame of the sides `space`: at each scale a convolution of 3, GroupNorm over the frame and ReLU; between the
    scales max pooling by 2 (an odd side is rounded up); at the end the mean over space (Lin et al. 2013, arXiv:1312.4400, section
    3.2). That does not say where something is: with `grid` > 1 it is a mean for each of so many parts along every axis.

    Raises ValueError for more parts than the last scale has pixels.
    """

    def __init__(self, inputs: int, widths: Sequence[int], space: Sequence[int], grid: int = 1):
        super().__init__()
        last = pooled(space, len(widths) - 1)
        if not 1 <= grid <= min(last):
            sides, scales = " x ".join(map(str, last)), len(widths)
            raise ValueError(
                f"a grid of {grid} does not fit {sides} px, the last of {scales} scales: a smaller grid or fewer widths"
            )
        self.space, self.grid = tuple(space), grid
        before = [inputs, *widths[:-1]]
        convolution = CONVOLUTIONS[len(space)]
        self.layers = nn.ModuleList(convolution(before[i], width, 3, padding=1) for i, width in enumerate(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for width in widths)
        self.outputs = widths[-1] * grid ** len(space)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, outputs)."""
        for scale, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            x_NCHW = x_NCHW if scale == 0 else POOLINGS[len(self.space)](x_NCHW, 2, ceil_mode=True)
            x_NCHW = torch.relu(norm(layer(x_NCHW)))
        if self.grid == 1:
            return x_NCHW.flatten(2).mean(2)
        for axis in range(2, x_NCHW.ndim):  # PyTorch's adaptive pooling is not deterministic on a GPU
            parts = x_NCHW.tensor_split(self.grid, axis)
            x_NCHW = torch.cat([part.mean(axis, keepdim=True) for part in parts], axis)
        return x_NCHW.flatten(1)

    def each(self, x_BTCHW: Tensor) -> Tensor:
        """(B, T, outputs): the same encoder for every step (time-distributed)."""
        encoded_BTD: Tensor = self(x_BTCHW.flatten(0, 1)).unflatten(0, x_BTCHW.shape[:2])
        return encoded_BTD

    def flops(self) -> int:
        """Operations for one frame."""
        return sum(layer_flops(layer, math.prod(pooled(self.space, scale))) for scale, layer in enumerate(self.layers))


def pooled(shape_yx: Sequence[int], times: int) -> tuple[int, ...]:
    """The sides after max pooling by 2, `times` times, rounded up.

    >>> pooled((28, 5), 2)
    (7, 2)
    """
    return tuple(-(-side // 2**times) for side in shape_yx)
