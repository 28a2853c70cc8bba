"""A de-identified copy of a folder of DICOM, NIfTI and video files, and the manifest of what was done to each element."""

from __future__ import annotations

import filecmp
import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.errors import MissingInput, RequestError, RunBusy
from pipelines.files import Held, exclusive_owner, is_full, naming_full_disk, publish, write_text
from pipelines.privacy.file import require_pydicom
from pipelines.privacy.jobs import Job, Made, Result, Runner, one_by_one, results_of
from pipelines.privacy.other_kinds import KindsOf, OtherKind, none_other
from pipelines.privacy.settings import PrivacyRefusal, PrivacySettings
from pipelines.progress import Progress

log = logging.getLogger(__name__)
MANIFEST = "manifest.jsonl"
UNFINISHED = ".unfinished"  # is there while a copy is made, and after one that was interrupted
DRAFTS = (".*.partial*", ".*.checked*")  # of `deidentify_file` and of other kinds
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
    other: int = 0  # files of no kind that is copied
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

    def count(self, result: Made | PrivacyRefusal) -> None:
        """Counts a file that was de-identified, or was not."""
        if isinstance(result, PrivacyRefusal):
            self.refused.append(result)
            return
        self.copied += 1
        self.elements.update(result.done)
        self.claimed += result.claims_wrongly


def deidentify_folder(
    source: Path,
    target: Path,
    settings: PrivacySettings,
    progress: Progress | None = None,
    kinds: KindsOf = none_other,
    run: Runner = one_by_one,
    *,
    with_dicom: bool = True,
    only: Collection[Path] | None = None,
) -> Manifest:
    """Writes a de-identified copy of all DICOM images, and files of other kinds, below `source` to `target`, and a manifest.

    `source` may also be one file, or a DICOMDIR, which stands for its folder. `run` reads DICOM files and writes drafts of
    their copies. `only`: these files below `source` (with its resolved name), as if there were no others.

    Copies are `PSEUDONYM/SERIES/INSTANCE.dcm`. A file is there as a whole or not at all; one whose original and settings did not
    change is not written again; a copy of a file that is refused now is removed. Interrupted, it goes on where it was; until
    then `target/.unfinished` is there.

    Raises MissingInput, RequestError if the folders are within each other or nothing can be written, RunBusy if another process
    writes the same copy, and StorageFull.
    """
    if with_dicom:
        require_pydicom()
    source, target = _require_apart(source, target)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with exclusive_owner(target / ".lock", target / ".owner"):
            return _Copying(source, target, settings, kinds, with_dicom, only).run(run, progress)
    except OSError as e:
        if is_full(e):
            raise
        raise RequestError(f"the copy {target} cannot be written: {e.strerror}; name another place") from None
    except Held as e:
        raise RunBusy(f"{target} is being written by {e}; try again when it is done") from e


def audit_folder(
    source: Path,
    settings: PrivacySettings,
    progress: Progress | None = None,
    kinds: KindsOf = none_other,
    run: Runner = one_by_one,
) -> Manifest:
    """What `deidentify_folder` would do; nothing is left of it. Raises MissingInput."""
    require_pydicom()
    source = source.absolute()
    given, (source, paths) = source, _files_of(source)
    manifest, others = Manifest(), _kinds_by_path(kinds(given, paths, settings), paths)
    names = {path: path.relative_to(source).as_posix() for path in paths}
    of_uid: dict[str, dict[bytes, list[str]]] = defaultdict(lambda: defaultdict(list))
    jobs, parts = [Job(path, settings.key.name("file", name)) for path, name in names.items()], _parts(others)
    for number, (job, result) in enumerate(results_of(jobs, others, None, settings, run), 1):
        if result is None:
            manifest.other += job.path not in parts
        else:
            manifest.names[job.file_id] = names[job.path]
            manifest.count(result)
            if isinstance(result, Made) and not result.kind:
                of_uid[result.name][result.digest].append(job.file_id)
        if progress:
            progress(number, len(jobs))
    for contents in of_uid.values():
        files = [one for of_content in contents.values() for one in of_content]
        if len(contents) > 1:
            manifest.refused += [_disputed(file_id, len(files)) for file_id in files]
            manifest.copied -= len(files)
        else:
            manifest.duplicates += len(files) - 1
            manifest.copied -= len(files) - 1
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
        raise MissingInput("there is no file or folder where the originals should be; name their folder, or one file")
    if source.name.upper() == "DICOMDIR":
        return source.parent, sorted(list_files(source.parent))
    return source.parent, [source]


def _require_apart(source: Path, target: Path) -> tuple[Path, Path]:
    root, _ = _files_of(source)
    one, other = root.resolve(), target.resolve()
    if one == other or other in one.parents or (one in other.parents and source.is_dir()):
        raise RequestError(f"the copy {target} and its originals are within each other; name a folder beside them")
    if target.exists() and any(target.iterdir()) and not (target / MANIFEST).exists() and not (target / ".lock").exists():
        raise RequestError(f"{target} holds files that are not of a de-identified copy; name a new folder")
    return source.resolve(), target


def _kinds_by_path(kinds: Sequence[OtherKind], paths: Sequence[Path]) -> dict[Path, OtherKind]:
    """The kind of every file that is no DICOM and is copied all the same."""
    return {path: kind for kind in reversed(kinds) for path in paths if kind.takes(path)}


def _parts(kinds: Mapping[Path, OtherKind]) -> set[Path]:
    """All files that copies are made from, sidecars among them."""
    return {part for path, kind in kinds.items() for part in kind.parts(path)}


def _disputed(file_id: str, count: int) -> PrivacyRefusal:
    remedy = (
        "keep the right one, and move the others elsewhere (`driftline deidentify FOLDER --audit --names` shows which they are)"
    )
    detail = f"{count} files have one SOP Instance UID and are not the same: {remedy}"
    return PrivacyRefusal(file_id, "duplicate-uid", detail)


class _Copying:
    """One pass over a folder: what the manifest of the last one says, and what this one adds to it."""

    def __init__(
        self,
        source: Path,
        target: Path,
        settings: PrivacySettings,
        kinds: KindsOf,
        with_dicom: bool,
        only: Collection[Path] | None,
    ):
        (self.source, paths), self.target, self.settings = _files_of(source), target, settings
        self.paths = paths if only is None else [path for path in paths if path in only]
        self.kinds, self.with_dicom = _kinds_by_path(kinds(source, self.paths, settings), self.paths), with_dicom
        self.parts = _parts(self.kinds)
        self.digest, self.manifest = settings.digest(), Manifest()
        self.before = {record["file"]: record for record in read_manifest(target)}
        copied = [one for one in self.before.values() if one.get("target")]
        self.owners = {name: one["file"] for one in copied for name in (one["target"], *one.get("beside", ()))}
        self.now: dict[str, Record] = {}
        self.states: dict[str, str] = {}
        self.written: dict[str, bool] = {}  # copies that were written now, by name -> whether the original claims wrongly
        self.disputed: set[str] = set()  # names of copies whose UID another file has with other content
        self.named: dict[str, str] = {}

    def run(self, run: Runner, progress: Progress | None) -> Manifest:
        (self.target / UNFINISHED).touch()
        self._remove_drafts()
        try:
            self._copy_all(run, progress)
        finally:
            self._remove_drafts()
        self._refuse_disputed()
        gone = {file_id: {**record, "gone": True} for file_id, record in self.before.items() if file_id not in self.now}
        self.manifest.gone = sum(bool(record.get("target")) for record in gone.values())
        lines = [json.dumps(record) for _, record in sorted((gone | self.now).items())]
        write_text(self.target / MANIFEST, "".join(f"{line}\n" for line in lines))
        (self.target / UNFINISHED).unlink()
        log.info("%d copied, %d unchanged, %d refused", self.manifest.copied, self.manifest.unchanged, len(self.manifest.refused))
        return self.manifest

    def _copy_all(self, run: Runner, progress: Progress | None) -> None:
        jobs = [job for path in self.paths if (job := self._job(path)) is not None]
        results = results_of(jobs, self.kinds, self.target, self.settings, run)
        with (
            naming_full_disk(self.target),
            (self.target / MANIFEST).open("a", encoding="ascii") as journal,
            closing(results),  # ends what still writes drafts
        ):
            for done, (job, result) in enumerate(results, 1 + len(self.paths) - len(jobs)):
                record = self._record(job, result)
                if record is not None:
                    journal.write(json.dumps(record) + "\n")
                    journal.flush()
                if progress:
                    progress(done, len(self.paths))

    def _remove_drafts(self) -> None:
        for draft in [draft for pattern in DRAFTS for draft in self.target.rglob(pattern)]:
            draft.unlink(missing_ok=True)

    def _job(self, path: Path) -> Job | None:
        """The work for a file; None if its record holds, and for one that was removed since the folder was listed."""
        key, name = self.settings.key, path.relative_to(self.source).as_posix()
        file_id, kind = key.name("file", name), self.kinds.get(path)
        try:
            state = self._state(path, kind)
        except FileNotFoundError:
            return None
        if (old := self._unchanged(file_id, state)) is not None:
            old.pop("gone", None)
            self.now[file_id], self.manifest.names[file_id] = old, name
            self._count_again(old)
            return None
        if kind is None and not self.with_dicom:
            self.manifest.other += path not in self.parts
            return None
        self.states[file_id], self.named[file_id] = state, name
        return Job(path, file_id, self.target / f".{file_id}.partial")

    def _state(self, path: Path, kind: OtherKind | None) -> str:
        """What the copy depends on, keyed, since the time of the file may be that of the scan; "" of what will be refused."""
        stats = [part.stat() for part in (kind.parts(path) if kind else (path,))]
        try:
            depends_on = kind.depends_on(path) if kind else ""
        except PrivacyRefusal:
            return ""
        text = " ".join([*(f"{stat.st_size} {stat.st_mtime_ns}" for stat in stats), depends_on])
        return self.settings.key.name("state", text)

    def _record(self, job: Job, result: Result) -> Record | None:
        """The new record of a file; None of one that is of no kind that is copied."""
        file_id = job.file_id
        if result is None:
            self.manifest.other += job.path not in self.parts
            return None
        try:
            if isinstance(result, PrivacyRefusal):
                raise result
            record = self._publish(result, job)
        except PrivacyRefusal as e:
            self.manifest.count(e)
            record = {"file": file_id, "status": "refused", "reason": e.reason, "detail": e.detail}
        self._remove_earlier(file_id, {record.get("target"), *record.get("beside", ())})
        self.manifest.names[file_id] = self.named[file_id]
        self.now[file_id] = {**record, "state": self.states[file_id], "settings": self.digest}
        return self.now[file_id]

    def _unchanged(self, file_id: str, state: str) -> Record | None:
        old = self.before.get(file_id)
        if old is None or not state or (old["state"], old["settings"]) != (state, self.digest):
            return None
        if (target := old.get("target")) is None:
            return None if old["status"] == "duplicate" or old.get("reason") == DUPLICATE else old  # others decide, too
        path = self.target / target
        is_whole = path.is_file() and path.stat().st_size == old["bytes"]
        return old if is_whole and all((self.target / one).is_file() for one in old.get("beside", ())) else None

    def _count_again(self, old: Record) -> None:
        if old["status"] == "refused":
            self.manifest.refused.append(PrivacyRefusal(old["file"], old["reason"], old["detail"]))
        else:
            self.manifest.unchanged += 1

    def _publish(self, made: Made, job: Job) -> Record:
        """Publishes the draft of a copy; that of a second file with the UID of another is compared with the first."""
        path, file_id, owner = self.target / made.name, job.file_id, self.owners.get(made.name)
        if not made.kind:
            assert job.draft is not None
            if owner not in (None, file_id) and owner in self.now and path.is_file():
                if not filecmp.cmp(path, job.draft, shallow=False):
                    self.disputed.add(made.name)
                job.draft.unlink()
                self.manifest.duplicates += 1
                return {"file": file_id, "status": "duplicate", "of": owner}
            path.parent.mkdir(parents=True, exist_ok=True)
            # not flushed, which takes as long as all the rest: `_unchanged` compares the size, and a lost copy is made again
            publish(job.draft, path, flush=False)
        self.owners |= dict.fromkeys((made.name, *made.beside), file_id)
        self.manifest.count(made)
        self.written[made.name] = made.claims_wrongly
        kind, beside = ({"kind": made.kind}, {"beside": list(made.beside)}) if made.kind else ({}, {})
        record = {"file": file_id, "status": "copied", **kind, "target": made.name, "bytes": made.size, **beside}
        return {**record, "elements": [[*what, count] for what, count in sorted(made.done.items())]}

    def _refuse_disputed(self) -> None:
        """Takes back the copies of files whose UID another file has with other content, and refuses all files of that UID."""
        for name in self.disputed:
            owner = self.owners.pop(name)
            elements = self.now[owner].get("elements", ())
            (self.target / name).unlink()
            same = [file_id for file_id, record in self.now.items() if record.get("of") == owner]
            for file_id in (owner, *same):
                refusal = _disputed(file_id, len(same) + 1)
                self.manifest.refused.append(refusal)
                record = {"file": file_id, "status": "refused", "reason": refusal.reason, "detail": refusal.detail}
                self.now[file_id] = record | {one: self.now[file_id][one] for one in ("state", "settings")}
            self.manifest.duplicates -= len(same)
            if name not in self.written:
                self.manifest.unchanged -= 1
                continue
            self.manifest.copied -= 1
            self.manifest.claimed -= self.written[name]
            self.manifest.elements.subtract({(path, vr, done): count for path, vr, done, count in elements})
            self.manifest.elements += Counter()  # without those that no file has any more

    def _remove_earlier(self, file_id: str, now: set[str | None]) -> None:
        """Removes the copy that this file had before, and what was beside it, unless that is what a file has now."""
        before = self.before.get(file_id, {})
        for one in {before.get("target"), *before.get("beside", ())} - now:
            if one and self.owners.get(one) == file_id:
                (self.target / one).unlink(missing_ok=True)
                del self.owners[one]


def read_manifest(target: Path) -> Iterator[Record]:
    """The records of a manifest; the last line of an interrupted copy may be cut off and is left out."""
    path = target / MANIFEST
    for line in path.read_text(encoding="ascii", errors="replace").splitlines() if path.is_file() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def copies_in(target: Path, kind: str | None = None) -> dict[str, str]:
    """Keyed id -> name below `target` of each copy whose original is still there; {} of a folder that is no copy.

    kind: of one kind alone; "" is DICOM. What an interrupted copy left is in no manifest, and so not among them.
    """
    latest = {record["file"]: record for record in read_manifest(target)}.values()
    return {
        one["file"]: one["target"]
        for one in latest
        if one.get("target") and "gone" not in one and kind in (None, one.get("kind", ""))
    }


def clip_in(target: Path) -> Path:
    """The one video of a copy whose original is still there; the copy itself if there is none, or are several."""
    clips = list(copies_in(target, "video").values())
    return target / clips[0] if len(clips) == 1 else target
