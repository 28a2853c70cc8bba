"""A finished sample cache: its windows one by one, in batches of one shape, augmented. `cache` describes the files.

Axes are in the names: an array whose name ends in `HW` is an image and is augmented; one in `2HW` holds vectors (row, column).
"""

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pipelines.calendar import seconds_of
from pipelines.errors import ArtefactDamaged
from pipelines.files import map_file
from pipelines.samples.covariates import Covariates
from pipelines.samples.plan import PARTS, Window, WindowPlan, check_part, from_json
from pipelines.samples.variables import Variable
from pipelines.tiles import Box

FORMAT = 1
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class WindowArrays:
    """One window: the arguments of the forecaster's `forecast`, and the truth.

    H and W are those of the tile with the plan's margin; the target is valid inside the tile only. Tensors over private memory
    maps: all dates of the block, not only the window's (a baseline is fitted on all usable dates). `target_KCHW` is 0 where
    `target_valid_KHW` is False. `covariates` are as of `Covariates.of`, {} without any.
    """

    x_NCHW: torch.Tensor
    valid_NHW: torch.Tensor
    days_N: torch.Tensor
    context_T: torch.Tensor
    usable_N: torch.Tensor
    target_days_K: torch.Tensor
    target_KCHW: torch.Tensor
    target_valid_KHW: torch.Tensor
    tile: Box
    part: str
    covariates: Batch = field(default_factory=dict)

    def arguments(self) -> Batch:
        """The keyword arguments of `forecast` and `prepare`, without covariates, which some forecasters take."""
        names = ("x_NCHW", "valid_NHW", "days_N", "context_T", "usable_N", "target_days_K")
        return {name: getattr(self, name) for name in names}


def window_arrays(
    plan: WindowPlan, window: Window, x_NCHW: np.ndarray, valid_NHW: np.ndarray, covariates: Covariates | None = None
) -> WindowArrays:
    """A window of a decoded block, with copies of its targets; target steps without an observation are 0 and invalid."""
    target = np.array(window.target_K)
    target_valid_KHW = valid_NHW[target] & (target >= 0).reshape(-1, *[1] * (valid_NHW.ndim - 1))
    if plan.split.margin_px:
        target_valid_KHW &= inside_tile(plan, window.tile)
    truth = torch.from_numpy(x_NCHW[target] * target_valid_KHW[:, None]), torch.from_numpy(target_valid_KHW)
    block = torch.from_numpy(x_NCHW), torch.from_numpy(valid_NHW)
    given = covariates.of_window(plan, window) if covariates is not None else {}
    return WindowArrays(*block, *date_tensors(plan, window), *truth, window.tile, window.part, given)


def inside_tile(plan: WindowPlan, tile: Box) -> np.ndarray:
    """Which pixels of what the windows of `tile` see are in the tile, and so are targets; bool (H, W)."""
    box = plan.box_of(tile)
    inside_HW = np.zeros(box.shape, bool)
    inside_HW[tile.within(box)] = True
    return inside_HW


def date_tensors(plan: WindowPlan, window: Window) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(days_N, context_T, usable_N, target_days_K) of a window."""
    context_T = torch.tensor(window.context_T, dtype=torch.int64)
    target_days_K = torch.tensor(window.target_days_K, dtype=torch.float64)
    return torch.from_numpy(plan.days_N), context_T, torch.from_numpy(plan.usable(window)), target_days_K


@dataclass(frozen=True, eq=False)
class Group:
    """Windows of one part and shape: `numbers` in the plan, `slots` of their blocks; arrays are mapped on first use."""

    part: str
    numbers: tuple[int, ...]
    slots: tuple[int, ...]
    paths: dict[str, Path]

    def __getstate__(self) -> dict[str, object]:  # pickled as paths: worker processes map the files themselves
        paths = {name: path.absolute() for name, path in self.paths.items()}
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"paths": paths}

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
    def shape(self) -> tuple[int, ...]:
        return self.values.shape[3:]

    def cut_steps(self, slot_B: np.ndarray, step_BS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(values (B, S, C, H, W), valid (B, S, H, W)) of steps of blocks; 0 and invalid for steps of -1."""
        values, valid = self.values[slot_B[:, None], step_BS], self.valid[slot_B[:, None], step_BS]
        if (empty := step_BS < 0).any():
            values[empty], valid[empty] = 0, False
        return values, valid


class PartSamples:
    """The windows of a part in batches. `samples.gather(indices)` gives a dict of tensors: the results of `prepare`, or
    `x_TCHW` and `valid_THW` of the context if the cache was built without it; and `target_KCHW`, `target_valid_KHW` and
    `target_seconds_K` (float64, since 1970-01-01 UTC: which windows share a target date).

    With `augment` each window is augmented by one of the 8 symmetries of the square (4 if it is not square), drawn from
    (seed, epoch, index).
    """

    def __init__(self, plan: WindowPlan, groups: list[Group], *, augment: bool = False, seed: int = 0):
        self.plan, self.groups, self.augment, self.seed = plan, groups, augment, seed
        rows_of = sorted((number, g, row) for g, group in enumerate(groups) for row, number in enumerate(group.numbers))
        number_W, self.group_W, self.row_W = np.array(rows_of, np.int64).reshape(-1, 3).T
        windows = [plan.windows[number] for number in number_W]
        self.tile_W = [window.tile for window in windows]
        self.context_WT = np.array([window.context_T for window in windows], np.int64)
        self.target_WK = np.array([window.target_K for window in windows], np.int64)
        days_WK = np.array([window.target_days_K for window in windows], np.float64)
        self.target_seconds_WK = seconds_of(days_WK)
        self.set_epoch(0)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """([D,] H, W) of each window; windows of one shape can share a batch."""
        return [self.groups[g].shape for g in self.group_W]

    def set_epoch(self, epoch: int) -> None:
        """Draws the symmetry (0 to 7, 0 = identity) of each window, whatever batch it comes in."""
        self.symmetry_W = np.random.default_rng([self.seed, epoch]).integers(8, size=len(self))

    def __len__(self) -> int:
        return len(self.group_W)

    def gather(self, indices: list[int]) -> Batch:
        """Windows of one shape, copied, as tensors with a leading B. Raises ValueError if the shapes differ."""
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
        if self.plan.split.margin_px:
            inside_BHW = np.stack([inside_tile(self.plan, self.tile_W[index]) for index in chosen])
            arrays["target_valid_KHW"] &= inside_BHW[:, None]
        arrays["target_seconds_K"] = self.target_seconds_WK[chosen]
        if self.augment:
            symmetry_B, is_square = self.symmetry_W[chosen], group.shape[-2] == group.shape[-1]
            images = {name: array for name, array in arrays.items() if name.endswith("HW")}
            for symmetry in np.unique(symmetry_B[symmetry_B > 0]):
                rows = symmetry_B == symmetry
                for name, image in images.items():
                    image[rows] = augmented(image[rows], int(symmetry), is_square)
                    if name.endswith("2HW"):
                        image[rows] = turned_vectors(image[rows], int(symmetry), is_square)
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


def turned_vectors(vectors: np.ndarray, symmetry: int, is_square: bool) -> np.ndarray:
    """The components (..., 2, H, W), along rows and columns, of vectors whose image was `augmented` like that."""
    sign_211 = np.array([-1 if symmetry & 1 else 1, -1 if symmetry & 2 else 1], vectors.dtype)[:, None, None]
    signed: np.ndarray = vectors * sign_211
    return signed[..., ::-1, :, :] if symmetry & 4 and is_square else signed


class StoredCube(NamedTuple):
    """Where the blocks of a cache were decoded from: a worker that does not see the cache's files reads it there."""

    uri: str
    snapshot: str
    variables: tuple[Variable, ...]


@dataclass(frozen=True, eq=False)
class SampleCache:
    """A finished cache on disk: the plan's windows without those with too few valid targets."""

    folder: Path
    plan: WindowPlan
    groups: list[Group]
    covariates: Covariates | None = None
    cube: StoredCube | None = None

    def __len__(self) -> int:
        return sum(self.counts().values())

    def counts(self) -> dict[str, int]:
        """Number of windows by part."""
        return {part: len(self.windows(part)) for part in PARTS}

    def groups_of(self, part: str) -> list[Group]:
        """Raises ValueError for a part that does not exist."""
        check_part(part)
        return [group for group in self.groups if group.part == part]

    def windows(self, part: str) -> "PartWindows":
        """The windows of a part, in the plan's order."""
        return PartWindows(self.plan, self.groups_of(part), self.covariates, self.cube)

    def part(self, part: str, *, augment: bool = False, seed: int = 0) -> PartSamples:
        """The windows of a part as samples for training; see `PartSamples`."""
        return PartSamples(self.plan, self.groups_of(part), augment=augment, seed=seed)

    def batches(self, part: str, batch: int) -> Iterator[Batch]:
        """One pass over a part, group by group, in batches of windows of equal shape."""
        samples = self.part(part)
        for g in range(len(samples.groups)):
            indices = np.flatnonzero(samples.group_W == g)
            yield from (samples.gather(indices[start : start + batch].tolist()) for start in range(0, len(indices), batch))


@dataclass(frozen=True)
class PartWindows:
    """The windows of one part, to be gone through again and again; `len` counts them, so that progress knows how far it is."""

    plan: WindowPlan
    groups: list[Group]
    covariates: Covariates | None = None
    cube: StoredCube | None = None

    def __len__(self) -> int:
        return sum(len(group.numbers) for group in self.groups)

    @property
    def numbers(self) -> list[int]:
        """Of the windows in the plan, in its order."""
        return sorted(number for group in self.groups for number in group.numbers)

    def __iter__(self) -> Iterator[WindowArrays]:
        return self.at(range(len(self)))

    def at(self, positions: Iterable[int]) -> Iterator[WindowArrays]:
        """Those at these positions, from 0, of all."""
        found = [(number, slot, group) for group in self.groups for number, slot in zip(group.numbers, group.slots, strict=True)]
        found.sort(key=itemgetter(0))
        for number, slot, group in (found[position] for position in positions):
            arrays = group.values[slot], group.valid[slot]
            yield window_arrays(self.plan, self.plan.windows[number], *arrays, self.covariates)


def open_samples(folder: Path, covariates: Covariates | None = None) -> SampleCache:
    """The cache in `folder`. Raises ArtefactDamaged unless every file has its recorded length and checksum."""
    try:
        content, groups = json.loads((folder / "cache.json").read_text()), []
        plan = from_json((folder / "plan.json").read_text())
        if content["format"] != FORMAT:
            raise ArtefactDamaged(f"format {content['format']}, expected {FORMAT}")
        for group in content["groups"]:
            paths = {name: folder / group["folder"] / f"{name}.npy" for name in group["arrays"]}
            for name, expected in group["arrays"].items():
                check_file(paths[name], expected)
            groups.append(Group(group["part"], tuple(group["numbers"]), tuple(group["slots"]), paths))
        return SampleCache(folder, plan, groups, covariates)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ArtefactDamaged(f"sample cache {folder} cannot be read ({e}): remove the folder to build it again") from e
    except ArtefactDamaged as e:
        raise ArtefactDamaged(f"sample cache {folder}: {e}: remove the folder to build it again") from e


def check_file(path: Path, expected: dict[str, int]) -> None:
    """Raises ArtefactDamaged unless the file has the length and checksum that were recorded when it was written."""
    if not path.is_file():
        raise ArtefactDamaged(f"{path} is missing")
    if (size := path.stat().st_size) != expected["bytes"]:
        raise ArtefactDamaged(f"{path} has {size} bytes, expected {expected['bytes']}")
    checksum = 0
    with path.open("rb") as file:
        file.seek(expected["data_from"])
        while content := file.read(2**22):
            checksum = zlib.crc32(content, checksum)
    if checksum != expected["crc32"]:
        raise ArtefactDamaged(f"the content of {path} differs from its recorded checksum")
