"""A de-identified copy of a folder of DICOM files, and the manifest of what was done to each element."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.errors import MissingInput, RequestError, RunBusy
from pipelines.files import Held, exclusive_owner, naming_full_disk, write_bytes, write_text
from pipelines.privacy.file import CleanFile, deidentify_bytes, is_dicom, is_without_preamble, require_pydicom
from pipelines.privacy.settings import PrivacyRefusal, PrivacySettings
from pipelines.progress import Progress

log = logging.getLogger(__name__)
MANIFEST = "manifest.jsonl"
QUARANTINED = ("burned-in", "mask-outside", "no-ocr", "overlay")
DUPLICATE = "duplicate-uid"
NO_SERIES = ("directory", "no-image")  # reasons to refuse a file of which no series lacks an image
Record = dict[str, Any]


@dataclass
class Manifest:
    """What became of the files of a folder. Files are named by keyed ids, elements by tags; no value of a header is in it.

    elements: (path of tags, VR, action) -> in how many elements. names: keyed id -> path below the source, never written.
    """

    copied: int = 0
    unchanged: int = 0
    duplicates: int = 0
    no_dicom: int = 0
    gone: int = 0  # copies whose original is not there any more
    claimed: int = 0  # originals that say that the identity is removed, and hold elements that had to be removed
    refused: list[PrivacyRefusal] = field(default_factory=list)
    elements: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    names: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def left_out(self) -> list[PrivacyRefusal]:
        """The refused files that are, or may be, images."""
        return [one for one in self.refused if one.reason not in NO_SERIES]

    @property
    def quarantined(self) -> list[PrivacyRefusal]:
        """The refused files that a person should look at: they may show text."""
        return [one for one in self.refused if one.reason in QUARANTINED]

    def add(self, clean: CleanFile) -> None:
        """Counts a file that was de-identified."""
        self.elements.update(clean.done)
        self.claimed += clean.claimed and any(action in ("removed", "pseudonym") for *_, action in clean.done)


def deidentify_folder(source: Path, target: Path, settings: PrivacySettings, progress: Progress | None = None) -> Manifest:
    """Writes a de-identified copy of all DICOM images below `source` to `target`, and `target/manifest.jsonl`.

    `source` may also be one file, or a DICOMDIR, which stands for its folder.

    Copies are `PSEUDONYM/SERIES/INSTANCE.dcm`. A file is there as a whole or not at all; one whose original and settings did not
    change is not written again; a copy of a file that is refused now is removed. Interrupted, it goes on where it was.

    Raises MissingInput, RequestError if the folders are within each other, RunBusy if another process writes the same copy, and
    StorageFull.
    """
    require_pydicom()
    source, target = _require_apart(source, target)
    target.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive_owner(target / ".lock", target / ".owner"):
            return _Copying(source, target, settings).run(progress)
    except Held as e:
        raise RunBusy(f"{target} is being written by {e}; try again when it is done") from e


def audit_folder(source: Path, settings: PrivacySettings, progress: Progress | None = None) -> Manifest:
    """What `deidentify_folder` would do, without writing anything. Raises MissingInput."""
    require_pydicom()
    source, paths = _files_of(source)
    manifest = Manifest()
    of_uid: dict[str, dict[bytes, list[str]]] = defaultdict(lambda: defaultdict(list))
    for number, path in enumerate(paths):
        name = path.relative_to(source).as_posix()
        file_id = settings.key.name("file", name)
        try:
            data = _content(path, file_id)
            if data is None:
                manifest.no_dicom += 1
                continue
            clean = deidentify_bytes(data, file_id, settings)
            manifest.add(clean)
            of_uid[clean.name][hashlib.sha256(clean.content).digest()].append(file_id)
        except PrivacyRefusal as e:
            manifest.refused.append(e)
        manifest.names[file_id] = name
        if progress:
            progress(number + 1, len(paths))
    for contents in of_uid.values():
        files = [file_id for of_content in contents.values() for file_id in of_content]
        manifest.copied += len(contents) == 1
        manifest.duplicates += len(files) - 1 if len(contents) == 1 else 0
        manifest.refused += [_duplicate(file_id, len(files)) for file_id in files if len(contents) > 1]
    return manifest


def list_files(folder: Path) -> Iterator[Path]:
    """All files below a folder; links to folders are not followed."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent) / name for name in names if (Path(parent) / name).is_file())


def _files_of(source: Path) -> tuple[Path, list[Path]]:
    """(the folder that names are relative to, its files in order); of one file its folder and the file alone."""
    if source.is_dir():
        return source, sorted(list_files(source))
    if not source.is_file():
        raise MissingInput(f"no file or folder at {source}; name the folder of the DICOM files")
    if source.name.upper() == "DICOMDIR":
        return source.parent, sorted(list_files(source.parent))
    return source.parent, [source]


def _require_apart(source: Path, target: Path) -> tuple[Path, Path]:
    root, _ = _files_of(source)
    one, other = root.resolve(), target.resolve()
    if one == other or other in one.parents or (one in other.parents and source.is_dir()):
        raise RequestError(f"the copy {target} and its originals {source} are within each other; name a folder beside them")
    if target.exists() and any(target.iterdir()) and not (target / MANIFEST).exists() and not (target / ".lock").exists():
        raise RequestError(f"{target} holds files that are not of a de-identified copy; name a new folder")
    return source.resolve(), target


def _content(path: Path, file_id: str) -> bytes | None:
    """The bytes of a DICOM file, None of another. Raises PrivacyRefusal if it cannot be read, without its name."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
            if is_dicom(head):
                return head + file.read()
    except OSError as e:
        raise PrivacyRefusal(file_id, "unreadable", f"the file cannot be read: {e.strerror}") from None
    if is_without_preamble(head):
        remedy = "write it anew as a DICOM file, for example with `dcmconv IN OUT` of dcmtk"
        raise PrivacyRefusal(file_id, "no-preamble", f"a DICOM data set without the preamble of a file (PS3.10, 7.1): {remedy}")
    return None


def _duplicate(file_id: str, count: int) -> PrivacyRefusal:
    remedy = (
        "keep the right one, and move the others elsewhere (`driftline deidentify FOLDER --audit --names` shows which they are)"
    )
    detail = f"{count} files have one SOP Instance UID and are not the same: {remedy}"
    return PrivacyRefusal(file_id, "duplicate-uid", detail)


class _Copying:
    """One pass over a folder: what the manifest of the last one says, and what this one adds to it."""

    def __init__(self, source: Path, target: Path, settings: PrivacySettings):
        (self.source, self.paths), self.target, self.settings = _files_of(source), target, settings
        self.digest, self.manifest = settings.digest(), Manifest()
        self.before = {record["file"]: record for record in read_manifest(target)}
        self.owners = {one["target"]: one["file"] for one in self.before.values() if one.get("target")}
        self.now: dict[str, Record] = {}
        self.disputed: set[str] = set()  # names of copies whose UID another file has with other content

    def run(self, progress: Progress | None) -> Manifest:
        with naming_full_disk(self.target), (self.target / MANIFEST).open("a", encoding="ascii") as journal:
            changed = [path for path in self.paths if not self._is_unchanged(path)]
            done = len(self.paths) - len(changed)
            for number, path in enumerate(changed, done):
                record = self._file(path)
                if record is not None:
                    journal.write(json.dumps(record) + "\n")
                    journal.flush()
                if progress:
                    progress(number + 1, len(self.paths))
        self._refuse_disputed()
        gone = {file_id: record for file_id, record in self.before.items() if file_id not in self.now}
        self.manifest.gone = sum(bool(record.get("target")) for record in gone.values())
        lines = [json.dumps(record) for _, record in sorted((gone | self.now).items())]
        write_text(self.target / MANIFEST, "".join(f"{line}\n" for line in lines))
        log.info("%d copied, %d unchanged, %d refused", self.manifest.copied, self.manifest.unchanged, len(self.manifest.refused))
        return self.manifest

    def _state(self, path: Path) -> str:
        stat = path.stat()
        return self.settings.key.name("state", f"{stat.st_size} {stat.st_mtime_ns}")  # keyed: it may be the time of the scan

    def _is_unchanged(self, path: Path) -> bool:
        """Whether the record of a file holds, which is then counted."""
        name = path.relative_to(self.source).as_posix()
        file_id = self.settings.key.name("file", name)
        try:
            old = self._unchanged(file_id, self._state(path))
        except FileNotFoundError:
            return False
        if old is None:
            return False
        self.now[file_id], self.manifest.names[file_id] = old, name
        self._count_again(old)
        return True

    def _file(self, path: Path) -> Record | None:
        """The new record of a file; None for files that are no DICOM."""
        name = path.relative_to(self.source).as_posix()
        file_id, state = self.settings.key.name("file", name), ""
        try:
            state = self._state(path)
            data = _content(path, file_id)
            if data is None:
                self.manifest.no_dicom += 1
                return None
            record = self._copy(deidentify_bytes(data, file_id, self.settings), file_id)
        except PrivacyRefusal as e:
            self.manifest.refused.append(e)
            record = {"file": file_id, "status": "refused", "reason": e.reason, "detail": e.detail}
        except FileNotFoundError:
            return None  # removed since the folder was listed
        self._remove_earlier(file_id, record.get("target"))
        self.manifest.names[file_id] = name
        self.now[file_id] = {**record, "state": state, "settings": self.digest}
        return self.now[file_id]

    def _unchanged(self, file_id: str, state: str) -> Record | None:
        old = self.before.get(file_id)
        if old is None or (old["state"], old["settings"]) != (state, self.digest):
            return None
        if (target := old.get("target")) is None:
            return None if old["status"] == "duplicate" or old.get("reason") == DUPLICATE else old  # others decide, too
        path = self.target / target
        return old if path.is_file() and path.stat().st_size == old["bytes"] else None

    def _count_again(self, old: Record) -> None:
        if old["status"] == "refused":
            self.manifest.refused.append(PrivacyRefusal(old["file"], old["reason"], old["detail"]))
        else:
            self.manifest.unchanged += 1

    def _copy(self, clean: CleanFile, file_id: str) -> Record:
        """Writes the copy; of a second file with the UID of another nothing."""
        path, owner = self.target / clean.name, self.owners.get(clean.name)
        if owner not in (None, file_id) and owner in self.now and path.is_file():
            if path.read_bytes() != clean.content:
                self.disputed.add(clean.name)
            self.manifest.duplicates += 1
            return {"file": file_id, "status": "duplicate", "of": owner}
        self.owners[clean.name] = file_id
        self.manifest.add(clean)
        path.parent.mkdir(parents=True, exist_ok=True)
        # not flushed, which takes as long as all the rest: `_unchanged` compares the size, and a lost copy is made again
        write_bytes(path, clean.content, flush=False, mark="partial")
        self.manifest.copied += 1
        elements = [[*what, count] for what, count in sorted(clean.done.items())]
        return {"file": file_id, "status": "copied", "target": clean.name, "bytes": len(clean.content), "elements": elements}

    def _refuse_disputed(self) -> None:
        """Takes back the copies of files whose UID another file has with other content, and refuses all files of that UID."""
        for name in self.disputed:
            owner = self.owners.pop(name)
            (self.target / name).unlink()
            first = self.now[owner]
            same = [file_id for file_id, record in self.now.items() if record.get("of") == owner]
            for file_id in (owner, *same):
                refusal = _duplicate(file_id, len(same) + 1)
                self.manifest.refused.append(refusal)
                record = {"file": file_id, "status": "refused", "reason": refusal.reason, "detail": refusal.detail}
                self.now[file_id] = record | {one: self.now[file_id][one] for one in ("state", "settings")}
            self.manifest.duplicates -= len(same)
            if owner in self.before and self.before[owner] is first:
                self.manifest.unchanged -= 1
            else:
                self.manifest.copied -= 1
                self.manifest.elements.subtract({(path, vr, done): count for path, vr, done, count in first["elements"]})

    def _remove_earlier(self, file_id: str, target: str | None) -> None:
        """Removes the copy that this file had before, if it has another one now, or none."""
        earlier = self.before.get(file_id, {}).get("target")
        if earlier and earlier != target and self.owners.get(earlier) == file_id:
            (self.target / earlier).unlink(missing_ok=True)
            del self.owners[earlier]


def read_manifest(target: Path) -> Iterator[Record]:
    """The records of a manifest; the last line of an interrupted copy may be cut off and is left out."""
    path = target / MANIFEST
    for line in path.read_text(encoding="ascii", errors="replace").splitlines() if path.is_file() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue
