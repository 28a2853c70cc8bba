"""`driftline gc`: what of a run nobody needs any more, and its removal (docs/design/031-housekeeping.md).

Everything here is made again when it is asked for, but versions of the cube: of those stays whatever a record names.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

from configs.sites import has_sites
from configs.tasks import AnyRun
from flows import Json
from flows.folder import RunFolder, drafts, exclusive_published, finished, readable
from flows.limits import load_run_within_limits
from flows.tasks import TASKS, task_of
from pipelines.cube.store import local_path
from pipelines.errors import RequestError
from pipelines.inference.regions import EARLIER_LEDGER, JOB, SUFFIX
from pipelines.stored_files import FolderFiles, Listed, StoredFiles, files_at, is_remote
from pipelines.stored_runs import VERSIONS, published, superseded
from pipelines.stored_runs import remove as remove_objects
from pipelines.wording import counted

VERSION_ID = re.compile(rb"\b[0-9A-Z]{20}\b")
WITHOUT_RECORDS = {"cube", "cubes", "samples", "staging", "fields.zarr"}  # folders below a run that need not be searched
CUBE, STAGED, SAMPLES, TRIALS, DRAFTS = "versions of the cube", "staged tiles", "samples", "trials of a choice", "drafts"
SUPERSEDED, KEPT_VERSIONS, ASIDE = "versions of the run", 2, "set aside"
LISTED = (SUPERSEDED, ASIDE)  # kinds of which a person sees each one
SEARCHED, TRIED = "trials of a search", "sweep/trials"  # folders that `flows.sweep` removes at the end of a trial
LOCK, REMOVED, SCENES = "lock", ".removed", "scenes"
NAMES_OF_STAGED = {"rival", "maps", "map", "scores", "labels", "boxes"}  # beside jobs, `SCENES` and a site's own
JOB_NAME = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Unneeded:
    """What nobody needs: a file, the files of a folder, or some files of a cube or a version. age_days: of the youngest."""

    kind: str
    name: str
    files: int
    bytes: int
    age_days: float | None = None


@dataclass
class Found:
    """What gc found, and what it says of it."""

    unneeded: list[Unneeded] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def clean(
    config: str | Mapping[str, object], overrides: Sequence[str], *, keep_days: float, is_removing: bool, with_cube: bool = False
) -> Json:
    """What was found, and removed if `is_removing`. Holds the run's folder.

    Raises RequestError, MissingInput (no such run), RunBusy, CubeBusy, ArtefactDamaged, StateError (the run in S3).
    """
    if not 0 <= keep_days < 36500:
        raise RequestError(f"--keep-days {keep_days:g}: expected days, 0 or more")
    run = load_run_within_limits(config, overrides, inputs_must_exist=False)
    folder = RunFolder.of(run)
    before = datetime.now(UTC) - timedelta(days=keep_days)
    with exclusive_published(folder) as notes:  # records that are not the newest would not name what must stay
        found = Found(notes=notes)
        clean_cubes(run, folder, before, found, is_removing=is_removing, with_cube=with_cube)
        clean_files(run, folder, before, found, is_removing=is_removing)
        clean_stored(folder, keep_days, found, is_removing=is_removing)
        clean_set_aside(folder, before, found, is_removing=is_removing)
    files, size = sum(one.files for one in found.unneeded), sum(one.bytes for one in found.unneeded)
    return {
        "run": folder.stored or str(folder.path), "removed": is_removing, "keep_days": keep_days, "files": files, "bytes": size,
        "found": [vars(one) for one in found.unneeded], "notes": found.notes,
    }  # fmt: skip


# ---------------------------------------------------------------- cubes


def clean_cubes(
    run: AnyRun, folder: RunFolder, before: datetime, found: Found, *, is_removing: bool, with_cube: bool
) -> None:  # fmt: skip
    from pipelines.cube.housekeeping import remove_versions
    from pipelines.cube.store import has_repository

    uris = [uri for uri in cubes_of(run, folder) if has_repository(uri)]
    runs = folder.stored.rpartition("/")[0] or str(folder.path.parent)
    if uris and not is_own(folder) and not with_cube:
        found.notes.append(
            f"the cube at {folder.cube_uri} is not in the run's folder, and others may use it: it stays as it is. With --cube it "
            f"is cleaned too; versions that runs in {runs} name stay, those that others name do not"
        )
        return
    named = named_versions(folder) if uris else set()
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


def is_own(folder: RunFolder) -> bool:
    """Whether the cube lies in the run's folder."""
    if is_remote(folder.cube_uri):
        return bool(folder.stored) and folder.cube_uri.startswith(f"{folder.stored}/")
    return local_path(folder.cube_uri).resolve().is_relative_to(folder.path.resolve())


def named_versions(folder: RunFolder) -> set[str]:
    """Whatever looks like the id of a version in the records of all runs beside this one: stages, model, products, archive.

    Of runs in S3 those of the published version of each, and of the copies on this machine.
    """
    found = {match for path in _records(folder.path.parent) for match in VERSION_ID.findall(path.read_bytes())}
    if folder.stored:
        for content in published(folder.stored.rpartition("/")[0], _is_record):
            found.update(VERSION_ID.findall(content))
    return {one.decode() for one in found}


def _is_record(name: str) -> bool:
    return name.endswith(".json") and WITHOUT_RECORDS.isdisjoint(name.split("/"))


def _records(runs: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(runs):
        left_out = set[str]() if Path(place) == runs else WITHOUT_RECORDS  # a run may have such a name
        folders[:] = [name for name in folders if name not in left_out and not name.startswith(".")]
        yield from (Path(place) / name for name in names if name.endswith(".json"))


# ---------------------------------------------------------------- files that are made again when they are needed


def clean_files(run: AnyRun, folder: RunFolder, before: datetime, found: Found, *, is_removing: bool) -> None:
    """Staged tiles and scenes, samples, trials and drafts; of a run in S3 those of the working copy on this machine."""
    here, known = FolderFiles(folder.path), _snapshots(folder)
    staged = [
        (STAGED, last_stage(folder), files, entry)
        for files in places_of_staging(run, folder)
        for entry in _staged(run, folder, files)
    ]
    samples = [(SAMPLES, "train", here, entry) for entry in _entries(here, folder.samples.name)]
    trials = [(TRIALS, "choose", here, entry) for entry in _entries(here, folder.trials.name)]
    for kind, stage, files, (name, listed) in (*staged, *samples, *trials):
        done, newest = _written(folder, stage), max(one.written_utc for one in listed)
        is_over = newest < before or (done is not None and newest < done)
        if kind == SAMPLES and (snapshot := _cut_from(folder, name)) is not None:
            is_over = snapshot not in known
        elif name.startswith(f"{SCENES}/") or (kind == SAMPLES and name.endswith(".npy")):  # of an ingest
            is_over = newest < before
        if (is_over and not name.endswith(LOCK)) or name.endswith(REMOVED):
            found.unneeded.append(listed_as(kind, f"{files.uri}/{name}", listed))
            if is_removing:
                remove(files, name)
    for path in drafts(folder):
        sizes = [one.stat().st_size for one in (path, *path.rglob("*")) if one.is_file()]
        found.unneeded.append(Unneeded(DRAFTS, str(path), len(sizes), sum(sizes)))
        if is_removing:
            remove(here, path.relative_to(folder.path).as_posix())
    for name, listed in _entries(here, TRIED):  # of a killed search: one that is at work holds the run's folder
        found.unneeded.append(listed_as(SEARCHED, f"{here.uri}/{name}", listed))
        if is_removing:
            remove(here, name)


def clean_stored(folder: RunFolder, keep_days: float, found: Found, *, is_removing: bool) -> None:
    """Of a run in S3: objects that only earlier versions need, and those of uploads that were stopped, version by version."""
    if not folder.stored:
        return
    days, now, young = max(keep_days, 1), datetime.now(UTC), list[Listed]()
    objects = superseded(folder.stored, KEPT_VERSIONS, timedelta())
    for version, group in groupby(sorted(objects, key=lambda one: one.name), lambda one: one.name.split("/")[1]):
        listed, made = list(group), datetime.strptime(version[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        if now - made < timedelta(days=days):
            young += listed
            continue
        place = f"{folder.stored}/{VERSIONS}/{version}"
        found.unneeded.append(listed_as(SUPERSEDED, place, listed, made))
        if is_removing:
            remove_objects(folder.stored, [one.name for one in listed])
    if young:
        size = f"{counted(len(young), 'file')}, {sum(one.size for one in young) / 1e6:.1f} MB"
        found.notes.append(f"{size} of earlier versions of the run stay: they are younger than {days:g} days")


def clean_set_aside(folder: RunFolder, before: datetime, found: Found, *, is_removing: bool) -> None:
    """What commands on this machine had made of a run in S3 when another one was published, and nobody has fetched since."""
    beside = FolderFiles(folder.path.parent)
    for path in folder.copy.set_aside() if folder.copy is not None else ():
        made = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        one = listed_as(ASIDE, str(path), beside.listing(path.name), made)
        if made < before or path.name.endswith(REMOVED):
            found.unneeded.append(one)
            if is_removing:
                remove(beside, path.name)
        else:
            about = f"{counted(one.files, 'file')}, {one.bytes / 1e6:.1f} MB, {one.age_days:.1f} days old"
            found.notes.append(f"{path}, set aside after a conflict, stays: {about}")


def listed_as(kind: str, name: str, listed: Sequence[Listed], made: datetime | None = None) -> Unneeded:
    """made: when all of it was made; default: when its youngest file was written."""
    age = datetime.now(UTC) - (made or max(one.written_utc for one in listed))
    return Unneeded(kind, name, len(listed), sum(one.size for one in listed), round(age / timedelta(days=1), 2))


def places_of_staging(run: AnyRun, folder: RunFolder) -> list[StoredFiles]:
    """Where tiles and scenes are staged, each place once; what is not for other machines is in the run's folder on this one."""
    asked = (getattr(getattr(run, section, None), "staging", None) for section in ("prediction", "cube"))
    uris = [*(folder.place_of(folder.staging.name, one) for one in asked), str(folder.staging)]
    return list(dict.fromkeys(map(files_at, uris)))


def _staged(run: AnyRun, folder: RunFolder, files: StoredFiles) -> Iterator[tuple[str, list[Listed]]]:
    """What is known as staged, by name and by content: other files there are none of ours."""
    names = set(NAMES_OF_STAGED)
    if files == files_at(str(folder.staging)):
        names |= {run.name, *(finished(folder, "ingest") or {}).get("sites", {})}
    for name, listed in _entries(files, ""):
        ends = {one.name.removeprefix(f"{name}/") for one in listed}
        is_job = JOB_NAME.fullmatch(name) and any(end in (JOB, EARLIER_LEDGER) or end.endswith(SUFFIX) for end in ends)
        is_going = name.startswith(".") and name.endswith(REMOVED)
        if name == SCENES:
            yield from _entries(files, SCENES)
        elif (name in names and ends != {name}) or is_job or is_going:
            yield name, listed


def last_stage(folder: RunFolder) -> str:
    return task_of(folder.task).stages[-1] if folder.task in TASKS else "predict"


def _written(folder: RunFolder, stage: str) -> datetime | None:
    """When a stage was finished, None where that is not known; a stage that is stopped in its last step has no key."""
    record = finished(folder, stage)
    if not record or not record.get("key"):
        return None
    if "at_utc" in record:
        return datetime.fromisoformat(record["at_utc"])
    # of an earlier version; a file in a working copy has the time when it was fetched
    return None if folder.stored else datetime.fromtimestamp(folder.done(stage).stat().st_mtime, UTC)


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
    if not place.is_dir():  # frames of samples
        return None
    about = readable(place / "cache.json") or readable(place / "site.json").get("about") or {}
    return str(about["snapshot"]) if "snapshot" in about else None


def remove(files: StoredFiles, name: str) -> None:
    """A file or a folder; on a disk a folder is not there any more before its first file is removed. In a bucket a job's first
    file, by which it is known, goes last."""
    path = files.folder / name if isinstance(files, FolderFiles) else None
    if path is None:
        for one in reversed(files.names(name)):
            files.discard(one)
    elif path.is_dir():
        going = path.with_name(f".{path.name.removeprefix('.').removesuffix(REMOVED)}{REMOVED}")
        if going != path:
            shutil.rmtree(going, ignore_errors=True)
            path.rename(going)
        shutil.rmtree(going)
    else:
        path.unlink(missing_ok=True)
