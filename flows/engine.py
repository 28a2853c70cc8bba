"""One flow run in a separate process: `python -m flows.engine FLOW FOLDER WORKER`, started by flows/worker.py.

As `python -m prefect.engine` (3.8.8), except: the flow is driftline's, whatever the deployment states (its pull steps never
run); it works in FOLDER, from which Prefect has read no settings; it ends with its worker, the process WORKER; and a run that
failed with a message does not log a traceback of Prefect's engine.

Prefect is imported in `main` only: a child process of the run (training on several devices) imports this module again, in
FOLDER, and must not read settings there.
"""

import os
import sys
from uuid import UUID

from flows.children import end_with_parent
from flows.tasks import load_flow


def main(name: str, folder: str, worker: str) -> None:
    from prefect._internal.control_listener import configure_from_env
    from prefect.engine import handle_engine_signals
    from prefect.flow_engine import load_flow_run, run_flow

    from flows.access import keep_password_out_of_logs

    end_with_parent(int(worker))
    keep_password_out_of_logs()
    os.chdir(folder)
    flow_run_id = UUID(os.environ["PREFECT__FLOW_RUN_ID"])
    configure_from_env()  # cancellation arrives through a channel of the worker
    with handle_engine_signals(flow_run_id):
        run_flow(load_flow(name), flow_run=load_flow_run(flow_run_id), return_type="state")


if __name__ == "__main__":
    main(*sys.argv[1:])
