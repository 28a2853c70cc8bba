"""Removes versions of a cube that nobody needs any more, and chunks that no version has (docs/design/031-housekeeping.md).

Icechunk takes versions off the history by age alone. Those that records name stay as branches `kept-ID`.
What would go is found by doing it, to a copy of the repository without its pixels.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import icechunk

from pipelines.cube import store
from pipelines.cube.checksums import NAME, forget_sums
from pipelines.cube.integrity import naming_damage, storage_errors
from pipelines.errors import RequestError
from pipelines.stored_files import FolderFiles, StoredFiles, files_at, is_remote

KEPT = "kept-"
YOUNG = timedelta(days=1)  # chunks without a version may be those of an ingest at work; it commits at least every gigabyte


@dataclass(frozen=True)
class Removal:
    """What is removed of a cube: versions, files and bytes. `named`: versions older than the limit that stay."""

    versions: int = 0
    files: int = 0
    bytes: int = 0
    named: int = 0


@dataclass(frozen=True)
class _Rehearsal:
    removal: Removal
    changed: frozenset[str]  # files that are removed or written again


def remove_versions(uri: str, named: Collection[str], before: datetime, *, is_rehearsal: bool) -> Removal:
    """What was removed, or would be: versions written before that time, except the newest one, those in `named` (ids), and those
    of branches and tags; files that no version has any more, at least a day old or written before that time.

    Holds the cube for writing. In a bucket nothing is locked: there `before` must be a day ago at least. A reader of a version
    that is removed gets an error. Killed at any moment it leaves a whole cube. Raises RequestError, CubeBusy, MissingInput,
    ArtefactDamaged.
    """
    if is_remote(uri) and before > datetime.now(UTC) - YOUNG:
        raise RequestError(
            f"{uri}: in a bucket another process may be writing, so what is younger than a day stays: --keep-days 1"
        )
    store.open_repository(uri)
    files = files_at(uri)
    if is_rehearsal:
        return _rehearse(uri, files, named, before).removal
    with store.exclusive_writer(uri):
        found = _rehearse(uri, files, named, before)
        if found.changed:
            with storage_errors(uri):
                forget_sums(files, found.changed)
                _remove(store.open_repository(uri), files, named, before)
    return found.removal


def _remove(repository: icechunk.Repository, files: StoredFiles, named: Collection[str], before: datetime) -> int:
    """How many named versions that are older stay. First branches hold them, so that a kill loses none."""
    there = {name.rpartition("/")[2] for name in files.names("snapshots")}
    old = [one for one in sorted(there.intersection(named)) if repository.lookup_snapshot(one).written_at < before]
    branches = {name for name in repository.list_branches() if name.startswith(KEPT)}
    for snapshot in old:
        if KEPT + snapshot not in branches:
            repository.create_branch(KEPT + snapshot, snapshot)
    for name in sorted(branches - {KEPT + snapshot for snapshot in old}):
        repository.delete_branch(name)
    repository.expire_snapshots(before)
    repository.garbage_collect(max(before, datetime.now(UTC) - YOUNG))
    return len(old)


def _rehearse(uri: str, files: StoredFiles, named: Collection[str], before: datetime) -> _Rehearsal:
    with naming_damage(uri), _copy_without_pixels(files) as copy:
        sizes = {one.name: one.size for one in copy.listing("")}
        digests = {name: _digest(copy, name) for name in sizes if not name.startswith(("chunks/", "refs/"))}
        kept = _remove(icechunk.Repository.open(icechunk.local_filesystem_storage(copy.uri)), copy, named, before)
        left = set(copy.names(""))
        gone = {name for name in sizes if name not in left and not name.startswith("refs/")}
        rewritten = {name for name, digest in digests.items() if name in left and _digest(copy, name) != digest}
    versions = sum(name.startswith("snapshots/") for name in gone)
    removal = Removal(versions, len(gone), sum(sizes[name] for name in gone), kept)
    return _Rehearsal(removal, frozenset(gone | rewritten))


def _digest(files: StoredFiles, name: str) -> bytes:
    return hashlib.sha256(files.read(name)).digest()


@contextmanager
def _copy_without_pixels(files: StoredFiles) -> Iterator[FolderFiles]:
    """The repository in a temporary folder; chunks are empty files of the same size and age, which take no room."""
    with tempfile.TemporaryDirectory(prefix="driftline-") as folder:
        copy = FolderFiles(Path(folder))
        for one in files.listing(""):
            if one.name == NAME:
                continue
            path = copy.folder / one.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if one.name.startswith("chunks/"):
                path.touch()
                os.truncate(path, one.size)
            else:
                path.write_bytes(files.read(one.name))
            os.utime(path, (one.written_utc.timestamp(),) * 2)
        yield copy
