"""`driftline serve`: a Prefect server with its UI, pools, deployments and workers, on 127.0.0.1 with a password.

The child processes and their end: flows/children.py. Who may use the server, and what its runs may access:
docs/design/004-access.md.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock, Timeout

from configs.load import load_run
from flows import Json
from flows.access import Access, access_of, make_private
from flows.children import Child, sigterm_as_interrupt
from flows.deployments import WRONG_SCHEDULE, ZOMBIE_S, read_deployments, scheduled_of
from flows.limits import LIMITS_VARIABLE, SCHEDULERS, Limits, default_limits
from flows.prefect_api import PrefectApi, without_proxies
from flows.tasks import FLOWS
from flows.tracking import is_reachable
from pipelines.errors import RequestError, StateError
from pipelines.stored_files import is_remote

HOST = "127.0.0.1"
POOLS = ("cpu", "gpu")
START_TIMEOUT_S = 150  # measured: 7-30 s, longer on a loaded machine
HEARTBEAT_S = 30
CHECK_EVERY_S = 30.0
STARTING_S = 300.0  # measured: 10 s from PENDING to RUNNING, longer on a loaded machine
NO_HEARTBEAT = "no heartbeat: the process or its machine ended; start the run again, it resumes"
NOT_INHERITED = (
    "PREFECT_SERVER_API_", "PREFECT_SERVER_CSRF_", "PREFECT_SERVER_CORS_", "PREFECT_SERVER_UI_", "PREFECT_UI_", "PREFECT_API_KEY",
    "PREFECT_CLIENT_CUSTOM_HEADERS",
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class ServerHome:
    """The server's folder for database and logs, its address, and its access."""

    home: Path
    port: int
    access: Access

    @property
    def api(self) -> str:
        return f"http://{HOST}:{self.port}/api"

    @property
    def ui(self) -> str:
        return f"http://{HOST}:{self.port}"


def serve(
    config: str | None, *, port: int = 4200, schedule: str | None = None, allow: Sequence[str] = (), check: bool = False
) -> Json:
    """Starts everything and waits for Ctrl-C or SIGTERM; with `check` it stops as soon as the server has answered.

    Runs may read and write in the working folder, in what `config` names and in `allow` (folders and URIs).
    """
    run = load_run(config) if config else None
    deployments = read_deployments(config, schedule)
    home = (Path(run.runs if run and not is_remote(run.runs) else "runs") / ".prefect").absolute()
    with sigterm_as_interrupt(), ExitStack() as stack:
        make_private(home)
        stack.enter_context(lock_home(home))
        listening = stack.enter_context(listen(port))  # closed after the children: no other process gets the password
        home_of = ServerHome(home, listening.getsockname()[1], access_of(home))
        limits = default_limits(config, run, allow)
        environment = server_environment(home_of, limits)
        arguments = ["flows.server", str(listening.fileno())]
        server = Child("server", arguments, environment, home, signal.SIGINT, (listening.fileno(),))
        stack.callback(server.end)
        wait_for(server, home_of)
        prepare_server(home_of, deployments, environment)
        workers = []
        for pool in POOLS:
            workers.append(Child(f"worker-{pool}", ["flows.worker", pool, str(Path.cwd())], environment, home))
            stack.callback(workers[-1].end)
        found = {
            "ui": home_of.ui,
            "api": home_of.api,
            "deployments": [deployment["name"] for deployment in deployments],
            "logs": str(home),
            "token_file": str(home_of.access.token_file or ""),
            "runs_may": {"write": list(limits.write), "read": list(limits.read)},
        }
        announce(home_of, limits, deployments)
        if check:
            return {**found, "listening": listening_addresses([server, *workers])}
        supervise(server, workers, home_of)
    return found


def lock_home(home: Path) -> AbstractContextManager[Any]:
    """A lock on the server's folder: two servers on one SQLite database would lose states. Raises RequestError."""
    try:
        return FileLock(home / "serve.lock", timeout=0).acquire()
    except Timeout as e:
        remedy = "end that one, or serve a config with another `runs` folder"
        raise RequestError(f"another `driftline serve` uses {home}; {remedy}") from e


def server_environment(home_of: ServerHome, limits: Limits) -> dict[str, str]:
    """Environment of the server and the workers: own home, password and limits, no telemetry, heartbeats on."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)},
        LIMITS_VARIABLE: limits.as_text(),
        "PREFECT_HOME": str(home_of.home),
        "PREFECT_PROFILES_PATH": str(home_of.home / "profiles.toml"),
        "PREFECT_API_URL": home_of.api,
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(home_of.port),
        # Prefect's own protection, in addition to the filter of flows/server.py, for the server and its clients
        "PREFECT_SERVER_API_AUTH_STRING": home_of.access.auth,
        "PREFECT_API_AUTH_STRING": home_of.access.auth,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": home_of.ui,
        "PREFECT_SERVER_API_BASE_PATH": "/api",
        "PREFECT_UI_API_URL": home_of.api,
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # SQLite raises "database is locked" after 10 s under load
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(os.path.isabs, os.environ.get("PYTHONPATH", "").split(os.pathsep))]),
        "PYTHONSAFEPATH": "1",  # a folder `flows` in the working folder must not shadow this package
        "PROJ_NETWORK": "OFF",
        **without_proxies(),
    }


def listen(port: int) -> socket.socket:
    """A socket that listens on `port` of 127.0.0.1 (0: any free one). Raises RequestError."""
    try:
        return socket.create_server((HOST, port), backlog=2048)
    except (OSError, OverflowError) as e:
        raise RequestError(f"port {port} on {HOST} is not free ({e}); choose another with --port, or --port 0 for any") from e


# ---------------------------------------------------------------- children


def wait_for(server: Child, home_of: ServerHome) -> None:
    print(f"starting the server on {home_of.ui} (about 10 s) ...", file=sys.stderr)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_reachable(home_of.api, timeout_s=1.0):
        code = server.process.poll()
        if code is not None:
            raise StateError(f"the Prefect server ended immediately (exit code {code}); see {server.log}")
        if time.monotonic() > deadline:
            raise StateError(f"the Prefect server did not answer within {START_TIMEOUT_S} s; see {server.log}")
        time.sleep(0.3)


def supervise(server: Child, workers: list[Child], home_of: ServerHome) -> None:
    """Returns on Ctrl-C or SIGTERM. Restarts a worker that ends; raises StateError if the server ends."""
    inspect = time.monotonic() + ZOMBIE_S + CHECK_EVERY_S  # live runs need time for a heartbeat
    try:
        while True:
            time.sleep(1)
            code = server.process.poll()
            if code is not None:
                raise StateError(f"the Prefect server ended unexpectedly (exit code {code}); see {server.log}")
            for worker in workers:
                if worker.process.poll() is not None:
                    print(f"{worker.name} ended (exit code {worker.process.returncode}); restarting it", file=sys.stderr)
                    worker.restart()
            if time.monotonic() >= inspect:
                inspect = time.monotonic() + CHECK_EVERY_S
                report_dead_runs(home_of)
    except KeyboardInterrupt:
        print("stopping everything ...", file=sys.stderr)


def report_dead_runs(home_of: ServerHome) -> None:
    try:
        for name in mark_silent(PrefectApi(home_of.api, home_of.access.auth), ZOMBIE_S):
            print(f"marked as crashed, no heartbeat for {ZOMBIE_S} s: {name}", file=sys.stderr)
    except OSError as e:  # a busy server; the next check is soon
        print(f"could not check for dead runs: {e}", file=sys.stderr)


def mark_silent(api: PrefectApi, silent_s: float) -> list[str]:
    """Names of driftline's runs now marked CRASHED: RUNNING (or being cancelled) without a heartbeat for `silent_s` seconds.

    The automation of flows/deployments.py does this for runs of a live server. Its timers end with the server: a run that ended
    together with it (a power cut) would stay RUNNING for ever and keep its queue slot, and so would one whose worker ended before
    the first heartbeat. Call it only if the server has run for `silent_s`: before, live runs could not send a heartbeat. Raises
    OSError.
    """
    now = datetime.now(UTC)
    requested = {
        "flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}},
        "flows": {"name": {"any_": list(FLOWS)}},
        "limit": 200,
    }
    silent = [run for run in api.post("/flow_runs/filter", requested) if is_silent(api, run, now, silent_s)]
    state = {"type": "CRASHED", "name": "Crashed", "message": NO_HEARTBEAT}
    for run in silent:
        api.post(f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
    return [run["name"] for run in silent]


def is_silent(api: PrefectApi, run: Json, now: datetime, silent_s: float) -> bool:
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


def listening_addresses(children: list[Child]) -> list[str]:
    """Every address:port on which the children, or their descendants, listen."""
    import psutil

    found: set[str] = set()
    for child in children:
        process = psutil.Process(child.process.pid)
        for one in (process, *process.children(recursive=True)):
            try:
                connections = one.net_connections(kind="inet")
            except psutil.Error:  # it ended during the check
                continue
            found |= {f"{c.laddr.ip}:{c.laddr.port}" for c in connections if c.status == psutil.CONN_LISTEN}
    return sorted(found)


def announce(home_of: ServerHome, limits: Limits, deployments: list[Json]) -> None:
    token = home_of.access.token_file
    login = f"{home_of.ui}/?token={quote(home_of.access.auth, safe='')}"
    if not token:
        login = f"{home_of.ui} (password: your own auth string)"
    auth = f'"$(cat {shlex.quote(str(token))})"' if token else "YOURS"
    scheduled = scheduled_of(deployments)
    schedule = f"schedule of {scheduled[0]}: {scheduled[1]} UTC; the others" if scheduled else "schedules"
    config = next((d.get("parameters", {}).get("config", "") for d in deployments if d["name"] == "run"), "")
    parameter = "" if Path(config).is_file() else " --param config=RUN.yaml"
    bypass = "NO_PROXY=127.0.0.1 " if any(name.lower().endswith("_proxy") for name in os.environ) else ""
    shell = f"{bypass}PREFECT_API_URL={home_of.api} PREFECT_API_AUTH_STRING={auth}"
    nowhere = "nowhere: this is your home folder; start it elsewhere, or name folders with --allow"
    locations = [one for one in limits.write if not one.startswith(SCHEDULERS)]
    lines = [
        f"UI            {login}",
        f"deployments   {', '.join(d['name'] for d in deployments)} ({schedule} inactive)",
        f"run one       {shell} prefect deployment run run/run{parameter}",
        f"runs may      write {', '.join(locations) or nowhere}",
        *(f"              read {one}" for one in limits.read),
        *(f"              connect to {one}" for one in limits.write if one.startswith(SCHEDULERS)),
        f"logs          {home_of.home}",
        "Ctrl-C stops everything",
    ]
    print("\n".join(lines), file=sys.stderr)


# ---------------------------------------------------------------- registration


def prepare_server(home_of: ServerHome, deployments: list[Json], environment: dict[str, str]) -> None:
    """Registers pools, deployments and the automation against dead runs.

    A child process does this: this process must not import Prefect with other settings.
    """
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))  # that the driver lists, without importing torch
    request = json.dumps({"deployments": deployments, "folder": str(Path.cwd()), "gpus": gpus})
    with tempfile.TemporaryFile() as errors:
        done = subprocess.run(
            [sys.executable, "-m", "flows.deployments"],
            input=request.encode(),
            env=environment,
            cwd=home_of.home,
            stdout=errors,
            stderr=errors,
            timeout=START_TIMEOUT_S,
            check=False,
        )
        errors.seek(0)
        text = errors.read().decode(errors="replace")
    if done.returncode:
        (home_of.home / "registration.log").write_text(text, encoding="utf-8")
        last = text.strip().splitlines()[-1] if text.strip() else ""
        if last.startswith(WRONG_SCHEDULE):
            raise RequestError(last)
        raise StateError(f"the server did not accept the deployments: {last} (log: {home_of.home / 'registration.log'})")
