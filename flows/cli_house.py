"""The commands that keep house: this machine, what nobody needs any more, backup, restore (docs/operations.md)."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from flows import Json
from flows.cli_options import AsJson, Overrides
from flows.terminal import DONE, FAILED, Bars, show
from pipelines.stored_files import is_remote
from pipelines.wording import counted

MOST_LISTED = 10

Config = Annotated[str, typer.Argument(metavar="RUN.yaml", help="the run's config, or the one in its folder")]
KeepDays = Annotated[float, typer.Option(metavar="DAYS", help="how old a version of the cube, or what is half done, may become")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="remove it; without, it is only listed")]
WithCube = Annotated[
    bool, typer.Option("--cube", help="also versions of a cube outside the run's folder, which other runs may use")
]


def doctor(
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="measure the rates of this machine for --dry-run, in half a minute, and keep them")
    ] = False,
    json_: AsJson = False,
) -> int | None:
    """Check this machine: versions that do not work together, disk, rights, GPU, PROJ and GDAL, Prefect.

    \b
    Examples:
      driftline doctor
      driftline doctor --calibrate
    """
    from flows.doctor import examine

    if calibrate:
        from flows.calibration import calibrate as measure_rates
        from flows.calibration import rate_lines

        measured = measure_rates()
        return show(measured, rate_lines(measured), json_)
    findings = examine()
    remedies = ["" if one["ok"] else f"\n     -> {one['remedy']}" for one in findings]
    marks = ["ok " if one["ok"] else "BAD" for one in findings]
    lines = [f"{mark}  {f['what']}: {f['found']}{remedy}" for mark, f, remedy in zip(marks, findings, remedies, strict=True)]
    is_well = all(one["ok"] for one in findings)
    show({"ok": is_well, "findings": findings}, lines, json_)
    return DONE if is_well else FAILED


def gc(
    config: Annotated[str, typer.Argument(metavar="RUN", help="the run's config, the one in its folder, or s3://bucket/prefix/NAME")],
    overrides: Overrides = None, keep_days: KeepDays = 30, yes: Yes = False, cube: WithCube = False,
    json_: AsJson = False,
) -> int | None:  # fmt: skip
    """List what nobody needs any more, and remove it with --yes: old versions of the cube, staged tiles of what is published,
    samples of versions that no stage names, trials, what killed programs left.

    Of a run in S3 also objects of versions of the run that are older than --keep-days (at least a day) and that neither of the
    newest two needs, and what was set aside on this machine when another one had published, once it is older than --keep-days.

    Versions stay that a record of any run in the same folder names: of a stage, model, product or archived forecast. Archived
    forecasts have their own limit, prediction.archive_keep.

    \b
    Examples:
      driftline gc my-run.yaml
      driftline gc my-run.yaml --keep-days 7 --yes
      driftline gc s3://fields/runs/my-run
      driftline gc runs/my-run/config.yaml --json | jq .bytes
    """
    from flows.housekeeping import clean
    from flows.stored_inputs import stored_config

    content = stored_config(config) if is_remote(config) else config
    found = clean(content, overrides or [], keep_days=keep_days, is_removing=yes, with_cube=cube)
    return show(found, gc_lines(found), json_)


def backup(
    config: Config,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="a folder on another disk, or s3://bucket/prefix")],
    overrides: Overrides = None,
    json_: AsJson = False,
) -> int | None:
    """Copy a run and its cube, as they are now, with the SHA-256 of every file. What an earlier backup has is not copied again.

    Staged tiles, samples and locks are left out, since they are made again. The cube may be written meanwhile: the copy is of the
    version that was the newest at the start. An interrupted backup goes on when the command is run again.

    \b
    Examples:
      driftline backup my-run.yaml /mnt/backups
      driftline backup my-run.yaml s3://bucket/backups
    """
    from flows.backup import back_up

    made = back_up(config, overrides or [], target, Bars())
    return show(made, [*made["notes"], made["message"]], json_)


def restore(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="where `driftline backup` wrote to")],
    runs: Annotated[Path, typer.Argument(metavar="[RUNS]", help="the folder of runs")] = Path("runs"),
    run: Annotated[str | None, typer.Option(metavar="NAME", help="which run, if there are backups of several")] = None,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="which backup, as 20261130T030000Z; default: the newest")] = None,
    cube: Annotated[
        str | None, typer.Option(metavar="URI", help="write the cube there: an empty place; default: the run's folder")
    ] = None,
    json_: AsJson = False,
) -> int | None:
    """Write a run and its cube back from a backup. Every file is compared with its SHA-256; nothing that exists is overwritten.

    \b
    Examples:
      driftline restore /mnt/backups
      driftline restore s3://bucket/backups elsewhere/ --run my-run --at 20261130T030000Z
    """
    from flows.backup import bring_back

    made = bring_back(target, runs, Bars(), run=run, at=at, cube=cube)
    return show(made, [made["message"], *made["notes"]], json_)


def gc_lines(found: Json) -> list[str]:
    """What `driftline gc` found: a line for each kind; of a run in S3 also one for each version and folder that was set aside."""
    from flows.housekeeping import LISTED

    lines = [f"{'removed from' if found['removed'] else 'not needed in'} {found['run']}:"]
    for kind, group in groupby(found["found"], lambda one: one["kind"]):
        ones = list(group)
        files, size = sum(one["files"] for one in ones), sum(one["bytes"] for one in ones)
        lines.append(f"  {kind:<22}{counted(files, 'file'):>14}{size_text(size):>12}{ages_text(ones):>22}".rstrip())
        if kind in LISTED:
            lines += [
                f"    {one['name']}: {size_text(one['bytes'])}, {one['age_days']:.1f} days old" for one in ones[:MOST_LISTED]
            ]
            lines += [f"    and {len(ones) - MOST_LISTED} more (all: --json)"] * (len(ones) > MOST_LISTED)
    if not found["found"]:
        lines = [f"nothing in {found['run']} is without use"]
    end = f"{counted(found['files'], 'file')}, {size_text(found['bytes'])}"
    totals = [f"{end} in all; --yes removes them"] if found["found"] and not found["removed"] else []
    return [*lines, *(f"  note: {note}" for note in found["notes"]), *totals]


def ages_text(found: list[Json]) -> str:
    """The ages of what was found, "" where they are not known."""
    ages = [one["age_days"] for one in found if one.get("age_days") is not None]
    if not ages:
        return ""
    least, most = f"{min(ages):.1f}", f"{max(ages):.1f}"
    return f"{least} days old" if least == most else f"{least} to {most} days old"


def size_text(size: int) -> str:
    """Bytes for people: 1.5 MB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
