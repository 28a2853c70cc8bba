"""Which scenes an ingest must read: a pure comparison of what the source lists with what stands in the cube."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import SceneRefused
from pipelines.scene import Scene


@dataclass(frozen=True)
class Step:
    """What the cube knows of one date besides its pixels."""

    time: np.datetime64
    scene_id: str
    content_hash: str
    fingerprint: str
    source: str
    ingested_utc: np.datetime64
    valid_fraction: float


@dataclass(frozen=True)
class KnownRefusal:
    """A scene that was refused before; it is not read again as long as its fingerprint stays."""

    scene_id: str
    reason: str
    detail: str
    fingerprint: str


@dataclass(frozen=True)
class Work:
    """One scene to be read. `replaces` is the index of the date it takes the place of; None: a new date."""

    scene: Scene
    fingerprint: str
    replaces: int | None = None
    previous_hash: str = ""


@dataclass(frozen=True)
class Plan:
    """`works` in order of date; the ids that need no look; what is refused without a look."""

    works: tuple[Work, ...] = ()
    unchanged: tuple[str, ...] = ()
    refused: tuple[SceneRefused, ...] = field(default=())


def plan_ingest(
    scenes: list[Scene], fingerprints: dict[str, str], steps: tuple[Step, ...], known_refusals: tuple[KnownRefusal, ...] = ()
) -> Plan:
    """What to do with each scene, by its id and date.

    The same id stands in the cube: its fingerprint decides whether it is read again; then its content does. Another id
    has the date: refused, whichever came first stays. An empty fingerprint never matches.
    """
    by_id = {step.scene_id: index for index, step in enumerate(steps)}
    by_time = {step.time: index for index, step in enumerate(steps)}
    refused_before = {(r.scene_id, r.fingerprint): r for r in known_refusals if r.fingerprint}
    works, unchanged, refused = [], [], []
    for scene in sorted(scenes, key=lambda scene: (scene.observed_utc, scene.id)):
        fingerprint = fingerprints.get(scene.id, "")
        known = refused_before.get((scene.id, fingerprint))
        standing, rival = by_id.get(scene.id), by_time.get(scene.observed_utc)
        if rival is not None and rival != standing:
            refused.append(_duplicate_date(scene, steps[rival]))
        elif known is not None:
            refused.append(SceneRefused(known.scene_id, known.reason, known.detail))
        elif standing is None:
            works.append(Work(scene, fingerprint))
        elif fingerprint and fingerprint == steps[standing].fingerprint and rival == standing:
            unchanged.append(scene.id)
        else:
            # where only the date was corrected, the pixels move too: no hash that would call it unchanged
            previous_hash = steps[standing].content_hash if rival == standing else ""
            works.append(Work(scene, fingerprint, standing, previous_hash))
    return Plan(tuple(works), tuple(unchanged), tuple(refused))


def refuse_duplicates(scenes: list[Scene]) -> tuple[list[Scene], list[SceneRefused]]:
    """A listing has one scene per date and one date per id; of several, the first id (in order) is kept."""
    kept: list[Scene] = []
    refused: list[SceneRefused] = []
    by_time: dict[Any, str] = {}
    ids: set[str] = set()
    for scene in sorted(scenes, key=lambda scene: (scene.observed_utc, scene.id)):
        if scene.id in ids:
            refused.append(
                SceneRefused(
                    scene.id, "duplicate-date", f"two scenes are called {scene.id}; the one of the earlier date was taken"
                )
            )
        elif scene.observed_utc in by_time:
            refused.append(
                SceneRefused(
                    scene.id,
                    "duplicate-date",
                    f"observed at {scene.observed_utc}, as is {by_time[scene.observed_utc]}, which was taken; "
                    "if they are neighbours, set cube.same_date: mosaic; if one is obsolete, remove it",
                )
            )
        else:
            kept.append(scene)
            ids.add(scene.id)
            by_time[scene.observed_utc] = scene.id
    return kept, refused


def _duplicate_date(scene: Scene, standing: Step) -> SceneRefused:
    return SceneRefused(
        scene.id,
        "duplicate-date",
        f"observed at {scene.observed_utc}, where the cube holds {standing.scene_id} already; "
        "if they are neighbours, ingest both into a new cube with cube.same_date: mosaic; if one is obsolete, remove it",
    )


# ---------------------------------------------------------------- fingerprints


def fingerprint_scene(scene: Scene, context: str) -> str:
    """A cheap stand-in for the content: SHA-256 over name, size and mtime of every file, and `context`.

    `context` says how the files are read (source, quality rule, settings). Empty where a file cannot be asked (remote,
    made up) or `context` does not repeat between processes: then the scene is read and its content decides.
    """
    if re.search(r" at 0x[0-9a-f]+", context):
        return ""
    digest = hashlib.sha256(context.encode())
    for part in scene.parts or (scene,):
        for name, asset in sorted(part.assets.items()):
            stamp = _stamp(asset.path)
            if not stamp:
                return ""
            digest.update(f"|{part.id}|{part.observed_utc}|{name}|{asset.variable}|{asset.index}|{stamp}".encode())
    return digest.hexdigest()[:32]


def _stamp(path: str) -> str:
    try:
        status = Path(path).stat()
    except OSError:
        return ""
    return f"{Path(path).name}|{status.st_size}|{status.st_mtime_ns}"


def fingerprint_scenes(scenes: list[Scene], context: str) -> dict[str, str]:
    """`fingerprint_scene` of each, by id; a file that holds many scenes is asked once."""
    return {scene.id: fingerprint_scene(scene, context) for scene in scenes}
