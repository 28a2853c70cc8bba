"""Folds of spatial blocks: what is tested lies in blocks of which nothing was trained on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from pipelines.errors import RequestError

VALIDATION_PARTS = 5  # one in so many of the blocks that are left chooses epoch and temperature


def blocks_of(place: Sequence[np.ndarray], block_px: int) -> np.ndarray:
    """block_P: the number of the N x N block (of voxels N x N x N) that holds each pixel, from 0, in the order of the axes.

    `place`: an array of indices per axis of space, of `Labels.place`.
    """
    of_axes_AP = np.stack([axis_P // block_px for axis_P in place])
    block_P: np.ndarray = np.unique(of_axes_AP, axis=1, return_inverse=True)[1].ravel()
    return block_P


def assign_folds(block_P: np.ndarray, class_P: np.ndarray, folds: int, seed: int, key: str = "split") -> np.ndarray:
    """fold_P: whole blocks at random, so that every fold has about the same share of every class (Stratified group k-fold).

    Raises RequestError where there are fewer blocks than folds, or fewer labels of the commonest class.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    blocks = len(np.unique(block_P))
    if blocks < folds:
        raise RequestError(
            f"labels lie in {blocks} blocks, too few for {folds} folds; set a smaller {key}.block_px or {key}.folds"
        )
    if (most := int(np.bincount(class_P).max())) < folds:
        raise RequestError(
            f"no class has more than {most} labels, too few for {folds} folds; add labels, or set a smaller {key}.folds"
        )
    fold_P = np.empty(len(block_P), np.int64)
    chosen = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a rare class has fewer labels than there are folds: its figures say so
        for fold, (_, test) in enumerate(chosen.split(class_P, class_P, block_P)):
            fold_P[test] = fold
    return fold_P


def validation_part(
    block_P: np.ndarray, class_P: np.ndarray, fold_P: np.ndarray, fold: int, seed: int, turn: int = 0
) -> np.ndarray:
    """bool_P: the blocks outside `fold` that choose epoch and temperature of its network; at least one block.

    `turn`: which of the parts, so that several networks of a fold are validated on different ones. Raises RequestError.
    """
    others = np.flatnonzero(fold_P != fold)
    commonest = int(np.bincount(class_P[others]).max())
    parts = max(min(VALIDATION_PARTS, len(np.unique(block_P[others])), commonest), 2)
    if turn >= parts:
        raise RequestError(f"split.networks is larger than {parts}, the parts that the other blocks can be validated in")
    inner = assign_folds(block_P[others], class_P[others], parts, seed + fold)
    is_validation_P = np.zeros(len(block_P), bool)
    is_validation_P[others[inner == turn]] = True
    return is_validation_P
