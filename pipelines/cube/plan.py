"""Plans an ingest: a pure comparison of the scenes of a source with those in the cube."""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.errors import SceneRefused
from pipelines.scene import Scene
from pipelines.sources.metadata_files import product_paths

COMMIT_SHARE = 1 / 8  # of the dates of a cube: the largest batch


@dataclass(frozen=True)
class Step:
    """Metadata of one date of the cube."""

    time: np.datetime64
    scene_id: str
    content_hash: str
    fingerprint: str
    source: str
    ingested_utc: np.datetime64
    valid_fraction: float


@dataclass(frozen=True)
class KnownRefusal:
    """A scene refused before; it is not read again until its fingerprint changes."""

    scene_id: str
    reason: str
    detail: str
    fingerprint: str


@dataclass(frozen=True)
class Work:
    """One scene to read. `replaces` is the index of the date that it replaces; None: a new date."""

    scene: Scene
    fingerprint: str
    replaces: int | None = None
    previous_hash: str = ""


@dataclass(frozen=True)
class Plan:
    """`works` in order of date; the ids that are unchanged; the scenes refused without reading."""

    works: tuple[Work, ...] = ()
    unchanged: tuple[str, ...] = ()
    refused: tuple[SceneRefused, ...] = ()


def plan_ingest(
    scenes: list[Scene],
    fingerprints: dict[str, str],
    steps: tuple[Step, ...],
    known_refusals: tuple[KnownRefusal, ...] = (),
    changed_utc: Mapping[str, np.datetime64] | None = None,
) -> Plan:
    """What to do with each scene, by its id and date.

    If the id is in the cube, the fingerprint decides whether the scene is read again, and the content hash whether it is
    written again. A scene replaces another id that has its date: what the source lists decides, not what came first. An empty
    fingerprint never matches, and neither does that of a scene of which a file changed (`changed_utc`, by id) after it was read:
    name, size and time of change may be those of the file before.
    """
    changed_utc = changed_utc or {}
    last_utc = max((step.ingested_utc for step in steps), default=np.datetime64(0, "ns"))
    by_id = {step.scene_id: index for index, step in enumerate(steps)}
    by_time = {step.time: index for index, step in enumerate(steps)}
    refused_before = {(r.scene_id, r.fingerprint): r for r in known_refusals if r.fingerprint}
    works, unchanged, refused = [], [], []
    for scene in sorted(scenes, key=lambda scene: (scene.observed_utc, scene.id)):
        fingerprint = fingerprints.get(scene.id, "")
        changed = changed_utc.get(scene.id, np.datetime64(0, "ns"))
        known = refused_before.get((scene.id, fingerprint)) if changed <= last_utc else None
        existing, same_date = by_id.get(scene.id), by_time.get(scene.observed_utc)
        before = steps[existing] if existing is not None and existing == same_date else None
        if known is not None:
            refused.append(SceneRefused(known.scene_id, known.reason, known.detail))
        elif before is not None and fingerprint == before.fingerprint and _is_since(before, changed):
            unchanged.append(scene.id)
        else:
            # if only the date changed, the pixels move too: an equal hash must not skip the scene
            replaces = same_date if existing is None else existing
            works.append(Work(scene, fingerprint, replaces, before.content_hash if before else ""))
    return Plan(tuple(works), tuple(unchanged), tuple(refused))


def cut_batches(total: int, dates: int, size: int, most: int, *, may_be_empty: bool) -> Iterator[slice]:
    """The works of each commit: `size` or a COMMIT_SHARE of the cube's dates, but no more than `most`.

    A commit describes all dates, so that batches of one size would cost more and more of the time. may_be_empty: one batch even
    without works, which may drop dates.
    """
    first = 0
    while first < total or may_be_empty:
        part = slice(first, first + min(most, max(size, int(COMMIT_SHARE * (dates + first)))))
        yield part
        first, may_be_empty = part.stop, False


def _is_since(step: Step, changed: np.datetime64) -> bool:
    return bool(step.fingerprint) and bool(changed <= step.ingested_utc)


def changed_at(scene: Scene) -> np.datetime64:
    """When the status of a file of the scene last changed (ctime), which no copy and no tool sets back; 0 for what is no file.

    Also of the metadata of its product, which scale, offset and missing values come from: they are in no fingerprint, so that
    those of cubes that are there still hold.
    """
    bands = [asset.path for part in scene.parts or (scene,) for asset in part.assets.values()]
    latest, beside = 0, {path for band in bands for path in product_paths(band)}
    for path in (*bands, *(f"{band}.msk" for band in bands), *beside):
        with contextlib.suppress(OSError):
            latest = max(latest, os.stat(path).st_ctime_ns)  # noqa: PTH116  # a Path takes longer than its stat
    return np.datetime64(latest, "ns")


def fingerprint_scene(scene: Scene, context: str) -> str:
    """A cheap substitute for the content hash: SHA-256 over name, size and mtime of every file, and `context`.

    `context` describes how the files are read (source, quality mask, settings). Empty if a file has no metadata (remote,
    synthetic) or `context` is not reproducible between processes: then the scene is read and its content hash decides.
    """
    if re.search(r" at 0x[0-9a-f]+", context):
        return ""
    digest = hashlib.sha256(context.encode())
    for part in scene.parts or (scene,):
        for name, asset in sorted(part.assets.items()):
            try:
                status = os.stat(asset.path)  # noqa: PTH116
            except OSError:
                return ""
            stamp = f"{os.path.basename(asset.path)}|{status.st_size}|{status.st_mtime_ns}"  # noqa: PTH119
            digest.update(f"|{part.id}|{part.observed_utc}|{name}|{asset.variable}|{asset.index}|{stamp}".encode())
    return digest.hexdigest()[:32]
