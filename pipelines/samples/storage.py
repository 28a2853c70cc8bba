"""Files of the sample cache: `.npy` arrays that grow along their first axis while written and are mapped when read.

Written with plain `write` calls, not through a memory map: a full disk then raises an error instead of SIGBUS.
"""

import contextlib
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipelines.errors import ArtefactDamaged


class GrowingArray:
    """An `.npy` file that grows row by row; `close` writes the final length to its header."""

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
        """Completes the file; returns what `check_file` needs to verify it later."""
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


def map_file(path: Path) -> np.ndarray:
    """The array as a private memory map: changes stay in this process and never reach the file."""
    return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
