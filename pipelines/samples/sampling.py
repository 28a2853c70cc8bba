"""Windows of a finished cache: batches of one shape, augmentation.

Axes are in the names: an array whose name ends in `HW` is an image and is augmented.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from pipelines.samples.plan import WindowPlan
from pipelines.samples.storage import map_file

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Group:
    """Windows of one part and shape: `numbers` in the plan, `slots` of their blocks, and the arrays, mapped on first use.

    Pickled as paths, so worker processes map the files themselves.
    """

    part: str
    numbers: tuple[int, ...]
    slots: tuple[int, ...]
    paths: dict[str, Path]

    def __getstate__(self) -> dict[str, object]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

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

    def cut_steps(self, slot_B: np.ndarray, step_BS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(values (B, S, C, H, W), valid (B, S, H, W)) of steps of blocks; 0 and invalid for steps of -1."""
        values, valid = self.values[slot_B[:, None], step_BS], self.valid[slot_B[:, None], step_BS]
        if (empty := step_BS < 0).any():
            values[empty], valid[empty] = 0, False
        return values, valid


class PartSamples:
    """The windows of a part. `samples.gather(indices)` gives a dict of tensors: the results of `prepare`, or `x_TCHW` and
    `valid_THW` of the context if the cache was built without it; and `target_KCHW`, `target_valid_KHW` and
    `target_seconds_K` (int64, since 1970-01-01 UTC: which windows share a target date).

    With `augment` each window is augmented by one of the 8 symmetries of the square (4 if it is not square), drawn from
    (seed, epoch, index).
    """

    def __init__(self, plan: WindowPlan, groups: list[Group], *, augment: bool = False, seed: int = 0):
        self.groups, self.augment, self.seed = groups, augment, seed
        rows_of = sorted((number, g, row) for g, group in enumerate(groups) for row, number in enumerate(group.numbers))
        self.group_W, self.row_W = (np.array([entry[k] for entry in rows_of], np.int64) for k in (1, 2))
        windows = [plan.windows[number] for number, _, _ in rows_of]
        self.context_WT = np.array([window.context_T for window in windows], np.int64)
        self.target_WK = np.array([window.target_K for window in windows], np.int64)
        days_WK = np.array([window.target_days_K for window in windows], np.float64)
        self.target_seconds_WK = np.round(days_WK * 86_400).astype(np.int64)
        self.set_epoch(0)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(H, W) of each window; windows of one shape can share a batch."""
        return [self.groups[g].shape_yx for g in self.group_W]

    def set_epoch(self, epoch: int) -> None:
        """Draws the symmetry (0 to 7, 0 = identity) of each window, whatever batch it comes in."""
        self.symmetry_W = np.random.default_rng([self.seed, epoch]).integers(8, size=len(self))

    def __len__(self) -> int:
        return len(self.group_W)

    def gather(self, indices: list[int]) -> Batch:
        """A batch of windows of one shape, from any blocks, as dict of tensors with a leading B. Copies.

        Raises ValueError if the shapes differ.
        """
        chosen = np.asarray(indices, np.int64)
        which = np.unique(self.group_W[chosen])
        if len(which) != 1:
            raise ValueError("windows of different shapes cannot share a batch: gather those of each shape by themselves")
        group, row_B = self.groups[which[0]], self.row_W[chosen]
        slot_B = group.slot_W[row_B]
        arrays = {name: array[row_B] for name, array in group.prepared.items()}
        if not arrays:
            arrays["x_TCHW"], arrays["valid_THW"] = group.cut_steps(slot_B, self.context_WT[chosen])
        arrays["target_KCHW"], arrays["target_valid_KHW"] = group.cut_steps(slot_B, self.target_WK[chosen])
        arrays["target_seconds_K"] = self.target_seconds_WK[chosen]
        if self.augment:
            symmetry_B, is_square = self.symmetry_W[chosen], group.shape_yx[0] == group.shape_yx[1]
            images = [array for name, array in arrays.items() if name.endswith("HW")]
            for symmetry in np.unique(symmetry_B[symmetry_B > 0]):
                rows = symmetry_B == symmetry
                for image in images:
                    image[rows] = augmented(image[rows], int(symmetry), is_square)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def augmented(image: np.ndarray, symmetry: int, is_square: bool) -> np.ndarray:
    """A view of `image` (..., H, W) under one of the 8 symmetries of the square.

    Bit 0 flips the rows, bit 1 the columns, bit 2 swaps the axes (left out if it is not square).
    """
    if symmetry & 1:
        image = image[..., ::-1, :]
    if symmetry & 2:
        image = image[..., ::-1]
    return np.swapaxes(image, -1, -2) if symmetry & 4 and is_square else image
