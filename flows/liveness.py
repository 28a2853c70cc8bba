"""Finds runs without heartbeats and marks them CRASHED, so that they release their queue slot.

The automation of `flows/registration.py` does this for runs of a live server. Its timers end with the server: a run that ended
together with it (a power cut) would stay RUNNING for ever, and so would one whose worker ended before the first heartbeat.
Therefore `driftline serve` checks too. Does not import Prefect: plain HTTP.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from flows.prefect_api import PrefectApi
from flows.tasks import FLOWS

STARTING_S = 300.0  # measured: 10 s from PENDING to RUNNING, longer on a loaded machine
MESSAGE = "no heartbeat: the process or its machine ended; start the run again, it resumes"


def mark_silent(api: PrefectApi, silent_s: float) -> list[str]:
    """Names of the runs now marked CRASHED: RUNNING (or being cancelled) without a heartbeat for `silent_s` seconds.

    Only runs of driftline's flows, not those of other flows on this server.

    Call it only if the server has run for `silent_s`: before, live runs could not send a heartbeat. Raises OSError.
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
    """True if the last event of the run is so old that its process must have ended."""
    patience = timedelta(seconds=max(silent_s, STARTING_S) if run["state"]["type"] == "PENDING" else silent_s)
    if now - datetime.fromisoformat(run["state"]["timestamp"]) < patience:
        return False
    last_heartbeat = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run['id']}"]},
        "occurred": {"since": (now - patience).isoformat()},
    }
    heartbeats: int = api.post("/events/filter", {"filter": last_heartbeat, "limit": 1})["total"]
    return heartbeats == 0
