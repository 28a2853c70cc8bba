"""What is measured of the samples that validate, after every epoch and beside the loss: accuracy, error or average precision.

Shapes: B samples, T steps, K classes or numbers; y_BK, or y_BTK with an answer for every step; X boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pipelines.learning.box_metrics import mean_precision, score_boxes
from pipelines.learning.epoch_batches import Batch
from pipelines.learning.member import Score
from pipelines.samples.boxes import COLUMNS, Boxes

MOST_SAMPLES = 1 << 20  # of a batch


def accuracy() -> Score:
    """The share of samples, or of labelled steps, whose most likely class is the known one; all count alike."""
    return Score("accuracy", _right, _share)


def absolute_error(std_K: Tensor) -> Score:
    """Mean absolute error in the unit of the number, which is learnt in standard deviations `std_K`."""
    return Score("mean_absolute_error", partial(_error, std_K.clone()), _share)


def box_precision(decode: Callable[[Tensor], Tensor], classes: int) -> Score:
    """Mean AP50 over the classes with a known box. `decode`: maps y_BTDHW -> boxes_X8 (`pipelines.samples.boxes`)."""
    return Score("ap50", partial(_boxes, decode), partial(_mean_precision, classes))


def exact_match() -> Score:
    """The share of sentences of which every word, given the true words before it, is the most likely one: the greedy sentence."""
    return Score("exact_match", _written, _share)


def mean_of_steps(y: Tensor, valid_BT: Tensor) -> Tensor:
    """y_BK: of answers after every frame the mean over valid ones, of those within one image (rows, patches) over all."""
    if y.ndim == 2:
        return y
    if y.shape[1] != valid_BT.shape[1]:
        return y.mean(1)
    return (y * valid_BT[..., None]).sum(1) / valid_BT.sum(1)[:, None]


def _answered(y: Tensor, batch: Batch) -> Tensor:
    """y of the shape of the target: of samples, or of steps where these have the labels."""
    return y if y.ndim == batch["target"].ndim else mean_of_steps(y, batch["valid_T"])


def _right(y: Tensor, batch: Batch) -> Tensor:
    """(right, known) answers of a batch."""
    target = batch["target"]
    is_right = _answered(y, batch).argmax(-1) == target.argmax(-1)
    is_known = target.sum(-1) > 0
    return torch.stack([(is_right & is_known).sum(), is_known.sum()]).double()


def _written(y_BLK: Tensor, batch: Batch) -> Tensor:
    """(right, all) sentences of a batch."""
    is_right_B = ((y_BLK.argmax(-1) == batch["target"]) | (batch["weight"] == 0)).all(1)
    return torch.stack([is_right_B.sum(), torch.tensor(len(is_right_B), device=is_right_B.device)]).double()


def _error(std_K: Tensor, y: Tensor, batch: Batch) -> Tensor:
    """(sum of the errors, numbers) of a batch."""
    error_BK = (_answered(y, batch) - batch["target"]).abs() * std_K.to(y.device)
    return torch.stack([error_BK.double().sum(), torch.tensor(float(error_BK.numel()), device=y.device).double()])


def _share(parts: Sequence[Tensor]) -> float | None:
    part, whole = torch.stack(list(parts)).sum(0).tolist()
    return part / whole if whole else None


def _boxes(decode: Callable[[Tensor], Tensor], y_BTDHW: Tensor, batch: Batch) -> Tensor:
    """Rows as of `Boxes`: found boxes in valid frames, and known ones with the score -1."""
    found_X8, boxes_BX6 = decode(y_BTDHW).double().cpu(), batch["target"].double().cpu()
    found_X8 = found_X8[batch["valid_T"].cpu()[found_X8[:, 0].long(), found_X8[:, 1].long()]]
    sample_X, place_X = (boxes_BX6[..., 5] >= 0).nonzero(as_tuple=True)
    score_X1 = torch.full((len(sample_X), 1), -1.0, dtype=torch.float64)
    return torch.cat([found_X8, torch.cat([sample_X[:, None].double(), boxes_BX6[sample_X, place_X], score_X1], dim=1)])


def _mean_precision(classes: int, parts: Sequence[Tensor]) -> float | None:
    table_X8 = np.concatenate([np.zeros((0, COLUMNS)), *(part.numpy() for part in parts)])
    table_X8[:, 0] += MOST_SAMPLES * np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    is_known_X = table_X8[:, -1] < 0
    if not is_known_X.any():
        return None
    found, known = Boxes.of_table(table_X8[~is_known_X]), Boxes.of_table(table_X8[is_known_X])
    scored = score_boxes(found, known, dict.fromkeys(table_X8[:, 0].astype(int).tolist(), 0), classes)
    return float(mean_precision(scored, np.ones((1, 1)))[0])
