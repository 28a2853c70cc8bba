"""SHA-256 of a local cube's own files: snapshots, manifests, transactions. Icechunk verifies none of them (docs/design/012).

`SHA256SUMS` in the cube's folder lists them, so that `sha256sum -c SHA256SUMS` works there too. Files of chunks end in a checksum
of their own (crc32c), and are listed only where they are known to be damaged. A cube on S3 has no list: what
the service checks itself is all there is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import icechunk
from numcodecs.checksum32 import CRC32C

from pipelines.files import write_text

NAME = "SHA256SUMS"
FOLDERS = ("manifests", "snapshots", "transactions")
ID = re.compile(r"[0-9A-Z]{20}")
HEAD = "# SHA-256 of the lines below: "


@dataclass(frozen=True)
class FileDamage:
    """A file of the cube, named from its folder, that is not what was written."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


def write_sums(folder: Path, damaged_chunks: Collection[str] = ()) -> None:
    """Adds files of which nothing is known yet to the list, and takes off those that are gone. Reads only new ones.

    damaged_chunks: files that are damaged, and known to be from now on: as long as they stay as they are, `check` is silent.
    """
    known, there = read_sums(folder), _listed(folder)
    noted = {*(known or {}), *damaged_chunks}
    there |= {name: folder / name for name in sorted(noted) if name.startswith("chunks/") and (folder / name).is_file()}
    if not there or (known is not None and known.keys() == there.keys()):
        return
    sums = {name: (known or {}).get(name) or _digest(path) for name, path in there.items()}
    lines = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    write_text(folder / NAME, f"{HEAD}{hashlib.sha256(lines.encode()).hexdigest()}\n{lines}")


def read_sums(folder: Path) -> dict[str, str] | None:
    """File below the cube's folder -> SHA-256 (hex); {} without a list (of an earlier version), None for a damaged one."""
    try:
        head, _, lines = (folder / NAME).read_bytes().partition(b"\n")
    except FileNotFoundError:
        return {}
    if head.decode(errors="replace") != HEAD + hashlib.sha256(lines).hexdigest():
        return None
    pairs = (line.split("  ", 1) for line in lines.decode().splitlines())
    return {name: digest for digest, name in pairs}


def require_sums(folder: Path, repository: icechunk.Repository, snapshot: str) -> None:
    """Raises ValueError unless the snapshot and its manifests are as they were written, as far as the list says."""
    sums = read_sums(folder) or {}
    _require(folder, [f"snapshots/{snapshot}"], sums)
    if f"snapshots/{snapshot}" in sums:
        manifests = repository.lookup_snapshot(snapshot).manifests
        _require(folder, [f"manifests/{manifest.id}" for manifest in manifests], sums)


def _require(folder: Path, names: Iterable[str], sums: dict[str, str]) -> None:
    for name in names:
        if name in sums and (folder / name).is_file() and _digest(folder / name) != sums[name]:
            raise ValueError(f"{name} is not as it was written")


def damaged_files(folder: Path, *, have_checksums: bool) -> Iterator[FileDamage]:
    """Every file of the cube that is not as it was written, those of earlier versions among them.

    have_checksums: the chunks end in a crc32c; those of cubes of earlier versions do not.
    """
    sums = read_sums(folder)
    if sums is None:
        yield FileDamage(NAME, "the list of checksums is damaged; the next ingest writes it again")
    sums = sums or {}
    for name in sorted(sums):
        if not (folder / name).is_file():
            yield FileDamage(name, "is missing")
        elif not name.startswith("chunks/") and _digest(folder / name) != sums[name]:
            yield FileDamage(name, f"is not as it was written ({NAME})")
    for path in sorted((folder / "refs").rglob("ref.json")):
        if not _is_whole_ref(path, folder):
            yield FileDamage(path.relative_to(folder).as_posix(), "does not name a version of the cube")
    if have_checksums and (folder / "chunks").is_dir():
        for path in sorted((folder / "chunks").iterdir()):
            name = f"chunks/{path.name}"
            is_known = name in sums and path.is_file() and sums[name] == _digest(path)
            if not is_known and not _is_whole_chunk(path):
                yield FileDamage(name, "its checksum does not match")


def _listed(folder: Path) -> dict[str, Path]:
    """The files that the list should hold, by name; drafts of a process that is writing are none."""
    found = (path for name in FOLDERS if (folder / name).is_dir() for path in (folder / name).iterdir())
    return {path.relative_to(folder).as_posix(): path for path in sorted(found) if ID.fullmatch(path.name) and path.is_file()}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole_ref(path: Path, folder: Path) -> bool:
    """True for what Icechunk writes, letter for letter: it would read some other texts as the same id."""
    try:
        content = json.loads(path.read_bytes())
        is_as_written = json.dumps(content, separators=(",", ":")).encode() == path.read_bytes()
        return is_as_written and list(content) == ["snapshot"] and content["snapshot"] in _names(folder / "snapshots")
    except (ValueError, TypeError):
        return False


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _is_whole_chunk(path: Path) -> bool:
    try:
        CRC32C(location="end").decode(path.read_bytes())
    except (RuntimeError, IsADirectoryError):
        return False
    return True
