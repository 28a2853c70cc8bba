"""What an ingest has to do: the scenes of a source beside those of the cube. Nothing is written, and no pixels are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import icechunk
import numpy as np
import zarr

from pipelines.cube import store
from pipelines.cube.integrity import naming_damage
from pipelines.cube.matching import doubted, match_cube
from pipelines.cube.plan import Plan, Step, changed_at, fingerprint_scene, plan_ingest
from pipelines.cube.quarantine import require_own_folder
from pipelines.cube.steps import read_dropped, read_refusals, read_steps
from pipelines.errors import DAMAGED, MissingInput, SceneRefused, StateError
from pipelines.grid import Grid, require_lonlat
from pipelines.scene import Scene
from pipelines.sources.layered import LayeredSource
from pipelines.sources.quality import QualityMask
from pipelines.sources.reading import SceneReader
from pipelines.sources.source import Listing, Source, resolve_dates

if TYPE_CHECKING:
    from pipelines.cube.ingest import IngestSettings

RECORDED = "driftline_records"  # attribute of cubes whose scenes were all read by the record of their own files


@dataclass(frozen=True)
class Comparison:
    """`plan`: what to read; its steps are those of the cube. `refused`: by id, known without reading pixels.

    `missing`: scenes of the cube that the source no longer lists and whose date no other scene has.
    """

    reader: SceneReader
    plan: Plan
    steps: tuple[Step, ...]
    fingerprints: dict[str, str]
    changed_utc: dict[str, np.datetime64]
    refused: dict[str, SceneRefused]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preview:
    """What an ingest would do, as far as it is known without reading pixels.

    `times`: dates that the cube would have, in order; `added`, `replaced`, `unchanged`: ids of scenes; `replaced` are those
    of the cube whose files changed, or that another scene of their date replaces, and keep their place if the pixels are equal.
    `dropped`: in the cube, and refused for what their files hold. `remembered`: how many of `refused` would not be read again.
    """

    reader: SceneReader
    times: tuple[np.datetime64, ...]
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    unchanged: tuple[str, ...]
    dropped: tuple[str, ...]
    missing: tuple[str, ...]
    refused: tuple[SceneRefused, ...]
    remembered: int = 0
    notes: tuple[str, ...] = ()
    has_cube: bool = False  # before


def list_scenes(source: Source, settings: IngestSettings) -> Listing:
    """One scene per date. Raises MissingInput for a source without any, RequestError for what the policy wants used."""
    if settings.quarantine is not None:
        require_own_folder(Path(settings.quarantine), source)
    listing = source.list_scenes()
    settings.policy.require_used(listing)
    unused, notes, is_of_place = listing.unused, listing.notes, listing.is_of_place
    # most sources resolve their dates themselves; here for those that do not
    if settings.same_date == "mosaic" and not any(scene.parts for scene in listing.scenes):
        listing = resolve_dates(listing.scenes, listing.refused, "mosaic")
    listing = replace(resolve_dates(listing.scenes, listing.refused, "refuse", unused, notes), is_of_place=is_of_place)
    if not listing.scenes and not listing.refused:
        raise MissingInput("the source lists no scenes: check its path and pattern")
    return listing


def newest(repository: icechunk.Repository, uri: str) -> zarr.Group | None:
    """The cube's newest version; None before the first."""
    with naming_damage(uri):
        head = repository.readonly_session(store.BRANCH).store
        return zarr.open_group(head, mode="r") if store.has_layout(head) else None


def compare(
    source: Source, mask: QualityMask | None, uri: str, grid: Grid | None, settings: IngestSettings, listing: Listing,
    root: zarr.Group | None, *, now: np.datetime64, reads_files: bool = True,
) -> Comparison:  # fmt: skip
    """The listed scenes beside the cube `root` (None: there is none yet). reads_files: for checksums that the policy asks for.

    Raises CubeMismatch unless the source and the grid fit the cube; StateError if `on_missing: drop` would drop more than half.
    """
    reader = _reader(source, mask, uri, grid, settings, root)
    scenes, missing, refused = _scenes_wanted(uri, settings, listing, root)
    context = repr((source, mask, settings.resampling, settings.on_other_grid, settings.min_valid_fraction))
    context += settings.policy.of_scenes
    fingerprints = {scene.id: fingerprint_scene(scene, context) for scene in scenes}
    known = ((), ()) if root is None else (read_steps(root), () if settings.retry_refused else read_refusals(root))
    changed_utc = {scene.id: changed_at(scene) for scene in scenes}
    plan, notes = plan_ingest(scenes, fingerprints, *known, changed_utc), list[str]()
    if root is not None and RECORDED not in root.attrs and (again := doubted(reader.source, scenes, plan.unchanged)):
        notes.append(f"{len(again)} scenes of an earlier version are read again, by what their files say: {again[0]} ...")
        changed_utc |= dict.fromkeys(again, now)
        plan = plan_ingest(scenes, fingerprints, *known, changed_utc)
    against = settings.policy.refusals(reader.source, [work.scene for work in plan.works], reads_files=reads_files)
    refused |= {refusal.scene_id: refusal for refusal in against}
    if against:
        ids = {refusal.scene_id for refusal in against}
        plan = replace(plan, works=tuple(work for work in plan.works if work.scene.id not in ids))
    refused |= {e.scene_id: e for e in plan.refused}
    return Comparison(reader, plan, known[0], fingerprints, changed_utc, refused, missing, tuple(notes))


def preview(source: Source, mask: QualityMask | None, uri: str | None, grid: Grid | None, settings: IngestSettings) -> Preview:
    """What `ingest` would do with these arguments (uri None: a new cube); of files only headers of those to read are opened.

    Raises what `ingest` raises before it reads pixels: also StateError if no scene would be left, or `policy.max_refused`
    would be exceeded.
    """
    listing = list_scenes(source, settings)
    root = newest(store.open_repository(uri), uri) if uri and store.has_repository(uri) else None
    found = compare(source, mask, uri or "", grid, settings, listing, root, now=np.datetime64("now", "ns"), reads_files=False)
    refused, notes = dict(found.refused), [*listing.remarks(), *found.notes]
    works = [work.scene for work in found.plan.works]
    if isinstance(found.reader.source, LayeredSource):
        lines, of_files = found.reader.source.remarks(works, found.reader.grid if settings.on_other_grid == "refuse" else None)
        notes += lines
        refused |= {refusal.scene_id: refusal for refusal in of_files}
    accepted = [work for work in found.plan.works if work.scene.id not in refused]
    replaced = [work.scene.id for work in accepted if work.replaces is not None]
    kept = {*(work.scene.id for work in accepted), *found.plan.unchanged}
    gone = set(found.missing) if settings.on_missing == "drop" else set()
    reasons = {e.scene_id: e.reason for e in (*listing.refused, *refused.values())}
    dropped = [s.scene_id for s in found.steps if s.scene_id not in kept and reasons.get(s.scene_id, "unreadable") not in DAMAGED]
    leaves = {*gone, *dropped, *(found.steps[work.replaces].scene_id for work in accepted if work.replaces is not None)}
    times = {step.time for step in found.steps if step.scene_id not in leaves}
    times |= {work.scene.observed_utc.astype("datetime64[ns]") for work in accepted}
    everything = (*listing.refused, *refused.values())
    if not times:
        shown = "\n".join(f"  {e}" for e in everything[:5])
        raise StateError(f"none of the {len(everything)} scenes would be accepted; the first refusals:\n{shown}")
    settings.policy.require_few(everything, len(listing.scenes) + len(listing.refused), "nothing was changed")
    added = tuple(work.scene.id for work in accepted if work.replaces is None)
    outcome = added, tuple(replaced), found.plan.unchanged, tuple(dropped), found.missing, everything, len(found.plan.refused)
    return Preview(found.reader, tuple(sorted(times)), *outcome, tuple(notes), root is not None)


def _reader(
    source: Source, mask: QualityMask | None, uri: str, grid: Grid | None, how: IngestSettings, root: zarr.Group | None
) -> SceneReader:
    """Reads scenes for the cube, or for a new one. Raises CubeMismatch unless the source and the grid fit the cube."""
    if root is None:
        grid = require_lonlat(grid or source.native_grid())
    else:
        source, grid = match_cube(uri, grid, source)
    return SceneReader(source, mask, grid, how.on_other_grid, how.resampling, how.min_valid_fraction)


def _scenes_wanted(
    uri: str, settings: IngestSettings, listing: Listing, root: zarr.Group | None
) -> tuple[list[Scene], tuple[str, ...], dict[str, SceneRefused]]:
    """(the listed scenes but those that were taken out by hand, ids of the cube that are not listed, refusals of the former)."""
    scenes = listing.scenes
    if root is None:
        return scenes, (), {}
    steps, dropped = read_steps(root), set(read_dropped(root))
    listed = {scene.id for scene in scenes} | {refusal.scene_id for refusal in listing.refused}
    taken = {scene.observed_utc for scene in scenes}  # by other scenes, which replace what has their date
    missing = tuple(step.scene_id for step in steps if step.scene_id not in listed and step.time not in taken)
    if settings.on_missing == "drop" and 2 * len(missing) > len(steps):
        raise StateError(
            f"the source no longer lists {len(missing)} of the {len(steps)} scenes of {uri} (first {missing[0]}), and "
            "cube.on_missing: drop would drop them: check that its folder is complete, or say keep"
        )
    detail = f"taken out of the cube by hand; `driftline drop {uri} SCENE --undo` accepts it again"
    refused = {scene.id: SceneRefused(scene.id, "dropped", detail) for scene in scenes if scene.id in dropped}
    return [scene for scene in scenes if scene.id not in dropped], missing, refused
