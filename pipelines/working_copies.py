"""The copy of a stored run on this machine, in which all work is done: fetched before a command, published after each stage.

What a killed command left is not lost: the next one on this machine goes on from it, unless another has published since.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import count
from pathlib import Path

from pipelines.errors import MissingInput, RunBusy
from pipelines.files import cache_folder, write_json
from pipelines.stored_files import endpoint
from pipelines.stored_runs import MARKER, VERSION, StoredFile, StoredRun, Version, in_threads, reaching
from pipelines.wording import counted

SEEN = ".stored.json"  # in a working copy: the version that it was made from
LOG = "steps.jsonl"  # grows with each call: alone it makes no version
# elsewhere in the bucket, or made anew where it is missing
NOT_STORED = {"cube", "cubes", "staging", "samples", "slices", "choice", "sweep/trials"}
ASIDE = re.compile(r"\.(.+)\.set-aside(-\d+)?(\.removed)?")  # beside working copies; the last while it is being removed
# linked with each other: stored together
OPENED = re.compile(r"(products|track)/.*|report\.(html|md)|summary\.json|[^/]+\.(png|gif)")
UNUSED_DAYS = 7  # after which an opened version that no process uses is removed


@dataclass(frozen=True)
class Seen:
    """What a working copy was made from. stamps: name -> when the file was changed last (ns), so that it need not be read."""

    version: Version
    is_whole: bool  # False while files are being fetched
    stamps: Mapping[str, int]


@dataclass(frozen=True)
class WorkingCopy:
    """The folder of a stored run on this machine. Only the holder of the folder's lock may call its methods."""

    folder: Path
    stored: StoredRun

    def fetch(self) -> list[str]:
        """Brings the folder to the published version; what a person should know.

        What a stopped command left here and did not publish is kept: gone on from, unless another version was published since;
        then it is set aside. Raises StateError, ArtefactDamaged.
        """
        current, seen = self.stored.settled(), self._seen()
        if seen is None and current is None:
            return []
        uri, changed = self.stored.uri, self._changed(seen)
        is_trusted = seen is None or seen.is_whole  # not so after a fetch that was stopped
        if seen is not None and current is not None and is_trusted and seen.version.version == current.version and changed:
            kept = counted(len(changed), "file")
            return [f"going on from {self.folder}, where a command was stopped that had not published {kept} yet"]
        notes = []
        if current is None:
            notes = [f"{uri} is not there any more: it is made anew, and the copy of it is kept in {self._set_aside()}"]
            (self.folder / SEEN).unlink(missing_ok=True)
            return notes
        is_new, there = seen is None or seen.version.version != current.version, current.files
        if is_trusted and any(name not in there or not self._is(name, there[name]) for name in changed):
            notes = [f"{uri} was published since a command was stopped here; what it left is kept in {self._set_aside()}"]
        with reaching(uri):
            self._download(current, seen)
        fetched = f"fetched version {current.version} of {uri}, {counted(len(current.files), 'file')}"
        return [*notes, *([fetched] if is_new else [])]

    def begin(self) -> None:
        """Raises StateError where a run that is not there yet could not be stored, before any work is done."""
        if self._seen() is None:
            with reaching(self.stored.uri):
                self.stored.order.begin()

    def publish(self) -> Version | None:
        """A version with all files of the folder, None if nothing has changed.

        Raises RunBusy if another version was published since the last `fetch`, StateError.
        """
        seen = self._seen()
        before, known = (seen.version.version, seen.version.files) if seen else ("", {})
        names, changed = self._names(), self._changed(seen)
        if not (changed or known.keys() - names):
            return None
        current = self.stored.settled()
        if (current.version if current else "") != before:
            raise RunBusy(self.stored.overtaken(before))
        new = {name for name in names if name in changed or name not in known or name == LOG}
        if any(OPENED.fullmatch(name) for name in new | (known.keys() - names)):
            new |= {name for name in names if OPENED.fullmatch(name)}
        now = datetime.now(UTC)
        version = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
        with reaching(self.stored.uri):
            stamps = {name: (self.folder / name).stat().st_mtime_ns for name in names}
            sent = in_threads(lambda name: self.stored.store(self.folder / name, name, version), sorted(new))
            files = {name: sent[name] if name in sent else known[name] for name in sorted(names)}
            made = Version(version, before, f"{now:%Y-%m-%dT%H:%M:%SZ}", platform.node(), files)
            self.stored.publish(made)
        self._see(Seen(made, True, stamps))
        return made

    def place_of(self, name: str) -> str:
        """The URI of a file of the version that the copy is of, "" if it has no such file."""
        seen = self._seen()
        return f"{self.stored.uri}/{seen.version.files[name].object}" if seen and name in seen.version.files else ""

    def _names(self) -> set[str]:
        """Every file of the run, without drafts, locks, and what is not stored."""
        found = set()
        for parent, folders, names in os.walk(self.folder):
            here = Path(parent).relative_to(self.folder)
            folders[:] = [name for name in folders if not name.startswith(".") and (here / name).as_posix() not in NOT_STORED]
            found |= {(here / name).as_posix() for name in names if not name.startswith(".")}
        return found

    def _changed(self, seen: Seen | None) -> set[str]:
        """Files that are new, or whose content is another than that of the version; the log does not count."""
        known = seen.version.files if seen else {}
        stamps = seen.stamps if seen else {}
        return {name for name in self._names() - {LOG} if name not in known or not self._is(name, known[name], stamps.get(name))}

    def _is(self, name: str, file: StoredFile, stamp: int | None = None) -> bool:
        path = self.folder / name
        if not path.is_file() or (status := path.stat()).st_size != file.bytes:
            return False
        if stamp == status.st_mtime_ns:
            return True
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256

    def _download(self, current: Version, seen: Seen | None) -> None:
        """The files of the version that are not here, in place of others. `SEEN` says what may be trusted after a kill."""
        # a stamp says that the file is that of the version seen, which may be of the same size in this one
        stamps = (
            {name: stamp for name, stamp in seen.stamps.items() if seen.version.files[name] == current.files.get(name)}
            if seen
            else {}
        )
        is_same = seen is not None and seen.is_whole and seen.version.version == current.version
        wanted = {name: file for name, file in current.files.items() if is_stored(name)}
        missing = [name for name, file in wanted.items() if not self._is(name, file, stamps.get(name))]
        if is_same and (self.folder / LOG).is_file():
            missing = [name for name in missing if name != LOG]  # ours is longer
        others = self._names() - current.files.keys()
        if is_same and not missing and not others:
            return
        self._see(Seen(current, False, {}))
        for name in others:
            (self.folder / name).unlink()
        in_threads(lambda name: self.stored.fetch(current.files[name], self.folder / name), missing)
        self._see(Seen(current, True, {name: (self.folder / name).stat().st_mtime_ns for name in wanted}))

    def set_aside(self) -> list[Path]:
        """The folders that `fetch` has put beside this one, sorted; when each was is its time of change."""
        found = (
            (path, ASIDE.fullmatch(path.name)) for path in self.folder.parent.glob(f".{glob.escape(self.folder.name)}.set-aside*")
        )
        return sorted(path for path, match in found if match is not None and match[1] == self.folder.name)

    def _set_aside(self) -> Path:
        """Moves the files of the run beside the folder, into a folder with the next free number."""
        first = f".{self.folder.name}.set-aside"
        names = (first if number == 1 else f"{first}-{number}" for number in count(1))
        aside = next(path for path in map(self.folder.with_name, names) if not path.exists())
        aside.mkdir()
        for entry in {name.split("/")[0] for name in self._names()}:
            (self.folder / entry).rename(aside / entry)
        return aside

    def _seen(self) -> Seen | None:
        try:
            content = json.loads((self.folder / SEEN).read_text(encoding="utf-8"))
            return Seen(Version.from_json(content["version"]), bool(content["is_whole"]), dict(content["stamps"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _see(self, seen: Seen) -> None:
        write_json(self.folder / SEEN, asdict(seen))


def is_stored(name: str) -> bool:
    """Whether a file of that name is part of what is published; earlier releases stored trials of a choice, too."""
    parts = name.split("/")
    return parts[0] not in NOT_STORED and "/".join(parts[:2]) not in NOT_STORED


def open_stored(uri: str) -> Path:
    """The published version of the run at `s3://bucket/prefix/NAME` in a folder of its own, for reading.

    Each version has a folder in the cache, made at once and never changed. When one is made, older ones that no process of this
    machine uses are removed. Raises MissingInput where there is no run.
    """
    stored = StoredRun.at(uri)
    version = stored.read()
    if version is None:
        raise MissingInput(
            f"{stored.uri} holds no run (no {MARKER}); runs are at s3://bucket/prefix/NAME, as `runs` of a config says"
        )
    above, name = stored.uri.rsplit("/", 1)
    opened = copy_folder(above) / f".{name}.opened"
    target = opened / version.version / name
    opened.mkdir(parents=True, exist_ok=True)
    _hold(target.parent)
    target.parent.mkdir(exist_ok=True)
    with suppress(OSError):  # a cache that may only be read
        os.utime(target.parent)
    if not target.exists():
        _remove_unused(opened)
        with reaching(stored.uri), tempfile.TemporaryDirectory(dir=target.parent, prefix=".draft-") as draft:
            in_threads(lambda one: stored.fetch(version.files[one], Path(draft, name, one)), version.files)
            try:
                Path(draft, name).rename(target)
            except OSError:
                if not target.exists():  # else another process was faster
                    raise
    return target


@cache
def _hold(folder: Path) -> int | None:
    """A descriptor whose lock says, until this process ends, that it uses the folder; None where there are no such locks."""
    try:
        import fcntl

        descriptor = os.open(_lock_of(folder), os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except (ImportError, OSError):
        return None
    return descriptor


def _remove_unused(opened: Path) -> None:
    """Removes versions of a run that were opened last some days ago, and that no process holds."""
    try:
        import fcntl
    except ImportError:  # who uses what is not known
        return
    for folder in opened.iterdir():
        with suppress(OSError):  # held, removed by another process, or not ours
            if not VERSION.fullmatch(folder.name) or folder.stat().st_mtime > time.time() - UNUSED_DAYS * 86_400:
                continue
            with _lock_of(folder).open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
                _lock_of(folder).unlink()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def copy_folder(uri: str) -> Path:
    """Where the working copies of the runs below `uri` are, in the cache.

    Two stores that have the same bucket and prefix at different endpoints have a folder each. Raises RequestError.
    """
    key = hashlib.sha256(f"{endpoint() or ''} {uri}".encode()).hexdigest()[:8]
    return cache_folder() / "runs" / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', uri.removeprefix('s3://'))[:80]}-{key}"
