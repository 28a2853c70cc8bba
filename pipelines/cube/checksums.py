"""SHA-256 of a cube's own files: snapshots, manifests, transactions. Icechunk verifies none of them (docs/design/012).

`SHA256SUMS` in the cube's folder, or beside its objects in S3, lists them, so that `sha256sum -c SHA256SUMS` works there too.
Files of chunks end in a checksum of their own (crc32c), and are listed only where they are known to be damaged.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import icechunk
from numcodecs.checksum32 import CRC32C

from pipelines.cube.shards import is_whole_shard
from pipelines.stored_files import StoredFiles

NAME = "SHA256SUMS"
FOLDERS = ("manifests", "snapshots", "transactions")
ID = re.compile(r"[0-9A-Z]{20}")
THREADS = 8
HEAD = "# SHA-256 of the lines below: "


@dataclass(frozen=True)
class FileDamage:
    """A file of the cube, named from its folder, that is not what was written."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


def write_sums(files: StoredFiles, damaged_chunks: Collection[str] = ()) -> None:
    """Adds files of which nothing is known yet to the list, and takes off those that are gone. Reads only new ones.

    damaged_chunks: files that are damaged, and known to be from now on: as long as they stay as they are, `check` is silent.
    """
    known, there = read_sums(files), _listed(files)
    noted = {name for name in {*(known or {}), *damaged_chunks} if name.startswith("chunks/")}
    there += sorted(noted.intersection(files.names("chunks"))) if noted else []
    if not there or (known is not None and known.keys() == set(there)):
        return
    _write(files, {name: (known or {}).get(name) or _digest(files, name) for name in there})


def _write(files: StoredFiles, sums: Mapping[str, str | None]) -> None:
    lines = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    files.write(NAME, f"{HEAD}{hashlib.sha256(lines.encode()).hexdigest()}\n{lines}".encode())


def forget_sums(files: StoredFiles, names: Collection[str]) -> None:
    """Takes files off the list that are about to be removed or written again; the next `write_sums` adds those that are there."""
    known = read_sums(files)
    if known and not known.keys().isdisjoint(names):
        _write(files, {name: digest for name, digest in known.items() if name not in names})


def read_sums(files: StoredFiles) -> dict[str, str] | None:
    """File below the cube's folder -> SHA-256 (hex); {} without a list (of an earlier version), None for a damaged one."""
    try:
        return sums_in(files.read(NAME))
    except FileNotFoundError:
        return {}


def sums_in(content: bytes) -> dict[str, str] | None:
    """As `read_sums`, of what the list holds."""
    head, _, lines = content.partition(b"\n")
    if head.decode(errors="replace") != HEAD + hashlib.sha256(lines).hexdigest():
        return None
    pairs = (line.split("  ", 1) for line in lines.decode().splitlines())
    return {name: digest for digest, name in pairs}


def require_sums(files: StoredFiles, repository: icechunk.Repository, snapshot: str) -> None:
    """Raises ValueError unless the snapshot and its manifests are as they were written, as far as the list says."""
    sums = read_sums(files) or {}
    _require(files, [f"snapshots/{snapshot}"], sums)
    if f"snapshots/{snapshot}" in sums:
        manifests = repository.lookup_snapshot(snapshot).manifests
        _require(files, [f"manifests/{manifest.id}" for manifest in manifests], sums)


def _require(files: StoredFiles, names: Iterable[str], sums: dict[str, str]) -> None:
    for name in names:
        if name in sums and _digest(files, name) not in (sums[name], None):
            raise ValueError(f"{name} is not as it was written")


def damaged_files(files: StoredFiles, *, have_checksums: bool, shards: Collection[int] = ()) -> Iterator[FileDamage]:
    """Every file of the cube that is not as it was written, those of earlier versions among them.

    have_checksums: the chunks end in a crc32c; those of cubes of earlier versions do not. shards: how many chunks lie in one
    object, of arrays that store several in one.
    """
    sums = read_sums(files)
    if sums is None:
        yield FileDamage(NAME, "the list of checksums is damaged; the next ingest writes it again")
    sums = sums or {}
    for name in sorted(sums):
        found = _digest(files, name)
        if found is None:
            yield FileDamage(name, "is missing")
        elif not name.startswith("chunks/") and found != sums[name]:
            yield FileDamage(name, f"is not as it was written ({NAME})")
    snapshots = {name.rpartition("/")[2] for name in files.names("snapshots")}
    for name in files.names("refs"):
        if name.endswith("/ref.json") and not _is_whole_ref(files.read(name), snapshots):
            yield FileDamage(name, "does not name a version of the cube")
    if have_checksums:
        names = files.names("chunks")
        with ThreadPoolExecutor(THREADS) as pool:  # in a bucket each takes a round trip
            found_whole = pool.map(lambda name: _is_whole_object(files, name, sums.get(name), shards), names)
            for name, is_whole in zip(names, found_whole, strict=True):
                if not is_whole:
                    yield FileDamage(name, "its checksum does not match")


def _listed(files: StoredFiles) -> list[str]:
    """The files that the list should hold; drafts of a process that is writing are none."""
    return [name for folder in FOLDERS for name in files.names(folder) if ID.fullmatch(name.removeprefix(f"{folder}/"))]


def _digest(files: StoredFiles, name: str) -> str | None:
    """None for a file that is not there."""
    try:
        return hashlib.sha256(files.read(name)).hexdigest()
    except (FileNotFoundError, IsADirectoryError):
        return None


def _is_whole_ref(text: bytes, snapshots: Collection[str]) -> bool:
    """True for what Icechunk writes, letter for letter: it would read some other texts as the same id."""
    try:
        content = json.loads(text)
        is_as_written = json.dumps(content, separators=(",", ":")).encode() == text
        return is_as_written and list(content) == ["snapshot"] and content["snapshot"] in snapshots
    except (ValueError, TypeError):
        return False


def _is_whole_object(files: StoredFiles, name: str, known_damage: str | None, shards: Collection[int]) -> bool:
    """Whether the chunk ends in its checksum, or those of a shard do, or it is damaged as the list says."""
    content = files.read(name)
    try:
        CRC32C(location="end").decode(content)
    except RuntimeError:
        if any(is_whole_shard(content, count) for count in shards):
            return True
        return known_damage is not None and hashlib.sha256(content).hexdigest() == known_damage
    return True
