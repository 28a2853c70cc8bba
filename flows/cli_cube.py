"""The commands that look after a cube: what it holds, its versions, its damage, scenes taken out, copies for other tools."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows import verbs
from flows.cli_options import AsJson
from flows.terminal import DONE, FAILED, Bars, show
from pipelines.errors import DriftlineError, RequestError
from pipelines.wording import counted

if TYPE_CHECKING:
    from pipelines.cube.checking import CheckReport
    from pipelines.stored_runs import CheckedRun

Cube = Annotated[str, typer.Argument(metavar="CUBE", help="a cube: a folder such as runs/demo/cube, or s3://bucket/prefix")]
Snapshot = Annotated[str | None, typer.Option(help="an older version (see `driftline history CUBE`); default: the newest")]


def info(cube: Cube, snapshot: Snapshot = None, json_: AsJson = False) -> int | None:
    """Show what a cube holds: grid, bands, dates, usable share, size; scenes that are damaged, kept out or refused.

    \b
    Examples:
      driftline info runs/demo/cube
      driftline info s3://bucket/cubes/demo --json
    """
    from pipelines.cube.history import describe

    content = describe(cube, snapshot)
    return show(content, [] if json_ else list(verbs.info_lines(content)), json_)


def history(cube: Cube, json_: AsJson = False) -> int | None:
    """List the versions of a cube, newest first, with what each one added, replaced or dropped.

    \b
    Examples:
      driftline history runs/demo/cube
    """
    from pipelines.cube.history import list_versions

    versions = list_versions(cube)
    content = {"cube": cube, "versions": [asdict(version) for version in versions]}
    return show(content, list(verbs.history_lines(versions)), json_)


def check(
    cube: Cube,
    repair: Annotated[
        str | None, typer.Option(metavar="RUN.yaml", help="read what is damaged again, from the source of this config")
    ] = None,
    json_: AsJson = False,
) -> int | None:
    """Read every pixel of a cube's newest version and name what is damaged: date, scene, bands, box. Exit code 1 if anything is.
    Of a run that is stored in S3 (s3://bucket/prefix/NAME): read every file of the published version.

    Checksums tell in cubes that this version has written, the content hash of each date in all. What is damaged is marked, so
    that nothing uses it; the next `driftline ingest CONFIG`, or --repair, reads those scenes again.

    \b
    Examples:
      driftline check runs/demo/cube
      driftline check runs/demo/cube --repair demo.yaml
      driftline check s3://bucket/cubes/demo --json | jq .damages
    """
    from pipelines.cube.checking import check_cube
    from pipelines.cube.edits import mark_damaged
    from pipelines.stored_files import is_remote
    from pipelines.stored_runs import check as check_run

    if is_remote(cube) and (run := check_run(cube)) is not None:
        show({"run": cube, "ok": not run.damages, **asdict(run)}, run_lines(cube, run), json_)
        return FAILED if run.damages else DONE
    if repair is not None:
        _require_same_cube(repair, cube)
    with Bars().step("check", "read every chunk") as progress:
        report = check_cube(cube, progress)
    found, note = report.damages, ""
    if report.scene_ids:
        try:
            mark_damaged(cube, report.scene_ids, [one.file for one in report.files])
        except DriftlineError as e:
            note = f"not marked as damaged: {e}"
    if repair is not None and report.scene_ids:
        verbs.perform("ingest", repair, [], Bars(), {})
        with Bars().step("check", "read every chunk again") as progress:
            report = check_cube(cube, progress)
    content = {"cube": cube, "ok": not (report.damages or report.files), "note": note, "found": [asdict(one) for one in found]}
    counts = {"snapshot": report.snapshot, "dates": report.dates, "chunks": report.chunks}
    damaged = {"damages": [asdict(one) for one in report.damages], "files": [asdict(one) for one in report.files]}
    show({**content, **counts, **damaged}, check_lines(cube, report, note), json_)
    return DONE if content["ok"] else FAILED


def check_lines(cube: str, report: "CheckReport", note: str) -> list[str]:
    """What `driftline check` found, one line for each damage."""
    read = f"{counted(report.dates, 'date')}, {counted(report.chunks, 'chunk')}"
    if not report.damages and not report.files:
        return [f"ok: {read} read; every checksum and content hash agrees"]
    remedy = f"run `driftline ingest CONFIG` or `driftline check {cube} --repair CONFIG`, which read these scenes again"
    if not report.scene_ids:
        remedy = (
            "the pixels of the newest version are whole: restore the file from a copy; one that only an earlier version needs "
            "may be removed, and the next ingest forgets it"
        )
    files = f"; {counted(len(report.files), 'file')} of the cube" if report.files else ""
    damaged = f"{counted(len(report.scene_ids), 'scene')} of {read}{files}"
    lines = [f"  {one}" for one in (*report.damages, *report.files)]
    return [f"damaged: {damaged}", *lines, *filter(None, [note]), f"{remedy} (docs/validation.md)"]


def run_lines(uri: str, run: "CheckedRun") -> list[str]:
    """What `driftline check` found in a stored run."""
    if not run.damages:
        size = f"{counted(run.files, 'file')} of version {run.version} read, {run.bytes / 1e6:.1f} MB"
        return [f"ok: {size}; every checksum agrees. Its cube is checked by `driftline check {uri}/cube`"]
    return [f"damaged: {len(run.damages)} of {counted(run.files, 'file')}", *(f"  {one}" for one in run.damages)]


def _require_same_cube(config: str, cube: str) -> None:
    """Raises RequestError if the run of the config has another cube."""
    from configs.load import load_run
    from configs.sites import has_sites
    from flows.folder import RunFolder
    from pipelines.cube.store import local_path
    from pipelines.stored_files import is_remote

    run = load_run(config, ())
    theirs = RunFolder.of(run).cube_uri
    here, there = (one.rstrip("/") if is_remote(one) else str(local_path(one).resolve()) for one in (cube, theirs))
    if here != there and not (has_sites(run) and here.startswith(there)):
        raise RequestError(f"{config} writes to the cube {theirs}, not to {cube}: name the config of this cube")


def drop(
    cube: Cube,
    scene: Annotated[
        str, typer.Argument(metavar="SCENE", help="id of the scene (see `driftline info CUBE --json`), or its date")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="accept the scene again: the next ingest brings it back")] = False,
    json_: AsJson = False,
) -> int | None:
    """Take a bad scene out of a cube. It stays out: later ingests list it as refused (dropped), until --undo.

    Earlier versions keep it (`driftline history`), and the file is not touched.

    \b
    Examples:
      driftline drop runs/demo/cube S2A_20200605 --yes
      driftline drop runs/demo/cube 2020-06-05
      driftline drop runs/demo/cube S2A_20200605 --undo
    """
    from pipelines.cube.edits import drop_scene, find_scene, undo_drop
    from pipelines.cube.history import steps_of

    if undo:
        undo_drop(cube, scene)
        text = f"{scene} is accepted again: run `driftline ingest CONFIG`"
        return show({"cube": cube, "scene_id": scene, "kept_out": False}, [text], json_)
    found = find_scene(cube, steps_of(cube), scene)
    from pipelines.calendar import iso_utc

    when = verbs.format_date(iso_utc(found.time).removesuffix("Z"))
    if not yes:
        if json_ or not sys.stdin.isatty():
            raise RequestError(f"this takes {found.scene_id} of {when} out of {cube}; add --yes if that is right")
        if not typer.confirm(f"Take {found.scene_id!a} of {when} out of {cube}?", err=True):
            return DONE
    drop_scene(cube, found.scene_id)
    text = f"took out {found.scene_id} of {when}; `driftline drop {cube} {found.scene_id} --undo` accepts it again"
    return show({"cube": cube, "scene_id": found.scene_id, "kept_out": True}, [text], json_)


def export(
    cube: Cube,
    target: Annotated[Path, typer.Argument(metavar="TARGET.zarr", help="a path that does not exist yet")],
    snapshot: Snapshot = None,
    json_: AsJson = False,
) -> int | None:
    """Write a plain Zarr copy of a cube that xarray, rioxarray and GDAL can open.

    \b
    Examples:
      driftline export runs/demo/cube demo.zarr
    """
    from pipelines.cube.export import export_zarr

    export_zarr(cube, target, snapshot)
    return show({"target": str(target)}, [f"wrote {target}"], json_)
