"""The state of a monitoring run: where it is, and how it is brought up to the cube: as a whole, or a slice of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from configs.tasks import monitor as config
from flows.task import Invocation
from pipelines.errors import MissingInput
from pipelines.slices import Slice, SliceDone

if TYPE_CHECKING:
    from pipelines.monitoring.areas import MonitoredCube
    from pipelines.monitoring.blocks import Counts
    from pipelines.monitoring.context import MonitorContext
    from pipelines.progress import Progress


def open_cube(context: Invocation, snapshot: str = "") -> MonitoredCube:
    """The cube with the monitored variable, by default its newest version."""
    from pipelines.monitoring.areas import open_monitored

    run = context.run
    return open_monitored(context.folder.cube_uri, config.build_variable(run), run.monitoring.start, snapshot)


def state_of(context: Invocation) -> str:
    """Where the state is kept."""
    return context.folder.place_of("state", context.run.monitoring.state)


def networks_of(context: Invocation, *, may_train: bool = True) -> config.Networks:
    return config.Networks(state_of(context), context.folder.state, may_train)


def open_state(context: Invocation, progress: Progress, *, may_train: bool = True) -> MonitorContext:
    """Trains and calibrates where monitoring begins. Raises StateError, RequestError."""
    from pipelines.monitoring.areas import require_history
    from pipelines.monitoring.context import open_context

    run, cube = context.run, open_cube(context)
    require_history(cube)
    expected = config.build_expected_values(run, cube, networks_of(context, may_train=may_train), progress)
    opened = open_context(cube, expected, config.build_monitor_settings(run), state_of(context))
    if opened.note:
        context.steps.log(f"monitor: {opened.note}")
    return opened


def advance(context: Invocation, opened: MonitorContext) -> Counts:
    """The state at the cube's dates. With `--finish` nothing is computed: StateError where slices have left something out."""
    from pipelines.monitoring.blocks import Counts
    from pipelines.monitoring.replay import advance_all, require_current, sweep

    do, monitoring = partial(context.steps.do, "monitor"), opened.monitoring
    if context.is_finishing:
        do("check the blocks of all slices", lambda _: require_current(monitoring))
        sweep(monitoring)
        return Counts()
    return do("advance the state", lambda show: advance_all(monitoring, context.run.compute.build(), show))


def advance_share(context: Invocation, share: Slice) -> SliceDone:
    """Every N-th block of the state. Raises RequestError, MissingInput for a model that another slice might not have."""
    from pipelines.monitoring.replay import advance_slice

    do, compute = partial(context.steps.do, "monitor"), context.run.compute.build()
    opened = do("compare state and cube", lambda show: open_state(context, show, may_train=False))
    if opened.expected.fallback:
        raise MissingInput(f"{opened.expected.fallback}: every slice needs the same model")
    return do(f"advance slice {share} of the state", lambda show: advance_slice(opened.monitoring, share, compute, show))
