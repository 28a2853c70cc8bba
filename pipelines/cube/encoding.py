"""Scenes as the compressed chunks of a cube, made in the worker that decodes their files: less crosses than pixels.

Imports neither zarr nor Icechunk, so that a worker has it at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numcodecs.blosc
import numpy as np
from numcodecs.blosc import Blosc
from numcodecs.checksum32 import CRC32C

from pipelines.cube.drift import MOST_PX, sample_pixels
from pipelines.cube.shards import join_chunks
from pipelines.scene import Scene
from pipelines.sources.reading import SceneReader, Slice
from pipelines.tiles import Box

MANY_BYTES = 32 << 20  # from here on chunks are compressed in threads, and hashed meanwhile
numcodecs.blosc.use_threads = False  # as zarr does: its threads are shared, and would not survive a fork


@dataclass(frozen=True)
class ChunkLayout:
    """The chunks of one date of an array: `shape` and `chunk` of [band,] [z,] y, x; bytes of the fill value.

    `shard`: of what lies in one object, a multiple of the chunk along every axis; () where each chunk is an object.
    """

    path: str
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype
    fill: bytes
    blosc: Blosc
    has_checksum: bool
    shard: tuple[int, ...] = ()

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape of an object."""
        return self.shard or self.chunk


@dataclass(frozen=True)
class EncodedRows:
    """Rows of a scene as objects, chunks or shards; their hash, and what is counted and sampled (band, n) of their pixels.

    `places`: array, position in it without the date, and end in `content` of each object, which begins where the one before ends;
    one without bytes is not stored. None: not encoded, since the hash is the previous one.
    """

    content_hash: str
    valid_px: int
    has_data: bool
    sample_BN: np.ndarray
    places: list[tuple[str, str, int]] | None = None
    content: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))

    def chunks(self) -> Iterator[tuple[str, str, np.ndarray]]:
        """(array, position, bytes) of every chunk."""
        start = 0
        for path, position, end in self.places or []:
            yield path, position, self.content[start:end]
            start = end


def encode_scene(reader: SceneReader, scene: Scene, layouts: tuple[ChunkLayout, ...], previous_hash: str) -> EncodedRows:
    """The whole scene; without chunks if its hash is `previous_hash`. Raises SceneRefused as `SceneReader.read` does, and
    (all-cloud, few-usable)."""
    found = reader.read(scene)
    reader.valid_fraction(scene, int(np.count_nonzero(found.valid_YX)))
    return encode_rows(found, slice(0, reader.grid.shape[0]), layouts, MOST_PX, previous_hash)


def encode_strip(reader: SceneReader, scene: Scene, layouts: tuple[ChunkLayout, ...], rows: slice, sample_px: int) -> EncodedRows:
    """`rows` of the scene, whole chunks, also without data."""
    image_BYX, valid_YX, is_data_YX = reader.read_rows(scene, rows)
    return encode_rows(Slice(image_BYX, valid_YX), rows, layouts, sample_px, has_data=bool(is_data_YX.any()))


def encode_rows(
    found: Slice,
    rows: slice,
    layouts: tuple[ChunkLayout, ...],
    sample_px: int,
    previous_hash: str = "",
    *,
    has_data: bool = True,
) -> EncodedRows:
    """`rows` (whole objects) of a scene; `layouts` are those of the image and of the validity mask."""
    arrays = found.image_BYX, found.valid_YX
    counted = int(np.count_nonzero(found.valid_YX)), has_data, sample_pixels(*arrays, sample_px)
    if previous_hash and found.content_hash == previous_hash:
        return EncodedRows(previous_hash, *counted)
    jobs = [
        job for layout, values in zip(layouts, arrays, strict=True) for job in _cut(layout, rows, values, found.valid_YX.ndim)
    ]
    content, places = bytearray(), []
    is_large = sum(array.nbytes for array in arrays) >= MANY_BYTES
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digest = pool.submit(lambda: found.content_hash) if is_large else None
        encoded = (pool.map if is_large else map)(_encode_object, (layout for layout, *_ in jobs), (part for *_, part in jobs))
        for (layout, position, _), chunk in zip(jobs, encoded, strict=True):
            content += memoryview(chunk)
            places.append((layout.path, position, len(content)))
        content_hash = found.content_hash if digest is None else digest.result()
    return EncodedRows(content_hash, *counted, places, np.frombuffer(content, np.uint8))


def _cut(layout: ChunkLayout, rows: slice, values: np.ndarray, axes: int) -> Iterator[tuple[ChunkLayout, str, np.ndarray]]:
    """(layout, position, pixels) of the objects of `values`, the `rows` of one date along the first axis of space.

    `values` has `axes` of space, and before them maybe all bands, which lie in one object.
    """
    bands = layout.shape[: len(layout.shape) - axes]
    side, whole = layout.stored[len(bands) :], layout.shape[len(bands) :]
    if rows.start % side[0] or (rows.stop % side[0] and rows.stop != whole[0]):
        raise ValueError(f"rows {rows.start} to {rows.stop} are not whole chunks of {side[0]}")
    for box in Box.whole(values.shape[len(bands) :]).cut(side):
        place = (start // px for start, px in zip((rows.start + box.start[0], *box.start[1:]), side, strict=True))
        position = "/".join(map(str, (*(0 for _ in bands), *place)))
        yield layout, position, values[(*(slice(None) for _ in bands), *box.slices)]


def _encode_object(layout: ChunkLayout, part: np.ndarray) -> bytes:
    """The bytes of the chunk or shard that `part` fills; none if it holds only the fill value."""
    if not layout.shard:
        return _encode(layout, part)
    counts = [side // chunk for side, chunk in zip(layout.shard, layout.chunk, strict=True)]
    corners = [[n * chunk for n, chunk in zip(place, layout.chunk, strict=True)] for place in np.ndindex(*counts)]
    cut = (part[tuple(slice(px, px + side) for px, side in zip(corner, layout.chunk, strict=True))] for corner in corners)
    return join_chunks([_encode(layout, pixels) if pixels.size else b"" for pixels in cut])


def _encode(layout: ChunkLayout, part: np.ndarray) -> bytes:
    """The bytes of the chunk that `part` fills, at the edges padded with the fill value; none if it holds only that."""
    # as bytes: of -0.0 and of some NaN others would come back
    if part.flat[0].tobytes() == layout.fill and part.tobytes() == layout.fill * part.size:
        return b""
    whole, dtype = part, layout.dtype.newbyteorder("<")
    if part.shape != layout.chunk:
        whole = np.full(layout.chunk, np.frombuffer(layout.fill, layout.dtype)[0], dtype)
        whole[tuple(slice(size) for size in part.shape)] = part
    encoded: bytes = layout.blosc.encode(np.ascontiguousarray(whole, dtype))
    return CRC32C(location="end").encode(encoded) if layout.has_checksum else encoded
