"""The Prefect flows. What they do stands in flows/tasks/ and flows/stage.py; here is what Prefect adds."""

from typing import Any

from prefect import flow

from flows.tracking import carry_out, name_of_run

OPTIONS: dict[str, Any] = {"flow_run_name": name_of_run, "validate_parameters": True, "persist_result": False}


@flow(name="ingest", **OPTIONS)
def ingest_flow(config: str, overrides: list[str] | None = None, retry_refused: bool = False) -> Any:
    """Scenes -> cube. `config` is a path as the worker sees it."""
    return carry_out(config, overrides, "ingest", retry_refused=retry_refused)


@flow(name="train", **OPTIONS)
def train_flow(config: str, overrides: list[str] | None = None) -> Any:
    """Cube -> forecaster. `config` is a path as the worker sees it."""
    return carry_out(config, overrides, "train", inputs_must_exist=False)


@flow(name="evaluate", **OPTIONS)
def evaluate_flow(config: str, overrides: list[str] | None = None) -> Any:
    """Forecaster -> verdict. `config` is a path as the worker sees it."""
    return carry_out(config, overrides, "evaluate", inputs_must_exist=False)


@flow(name="predict", **OPTIONS)
def predict_flow(
    config: str, overrides: list[str] | None = None, even_if_worse: bool = False, even_if_confounded: bool = False,
    force: bool = False,
) -> Any:  # fmt: skip
    """Forecaster + cube -> published forecast. `config` is a path as the worker sees it."""
    forced = {"even_if_worse": even_if_worse, "even_if_confounded": even_if_confounded, "force": force}
    return carry_out(config, overrides, "predict", **forced, inputs_must_exist=False)


@flow(name="verify", **OPTIONS)
def verify_flow(config: str, overrides: list[str] | None = None) -> Any:
    """Archived forecasts + cube -> scores over time. `config` is a path as the worker sees it."""
    return carry_out(config, overrides, "verify", inputs_must_exist=False)


@flow(name="monitor", **OPTIONS)
def monitor_flow(config: str, overrides: list[str] | None = None, restart: bool = False, force: bool = False) -> Any:
    """New scenes -> saved state one step on -> change maps and alerts. `config` is a path as the worker sees it."""
    return carry_out(config, overrides, "monitor", restart=restart, force=force)


@flow(name="sweep", **OPTIONS)
def sweep_flow(config: str, overrides: list[str] | None = None, restart: bool = False) -> Any:
    """Trials of other settings -> the best of them by the validation part. `config` is a path as the worker sees it."""
    return carry_out(config, overrides, "sweep", restart=restart, inputs_must_exist=False)


@flow(name="run", **OPTIONS)
def run_flow(
    config: str, overrides: list[str] | None = None, even_if_worse: bool = False, even_if_confounded: bool = False,
    force: bool = False,
) -> Any:  # fmt: skip
    """Ingest to report. `config` is a path as the worker sees it."""
    forced = {"even_if_worse": even_if_worse, "even_if_confounded": even_if_confounded, "force": force}
    return carry_out(config, overrides, "run", **forced)
