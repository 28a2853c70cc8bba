"""What is staged region by region: planes of a raster in one file per region, there as a whole or not at all (docs/design/027).

    FOLDER/JOB/job.json                              what the regions belong to; JOB is the beginning of its key
    FOLDER/JOB/r000000-001024_c000000-000512.region  planes of the region, a record (JSON), its length (4 bytes), MARK

A region's file is the proof that it is finished, so that processes and machines need no common ledger. FOLDER is one on a
disk, or `s3://bucket/prefix`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from pipelines.errors import ArtefactDamaged, StateError, StorageFull
from pipelines.files import naming_full_disk
from pipelines.stored_files import StoredFiles, files_at, is_remote
from pipelines.tiles import Box

JOB, SUFFIX, MARK = "job.json", ".region", b"DLR1"
EARLIER_LEDGER = "ledger.jsonl"  # of version 0.1.0, beside files that were written in place
SECONDS_OF_A_DRAFT = 24 * 3600
BLOCK = 2**23  # bytes that are hashed at a time
MOST_NAMED = 5


@dataclass(frozen=True, order=True)
class Plane:
    """One number per pixel of the raster; `dtype` as NumPy writes it, little-endian, such as `<f4`."""

    name: str
    dtype: str = "<f4"

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Record:
    """A finished region: its key, the SHA-256 (hex) of its planes, and figures of it that are added up over the raster.

    `made_from` names what the planes were made from, where that may change under one key.
    """

    region: str
    sha256: str
    facts: Mapping[str, float] = field(default_factory=dict)
    made_from: str = ""


@dataclass(frozen=True)
class Regions:
    """The planes of a raster of `shape`, in `parts` that cover every pixel once; plain values, picklable.

    `key` names the job: regions of another one lie elsewhere and are never read.
    """

    folder: str
    key: str
    planes: tuple[Plane, ...]
    shape: tuple[int, ...]
    parts: tuple[Box, ...]
    remedy: str = "predict again"  # where a region is damaged

    @cached_property
    def files(self) -> StoredFiles:
        return files_at(self.folder)

    def __getstate__(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def job(self) -> str:
        return self.key[:16]

    @property
    def uri(self) -> str:
        """Where they are, for messages."""
        return f"{self.folder}/{self.job}"

    def name_of(self, region: Box) -> str:
        return f"{self.job}/{region.key}{SUFFIX}"

    def size_of(self, region: Box) -> int:
        """Bytes of the planes of a region."""
        return math.prod(region.shape) * sum(plane.itemsize for plane in self.planes)

    # ------------------------------------------------------------ which are there

    def begin(self) -> None:
        """Writes what the regions belong to, unless it is there. Raises StorageFull where the disk cannot hold all of them."""
        about = {"key": self.key, "shape": self.shape, "planes": [[plane.name, plane.dtype] for plane in self.planes]}
        text = json.dumps(about, sort_keys=True).encode()
        try:
            if self.files.read(f"{self.job}/{JOB}") == text:
                return
        except FileNotFoundError:
            pass
        if not is_remote(self.folder):
            place = Path(self.files.uri)
            (place / self.job).mkdir(parents=True, exist_ok=True)
            wanted = sum(map(self.size_of, self.parts))
            if (free := shutil.disk_usage(place).free) < wanted:
                raise StorageFull(f"{place}: {wanted / 2**20:.1f} MiB are needed, {free / 2**20:.1f} MiB are free; free space")
        self.files.write(f"{self.job}/{JOB}", text)

    def has_begun(self) -> bool:
        """Whether `begin` was called for this folder, as seen from here."""
        try:
            return bool(self.files.read(f"{self.job}/{JOB}"))
        except FileNotFoundError:
            return False

    def sweep(self) -> None:
        """Removes the regions of other jobs, and what killed processes left; for whoever holds the run that the folder is of."""
        for name in self.files.names(""):
            job, _, file = name.rpartition("/")
            if file == JOB and job != self.job and self._is_job(job):
                self.files.remove(job)
        if is_remote(self.folder):
            return
        place = Path(self.files.uri)
        long_ago = time.time() - SECONDS_OF_A_DRAFT  # a younger one may be that of a slice at work
        for draft in (place / self.job).glob(f".*{SUFFIX}.*"):
            if draft.stat().st_mtime < long_ago:
                draft.unlink(missing_ok=True)
        if (place / EARLIER_LEDGER).exists():
            for path in (*place.glob("*.f32"), place / EARLIER_LEDGER):
                path.unlink(missing_ok=True)

    def _is_job(self, name: str) -> bool:
        """Whether a folder is that of a job, and not somebody else's."""
        if not re.fullmatch("[0-9a-f]{16}", name):
            return False
        try:
            return str(json.loads(self.files.read(f"{name}/{JOB}"))["key"]).startswith(name)
        except (ValueError, KeyError, TypeError):
            return False

    def finished(self) -> set[str]:
        """Keys of the regions whose files are there, whole or not."""
        names = (name.rpartition("/")[2] for name in self.files.names(self.job))
        return {name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX) and not name.startswith(".")}

    def missing(self, parts: Sequence[Box] | None = None) -> list[tuple[Box, str]]:
        """The regions (of `parts`, by default all) that are not there, or not as they were written, and which of both."""
        there, found = self.finished(), []
        for region in self.parts if parts is None else parts:
            if region.key not in there:
                found.append((region, ""))
            elif why := self._fault(region):
                found.append((region, why))
        return found

    def _fault(self, region: Box) -> str:
        """Why the file of a region cannot be used, "" if it can."""
        try:
            record = self.record(region)
        except ArtefactDamaged as e:
            return str(e)
        return "" if record.sha256 == self._digest(region) else f"{self.uri}: {region.key} is not as it was written"

    def _digest(self, region: Box) -> str:
        digest, size, name = hashlib.sha256(), self.size_of(region), self.name_of(region)
        for start in range(0, size, BLOCK):
            digest.update(self.files.read_range(name, start, min(BLOCK, size - start)))
        return digest.hexdigest()

    def record(self, region: Box) -> Record:
        """The record of a finished region. Raises ArtefactDamaged."""
        size, name = self.size_of(region), self.name_of(region)
        try:
            tail = self.files.read_range(name, size, max(self.files.size(name) - size, 0))
        except FileNotFoundError:
            tail = b""
        text, length, mark = tail[:-8], tail[-8:-4], tail[-4:]
        try:
            if mark != MARK or int.from_bytes(length, "little") != len(text):
                raise ValueError("it has no end")
            content = json.loads(text)
            made_from = str(content.get("made_from", ""))
            record = Record(str(content["region"]), str(content["sha256"]), dict(content["facts"]), made_from)
            if record.region != region.key:
                raise ValueError(f"it is that of {record.region}")
        except (ValueError, KeyError, TypeError) as e:
            raise ArtefactDamaged(f"{self.uri}: {region.key} is not a whole region ({e}); remove it and {self.remedy}") from e
        return record

    def require_whole(self) -> None:
        """Raises StateError that names regions that are missing, or are not as they were written."""
        self._refuse([region.key for region, _ in self.missing()])

    def records(self) -> list[Record]:
        """Of all regions, in their order. Raises StateError that names what is missing, ArtefactDamaged."""
        there = self.finished()
        self._refuse([region.key for region in self.parts if region.key not in there])
        return [self.record(region) for region in self.parts]

    def _refuse(self, missing: list[str]) -> None:
        if not missing:
            return
        named = ", ".join(missing[:MOST_NAMED]) + (f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else "")
        remedy = "do the slices again that were to predict them, or predict the rest without --finish"
        counted = f"{len(missing)} of {len(self.parts)} regions"
        raise StateError(f"{self.uri}: {counted} are missing or damaged: {named}; {remedy}")

    # ------------------------------------------------------------ values

    def read(self, plane: Plane, *slices: slice) -> np.ndarray:
        """A copy of a plane at `slices`, one per axis from the first on (the rest whole). Reads no other rows."""
        first, last, _ = slices[0].indices(self.shape[0])
        wanted = Box((first, *(0 for _ in self.shape[1:])), (last, *self.shape[1:]))
        values = np.empty(wanted.shape, plane.dtype)
        for region in (part for part in self.parts if part.overlaps(wanted)):
            common = region.common(wanted)
            values[common.within(wanted)] = self._rows(plane, region, common.start[0], common.stop[0])
        return values[:, *slices[1:]]

    def whole(self, plane: Plane, region: Box) -> np.ndarray:
        """A plane of one region, read-only. Raises ArtefactDamaged."""
        return self._rows(plane, region, region.start[0], region.stop[0])

    def _rows(self, plane: Plane, region: Box, first: int, last: int) -> np.ndarray:
        row = math.prod(region.shape[1:]) * plane.itemsize
        start = self._offset(plane, region) + (first - region.start[0]) * row
        try:
            content = self.files.read_range(self.name_of(region), start, (last - first) * row)
        except FileNotFoundError:
            content = b""
        if len(content) != (last - first) * row:
            raise ArtefactDamaged(f"{self.uri}: {region.key} is missing or too short; {self.remedy}")
        return np.frombuffer(content, plane.dtype).reshape(last - first, *region.shape[1:])

    def _offset(self, plane: Plane, region: Box) -> int:
        before = itertools.takewhile(lambda one: one != plane, self.planes)
        return math.prod(region.shape) * sum(one.itemsize for one in before)

    @contextmanager
    def writing(self, region: Box) -> Iterator[Writer]:
        """A writer of one region, whose file is there when the block ends without an error. Raises StorageFull."""
        with self.files.writing(self.name_of(region)) as draft, naming_full_disk(draft.parent, self.size_of(region)):
            with draft.open("wb") as file:
                file.truncate(self.size_of(region))
                writer = Writer(self, region, file.fileno())
                yield writer
            with draft.open("r+b") as file:
                sha256 = writer.sha256 or hashlib.file_digest(file, "sha256").hexdigest()
                file.seek(0, os.SEEK_END)
                about = {"region": region.key, "sha256": sha256, "facts": writer.facts}
                about |= {"made_from": writer.made_from} if writer.made_from else {}
                text = json.dumps(about, sort_keys=True).encode()
                file.write(text + len(text).to_bytes(4, "little") + MARK)


class Writer:
    """Writes the planes of a region, box by box; `facts` go into its record. `sha256` of all planes is known where they were
    written in one piece."""

    def __init__(self, regions: Regions, region: Box, descriptor: int):
        self.regions, self.region, self.descriptor = regions, region, descriptor
        self.facts: dict[str, float] = {}
        self.made_from = self.sha256 = ""

    def write(self, box: Box, blocks: Mapping[Plane, np.ndarray]) -> None:
        """`blocks` (each of the box's shape) at `box`, a part of the region. Plain writes: mapped pages would count as memory."""
        inside, digest = box.moved([-start for start in self.region.start]), hashlib.sha256()
        for plane in self.regions.planes:
            block = np.ascontiguousarray(blocks[plane], plane.dtype)
            if block.shape != box.shape:
                raise ValueError(f"{plane}: block {block.shape} for box {box.key} of {box.shape}")
            start = self.regions._offset(plane, self.region)
            if box == self.region:
                content = block.data.cast("B")
                self._write_at(start, content)
                digest.update(content)
                continue
            corners = itertools.product(*map(range, inside.start[:-1], inside.stop[:-1]))
            for line, corner in zip(block.reshape(-1, box.shape[-1]), corners, strict=True):
                at = int(np.ravel_multi_index((*corner, inside.start[-1]), self.region.shape))
                self._write_at(start + at * plane.itemsize, line.data.cast("B"))
        self.sha256 = digest.hexdigest() if box == self.region else ""

    def _write_at(self, start: int, content: memoryview) -> None:
        while content:  # of a large piece, less may be written at a time
            written = os.pwrite(self.descriptor, content, start)
            start, content = start + written, content[written:]

    def add(self, facts: Mapping[str, float]) -> None:
        """Figures of the region; the same name again is added up."""
        for name, value in facts.items():
            self.facts[name] = self.facts.get(name, 0) + value
