"""All stages of a task, each skipping what is up to date."""

from collections.abc import Callable
from typing import Any

from flows.invocation import Invocation
from flows.stages import body_of

Stage = Callable[[Invocation], dict[str, Any]]


def run_forecast(invocation: Invocation) -> dict[str, Any]:
    """Ingest -> train -> evaluate -> predict -> report; what the run left, and what was refused on the way."""
    return _in_turn(invocation, "forecast", "ingest", "train", "evaluate", "predict")


def run_change(invocation: Invocation) -> dict[str, Any]:
    """Ingest every place -> train -> evaluate -> predict -> report."""
    return _in_turn(invocation, "change", "ingest", "train", "evaluate", "predict")


def run_monitoring(invocation: Invocation) -> dict[str, Any]:
    """Ingest -> evaluate on injected breaks -> monitor -> report."""
    from flows.stages.monitor import monitor

    return _in_turn(invocation, "monitor", "ingest", "evaluate", last=monitor)


def run_monitor(invocation: Invocation) -> dict[str, Any]:
    """Ingest -> monitor -> report: what a scheduled night does."""
    from flows.stages.monitor import monitor

    return _in_turn(invocation, "monitor", "ingest", last=monitor)


def _in_turn(invocation: Invocation, task: str, *verbs: str, last: Stage | None = None) -> dict[str, Any]:
    """The record of the last stage, with what ingest refused; the last stage writes the report."""
    stages = [body_of(verb, task) for verb in verbs] + ([last] if last else [])
    records = [stage(invocation) for stage in stages]
    result, is_nothing_new = records[-1], all(record.get("skipped") for record in records)
    if is_nothing_new:
        invocation.steps.log("nothing to do: everything is up to date")
        result = {**result, "message": "nothing to do: everything is up to date"}
    return {**result, "task": task, "refused": records[0]["refused"], "skipped": is_nothing_new}
