"""`driftline backup` and `driftline restore`: a run and its cube, as they were at one moment (docs/design/031-housekeeping.md).

Of a cube the refs are read first: they fix its version, and everything that they lead to is there already and does not change.
So a copy is whole that is taken while the cube is written. When it is restored they are written last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from configs.sites import has_sites
from configs.tasks import AnyRun
from flows import Json
from flows.folder import RunFolder, code_version, exclusive_published
from flows.housekeeping import cubes_of
from flows.limits import load_run_within_limits
from flows.steps import Display
from pipelines.backup import Copying, list_backups, read_backup, restore
from pipelines.cube.checksums import FOLDERS, ID, NAME, sums_in
from pipelines.cube.store import has_repository, local_path
from pipelines.errors import ArtefactDamaged, MissingInput, RequestError
from pipelines.files import sync
from pipelines.progress import Progress
from pipelines.stored_files import FolderFiles, Listed, StoredFiles, files_at, is_remote
from pipelines.wording import counted

LEFT_OUT = {"staging", "samples", "choice", "slices", "error.log"}  # made again when they are needed
STATE = "state"  # folder in the run's
STAMP = "%Y%m%dT%H%M%SZ"


# ---------------------------------------------------------------- backup


def back_up(config: str, overrides: Sequence[str], uri: str, display: Display) -> Json:
    """Copies a run and its cube to a folder or bucket. The run's folder is held while its own files are copied, not the cube's.

    Of a run in S3 the published version is copied. Raises RequestError, MissingInput (no such run), RunBusy, ArtefactDamaged (the
    cube), StateError (files removed meanwhile, the run in S3).
    """
    run = load_run_within_limits(config, overrides, inputs_must_exist=False)
    folder, target = RunFolder.of(run), files_at(uri)
    if not is_remote(uri) and Path(target.uri).resolve().is_relative_to(folder.path.resolve()):
        raise RequestError(f"{uri} is in the run's own folder: name a place outside, on another disk or in a bucket")
    earlier = [stamp for name, stamp in list_backups(target) if name == run.name]
    before = read_backup(target, run.name, earlier[-1]).files if earlier else {}
    copying, state = Copying(target, before), state_elsewhere(run, folder)
    with exclusive_published(folder) as notes:
        cubes = places_of_cubes(run, folder)
        with display.step("backup", "copy the run's files") as progress:
            copying.add_all(FolderFiles(folder.path), files_of_run(run, folder, cubes), progress=progress)
        if state:
            with display.step("backup", f"copy the state of monitoring at {state}") as progress:
                copy_state(copying, files_at(state), progress)
        firsts = {place: read_refs(files_at(at)) for place, at in cubes.items()}
        made = datetime.now(UTC).strftime(STAMP)
    if made in earlier:
        raise RequestError(f"{uri} has a backup of {run.name} of {made} already; wait a second")
    for place, at in cubes.items():
        with display.step("backup", f"copy the cube at {at}") as progress:
            copy_cube(copying, place, files_at(at), firsts[place], progress)
    elsewhere = {"runs": run.runs if folder.stored else "", "state": state}
    backup = copying.close(run.name, made, {"task": run.task, "driftline": code_version(), "cubes": cubes, **elsewhere})
    message = f"backup of {run.name} of {made}: {counted(len(backup.files), 'file')}, {backup.bytes / 1e6:.1f} MB"
    message += f", {copying.written / 1e6:.1f} MB of them new in {uri}{f', with the state at {state}' if state else ''}"
    return {"run": run.name, "backup": made, "target": uri, "files": len(backup.files), "bytes": backup.bytes,
            "new_bytes": copying.written, "notes": notes, "message": message}  # fmt: skip


def state_elsewhere(run: AnyRun, folder: RunFolder) -> str:
    """Where the state of monitoring is, if it is not among the run's own files; "" for other tasks."""
    monitoring = getattr(run, "monitoring", None)
    if monitoring is None:
        return ""
    state = folder.place_of(STATE, monitoring.state)
    is_inside = not is_remote(state) and local_path(state).resolve().is_relative_to(folder.path.resolve())
    return "" if is_inside else state


def copy_state(copying: Copying, files: StoredFiles, progress: Progress) -> None:
    """A state, to where a run on a disk has it. Headers come before the files that they name, which a slice at work may replace;
    the record, by which the state is known, is read last."""
    from pipelines.monitoring.context import RECORD
    from pipelines.monitoring.state import HEADER

    turns = {HEADER: 0, RECORD: 2}
    for turn in range(3):
        listed = [one for one in files.listing("") if turns.get(one.name.rpartition("/")[2], 1) == turn]
        copying.add_all(files, [one for one in listed if not is_of_moment(one.name)], f"{STATE}/", progress)


def places_of_cubes(run: AnyRun, folder: RunFolder) -> dict[str, str]:
    """Where a cube lies in the run's folder (`cube`, if it lies elsewhere) -> its URI; those that are there."""
    places = {}
    for uri in cubes_of(run, folder):
        path = None if is_remote(uri) else local_path(uri)
        if path is not None and path.is_relative_to(folder.path.absolute()):
            place = path.relative_to(folder.path.absolute()).as_posix()
        else:
            place = f"cubes/{uri.rstrip('/').rpartition('/')[2]}" if has_sites(run) else "cube"
        if has_repository(uri):
            places[place] = uri
    return places


def files_of_run(run: AnyRun, folder: RunFolder, cubes: Iterable[str]) -> list[Listed]:
    """All files but cubes, locks, drafts, what is made again, and the key that leads back to patients."""
    below, privacy = tuple(f"{place}/" for place in cubes), getattr(run, "privacy", None)
    key = Path(privacy.key_file).resolve() if privacy is not None and privacy.key_file else None
    names = [entry.name for entry in sorted(folder.path.iterdir()) if entry.name not in LEFT_OUT]
    found = list[Listed]()
    for name in names:
        if f"{name}/".startswith(below):
            continue
        listed = FolderFiles(folder.path).listing(name) if (folder.path / name).is_dir() else [listed_file(folder.path, name)]
        found += [one for one in listed if not one.name.startswith(below) and not is_of_moment(one.name)]
    return [one for one in found if key is None or (folder.path / one.name).resolve() != key]


def listed_file(folder: Path, name: str) -> Listed:
    about = (folder / name).stat()
    return Listed(name, about.st_size, datetime.fromtimestamp(about.st_mtime, UTC))


def is_of_moment(name: str) -> bool:
    """Drafts and locks."""
    return any(part.startswith(".") for part in name.split("/")) or name.endswith((".lock", ".writer.json", "/lock"))


def read_refs(files: StoredFiles) -> dict[str, bytes]:
    """The files of a cube that are written in place: refs, the list of checksums, settings. Of a moment when it was whole."""
    names = [name for name in files.names("refs") if name.rpartition("/")[2].startswith("ref.json")]
    found = {name: files.read(name) for name in names if not is_of_moment(name)}
    for name in (NAME, "config.yaml"):
        try:
            found[name] = files.read(name)
        except FileNotFoundError:
            continue
    return found


def copy_cube(copying: Copying, place: str, files: StoredFiles, first: dict[str, bytes], progress: Progress) -> None:
    """Everything that the refs in `first` lead to, and what was written since. Raises ArtefactDamaged."""
    listed = [one for name in (*FOLDERS, "chunks") for one in files.listing(name) if ID.fullmatch(one.name.rpartition("/")[2])]
    snapshots = [one for one in listed if one.name.startswith("snapshots/")]  # gc writes some of them again
    copying.add_all(files, snapshots, f"{place}/")
    unchanging = [one for one in listed if not one.name.startswith("snapshots/")]
    copying.add_all(files, unchanging, f"{place}/", progress, is_immutable=True)
    wanted = sums_in(first.get(NAME, b"")) or {}
    heads = [json.loads(text).get("snapshot") for name, text in first.items() if name.endswith("/ref.json")]
    copied = {one.name: copying.files[f"{place}/{one.name}"][1] for one in listed}
    missing = [name for name in (*wanted, *(f"snapshots/{head}" for head in heads)) if name not in copied]
    altered = [name for name, digest in wanted.items() if name in copied and copied[name] != digest]
    if missing or altered:
        what = f"{missing[0]} is missing" if missing else f"{altered[0]} is not as it was written"
        raise ArtefactDamaged(
            f"the cube at {files.uri}: {what}, so this would be no backup. Was `driftline gc` at work? Then run this again; else "
            f"`driftline check {files.uri}` says what is damaged"
        )
    for name, content in first.items():
        copying.add(f"{place}/{name}", content)


# ---------------------------------------------------------------- restore


def bring_back(
    uri: str, runs: Path, display: Display, *, run: str | None = None, at: str | None = None, cube: str | None = None
) -> Json:
    """Writes the newest backup, or that of a time, of a run to `runs`/NAME, its cube with it or to the URI `cube`.

    What was interrupted goes on. Raises RequestError (something is there, several runs), MissingInput, ArtefactDamaged.
    """
    source = files_at(uri)
    name, stamp = choose(source, run, at)
    backup, final = read_backup(source, name, stamp), runs / name
    if final.exists():
        raise RequestError(f"{final} is there and is not overwritten: name another folder for runs, or move it away")
    places: dict[str, str] = dict(backup.about["cubes"])
    entries, written = dict(backup.files), 0
    if cube is not None:
        if len(places) != 1:
            raise RequestError(f"--cube: the run {name} has {counted(len(places), 'cube')}; they are restored into its folder")
        below = f"{next(iter(places))}/"
        of_cube = {one.removeprefix(below): entry for one, entry in entries.items() if one.startswith(below)}
        entries = {one: entry for one, entry in entries.items() if not one.startswith(below)}
        require_empty(files_at(cube), of_cube)
        with display.step("restore", f"write the cube to {cube}") as progress:
            written += restore(source, of_cube, files_at(cube), progress)
    draft = runs / f".{name}.{stamp}.restoring"
    with display.step("restore", f"write the run to {final}") as progress:
        draft.mkdir(parents=True, exist_ok=True)
        written += restore(source, entries, FolderFiles(draft), progress)
    draft.rename(final)
    sync(runs)
    where = {place: cube or str(final / place) for place in places}
    moved = [place for place, was in places.items() if is_moved(was, where[place])]
    notes = [f"the cube was at {places[place]}: set cube.uri to {where[place]}" for place in moved]
    if stored := backup.about.get("runs"):  # earlier backups do not name it
        notes.append(f"the run was in {stored}, and its config says so: set runs to {runs}")
    if state := backup.about.get("state"):
        remedy = "" if stored and state == f"{stored}/{name}/{STATE}" else "; take monitoring.state out of the config"
        notes.append(f"the state of monitoring was at {state}, and is now in {final / STATE}{remedy}")
    message = f"{name} as it was {backup.made_utc}: {counted(len(backup.files), 'file')}, {backup.bytes / 1e6:.1f} MB, in {final}"
    return {"run": name, "backup": stamp, "folder": str(final), "cubes": where, "files": len(backup.files),
            "bytes": backup.bytes, "written_bytes": written, "notes": notes, "message": message}  # fmt: skip


def require_empty(into: StoredFiles, entries: Mapping[str, tuple[int, str]]) -> None:
    """Raises RequestError unless the place is empty, or holds what an interrupted restore of this backup has written."""
    found = into.names("")
    refs = [name for name in found if name.startswith("refs/")]
    others = set(found) - entries.keys()
    others |= {name for name in refs if name in entries and hashlib.sha256(into.read(name)).hexdigest() != entries[name][1]}
    if others:
        raise RequestError(f"{into.uri} holds other files ({min(others)}) and is not overwritten: name an empty place")


def is_moved(was: str, now: str) -> bool:
    """Whether the config must name another place; one in the run's folder goes by itself."""
    return is_remote(was) or is_remote(now) or Path(was).parts[-2:] != Path(now).parts[-2:]


def choose(source: StoredFiles, run: str | None, at: str | None) -> tuple[str, str]:
    """(run, time) of the backup that is meant. Raises MissingInput, RequestError."""
    found = [(name, stamp) for name, stamp in list_backups(source) if run in (None, name)]
    names = sorted({name for name, _ in found})
    if not found:
        raise MissingInput(f"{source.uri} holds no complete backup{f' of {run}' if run else ''}")
    if len(names) > 1:
        raise RequestError(f"{source.uri} holds backups of {', '.join(names)}: choose one with --run")
    times = [stamp for _, stamp in found]
    if at is not None and at not in times:
        raise RequestError(f"--at {at}: the backups of {names[0]} are {', '.join(times[-10:])}")
    return names[0], at or times[-1]
