"""Objects as points: maps of centres, sizes and offsets, what they are learnt from, and the boxes that they mean.

Zhou et al. 2019, "Objects as Points", arXiv:1904.07850. In cells of `STRIDE` pixels: a heat map of each class, whose target is 1
at the cell of a centre and falls off as a Gaussian around it (their section 3); height and width of the box, and where in its
cell the centre lies, known at the cells of centres alone and shared by the classes.

Boxes lie in pixels of the frame as edges: a box of one pixel at row 0 reaches from 0 to 1. Shapes: B samples, T frames, K
classes, H, W cells, D = K + `GEOMETRY` channels (logits of the classes; height, width; offset in y, x), N boxes, X places for
boxes of a sample. `boxes_BX6`: frame, top, left, bottom, right, class; class -1: no box at this place.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor

STRIDE = 4  # pixels of a cell, their R
GEOMETRY = 4  # channels beside the heat maps
OVERLAP = 0.7  # of a box with itself moved by the radius of its Gaussian (Law & Deng 2018, arXiv:1808.01244, section 3.2)
LEAST_SPREAD = 0.5  # cells; the Gaussian of a small box would be a single cell
PRIOR = 0.1  # of a centre in the untrained network, their initial bias of -2.19


@dataclass(frozen=True)
class Centres:
    """The boxes of a batch in cells: `sample_N`, `frame_N`, `class_N`, the cell (`row_N`, `column_N`) and the channels there."""

    sample_N: Tensor
    frame_N: Tensor
    class_N: Tensor
    row_N: Tensor
    column_N: Tensor
    geometry_N4: Tensor


def centres_of(boxes_BX6: Tensor, shape_HW: tuple[int, int]) -> Centres:
    """The centres of the boxes, each in the cell that holds it."""
    sample_N, place_N = (boxes_BX6[..., 5] >= 0).nonzero(as_tuple=True)
    boxes_N6 = boxes_BX6[sample_N, place_N].float()
    top, left, bottom, right = (boxes_N6[:, 1:5] / STRIDE).unbind(1)
    y_N, x_N = (top + bottom) / 2, (left + right) / 2
    row_N, column_N = (one.floor().clamp(0, side - 1).long() for one, side in zip((y_N, x_N), shape_HW, strict=True))
    geometry_N4 = torch.stack([bottom - top, right - left, y_N - row_N, x_N - column_N], dim=1)
    return Centres(sample_N, boxes_N6[:, 0].long(), boxes_N6[:, 5].long(), row_N, column_N, geometry_N4)


def spread_of(geometry_N4: Tensor) -> Tensor:
    """Standard deviation of the Gaussian of each box, cells: a third of the shift along both axes that leaves `OVERLAP`."""
    height, width = geometry_N4[:, 0], geometry_N4[:, 1]
    shared = 2 * OVERLAP / (1 + OVERLAP)  # of the area of one box, where the intersection over union is OVERLAP
    total = height + width
    radius = (total - (total.square() - 4 * height * width * (1 - shared)).sqrt()) / 2
    return (radius / 3).clamp(min=LEAST_SPREAD)


def heat_of(centres: Centres, shape: tuple[int, int, int, int, int]) -> Tensor:
    """heat_BTKHW for `shape` (B, T, K, H, W): 1 at centres; where Gaussians of a class overlap, the larger value."""
    *outer, height, width = shape
    rows_H, columns_W = (torch.arange(side, device=centres.row_N.device) for side in (height, width))
    away_NHW = (rows_H[:, None] - centres.row_N[:, None, None]) ** 2 + (columns_W - centres.column_N[:, None, None]) ** 2
    heat_NHW = torch.exp(-away_NHW / (2 * spread_of(centres.geometry_N4)[:, None, None] ** 2))
    number_N = (centres.sample_N * outer[1] + centres.frame_N) * outer[2] + centres.class_N
    flat = heat_NHW.new_zeros(outer[0] * outer[1] * outer[2], height * width)
    at = number_N[:, None].expand(-1, height * width)
    return flat.scatter_reduce(0, at, heat_NHW.flatten(1), "amax").reshape(shape)


def decode_boxes(y_BTDHW: Tensor, shape_yx: tuple[int, int], most: int, least: float) -> Tensor:
    """boxes_N8: sample, frame, top, left, bottom, right, class, score; at most `most` of a frame, of at least the score `least`.

    A box stands at each cell whose value is the largest of its 3 x 3 neighbours (their section 4); no other suppression. Boxes
    are cut at the frame of `shape_yx` pixels. Sorted by sample, frame and falling score.
    """
    classes, (height, width) = y_BTDHW.shape[2] - GEOMETRY, y_BTDHW.shape[-2:]
    p_BTKHW = torch.sigmoid(y_BTDHW[:, :, :classes].float())
    highest = F.max_pool2d(p_BTKHW.flatten(0, 1), 3, stride=1, padding=1).reshape(p_BTKHW.shape)
    peaks_BTX = torch.where(p_BTKHW == highest, p_BTKHW, 0).flatten(2)
    score_BTX, at_BTX = peaks_BTX.topk(min(most, peaks_BTX.shape[-1]), dim=-1)
    sample_N, frame_N, place_N = (score_BTX >= max(least, 1e-9)).nonzero(as_tuple=True)
    at_N, cell_N = at_BTX[sample_N, frame_N, place_N], at_BTX[sample_N, frame_N, place_N] % (height * width)
    row_N, column_N = cell_N // width, cell_N % width
    tall, wide, down, across = y_BTDHW[sample_N, frame_N, classes:, row_N, column_N].float().unbind(1)
    half_y, half_x = tall.clamp(min=1 / STRIDE) / 2, wide.clamp(min=1 / STRIDE) / 2
    y_N, x_N = row_N + down.clamp(0, 1), column_N + across.clamp(0, 1)
    edges_N4 = STRIDE * torch.stack([y_N - half_y, x_N - half_x, y_N + half_y, x_N + half_x], dim=1)
    edges_N4 = torch.minimum(edges_N4.clamp(min=0), edges_N4.new_tensor((*shape_yx, *shape_yx)))
    columns = [sample_N, frame_N, *edges_N4.unbind(1), at_N // (height * width), score_BTX[sample_N, frame_N, place_N]]
    return torch.stack([one.float() for one in columns], dim=1)
