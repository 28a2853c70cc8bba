"""How many chunks of a cube lie in one object: one each, of large rasters those side by side (docs/design/030).

Objects are as high as a chunk, so that scenes which do not fit into memory are written in the same strips with and without.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numcodecs.checksum32 import CRC32C

LARGE_PX = 4096  # from a longer side on chunks are stored together
CHUNKS = 16
MISSING = 2**64 - 1  # both numbers of a chunk that is not stored
ENTRY, CHECKSUM = 16, 4  # bytes


def shard_width(shape: Sequence[int], chunk_px: int, asked: int | None) -> int:
    """Pixels from the left to the right edge of an object; 0 where each chunk is one.

    >>> shard_width((10980, 10980), 256, None), shard_width((4096, 100), 256, None), shard_width((5000, 5000), 256, asked=256)
    (4096, 0, 0)
    """
    if asked is not None:
        return asked if asked > chunk_px else 0
    return CHUNKS * chunk_px if len(shape) == 2 and max(shape) > LARGE_PX else 0


def shard_shape(shape: Sequence[int], chunk: Sequence[int], width: int) -> tuple[int, ...]:
    """Of an object of about `width` pixels, no wider than the raster: whole chunks; () where that is one."""
    count = min(width, shape[-1] + chunk[-1] - 1) // chunk[-1]
    return (*chunk[:-1], count * chunk[-1]) if count > 1 else ()


def join_chunks(chunks: Sequence[bytes]) -> bytes:
    """A shard, Zarr's codec `sharding_indexed` with its index at the end; b"" for a chunk, or a shard, that is not stored.

    Its chunks one after the other, then for each where it begins and how long it is, then the CRC-32C of these numbers.
    """
    if not any(len(chunk) for chunk in chunks):
        return b""
    content, index = bytearray(), np.full((len(chunks), 2), MISSING, "<u8")
    for number, chunk in enumerate(chunks):
        if len(chunk):
            index[number] = len(content), len(chunk)
            content += memoryview(chunk)
    return bytes(content + memoryview(CRC32C(location="end").encode(index.tobytes())))


def is_whole_shard(content: bytes, count: int) -> bool:
    """Whether an object is a shard of `count` chunks, of which the index and each chunk end in their checksums."""
    size = len(content) - count * ENTRY - CHECKSUM
    if size < 0:
        return False
    try:
        index = np.frombuffer(CRC32C(location="end").decode(content[size:]), "<u8").reshape(count, 2)
        stored = [(int(start), int(length)) for start, length in index if start != MISSING]
        for start, length in stored:
            CRC32C(location="end").decode(content[start : min(start + length, size)])
    except RuntimeError:
        return False
    return sum(length for _, length in stored) == size
