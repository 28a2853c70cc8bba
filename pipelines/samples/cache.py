"""The sample cache: blocks of one cube snapshot, decoded once; windows are slices of memory maps of it.

    FOLDER/cache-KEY/plan.json, cache.json
    FOLDER/cache-KEY/PART-HxW/values.npy            (blocks, N, C, H, W) float32 physical, 0 where invalid
                              valid.npy             (blocks, N, H, W) bool
                              prepared-NAME.npy     (windows, ...) what `prepare` returned

Tiles of one part and shape are one group, so a batch is one fancy index. A cache is published by rename, completely or
not at all; its KEY is the hash of everything that its content depends on.
"""

import hashlib
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import xarray as xr

from pipelines.errors import ArtefactDamaged, RequestError, StorageFull
from pipelines.files import is_full
from pipelines.progress import Progress
from pipelines.samples.blocks import Block, check_fits, decoded_blocks
from pipelines.samples.plan import PARTS, Window, WindowPlan, check_part, from_json, to_json
from pipelines.samples.sampling import Batch, Group, PartSamples
from pipelines.samples.storage import GrowingArray, check_file
from pipelines.samples.variables import Variable
from pipelines.tiles import Tile

FORMAT = 1
logger = logging.getLogger(__name__)
Prepare = Callable[..., dict[str, torch.Tensor]]
Numbered = tuple[int, Window]  # a window with its number in the plan


@dataclass(frozen=True)
class WindowArrays:
    """One window: the arguments of the forecaster's `forecast`, and the truth.

    Tensors over private memory maps: all dates of the block, not only the window's (a baseline is fitted on all usable
    dates). `target_KCHW` is 0 where `target_valid_KHW` is False.
    """

    x_NCHW: torch.Tensor
    valid_NHW: torch.Tensor
    days_N: torch.Tensor
    context_T: torch.Tensor
    usable_N: torch.Tensor
    target_days_K: torch.Tensor
    target_KCHW: torch.Tensor
    target_valid_KHW: torch.Tensor
    tile: Tile
    part: str

    def arguments(self) -> dict[str, torch.Tensor]:
        """The keyword arguments of `forecast` and `prepare`."""
        names = ("x_NCHW", "valid_NHW", "days_N", "context_T", "usable_N", "target_days_K")
        return {name: getattr(self, name) for name in names}


class SampleCache:
    """A finished cache on disk. Windows are numbered in the plan's order, without those with too few valid targets."""

    def __init__(self, folder: Path, plan: WindowPlan, groups: list[Group]):
        self.folder, self.plan, self.groups = folder, plan, groups
        rows_of = sorted((number, g, row) for g, group in enumerate(groups) for row, number in enumerate(group.numbers))
        self.rows_of = [(g, row) for _, g, row in rows_of]

    def __len__(self) -> int:
        return len(self.rows_of)

    def counts(self) -> dict[str, int]:
        """Number of windows by part."""
        return {part: sum(len(g.numbers) for g in self.groups if g.part == part) for part in PARTS}

    def part(self, part: str, *, augment: bool = False, seed: int = 0) -> PartSamples:
        """The windows of a part as samples for training; see `PartSamples`."""
        check_part(part)
        return PartSamples(self.plan, [group for group in self.groups if group.part == part], augment=augment, seed=seed)

    def batches(self, part: str, batch: int) -> Iterator[Batch]:
        """One pass over a part, group by group, in batches of windows of equal shape."""
        samples = self.part(part)
        for g in range(len(samples.groups)):
            indices = np.flatnonzero(samples.group_W == g)
            yield from (samples.gather(indices[start : start + batch].tolist()) for start in range(0, len(indices), batch))

    def window(self, i: int) -> WindowArrays:
        """Window `i` with everything that a forecaster may use, and the truth."""
        g, row = self.rows_of[i]
        group = self.groups[g]
        window = self.plan.windows[group.numbers[row]]
        return window_arrays(self.plan, window, group.values[group.slots[row]], group.valid[group.slots[row]])

    def windows(self, part: str) -> "PartWindows":
        """The windows of a part, in the plan's order."""
        return PartWindows(self, check_part(part))


@dataclass(frozen=True)
class PartWindows:
    """The windows of one part, to be gone through again and again; `len` counts them, so that progress knows how far it is."""

    cache: SampleCache
    part: str

    def __len__(self) -> int:
        return self.cache.counts()[self.part]

    def __iter__(self) -> Iterator[WindowArrays]:
        rows_of, groups = self.cache.rows_of, self.cache.groups
        return (self.cache.window(i) for i, (g, _) in enumerate(rows_of) if groups[g].part == self.part)


def window_arrays(plan: WindowPlan, window: Window, x_NCHW: np.ndarray, valid_NHW: np.ndarray) -> WindowArrays:
    """A window of a decoded block, with copies of its targets; target steps without an observation are 0 and invalid."""
    target = np.array(window.target_K)
    target_valid_KHW = valid_NHW[target] & (target >= 0)[:, None, None]
    truth = torch.from_numpy(x_NCHW[target] * target_valid_KHW[:, None]), torch.from_numpy(target_valid_KHW)
    block = torch.from_numpy(x_NCHW), torch.from_numpy(valid_NHW)
    return WindowArrays(*block, *date_tensors(plan, window), *truth, window.tile, window.part)


def date_tensors(plan: WindowPlan, window: Window) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(days_N, context_T, usable_N, target_days_K) of a window."""
    context_T = torch.tensor(window.context_T, dtype=torch.int64)
    target_days_K = torch.tensor(window.target_days_K, dtype=torch.float64)
    return torch.from_numpy(plan.days_N), context_T, torch.from_numpy(plan.usable(window)), target_days_K


# ---------------------------------------------------------------- building


def build_samples(
    dataset: xr.Dataset,
    snapshot: str,
    folder: Path,
    plan: WindowPlan,
    variables: tuple[Variable, ...],
    prepare: Prepare | None = None,
    progress: Progress | None = None,
    *,
    prepare_key: str = "",
    min_valid_fraction: float = 0.0,
) -> SampleCache:
    """The cache of `plan` on this snapshot: opened if it exists and is complete, else built (one block in memory) and published.

    `prepare` is the forecaster's; `prepare_key` identifies all that its result depends on (kind, settings, statistics).
    Windows with less than `min_valid_fraction` valid target pixels are left out. Older caches in `folder` are removed once
    the new one is published. Raises RequestError if a part has no window left, StorageFull if the disk is full,
    ArtefactDamaged if the plan was made for another cube.
    """
    if prepare is not None and not prepare_key:
        raise ValueError("prepare needs a prepare_key that identifies what its result depends on")
    check_fits(dataset, plan)
    content = [FORMAT, snapshot, to_json(plan), [asdict(v) for v in variables], prepare_key, min_valid_fraction]
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    final = folder / f"cache-{key}"
    if final.exists():
        try:
            return open_samples(final)
        except ArtefactDamaged as e:
            logger.warning("sample cache is built again: %s", e)
            shutil.rmtree(final)
    folder.mkdir(parents=True, exist_ok=True)
    remove_incomplete(folder)
    building = folder / f".building-{key}-{socket.gethostname()}-{os.getpid()}"
    try:
        building.mkdir()
        groups = write_groups(building, dataset, plan, variables, prepare, progress, min_valid_fraction)
        (building / "plan.json").write_text(to_json(plan))
        about = {"key": key, "snapshot": snapshot, "format": FORMAT, "variables": [v.name for v in variables], "groups": groups}
        (building / "cache.json").write_text(json.dumps(about))
        publish(building, final)
    except OSError as e:
        if not is_full(e):
            raise
        raise StorageFull(
            f"no space left while writing samples to {folder}: free space, or use fewer blocks or a larger stride"
        ) from e
    finally:
        shutil.rmtree(building, ignore_errors=True)
    for other in folder.glob("cache-*"):
        if other != final:
            shutil.rmtree(other, ignore_errors=True)
    return open_samples(final)


def write_groups(
    building: Path,
    dataset: xr.Dataset,
    plan: WindowPlan,
    variables: tuple[Variable, ...],
    prepare: Prepare | None,
    progress: Progress | None,
    min_valid_fraction: float,
) -> list[dict[str, Any]]:
    """Writes the arrays of a cache below `building`; returns the description of each group."""
    of_tile, free = windows_of_tiles(plan), shutil.disk_usage(building).free
    writers: dict[tuple[str, tuple[int, int]], GroupWriter] = {}
    best = dict.fromkeys(PARTS, 0.0)  # the largest fraction of valid targets
    try:
        for done, block in enumerate(decoded_blocks(dataset, sorted(of_tile), variables, progress), start=1):
            part, shape_yx = of_tile[block.tile][0][1].part, block.tile.shape_yx
            fractions = [valid_target_fraction(block, window) for _, window in of_tile[block.tile]]
            best[part] = max(best[part], *fractions)
            pairs = zip(of_tile[block.tile], fractions, strict=True)
            if kept := [numbered for numbered, fraction in pairs if fraction >= min_valid_fraction]:
                if (part, shape_yx) not in writers:
                    writers[part, shape_yx] = GroupWriter(building / f"{part}-{shape_yx[0]}x{shape_yx[1]}", part)
                writers[part, shape_yx].add(block, kept, plan, prepare)
            if done == 1:
                check_space(building, len(of_tile), free)
        for part in PARTS:
            if part not in {written for written, _ in writers}:
                raise RequestError(
                    f"no {part} window has {min_valid_fraction:.0%} of its target pixels valid; "
                    f"the best has {best[part]:.1%}: lower samples.min_valid_fraction, or check the quality mask"
                )
        return [writer.close() for writer in writers.values()]
    finally:
        for writer in writers.values():
            writer.abandon()


def windows_of_tiles(plan: WindowPlan) -> dict[Tile, list[Numbered]]:
    """Windows by tile. Raises ArtefactDamaged if two parts share a tile."""
    of_tile: dict[Tile, list[Numbered]] = {}
    for number, window in enumerate(plan.windows):
        of_tile.setdefault(window.tile, []).append((number, window))
    for tile, members in of_tile.items():
        if len({window.part for _, window in members}) > 1:
            raise ArtefactDamaged(f"the window plan gives tile {tile.key} to two parts: plan the windows again")
    return of_tile


def valid_target_fraction(block: Block, window: Window) -> float:
    observed = [i for i in window.target_K if i >= 0]
    fraction: float = np.count_nonzero(block.valid_NHW[observed]) / (len(window.target_K) * block.valid_NHW[0].size)
    return fraction


def check_space(building: Path, blocks: int, free: int) -> None:
    """Raises StorageFull if the first block's size times the number of blocks does not fit on the disk."""
    one = sum(path.stat().st_size for path in building.rglob("*.npy"))
    if one * blocks > free:
        raise StorageFull(
            f"the sample cache needs about {one * blocks / 2**30:.1f} GiB ({blocks} blocks), "
            f"{building.parent} has {free / 2**30:.1f} GiB free: free space, set another runs folder, or raise samples.stride"
        )


class GroupWriter:
    """Writes the blocks and windows of one part and shape, one after the other."""

    def __init__(self, folder: Path, part: str):
        folder.mkdir()
        self.folder, self.part, self.blocks = folder, part, 0
        self.arrays: dict[str, GrowingArray] = {}
        self.numbers: list[int] = []
        self.slots: list[int] = []

    def add(self, block: Block, kept: list[Numbered], plan: WindowPlan, prepare: Prepare | None) -> None:
        """Appends one block, and the result of `prepare` for each of its windows."""
        self._append("values", block.x_NCHW)
        self._append("valid", block.valid_NHW)
        x_NCHW, valid_NHW = torch.from_numpy(block.x_NCHW), torch.from_numpy(block.valid_NHW)
        for number, window in kept:
            if prepare is not None:
                with torch.no_grad():
                    prepared = prepare(x_NCHW, valid_NHW, *date_tensors(plan, window))
                for name, tensor in prepared.items():
                    self._append(f"prepared-{name}", tensor.detach().cpu().numpy())
            self.numbers.append(number)
            self.slots.append(self.blocks)
        self.blocks += 1

    def _append(self, name: str, row: np.ndarray) -> None:
        if name not in self.arrays:
            self.arrays[name] = GrowingArray(self.folder / f"{name}.npy", row.shape, row.dtype)
        self.arrays[name].append(row)

    def abandon(self) -> None:
        """Closes every file that is still open."""
        for array in self.arrays.values():
            array.abandon()

    def close(self) -> dict[str, Any]:
        """The description of the group for `cache.json`."""
        lengths = {array.length for name, array in self.arrays.items() if name.startswith("prepared-")}
        if lengths - {len(self.numbers)}:
            raise ValueError("prepare returned other names for some windows than for others")
        arrays = {name: array.close() for name, array in self.arrays.items()}
        where = {"folder": self.folder.name, "part": self.part, "numbers": self.numbers, "slots": self.slots}
        return {**where, "arrays": arrays}


# ---------------------------------------------------------------- publishing and opening


def publish(building: Path, final: Path) -> None:
    """Renames `building` to `final`; if another process was faster, its equal cache is kept."""
    try:
        building.rename(final)
    except OSError:
        if not (final / "cache.json").is_file():
            raise
        logger.info("another process has published the same sample cache")


def remove_incomplete(folder: Path) -> None:
    """Removes the incomplete caches of dead processes of this machine."""
    for leftover in folder.glob(".building-*-*-*"):
        host, _, pid = leftover.name.split("-", 2)[2].rpartition("-")
        is_dead = pid.isdigit() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid)))
        if host == socket.gethostname() and is_dead:
            shutil.rmtree(leftover, ignore_errors=True)


def open_samples(folder: Path) -> SampleCache:
    """The cache in `folder` (a `cache-KEY` folder), after checking the recorded length and checksum of every file.

    Raises ArtefactDamaged if anything is missing or altered.
    """
    try:
        content = json.loads((folder / "cache.json").read_text())
        plan = from_json((folder / "plan.json").read_text())
        if content["format"] != FORMAT:
            raise ArtefactDamaged(f"format {content['format']}, expected {FORMAT}")
        return SampleCache(folder, plan, [open_group(folder, described) for described in content["groups"]])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ArtefactDamaged(f"sample cache {folder} cannot be read ({e}): remove the folder to build it again") from e
    except ArtefactDamaged as e:
        raise ArtefactDamaged(f"sample cache {folder}: {e}: remove the folder to build it again") from e


def open_group(folder: Path, described: dict[str, Any]) -> Group:
    paths = {name: folder / described["folder"] / f"{name}.npy" for name in described["arrays"]}
    for name, expected in described["arrays"].items():
        check_file(paths[name], expected)
    return Group(described["part"], tuple(described["numbers"]), tuple(described["slots"]), paths)
