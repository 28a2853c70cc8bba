"""Runs whose process is gone: found by their silence and marked CRASHED, so that they give their queue slot back.

The automation of `flows/registration.py` does this for a run that falls silent under a server that goes on. Its timers die
with the server: a run that died together with it (a power cut) would stay RUNNING for ever, and so would one whose worker
died before the first heartbeat. `driftline serve` therefore looks as well. No import of Prefect: plain HTTP.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from flows.prefect_api import PrefectApi
from flows.tasks import FLOWS

STARTING_S = 300.0  # a worker was seen to need 10 s from PENDING to RUNNING; a loaded machine more
MESSAGE = "no heartbeat: the process or its machine is gone; run it again, it goes on where it was"


def mark_silent(api: PrefectApi, silent_s: float) -> list[str]:
    """Names of the runs that were marked CRASHED now: RUNNING (or being cancelled) without a heartbeat for `silent_s`.

    Runs of driftline's flows only: those of other flows on this server are their owners' concern.

    Call it only when the server has been up for `silent_s`: before, living runs had no chance to be heard. Raises OSError.
    """
    now = datetime.now(UTC)
    requested = {
        "flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}},
        "flows": {"name": {"any_": list(FLOWS)}},
        "limit": 200,
    }
    silent = [run for run in api.post("/flow_runs/filter", requested) if is_silent(api, run, now, silent_s)]
    state = {"type": "CRASHED", "name": "Crashed", "message": MESSAGE}
    for run in silent:
        api.post(f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
    return [run["name"] for run in silent]


def is_silent(api: PrefectApi, run: dict[str, Any], now: datetime, silent_s: float) -> bool:
    """True if nothing was heard of the run for so long that its process must be gone."""
    patience = timedelta(seconds=max(silent_s, STARTING_S) if run["state"]["type"] == "PENDING" else silent_s)
    if now - datetime.fromisoformat(run["state"]["timestamp"]) < patience:
        return False
    last_heartbeat = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run['id']}"]},
        "occurred": {"since": (now - patience).isoformat()},
    }
    return api.post("/events/filter", {"filter": last_heartbeat, "limit": 1})["total"] == 0
