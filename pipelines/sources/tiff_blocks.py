"""Where the strips and tiles of a TIFF lie, by its own directories: which end outside the file, which were never written.

GDAL ignores tags whose values are truncated, and reads blank pixels; so it does where a directory names fewer blocks than there
are. A block without an offset or without bytes was never written (its writer was killed, or left it out): GDAL reads zeros.
TIFF 6.0, sections 2, 8 and 15; BigTIFF (magic 43) has 8-byte counts and offsets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
WHOLE = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}  # types of offsets and counts
WIDTH, LENGTH, SAMPLES, ROWS_PER_STRIP, PLANAR, TILE_WIDTH, TILE_LENGTH, SUB_DIRECTORIES = 256, 257, 277, 278, 284, 322, 323, 330
OFFSETS, COUNTS = (324, 273), (325, 279)  # of tiles, of strips
SUBFILE_TYPE, OLD_SUBFILE_TYPE = 254, 255
MOST_DIRECTORIES = 10_000


class DamagedDirectory(ValueError):
    """The directories of a TIFF do not describe what is in the file; the message says where."""


@dataclass(frozen=True)
class Blocks:
    """The blocks of one image, all bands: `offsets` and `counts` (bands or 1, rows of blocks, columns of blocks).

    `trailer`: bytes that follow each block and belong to it, in a COG a copy of its last four. `pages`: images of the file that
    are no overviews and no masks.
    """

    block_yx: tuple[int, int]
    offsets: np.ndarray
    counts: np.ndarray
    trailer: int = 0
    pages: int = 1

    def of_band(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(offsets, counts) of the 1-based band, each (rows of blocks, columns of blocks)."""
        at = index - 1 if self.offsets.shape[0] > 1 else 0
        return self.offsets[at], self.counts[at]

    def outside(self, index: int, size: int) -> str:
        """The first block of the band that ends past `size` bytes, in words; "" if none does."""
        offsets, counts = self.of_band(index)
        end = np.minimum(offsets, size) + np.minimum(counts, size)
        is_out = (offsets > size) | (counts > size) | (end + np.where(counts == 0, 0, self.trailer).astype(np.uint64) > size)
        if not is_out.any():
            return ""
        row, column = np.argwhere(is_out)[0]
        last = int(offsets[row, column]) + int(counts[row, column]) + self.trailer
        return f"block ({row}, {column}) of band {index} ends at byte {last}, the file has {size}"

    def unwritten(self, index: int) -> np.ndarray | None:
        """(rows of blocks, columns of blocks) bool: never written; None if all were."""
        offsets, counts = self.of_band(index)
        is_unwritten: np.ndarray = (offsets == 0) | (counts == 0)
        return is_unwritten if is_unwritten.any() else None

    def unwritten_pixels(self, index: int, rows: slice, columns: slice) -> np.ndarray | None:
        """(rows, columns) bool: pixels of blocks that were never written; None if all blocks of the band were."""
        blocks = self.unwritten(index)
        if blocks is None:
            return None
        row, column = (np.arange(at.start, at.stop) // side for at, side in zip((rows, columns), self.block_yx, strict=True))
        found: np.ndarray = blocks[row[:, None], column[None, :]]
        return found


def blocks_of(path: Path) -> Blocks:
    """The blocks of the first image of a TIFF; all others (overviews, masks, pages) are inside the file.

    Raises DamagedDirectory if a directory, a value of a tag or a block of another image ends past the end of the file, or if a
    directory names another number of blocks than its image has.
    """
    status = path.stat()
    return _blocks_of(str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(maxsize=256)
def _blocks_of(path: str, size: int, mtime_ns: int, ctime_ns: int) -> Blocks:
    with Path(path).open("rb") as file:
        main, *pages = _directories(file, size)
        trailer = _trailer(file)
        first = _blocks(main, file, trailer)
        pages = [tags for tags in pages if any(tag in tags.entries for tag in OFFSETS)]
        others = [_blocks(tags, file, trailer) for tags in pages]
        first = replace(first, pages=1 + sum(not _is_subordinate(tags, file) for tags in pages))
    for number, image in enumerate(others, start=2):
        for index in range(1, image.offsets.shape[0] + 1):
            if problem := image.outside(index, size):
                raise DamagedDirectory(f"image {number} (an overview or a mask): {problem}")
    return first


def _is_subordinate(tags: _Tags, file: BinaryIO) -> bool:
    """Whether an image is an overview or a mask of another one."""
    return bool(tags.number(file, SUBFILE_TYPE, 0) & 5) or tags.number(file, OLD_SUBFILE_TYPE, 1) == 2


@dataclass(frozen=True)
class _Tags:
    """One directory: tag -> (type, count, position of its values in the file)."""

    entries: dict[int, tuple[int, int, int]]
    order: str

    def numbers(self, file: BinaryIO, tag: int) -> np.ndarray | None:
        """Whole numbers, uint64; None if the tag is not there or holds something else."""
        kind, count, position = self.entries.get(tag, (0, 0, 0))
        if kind not in WHOLE or count < 1:
            return None
        file.seek(position)
        raw = file.read(count * TYPE_BYTES[kind])
        return np.frombuffer(raw, np.dtype(self.order + WHOLE[kind])).astype(np.uint64)

    def number(self, file: BinaryIO, tag: int, otherwise: int) -> int:
        found = self.numbers(file, tag)
        return otherwise if found is None else int(found[0])


def _directories(file: BinaryIO, size: int) -> Iterator[_Tags]:
    """Every image directory, the first one first. Raises DamagedDirectory."""
    head = file.read(16)
    order, is_big = ("<" if head[:2] == b"II" else ">"), head[2:4] in (b"+\0", b"\0+")
    count_format, offset_format, entry_bytes, inline = ("Q", "Q", 20, 8) if is_big else ("H", "I", 12, 4)
    count_bytes = struct.calcsize(count_format)
    if len(head) < (16 if is_big else 8):
        raise DamagedDirectory("the header is truncated")
    waiting, seen = [struct.unpack_from(order + offset_format, head, 8 if is_big else 4)[0]], set[int]()
    while waiting:
        start = waiting.pop(0)
        if start in seen or len(seen) > MOST_DIRECTORIES:
            raise DamagedDirectory(f"the image directories form a circle at byte {start}, or are more than {MOST_DIRECTORIES}")
        seen.add(start)
        file.seek(min(start, size))
        raw = file.read(count_bytes)
        if len(raw) < count_bytes:
            raise DamagedDirectory(f"an image directory begins at byte {start}, the file has {size}")
        (count,) = struct.unpack(order + count_format, raw)
        end = start + count_bytes + count * entry_bytes + inline
        if end > size:
            raise DamagedDirectory(f"an image directory ends at byte {end}, the file has {size}")
        raw, entries = file.read(count * entry_bytes + inline), {}
        for at in range(0, count * entry_bytes, entry_bytes):
            tag, kind, values = struct.unpack_from(order + "HH" + offset_format, raw, at)
            length = values * TYPE_BYTES.get(kind, 1)
            position = start + count_bytes + at + entry_bytes - inline
            if length > inline:
                (position,) = struct.unpack_from(order + offset_format, raw, at + entry_bytes - inline)
                if position + length > size:
                    raise DamagedDirectory(f"the values of tag {tag} end at byte {position + length}, the file has {size}")
            entries[tag] = kind, values, position
        tags = _Tags(entries, order)
        (successor,) = struct.unpack_from(order + offset_format, raw, count * entry_bytes)
        below = tags.numbers(file, SUB_DIRECTORIES)
        waiting += [int(at) for at in (*([successor] if successor else []), *(below if below is not None else [])) if at]
        yield tags


def _trailer(file: BinaryIO) -> int:
    """Bytes after each block, by the text at the beginning of a COG that GDAL wrote and nobody edited."""
    file.seek(0)
    text = file.read(1000)
    is_repeated = b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED" in text
    return 4 if is_repeated and b"KNOWN_INCOMPATIBLE_EDITION=YES" not in text else 0


def _blocks(tags: _Tags, file: BinaryIO, trailer: int) -> Blocks:
    """Raises DamagedDirectory if the number of blocks is not that of the image, or the image has no pixels."""
    is_tiled = TILE_WIDTH in tags.entries
    height, width = tags.number(file, LENGTH, 0), tags.number(file, WIDTH, 0)
    rows = tags.number(file, TILE_LENGTH if is_tiled else ROWS_PER_STRIP, height)
    block_yx = min(rows, height) if not is_tiled else rows, tags.number(file, TILE_WIDTH, 0) if is_tiled else width
    if min(height, width, *block_yx) < 1:
        raise DamagedDirectory(f"an image of {height} x {width} pixels in blocks of {block_yx[0]} x {block_yx[1]}")
    planes = tags.number(file, SAMPLES, 1) if tags.number(file, PLANAR, 1) == 2 else 1
    shape = planes, -(-height // block_yx[0]), -(-width // block_yx[1])
    found = [tags.numbers(file, pair[0] if is_tiled else pair[1]) for pair in (OFFSETS, COUNTS)]
    number = shape[0] * shape[1] * shape[2]
    for name, values in zip(("offsets", "lengths"), found, strict=True):
        if values is None or len(values) < number:
            there = 0 if values is None else len(values)
            raise DamagedDirectory(f"an image has {number} blocks ({height} x {width} pixels), its directory {there} {name}")
    offsets, counts = (values[:number].reshape(shape) for values in found if values is not None)
    return Blocks((int(block_yx[0]), int(block_yx[1])), offsets, counts, trailer)
