"""`--dry-run` for monitoring: about how much disk, memory and time (flows/planning.py)."""

from configs.tasks.monitor import MonitorRun
from flows.folder import RunFolder
from flows.planning import STARTUP_MB, STARTUP_S, Extent, PlannedStep, measure, plan_ingest

FIT_VALUES_S = 2e6  # pixel-dates of a harmonic curve, with its calibration
STEP_VALUES_S = 5e6  # pixel-dates that a sequential test takes in
STATE_BYTES = 220  # of a pixel: what is expected, where the test stands, and the states kept for late scenes


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
