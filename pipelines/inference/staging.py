"""Predicted fields on disk: one plain float32 file per field, first axis outermost, written region by region, and a ledger.

The ledger is an append-only list of finished regions, one JSON line each, on disk before the next region starts.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import ArtefactDamaged, MissingInput
from pipelines.files import naming_full_disk, sync, write_text
from pipelines.tiles import Box

LEDGER = "ledger.jsonl"
ROLES = ("forecast", "lower", "upper")
DTYPE = np.dtype("<f4")


@dataclass(frozen=True, order=True)
class Field:
    """One number per pixel: `role` (forecast, lower or upper) of a variable at the `target`-th target date (zero-based)."""

    target: int
    variable: str
    role: str

    @property
    def file(self) -> str:
        return f"{self.target:03d}-{self.variable}-{self.role}.f32"


@dataclass(frozen=True)
class Staged:
    """Finished or incomplete fields in `folder`; each is float32 little-endian of `shape`, NaN = no data, no header."""

    folder: Path
    fields: tuple[Field, ...]
    shape: tuple[int, ...]

    @classmethod
    def open(cls, folder: Path) -> Staged:
        """The fields of a prediction in `folder`. Raises MissingInput if there are none."""
        header = read_header(folder)
        if header is None:
            raise MissingInput(f"{folder}: no staged prediction here (no ledger); run `driftline predict` first")
        fields = tuple(Field(int(k), str(variable), str(role)) for k, variable, role in header["fields"])
        return cls(folder, fields, tuple(map(int, header["shape"])))

    def read(self, field: Field, *slices: slice) -> np.ndarray:
        """A copy of the field at `slices`, one per axis from the first on (the rest whole), float32. Reads no other rows."""
        first, last, _ = slices[0].indices(self.shape[0])
        plane = math.prod(self.shape[1:])
        block = np.fromfile(self.folder / field.file, DTYPE, count=(last - first) * plane, offset=first * plane * DTYPE.itemsize)
        if block.size != (last - first) * plane:
            raise ArtefactDamaged(f"{self.folder / field.file}: shorter than {self.shape}; delete the folder, predict again")
        return block.reshape(last - first, *self.shape[1:])[:, *slices[1:]]

    def offsets(self, tile: Box) -> Iterator[int]:
        """Position in a file, bytes, of each row of `tile`."""
        for corner in itertools.product(*map(range, tile.start[:-1], tile.stop[:-1])):
            yield int(np.ravel_multi_index((*corner, tile.start[-1]), self.shape)) * DTYPE.itemsize

    def allocate(self) -> None:
        """Creates every file at its full size, so that a full disk is detected before the computation."""
        size = math.prod(self.shape) * DTYPE.itemsize
        for field in self.fields:
            with (self.folder / field.file).open("wb") as file, naming_full_disk(self.folder, size * len(self.fields)):
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)

    @contextmanager
    def _opened(self, flags: int) -> Iterator[dict[Field, int]]:
        with ExitStack() as stack:
            descriptors: dict[Field, int] = {}
            for field in self.fields:
                descriptors[field] = os.open(self.folder / field.file, flags)
                stack.callback(os.close, descriptors[field])
            yield descriptors

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """A writer whose data are on disk when the block ends without an error."""
        with self._opened(os.O_WRONLY) as descriptors:
            yield Writer(self, descriptors)
            for descriptor in descriptors.values():
                os.fsync(descriptor)

    def checksum(self, region: Box, tile_px: int) -> str:
        """SHA-256 of the region on disk, computed as `Writer` does."""
        digest = hashlib.sha256()
        with self._opened(os.O_RDONLY) as descriptors:
            for tile in region.cut(tile_px):
                length = tile.shape[-1] * DTYPE.itemsize
                for field in self.fields:
                    for offset in self.offsets(tile):
                        digest.update(os.pread(descriptors[field], length, offset))
        return digest.hexdigest()


class Writer:
    """Writes tiles to the fields and computes the SHA-256 over (tile, field, rows) in the order written."""

    def __init__(self, staged: Staged, descriptors: dict[Field, int]):
        self.staged, self.descriptors, self.digest = staged, descriptors, hashlib.sha256()

    def write(self, tile: Box, blocks: dict[Field, np.ndarray]) -> None:
        """Writes `blocks` (each of the tile's shape). Uses plain writes: mapped pages would count as memory."""
        for field in self.staged.fields:
            block = np.ascontiguousarray(blocks[field], DTYPE)
            if block.shape != tile.shape:
                raise ValueError(f"{field}: block {block.shape} for tile {tile.key} of {tile.shape}")
            with naming_full_disk(self.staged.folder, block.nbytes):
                for line, offset in zip(block.reshape(-1, tile.shape[-1]), self.staged.offsets(tile), strict=True):
                    os.pwrite(self.descriptors[field], line.data, offset)
            self.digest.update(block.data)


# ---------------------------------------------------------------- ledger


@dataclass(frozen=True)
class Record:
    """A finished region: the key of its region, the SHA-256 of its bytes, and the disagreement of its windows.

    `seam_mean` and `seam_max` are the disagreement of blended windows in physical units, over `seam_count` values;
    `seam_share` is its mean in half widths of the intervals. All are 0 with exact halos.
    """

    region: str
    sha256: str
    seam_mean: float = 0.0
    seam_max: float = 0.0
    seam_count: int = 0
    seam_share: float = 0.0


def start_ledger(folder: Path, header: dict[str, Any]) -> None:
    """Writes a new ledger to `folder` with `header` as its first line; published by rename, so a ledger always has a header."""
    write_text(folder / LEDGER, json.dumps(header, sort_keys=True) + "\n", mark="partial")
    sync(folder)


def append_record(folder: Path, record: Record) -> None:
    """Appends one line in one write and waits until it is on disk."""
    line = (json.dumps(asdict(record), sort_keys=True) + "\n").encode()
    descriptor = os.open(folder / LEDGER, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_header(folder: Path) -> dict[str, Any] | None:
    """The first line of the ledger in `folder`; None if there is no ledger or its first line is incomplete.

    Raises ArtefactDamaged for a complete first line that is not a ledger header.
    """
    path = folder / LEDGER
    if not path.exists():
        return None
    first, newline, _ = path.read_bytes().partition(b"\n")
    if not newline:
        return None
    return _parse(first, path, 1)


def read_records(folder: Path) -> list[Record]:
    """The finished regions in order of completion. An incomplete last line is removed from the file.

    Raises ArtefactDamaged for any other unreadable line.
    """
    path = folder / LEDGER
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):  # killed during a write: that region is repeated
        os.truncate(path, len(whole))
    lines = whole.splitlines()[1:]
    try:
        return [Record(**_parse(line, path, number)) for number, line in enumerate(lines, start=2)]
    except TypeError as e:
        raise ArtefactDamaged(f"{path}: a line is not a record of this version ({e}); delete {folder} and predict again") from e


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as e:
        value = e
    if not isinstance(value, dict):
        raise ArtefactDamaged(f"{path}:{number}: not a JSON object ({line[:40]!r}); delete {path.parent} and predict again")
    return value
