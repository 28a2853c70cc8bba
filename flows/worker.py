"""A worker that starts only driftline's own flows: `python -m flows.worker POOL FOLDER`.

Prefect's process worker runs whatever the server requests: a deployment may name any entry point, pull steps (including shell
commands), a command and an environment. Here the server selects one of driftline's flows by name, and its parameters, which
the run checks (flows/limits.py). Runs work in FOLDER, the working folder of `driftline serve`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from pathlib import Path
from typing import Any, ClassVar

from prefect.utilities.processutils import command_to_string, get_sys_executable
from prefect.workers import process
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

from flows.access import keep_password_out_of_logs
from flows.tasks import load_flow


class OwnFlowConfiguration(ProcessJobConfiguration):
    """How a run is started; replaces all settings of the pool, the deployment and the run."""

    folder: ClassVar[str]  # the working folder of runs

    def prepare_for_flow_run(
        self,
        flow_run: Any,
        deployment: Any = None,
        flow: Any = None,
        work_pool: Any = None,
        worker_name: str | None = None,
        worker_id: Any = None,
    ) -> None:
        """Raises RequestError for a flow that is not driftline's; the worker then marks the run CRASHED with the message."""
        load_flow(flow.name)
        self.env, self.working_dir = {}, Path.cwd()
        engine = [get_sys_executable(), "-m", "flows.engine", flow.name, self.folder, str(os.getpid())]
        self.command = command_to_string(engine)
        super().prepare_for_flow_run(flow_run, deployment, flow, work_pool, worker_name, worker_id)


async def load_own_flow(flow_run: Any, **_: Any) -> Any:
    """The flow whose hooks run after a crash or a cancellation."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        return load_flow((await client.read_flow(flow_run.flow_id)).name)


def make_worker(pool: str) -> ProcessWorker:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it replaces the registered process worker on purpose

        class OwnFlowWorker(ProcessWorker):
            job_configuration = OwnFlowConfiguration

    # Prefect's method, used by crash hooks, would run the deployment's pull steps in this process
    process.load_flow_from_flow_run = load_own_flow  # type: ignore[assignment, attr-defined]  # imported there, not exported
    return OwnFlowWorker(work_pool_name=pool, create_pool_if_not_found=False)


async def work(pool: str, folder: str) -> None:
    OwnFlowConfiguration.folder = folder
    keep_password_out_of_logs()
    await make_worker(pool).start()


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
