"""Windows of a finished cache as a torch Dataset: samples, batches, shuffling by shape, augmentation.

Axes are in the names: an array whose name ends in `HW` is an image and is augmented.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from pipelines.samples.plan import WindowPlan
from pipelines.samples.storage import map_file

Batch = dict[str, torch.Tensor]


class Group:
    """Windows of one part and shape: `numbers` in the plan, `slots` of their blocks, and the arrays, mapped on first use.

    Pickled as paths, so worker processes map the files themselves.
    """

    def __init__(self, part: str, numbers: tuple[int, ...], slots: tuple[int, ...], paths: dict[str, Path]):
        self.part, self.numbers, self.slots, self.paths = part, numbers, slots, paths

    def __getstate__(self) -> dict[str, object]:
        return {name: self.__dict__[name] for name in ("part", "numbers", "slots", "paths")}

    @cached_property
    def values(self) -> np.ndarray:
        """(blocks, N, C, H, W) float32."""
        return map_file(self.paths["values"])

    @cached_property
    def valid(self) -> np.ndarray:
        """(blocks, N, H, W) bool."""
        return map_file(self.paths["valid"])

    @cached_property
    def prepared(self) -> dict[str, np.ndarray]:
        """Results of `prepare`, (windows, ...) each."""
        return {n.removeprefix("prepared-"): map_file(path) for n, path in self.paths.items() if n.startswith("prepared-")}

    @cached_property
    def slot_W(self) -> np.ndarray:
        """Block of each window."""
        return np.array(self.slots, np.int64)

    @property
    def shape_yx(self) -> tuple[int, int]:
        return self.values.shape[-2], self.values.shape[-1]


class PartSamples(Dataset[Batch]):
    """The windows of a part. `samples[i]` and `samples.gather(indices)` give dicts of tensors: the results of `prepare`, or
    `x_TCHW` and `valid_THW` of the context if the cache was built without it; and `target_KCHW`, `target_valid_KHW` and
    `target_seconds_K` (int64, since 1970-01-01 UTC: which windows share a target date).

    With `augment` each window is augmented by one of the 8 symmetries of the square (4 if it is not square), drawn from
    (seed, epoch, index).
    """

    def __init__(self, plan: WindowPlan, groups: list[Group], *, augment: bool = False, seed: int = 0):
        self.groups, self.augment, self.seed, self.epoch = groups, augment, seed, 0
        self._drawn: tuple[int, np.ndarray] | None = None
        rows_of = sorted((number, g, row) for g, group in enumerate(groups) for row, number in enumerate(group.numbers))
        self.group_W = np.array([g for _, g, _ in rows_of], np.int64)
        self.row_W = np.array([row for _, _, row in rows_of], np.int64)
        self.context_WT = np.array([plan.windows[number].context_T for number, _, _ in rows_of], np.int64)
        self.target_WK = np.array([plan.windows[number].target_K for number, _, _ in rows_of], np.int64)
        days_WK = np.array([plan.windows[number].target_days_K for number, _, _ in rows_of], np.float64)
        self.target_seconds_WK = np.round(days_WK * 86_400).astype(np.int64)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(H, W) of each window; windows of one shape can share a batch."""
        return [self.groups[g].shape_yx for g in self.group_W]

    def set_epoch(self, epoch: int) -> None:
        """Changes which symmetries are drawn."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.group_W)

    def __getitem__(self, index: int) -> Batch:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        return {name: tensor[0] for name, tensor in self.gather([index % len(self)]).items()}

    def __getitems__(self, indices: list[int]) -> list[Batch]:
        """Several windows at once, of any shapes: torch's DataLoader requests batches through this method."""
        found: dict[int, Batch] = {}
        group_B = self.group_W[indices]
        for g in np.unique(group_B):
            mine = [index for index, group in zip(indices, group_B, strict=True) if group == g]
            batch = self.gather(mine)
            found |= {index: {name: tensor[b] for name, tensor in batch.items()} for b, index in enumerate(mine)}
        return [found[index] for index in indices]

    def gather(self, indices: list[int]) -> Batch:
        """A batch of windows of one shape, from any blocks, as dict of tensors with a leading B. Copies.

        Raises ValueError if the shapes differ.
        """
        chosen = np.asarray(indices, np.int64)
        which = np.unique(self.group_W[chosen])
        if len(which) != 1:
            raise ValueError("windows of different shapes cannot share a batch: use ShapeBatches, or a batch size of 1")
        group, row_B = self.groups[which[0]], self.row_W[chosen]
        slot_B = group.slot_W[row_B]
        arrays = {name: array[row_B] for name, array in group.prepared.items()}
        if not arrays:
            arrays["x_TCHW"], arrays["valid_THW"] = cut_steps(group, slot_B, self.context_WT[chosen])
        arrays["target_KCHW"], arrays["target_valid_KHW"] = cut_steps(group, slot_B, self.target_WK[chosen])
        arrays["target_seconds_K"] = self.target_seconds_WK[chosen]
        if self.augment:
            augment_each(arrays, self.symmetries(chosen), group.shape_yx)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def symmetries(self, indices: np.ndarray) -> np.ndarray:
        """The symmetry (0 to 7, 0 = identity) of each window in this epoch; independent of the batch."""
        if self._drawn is None or self._drawn[0] != self.epoch:
            self._drawn = self.epoch, np.random.default_rng([self.seed, self.epoch]).integers(8, size=len(self))
        drawn_B: np.ndarray = self._drawn[1][indices]
        return drawn_B


def cut_steps(group: Group, slot_B: np.ndarray, step_BS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(values (B, S, C, H, W), valid (B, S, H, W)) of the steps; 0 and invalid for steps of -1."""
    values = group.values[slot_B[:, None], step_BS]
    valid = group.valid[slot_B[:, None], step_BS]
    empty = step_BS < 0
    if empty.any():
        values[empty], valid[empty] = 0, False
    return values, valid


def augment_each(arrays: dict[str, np.ndarray], symmetry_B: np.ndarray, shape_yx: tuple[int, int]) -> None:
    """Augments each window's images, in place, with its symmetry; see `augmented`."""
    for symmetry in np.unique(symmetry_B[symmetry_B > 0]):
        rows = symmetry_B == symmetry
        for name, array in arrays.items():
            if name.endswith("HW"):
                array[rows] = augmented(array[rows], int(symmetry), shape_yx[0] == shape_yx[1])


def augmented(image: np.ndarray, symmetry: int, is_square: bool) -> np.ndarray:
    """A view of `image` (..., H, W) under one of the 8 symmetries of the square.

    Bit 0 flips the rows, bit 1 the columns, bit 2 swaps the axes (left out if it is not square).
    """
    if symmetry & 1:
        image = image[..., ::-1, :]
    if symmetry & 2:
        image = image[..., ::-1]
    return np.swapaxes(image, -1, -2) if symmetry & 4 and is_square else image


class ShapeBatches(Sampler[list[int]]):
    """Lists of window indices for one epoch: each list of one shape, from many blocks, in an order given by (seed, epoch).

    Use as `DataLoader(samples, batch_sampler=ShapeBatches(...))`, or gather the lists yourself, which is faster.
    """

    def __init__(self, samples: PartSamples, batch: int, *, shuffle: bool = True, seed: int = 0):
        self.samples, self.batch, self.shuffle, self.seed, self.epoch = samples, batch, shuffle, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(-(-count // self.batch) for count in np.bincount(self.samples.group_W) if count)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch])
        lists = []
        for g in np.unique(self.samples.group_W):
            indices = np.flatnonzero(self.samples.group_W == g)
            if self.shuffle:
                indices = order.permutation(indices)
            lists += [indices[start : start + self.batch].tolist() for start in range(0, len(indices), self.batch)]
        return iter([lists[i] for i in order.permutation(len(lists))] if self.shuffle else lists)
