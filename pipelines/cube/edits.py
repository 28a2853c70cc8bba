"""Versions of a cube that no ingest makes: scenes taken out for good, dates marked as damaged."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace

import icechunk
import numpy as np
import zarr

from pipelines.cube import store
from pipelines.cube.checksums import write_sums
from pipelines.cube.integrity import storage_errors
from pipelines.cube.plan import Step
from pipelines.cube.steps import read_dropped, read_steps, resize_time, sort_dates, verify, write_dropped, write_steps
from pipelines.errors import CubeBusy, MissingInput, RequestError, StateError
from pipelines.stored_files import files_at


def drop_scene(uri: str, wanted: str) -> Step:
    """The date that was taken out of the cube, in a new version; later ingests refuse its scene (`undo_drop`).

    wanted: id of a scene, or a date (ISO 8601) that only one has. Raises MissingInput, CubeBusy, RequestError, StateError.
    """
    store.open_cube(uri, accept_damaged=True)
    with store.exclusive_writer(uri), _new_version(uri) as (session, root):
        steps = read_steps(root)
        step = find_scene(uri, steps, wanted)
        if len(steps) == 1:
            raise StateError(f"{step.scene_id} is the only scene of {uri}: remove the cube instead")
        sort_dates(root, [n for n, other in enumerate(steps) if other != step])
        write_steps(root, [other for other in steps if other != step])
        write_dropped(root, [*read_dropped(root), step.scene_id])
        _commit(session, root, f"drop: {step.scene_id} taken out", dropped=[step.scene_id])
    return step


def undo_drop(uri: str, scene_id: str) -> None:
    """Takes a scene off the list of those that are kept out; the next ingest brings it back. Raises MissingInput, CubeBusy."""
    store.open_cube(uri, accept_damaged=True)
    with store.exclusive_writer(uri), _new_version(uri) as (session, root):
        dropped = read_dropped(root)
        if scene_id not in dropped:
            known = ", ".join(dropped) or "none"
            raise MissingInput(f"{scene_id} was not taken out of {uri} with `driftline drop`; these were: {known}")
        write_dropped(root, [one for one in dropped if one != scene_id])
        _commit(session, root, f"drop: {scene_id} is accepted again")


def mark_damaged(uri: str, scene_ids: Collection[str], files: Collection[str] = ()) -> str:
    """The snapshot of a new version, in which these scenes count as damaged: readers refuse it, the next ingest reads them again.

    files: chunks that are damaged, and known to be from now on. Raises CubeBusy, StorageFull, StateError.
    """
    with store.exclusive_writer(uri), _new_version(uri) as (session, root):
        write_sums(files_at(uri), [name for name in files if name.startswith("chunks/")])
        steps = [replace(s, content_hash="", fingerprint="") if s.scene_id in scene_ids else s for s in read_steps(root)]
        if list(read_steps(root)) == steps:
            return session.snapshot_id
        write_steps(root, steps)
        return _commit(session, root, f"check: {len(scene_ids)} damaged", damaged=list(scene_ids))


def find_scene(uri: str, steps: tuple[Step, ...], wanted: str) -> Step:
    """The date of a scene id, or of an ISO 8601 date. Raises MissingInput, and RequestError for a date of several scenes."""
    found = [step for step in steps if step.scene_id == wanted]
    if not found:
        found = [step for step in steps if str(np.datetime_as_string(step.time, "s")).startswith(wanted.replace(" ", "T"))]
    if not found:
        raise MissingInput(f"{uri} has no scene or date {wanted}; `driftline info {uri} --json` lists them")
    if len(found) > 1:
        shown = ", ".join(step.scene_id for step in found[:3])
        raise RequestError(f"{wanted} stands for {len(found)} scenes of {uri} ({shown}...): name one of them")
    return found[0]


@contextmanager
def _new_version(uri: str) -> Iterator[tuple[icechunk.Session, zarr.Group]]:
    """A session on the newest version, and its group."""
    try:
        with storage_errors(uri):
            session = store.open_repository(uri).writable_session(store.BRANCH)
            yield session, zarr.open_group(session.store, mode="r+")
    except icechunk.ConflictError as e:
        raise CubeBusy(f"{uri}: another writer committed first; try again when it has finished") from e


def _commit(session: icechunk.Session, root: zarr.Group, message: str, **changed: list[str]) -> str:
    resize_time(root, len(read_steps(root)))
    verify(root)
    return session.commit(message, {"driftline": store.release(), **changed})
