"""Predicted fields on disk: one plain float32 file per field, rows from the top, written region by region."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.errors import ArtefactDamaged, MissingInput
from pipelines.files import naming_full_disk
from pipelines.inference.ledger import read_header
from pipelines.inference.tiling import tiles_of
from pipelines.tiles import Tile

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
    """Finished or incomplete fields in `folder`; each is (rows, columns) float32 little-endian, NaN = no data, no header."""

    folder: Path
    fields: tuple[Field, ...]
    shape_yx: tuple[int, int]

    @classmethod
    def open(cls, folder: Path) -> Staged:
        """The fields of a prediction in `folder`. Raises MissingInput if there are none."""
        header = read_header(folder)
        if header is None:
            raise MissingInput(f"{folder}: no staged prediction here (no ledger); run `driftline predict` first")
        fields = tuple(Field(int(k), str(variable), str(role)) for k, variable, role in header["fields"])
        return cls(folder, fields, (int(header["shape_yx"][0]), int(header["shape_yx"][1])))

    def read(self, field: Field, rows: slice, columns: slice = slice(None)) -> np.ndarray:
        """A copy of the field at `rows`, `columns` (zero-based, half-open), float32. Reads only those rows."""
        width = self.shape_yx[1]
        first, last, _ = rows.indices(self.shape_yx[0])
        block = np.fromfile(self.folder / field.file, DTYPE, count=(last - first) * width, offset=first * width * DTYPE.itemsize)
        if block.size != (last - first) * width:
            raise ArtefactDamaged(f"{self.folder / field.file}: shorter than {self.shape_yx}; delete the folder, predict again")
        return block.reshape(last - first, width)[:, columns]

    def allocate(self) -> None:
        """Creates every file at its full size, so that a full disk is detected before the computation."""
        size = self.shape_yx[0] * self.shape_yx[1] * DTYPE.itemsize
        for field in self.fields:
            with (self.folder / field.file).open("wb") as file, naming_full_disk(self.folder, size * len(self.fields)):
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """A writer whose data are on disk when the block ends without an error."""
        descriptors = {field: os.open(self.folder / field.file, os.O_WRONLY) for field in self.fields}
        try:
            yield Writer(self, descriptors)
            for descriptor in descriptors.values():
                os.fsync(descriptor)
        finally:
            for descriptor in descriptors.values():
                os.close(descriptor)

    def checksum(self, region: Tile, tile_px: int) -> str:
        """SHA-256 of the region on disk, computed as `Writer` does."""
        digest = hashlib.sha256()
        width = self.shape_yx[1] * DTYPE.itemsize
        with _reading(self) as descriptors:
            for tile in tiles_of(region, tile_px):
                for field in self.fields:
                    for row in range(tile.row0, tile.row1):
                        length = tile.shape_yx[1] * DTYPE.itemsize
                        digest.update(os.pread(descriptors[field], length, row * width + tile.col0 * DTYPE.itemsize))
        return digest.hexdigest()


@contextmanager
def _reading(staged: Staged) -> Iterator[dict[Field, int]]:
    descriptors: dict[Field, int] = {}
    try:
        for field in staged.fields:
            descriptors[field] = os.open(staged.folder / field.file, os.O_RDONLY)
        yield descriptors
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


class Writer:
    """Writes tiles to the fields and computes the SHA-256 over (tile, field, rows) in the order written."""

    def __init__(self, staged: Staged, descriptors: dict[Field, int]):
        self.staged, self.descriptors, self.digest = staged, descriptors, hashlib.sha256()

    def write(self, tile: Tile, blocks: dict[Field, np.ndarray]) -> None:
        """Writes `blocks` (each (rows, columns) of the tile). Uses plain writes: mapped pages would count as memory."""
        width = self.staged.shape_yx[1] * DTYPE.itemsize
        for field in self.staged.fields:
            block = np.ascontiguousarray(blocks[field], DTYPE)
            if block.shape != tile.shape_yx:
                raise ValueError(f"{field}: block {block.shape} for tile {tile.key} of {tile.shape_yx}")
            with naming_full_disk(self.staged.folder, block.nbytes):
                for row, line in enumerate(block, start=tile.row0):
                    os.pwrite(self.descriptors[field], line.data, row * width + tile.col0 * DTYPE.itemsize)
            self.digest.update(block.data)
