"""What the verbs do: plain functions over one invocation, each plan -> map -> finish. No Prefect, no array maths."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

STAGES = {
    "ingest": "flows.stages.ingest:ingest",
    "train": "flows.stages.train:train",
    "evaluate": "flows.stages.evaluate:evaluate",
    "predict": "flows.stages.predict:predict",
    "report": "flows.stages.report:report",
    "run": "flows.stages.run:run_all",
}


def body_of(verb: str) -> Callable[[Any], dict[str, Any]]:
    """The function of one invocation that carries out a verb, imported only now."""
    module, _, name = STAGES[verb].partition(":")
    return getattr(import_module(module), name)
