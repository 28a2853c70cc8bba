"""`driftline gc`: what of a run nobody needs any more, and its removal (docs/design/031-housekeeping.md).

Everything here is made again when it is asked for, but versions of the cube: of those stays whatever a record names.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

from configs.sites import has_sites
from configs.tasks import AnyRun
from flows import Json
from flows.folder import RunFolder, drafts, exclusive_run, finished, readable
from flows.limits import load_run_within_limits
from flows.tasks import TASKS, task_of
from pipelines.cube.store import local_path
from pipelines.errors import MissingInput, RequestError
from pipelines.stored_files import FolderFiles, Listed, StoredFiles, files_at, is_remote
from pipelines.wording import counted

VERSION_ID = re.compile(rb"\b[0-9A-Z]{20}\b")
WITHOUT_RECORDS = {"cube", "cubes", "samples", "staging", "fields.zarr"}  # folders below a run that need not be searched
CUBE, STAGED, SAMPLES, TRIALS, DRAFTS = "versions of the cube", "staged tiles", "samples", "trials of a choice", "drafts"
LOCK, REMOVED = "lock", ".removed"


@dataclass(frozen=True)
class Unneeded:
    """What nobody needs: a file, the files of a folder, or some files of a cube."""

    kind: str
    name: str
    files: int
    bytes: int


@dataclass
class Found:
    """What gc found, and what it says of it."""

    unneeded: list[Unneeded] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def clean(config: str, overrides: Sequence[str], *, keep_days: float, is_removing: bool, with_cube: bool = False) -> Json:
    """What was found, and removed if `is_removing`. Holds the run's folder.

    Raises RequestError, MissingInput (no such run), RunBusy, CubeBusy, ArtefactDamaged.
    """
    if not 0 <= keep_days < 36500:
        raise RequestError(f"--keep-days {keep_days:g}: expected days, 0 or more")
    run = load_run_within_limits(config, overrides, inputs_must_exist=False)
    folder = RunFolder.of(run)
    if not folder.path.is_dir():
        raise MissingInput(f"no run in {folder.path}; nothing is there to be removed")
    before = datetime.now(UTC) - timedelta(days=keep_days)
    with exclusive_run(folder):
        found = Found()
        clean_cubes(run, folder, before, found, is_removing=is_removing, with_cube=with_cube)
        clean_files(folder, staging_of(run, folder), before, found, is_removing=is_removing)
    files, size = sum(one.files for one in found.unneeded), sum(one.bytes for one in found.unneeded)
    return {
        "run": str(folder.path), "removed": is_removing, "keep_days": keep_days, "files": files, "bytes": size,
        "found": [vars(one) for one in found.unneeded], "notes": found.notes,
    }  # fmt: skip


# ---------------------------------------------------------------- cubes


def clean_cubes(
    run: AnyRun, folder: RunFolder, before: datetime, found: Found, *, is_removing: bool, with_cube: bool
) -> None:  # fmt: skip
    from pipelines.cube.housekeeping import remove_versions
    from pipelines.cube.store import has_repository

    is_ours = not is_remote(folder.cube_uri) and local_path(folder.cube_uri).resolve().is_relative_to(folder.path.resolve())
    uris = [uri for uri in cubes_of(run, folder) if has_repository(uri)]
    if uris and not is_ours and not with_cube:
        found.notes.append(
            f"the cube at {folder.cube_uri} is not in the run's folder, and others may use it: it stays as it is. With --cube it "
            f"is cleaned too; versions that runs in {folder.path.parent} name stay, those that others name do not"
        )
        return
    named = named_versions(folder.path.parent) if uris else set()
    for uri in uris:
        removal = remove_versions(uri, named, before, is_rehearsal=not is_removing)
        if removal.files:
            found.unneeded.append(Unneeded(CUBE, uri, removal.files, removal.bytes))
            found.notes.append(f"{uri}: {counted(removal.versions, 'version')}, with what is in no other")
        if removal.named:
            found.notes.append(f"{uri}: {counted(removal.named, 'older version')} kept, since records name them")


def cubes_of(run: AnyRun, folder: RunFolder) -> list[str]:
    if not has_sites(run):
        return [folder.cube_uri]
    return [folder.cube_of(name) for name in (finished(folder, "ingest") or {}).get("sites", {})]


def named_versions(runs: Path) -> set[str]:
    """Whatever looks like the id of a version in the records of all runs below a folder: stages, model, products, archive."""
    return {match.decode() for path in _records(runs) for match in VERSION_ID.findall(path.read_bytes())}


def _records(runs: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(runs):
        left_out = set[str]() if Path(place) == runs else WITHOUT_RECORDS  # a run may have such a name
        folders[:] = [name for name in folders if name not in left_out and not name.startswith(".")]
        yield from (Path(place) / name for name in names if name.endswith(".json"))


# ---------------------------------------------------------------- files that are made again when they are needed


def clean_files(folder: RunFolder, staging: str, before: datetime, found: Found, *, is_removing: bool) -> None:
    """Staged tiles, samples, trials of a choice and drafts."""
    run, known = FolderFiles(folder.path), _snapshots(folder)
    for kind, files, top, stage in (
        (STAGED, files_at(staging), "", last_stage(folder)),
        (SAMPLES, run, folder.samples.name, "train"),
        (TRIALS, run, folder.trials.name, "choose"),
    ):
        done = _written(folder, stage)
        for name, listed in _entries(files, top):
            newest = max(one.written_utc for one in listed)
            is_over = newest < before or (done is not None and newest < done)
            if kind == SAMPLES and (snapshot := _cut_from(folder, name)) is not None:
                is_over = snapshot not in known
            elif kind == SAMPLES and name.endswith(".npy"):  # of the last ingest
                is_over = newest < before
            if (is_over and not name.endswith(LOCK)) or name.endswith(REMOVED):
                found.unneeded.append(Unneeded(kind, f"{files.uri}/{name}", len(listed), sum(one.size for one in listed)))
                if is_removing:
                    remove(files, name)
    for path in drafts(folder):
        sizes = [one.stat().st_size for one in (path, *path.rglob("*")) if one.is_file()]
        found.unneeded.append(Unneeded(DRAFTS, str(path), len(sizes), sum(sizes)))
        if is_removing:
            remove(run, path.relative_to(folder.path).as_posix())


def staging_of(run: AnyRun, folder: RunFolder) -> str:
    return folder.place_of("staging", getattr(getattr(run, "prediction", None), "staging", None))


def last_stage(folder: RunFolder) -> str:
    return task_of(folder.task).stages[-1] if folder.task in TASKS else "predict"


def _written(folder: RunFolder, stage: str) -> datetime | None:
    """When the record of a finished stage was written; a stage that is stopped in its last step has no key."""
    record = finished(folder, stage)
    return datetime.fromtimestamp(folder.done(stage).stat().st_mtime, UTC) if record and record.get("key") else None


def _entries(files: StoredFiles, top: str) -> list[tuple[str, list[Listed]]]:
    """The files and folders directly below `top`, each with all of its files."""
    depth = len(top.split("/")) if top else 0
    listed = files.listing(top)
    return [(name, list(group)) for name, group in groupby(listed, lambda one: "/".join(one.name.split("/")[: depth + 1]))]


def _snapshots(folder: RunFolder) -> Collection[object]:
    """The versions of the cube from which samples may be opened again."""
    records = [finished(folder, stage) or {} for stage in ("ingest", "train", "evaluate")]
    sites = records[0].get("sites", {}).values()
    return [one.get("snapshot") for one in (*records, *sites)]


def _cut_from(folder: RunFolder, name: str) -> str | None:
    """The version that a folder of samples was made from, None for what does not say."""
    place = folder.path / name
    about = readable(place / "cache.json") or readable(place / "site.json").get("about") or {}
    return str(about["snapshot"]) if "snapshot" in about else None


def remove(files: StoredFiles, name: str) -> None:
    """A file or a folder; on a disk a folder is not there any more before its first file is removed."""
    path = files.folder / name if isinstance(files, FolderFiles) else None
    if path is None:
        files.remove(name)
    elif path.is_dir():
        going = path.with_name(f".{path.name.removeprefix('.').removesuffix(REMOVED)}{REMOVED}")
        if going != path:
            shutil.rmtree(going, ignore_errors=True)
            path.rename(going)
        shutil.rmtree(going)
    else:
        path.unlink(missing_ok=True)
