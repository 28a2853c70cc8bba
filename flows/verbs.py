"""What the larger commands do, without the command line: each returns an exit code and prints its result; and a cube in words."""

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import Json
from flows.terminal import DONE, SOME_REFUSED, Bars, show
from pipelines.errors import HARMLESS, MissingInput, RequestError
from pipelines.wording import counted, has_credentials, without_secrets

if TYPE_CHECKING:
    from pipelines.cube.history import Version

Config = str | Mapping[str, object]  # a file, or its content
INIT_TASKS = ["forecast", "monitor"]
UNTRACKED = ("report", "choose")  # no flows of their own: `train` and `run` choose, too
READS_SOURCE = ("ingest", "run", "monitor")
LATEST = 5  # dates, and scenes of a version, that are listed


def stage(verb: str, config: Config, overrides: list[str] | None, dry_run: bool, as_json: bool, **options: bool) -> int:
    """A stage, or all of them: through Prefect if a server is configured and answers, else plainly; so a config without file."""
    if dry_run:
        return plan(verb, config, overrides or [], as_json)
    result = perform(verb, config, overrides or [], Bars(), options)
    show(result, result.get("lines") or [result.get("message", "done")], as_json)
    refused = [one["reason"] for one in result.get("refused") or ()]
    return code_of(refused)


def code_of(refused: Iterable[str]) -> int:
    """The exit code of what ended well, by the reasons of what was refused."""
    return SOME_REFUSED if set(refused) - HARMLESS else DONE


def slice_of(verb: str, config: str, overrides: list[str], text: str, as_json: bool, **forced: bool) -> int:
    """A share of a stage's work; nothing is published."""
    from flows.slices import run_slice

    result = run_slice(verb, config, overrides, text, Bars(), **forced)
    return show(result, [result["message"]], as_json)


def slice_of_ingest(config: str, overrides: list[str], text: str, as_json: bool, *, retry_refused: bool) -> int:
    """A share of the scenes is read and staged; nothing is committed. Refused ones are listed, and no reason to do it again."""
    from flows.ingest_slices import run_slice

    result = run_slice(config, overrides, text, Bars(), retry_refused=retry_refused)
    return show(result, result.pop("lines"), as_json)


def perform(verb: str, config: Config, overrides: list[str], display: Bars, options: dict[str, bool]) -> Json:
    from flows.tracking import is_reachable, server_url

    if secret := [one for one in overrides if has_credentials(one)]:  # Prefect's database keeps what a flow is called with
        raise RequestError(f"--set {without_secrets(secret[0])}: no credentials in URIs; set the variables AWS_* instead")
    url = None if options.get("is_finishing") else server_url()  # the end of slices, which work without a server
    if url is not None and verb not in UNTRACKED and isinstance(config, str):
        if is_reachable(url):
            options.pop("is_finishing", None)  # False here, and no parameter of a flow
            return perform_tracked(verb, config, overrides, display, options)
        display.log(
            f"the Prefect server at {without_secrets(url)} does not answer: going on without it (steps.jsonl records every step)"
        )
    from flows.stage import carry_out
    from flows.task import open_invocation, remembering_folder

    asked: Any = options
    invocation = open_invocation(config, overrides, display, inputs_must_exist=verb in READS_SOURCE, **asked)
    with remembering_folder(invocation):
        return carry_out(invocation, verb)


def perform_tracked(verb: str, config: str, overrides: list[str], display: Bars, options: dict[str, bool]) -> Json:
    import os

    from flows.prefect_api import without_proxies
    from flows.serve import HEARTBEAT_S

    # read when Prefect is imported. The bars and our own messages are on the terminal, the UI gets the log
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    # Prefect's default of 180 s is more than the 90 s after which `driftline serve` takes a run for dead
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(HEARTBEAT_S))
    os.environ.update(without_proxies())
    from flows.tasks import load_flow
    from flows.tracking import call_flow, require_access

    require_access()
    return call_flow(load_flow(verb), display, config=config, overrides=overrides, **options)


def plan(verb: str, config: Config, overrides: list[str], as_json: bool) -> int:
    from configs.load import load_run
    from configs.trained import with_model
    from flows.planning import make_plan, plan_lines

    run = with_model(load_run(config, overrides, inputs_must_exist=verb in READS_SOURCE))
    content = make_plan(run, verb)
    show(content, plan_lines(content), as_json)
    return code_of(content["refused"])


def plan_sweep(config: Config, overrides: list[str], as_json: bool) -> int:
    """How many trials a search has and how long they take; the space is checked."""
    from configs.load import load_run
    from flows.sweep_plan import make_sweep_plan, sweep_plan_lines

    content = make_sweep_plan(load_run(config, overrides, inputs_must_exist=False), config, overrides)
    return show(content, sweep_plan_lines(content), as_json)


def init(folder: Path, name: str | None, task: str, output: Path | None, as_json: bool) -> int:
    from configs.paths import text_beside
    from pipelines.sources.proposal import propose_run

    if not folder.exists():
        raise MissingInput(f"no folder or file at {folder}; name the place where the scenes lie")
    if task not in INIT_TASKS:
        near = "the paths of labels cannot be detected: see configs/oscd.yaml and docs/change.md"
        near = near if task == "change" else "or leave it out"
        raise RequestError(f"--task {task}: expected one of {', '.join(INIT_TASKS)}; {near}")
    beside = None if output is None else text_beside(str(folder), output.parent)
    proposal = propose_run(folder, name or default_name(folder), task, written_as=beside)
    if output is not None:
        if output.exists():
            raise RequestError(f"{output} is there already; choose another name or remove it first")
        if not output.absolute().parent.is_dir():
            raise MissingInput(f"no folder at {output.parent}; make it first, or write the config elsewhere")
        output.write_text(proposal, encoding="utf-8")
    if as_json:
        print(json.dumps({"config": proposal, "file": str(output) if output else None}))
    else:
        print(f"wrote {output}; next: driftline run {output} --dry-run" if output else proposal.rstrip("\n"))
    return DONE


def default_name(folder: Path) -> str:
    """The name of the folder or file; of volumes and clips, whose names may name a patient, one at random."""
    from pipelines.sources.frame_proposal import kind_of_frames
    from pipelines.sources.volume_proposal import kind_of

    if kind_of(folder) or kind_of_frames(folder) == "video":
        return f"series-{secrets.token_hex(3)}"
    stem = folder.resolve().stem if folder.is_file() else folder.resolve().name
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in stem).strip("-_.")
    return kept or "run"


def parse_spacing(text: str) -> tuple[float, ...]:
    """Pixel size along each axis, in mm. Raises RequestError."""
    try:
        spacing = tuple(float(part) for part in text.split(","))
    except ValueError:
        spacing = ()
    if len(spacing) != 2 or not all(0 < size < float("inf") for size in spacing):
        raise RequestError(f"--spacing-mm {text}: expected the pixel size as Y,X in mm, for example 0.5,0.5")
    return spacing


def check_lines(served: Json) -> list[str]:
    """What `driftline serve --check` found, and what it leaves behind."""
    return [
        f"ok: the server and {len(served['deployments'])} deployments answered; all of it is stopped again",
        f"listened on {', '.join(served['listening'])} only",
        f"kept for the next start: {served['logs']} (database, token, logs); it may be removed",
    ]


# ---------------------------------------------------------------- a cube in words; programs use `--json`


def info_lines(cube: Json) -> Iterator[str]:
    """Lines about a cube, from what `pipelines.cube.history.describe` returns."""
    from pipelines.calendar import format_span

    shape, is_undated = cube["shape"], cube.get("time_origin") == "unknown"
    yield f"cube:      {cube['uri']}"
    yield f"snapshot:  {cube['snapshot']}, {cube['versions']} version{'s' * (cube['versions'] != 1)}; see `driftline history`"
    if shape["time"] and is_undated and cube.get("registration"):
        yield f"visits:    {shape['time']}; no file states a date, so how long they are apart is not known"
        yield f"usable:    {cube['mean_valid_fraction']:.0%} of the voxels on average"
    elif shape["time"]:
        apart = f", {format_span(cube['median_step_days'])} apart (median)" if cube["median_step_days"] else ""
        ends = f"{format_date(cube['first'])} to {format_date(cube['last'])}"
        ends += " after the first frame (no file states a date)" if is_undated else " UTC"
        yield f"{'frames' if is_undated else 'dates'}:{'':<{4 if is_undated else 5}}{shape['time']}, {ends}{apart}"
        yield f"usable:    {cube['mean_valid_fraction']:.0%} of the pixels on average"
    else:
        yield "dates:     none"
    yield from _grid_lines(shape, cube["grid"])
    for number, band in enumerate(cube["bands"]):
        yield f"{'bands:' if not number else '':<11}{format_band(band)}"
    size = f"{cube['stored_bytes'] / 1e6:.1f} MB on disk, {cube['pixel_bytes'] / 1e6:.1f} MB uncompressed"
    sides = [" x ".join(map(str, cube[name])) for name in ("chunks", "shards")]
    yield f"stored:    {cube['dtype']}, chunks {sides[0]} ({', '.join(shape)}), {size}"
    if sides[1]:
        yield f"{'':<11}in objects of {sides[1]}"
    if cube.get("registration"):
        from flows.visit_records import registration_lines

        yield from registration_lines(cube["registration"])
    for label, scenes in (("damaged:", cube["damaged"]), ("kept out:", cube["kept_out"]), ("refused:", cube["refused"])):
        if scenes:
            first = scenes[0] if isinstance(scenes[0], str) else f"{scenes[0]['scene_id']}, {scenes[0]['reason']}"
            yield f"{label:<11}{counted(len(scenes), 'scene')}: {first}{' ... (all: --json)' * (len(scenes) > 1)}"
    if shape["time"]:
        yield "latest (all: --json):"
    for date in cube["dates"][-LATEST:]:
        yield f"  {format_date(date['time']):<24} {date['valid_fraction']:>4.0%} usable  {date['scene_id']}"


def _grid_lines(shape: Json, grid: Json) -> Iterator[str]:
    """How many pixels or voxels there are, how large, and where."""
    from pipelines.products.frames import crs_labels

    sizes = " x ".join(str(shape[dim]) for dim in ("z", "y", "x") if dim in shape)
    noun, axes = ("voxels", "slices x rows x columns") if "z" in shape else ("pixels", "rows x columns")
    if "crs" not in grid:
        spacing = " x ".join(f"{step:.6g}" for step in grid["spacing"])
        unit = grid.get("image_plane", "mm")
        yield f"{noun}:    {sizes} ({axes}) of {spacing} {unit}"
        if "image_plane" in grid:
            yield "frame:     of the image alone: no file states its position"
            return
        yield "frame:     of the patient, LPS in mm" + (
            ", a frame of reference is stated" if grid["frame_of_reference_uid"] else ""
        )
        yield f"bounds:    {', '.join(f'{edge:.6g}' for edge in grid['bounds'])} (from x, y, z to x, y, z)"
        return
    words, edges = crs_labels(grid["crs"]), grid.get("bounds_xy") or grid["bounds"]
    spacing = " x ".join(f"{abs(step):g}" for step in grid.get("resolution_xy") or grid["spacing"])
    yield f"{noun}:    {sizes} ({axes}) of {spacing} {words['crs_unit']}"
    yield f"CRS:       {words['crs']}"
    order = "(left, bottom, right, top)" if "bounds_xy" in grid else "(from x, y, z to x, y, z)"
    yield f"bounds:    {', '.join(f'{edge:.10g}' for edge in edges)} {order}"


def format_band(band: Json) -> str:
    """`NDVI: stored x 0.0001, nodata -3000, unit 1`."""
    offset = f" + {band['offset']:g}" if band["offset"] else ""
    value = f"stored x {band['scale']:g}{offset}" if band["scale"] != 1 or offset else "as stored"
    nodata = f", nodata {band['nodata']:g}" if isinstance(band["nodata"], int | float) else f", nodata {band['nodata'] or 'none'}"
    return f"{band['name']}: {value}{nodata}" + (f", in {band['unit']}" if band["unit"] else "")


def history_lines(versions: "Sequence[Version]") -> Iterator[str]:
    """Lines about a cube's versions, newest first: one each, then the scenes added, replaced, dropped or refused."""
    for version in versions:
        yield f"{version.snapshot}  {version.written_utc:%Y-%m-%d %H:%M:%S} UTC  {version.message}"
        for word in ("added", "replaced", "dropped", "damaged"):
            if scenes := getattr(version, word):
                shown = ", ".join(scenes) if len(scenes) <= LATEST else f"{scenes[0]}, {scenes[1]} ... {scenes[-1]}"
                yield f"  {word}: {shown}"
        for scene_id, reason, detail in version.refused[:LATEST]:
            yield f"  refused: {scene_id}, {reason}: {detail}"
        if len(version.refused) > LATEST:
            yield f"  and {len(version.refused) - LATEST} more refused; all of them: --json"


def format_date(date: str) -> str:
    """An ISO 8601 date, with the time of day unless it is midnight."""
    return date.replace("T", " ").removesuffix(" 00:00:00")
