"""Which object of one date is which of the next: by overlap, and by distance where objects move.

P objects before, C objects now; numbers are zero-based.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from pipelines.tracking.objects import Shapes


@dataclass(frozen=True)
class Matches:
    """`follows[c] = p`: object c now is object p before, one to one. `merged[p] = c`: p ended and lies in c.
    `split[c] = p`: c is new and lies where p was. What is in none of them is new, or gone."""

    follows: dict[int, int]
    merged: dict[int, int]
    split: dict[int, int]


def match_objects(
    before: Shapes,
    now: Shapes,
    label_before: np.ndarray,
    label_now: np.ndarray,
    steps_before: np.ndarray,
    steps_now: np.ndarray,
    *,
    least_overlap: float,
    farthest: float | None,
) -> Matches:
    """The assignment with the largest total overlap in pixels; with `farthest`, the one with the least squared movement.

    Two objects overlap if they share at least `least_overlap` of the smaller one's pixels. `farthest`: how far a centroid may
    move between two dates, in the unit of `steps` (true pixel lengths at the centroids, (P, D) and (C, D)); not to be matched
    costs as much as that movement. Overlapping objects may be matched beyond it, at its price.
    """
    pairs, overlap = overlaps(label_before, label_now)
    smaller = np.minimum(before.pixels_N[pairs[:, 0]], now.pixels_N[pairs[:, 1]])
    is_linked = overlap >= least_overlap * smaller
    pairs, overlap = pairs[is_linked], overlap[is_linked]
    gain = {(int(p), int(c)): float(n) for (p, c), n in zip(pairs, overlap, strict=True)}
    links = dict(gain)
    if farthest is not None:
        near = dict(_near(before, now, steps_before, steps_now, farthest))
        # 1 % of the price keeps an overlapping pair that moved farther just above not being matched
        gain = {pair: max(1 - near.get(pair, 1.0) ** 2, 0.01) for pair in {*gain, *near}}
    follows = _assign(gain, len(before), len(now))
    taken = set(follows.values())
    merged, split = {}, {}
    for (p, c), _ in sorted(links.items(), key=lambda link: (link[1], link[0])):  # the largest overlap comes last and stays
        if p not in taken:
            merged[p] = c
        if c not in follows:
            split[c] = p
    return Matches(follows, merged, split)


def overlaps(label_before: np.ndarray, label_now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((K, 2) pairs of zero-based object numbers that share pixels, (K,) how many), sorted."""
    both = (label_before > 0) & (label_now > 0)
    stride = int(label_now.max(initial=0)) + 1
    code, count = np.unique(label_before[both].astype(np.int64) * stride + label_now[both], return_counts=True)
    return np.stack([code // stride, code % stride], axis=1) - 1, count


def _near(
    before: Shapes, now: Shapes, steps_before: np.ndarray, steps_now: np.ndarray, farthest: float
) -> Iterator[tuple[tuple[int, int], float]]:
    """((p, c), movement / farthest) of the pairs whose centroids are at most `farthest` apart."""
    if not len(before) or not len(now):
        return
    radius = farthest / min(steps_before.min(), steps_now.min())  # in pixels: never too small
    candidates = cKDTree(before.centroid_ND).query_ball_tree(cKDTree(now.centroid_ND), radius)
    for p, close in enumerate(candidates):
        for c in close:
            steps = (steps_before[p] + steps_now[c]) / 2
            moved = float(np.linalg.norm((now.centroid_ND[c] - before.centroid_ND[p]) * steps))
            if moved <= farthest:
                yield (p, c), moved / farthest


def _assign(gain: dict[tuple[int, int], float], count_before: int, count_now: int) -> dict[int, int]:
    """now -> before with the largest total gain; solved for each group of objects that are linked at all."""
    if not gain:
        return {}
    pairs = np.array(sorted(gain))
    p, c = pairs.T
    total = count_before + count_now
    graph = coo_matrix((np.ones(len(pairs), bool), (p, count_before + c)), (total, total))
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group[p], kind="stable")
    follows = {}
    for members in np.split(order, np.flatnonzero(np.diff(group[p][order])) + 1):
        rows, row = np.unique(p[members], return_inverse=True)
        columns, column = np.unique(c[members], return_inverse=True)
        dense = np.zeros((len(rows), len(columns)))
        dense[row, column] = [gain[int(p[k]), int(c[k])] for k in members]
        for i, j in zip(*linear_sum_assignment(dense, maximize=True), strict=True):
            if dense[i, j] > 0:
                follows[int(columns[j])] = int(rows[i])
    return follows
