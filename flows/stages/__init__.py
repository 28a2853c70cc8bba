"""What the verbs do: plain functions over one invocation, each plan -> map -> finish. No Prefect, no array maths."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from pipelines.errors import RequestError

STAGES = {
    "forecast": {
        "ingest": "flows.stages.ingest:ingest",
        "train": "flows.stages.train:train",
        "evaluate": "flows.stages.evaluate:evaluate",
        "predict": "flows.stages.predict:predict",
        "report": "flows.stages.report:report",
        "run": "flows.stages.run:run_forecast",
    },
    "monitor": {
        "ingest": "flows.stages.ingest:ingest",
        "evaluate": "flows.stages.monitor_evaluate:evaluate_monitoring",
        "monitor": "flows.stages.run:run_monitor",
        "report": "flows.stages.monitor_report:report",
        "run": "flows.stages.run:run_monitoring",
    },
    "change": {
        "ingest": "flows.stages.change_ingest:change_ingest",
        "train": "flows.stages.change_train:change_train",
        "evaluate": "flows.stages.change_evaluate:change_evaluate",
        "predict": "flows.stages.change_predict:change_predict",
        "report": "flows.stages.change_report:change_report",
        "run": "flows.stages.run:run_change",
    },
}

WITHOUT_FLOW = ("report",)  # seconds on this machine: nothing to schedule
FLOWS = tuple(dict.fromkeys(verb for verbs in STAGES.values() for verb in verbs if verb not in WITHOUT_FLOW))


def entrypoint_of(flow: str) -> str:
    """The module entrypoint of a flow of `FLOWS`, as Prefect writes it."""
    return f"flows.{flow}.{flow}_flow"


def load_flow(name: str) -> Any:
    """The Prefect flow of that name, imported only now. Raises RequestError for one that is not ours."""
    if name not in FLOWS:
        raise RequestError(f"driftline's flows are {', '.join(FLOWS)}, not {name!r}")
    module, _, attribute = entrypoint_of(name).rpartition(".")
    return getattr(import_module(module), attribute)


def body_of(verb: str, task: str) -> Callable[[Any], dict[str, Any]]:
    """The function of one invocation that carries out a verb of a task, imported only now.

    Raises RequestError for a verb that the task does not have.
    """
    verbs = STAGES[task]
    if verb not in verbs:
        having = [name for name, known in STAGES.items() if verb in known]
        raise RequestError(
            f"`driftline {verb}` is for runs with `task: {' or '.join(having)}`; this one has `task: {task}`, "
            f"whose verbs are {', '.join(verbs)}"
        )
    module, _, name = verbs[verb].partition(":")
    return getattr(import_module(module), name)
