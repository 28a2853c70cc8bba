"""Builds the sample cache: blocks of one cube snapshot, decoded once; windows are slices of memory maps of it.

    FOLDER/cache-KEY/plan.json, cache.json
    FOLDER/cache-KEY/PART-HxW/values.npy            (blocks, N, C, [D,] H, W) float32 physical, 0 where invalid, margins included
                              valid.npy             (blocks, N, [D,] H, W) bool
                              prepared-NAME.npy     (windows, ...) what `prepare` returned

Tiles of one part and shape are one group, so a batch is one fancy index. A cache is published by rename, completely or
not at all; its KEY is the hash of everything that its content depends on. The cube's chunks hold one date of a square of
pixels, so tiles that share chunks are read together if they fit in memory.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import socket
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil
import torch
import xarray as xr

from pipelines.cube.store import bands_of, space_dims
from pipelines.errors import ArtefactDamaged, RequestError, StorageFull
from pipelines.files import is_full
from pipelines.progress import Progress
from pipelines.samples.covariates import Covariates
from pipelines.samples.plan import PARTS, Window, WindowPlan, to_json
from pipelines.samples.sampling import FORMAT, SampleCache, date_tensors, open_samples
from pipelines.samples.variables import Variable, decode, used_bands
from pipelines.tiles import Box

REGION_BYTES = 256 * 2**20  # stored pixels held at once; a single tile may need more
logger = logging.getLogger(__name__)
Prepare = Callable[..., dict[str, torch.Tensor]]
PrepareWindow = Callable[[torch.Tensor, torch.Tensor, Window], dict[str, torch.Tensor]]
WindowsOfTiles = dict[Box, list[tuple[int, Window]]]  # windows with their numbers in the plan


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
    covariates: Covariates | None = None,
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
    content += [covariates.key(float(plan.days_N[-1]))] if covariates is not None else []
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    final = folder / f"cache-{key}"
    if final.exists():
        try:
            return open_samples(final, covariates)
        except ArtefactDamaged as e:
            logger.warning("sample cache is built again: %s", e)
            shutil.rmtree(final)
    folder.mkdir(parents=True, exist_ok=True)
    remove_incomplete(folder)
    building, of_tile = folder / f".building-{key}-{socket.gethostname()}-{os.getpid()}", windows_of_tiles(plan)
    try:
        building.mkdir()
        blocks = decoded_blocks(dataset, sorted(of_tile), variables, progress, margin_px=plan.split.margin_px)
        groups = write_groups(building, blocks, of_tile, prepare_with(prepare, plan, covariates), min_valid_fraction)
        (building / "plan.json").write_text(to_json(plan))
        about = {"key": key, "snapshot": snapshot, "format": FORMAT, "variables": [v.name for v in variables], "groups": groups}
        (building / "cache.json").write_text(json.dumps(about))
        publish(building, final)
    except OSError as e:
        if not is_full(e):
            raise
        remedy = "free space, or use fewer blocks or a larger stride"
        raise StorageFull(f"no space left while writing samples to {folder}: {remedy}") from e
    finally:
        shutil.rmtree(building, ignore_errors=True)
    for other in folder.glob("cache-*"):
        if other != final:
            shutil.rmtree(other, ignore_errors=True)
    return open_samples(final, covariates)


def prepare_with(prepare: Prepare | None, plan: WindowPlan, covariates: Covariates | None) -> PrepareWindow | None:
    """`prepare` for (x_NCHW, valid_NHW, window), with the dates and covariates of the window."""
    if prepare is None:
        return None

    def prepare_window(x_NCHW: torch.Tensor, valid_NHW: torch.Tensor, window: Window) -> dict[str, torch.Tensor]:
        given = {} if covariates is None else {"covariates": covariates.of_window(plan, window)}
        with torch.no_grad():
            return prepare(x_NCHW, valid_NHW, *date_tensors(plan, window), **given)

    return prepare_window


def windows_of_tiles(plan: WindowPlan) -> WindowsOfTiles:
    """Raises ArtefactDamaged if two parts share a tile."""
    of_tile: WindowsOfTiles = {}
    for number, window in enumerate(plan.windows):
        of_tile.setdefault(window.tile, []).append((number, window))
    for tile, members in of_tile.items():
        if len({window.part for _, window in members}) > 1:
            raise ArtefactDamaged(f"the window plan gives tile {tile.key} to two parts: plan the windows again")
    return of_tile


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


# ---------------------------------------------------------------- reading the cube


@dataclass(frozen=True)
class Block:
    """A decoded tile of all dates: `x_NCHW` float32 physical (0 where invalid), `valid_NHW` bool, both of the `box` around it."""

    tile: Box
    box: Box
    x_NCHW: np.ndarray
    valid_NHW: np.ndarray


def decoded_blocks(
    dataset: xr.Dataset,
    tiles: list[Box],
    variables: tuple[Variable, ...],
    progress: Progress | None = None,
    *,
    margin_px: int = 0,
) -> Iterator[Block]:
    """Each of `tiles` with its margin decoded, in an order that reads every stored chunk about once. `progress` counts tiles."""
    bands, done = bands_of(dataset), 0
    used = used_bands(bands, variables)
    is_slice = used == tuple(range(used[0], used[-1] + 1))  # storage reads slices without a copy
    image = dataset["image"].isel(band=slice(used[0], used[-1] + 1) if is_slice else list(used))
    dims, chunks = space_dims(dataset), dataset["image"].encoding.get("shards") or dataset["image"].encoding.get("chunks")
    bytes_per_pixel = dataset.sizes["time"] * len(used) * image.dtype.itemsize
    shape = tuple(dataset.sizes[dim] for dim in dims)
    for around, members in group_tiles(tiles, int(chunks[-2]) if chunks else 256, bytes_per_pixel):
        region = around.grown(margin_px, shape)
        inside = dict(zip(dims, region.slices, strict=True))
        image_NBYX = image.isel(inside).values
        valid_NYX = dataset["valid"].isel(inside).values.astype(bool, copy=False)
        for tile in members:
            box = tile.grown(margin_px, shape)
            within = box.within(region)
            part = image_NBYX[:, :, *within], valid_NYX[:, *within]
            yield Block(tile, box, *decode(*part, tuple(bands[number] for number in used), variables))
            done += 1
            if progress is not None:
                progress(done, len(tiles))


def group_tiles(tiles: list[Box], chunk: int, bytes_per_pixel: int) -> Iterator[tuple[Box, list[Box]]]:
    """(region, its tiles): tiles whose centres are in the same chunk are read as one region, if it fits in REGION_BYTES."""
    groups: dict[tuple[int, ...], list[Box]] = {}
    for tile in sorted(tiles):
        centre = tuple((start + stop) // 2 // chunk for start, stop in zip(tile.start, tile.stop, strict=True))
        groups.setdefault(centre, []).append(tile)
    for members in groups.values():
        region = Box.around(members)
        if math.prod(region.shape) * bytes_per_pixel <= REGION_BYTES:
            yield region, members
        else:
            yield from ((tile, [tile]) for tile in members)


def check_fits(dataset: xr.Dataset, plan: WindowPlan) -> None:
    """Raises ArtefactDamaged if the plan was made for other dates or another raster than the cube's."""
    shape = tuple(dataset.sizes[dim] for dim in space_dims(dataset))
    if shape != tuple(plan.shape):
        raise ArtefactDamaged(f"the window plan is for a raster of {plan.shape}, the cube has {shape}: plan the windows again")
    times = dataset["time"].values.astype("datetime64[ns]")
    if not np.array_equal(times, plan.times):
        raise ArtefactDamaged(
            f"the window plan is for {len(plan.times)} dates up to {plan.times[-1]}, "
            f"the cube has {len(times)} up to {times[-1]}: plan the windows again"
        )


# ---------------------------------------------------------------- writing


def write_groups(
    building: Path, blocks: Iterable[Block], of_tile: WindowsOfTiles, prepare: PrepareWindow | None, least: float
) -> list[dict[str, Any]]:
    """Writes the arrays of a cache below `building`; returns the description of each group. least: fraction of valid targets."""
    writers: dict[tuple[str, tuple[int, ...]], GroupWriter] = {}
    best, free = dict.fromkeys(PARTS, 0.0), shutil.disk_usage(building).free
    try:
        for done, block in enumerate(blocks, start=1):
            kept, shape, inside = [], block.box.shape, block.tile.within(block.box)
            pixels = math.prod(block.tile.shape)
            for number, window in of_tile[block.tile]:
                observed = [i for i in window.target_K if i >= 0]
                valid = np.count_nonzero(block.valid_NHW[observed][:, *inside]) / (len(window.target_K) * pixels)
                best[window.part] = max(valid, best[window.part])
                kept += [(number, window)] if valid >= least else []
            if kept:
                group = kept[0][1].part, shape
                if group not in writers:
                    writers[group] = GroupWriter(building / f"{group[0]}-{'x'.join(map(str, shape))}", group[0])
                writers[group].add(block, kept, prepare)
            if done == 1:
                check_space(building, len(of_tile), free)
        planned = {members[0][1].part for members in of_tile.values()}
        if lacking := [part for part in PARTS if part in planned - {written for written, _ in writers}]:
            problem = f"no {lacking[0]} window has {least:.0%} of its target pixels valid; the best has {best[lacking[0]]:.1%}"
            remedy = "lower samples.min_valid_fraction, or check the quality mask"
            if best[lacking[0]] < 0.0005:
                remedy = "the mask leaves no usable pixel: see `driftline info CUBE`, and lower quality.away_px"
            raise RequestError(f"{problem}: {remedy}")
        return [writer.close() for writer in writers.values()]
    finally:
        for array in (array for writer in writers.values() for array in writer.arrays.values()):
            array.abandon()


def check_space(building: Path, blocks: int, free: int) -> None:
    """Raises StorageFull if the first block's size times the number of blocks does not fit on the disk."""
    needed = blocks * sum(path.stat().st_size for path in building.rglob("*.npy"))
    if needed > free:
        raise StorageFull(
            f"the sample cache needs about {needed / 1e6:.1f} MB ({blocks} blocks), "
            f"{building.parent} has {free / 1e6:.1f} MB free: free space, set another runs folder, or raise samples.stride"
        )


class GroupWriter:
    """Writes the blocks and windows of one part and shape, one after the other."""

    def __init__(self, folder: Path, part: str):
        folder.mkdir()
        self.folder, self.part, self.blocks = folder, part, 0
        self.arrays: dict[str, GrowingArray] = {}
        self.numbers: list[int] = []
        self.slots: list[int] = []

    def add(self, block: Block, kept: list[tuple[int, Window]], prepare: PrepareWindow | None) -> None:
        """Appends one block, and the result of `prepare` for each of its windows."""
        self._append("values", block.x_NCHW)
        self._append("valid", block.valid_NHW)
        x_NCHW, valid_NHW = torch.from_numpy(block.x_NCHW), torch.from_numpy(block.valid_NHW)
        for number, window in kept:
            if prepare is not None:
                for name, tensor in prepare(x_NCHW, valid_NHW, window).items():
                    self._append(f"prepared-{name}", tensor.detach().cpu().numpy())
            self.numbers.append(number)
            self.slots.append(self.blocks)
        self.blocks += 1

    def _append(self, name: str, row: np.ndarray) -> None:
        if name not in self.arrays:
            self.arrays[name] = GrowingArray(self.folder / f"{name}.npy", row.shape, row.dtype)
        self.arrays[name].append(row)

    def close(self) -> dict[str, Any]:
        """The description of the group for `cache.json`."""
        lengths = {array.length for name, array in self.arrays.items() if name.startswith("prepared-")}
        if lengths - {len(self.numbers)}:
            raise ValueError("prepare returned other names for some windows than for others")
        arrays = {name: array.close() for name, array in self.arrays.items()}
        where = {"folder": self.folder.name, "part": self.part, "numbers": self.numbers, "slots": self.slots}
        return {**where, "arrays": arrays}


class GrowingArray:
    """An `.npy` file that grows row by row; `close` writes the final length to its header.

    Written with plain `write` calls, not through a memory map: a full disk then raises an error instead of SIGBUS.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: np.dtype):
        self.path, self.row_shape, self.dtype = path, row_shape, np.dtype(dtype)
        self.length, self.checksum = 0, 0
        self.file: BinaryIO = path.open("wb")
        self._write_header()
        self.data_from = self.file.tell()

    def append(self, row: np.ndarray) -> None:
        """Writes one row. Raises ValueError if its shape or dtype is not that of the first."""
        if row.shape != self.row_shape or row.dtype != self.dtype:
            raise ValueError(f"{self.path.stem}: expected {self.row_shape} {self.dtype}, got {row.shape} {row.dtype}")
        content = np.ascontiguousarray(row).tobytes()
        self.file.write(content)
        self.checksum = zlib.crc32(content, self.checksum)
        self.length += 1

    def close(self) -> dict[str, int]:
        """Completes the file; returns what `sampling.check_file` needs to verify it later."""
        self.file.seek(0)
        self._write_header()
        if self.file.tell() != self.data_from:
            raise AssertionError("the .npy header changed its length")
        self.file.close()
        return {"bytes": self.path.stat().st_size, "data_from": self.data_from, "crc32": self.checksum}

    def abandon(self) -> None:
        """Closes the file whatever its state; the folder is about to be removed."""
        with contextlib.suppress(OSError):  # a full disk raises again when the rest of the buffer is flushed
            self.file.close()

    def _write_header(self) -> None:
        shape = (self.length, *self.row_shape)
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, header)
