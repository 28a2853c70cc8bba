"""Registers work pools, deployments, and the automation that detects dead runs on a new server.

Run as `python -m flows.registration` with PREFECT_API_URL and PREFECT_API_AUTH_STRING set and the request as JSON on stdin.
"""

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from flows.tasks import FLOWS

WRONG_SCHEDULE = "no schedule"  # start of the last line if a cron expression is wrong
ZOMBIE_NAME = "driftline: mark dead runs"
ZOMBIE_S = 90  # three heartbeats of 30 s


async def register(request: dict[str, Any]) -> None:
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


async def make_deployment(client: Any, described: dict[str, Any]) -> None:
    """One deployment of prefect.yaml, by module entrypoint; an older one of the same name is replaced."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    flow: Any = load_flow_from_entrypoint(described["entrypoint"], use_placeholder_flow=False)
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
        work_pool_name=described["work_pool"]["name"],
        work_queue_name=described["work_pool"].get("work_queue_name"),
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
        expect={
            "prefect.flow-run.heartbeat",
            "prefect.flow-run.Completed",
            "prefect.flow-run.Failed",
            "prefect.flow-run.Cancelled",
            "prefect.flow-run.Crashed",
        },
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
