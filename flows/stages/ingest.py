"""Scenes -> cube: list what the source has, lay what is new, record what was refused."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from configs import build
from flows.folder import write_json
from flows.invocation import Invocation
from pipelines.errors import SceneRefused
from pipelines.progress import Progress


def ingest(invocation: Invocation) -> dict[str, Any]:
    """Lays new and reprocessed scenes; with nothing new the cube's snapshot stays. Hands back the record of the stage."""
    folder, steps = invocation.folder, invocation.steps
    report = steps.do("ingest", "lay scenes into the cube", lambda progress: ingest_scenes(invocation, progress))
    is_new = bool(report.added or report.replaced)
    message = format_report(report)
    record = {
        "snapshot": report.snapshot,
        "added": len(report.added),
        "replaced": len(report.replaced),
        "unchanged": len(report.unchanged),
        "refused": [{"scene_id": e.scene_id, "reason": e.reason, "detail": e.detail} for e in report.refused],
        "message": message,
    }
    write_json(folder.done("ingest"), record)
    steps.log(f"ingest: {message}")
    for line in format_refusals(report.refused, folder.refused):
        steps.log(line)
    return {**record, "skipped": not is_new}


def ingest_scenes(invocation: Invocation, progress: Progress) -> Any:
    from pipelines.cube.ingest import ingest as ingest_scenes

    run, folder = invocation.run, invocation.folder
    settings = build.build_ingest_settings(run, folder.refused)
    return ingest_scenes(
        build.build_source(run), build.build_quality_mask(run), folder.cube_uri, build.build_grid(run), settings, progress
    )


def format_report(report: Any) -> str:
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
