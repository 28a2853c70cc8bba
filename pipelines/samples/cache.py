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
from pipelines.progress import Progress
from pipelines.samples.blocks import Block, check_fits, decoded_blocks
from pipelines.samples.plan import PARTS, Window, WindowPlan, from_json, to_json
from pipelines.samples.sampling import Group, PartSamples, ShapeBatches
from pipelines.samples.storage import GrowingArray, check_file, full_disk
from pipelines.samples.variables import Variable
from pipelines.tiles import Tile

FORMAT = 1
logger = logging.getLogger(__name__)
Prepare = Callable[..., dict[str, torch.Tensor]]


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

    def __init__(self, folder: Path, plan: WindowPlan, groups: list[Group], names: tuple[str, ...]):
        self.folder, self.plan, self.groups, self.names = folder, plan, groups, names
        rows_of = sorted((number, g, row) for g, group in enumerate(groups) for row, number in enumerate(group.numbers))
        self.rows_of = [(g, row) for _, g, row in rows_of]

    def __len__(self) -> int:
        return len(self.rows_of)

    def counts(self) -> dict[str, int]:
        """Number of windows by part."""
        return {part: sum(len(g.numbers) for g in self.groups if g.part == part) for part in PARTS}

    def part(self, part: str, *, augment: bool = False, seed: int = 0) -> PartSamples:
        """The windows of a part as a torch Dataset; see `PartSamples`."""
        if part not in PARTS:
            raise ValueError(f"no part {part!r}; parts are {', '.join(PARTS)}")
        return PartSamples(self.plan, [group for group in self.groups if group.part == part], augment=augment, seed=seed)

    def batches(
        self, part: str, batch: int, *, shuffle: bool = False, generator: torch.Generator | None = None, augment: bool = False
    ) -> Iterator[dict[str, torch.Tensor]]:
        """One pass over a part in batches of windows of equal shape, gathered with one fancy index per array."""
        seed = int(torch.randint(2**31, (), generator=generator)) if shuffle or augment else 0
        samples = self.part(part, augment=augment, seed=seed)
        for indices in ShapeBatches(samples, batch, shuffle=shuffle, seed=seed):
            yield samples.gather(indices)

    def window(self, i: int) -> WindowArrays:
        """Window `i` with everything that a forecaster may use, and the truth."""
        g, row = self.rows_of[i]
        group = self.groups[g]
        window = self.plan.windows[group.numbers[row]]
        values, valid = group.values[group.slots[row]], group.valid[group.slots[row]]
        target, target_valid = cut_targets(values, valid, window)
        return WindowArrays(
            torch.from_numpy(values),
            torch.from_numpy(valid),
            *date_tensors(self.plan, window),
            torch.from_numpy(target),
            torch.from_numpy(target_valid),
            window.tile,
            window.part,
        )

    def windows(self, part: str) -> Iterator[WindowArrays]:
        """The windows of a part, in the plan's order."""
        if part not in PARTS:
            raise ValueError(f"no part {part!r}; parts are {', '.join(PARTS)}")
        return (self.window(i) for i, (g, _) in enumerate(self.rows_of) if self.groups[g].part == part)

    def counted(self, part: str) -> "CountedWindows":
        """The same with a length, so that progress knows how far it is."""
        return CountedWindows(self, part)


@dataclass(frozen=True)
class CountedWindows:
    """The windows of one part, to be gone through again and again; `len` counts them."""

    cache: SampleCache
    part: str

    def __len__(self) -> int:
        return self.cache.counts()[self.part]

    def __iter__(self) -> Iterator[WindowArrays]:
        return self.cache.windows(self.part)


def date_tensors(plan: WindowPlan, window: Window) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(days_N, context_T, usable_N, target_days_K) of a window."""
    return (
        torch.from_numpy(plan.days_N),
        torch.tensor(window.context_T, dtype=torch.int64),
        torch.from_numpy(plan.usable(window)),
        torch.tensor(window.target_days_K, dtype=torch.float64),
    )


def cut_targets(x_NCHW: np.ndarray, valid_NHW: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """(target_KCHW, target_valid_KHW) of a window, copies; steps without an observation are 0 and invalid."""
    target = np.array(window.target_K)
    target_valid_KHW = valid_NHW[target] & (target >= 0)[:, None, None]
    return x_NCHW[target] * target_valid_KHW[:, None], target_valid_KHW


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
    key = cache_key(snapshot, plan, variables, prepare_key, min_valid_fraction)
    final = Path(folder) / f"cache-{key}"
    if final.exists():
        try:
            return open_samples(final)
        except ArtefactDamaged as e:
            logger.warning("sample cache is built again: %s", e)
            shutil.rmtree(final)
    Path(folder).mkdir(parents=True, exist_ok=True)
    remove_incomplete(Path(folder))
    building = Path(folder) / f".building-{key}-{socket.gethostname()}-{os.getpid()}"
    try:
        building.mkdir()
        write_cache(building, dataset, plan, variables, prepare, progress, {"key": key, "snapshot": snapshot}, min_valid_fraction)
        publish(building, final)
    except OSError as e:
        raise full_disk(e, building) from e
    finally:
        shutil.rmtree(building, ignore_errors=True)
    for other in Path(folder).glob("cache-*"):
        if other != final:
            shutil.rmtree(other, ignore_errors=True)
    return open_samples(final)


def cache_key(
    snapshot: str, plan: WindowPlan, variables: tuple[Variable, ...], prepare_key: str, min_valid_fraction: float
) -> str:
    """Hash (16 hex digits) of everything that the cache's content depends on."""
    parts = [FORMAT, snapshot, to_json(plan), [asdict(v) for v in variables], prepare_key, min_valid_fraction]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def write_cache(
    building: Path,
    dataset: xr.Dataset,
    plan: WindowPlan,
    variables: tuple[Variable, ...],
    prepare: Prepare | None,
    progress: Progress | None,
    identity: dict[str, str],
    min_valid_fraction: float,
) -> None:
    """Writes a cache to the folder `building`; the list of files comes last."""
    of_tile = windows_of_tiles(plan)
    writers: dict[tuple[str, tuple[int, int]], GroupWriter] = {}
    best: dict[str, float] = {}
    free = shutil.disk_usage(building).free
    try:
        for done, block in enumerate(decoded_blocks(dataset, sorted(of_tile), variables, progress), start=1):
            part = of_tile[block.tile][0][1].part
            kept = [(n, w) for n, w in of_tile[block.tile] if valid_target_fraction(block, w, best) >= min_valid_fraction]
            if kept:
                height, width = block.tile.shape_yx
                if (part, block.tile.shape_yx) not in writers:
                    writers[part, block.tile.shape_yx] = GroupWriter(building / f"{part}-{height}x{width}", part)
                writers[part, block.tile.shape_yx].add(block, kept, plan, prepare)
            if done == 1:
                check_space(building, len(of_tile), free)
        check_parts({part for part, _ in writers}, best, min_valid_fraction)
        finished = [writer.close(building) for writer in writers.values()]
    finally:
        for writer in writers.values():
            writer.abandon()
    (building / "plan.json").write_text(to_json(plan))
    content = {**identity, "format": FORMAT, "variables": [v.name for v in variables], "groups": finished}
    (building / "cache.json").write_text(json.dumps(content))


def windows_of_tiles(plan: WindowPlan) -> dict[Tile, list[tuple[int, Window]]]:
    """Windows with their numbers in the plan, by tile. Raises ArtefactDamaged if two parts share a tile."""
    of_tile: dict[Tile, list[tuple[int, Window]]] = {}
    for number, window in enumerate(plan.windows):
        of_tile.setdefault(window.tile, []).append((number, window))
    for tile, members in of_tile.items():
        if len({window.part for _, window in members}) > 1:
            raise ArtefactDamaged(f"the window plan gives tile {tile.key} to two parts: plan the windows again")
    return of_tile


def valid_target_fraction(block: Block, window: Window, best: dict[str, float]) -> float:
    """Fraction of the window's target pixels that are valid; keeps the best of the part for the message of `check_parts`."""
    observed = [i for i in window.target_K if i >= 0]
    share: float = float(block.valid_NHW[observed].sum()) / (len(window.target_K) * block.valid_NHW[0].size)
    best[window.part] = max(share, best.get(window.part, 0.0))
    return share


def check_parts(parts: set[str], best: dict[str, float], min_valid_fraction: float) -> None:
    """Raises RequestError if a part has no window left."""
    for part in PARTS:
        if part not in parts:
            raise RequestError(
                f"no {part} window has {min_valid_fraction:.0%} of its target pixels valid; "
                f"the best has {best.get(part, 0.0):.1%}: lower samples.min_valid_fraction, or check the quality mask"
            )


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
        self.folder, self.part = folder, part
        self.arrays: dict[str, GrowingArray] = {}
        self.tiles: list[Tile] = []
        self.numbers: list[int] = []
        self.slots: list[int] = []

    def add(self, block: Block, kept: list[tuple[int, Window]], plan: WindowPlan, prepare: Prepare | None) -> None:
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
            self.slots.append(len(self.tiles))
        self.tiles.append(block.tile)

    def abandon(self) -> None:
        """Closes every file that is still open."""
        for array in self.arrays.values():
            array.abandon()

    def _append(self, name: str, row: np.ndarray) -> None:
        if name not in self.arrays:
            self.arrays[name] = GrowingArray(self.folder / f"{name}.npy", row.shape, row.dtype)
        self.arrays[name].append(row)

    def close(self, building: Path) -> dict[str, Any]:
        """The description of the group for `cache.json`."""
        lengths = {array.length for name, array in self.arrays.items() if name.startswith("prepared-")}
        if lengths - {len(self.numbers)}:
            raise ValueError("prepare returned other names for some windows than for others")
        return {
            "folder": self.folder.relative_to(building).as_posix(),
            "part": self.part,
            "numbers": self.numbers,
            "slots": self.slots,
            "arrays": {name: array.close() for name, array in self.arrays.items()},
        }


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
    for leftover in folder.glob(".building-*"):
        _, _, rest = leftover.name.partition("-")
        host, _, pid = rest.partition("-")[2].rpartition("-")
        is_dead = pid.isdigit() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid)))
        if host == socket.gethostname() and is_dead:
            shutil.rmtree(leftover, ignore_errors=True)


def open_samples(folder: Path) -> SampleCache:
    """The cache in `folder` (a `cache-KEY` folder), after checking the recorded length and checksum of every file.

    Raises ArtefactDamaged if anything is missing or altered.
    """
    folder = Path(folder)
    try:
        content = json.loads((folder / "cache.json").read_text())
        plan = from_json((folder / "plan.json").read_text())
        if content["format"] != FORMAT:
            raise ArtefactDamaged(f"format {content['format']}, expected {FORMAT}")
        groups = [open_group(folder, described) for described in content["groups"]]
        return SampleCache(folder, plan, groups, tuple(content["variables"]))
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ArtefactDamaged(f"sample cache {folder} cannot be read ({e}): remove the folder to build it again") from e
    except ArtefactDamaged as e:
        raise ArtefactDamaged(f"sample cache {folder}: {e}: remove the folder to build it again") from e


def open_group(folder: Path, described: dict[str, Any]) -> Group:
    paths = {}
    for name, expected in described["arrays"].items():
        paths[name] = folder / described["folder"] / f"{name}.npy"
        check_file(paths[name], expected)
    return Group(described["part"], tuple(described["numbers"]), tuple(described["slots"]), paths)
