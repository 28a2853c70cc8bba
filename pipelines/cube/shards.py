"""How many chunks of a cube lie in one object: one each, of large rasters those side by side (docs/design/030).

Objects are as high as a chunk, so that scenes which do not fit into memory are written in the same strips with and without.
"""

from __future__ import annotations

from collections.abc import Sequence

LARGE_PX = 4096  # from a longer side on chunks are stored together
CHUNKS = 16


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
