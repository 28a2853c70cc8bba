"""Masks and runs that a command names by s3://...: on this machine, and what the command makes of a run is published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from flows import Json
from flows.folder import RunFolder, exclusive_published
from pipelines.errors import MissingInput, RequestError
from pipelines.stored_files import bucket_of, is_remote
from pipelines.stored_runs import MARKER, StoredRun
from pipelines.working_copies import copy_folder, open_stored


@dataclass
class AtHand:
    """What a command reads, on this machine. owner: the working copy of the run that it writes to, if that is in S3."""

    paths: list[Path]
    run: Path | None
    owner: RunFolder | None = None
    notes: list[str] = field(default_factory=list)

    def with_place(self, record: Json, name: str) -> Json:
        """The record with where the file `name` of the run is stored, once it is."""
        copy = self.owner.copy if self.owner is not None else None
        if copy is None:
            return record
        place = copy.place_of(name)
        lines = [*(f"note: {note}" for note in self.notes), *record["lines"], f"stored:  {place}"]
        return {**record, "lines": lines, "stored": place}


@contextmanager
def at_hand(masks: Sequence[str], run: str | None, *, is_writing: bool) -> Iterator[AtHand]:
    """The masks and the run that a command names. Of runs in S3 the published version is read.

    is_writing: the command leaves files in the run, that of `--run` or else the one that the masks name. Of one in S3 these are
    written to its working copy, which is held, and published when the block ends without an error. Raises MissingInput,
    StateError, ArtefactDamaged, RunBusy.
    """
    named = run or (masks[0] if len(masks) == 1 else "")
    owner = named if is_writing and is_remote(named) and (run or not below_run(named)[1]) else ""
    if not owner:
        yield AtHand([path_at_hand(one) for one in masks], None if run is None else path_at_hand(run))
        return
    uri = owner.rstrip("/")
    bucket_of(uri)
    runs, _, name = uri.rpartition("/")
    folder = RunFolder(copy_folder(runs) / name, "", stored=uri)
    with exclusive_published(folder) as notes:
        paths = [folder.path if one == owner else path_at_hand(one) for one in masks]
        yield AtHand(paths, None if run is None else folder.path, folder, notes)
        if folder.copy is not None:
            folder.copy.publish()


def path_at_hand(text: str) -> Path:
    """A path as it is; of `s3://bucket/prefix/NAME/...`, a run or a file or folder in one, that of the published version.

    Raises MissingInput where there is no such run, or nothing of that name in it.
    """
    if not is_remote(text):
        return Path(text)
    uri, rest = below_run(text)
    path = open_stored(uri) / rest
    if not path.exists():
        raise MissingInput(f"{uri} has no {rest}; `driftline check {uri}` reads what it has")
    return path


def stored_config(uri: str) -> dict[str, object]:
    """The config of a run at `s3://bucket/prefix/NAME`, with inputs relative to the working folder. Raises MissingInput."""
    path = path_at_hand(f"{uri.rstrip('/')}/config.yaml")
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def below_run(uri: str) -> tuple[str, str]:
    """(the run in S3, the path in it) of `s3://bucket/prefix/NAME/...`. Raises MissingInput where there is no run."""
    bucket, prefix = bucket_of(uri)
    parts = prefix.split("/")
    for depth in range(1, len(parts) + 1):
        run = "/".join(["s3:/", bucket, *parts[:depth]])
        if StoredRun.at(run).read() is not None:
            return run, "/".join(parts[depth:])
    raise MissingInput(f"{uri} is not in a run that is stored there (no {MARKER}); runs are at s3://bucket/prefix/NAME")


def require_local(path: str, option: str, what: str) -> Path:
    """Raises RequestError for a URI."""
    if "://" in path:
        raise RequestError(f"{option} {path}: {what} is read from a disk of this machine; name a path here")
    return Path(path)
