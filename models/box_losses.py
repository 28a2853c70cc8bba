"""The loss of maps of centre points (Zhou et al. 2019, arXiv:1904.07850, section 3), a float32 scalar.

Shapes as in `models.blocks.centre_points`; `weight_BT` >= 0 of each frame: boxes and maps of frames without weight do not count.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor

from models.blocks.centre_points import GEOMETRY, centres_of, heat_of

FOCUS, NEARNESS = 2.0, 4.0  # their alpha and beta, equation 1
SIZE_WEIGHT = 0.4  # their 0.1 for pixels, here of cells of 4 pixels


def focal_l1(y_BTDHW: Tensor, boxes_BX6: Tensor, weight_BT: Tensor) -> Tensor:
    """Focal loss of the heat maps + L1 of the offsets + `SIZE_WEIGHT` L1 of the sizes, over the number of boxes (at least 1)."""
    y_BTDHW = y_BTDHW.float()
    classes, shape_HW = y_BTDHW.shape[2] - GEOMETRY, (y_BTDHW.shape[-2], y_BTDHW.shape[-1])
    centres = centres_of(boxes_BX6, shape_HW)
    logit_BTKHW = y_BTDHW[:, :, :classes]
    heat_BTKHW = heat_of(centres, (*y_BTDHW.shape[:2], classes, *shape_HW))
    log_p, log_q = F.logsigmoid(logit_BTKHW), F.logsigmoid(-logit_BTKHW)
    there = log_q.exp() ** FOCUS * log_p
    elsewhere = (1 - heat_BTKHW) ** NEARNESS * log_p.exp() ** FOCUS * log_q
    each_BT = -torch.where(heat_BTKHW == 1, there, elsewhere).sum((2, 3, 4))
    at = (centres.sample_N, centres.frame_N)
    off_N4 = (y_BTDHW[(*at, slice(classes, None), centres.row_N, centres.column_N)] - centres.geometry_N4).abs()
    weight_N = weight_BT.float()[at]
    geometry = (weight_N * (SIZE_WEIGHT * off_N4[:, :2] + off_N4[:, 2:]).sum(1)).sum()
    return ((each_BT * weight_BT).sum() + geometry) / weight_N.sum().clamp(min=1)
