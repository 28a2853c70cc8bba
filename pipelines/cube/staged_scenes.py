"""Scenes that slices of an ingest have read and compressed: a file each, there as a whole or not at all (docs/design/030).

    FOLDER/JOB/SCENE-FILES.scene    the chunks of its strips, a record (JSON), the record's SHA-256, its length (4 bytes), MARK

JOB stands for everything beside its files that decides what becomes of a scene (source, quality mask, grid, chunks), SCENE for
its id, FILES for the fingerprint of its files. FOLDER is one on a disk, or `s3://bucket/prefix`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np

from pipelines.cube.encoding import EncodedRows
from pipelines.cube.plan import Work, changed_at
from pipelines.errors import SceneRefused, StateError
from pipelines.files import naming_full_disk
from pipelines.stored_files import StoredFiles, files_at

SUFFIX, MARK = ".scene", b"DLS1"
END = 32 + 4 + len(MARK)  # bytes after the record
TAIL = 1 << 16  # bytes that are read to find the record
MOST_NAMED = 5
OTHER_JOBS = "; slices with another config (of large scenes: cube.memory_mb, cube.workers) or release do not count"
CHANGED, NOT_WHOLE = "its files have changed since a slice read it", "what a slice has left of it is not whole"


@dataclass(frozen=True)
class StagedScenes:
    """The scenes of one job. `again`: why scenes that are staged were read from their files, one line each."""

    folder: str
    job: str
    again: list[str] = field(default_factory=list, compare=False)

    @cached_property
    def files(self) -> StoredFiles:
        return files_at(self.folder)

    def name_of(self, work: Work) -> str:
        return f"{self.job}/{_digest(work.scene.id)}-{work.fingerprint[:16]}{SUFFIX}"

    # ------------------------------------------------------------ a slice writes

    @contextmanager
    def writing(self, work: Work, changed_ns: int) -> Iterator[Writer]:
        """A writer of one scene, whose file is there when the block ends without an error. `changed_ns`: of its files, before
        they were read. Raises StorageFull."""
        with self.files.writing(self.name_of(work)) as draft, naming_full_disk(draft.parent), draft.open("wb") as file:
            writer = Writer(file, {"scene": work.scene.id, "fingerprint": work.fingerprint, "changed_ns": changed_ns})
            yield writer
            writer.end()

    def find(self, work: Work) -> StagedScene | None:
        """The scene if it is staged as its files are now, every byte as it was written."""
        found = self._read(work)
        is_whole = not isinstance(found, str) and all(found.is_whole(number) for number in range(len(found.parts)))
        return found if is_whole and not isinstance(found, str) else None

    # ------------------------------------------------------------ the end of all slices reads

    def missing_of(self, works: Sequence[Work]) -> list[str]:
        """Ids of scenes that no slice has staged; those that have changed since are read again."""
        there = {name.rpartition("/")[2].partition("-")[0] for name in self.files.names(self.job)}
        return [work.scene.id for work in works if work.fingerprint and _digest(work.scene.id) not in there]

    def require(self, works: Sequence[Work]) -> None:
        """Raises StateError that names `missing_of`."""
        missing = self.missing_of(works)
        if not missing:
            return
        named = ", ".join(missing[:MOST_NAMED]) + (f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else "")
        remedy = "do the slices again that were to read them, or read the rest without --finish; nothing was committed"
        named += OTHER_JOBS if self.has_others else ""
        raise StateError(f"{self.folder}: {len(missing)} of {len(works)} scenes are in no slice: {named}; {remedy}")

    @property
    def has_others(self) -> bool:
        """Whether slices of another job have left something here, too."""
        return any(not name.startswith(f"{self.job}/") for name in self.files.names(""))

    def take(self, work: Work, number: int) -> EncodedRows | None:
        """A strip of the scene as a slice has left it; None where its files must be read. Raises SceneRefused, as they did."""
        found = self._read(work) if work.fingerprint else "no change of its files could be noticed"
        if not isinstance(found, str):
            if found.refused is not None:
                raise found.refused
            if (kept := found.part(number)) is not None:
                return kept
            found = NOT_WHOLE
        self.again.append(f"{work.scene.id}: {found}")
        return None

    def notes(self) -> tuple[str, ...]:
        """A line where scenes were read from their files, though slices had staged them."""
        if not self.again:
            return ()
        scenes = sorted(set(self.again))
        return (f"read again by --finish: {scenes[0]}{f' (and {len(scenes) - 1} more)' if len(scenes) > 1 else ''}",)

    def _read(self, work: Work) -> StagedScene | str:
        """The scene, or why its files must be read."""
        name = self.name_of(work)
        try:
            size = self.files.size(name)
            tail = self.files.read_range(name, max(size - TAIL, 0), TAIL)
            length = int.from_bytes(tail[-len(MARK) - 4 : -len(MARK)], "little")
            if length + END > len(tail):
                tail = self.files.read_range(name, max(size - length - END, 0), length + END)
        except FileNotFoundError:
            return CHANGED
        text, digest = tail[-END - length : -END], tail[-END : -END + 32]
        if not tail.endswith(MARK) or hashlib.sha256(text).digest() != digest:
            return NOT_WHOLE
        record = json.loads(text)
        if (record["scene"], record["fingerprint"]) != (work.scene.id, work.fingerprint):
            return "what a slice has left is of another scene"
        if record["changed_ns"] != changed_ns(work):
            return CHANGED
        refused = None
        if "refused" in record:
            scene_id, *why = record["refused"]
            refused = SceneRefused(scene_id, *why)
        return StagedScene(self.files, name, tuple(record["parts"]), refused)


@dataclass(frozen=True)
class StagedScene:
    """A scene as a slice has left it: a record for each strip; a small scene is one strip."""

    files: StoredFiles
    name: str
    parts: tuple[dict[str, Any], ...]
    refused: SceneRefused | None = None

    def part(self, number: int) -> EncodedRows | None:
        """A strip; None if it is not as it was written."""
        content = self._content(number)
        if content is None:
            return None
        about = self.parts[number]
        dtype, shape = np.dtype(about["sample"][0]), tuple(about["sample"][1])
        samples = len(content) - int(np.prod(shape)) * dtype.itemsize
        sample_BN = np.frombuffer(content, dtype, offset=samples).reshape(shape)
        places = [(path, position, end) for path, position, end in about["places"]]
        counted = about["valid_px"], about["has_data"], sample_BN
        return EncodedRows(about["content_hash"], *counted, places, np.frombuffer(content, np.uint8, samples))

    def is_whole(self, number: int) -> bool:
        return self._content(number) is not None

    def _content(self, number: int) -> bytes | None:
        about, start = self.parts[number], sum(one["bytes"] for one in self.parts[:number])
        content = self.files.read_range(self.name, start, about["bytes"])
        return content if hashlib.sha256(content).hexdigest() == about["sha256"] else None


class Writer:
    """Writes the strips of a scene in their order, or its refusal."""

    def __init__(self, file: BinaryIO, about: dict[str, Any]):
        self.file, self.about = file, {**about, "parts": []}

    def add(self, rows: EncodedRows) -> None:
        sample = np.ascontiguousarray(rows.sample_BN)
        content = rows.content.tobytes() + sample.tobytes()
        self.file.write(content)
        self.about["parts"].append(
            {
                "content_hash": rows.content_hash,
                "valid_px": rows.valid_px,
                "has_data": rows.has_data,
                "sample": [sample.dtype.str, sample.shape],
                "places": rows.places or [],
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )

    def refuse(self, refusal: SceneRefused) -> None:
        self.about["refused"] = refusal.scene_id, refusal.reason, refusal.detail

    def end(self) -> None:
        text = json.dumps(self.about).encode()
        self.file.write(text + hashlib.sha256(text).digest() + len(text).to_bytes(4, "little") + MARK)


def job_of(*decides: object) -> str:
    """The name of everything beside its files that decides what a scene becomes; equal in every process for equal `repr`s."""
    return _digest(repr(decides))


def changed_ns(work: Work) -> int:
    """When the status of a file of the scene last changed, in ns since 1970."""
    return int(changed_at(work.scene).astype(np.int64))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
