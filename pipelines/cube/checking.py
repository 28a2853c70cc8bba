"""Reads every pixel of a cube's newest version and names what is damaged (docs/design/012)."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import zarr
from zarr.abc.codec import Codec
from zarr.codecs import Crc32cCodec, ShardingCodec
from zarr.types import AnyArray

from pipelines.cube import store
from pipelines.cube.checksums import FileDamage, damaged_files
from pipelines.cube.history import list_versions
from pipelines.cube.integrity import box_text, chunks_of, damaged_chunks, first_line, naming_damage
from pipelines.cube.plan import Step
from pipelines.cube.steps import array_of, read_steps
from pipelines.errors import ArtefactDamaged
from pipelines.progress import Progress
from pipelines.sources.reading import hash_content
from pipelines.stored_files import files_at

MB = 2**20
WHOLE_MB = 512  # dates of at most this size are first hashed as a whole, larger ones in strips, as ingest writes them


@dataclass(frozen=True)
class Damage:
    """Pixels that are not what was written: `array` is image or valid (all bands of the box), "" where only the hash tells."""

    time: str  # ISO 8601, UTC
    scene_id: str
    array: str
    box: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.array}, all bands, {self.box}" if self.array == store.IMAGE else f"{self.array}, {self.box}"
        return f"{self.time}  {self.scene_id}  {where if self.array else self.box}: {self.reason}"


@dataclass(frozen=True)
class CheckReport:
    """`damages` are in order of date; several of one date are possible. `files`: of whatever version."""

    snapshot: str
    dates: int
    chunks: int  # that can lie in the dates; chunks without data are not stored
    damages: tuple[Damage, ...]
    files: tuple[FileDamage, ...] = ()

    @property
    def scene_ids(self) -> tuple[str, ...]:
        """The scenes with damage, in order of date."""
        return tuple(dict.fromkeys(damage.scene_id for damage in self.damages if damage.scene_id))


def check_cube(uri: str, progress: Progress | None = None) -> CheckReport:
    """Every pixel of the newest version read and compared with its date's content hash; every file, those of earlier versions
    too, with its checksum. Changes nothing.

    Raises MissingInput; ArtefactDamaged for a cube that cannot be opened (metadata or coordinates are damaged).
    """
    snapshot = store.head_snapshot(uri)
    store.open_cube(uri, snapshot, accept_damaged=True)
    with naming_damage(uri):
        session = store.open_repository(uri).readonly_session(snapshot_id=snapshot)
        root = zarr.open_group(session.store, mode="r")
        steps = read_steps(root)
        damages, files = _damages_of_history(uri), _damages_of_files(uri, root)
        with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as pool:  # zarr decodes in threads of its own
            for done, found in enumerate(pool.map(partial(_damages_of, root), range(len(steps)), steps), 1):
                damages += found
                if progress is not None:
                    progress(done, len(steps))
        chunks = sum(int(np.prod(array_of(root, name).cdata_shape)) for name in (store.IMAGE, store.VALID))
    return CheckReport(snapshot, len(steps), chunks, tuple(damages), files)


def _damages_of_history(uri: str) -> list[Damage]:
    try:
        list_versions(uri)
    except ArtefactDamaged as e:
        return [Damage("earlier versions", "", "", "history", first_line(e.__cause__ or e))]
    return []


def _damages_of_files(uri: str, root: zarr.Group) -> tuple[FileDamage, ...]:
    arrays = [array for _, array in root.arrays() if array.ndim]
    have_checksums = all(isinstance(_codecs(array)[-1], Crc32cCodec) for array in arrays)
    sharded = [(array.shards, array.chunks) for array in arrays if array.shards]
    shards = {math.prod(shard) // math.prod(chunk) for shard, chunk in sharded}
    return tuple(damaged_files(files_at(uri), have_checksums=have_checksums, shards=shards))


def _codecs(array: AnyArray) -> tuple[Codec, ...]:
    """Of the chunks; of shards the index has a checksum of its own."""
    codecs: tuple[Codec, ...] = array.metadata.codecs  # type: ignore[union-attr]
    return codecs[0].codecs if isinstance(codecs[0], ShardingCodec) else codecs


def _damages_of(root: zarr.Group, index: int, step: Step) -> list[Damage]:
    """The damaged chunks of one date; if all can be read and its content hash is another, the whole scene."""
    when = str(np.datetime_as_string(step.time, "s"))
    whole = partial(Damage, when, step.scene_id, "", "whole scene")
    try:
        with naming_damage(""):
            if step.content_hash in _possible_hashes(root, index):
                return []
    except ArtefactDamaged:
        damages = []
        for name in (store.IMAGE, store.VALID):
            array = array_of(root, name)
            key = (index, *(slice(None) for _ in array.shape[1:]))
            for place, why in damaged_chunks(array, chunks_of(array, key)):
                damages.append(Damage(when, step.scene_id, name, box_text(array, place), why))
        return damages or [whole("it cannot be read")]
    was = "found before, not read again since" if not step.content_hash else "other pixels than were written (content_hash)"
    return [whole(was)]


def _possible_hashes(root: zarr.Group, index: int) -> Iterator[str]:
    """The content hash of a date as a whole, and in strips of every height that ingest may have used; most likely ones first."""
    image, valid = array_of(root, store.IMAGE), array_of(root, store.VALID)
    rows, strip_px, bands = valid.shape[1], valid.chunks[1], (slice(None),)

    def hash_rows(first: int, height: int) -> str:
        part = slice(first, min(first + height, rows))
        return hash_content(np.asarray(image[(index, *bands, part)]), np.asarray(valid[(index, part)]))

    def hash_strips(height: int) -> str:
        return hashlib.sha256("".join(hash_rows(first, height) for first in range(0, rows, height)).encode()).hexdigest()

    is_small = image.nbytes // max(1, image.shape[0]) <= WHOLE_MB * MB
    if is_small:
        yield hash_rows(0, rows)
    for height in range(strip_px, rows + strip_px, strip_px):
        yield hash_strips(height)
    if not is_small:
        yield hash_rows(0, rows)
