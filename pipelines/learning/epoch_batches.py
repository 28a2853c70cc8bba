"""The batches of an epoch, a function of (seed, epoch)."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch

Batch = dict[str, torch.Tensor]  # each with a leading axis of samples
FILLED_UP = "filled_up"  # of several ranks: whether a sample is there for equal sizes only


class WindowSet(Protocol):
    """Windows of one part, as `pipelines.samples` gives them.

    `shapes` has one hashable per window (windows of equal shape may share a batch); `gather(indices)` is a dict of tensors
    with a leading B, of which `train` reads target and weight; `set_epoch` changes the augmentation, if there is any.
    """

    @property
    def shapes(self) -> Sequence[Any]: ...
    def __len__(self) -> int: ...
    def gather(self, indices: list[int]) -> Batch: ...
    def set_epoch(self, epoch: int) -> None: ...


class EpochBatches:
    """The batches of one epoch, an iterable with a length.

    Not a torch DataLoader: windows come out of memory maps in microseconds, so worker processes cost more than they
    give, and resuming needs the order of epoch e without having lived through the epochs before it.

    With `world` > 1 every batch is divided among the ranks (short ones are filled up from their own start, as FILLED_UP says), so
    the number of optimiser steps does not depend on the number of devices.
    """

    def __init__(self, windows: WindowSet, batch: int, seed: int, *, shuffle: bool):
        self.windows, self.batch, self.seed, self.shuffle = windows, batch, seed, shuffle
        self.epoch, self.rank, self.world = 0, 0, 1
        groups: dict[Any, list[int]] = {}
        for index, shape in enumerate(windows.shapes):
            groups.setdefault(shape, []).append(index)
        self.groups = [np.array(group) for group in groups.values()]

    def __len__(self) -> int:
        return sum(-(-len(group) // self.batch) for group in self.groups)

    def __iter__(self) -> Iterator[Batch]:
        # members share the windows: each sees symmetries of its own
        self.windows.set_epoch(int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0]))
        for indices in self.indices():
            size = -(-len(indices) // self.world) * self.world
            batch = self.windows.gather(np.resize(indices, size)[self.rank :: self.world].tolist())
            if self.world > 1:
                batch = batch | {FILLED_UP: torch.arange(self.rank, size, self.world) >= len(indices)}
            yield batch

    def indices(self) -> list[np.ndarray]:
        """The window indices of each batch of this epoch, over all ranks."""
        order = np.random.default_rng([self.seed, self.epoch])
        batches = []
        for group in self.groups:
            shuffled = order.permutation(group) if self.shuffle else group
            batches += [shuffled[start : start + self.batch] for start in range(0, len(group), self.batch)]
        return [batches[i] for i in order.permutation(len(batches))] if self.shuffle else batches
