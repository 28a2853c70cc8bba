"""The work on each file of a folder: reads it, and writes its copy, or the draft of one, or nothing."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pipelines.privacy.file import deidentify_bytes, is_dicom, is_without_preamble
from pipelines.privacy.other_kinds import OtherKind
from pipelines.privacy.settings import PrivacyRefusal, PrivacySettings


@dataclass(frozen=True)
class Job:
    """A file to de-identify: the keyed id that stands for its name, and where its copy is written; None: nowhere."""

    path: Path
    file_id: str
    draft: Path | None = None


@dataclass(frozen=True)
class Made:
    """A file that was de-identified: the name of its copy below the target, its size, and what was done (see `CleanFile`).

    kind: of what is no DICOM. beside: names of what lies beside the copy. digest: SHA-256 of a DICOM file's copy that is written
    nowhere.
    """

    name: str
    size: int
    done: Counter[tuple[str, str, str]]
    claimed: bool = False
    kind: str = ""
    beside: tuple[str, ...] = ()
    digest: bytes = b""

    @property
    def claims_wrongly(self) -> bool:
        """Whether the original says that the identity is removed, and holds elements that had to be removed."""
        return self.claimed and any(action in ("removed", "pseudonym") for *_, action in self.done)


Result = Made | PrivacyRefusal | None  # None: it is of no kind that is copied
Runner = Callable[[Sequence[Job], PrivacySettings], Iterable[Result]]  # the results of jobs on DICOM files, in their order


def deidentify_file(job: Job, settings: PrivacySettings) -> Result:
    """Reads a DICOM file and writes the draft of its copy. Raises OSError if that cannot be written."""
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
    digest = sha256(b"".join(clean.parts)).digest() if job.draft is None else b""
    return Made(clean.name, sum(map(len, clean.parts)), clean.done, clean.claimed, digest=digest)


def one_by_one(jobs: Sequence[Job], settings: PrivacySettings) -> Iterator[Result]:
    """Results of `deidentify_file`, in this process."""
    return (deidentify_file(job, settings) for job in jobs)


def _content(path: Path, file_id: str) -> bytes | None:
    """The bytes of a DICOM file, None of another. Raises PrivacyRefusal if it cannot be read, without its name."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
            if is_dicom(head):
                file.seek(0)
                return file.read()
    except OSError as e:
        raise PrivacyRefusal(file_id, "unreadable", f"the file cannot be read: {e.strerror}") from None
    if is_without_preamble(head):
        remedy = "write it anew as a DICOM file, for example with `dcmconv IN OUT` of dcmtk"
        raise PrivacyRefusal(file_id, "no-preamble", f"a DICOM data set without the preamble of a file (PS3.10, 7.1): {remedy}")
    return None


def results_of(
    jobs: Sequence[Job], kinds: Mapping[Path, OtherKind], target: Path | None, settings: PrivacySettings, run: Runner
) -> Generator[tuple[Job, Result], None, None]:
    """Every job and its result, those of other kinds first; they write below `target`, or where nothing stays."""
    for job in jobs:
        if kind := kinds.get(job.path):
            with nullcontext(target) if target else tempfile.TemporaryDirectory() as folder:
                result = _copy_other(kind, job, Path(folder), settings)
            yield job, result
    images = [job for job in jobs if job.path not in kinds]
    yield from zip(images, run(images, settings), strict=True)


def _copy_other(kind: OtherKind, job: Job, target: Path, settings: PrivacySettings) -> Result:
    """Writes the copy of a file that is no DICOM below `target`; its name is its own, so that no other can be there."""
    try:
        kind.depends_on(job.path)
        copied = kind.copy(job.path, job.file_id, target, settings)
    except PrivacyRefusal as e:
        return PrivacyRefusal(job.file_id, e.reason, e.detail)
    except FileNotFoundError:
        if job.path.exists():
            raise
        return None  # removed since the folder was listed
    return Made(copied.name, (target / copied.name).stat().st_size, copied.done, kind=kind.name, beside=copied.beside)
