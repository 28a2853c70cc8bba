"""A U-Net whose bottleneck is a ConvGRU, ConvLSTM or DCRN layer over the dates; the skips carry the mean of the dates.

Rußwurm & Körner 2018, arXiv:1802.02080 (convolutional recurrence over satellite series), with the encoder and decoder of a U-Net
(Ronneberger et al. 2015, arXiv:1505.04597) around it. A cell without valid pixels on a date keeps its state and does not count in
the mean. Shapes as in `models.blocks.segment`; of volumes all convolutions are 3-D, and no scale halves the slices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from models.blocks.segment import ScaledConfig, ScaledNetwork, mean_of_seen
from models.cells.conv_gru import ConvGRU
from models.cells.convlstm import ConvLSTM
from models.cells.dcrn import DCRN
from models.contract import layer_flops

STACKS: dict[str, type[ConvGRU] | type[ConvLSTM] | type[DCRN]]
STACKS = {"unet_convgru": ConvGRU, "unet_convlstm": ConvLSTM, "unet_dcrn": DCRN}


@dataclass(frozen=True)
class RecurrentUNetConfig(ScaledConfig):
    """`kind`: of `STACKS`."""

    kernel: int = 3  # of the cell, odd


class RecurrentUNet(ScaledNetwork):
    config: RecurrentUNetConfig

    def __init__(self, config: RecurrentUNetConfig):
        super().__init__(config)
        self.bottleneck = STACKS[config.kind](config.widths[-1], [config.widths[-1]], config.kernel, axes=config.axes)

    def lateral_cells(self, dates: int) -> int:
        """One convolution a date; two of a ConvGRU, whose candidate reads the reset state, after the first date."""
        return (self.config.kernel // 2) * (2 * dates - 1 if self.config.kind == "unet_convgru" else dates)

    def joining_flops(self, pixels: int, dates: int) -> int:
        return dates * layer_flops(self.bottleneck, pixels >> 2 * (len(self.config.widths) - 1))

    def join_dates(self, features: Sequence[Tensor], seen: Sequence[Tensor], years_BT: Tensor) -> Sequence[Tensor]:
        skips = [mean_of_seen(one, mark) for one, mark in zip(features[:-1], seen[:-1], strict=True)]
        outputs_BTDHW, _ = self.bottleneck(features[-1], valid_BT1HW=seen[-1])
        return [*skips, outputs_BTDHW[:, -1]]
