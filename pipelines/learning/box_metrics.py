"""How well boxes are found: average precision at an overlap of half (AP50), precision and recall, with intervals over groups.

torchmetrics needs packages for it that have no place here, so the few lines are own, as in Everingham et al. 2010, "The Pascal
visual object classes (VOC) challenge", section 4.2: boxes of a class, the surest first, are right where they overlap a known box
of the class in the same frame, by an intersection over union of at least `OVERLAP`, that no surer box has taken (the best of
those that are left, as COCO does); average precision is the area below precision over recall, precision made
decreasing. The mean is over classes with a known box.

Shapes: X boxes, G groups, K classes, R rows of weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pipelines.learning.intervals import Interval, jackknife
from pipelines.samples.boxes import Boxes, overlap

OVERLAP = 0.5
MOST_PARTS = 200  # of the groups, of which each is left out for an interval; more groups are joined to so many parts
UNDEFINED = ("no box is known", "only one group has such boxes")


@dataclass(frozen=True)
class Scored:
    """The found boxes, the surest first, and whether each is right; `known_GK`: known boxes."""

    score_X: np.ndarray
    is_right_X: np.ndarray
    class_X: np.ndarray
    group_X: np.ndarray
    known_GK: np.ndarray


def score_boxes(found: Boxes, known: Boxes, group_of: Mapping[int, int], classes: int) -> Scored:
    """`group_of`: sample -> its group, numbered from 0; boxes of other samples do not count."""
    groups = max(group_of.values()) + 1
    left: dict[tuple[int, int, int], list[list[float]]] = defaultdict(list)
    known_GK = np.zeros((groups, classes))
    for sample, frame, name, edges in zip(*_lists(known), strict=True):
        if sample in group_of:
            left[sample, frame, name].append(edges)
            known_GK[group_of[sample], name] += 1
    order = np.argsort(-found.score_X, kind="stable")
    order = order[np.isin(found.sample_X[order], list(group_of))]
    surest = found.chosen(order)
    is_right = np.zeros(len(surest), bool)
    for n, (sample, frame, name, edges) in enumerate(zip(*_lists(surest), strict=True)):
        there = left.get((sample, frame, name), [])
        shared = [overlap(edges, one) for one in there]
        if shared and max(shared) >= OVERLAP:
            there.pop(shared.index(max(shared)))
            is_right[n] = True
    group_X = np.array([group_of[sample] for sample in surest.sample_X.tolist()], np.int64)
    return Scored(surest.score_X, is_right, surest.class_X, group_X, known_GK)


def _lists(boxes: Boxes) -> tuple[list[int], list[int], list[int], list[list[float]]]:
    return boxes.sample_X.tolist(), boxes.frame_X.tolist(), boxes.class_X.tolist(), boxes.edges_X4.tolist()


def average_precision(is_right_X: np.ndarray, weight_X: np.ndarray, known: float) -> float:
    """Of one class, the surest box first; NaN where `known`, the (weighted) number of known boxes, is 0.

    >>> average_precision(np.array([True, False, True]), np.ones(3), 2)  # precision 1 up to half of them, then 2/3
    0.8333333333333333
    """
    if known <= 0:
        return float("nan")
    right_X = np.cumsum(weight_X * is_right_X)
    total_X = np.maximum(np.cumsum(weight_X), 1e-12)
    best_X = np.maximum.accumulate((right_X / total_X)[::-1])[::-1]
    return float((np.diff(right_X, prepend=0.0) * best_X).sum() / known)


def class_precisions(scored: Scored, weights_RG: np.ndarray) -> np.ndarray:
    """AP of each class for each row of weights of the groups, (R, K)."""
    known_RK = weights_RG @ scored.known_GK
    found = np.full(known_RK.shape, np.nan)
    for k in range(known_RK.shape[1]):
        own = scored.class_X == k
        is_right, group = scored.is_right_X[own], scored.group_X[own]
        found[:, k] = [
            average_precision(is_right, weight_G[group], known)
            for weight_G, known in zip(weights_RG, known_RK[:, k], strict=True)
        ]
    return found


def mean_precision(scored: Scored, weights_RG: np.ndarray) -> np.ndarray:
    """Mean AP over the classes with a known box, (R,); NaN without any."""
    of_class_RK = class_precisions(scored, weights_RG)
    is_known_RK = np.isfinite(of_class_RK)
    total_R = np.where(is_known_RK, of_class_RK, 0).sum(axis=1)
    mean_R: np.ndarray = np.where(is_known_RK.any(axis=1), total_R / np.maximum(is_known_RK.sum(axis=1), 1), np.nan)
    return mean_R


def one_class(boxes: Boxes) -> Boxes:
    """The boxes as if there were one class: whether things are found, whatever they are."""
    return replace(boxes, class_X=np.zeros_like(boxes.class_X))


def count_boxes(scored: Scored) -> np.ndarray:
    """counts_GK3 of found boxes: right, wrong; and of known boxes that are missed."""
    groups, classes = scored.known_GK.shape
    counts_GK3 = np.zeros((groups, classes, 3))
    for column, chosen in ((0, scored.is_right_X), (1, ~scored.is_right_X)):
        np.add.at(counts_GK3[..., column], (scored.group_X[chosen], scored.class_X[chosen]), 1)
    counts_GK3[..., 2] = scored.known_GK - counts_GK3[..., 0]
    return counts_GK3


def precision_of(sums_R3: np.ndarray) -> np.ndarray:
    """Share of the found boxes that are right, (R,); NaN where none is found."""
    return _share(sums_R3[:, 0], sums_R3[:, 0] + sums_R3[:, 1])


def recall_of(sums_R3: np.ndarray) -> np.ndarray:
    """Share of the known boxes that are found, (R,); NaN where none is known."""
    return _share(sums_R3[:, 0], sums_R3[:, 0] + sums_R3[:, 2])


def _share(part_R: np.ndarray, whole_R: np.ndarray) -> np.ndarray:
    share_R: np.ndarray = np.divide(part_R, whole_R, out=np.full(len(part_R), np.nan), where=whole_R > 0)
    return share_R


def describe_boxes(scored: Scored, published: Scored, classes: Sequence[str], confidence: float) -> dict[str, Any]:
    """JSON values: AP50 of all boxes, precision and recall of those that are published, over all classes and of each."""
    weights_GG, counts_GK3 = np.eye(len(scored.known_GK)), count_boxes(published)

    def counted(counts_G3: np.ndarray) -> dict[str, Any]:
        precision = jackknife(counts_G3, precision_of, confidence, "groups", undefined=("none is found", UNDEFINED[1]))
        recall = jackknife(counts_G3, recall_of, confidence, "groups", undefined=UNDEFINED)
        return {"precision": precision.to_json(), "recall": recall.to_json()}

    def precise(one: Scored) -> dict[str, Any]:
        found = jackknife(weights_GG, partial(mean_precision, one), confidence, "groups", undefined=UNDEFINED)
        return {"ap50": found.to_json()}

    rows = [
        {
            "class": name,
            "known": int(scored.known_GK[:, k].sum()),
            **precise(of_class(scored, k)),
            **counted(counts_GK3[:, k]),
        }
        for k, name in enumerate(classes)
    ]
    return {**precise(scored), **counted(counts_GK3.sum(axis=1)), "classes": rows}


def of_class(scored: Scored, k: int) -> Scored:
    """The boxes of class k alone."""
    own = scored.class_X == k
    zero_X = np.zeros(int(own.sum()), np.int64)
    return Scored(scored.score_X[own], scored.is_right_X[own], zero_X, scored.group_X[own], scored.known_GK[:, k : k + 1])


def gain(ours: Scored, theirs: Scored, confidence: float) -> Interval:
    """Mean AP50 of ours minus theirs, in pairs over the same groups."""

    def statistic(rows_RG: np.ndarray) -> np.ndarray:
        difference_R: np.ndarray = mean_precision(ours, rows_RG) - mean_precision(theirs, rows_RG)
        return difference_R

    return jackknife(np.eye(len(ours.known_GK)), statistic, confidence, "groups", (-1.0, 1.0), UNDEFINED)


def number_groups(group_P: np.ndarray) -> np.ndarray:
    """Groups numbered from 0, at most `MOST_PARTS`: of more, several count as one part."""
    number_P: np.ndarray = np.unique(group_P, return_inverse=True)[1] % MOST_PARTS
    return number_P
