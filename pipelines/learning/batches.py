"""Windows in, batches out: same-shape groups in an order that depends on (seed, epoch) alone.

A batch is a dict of tensors with a leading B. The suffix of a key names its other axes (`target_KCHW` holds
(B, K, C, H, W)); keys that end in `HW` are images and take part in augmentation, the rest are left as they are.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch

Batch = dict[str, torch.Tensor]


class WindowSet(Protocol):
    """A map-style data set: `len(set)` windows, `set[i]` a dict of tensors without the leading B.

    Two things are used where they exist: `shapes` (one hashable per window; windows of equal shape may share a batch;
    otherwise every window is read once to learn it) and `__getitems__(indices)`, which returns the windows as a list.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


class EpochBatches:
    """The batches of one epoch, an iterable with a length.

    Not a torch DataLoader: windows come out of memory maps in microseconds, so worker processes cost more than they
    give, and resuming needs the order of epoch e without having lived through the epochs before it.

    With `world` > 1 every global batch is dealt to the ranks (short ones are filled up from their own start), so the
    number of optimiser steps does not depend on the number of devices.
    """

    def __init__(self, windows: WindowSet, batch: int, seed: int, *, shuffle: bool, augment: bool = False):
        self.windows, self.batch, self.seed = windows, batch, seed
        self.shuffle, self.augment = shuffle, augment
        self.epoch, self.rank, self.world = 0, 0, 1
        self.groups = _group_by_shape(windows)

    def __len__(self) -> int:
        return sum(-(-len(group) // self.batch) for group in self.groups)

    def __iter__(self) -> Iterator[Batch]:
        turns = np.random.default_rng([self.seed, self.epoch, 1])
        for indices in self.indices():
            symmetry = int(turns.integers(8)) if self.augment else 0
            mine = np.resize(indices, -(-len(indices) // self.world) * self.world)[self.rank :: self.world]
            yield turn(collate(_read(self.windows, mine.tolist())), symmetry)

    def indices(self) -> list[np.ndarray]:
        """The window indices of each batch of this epoch, over all ranks."""
        order = np.random.default_rng([self.seed, self.epoch, 0])
        batches = []
        for group in self.groups:
            shuffled = order.permutation(group) if self.shuffle else group
            batches += [shuffled[start : start + self.batch] for start in range(0, len(group), self.batch)]
        if self.shuffle:
            batches = [batches[i] for i in order.permutation(len(batches))]
        return batches


def collate(windows: list[Mapping[str, Any]]) -> Batch:
    """Windows stacked along a new first axis; values may be tensors, arrays or numbers."""
    return {key: torch.stack([torch.as_tensor(window[key]) for window in windows]) for key in windows[0]}


def turn(batch: Batch, symmetry: int) -> Batch:
    """The batch under one of the 8 symmetries of the square (0 is the identity); a view where torch allows.

    Odd symmetries transpose, which only square windows bear: for others the transposition is left out.
    """
    if symmetry == 0:
        return batch
    flips = [axis for axis, bit in ((-2, 2), (-1, 4)) if symmetry & bit]
    return {key: _turn_image(value, flips, symmetry & 1 == 1) if key.endswith("HW") else value for key, value in batch.items()}


def _turn_image(image: torch.Tensor, flips: list[int], is_transposed: bool) -> torch.Tensor:
    flipped = image.flip(flips) if flips else image
    is_square = image.shape[-1] == image.shape[-2]
    return flipped.transpose(-1, -2).contiguous() if is_transposed and is_square else flipped


def _group_by_shape(windows: WindowSet) -> list[np.ndarray]:
    shapes = getattr(windows, "shapes", None)
    if shapes is None:
        shapes = [tuple(sorted((key, tuple(np.shape(value))) for key, value in windows[i].items())) for i in range(len(windows))]
    groups: dict[Any, list[int]] = {}
    for index, shape in enumerate(shapes):
        groups.setdefault(shape, []).append(index)
    return [np.array(group) for group in groups.values()]


def _read(windows: WindowSet, indices: list[int]) -> list[Mapping[str, Any]]:
    many = getattr(windows, "__getitems__", None)
    return many(indices) if many is not None else [windows[i] for i in indices]
