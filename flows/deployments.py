"""The deployments of `driftline serve`: those of prefect.yaml, for the config that it was given; and their registration.

`python -m flows.deployments` registers them, with work pools and the automation that detects dead runs, on a new server: with
PREFECT_API_URL and PREFECT_API_AUTH_STRING set and the request as JSON on stdin.
"""

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from configs.load import load_run, log
from flows import Json
from flows.tasks import FLOWS, entrypoint_of, task_of
from pipelines.errors import MissingInput, RequestError

ROOT = Path(__file__).resolve().parents[1]
WRONG_SCHEDULE = "no schedule"  # start of the last line if a cron expression is wrong
ZOMBIE_NAME = "driftline: mark dead runs"
ZOMBIE_S = 90  # three heartbeats of 30 s


def read_deployments(config: str | None, schedule: str | None) -> list[Json]:
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


def own_deployments(path: Path) -> list[Json]:
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
    earlier = {f"flows.{flow}.{flow}_flow": entrypoint_of(flow) for flow in FLOWS}  # of version 0.1.0, a module each
    for one in deployments if isinstance(deployments, list) else [None]:
        if isinstance(one, dict) and (now := earlier.get(str(one.get("entrypoint")))):
            one["entrypoint"] = now
        if not isinstance(one, dict) or one.get("entrypoint") not in known or not {"name", "work_pool"} <= one.keys():
            expected = f"deployments with name, work_pool and one of the entrypoints {', '.join(known)}"
            remedy = "call `driftline serve` in another folder, and start other flows with Prefect's own commands"
            raise RequestError(f"{path}: expected {expected}; found {str(one)[:200]}; {remedy}")
    return deployments  # type: ignore[return-value]  # a list of mappings: seen above


def scheduled_of(deployments: list[Json]) -> tuple[str, str] | None:
    """(name, cron) of the deployment with an active schedule, if there is one."""
    return next(((d["name"], s["cron"]) for d in deployments for s in d.get("schedules", []) if s["active"]), None)


# ---------------------------------------------------------------- registration


async def register(request: Json) -> None:
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        await make_pools(client, request["folder"], request["gpus"])
        for deployment in request["deployments"]:
            await make_deployment(client, deployment)
        await remove_others(client, {deployment["name"] for deployment in request["deployments"]})
        await watch_for_zombies(client)


async def make_pools(client: Any, folder: str, gpus: int) -> None:
    """Process pools whose runs work in `folder`; the gpu pool's queue runs one flow per device."""
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    template["variables"]["properties"]["working_dir"]["default"] = folder
    for name in ("cpu", "gpu"):
        try:
            await client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
        except ObjectAlreadyExists:
            await client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
    queue = await client.read_work_queue_by_name("default", work_pool_name="gpu")
    await client.update_work_queue(queue.id, concurrency_limit=max(gpus, 1))


async def make_deployment(client: Any, described: Json) -> None:
    """One deployment of prefect.yaml, by module entrypoint; an older one of the same name is replaced."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    flow: Any = load_flow_from_entrypoint(described["entrypoint"], use_placeholder_flow=False)
    pool = described["work_pool"]
    schedules = []
    for one in described.get("schedules", []):
        try:
            cron = CronSchedule(cron=one["cron"], timezone=one["timezone"])
        except ValidationError as e:
            sys.exit(f'{WRONG_SCHEDULE} {one["cron"]!r}: {e.errors()[0]["msg"]}; five fields in quotes, for example "0 6 * * *"')
        schedules.append(DeploymentScheduleCreate(schedule=cron, active=one["active"]))
    await client.create_deployment(
        flow_id=await client.create_flow(flow),
        name=described["name"],
        description=described.get("description"),
        entrypoint=described["entrypoint"],
        parameters=described.get("parameters", {}),
        parameter_openapi_schema=parameter_schema(flow).model_dump_for_openapi(),
        work_pool_name=pool["name"],
        work_queue_name=pool.get("work_queue_name"),
        schedules=schedules,
        concurrency_limit=described.get("concurrency_limit"),
        tags=described.get("tags", []),
    )


async def remove_others(client: Any, offered: set[str]) -> None:
    """Deletes deployments that an earlier `serve` registered here for another task: they would run its config."""
    from prefect.exceptions import ObjectNotFound

    for name in set(FLOWS) - offered:
        try:
            old = await client.read_deployment_by_name(f"{name}/{name}")
        except ObjectNotFound:
            continue
        await client.delete_deployment(old.id)


async def watch_for_zombies(client: Any) -> None:
    """Marks a run CRASHED when its heartbeats stop, so that it releases its queue slot (docs: "Detect zombie flows")."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={f"prefect.flow-run.{event}" for event in ("heartbeat", "Completed", "Failed", "Cancelled", "Crashed")},
        match={"prefect.resource.id": ["prefect.flow-run.*"]},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=ZOMBIE_S),
    )
    action = ChangeFlowRunState(state=StateType.CRASHED, message="no heartbeat: the process or its machine ended; run it again")
    automation = AutomationCore(name=ZOMBIE_NAME, enabled=True, trigger=trigger, actions=[action])
    for old in await client.read_automations_by_name(ZOMBIE_NAME):
        await client.delete_automation(old.id)
    await client.create_automation(automation)


if __name__ == "__main__":
    asyncio.run(register(json.load(sys.stdin)))
