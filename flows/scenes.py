"""Scenes into the one cube of a run: write what is new, record what was refused. For every task with a single cube."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs import build
from flows.invocation import Invocation
from flows.task import Record
from pipelines.errors import SceneRefused

if TYPE_CHECKING:
    from pipelines.cube.ingest import IngestReport


def ingest_scenes(context: Invocation) -> Record:
    """New and reprocessed scenes into the cube, as `Task.ingest` returns it; with nothing new the snapshot stays."""
    from pipelines.cube.ingest import ingest

    run, folder = context.run, context.folder
    source, mask, grid = build.build_source(run), build.build_quality_mask(run), build.build_grid(run)
    settings = build.build_ingest_settings(run, folder.refused)
    report = context.steps.do(
        "ingest", "write scenes into the cube", lambda progress: ingest(source, mask, folder.cube_uri, grid, settings, progress)
    )
    return {
        "snapshot": report.snapshot,
        "added": len(report.added),
        "replaced": len(report.replaced),
        "unchanged": len(report.unchanged),
        "refused": [{"scene_id": e.scene_id, "reason": e.reason, "detail": e.detail} for e in report.refused],
        "message": format_report(report),
        "lines": tuple(format_refusals(report.refused, folder.refused)),
        "is_new": bool(report.added or report.replaced),
    }


def format_report(report: IngestReport) -> str:
    """`3 added, 57 unchanged, 1 refused`."""
    parts = [(len(report.added), "added"), (len(report.replaced), "replaced"), (len(report.unchanged), "unchanged")]
    parts.append((len(report.refused), "refused"))
    text = ", ".join(f"{count} {what}" for count, what in parts if count)
    return f"{text or 'no scenes'}" + ("" if report.added or report.replaced else " (nothing new)")


def format_refusals(refused: Sequence[SceneRefused], listed_in: Path) -> Iterator[str]:
    """A line for each reason, with the first scene as an example."""
    by_reason: dict[str, list[SceneRefused]] = {}
    for refusal in refused:
        by_reason.setdefault(refusal.reason, []).append(refusal)
    for reason, group in by_reason.items():
        more = f" (and {len(group) - 1} more)" if len(group) > 1 else ""
        yield f"  refused, {reason}: {group[0].scene_id}{more}: {group[0].detail}"
    if refused:
        yield f"  all refusals: {listed_in}"
