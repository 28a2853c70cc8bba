"""The flow `run`. What it does stands in flows/tasks/ and flows/stage.py; here is what Prefect adds."""

from typing import Any

from prefect import flow

from flows.tracking import carry_out, name_of_run


@flow(name="run", flow_run_name=name_of_run, validate_parameters=True, persist_result=False)
def run_flow(config: str, overrides: list[str] | None = None, even_if_worse: bool = False) -> Any:
    """Ingest to report. `config` is a path as the worker sees it."""
    return carry_out(config, overrides, "run", even_if_worse=even_if_worse)
