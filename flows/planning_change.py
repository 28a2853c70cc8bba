"""`--dry-run` for labelled change and for monitoring: about how much disk, memory and time (flows/planning.py)."""

from math import ceil

from configs import build_change
from configs.tasks.change import ChangeRun
from configs.tasks.monitor import MonitorRun
from flows.folder import RunFolder
from flows.planning import STARTUP_MB, STARTUP_S, Extent, PlannedStep, measure, plan_ingest
from pipelines.change.groups import LEAST_GROUPS, STRIPS

FIT_VALUES_S = 2e6  # pixel-dates of a harmonic curve, with its calibration
STEP_VALUES_S = 5e6  # pixel-dates that a sequential test takes in
STATE_BYTES = 220  # of a pixel: what is expected, where the test stands, and the states kept for late scenes
CHANGE_FLOP_S = 8e9  # small convolutions on windows, forward and backward, one core


def plan_monitoring(run: MonitorRun, folder: RunFolder, verb: str) -> tuple[Extent, list[PlannedStep]]:
    """The extent of the cube and the steps of a verb."""
    extent = measure(run, folder, verb)
    steps = [plan_ingest(run.cube, extent)] if verb in ("ingest", "run", "monitor") else []
    if verb in ("evaluate", "run"):
        methods = 1 + len(run.evaluation.references)
        values = min(run.evaluation.pixels * 2, extent.pixels) * extent.dates * methods * (1 + len(run.evaluation.drops))
        seconds = STARTUP_S + values / FIT_VALUES_S + extent.pixels * extent.dates / STEP_VALUES_S
        what = f"{methods} methods on breaks of {len(run.evaluation.drops)} sizes"
        steps.append(PlannedStep("evaluate", what, seconds, 1.0, STARTUP_MB + run.evaluation.pixels * extent.dates * 40 / 1e6))
    if verb in ("monitor", "run"):
        fits, seen = extent.pixels * extent.train_dates, extent.pixels * (extent.dates - extent.train_dates)
        seconds = STARTUP_S + fits / FIT_VALUES_S + seen / STEP_VALUES_S
        tile = min(run.monitoring.tile_px, *extent.shape_yx) ** 2
        memory = STARTUP_MB + tile * (extent.train_dates * 40 + STATE_BYTES * 3) / 1e6
        what = f"{extent.train_dates} dates of history, {extent.dates - extent.train_dates} to judge"
        if extent.train_dates == 0 or (verb == "run" and extent.train_dates == extent.dates):
            what += f": monitoring.start {run.monitoring.start:%Y-%m-%d} is not within the series, this cannot run"
        steps.append(PlannedStep("monitor", what, seconds, extent.pixels * STATE_BYTES / 1e6, memory))
    return extent, steps


def plan_change(run: ChangeRun, folder: RunFolder, verb: str) -> tuple[Extent, list[PlannedStep]]:
    """The extent over all sites (as one site of as many pixels) and the steps of a verb."""
    sources = build_change.build_sites(run)
    shapes = {name: source.native_grid().shape_yx for name, source in sources.items()}
    first = next(iter(sources.values()))
    dates = max(len(source.list_scenes().scenes) for source in sources.values())
    pixels = sum(rows * columns for rows, columns in shapes.values())
    width = max(columns for _, columns in shapes.values())
    extent = Extent(dates, dates, (ceil(pixels / width), width), len(first.bands), first.dtype().itemsize)
    groups = len(shapes) - sum(
        len(set(group) & shapes.keys()) - 1 for group in run.evaluation.groups if set(group) & shapes.keys()
    )
    members = groups if groups >= LEAST_GROUPS else STRIPS
    training, models = run.training, (1 + len(run.evaluation.compare)) * run.evaluation.seeds
    inputs = [extent.bands + 1, *run.model.widths]
    flop_px = sum(2 * 9 * (a + b) * b * dates / 4**i for i, (a, b) in enumerate(zip(inputs, run.model.widths, strict=False))) * 3
    one = 3 * flop_px * training.window_px**2 * training.windows * training.epochs / CHANGE_FLOP_S
    memory = STARTUP_MB + training.batch * training.window_px**2 * dates * sum(run.model.widths) * 4 * 12 / 1e6
    steps = [plan_ingest(run.cube, extent)] if verb in ("ingest", "run") else []
    if verb in ("train", "run"):
        steps.append(PlannedStep("train", f"{members} networks", STARTUP_S + one * members, 20.0, memory))
    if verb in ("evaluate", "run"):
        what = f"{models} models, every group of sites left out once"
        steps.append(PlannedStep("evaluate", what, STARTUP_S + one * models * members * (members - 1) / 2, 20.0, memory))
    if verb in ("predict", "run"):
        seconds = STARTUP_S + 3 * len(shapes) + pixels * flop_px * members / CHANGE_FLOP_S
        steps.append(PlannedStep("predict", f"{len(shapes)} sites", seconds, pixels * 8 / 1e6, memory))
    return extent, steps
