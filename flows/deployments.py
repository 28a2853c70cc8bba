"""The deployments that `driftline serve` makes: those of prefect.yaml, for the config that it was given."""

from pathlib import Path
from typing import Any

import yaml

from configs.load import load_run, log
from flows.tasks import FLOWS, entrypoint_of, task_of
from pipelines.errors import MissingInput, RequestError

ROOT = Path(__file__).resolve().parents[1]


def read_deployments(config: str | None, schedule: str | None) -> list[dict[str, Any]]:
    """The deployments of prefect.yaml.

    `config` replaces the run that they carry out, and leaves those that its task has; `schedule` activates the one that is
    meant to be called again and again: `monitor` for a run with `task: monitor`, else `run`.
    """
    path = next((p for p in (Path("prefect.yaml"), ROOT / "prefect.yaml") if p.is_file()), None)
    if path is None:
        raise MissingInput("no prefect.yaml here; call `driftline serve` in the folder that holds it (it comes with the source)")
    deployments = own_deployments(path)
    task = load_run(config, inputs_must_exist=False, notify=log.debug).task if config else "forecast"
    if config:
        deployments = [deployment for deployment in deployments if deployment["name"] in task_of(task).verbs]
    scheduled = "monitor" if task == "monitor" else "run"
    for deployment in deployments:
        if config:
            deployment["parameters"] = {**deployment.get("parameters", {}), "config": str(Path(config).absolute())}
        if schedule and deployment["name"] == scheduled:
            deployment["schedules"] = [{"cron": schedule, "timezone": "UTC", "active": True}]
    return deployments


def own_deployments(path: Path) -> list[dict[str, Any]]:
    """The deployments of a prefect.yaml. Raises RequestError for one that is not of a flow of driftline: no worker runs it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        mark = getattr(e, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(e, "problem", None) or e
        raise RequestError(f"{where}: not valid YAML: {problem}; mend it, or call `driftline serve` in another folder") from e
    deployments = content.get("deployments") if isinstance(content, dict) else None
    known = [entrypoint_of(flow) for flow in FLOWS]
    for one in deployments if isinstance(deployments, list) else [None]:
        if not isinstance(one, dict) or one.get("entrypoint") not in known or not {"name", "work_pool"} <= one.keys():
            raise RequestError(
                f"{path}: expected deployments with name, work_pool and one of the entrypoints {', '.join(known)}; "
                f"found {str(one)[:200]}; call `driftline serve` in another folder, and start other flows with Prefect's own "
                "commands"
            )
    return deployments  # type: ignore[return-value]  # a list of mappings: seen above


def scheduled_of(deployments: list[dict[str, Any]]) -> tuple[str, str] | None:
    """(name, cron) of the deployment with an active schedule, if there is one."""
    return next(((d["name"], s["cron"]) for d in deployments for s in d.get("schedules", []) if s["active"]), None)
