"""The command line. Everything heavy is imported inside the verbs, so that `driftline --help` is there at once."""

import json
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import cli_cube, cli_house, cli_medical, cli_seg, verbs
from flows.cli_change import change
from flows.cli_models import models
from flows.cli_options import AsJson, DryRun, Finish, Force, Model, ModelAsIs, Overrides, Share, require_alone, with_model
from flows.cli_sweep import sweep
from flows.cli_track import track
from flows.terminal import DONE, TERMINATED, Bars, exit_soon, guard, show
from pipelines.errors import RequestError

Work = Callable[..., int | None]
# typer: --show-completion takes the name of the shell, rather than ignore it and detect the shell that runs
os.environ["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"

app = typer.Typer(
    name="driftline",
    help="Turn time series of satellite images into georeferenced forecasts, change maps and alerts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 done, 1 failed, 2 the request is wrong, 3 finished with refused inputs (scenes in clouds do not "
    "count), 4 busy: try again later.",
)

Config = Annotated[str, typer.Argument(metavar="RUN.yaml", help="the run's config; `driftline init FOLDER` writes one")]
Restart = Annotated[
    bool, typer.Option("--restart", help="remove the saved state (not the alerts) and start again from the history")
]
IfWorse = Annotated[
    bool, typer.Option("--even-if-worse", help="publish a model that is not better than evaluation.must_beat; the report says so")
]
IfConfounded = Annotated[
    bool, typer.Option("--even-if-confounded", help="publish a model of which metadata alone is as good; the report says so")
]


def command(**options: Any) -> Callable[[Work], Work]:
    """Registers a command: its exit code is what the function returns (None: 0), and an error is one message."""

    def register(work: Work) -> Work:
        @app.command(**options)
        @wraps(work)
        def guarded(**values: object) -> None:
            raise typer.Exit(guard(lambda: work(**values), bool(values["json_"])))

        return work

    return register


def show_version(is_asked: bool) -> None:
    """Prints release and code version, and ends the program."""
    if is_asked:
        from flows.folder import code_version

        print(f"driftline {code_version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="show the version and exit", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """What every verb has."""


@command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="a folder of scenes, or one netCDF file")],
    name: Annotated[str | None, typer.Option(help="name of the run; default: that of the folder")] = None,
    task: Annotated[
        str, typer.Option(metavar="forecast|monitor", help="what the run is for", autocompletion=lambda: verbs.INIT_TASKS)
    ] = "forecast",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="write to this file instead of stdout")] = None,
    json_: AsJson = False,
) -> int | None:
    """Inspect a folder of scenes and propose a commented config.

    \b
    Examples:
      driftline init scenes/ -o my-run.yaml
      driftline init scenes/ --name harvest --output harvest.yaml
      driftline init scenes/ --task monitor -o forest.yaml
    """
    return verbs.init(folder, name, task, output, json_)


@command()
def ingest(
    config: Config,
    overrides: Overrides = None,
    retry_refused: Annotated[
        bool, typer.Option("--retry-refused", help="read the scenes again that were refused before, whatever their files say")
    ] = False,
    quarantine: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="link the files of refused scenes there, with reasons (cube.quarantine)")
    ] = None,
    slice_: Share = None,
    finish: Finish = False,
    dry_run: DryRun = False,
    json_: AsJson = False,
) -> int | None:
    """Write the source's scenes into the cube. Doing it again changes nothing; new scenes are added at their dates.

    A slice reads every N-th scene, or every N-th site of several; --finish writes the cubes.

    \b
    Examples:
      driftline ingest my-run.yaml
      driftline ingest my-run.yaml --retry-refused --quarantine refused/
      driftline ingest my-run.yaml --set cube.workers=2 --dry-run
      driftline ingest my-run.yaml --slice 3/8           # on eight machines, then on one of them:
      driftline ingest my-run.yaml --finish
    """
    if quarantine is not None:
        overrides = [*(overrides or []), f"cube.quarantine={json.dumps(str(quarantine))}"]
    if slice_ is not None:
        require_alone(finish, dry_run)
        return verbs.slice_of_ingest(config, overrides or [], slice_, json_, retry_refused=retry_refused)
    return verbs.stage("ingest", config, overrides, dry_run, json_, retry_refused=retry_refused, is_finishing=finish)


@command(short_help="Choose the network of a forecast with `model: auto`.")
def choose(config: Config, overrides: Overrides = None, dry_run: DryRun = False, json_: AsJson = False) -> int | None:
    """Choose corrected baseline, context and width of a forecast with `model: auto`, on rolling origins of its training part.

    `driftline train` and `driftline run` do it first. It is done once; a search that was stopped goes on where it was. Every
    candidate, its error and its cost stand in runs/NAME/chosen.json and in the report.

    \b
    Examples:
      driftline choose my-run.yaml --dry-run
      driftline choose my-run.yaml
    """
    return verbs.stage("choose", config, overrides, dry_run, json_)


@command()
def train(config: Config, overrides: Overrides = None, dry_run: DryRun = False, json_: AsJson = False) -> int | None:
    """Train the network on the cube's newest version.

    Of a forecast, or of labelled change; with `model: auto` the network is chosen first. An interrupted training resumes.

    \b
    Examples:
      driftline train my-run.yaml
      driftline train my-run.yaml --set training.epochs=5 --set model.members=1
    """
    return verbs.stage("train", config, overrides, dry_run, json_)


@command(short_help="Evaluate the model and its baselines on held-out data.")
def evaluate(
    config: Config, overrides: Overrides = None, model: Model = None, model_as_is: ModelAsIs = False, dry_run: DryRun = False,
    json_: AsJson = False,
) -> int | None:  # fmt: skip
    """Evaluate the model and its baselines: a forecast on held-out blocks and dates, labelled change on held-out sites,
    monitoring on simulated breaks of known size and date. --model scores one that was trained before.

    \b
    Examples:
      driftline evaluate my-run.yaml
      driftline evaluate other-place.yaml --model runs/my-run
      driftline evaluate my-run.yaml --json | jq .verdict
    """
    return verbs.stage("evaluate", config, with_model(overrides, model, model_as_is), dry_run, json_)


@command(short_help="Predict the whole raster; publish GeoTIFFs, STAC and pictures.")
def predict(
    config: Config, overrides: Overrides = None, model: Model = None, model_as_is: ModelAsIs = False,
    slice_: Share = None, finish: Finish = False, force: Force = False,
    even_if_worse: IfWorse = False, even_if_confounded: IfConfounded = False, dry_run: DryRun = False, json_: AsJson = False,
) -> int | None:  # fmt: skip
    """Predict the whole raster and publish it: COGs, STAC, pictures, report; a forecast with intervals, or change with polygons.

    It replaces what the run had published. Another `name` keeps both; it is another run, which must be trained first, or given
    a model that was trained before: --model compares it with these images, scores it where there is truth, and predicts.
    A slice predicts every N-th region, or batch of samples; --finish checks that all are there.

    \b
    Examples:
      driftline predict my-run.yaml
      driftline predict other-place.yaml --model runs/my-run
      driftline predict my-run.yaml --set prediction.issue=2020-06-05
      driftline run my-run.yaml --set prediction.issue=2020-06-05 --set name=june
      driftline predict my-run.yaml --slice 3/8          # on eight machines, then on one of them:
      driftline predict my-run.yaml --finish
    """
    forced = {"even_if_worse": even_if_worse, "even_if_confounded": even_if_confounded}
    changed = with_model(overrides, model, model_as_is)
    if slice_ is not None:
        require_alone(finish, dry_run)
        return verbs.slice_of("predict", config, changed, slice_, json_, **forced)
    return verbs.stage("predict", config, changed, dry_run, json_, **forced, force=force, is_finishing=finish)


@command(short_help="Score archived forecasts with the dates that arrived since.")
def verify(config: Config, overrides: Overrides = None, json_: AsJson = False) -> int | None:
    """Compare every archived forecast with the cube's newest version, where its target dates have arrived: error of what was
    published and of its rival, bias, coverage; the report shows them over time. Ingests nothing itself.

    A network that loses to its baseline over the newest target dates (evaluation.verify_dates) gives way to it at the next
    `driftline predict`, and comes back when it no longer loses.

    \b
    Examples:
      driftline verify my-run.yaml
      driftline verify my-run.yaml --set evaluation.verify_dates=30
      driftline verify my-run.yaml --json | jq .standing
    """
    return verbs.stage("verify", config, overrides, False, json_)


@command(short_help="Ingest new scenes, update change maps, raise alerts.")
def monitor(
    config: Config, overrides: Overrides = None, restart: Restart = False, slice_: Share = None, finish: Finish = False,
    force: Force = False, dry_run: DryRun = False, json_: AsJson = False,
) -> int | None:  # fmt: skip
    """Ingest new scenes, update the saved state of every tile, update change maps and the alert log.

    For runs with `task: monitor`. Without new scenes it does nothing; a late or reprocessed scene recomputes what it affects.
    A slice, and --finish, leave the cube as `driftline ingest CONFIG` has left it.

    \b
    Examples:
      driftline monitor forest.yaml
      driftline monitor forest.yaml --json | jq .alerts
      driftline monitor forest.yaml --restart
      driftline monitor forest.yaml --slice 3/8          # on eight machines, then on one of them:
      driftline monitor forest.yaml --finish
    """
    if slice_ is not None:
        if finish or dry_run or restart:
            raise RequestError("--slice does a share of the work; leave out --finish, --restart and --dry-run")
        return verbs.slice_of("monitor", config, overrides or [], slice_, json_)
    if finish and restart:
        raise RequestError("--restart begins anew, --finish publishes what slices have done; leave one of them out")
    return verbs.stage("monitor", config, overrides, dry_run, json_, restart=restart, force=force, is_finishing=finish)


command(short_help="Map what changed between two images, without labels or a config.")(change)


@command(short_help="Run all stages and the report, skipping what is up to date.")
def run(
    config: Config, overrides: Overrides = None, model: Model = None, model_as_is: ModelAsIs = False, force: Force = False,
    even_if_worse: IfWorse = False, even_if_confounded: IfConfounded = False, dry_run: DryRun = False, json_: AsJson = False,
) -> int | None:  # fmt: skip
    """Run all stages of the task and the report, skipping what is up to date.

    \b
    Examples:
      driftline run my-run.yaml --dry-run
      driftline run my-run.yaml
      driftline run my-run.yaml --even-if-worse
      driftline run other-place.yaml --model runs/my-run
    """
    forced = {"even_if_worse": even_if_worse, "even_if_confounded": even_if_confounded, "force": force}
    return verbs.stage("run", config, with_model(overrides, model, model_as_is), dry_run, json_, **forced)


@command()
def report(config: Config, overrides: Overrides = None, model: Model = None, json_: AsJson = False) -> int | None:
    """Rewrite summary.json and the report of a finished run.

    \b
    Examples:
      driftline report my-run.yaml
    """
    return verbs.stage("report", config, with_model(overrides, model, False), False, json_)


command(short_help="Search for better settings on the validation part.")(sweep)
command(short_help="List trained models: on what they were trained, how good they are.")(models)


command(short_help="Track every object of a series of masks: size, position, events.")(track)
command(short_help="Show what a cube holds: grid, bands, dates, usable share.")(cli_cube.info)
command(short_help="List the versions of a cube and what each one changed.")(cli_cube.history)
command(short_help="Read all of a cube and name what is damaged.")(cli_cube.check)
command(short_help="Take a scene out of a cube, for good.")(cli_cube.drop)
command(short_help="Write a plain Zarr copy of a cube for other tools.")(cli_cube.export)
command(short_help="List what a run needs no more; remove it.")(cli_house.gc)
command(short_help="Copy a run and its cube, with checksums.")(cli_house.backup)
command(short_help="Write a run back from a backup, verified.")(cli_house.restore)
command(short_help="Write masks of a DICOM series as DICOM SEG.")(cli_seg.export_seg)


command(short_help="Copy DICOM files without what identifies patients; audit.")(cli_medical.deidentify)
command(short_help="Name the patients behind pseudonyms, with the key.")(cli_medical.reidentify)


@command(short_help="Prefect server, UI, deployments and workers on this machine.")
def serve(
    config: Annotated[
        str | None, typer.Argument(metavar="[RUN.yaml]", help="config of the run that the deployments execute")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="port on 127.0.0.1; 0 takes a free one")] = 4200,
    schedule: Annotated[str | None, typer.Option(help='cron expression (UTC) that runs RUN.yaml, e.g. "0 6 * * *"')] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER_OR_URI",
            help="runs may read and write there too, besides the working folder and what RUN.yaml names; may be repeated",
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="start everything, check that it answers, stop it again")] = False,
    json_: AsJson = False,
) -> int | None:
    """Start a Prefect server with its UI, the deployments and workers on this machine, on 127.0.0.1 only; Ctrl-C ends all.

    The address that it prints holds a token: anyone who has it can start runs. To set your own password instead:
    PREFECT_SERVER_API_AUTH_STRING.

    \b
    Examples:
      driftline serve
      driftline serve my-run.yaml --schedule "0 6 * * *"
      driftline serve my-run.yaml --allow /data/archive --allow s3://bucket/cubes
    """
    from flows.serve import serve as serve_here

    if schedule and not config:
        raise RequestError("--schedule needs a RUN.yaml to run: driftline serve my-run.yaml --schedule ...")
    content = serve_here(config, port=port, schedule=schedule, allow=allow or [], check=check)
    return show(content, verbs.check_lines(content), json_) if check else DONE


command(short_help="Check this machine: versions, disk, drivers, GPU, Prefect.")(cli_house.doctor)


@command(short_help="Fetch real data and run everything on it.")
def demo(
    overrides: Overrides = None,
    change: Annotated[bool, typer.Option("--change", help="monitor the forest for felling instead of forecasting NDVI")] = False,
    medical: Annotated[bool, typer.Option("--medical", help="de-identify an echocardiogram, forecast and track it")] = False,
    dry_run: DryRun = False,
    even_if_worse: IfWorse = False,
    json_: AsJson = False,
) -> int | None:
    """Fetch real Sentinel-2 data (11 MB, once) and run everything on it; prints the paths of map, picture and report.

    --medical takes a clip of 30 frames out of the package pydicom, and needs driftline[medical].

    \b
    Examples:
      driftline demo
      driftline demo --change
      driftline demo --medical
      driftline demo --set training.epochs=2
    """
    from flows.demo import CHANGE, FORECAST, demo_config, fetch_data

    if change and medical:
        raise RequestError("--change and --medical are two demos; name one of them")
    if medical:
        return demo_medical(overrides or [], dry_run, json_, even_if_worse)
    fetch_data(Bars())
    config = str(demo_config(CHANGE if change else FORECAST))
    return verbs.stage("run", config, overrides, dry_run, json_, even_if_worse=even_if_worse)


def demo_medical(overrides: list[str], dry_run: bool, as_json: bool, even_if_worse: bool) -> int:
    """`driftline demo --medical`: the region is tracked first, because a forecast that is refused ends the run."""
    from flows.demo import demo_config
    from flows.demo_medical import MEDICAL, fetch_clip, track_region

    fetch_clip()
    config = str(demo_config(MEDICAL))
    if not dry_run:
        verbs.perform("ingest", config, overrides, Bars(), {})
        track_region(config, overrides, Bars())
    return verbs.stage("run", config, overrides, dry_run, as_json, even_if_worse=even_if_worse)


def main() -> None:
    """The entry point of the command `driftline`."""
    try:
        app()
    except SystemExit as e:
        if e.code == TERMINATED:
            exit_soon()
        raise


if __name__ == "__main__":
    main()
