"""A de-identified copy of a folder of DICOM files, and the manifest of what was done to each element."""

from __future__ import annotations

import filecmp
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.errors import MissingInput, RequestError, RunBusy
from pipelines.files import Held, exclusive_owner, naming_full_disk, publish, write_text
from pipelines.privacy.file import deidentify_bytes, is_dicom, require_pydicom
from pipelines.privacy.settings import PrivacyRefusal, PrivacySettings
from pipelines.progress import Progress

log = logging.getLogger(__name__)
MANIFEST = "manifest.jsonl"
QUARANTINED = ("burned-in", "mask-outside", "no-ocr", "overlay")
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
    def quarantined(self) -> list[PrivacyRefusal]:
        """The refused files that a person should look at: they may show text."""
        return [one for one in self.refused if one.reason in QUARANTINED]

    def count(self, result: Made | PrivacyRefusal) -> None:
        """Counts a file that was de-identified, or was not."""
        if isinstance(result, PrivacyRefusal):
            self.refused.append(result)
            return
        self.copied += 1
        self.elements.update(result.done)
        self.claimed += result.claimed and any(action in ("removed", "pseudonym") for *_, action in result.done)


@dataclass(frozen=True)
class Job:
    """A file to de-identify: the keyed id that stands for its name, and where its copy is written; None: nowhere."""

    path: Path
    file_id: str
    draft: Path | None = None


@dataclass(frozen=True)
class Made:
    """A file that was de-identified: the name of its copy below the target, its size, and what was done (see `CleanFile`)."""

    name: str
    size: int
    done: Counter[tuple[str, str, str]]
    claimed: bool


Result = Made | PrivacyRefusal | None  # None: it is no DICOM file
Runner = Callable[[Sequence[Job], PrivacySettings], Iterable[Result]]  # the results of jobs, in their order


def deidentify_file(job: Job, settings: PrivacySettings) -> Result:
    """Reads a file and writes the draft of its copy. Raises OSError if that cannot be written."""
    try:
        data = _content(job.path, job.file_id)
        if data is None:
            return None
        clean = deidentify_bytes(data, job.file_id, settings)
    except PrivacyRefusal as e:
        return e
    if job.draft is not None:
        with job.draft.open("wb") as file:
            file.writelines(clean.parts)
    return Made(clean.name, sum(map(len, clean.parts)), clean.done, clean.claimed)


def one_by_one(jobs: Sequence[Job], settings: PrivacySettings) -> Iterator[Result]:
    """Results of `deidentify_file`, in this process."""
    return (deidentify_file(job, settings) for job in jobs)


def deidentify_folder(
    source: Path, target: Path, settings: PrivacySettings, progress: Progress | None = None, run: Runner = one_by_one
) -> Manifest:
    """Writes a de-identified copy of all DICOM images below `source` to `target`, and `target/manifest.jsonl`.

    `source` may also be one file, or a DICOMDIR, which stands for its folder. `run` reads and writes the files.

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
            return _Copying(source, target, settings).run(run, progress)
    except Held as e:
        raise RunBusy(f"{target} is being written by {e}; try again when it is done") from e


def audit_folder(source: Path, settings: PrivacySettings, progress: Progress | None = None, run: Runner = one_by_one) -> Manifest:
    """What `deidentify_folder` would do, without writing anything. Raises MissingInput."""
    require_pydicom()
    source, paths = _files_of(source)
    names = [path.relative_to(source).as_posix() for path in paths]
    jobs = [Job(path, settings.key.name("file", name)) for path, name in zip(paths, names, strict=True)]
    manifest = Manifest()
    for number, (job, name, result) in enumerate(zip(jobs, names, run(jobs, settings), strict=True), 1):
        if result is None:
            manifest.no_dicom += 1
        else:
            manifest.names[job.file_id] = name
            manifest.count(result)
        if progress:
            progress(number, len(jobs))
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
            if not is_dicom(file.read(132)):
                return None
            file.seek(0)
            return file.read()
    except OSError as e:
        raise PrivacyRefusal(file_id, "unreadable", f"the file cannot be read: {e.strerror}") from None


class _Copying:
    """One pass over a folder: what the manifest of the last one says, and what this one adds to it."""

    def __init__(self, source: Path, target: Path, settings: PrivacySettings):
        (self.source, self.paths), self.target, self.settings = _files_of(source), target, settings
        self.digest, self.manifest = settings.digest(), Manifest()
        self.before = {record["file"]: record for record in read_manifest(target)}
        self.owners = {one["target"]: one["file"] for one in self.before.values() if one.get("target")}
        self.now: dict[str, Record] = {}
        self.states: dict[str, str] = {}
        self.named: dict[str, str] = {}

    def run(self, run: Runner, progress: Progress | None) -> Manifest:
        for draft in self.target.rglob(".*.partial"):  # of a copy that was interrupted
            draft.unlink()
        jobs = [job for path in self.paths if (job := self._job(path)) is not None]
        done = len(self.paths) - len(jobs)
        with naming_full_disk(self.target), (self.target / MANIFEST).open("a", encoding="ascii") as journal:
            for job, result in zip(jobs, run(jobs, self.settings), strict=True):
                record = self._record(job, result)
                if record is not None:
                    journal.write(json.dumps(record) + "\n")
                    journal.flush()
                done += 1
                if progress:
                    progress(done, len(self.paths))
        gone = {file_id: record for file_id, record in self.before.items() if file_id not in self.now}
        self.manifest.gone = sum(bool(record.get("target")) for record in gone.values())
        lines = [json.dumps(record) for _, record in sorted((gone | self.now).items())]
        write_text(self.target / MANIFEST, "".join(f"{line}\n" for line in lines))
        log.info("%d copied, %d unchanged, %d refused", self.manifest.copied, self.manifest.unchanged, len(self.manifest.refused))
        return self.manifest

    def _job(self, path: Path) -> Job | None:
        """The work for a file; None if its record holds, and for one that was removed since the folder was listed."""
        key, name = self.settings.key, path.relative_to(self.source).as_posix()
        file_id = key.name("file", name)
        try:
            stat = path.stat()
        except FileNotFoundError:
            return None
        state = key.name("state", f"{stat.st_size} {stat.st_mtime_ns}")  # keyed: the time of the file may be that of the scan
        if (old := self._unchanged(file_id, state)) is None:
            self.states[file_id], self.named[file_id] = state, name
            return Job(path, file_id, self.target / f".{file_id}.partial")
        self.now[file_id], self.manifest.names[file_id] = old, name
        self._count_again(old)
        return None

    def _record(self, job: Job, result: Result) -> Record | None:
        """The new record of a file; None of one that is no DICOM."""
        file_id = job.file_id
        if result is None:
            self.manifest.no_dicom += 1
            return None
        try:
            if isinstance(result, PrivacyRefusal):
                raise result
            record = self._copy(result, job)
        except PrivacyRefusal as e:
            self.manifest.count(e)
            record = {"file": file_id, "status": "refused", "reason": e.reason, "detail": e.detail}
        self._remove_earlier(file_id, record.get("target"))
        self.manifest.names[file_id] = self.named[file_id]
        self.now[file_id] = {**record, "state": self.states[file_id], "settings": self.digest}
        return self.now[file_id]

    def _unchanged(self, file_id: str, state: str) -> Record | None:
        old = self.before.get(file_id)
        if old is None or (old["state"], old["settings"]) != (state, self.digest):
            return None
        if (target := old.get("target")) is None:
            return old
        path = self.target / target
        return old if path.is_file() and path.stat().st_size == old["bytes"] else None

    def _count_again(self, old: Record) -> None:
        if old["status"] == "refused":
            self.manifest.refused.append(PrivacyRefusal(old["file"], old["reason"], old["detail"]))
        elif old["status"] == "duplicate":
            self.manifest.duplicates += 1
        else:
            self.manifest.unchanged += 1

    def _copy(self, made: Made, job: Job) -> Record:
        """Publishes the copy. Raises PrivacyRefusal for a second file with the UID of another and other content."""
        assert job.draft is not None
        path, file_id, owner = self.target / made.name, job.file_id, self.owners.get(made.name)
        if owner not in (None, file_id) and owner in self.now and path.is_file():
            is_same = filecmp.cmp(path, job.draft, shallow=False)
            job.draft.unlink()
            if not is_same:
                raise PrivacyRefusal(file_id, "duplicate-uid", f"it has the SOP Instance UID of {owner} and other content")
            self.manifest.duplicates += 1
            return {"file": file_id, "status": "duplicate", "of": owner}
        self.owners[made.name] = file_id
        path.parent.mkdir(parents=True, exist_ok=True)
        # not flushed, which takes as long as all the rest: `_unchanged` compares the size, and a lost copy is made again
        publish(job.draft, path, flush=False)
        self.manifest.count(made)
        elements = [[*what, count] for what, count in sorted(made.done.items())]
        return {"file": file_id, "status": "copied", "target": made.name, "bytes": made.size, "elements": elements}

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
