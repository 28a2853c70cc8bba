"""The dates of a cube inside an open session: resize, write, sort, describe. Nothing here commits."""

import asyncio
import itertools
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, Crc32cCodec, ShardingCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.types import AnyArray

from pipelines.calendar import is_elapsed
from pipelines.cube.encoding import ChunkLayout, EncodedRows
from pipelines.cube.integrity import write_seal
from pipelines.cube.plan import KnownRefusal, Step
from pipelines.cube.store import IMAGE, STEP_TEXTS, STEP_TIMES, VALID
from pipelines.errors import ArtefactDamaged

PIXEL_ARRAYS = (IMAGE, VALID)
MOVES_AT_ONCE = 32
OF_UNKNOWN_ORIGIN = {
    "time_origin": "unknown",
    "comment": "times are exact relative to the first frame; no file states a date, and 1800-01-01 stands for it",
}


def array_of(root: zarr.Group, name: str) -> AnyArray:
    found = root[name]
    if not isinstance(found, zarr.Array):
        raise ArtefactDamaged(f"the cube's {name} is not an array")
    return found


def read_steps(root: zarr.Group) -> tuple[Step, ...]:
    """Metadata of the cube's dates, in order."""

    def column(name: str) -> np.ndarray:
        return np.asarray(array_of(root, name)[:])

    columns: dict[str, Any] = {name: map(str, column(name)) for name in STEP_TEXTS}
    columns |= {name: column(name).astype("datetime64[ns]") for name in STEP_TIMES}
    columns["valid_fraction"] = map(float, column("valid_fraction"))
    return tuple(Step(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True))


def write_steps(root: zarr.Group, steps: list[Step]) -> None:
    """Replaces the per-date coordinates with those of `steps`; a few kilobytes."""
    columns: dict[str, Any] = {name: np.array([getattr(s, name) for s in steps], dtype=object) for name in STEP_TEXTS}
    columns |= {name: np.array([getattr(s, name) for s in steps], "datetime64[ns]").astype("int64") for name in STEP_TIMES}
    columns["valid_fraction"] = np.array([s.valid_fraction for s in steps], "float64")
    if steps and is_elapsed(steps[0].time):
        array_of(root, "time").attrs.update(OF_UNKNOWN_ORIGIN)
    for name, values in columns.items():
        array = array_of(root, name)
        array.resize((len(steps),))
        if len(steps):
            array[:] = values


def read_refusals(root: zarr.Group) -> tuple[KnownRefusal, ...]:
    stored = array_of(root, "scene_id").attrs.get("refused", "[]")
    return tuple(KnownRefusal(**entry) for entry in json.loads(str(stored)))


def write_refusals(root: zarr.Group, refusals: list[KnownRefusal]) -> None:
    array_of(root, "scene_id").attrs["refused"] = json.dumps([vars(refusal) for refusal in refusals])


def read_dropped(root: zarr.Group) -> list[str]:
    """Ids of the scenes that were taken out by hand (`driftline drop`)."""
    return list(json.loads(str(array_of(root, "scene_id").attrs.get("dropped", "[]"))))


def write_dropped(root: zarr.Group, scene_ids: list[str]) -> None:
    array_of(root, "scene_id").attrs["dropped"] = json.dumps(scene_ids)


def resize_time(root: zarr.Group, count: int) -> None:
    """Sets the number of dates of the pixel arrays to `count`; pixels of further dates are dropped."""
    for name in PIXEL_ARRAYS:
        array = array_of(root, name)
        if array.shape[0] != count:
            array.resize((count, *array.shape[1:]))


@dataclass(frozen=True)
class PixelStore:
    """Where the chunks or shards of a cube's pixels go, opened once: zarr parses the metadata of arrays at every access."""

    store: Store
    layouts: tuple[ChunkLayout, ChunkLayout]  # of IMAGE, VALID

    @property
    def object_px(self) -> int:
        """Along the first axis of space: what is written at once."""
        return self.layouts[1].stored[0]

    def write(self, index: int, rows: EncodedRows) -> None:
        """Writes the chunks to the date at `index`; dates can be written in parallel. Those of only the fill value are none."""
        buffer = default_buffer_prototype().buffer
        chunks = ((f"{path}/c/{index}/{position}", chunk) for path, position, chunk in rows.chunks())
        sync(_set_chunks(self.store, {key: buffer.from_array_like(chunk) if len(chunk) else None for key, chunk in chunks}))


def pixel_store(root: zarr.Group) -> PixelStore:
    """Of an open cube. Raises ArtefactDamaged for codecs other than those of a cube."""
    image, valid = array_of(root, IMAGE), array_of(root, VALID)
    return PixelStore(image.store_path.store, (_layout_of(image), _layout_of(valid)))


def _layout_of(array: AnyArray) -> ChunkLayout:
    codecs, shard = array.metadata.codecs, array.shards or ()  # type: ignore[union-attr]
    if len(codecs) == 1 and isinstance(codecs[0], ShardingCodec):
        codecs = codecs[0].codecs
    blosc, has_checksum = codecs[1], len(codecs) > 2  # after the order of bytes; older cubes have no checksums
    if not isinstance(blosc, BloscCodec) or not all(isinstance(codec, Crc32cCodec) for codec in codecs[2:]):
        raise ArtefactDamaged(f"the cube's {array.name} has unexpected codecs: {codecs}")
    fill, of_date = np.asarray(array.fill_value, array.dtype).tobytes(), array.chunks[1:]
    coding = array.dtype, fill, blosc._blosc_codec, has_checksum
    return ChunkLayout(array.path, array.shape[1:], of_date, *coding, tuple(shard[1:]))


async def _set_chunks(store: Store, chunks: dict[str, Buffer | None]) -> None:
    gate = asyncio.Semaphore(MOVES_AT_ONCE)

    async def put(key: str, chunk: Buffer | None) -> None:
        async with gate:
            if chunk is None:
                await store.delete(key)
            else:
                await store.set(key, chunk)

    await asyncio.gather(*(put(key, chunk) for key, chunk in chunks.items()))


def sort_dates(root: zarr.Group, order: list[int]) -> None:
    """Moves the pixels so that date `i` is the one formerly at `order[i]`, and drops all others.

    Objects hold one date, so they are moved without decoding, and only where the order changes: none for a scene that is the
    newest, one date for a scene that is the second newest.
    """
    moves = [(target, source) for target, source in enumerate(order) if target != source]
    if moves:
        for name in PIXEL_ARRAYS:
            array = array_of(root, name)
            stored = (array.shards or array.chunks)[1:]
            counts = [-(-size // side) for size, side in zip(array.shape[1:], stored, strict=True)]
            positions = itertools.product(*(range(count) for count in counts))
            for position in positions:
                sync(_move_chunks(array.store_path.store, f"{array.path}/c", "/".join(map(str, position)), moves))
    resize_time(root, len(order))


async def _move_chunks(store: Store, prefix: str, position: str, moves: list[tuple[int, int]]) -> None:
    """Reads all dates of one chunk position before it writes any, so cycles need no spare space in the cube."""
    gate = asyncio.Semaphore(MOVES_AT_ONCE)

    async def get(source: int) -> Buffer | None:
        async with gate:
            return await store.get(f"{prefix}/{source}/{position}", default_buffer_prototype())

    chunks = await asyncio.gather(*(get(source) for _, source in moves))
    await _set_chunks(store, {f"{prefix}/{target}/{position}": chunk for (target, _), chunk in zip(moves, chunks, strict=True)})


def verify(root: zarr.Group) -> None:
    """Checks the dates before a commit and seals the version. Raises ArtefactDamaged; then nothing is committed."""
    steps = read_steps(root)
    times = [step.time for step in steps]
    if any(later <= earlier for earlier, later in itertools.pairwise(times)):
        raise ArtefactDamaged("the dates to be committed are not sorted and unique; nothing was committed")
    if len({step.scene_id for step in steps}) != len(steps):
        raise ArtefactDamaged("a scene id would occur twice in the cube; nothing was committed")
    for name in PIXEL_ARRAYS:
        if array_of(root, name).shape[0] != len(steps):
            found = array_of(root, name).shape[0]
            raise ArtefactDamaged(f"{name} has {found} dates, expected {len(steps)}; nothing was committed")
    write_seal(root)
