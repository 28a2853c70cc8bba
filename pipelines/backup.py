"""Copies of files, named by their content, with a list of them that is written last (docs/design/031-housekeeping.md).

    TARGET/objects/3f/3f2a...                    the content whose SHA-256 (hex) that is
    TARGET/backups/NAME/20261130T030000Z.json    `Backup`: the files there were then, by name

TARGET is a folder or `s3://bucket/prefix`. Nothing that is there is written again, so a copy that was interrupted goes on, and
what did not change since an earlier one is there already. A file is in memory while it is copied.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pipelines.errors import ArtefactDamaged, MissingInput, StateError
from pipelines.progress import Progress, ignore_progress
from pipelines.stored_files import Listed, StoredFiles
from pipelines.wording import counted

VERSION = 1
OBJECTS, BACKUPS = "objects", "backups"
THREADS = 8
MOST_NAMED = 5


@dataclass(frozen=True)
class Backup:
    """What was copied at a time. files: name -> (bytes, SHA-256 in hex). about: JSON values about where it comes from."""

    name: str
    made_utc: str
    about: Mapping[str, Any]
    files: Mapping[str, tuple[int, str]]

    @property
    def bytes(self) -> int:
        return sum(size for size, _ in self.files.values())

    def to_json(self) -> dict[str, Any]:
        files = {name: list(entry) for name, entry in self.files.items()}
        content = {"version": VERSION, "name": self.name, "made_utc": self.made_utc, "about": dict(self.about), "files": files}
        return {**content, "sha256": _digest_of(content)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Backup:
        """Raises ValueError for another version or an altered list."""
        listed = {name: value for name, value in content.items() if name != "sha256"}
        if content.get("sha256") != _digest_of(listed) or content.get("version") != VERSION:
            raise ValueError("it is damaged, or of another version of driftline")
        files = {name: (int(size), str(sha256)) for name, (size, sha256) in content["files"].items()}
        if strange := [name for name in files if name.startswith("/") or ".." in name.split("/")]:
            raise ValueError(f"it names {strange[0]}, which is not in the run's folder")
        return cls(content["name"], content["made_utc"], content["about"], files)


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def list_backups(target: StoredFiles) -> list[tuple[str, str]]:
    """(name, time) of the backups that are complete, oldest first."""
    found = [name.split("/") for name in target.names(BACKUPS) if name.endswith(".json") and name.count("/") == 2]
    return sorted(((name, stamp.removesuffix(".json")) for _, name, stamp in found), key=lambda one: (one[1], one[0]))


def read_backup(target: StoredFiles, name: str, stamp: str) -> Backup:
    """Raises ArtefactDamaged, MissingInput."""
    place = f"{BACKUPS}/{name}/{stamp}.json"
    try:
        return Backup.from_json(json.loads(target.read(place)))
    except FileNotFoundError as e:
        raise MissingInput(f"{target.uri} has no backup of {name} of {stamp}") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ArtefactDamaged(f"{target.uri}/{place}: the list of a backup cannot be read ({e}); take another one") from e


@dataclass
class Copying:
    """A backup that is being made; `before`: of the same name, the one before it, {} if there is none."""

    target: StoredFiles
    before: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    written: int = 0

    @cached_property
    def there(self) -> dict[str, int]:
        """SHA-256 -> bytes of the objects."""
        return {one.name.rpartition("/")[2]: one.size for one in self.target.listing(OBJECTS)}

    def add(self, name: str, content: bytes) -> None:
        """A file of that content."""
        digest = hashlib.sha256(content).hexdigest()
        if self.there.get(digest) != len(content):  # in a bucket an upload that was cut off may be shorter
            self.target.write(_place(digest), content)
            self.there[digest] = len(content)
            self.written += len(content)
        self.files[name] = (len(content), digest)

    def add_all(
        self, files: StoredFiles, listed: Iterable[Listed], below: str = "", progress: Progress = ignore_progress, *,
        is_immutable: bool = False,
    ) -> None:  # fmt: skip
        """Files, named from the folder `below`. is_immutable: those that the backup before has are not read again.

        Raises StateError if one goes away meanwhile.
        """
        todo = list(listed)

        def copy(one: Listed) -> None:
            size, digest = self.before.get(below + one.name, (-1, ""))
            if is_immutable and size == one.size == self.there.get(digest):
                self.files[below + one.name] = (size, digest)
                return
            try:
                content = files.read(one.name)
            except FileNotFoundError as e:
                raise StateError(f"{files.uri}/{one.name} was removed meanwhile; make the backup again") from e
            self.add(below + one.name, content)

        with ThreadPoolExecutor(THREADS) as pool:
            for number, _ in enumerate(pool.map(copy, todo)):
                progress(number + 1, len(todo))

    def close(self, name: str, made_utc: str, about: Mapping[str, Any]) -> Backup:
        """The backup, complete when this returns."""
        made = Backup(name, made_utc, about, dict(sorted(self.files.items())))
        self.target.write(f"{BACKUPS}/{name}/{made_utc}.json", json.dumps(made.to_json(), indent=1).encode())
        return made


def _place(digest: str) -> str:
    return f"{OBJECTS}/{digest[:2]}/{digest}"


def restore(
    target: StoredFiles, entries: Mapping[str, tuple[int, str]], into: StoredFiles, progress: Progress = ignore_progress
) -> int:
    """Writes the files into an empty place, or one where this was interrupted; the bytes that were written now.

    Files whose names begin with `refs/` or hold `/refs/` are written last: without them a cube is none. Every content is compared
    with its SHA-256. Raises ArtefactDamaged, with the damaged ones, when all others but the last are there.
    """
    there = {one.name: one.size for one in into.listing("")}

    def is_last(name: str) -> bool:
        return "/refs/" in f"/{name}"

    def copy(name: str) -> tuple[str, int]:
        size, digest = entries[name]
        if there.get(name) == size and hashlib.sha256(into.read(name)).hexdigest() == digest:
            return "", 0
        try:
            content = target.read(_place(digest))
        except FileNotFoundError:
            return f"{_place(digest)} is missing ({name})", 0
        if hashlib.sha256(content).hexdigest() != digest:
            return f"{_place(digest)} is not what was copied ({name})", 0
        into.write(name, content)
        return "", size

    done, written, problems = 0, 0, list[str]()
    for names in _in_turn(entries, is_last):
        with ThreadPoolExecutor(THREADS) as pool:
            for problem, size in pool.map(copy, names):
                done, written = done + 1, written + size
                problems += [problem] if problem else []
                progress(done, len(entries))
        if problems:
            more = f" and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
            raise ArtefactDamaged(
                f"{target.uri}: damaged, {counted(len(problems), 'file')}: {'; '.join(problems[:MOST_NAMED])}{more}. Nothing was "
                "restored; take another backup, or put these files back and restore again"
            )
    return written


def _in_turn(entries: Iterable[str], is_last: Any) -> Iterator[list[str]]:
    yield [name for name in entries if not is_last(name)]
    yield [name for name in entries if is_last(name)]
