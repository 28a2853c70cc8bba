"""The tasks: one file each, one line in the table; and the flows that carry out their verbs."""

from importlib import import_module
from typing import Any

from flows.task import Task
from pipelines.errors import RequestError

TASKS = {
    "forecast": "flows.tasks.forecast:Forecast",
    "change": "flows.tasks.change:Change",
    "monitor": "flows.tasks.monitor:Monitor",
    "pair": "flows.tasks.pair:Pair",
    "segment": "flows.tasks.segment:Segment",
    "classify": "flows.tasks.classify:Classify",
    "regress": "flows.tasks.regress:Regress",
    "detect": "flows.tasks.detect:Detect",
    "describe": "flows.tasks.describe:Describe",
    "generate": "flows.tasks.generate:Generate",
    "follow_up": "flows.tasks.follow_up:FollowUp",
    "pretrain": "flows.tasks.pretrain:Pretrain",
}
FLOWS = (
    "ingest",
    "train",
    "evaluate",
    "predict",
    "verify",
    "monitor",
    "run",
    "sweep",
)  # in flows.entrypoints; `report` takes seconds: no flow


def task_of(name: str) -> Task:
    """The task of that name (a key of `TASKS`), imported only now."""
    module, _, attribute = TASKS[name].partition(":")
    task: Task = getattr(import_module(module), attribute)()
    return task


def entrypoint_of(flow: str) -> str:
    """The module entrypoint of a flow of `FLOWS`, as Prefect writes it."""
    return f"flows.entrypoints.{flow}_flow"


def load_flow(name: str) -> Any:
    """The Prefect flow of that name, imported only now. Raises RequestError for one that is not ours."""
    if name not in FLOWS:
        raise RequestError(f"driftline's flows are {', '.join(FLOWS)}, not {name!r}")
    module, _, attribute = entrypoint_of(name).rpartition(".")
    return getattr(import_module(module), attribute)
