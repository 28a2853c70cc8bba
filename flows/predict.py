"""The flow `predict`. What it does stands in flows/tasks/ and flows/stage.py; here is what Prefect adds."""

from typing import Any

from prefect import flow

from flows.tracking import carry_out, name_of_run


@flow(name="predict", flow_run_name=name_of_run, validate_parameters=True, persist_result=False)
def predict_flow(config: str, overrides: list[str] | None = None, even_if_worse: bool = False) -> Any:
    """Forecaster + cube -> published forecast. `config` is a path as the worker sees it."""
    return carry_out(config, overrides, "predict", even_if_worse=even_if_worse, inputs_must_exist=False)
