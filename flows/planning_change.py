"""`--dry-run` for labelled change: about how much disk, memory and time (flows/planning.py)."""

from math import ceil

from configs import build_change
from configs.tasks.change import ChangeRun
from flows.folder import RunFolder
from flows.planning import STARTUP_MB, STARTUP_S, Extent, PlannedStep, plan_ingest
from pipelines.change.groups import LEAST_GROUPS, STRIPS

CHANGE_FLOP_S = 8e9  # small convolutions on windows, forward and backward, one core


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
