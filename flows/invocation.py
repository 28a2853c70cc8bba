"""One call of a verb: the run's config, its folder, and how its steps are carried out and shown."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.load import write_resolved
from flows.folder import RunFolder, exclusive_run, sweep
from flows.limits import load_run_within_limits
from flows.steps import Caller, Display, Silent, Steps, call_plainly


@dataclass(frozen=True)
class Invocation:
    """`run` is a Run, MonitorRun or ChangeRun: the stages of a task know which one is theirs."""

    run: Any
    folder: RunFolder
    steps: Steps
    even_if_worse: bool = False
    restart: bool = False


def open_invocation(
    config: str | Path,
    overrides: Sequence[str] = (),
    display: Display | None = None,
    *,
    call: Caller = call_plainly,
    flow_run: str = "",
    even_if_worse: bool = False,
    restart: bool = False,
    inputs_must_exist: bool = True,
    is_deployed: bool = False,
) -> Invocation:
    """Reads the config (raises ConfigError, MissingInput, and RequestError for a path that the run may not touch)."""
    shown = display or Silent()
    run = load_run_within_limits(
        config, overrides, inputs_must_exist=inputs_must_exist, is_deployed=is_deployed, notify=shown.log
    )
    folder = RunFolder.of(run)
    return Invocation(run, folder, Steps(folder.steps, shown, call, flow_run), even_if_worse, restart)


@contextmanager
def remembering_folder(invocation: Invocation) -> Iterator[None]:
    """Holds the run's folder for this process alone, with the resolved config in it; unexpected errors learn where it is.

    Raises RunBusy if another process carries out the run.
    """
    try:
        with exclusive_run(invocation.folder):
            sweep(invocation.folder)
            write_resolved(invocation.run, invocation.folder.config)
            yield
    except Exception as e:
        e.driftline_folder = invocation.folder.path  # type: ignore[attr-defined]
        raise
