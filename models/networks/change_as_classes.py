"""A change network as one of two classes: not changed (a logit of 0) and changed (the network's own logit).

Softmax of (0, l) is the sigmoid of l, so probabilities, losses and gradients are those of `task: change`. Shapes as in
`models.blocks.segment`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.blocks.segment import ScaledConfig, SegmentNetwork
from models.change_detector import rebuild_network
from models.contract import Halo


@dataclass(frozen=True)
class ChangeAsClassesConfig(ScaledConfig):
    """`kind`: one of `models.change_detector.KINDS`. `recurrence`: of siamese_dcrn."""

    recurrence: str = "convlstm"


class ChangeAsClasses(SegmentNetwork):
    config: ChangeAsClassesConfig

    def __init__(self, config: ChangeAsClassesConfig):
        super().__init__(config)
        if config.classes != 2:
            raise ValueError(f"{config.kind} tells two classes apart, there are {config.classes}")
        of_kind = {"recurrence": config.recurrence} if config.kind == "siamese_dcrn" else {}
        shared = {"kind": config.kind, "bands": config.bands, "widths": config.widths, "dropout": config.dropout}
        self.network = rebuild_network({**shared, **of_kind})

    @property
    def stride_px(self) -> tuple[int, ...]:
        return self.network.stride_px

    def halo_px(self, steps: int) -> Halo:
        return self.network.halo_px(steps)

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        return self.network.flops(shape, targets)

    def forward(self, x_BTCHW: Tensor, valid_BTHW: Tensor, years_BT: Tensor) -> Tensor:
        logit_B1HW = self.network(x_BTCHW, valid_BTHW, torch.diff(years_BT, prepend=years_BT[:, :1]))
        return torch.cat([torch.zeros_like(logit_B1HW), logit_B1HW], dim=1)
