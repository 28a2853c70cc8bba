"""`driftline ingest --slice I/N`: a share of the scenes, read and staged; `--finish` commits all of them (docs/scale.md).

A slice takes no lock and commits nothing. It ends well where scenes are refused: they are listed, and `--finish` has the exit
code of a whole ingest, so that a scheduler does not start a slice again that has done its work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from configs import build
from configs.privacy import is_copied
from configs.run import CubeRun
from configs.sites import has_sites
from flows import Json
from flows.copies import format_refusals, is_read_alone, source_to_read
from flows.steps import Display, Steps
from flows.task import Invocation, open_invocation, staging_of_scenes
from pipelines.errors import RequestError
from pipelines.slices import Slice
from pipelines.wording import counted

if TYPE_CHECKING:
    from pipelines.cube.slicing import SliceStaged


def require_slices(run: Any) -> None:
    """Raises RequestError for runs whose ingest cannot be done in slices."""
    remedy = "ingest it as a whole"
    if not isinstance(run, CubeRun) or has_sites(run):
        raise RequestError(f"`driftline ingest` of a run with `task: {run.task}` over sites or samples has no slices; {remedy}")
    if is_copied(run) and not is_read_alone(run):
        raise RequestError(f"images of source.kind: {run.source.kind} are de-identified first, which has no slices; {remedy}")


def run_slice(config: str, overrides: Sequence[str], text: str, display: Display, *, retry_refused: bool) -> Json:
    """Stages a slice of the scenes. Raises RequestError, MissingInput, and what an ingest raises before it reads pixels."""
    share = Slice.parse(text)
    context = open_invocation(config, overrides, display, retry_refused=retry_refused)
    require_slices(context.run)
    record = context.folder.path / "slices" / f"ingest-{share.number}-of-{share.count}.jsonl"
    context = replace(context, steps=Steps(record, display))
    staged = _stage(context, share)
    done, refused = staged.done, staged.refused
    message = f"slice {share}: {counted(done.size, 'scene')} {'is' if done.size == 1 else 'are'} staged, {done.made} read now"
    message += f", {len(refused)} refused" if refused else ""
    left = f"  {counted(staged.left, 'scene')} of it for `--finish` to read: no change of their files could be noticed"
    return {
        "message": message,
        "lines": [
            message,
            *(f"  note: {note}" for note in staged.notes),
            *format_refusals(refused, None),
            *([left] if staged.left else []),
        ],
        "task": context.run.task,
        "slice": str(share),
        "made": done.made,
        "scenes": done.size,
        "refused": [{"scene_id": e.scene_id, "reason": e.reason, "detail": e.detail} for e in refused],
        "skipped": False,
    }


def _stage(context: Invocation, share: Slice) -> SliceStaged:
    from pipelines.cube.slicing import stage_slice

    run, folder = context.run, context.folder
    source, _ = source_to_read(run, context.steps)
    settings = build.build_ingest_settings(run, folder.refused, retry_refused=context.retry_refused)
    settings = replace(settings, staging=staging_of_scenes(context), quarantine=None)
    mask, grid = build.build_quality_mask(run), build.build_grid(run)
    return context.steps.do(
        "ingest",
        f"read slice {share}",
        lambda progress: stage_slice(source, mask, folder.cube_uri, grid, settings, share, progress),
    )
