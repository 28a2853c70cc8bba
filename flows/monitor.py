"""The flow `monitor`. What it does stands in flows/tasks/ and flows/stage.py; here is what Prefect adds."""

from typing import Any

from prefect import flow

from flows.tracking import carry_out, name_of_run


@flow(name="monitor", flow_run_name=name_of_run, validate_parameters=True, persist_result=False)
def monitor_flow(config: str, overrides: list[str] | None = None, restart: bool = False) -> Any:
    """New scenes -> saved state one step on -> change maps and alerts. `config` is a path as the worker sees it."""
    return carry_out(config, overrides, "monitor", restart=restart)
