"""What h5py does not see of an HDF5 file: chunks that were never written, and heaps on which the HDF5 library never ends.

HDF5 reads its fill value where nothing was written, zeros unless somebody chose another.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d

from pipelines.errors import SceneRefused

HEAP = b"GCOL\x01\0\0\0"  # HDF5 File Format Specification 3.0, III.E: lists of axes lie in global heaps
MOST_SCANNED = 1 << 26  # bytes of a file that is searched for heaps
MOST_CHUNKS = 4_000_000  # of one data set, written or not


def has_endless_heap(path: Path) -> bool:
    """True if an object in a global heap has no length, which HDF5 2.0 reads for ever.

    Files of more than MOST_SCANNED bytes are not searched; the others once, as long as they are as they were.
    """
    status = path.stat()
    return status.st_size <= MOST_SCANNED and _search_heaps(path, (status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=32)
def _search_heaps(path: Path, _stamp: tuple[int, int, int]) -> bool:
    content, at = path.read_bytes(), -1
    while (at := content.find(HEAP, at + 1)) >= 0:
        end = min(at + int.from_bytes(content[at + 8 : at + 16], "little"), len(content))
        position = at + 16
        while position + 16 <= end:
            number, length = struct.unpack_from("<H6xQ", content, position)
            step = 16 + (length + 7) // 8 * 8 if number else length
            if step == 0:
                return True
            position += step
    return False


@dataclass(frozen=True)
class Unwritten:
    """`chunks`: bool, an axis for each of the data set, True where a chunk of the shape `chunk_shape` was never written."""

    chunks: np.ndarray
    chunk_shape: tuple[int, ...]

    def pixels(self, at: tuple[slice | int, ...]) -> np.ndarray:
        """Bool of the shape that the data set gives for `at` (slices with bounds, and indices): never written."""
        spans = [np.arange(one.start, one.stop) if isinstance(one, slice) else np.array([one]) for one in at]
        found: np.ndarray = self.chunks[np.ix_(*(span // side for span, side in zip(spans, self.chunk_shape, strict=True)))]
        found = found[tuple(slice(None) if isinstance(one, slice) else 0 for one in at)]
        return found


def unwritten_chunks(data: h5py.Dataset, missing: tuple[float, ...], label: str) -> Unwritten | None:
    """What of `data` was never written; None if all was, or if its fill value is among the values that mean `missing` anyway.

    Raises SceneRefused(too-large) for more than MOST_CHUNKS chunks.
    """
    if data.size == 0 or float(data.fillvalue) in missing:
        return None
    if data.chunks is None:
        is_there = data.id.get_space_status() != h5d.SPACE_STATUS_NOT_ALLOCATED
        return None if is_there else Unwritten(np.ones((1,) * data.ndim, bool), data.shape)
    shape = tuple(-(-length // side) for length, side in zip(data.shape, data.chunks, strict=True))
    number = int(np.prod(shape, dtype=object))
    if number > MOST_CHUNKS:
        detail = f"{data.name!r} has {number} chunks of {data.chunks}, the limit is {MOST_CHUNKS}; rewrite it with larger ones"
        raise SceneRefused(label, "too-large", detail)
    if data.id.get_num_chunks() == number:
        return None
    is_unwritten = np.ones(shape, bool)

    def note(chunk: h5d.StoreInfo) -> None:
        place = tuple(offset // side for offset, side in zip(chunk.chunk_offset, data.chunks, strict=True))
        if chunk.size and all(0 <= at < length for at, length in zip(place, shape, strict=True)):
            is_unwritten[place] = False

    data.id.chunk_iter(note)
    return Unwritten(is_unwritten, data.chunks) if is_unwritten.any() else None
