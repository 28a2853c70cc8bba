"""The flow `ingest`. What it does stands in flows/tasks/ and flows/stage.py; here is what Prefect adds."""

from typing import Any

from prefect import flow

from flows.tracking import carry_out, name_of_run


@flow(name="ingest", flow_run_name=name_of_run, validate_parameters=True, persist_result=False)
def ingest_flow(config: str, overrides: list[str] | None = None) -> Any:
    """Scenes -> cube. `config` is a path as the worker sees it."""
    return carry_out(config, overrides, "ingest")
