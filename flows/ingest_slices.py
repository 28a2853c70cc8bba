"""`driftline ingest --slice I/N`: a share of the scenes, or of the sites, read and staged; `--finish` commits (docs/scale.md).

A slice takes no lock and commits nothing. It ends well where scenes are refused: they are listed, and `--finish` has the exit
code of a whole ingest, so that a scheduler does not start a slice again that has done its work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from configs import build
from configs.privacy import is_copied
from configs.run import CubeRun
from configs.sites import SitesSource, build_sites, has_sites
from flows import Json
from flows.copies import format_refusals, is_read_alone, source_to_read
from flows.steps import Display, Steps
from flows.task import Invocation, open_invocation, staging_of_scenes
from pipelines.errors import RequestError, StateError
from pipelines.progress import Progress
from pipelines.slices import Slice, SliceDone
from pipelines.wording import counted

if TYPE_CHECKING:
    from pipelines.cube.ingest import IngestSettings
    from pipelines.cube.slicing import SliceStaged
    from pipelines.sources.source import Source

MOST_SITES = 20  # that a message names


@dataclass
class Staged:
    """What became of a slice: its scenes, those that are refused, and lines about them; `left`: scenes for `--finish` to read."""

    done: SliceDone = field(default_factory=SliceDone)
    refused: list[Json] = field(default_factory=list)
    left: int = 0
    lines: list[str] = field(default_factory=list)
    sites: list[str] | None = None


def require_slices(run: Any) -> None:
    """Raises RequestError for runs whose ingest cannot be done in slices."""
    remedy = "ingest it as a whole"
    if is_sliced_by_site(run):
        return
    if not isinstance(run, CubeRun) or has_sites(run):
        what = f"a run with `task: {run.task}` over patients or samples"
        raise RequestError(f"`driftline ingest` of {what} has no slices; {remedy}")
    if is_copied(run) and not is_read_alone(run):
        raise RequestError(f"images of source.kind: {run.source.kind} are de-identified first, which has no slices; {remedy}")


def is_sliced_by_site(run: Any) -> bool:
    """Whether a slice takes whole sites, which have a cube each."""
    return isinstance(getattr(run, "source", None), SitesSource)


def run_slice(config: str, overrides: Sequence[str], text: str, display: Display, *, retry_refused: bool) -> Json:
    """Stages a slice of the scenes, or of the sites.

    Raises RequestError, MissingInput, and what an ingest raises before it reads pixels; a site that cannot be used is listed.
    """
    share = Slice.parse(text)
    context = open_invocation(config, overrides, display, retry_refused=retry_refused)
    require_slices(context.run)
    record = context.folder.path / "slices" / f"ingest-{share.number}-of-{share.count}.jsonl"
    context = replace(context, steps=Steps(record, display))
    staged = _stage_sites(context, share) if is_sliced_by_site(context.run) else _stage_scenes(context, share)
    done = staged.done
    of = "" if staged.sites is None else f"{counted(len(staged.sites), 'site')}, "
    message = f"slice {share}: {of}{counted(done.size, 'scene')} {'is' if done.size == 1 else 'are'} staged, {done.made} read now"
    message += f", {len(staged.refused)} refused" if staged.refused else ""
    left = f"  {counted(staged.left, 'scene')} of it for `--finish` to read: no change of their files could be noticed"
    return {
        "message": message,
        "lines": [message, *staged.lines, *([left] if staged.left else [])],
        "task": context.run.task,
        "slice": str(share),
        "made": done.made,
        "scenes": done.size,
        **({} if staged.sites is None else {"sites": staged.sites}),
        "refused": staged.refused,
        "skipped": False,
    }


def _stage_scenes(context: Invocation, share: Slice) -> Staged:
    """Every N-th scene of the one cube of a run."""
    from pipelines.cube.slicing import stage_slice

    run, folder, found = context.run, context.folder, Staged()
    source, _ = source_to_read(run, context.steps)
    settings = build.build_ingest_settings(run, folder.refused, retry_refused=context.retry_refused)
    settings = replace(settings, staging=staging_of_scenes(context), quarantine=None)
    mask, grid = build.build_quality_mask(run), build.build_grid(run)
    _stage(context, found, f"read slice {share}", partial(stage_slice, source, mask, folder.cube_uri, grid, settings, share))
    return found


def _stage_sites(context: Invocation, share: Slice) -> Staged:
    """Every scene of every N-th site; a site that cannot be used leaves the others, and `--finish` says what an ingest says."""
    from pipelines.cube.slicing import stage_slice

    sources = context.steps.do("ingest", "list the sites", lambda _: build_sites(context.run))
    mask, found = build.build_quality_mask(context.run), Staged(sites=share.of(list(sources)))
    for name in found.sites or ():
        settings = replace(site_settings(context, name, is_staged=True), quarantine=None)
        work = partial(stage_slice, sources[name], mask, context.folder.cube_of(name), None, settings, Slice(1, 1))
        try:
            _stage(context, found, f"read scenes of {name}", work, name)
        except RequestError as e:
            found.refused.append({"scene_id": name, "reason": "site", "detail": str(e)})
            found.lines.append(f"  {name} cannot be used: {e}")
    return found


def _stage(context: Invocation, found: Staged, step: str, work: Callable[[Progress], SliceStaged], site: str = "") -> None:
    """Does a step, and adds what became of it to `found`."""
    from pipelines.cube.ingest import refusals_as_json

    staged = context.steps.do("ingest", step, work)
    found.done += staged.done
    found.left += staged.left
    lines = [*(f"note: {note}" for note in staged.notes), *format_refusals(staged.refused, None)]
    found.lines += [f"  {site}{': ' if site else ''}{line.strip()}" for line in lines]
    found.refused += [{**one, **({"site": site} if site else {})} for one in refusals_as_json(staged.refused)]


# ---------------------------------------------------------------- sites, for slices and for the ingest that ends them


def site_settings(context: Invocation, name: str, *, is_staged: bool) -> IngestSettings:
    """How a site is ingested; `is_staged`: from where slices leave it."""
    listed_in = context.folder.labels / f"{name}-refused.json"
    settings = build.build_ingest_settings(context.run, listed_in, retry_refused=context.retry_refused)
    return replace(settings, staging=f"{staging_of_scenes(context)}/{name}" if is_staged else None)


def require_sites(context: Invocation, sources: Mapping[str, Source]) -> None:
    """Raises StateError that names the sites with scenes in no slice; no cube has been written then."""
    from pipelines.cube.slicing import find_unstaged

    mask, missing, has_others = build.build_quality_mask(context.run), list[str](), False
    for name, source in sources.items():
        try:
            settings = site_settings(context, name, is_staged=True)
            found = find_unstaged(source, mask, context.folder.cube_of(name), None, settings)
        except RequestError:
            continue  # no slice could read it, and the ingest says why
        if found.missing:
            missing.append(f"{name} ({len(found.missing)} of {counted(found.scenes, 'scene')})")
            has_others |= found.has_others
    if missing:
        raise StateError("".join(_say_missing(staging_of_scenes(context), missing, len(sources), has_others=has_others)))


def _say_missing(folder: str, missing: Sequence[str], count: int, *, has_others: bool) -> Iterator[str]:
    from pipelines.cube.staged_scenes import OTHER_JOBS

    more = f" and {len(missing) - MOST_SITES} more" if len(missing) > MOST_SITES else ""
    yield f"{folder}: {len(missing)} of {counted(count, 'site')} {'is' if len(missing) == 1 else 'are'} not there as a whole, "
    yield f"with scenes that are in no slice: {', '.join(missing[:MOST_SITES])}{more}{OTHER_JOBS if has_others else ''}; "
    yield "do the slices again that were to read them, or ingest without --finish; nothing was committed"
