"""`--dry-run` of monitoring: how long its stages take, and how much memory and disk."""

from configs.tasks.monitor import MonitorRun
from flows.folder import RunFolder
from flows.planning import MAPS, Extent, PlannedStep, estimate, spread
from pipelines.errors import RequestError
from pipelines.monitoring.context import RECORD, read_record
from pipelines.stored_files import files_at
from pipelines.wording import counted

FIT_VALUES_S = 2e6  # pixel-dates of a harmonic curve, with its calibration, one core
STEP_VALUES_S = 5e6  # pixel-dates that a sequential test takes in
STATE_BYTES = 220  # of a pixel: expected values, the test, and the states kept for late scenes


def plan_evaluate(run: MonitorRun, extent: Extent) -> PlannedStep:
    methods, drops = 1 + len(run.evaluation.references), len(run.evaluation.drops)
    values = min(run.evaluation.pixels * 2, extent.pixels) * extent.dates * methods * (1 + drops)
    seconds = values / FIT_VALUES_S + extent.pixels * extent.dates / STEP_VALUES_S
    memory = run.evaluation.pixels * extent.dates * 40 / 1e6
    what = f"{counted(methods, 'method')} on simulated breaks of {counted(drops, 'size')}"
    machine = extent.machine
    return estimate("evaluate", what, seconds / machine.numerics, 0.1, memory, extent.bytes / 1e6, machine=machine)


def known_dates(run: MonitorRun, folder: RunFolder) -> int:
    """How many dates a state of the run has taken in; 0 where there is none."""
    state = folder.place_of("state", run.monitoring.state)
    models = (name.removesuffix(f"/{RECORD}") for name in files_at(state).names("") if name.endswith(f"/{RECORD}"))
    return max((len(read_record(f"{state}/{model}").get("dates", ())) for model in models), default=0)


def plan_monitor(run: MonitorRun, extent: Extent, verb: str, known: int = 0) -> PlannedStep:
    """A first look, or `known` dates and the new ones."""
    history, monitored = extent.train_dates, extent.dates - extent.train_dates
    fitted, stepped = (0, max(extent.dates - known, 0)) if known else (history, monitored)
    seconds = extent.pixels * fitted / FIT_VALUES_S + extent.pixels * stepped / STEP_VALUES_S
    tile = min(run.monitoring.tile_px, *extent.shape_yx) ** 2
    memory = tile * (history * 40 + STATE_BYTES * 3) / 1e6
    what = f"{history} dates of history, {monitored} to monitor"
    if verb != "ingest" and (history == 0 or (verb != "monitor" and monitored == 0)):
        needs = "dates before it" if verb == "monitor" else "dates before and from it on"
        raise RequestError(f"monitoring.start {run.monitoring.start:%Y-%m-%d} leaves {what}; `driftline {verb}` needs {needs}")
    what += f"; {counted(stepped, 'date')} since the last time" if known else ""
    machine, disk = extent.machine, 0.0 if known else extent.pixels * STATE_BYTES / 1e6
    seconds, memory, busy = spread(run, seconds / machine.numerics, memory)
    read = extent.bytes / 1e6 * (fitted + stepped) / max(extent.dates, 1)
    return estimate("monitor", what, seconds, disk, memory, read, machine=machine, busy=busy, publishes=MAPS)
