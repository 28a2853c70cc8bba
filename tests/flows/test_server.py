"""`driftline serve` for real: who may use it, what its runs may touch, and that every run ends in a state and in files.

One server for all tests of this file, in their order; the last one takes it down.
"""

import base64
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from flows.deployments import read_deployments
from flows.prefect_api import PrefectApi
from flows.tasks import FLOWS, task_of
from flows.verbs import UNTRACKED
from pipelines.errors import RequestError
from pipelines.products.report import markdown_text

ROOT = Path(__file__).resolve().parents[2]
EVIL = "http://evil.example"
PATIENCE_S = 600  # of a machine that has other work; what comes at all comes within seconds on an idle one
HELD = ("ingest", "train", "run")  # of each work pool one at least
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(900)]


class PatientApi(PrefectApi):
    """SQLite that is busy answers 503, and nothing was done: asked again, as Prefect's own client does; so is a slow read."""

    def ask(self, *arguments: Any) -> Any:
        for _ in range(20):
            try:
                return super().ask(*arguments)
            except urllib.error.HTTPError as e:
                if e.code != 503:
                    raise
            except TimeoutError:  # six workers started at once on two cores
                if arguments[0] != "GET":
                    raise
            time.sleep(1)
        return super().ask(*arguments)


@dataclass(frozen=True)
class Served:
    """The server under test: where it answers, the process `driftline serve`, its working folder, its token."""

    url: str
    process: psutil.Process
    folder: Path
    token: str

    @property
    def api(self) -> PatientApi:
        return PatientApi(f"{self.url}/api", self.token)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def shell(self) -> dict[str, str]:
        """The environment of a shell that may use the server."""
        return plain_environment() | {"PREFECT_API_URL": f"{self.url}/api", "PREFECT_API_AUTH_STRING": self.token}

    def start(self, flow: str, **parameters: Any) -> str:
        """The id of a new run of the deployment of `flow`."""
        deployment = self.api.get(f"/deployments/name/{flow}/{flow}")
        return self.api.post(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})["id"]

    def state(self, run: str) -> dict[str, Any]:
        return self.api.get(f"/flow_runs/{run}")["state"]

    def end_of(self, run: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The state in which the run ended."""
        return wait_until(lambda: state if (state := self.state(run))["type"] in FINAL else None, timeout_s)


def plain_environment() -> dict[str, str]:
    """As where `driftline` is installed: the working folder is not on Python's path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}


def wait_until(condition: Callable[[], Any], timeout_s: float) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"nothing within {timeout_s} s"
        time.sleep(0.5)
    return found


def driftline(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=plain_environment() | environment, capture_output=True, text=True, check=False)


def write_hostile_settings(folder: Path) -> None:
    """What Prefect and Python would take from the working folder: logging that calls a function, a database, packages."""
    touch = {
        "version": 1,
        "formatters": {"x": {"()": "os.mkdir", "path": str(folder / "executed")}},
        "handlers": {},
        "loggers": {},
    }
    (folder / "logging.yml").write_text(yaml.safe_dump(touch))
    settings = (
        'logging.config_path = "logging.yml"\nserver.ui.static_directory = "ui"\nserver.api.csrf_protection_enabled = false\n'
    )
    (folder / "prefect.toml").write_text(f'{settings}server.database.connection_url = "sqlite+aiosqlite:///{folder}/theirs.db"\n')
    (folder / ".env").write_text("PREFECT_LOGGING_SETTINGS_PATH=logging.yml\nPREFECT_API_KEY=theirs\n")
    for package in ("prefect", "flows"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(f"import os; os.makedirs({str(folder / 'executed')!r}, exist_ok=True)\n")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[[Path], Path]) -> Iterator[Served]:
    """A server in a folder that somebody else has prepared, behind a proxy that does not answer."""
    folder = tmp_path_factory.mktemp("serve")
    write_tiny(folder)
    write_hostile_settings(folder)
    environment = plain_environment() | dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    environment |= {"PYTHONPATH": f"{ROOT}{os.pathsep}"}
    log = folder / "serve.log"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "flows.cli", "serve", "--port", "0"]
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file)
    try:
        wait_until(lambda: child.poll() is not None or "Ctrl-C stops" in log.read_text(), PATIENCE_S)
        found = re.search(r"(http://127\.0\.0\.1:\d+)/\?token=(\w+)", log.read_text())
        assert found, log.read_text()
        yield Served(found[1], psutil.Process(child.pid), folder, found[2])
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(60)


# ---------------------------------------------------------------- what goes on as before


def test_deployments_run_with_complete_history(served: Served) -> None:
    """All, one of them with arguments of its own, and one of another task."""
    api, folder = served.api, served.folder
    assert {d["name"] for d in api.post("/deployments/filter", {})} == set(FLOWS)
    verbs = [verb for verb in task_of("forecast").verbs if verb in FLOWS]  # each needs the one before
    for name in [*verbs, "monitor"]:
        config = "watched.yaml" if name == "monitor" else "tiny.yaml"
        given = {"overrides": ["sweep={space: {training.learning_rate: [0.03]}, trials: 1}"]} if name == "sweep" else {}
        run = served.start(name, config=config, **given)
        state = served.end_of(run)
        assert state["type"] == "COMPLETED", (name, state["message"])
        recorded = api.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        lines = [json.loads(line) for line in (folder / "runs" / config[:-5] / "steps.jsonl").read_text().splitlines()]
        expected = [f"{x['stage']}: {x['step']}" for x in lines if x["prefect_flow_run"] == run and x["status"] == "done"]
        assert sorted(task["name"] for task in recorded) == sorted(expected)
        assert all(task["state"]["type"] == "COMPLETED" for task in recorded)
    keys = {artifact["key"] for artifact in api.post("/artifacts/filter", {})}
    assert {f"tiny-{what}" for what in ("run", "metrics", "costs", "quicklook", "report", "products")} <= keys


def test_a_command_of_a_shell_is_in_both_histories(served: Served, tmp_path: Path, write_tiny: Callable[[Path], Path]) -> None:
    """A step that fails: its message in log and artifact, no traceback."""
    write_tiny(tmp_path)
    done = driftline(tmp_path, "run", "tiny.yaml", "--set", "name=bad", "--set", "split.block_px=4000", **served.shell())
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    run = served.api.post("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 1})[0]
    assert run["state"]["type"] == "FAILED"
    recorded = served.api.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    lines = [json.loads(line) for line in (tmp_path / "runs/bad/steps.jsonl").read_text().splitlines()]
    expected = {f"{line['stage']}: {line['step']}": line["status"] for line in lines if line["status"] != "skipped"}
    assert {t["name"]: {"COMPLETED": "done", "FAILED": "failed"}[t["state"]["type"]] for t in recorded} == expected
    assert "failed" in expected.values()
    page = served.api.post("/artifacts/filter", {"artifacts": {"key": {"any_": ["bad-run"]}}})[0]["data"]
    assert markdown_text(run["state"]["message"].splitlines()[0]) in page


def test_wrong_requests_are_refused_with_the_remedy(served: Served, tmp_path: Path, write_tiny: Callable[[Path], Path]) -> None:
    """A second server on the same folder, a port that is taken, a shell without the password, deployments of others."""
    shell = served.shell()
    shut = {name: value for name, value in shell.items() if name != "PREFECT_API_AUTH_STRING"}
    write_tiny(tmp_path)
    for folder, arguments, environment, message in (
        (served.folder, ["serve", "tiny.yaml", "--port", "0"], {}, "another `driftline serve`"),
        (tmp_path, ["serve", "tiny.yaml", "--port", str(served.port)], {}, "is not free"),
        (tmp_path, ["run", "tiny.yaml"], {**shell, "PREFECT_API_URL": served.url}, "the address of an API ends in /api"),
        (tmp_path, ["run", "tiny.yaml"], shut, "refuses this shell (401); set PREFECT_API_AUTH_STRING"),
        (tmp_path, ["run", "tiny.yaml"], {**shell, "PREFECT_API_AUTH_STRING": "wrong"}, "refuses this shell (401)"),
        (tmp_path, ["serve", "tiny.yaml", "--port", "0", "--schedule", "* * *"], {}, "no schedule '* * *': "),
    ):
        done = driftline(folder, *arguments, **environment)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
        assert message in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "deployments: [{name: x, entrypoint: os.system, work_pool: {name: cpu}}]",
            "one of the entrypoints flows.entrypoints.ingest_flow",
        ),
        ("name: mine\ndeployments:\n", "expected deployments with name"),
        ("name: [\n", r"prefect.yaml:2: not valid YAML"),
    ],
)
def test_a_prefect_yaml_of_another_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prefect.yaml").write_text(text)
    with pytest.raises(RequestError, match=message):
        read_deployments(None, None)


def test_a_config_gets_the_deployments_of_its_task(tmp_path: Path, write_tiny: Callable[[Path], Path]) -> None:
    write_tiny(tmp_path)
    for config, task, scheduled in (("tiny.yaml", "forecast", "run"), ("watched.yaml", "monitor", "monitor")):
        found = read_deployments(str(tmp_path / config), "0 6 * * *")
        assert {d["name"] for d in found} == set(task_of(task).verbs) - set(UNTRACKED)
        assert {d["parameters"]["config"] for d in found} == {str(tmp_path / config)}
        assert [d["name"] for d in found if d["schedules"][0]["active"]] == [scheduled]


# ---------------------------------------------------------------- what a page of another site can send


def send(served: Served, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str]]:
    """(status, headers) of a request with just these headers (and Host)."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=120)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": f"127.0.0.1:{served.port}", **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def credentials(served: Served) -> dict[str, str]:
    """All that the UI would send: a foreign page has none of it, and is refused even if it had."""
    token = base64.b64encode(served.token.encode()).decode()
    csrf = served.api.get("/csrf-token?client=test")["token"]
    return {"Authorization": f"Basic {token}", "Prefect-Csrf-Token": csrf, "Prefect-Csrf-Client": "test"}


def test_what_a_foreign_page_can_send_is_refused(served: Served) -> None:
    before = len(served.api.post("/flows/filter", {}))
    login, body, typed = credentials(served), b'{"name": "made-by-a-page"}', {"Content_Type": "application/json"}
    for who in ({}, login):
        for headers, status in (
            ({"Origin": EVIL, "Content_Type": "text/plain"}, 403),  # a form, or fetch with mode no-cors
            ({"Origin": EVIL, **typed}, 403),  # what a preflight would have to allow
            ({"Origin": "null", **typed}, 403),  # a sandboxed frame, a file
            ({"Origin": "http://127.0.0.1:1", **typed}, 403),  # another program's page on this machine
            ({"Sec_Fetch_Site": "cross-site", **typed}, 403),
            ({}, 415),  # no Content-Type
            ({"Content_Type": "text/plain"}, 415),
            ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
            ({"Host": f"rebound.example:{served.port}", **typed}, 421),
            ({"Host": f"rebound.example:{served.port}", "Origin": f"http://rebound.example:{served.port}", **typed}, 421),
        ):
            found, answered = send(served, "POST", "/api/flows/", body, **{**who, **headers})
            assert (found, "access-control-allow-origin" in answered) == (status, False), headers
        preflight = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "content-type,authorization"}
        found, answered = send(served, "OPTIONS", "/api/flows/", **{"Origin": EVIL, **preflight})
        assert (found, "access-control-allow-origin" in answered) == (403, False)
        for headers, status in (
            ({"Origin": EVIL}, 403),
            ({"Sec_Fetch_Site": "same-site"}, 403),
            ({"Host": "rebound.example"}, 421),
        ):
            assert send(served, "GET", "/api/block_documents/filter", **{**who, **headers})[0] == status
    assert send(served, "POST", "/api/flows/", body, **typed)[0] == 403  # CSRF, before the password
    assert send(served, "POST", "/api/flows/", body, **typed, Authorization=login["Authorization"])[0] == 403
    assert send(served, "POST", "/api/flows/", body, **{**typed, **login, "Authorization": "Basic eDp5"})[0] == 401
    assert send(served, "GET", "/api/admin/version")[0] == 401
    assert len(served.api.post("/flows/filter", {})) == before
    own = {"Origin": served.url, "Sec_Fetch_Site": "same-origin"}
    assert send(served, "POST", "/api/flows/filter", b"{}", **typed, **login, **own)[0] == 200  # the UI's own


@pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out", "work_pools/cpu/workers/connect"])
def test_websockets_are_refused_to_foreign_pages_and_without_the_token(served: Served, path: str) -> None:
    address = f"ws://127.0.0.1:{served.port}/api/{path}"
    for headers in ({"Origin": EVIL}, {"Origin": "null"}, {"Host": f"rebound.example:{served.port}"}):
        with pytest.raises(InvalidStatus) as caught:
            connect_with(address, headers)
        assert caught.value.response.status_code in (400, 403)
    for first in (None, {"type": "auth"}, {"type": "auth", "token": "wrong"}, {"type": "filter", "filter": {}}):
        with pytest.raises((ConnectionClosed, InvalidStatus)):
            talk(address, first)
    if path == "events/out":
        assert json.loads(talk(address, {"type": "auth", "token": served.token}))["type"] == "auth_success"


def connect_with(address: str, headers: dict[str, str]) -> None:
    origin, host = headers.get("Origin"), headers.get("Host")
    if host is None:
        connect(address, subprotocols=["prefect"], origin=origin).close()
    else:  # the name that a page has let point to this machine
        import socket

        port = int(address.split(":")[2].split("/")[0])
        connect(address.replace("127.0.0.1", host.partition(":")[0]), sock=socket.create_connection(("127.0.0.1", port))).close()


def talk(address: str, first: dict[str, Any] | None) -> str:
    with connect(address, subprotocols=["prefect"] if first else None) as socket:
        if first:
            socket.send(json.dumps(first))
        return str(socket.recv(timeout=120))


def test_the_printed_address_opens_the_ui(served: Served) -> None:
    with urllib.request.urlopen(f"{served.url}/?token={served.token}", timeout=120) as page:
        text = page.read().decode()
    assert base64.b64encode(served.token.encode()).decode() in text
    assert '"prefect-password"' in text
    with urllib.request.urlopen(f"{served.url}/ui-settings", timeout=120) as settings:
        found = json.load(settings)
    assert (found["auth"], found["csrf_enabled"], found["api_url"]) == ("BASIC", True, f"{served.url}/api")
    with urllib.request.urlopen(urllib.request.Request(served.url, headers={"Accept": "text/html"}), timeout=120) as page:
        assert page.headers["X-Frame-Options"] == "DENY"
        assert '<div id="' in page.read().decode()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{served.url}/?token=wrong", timeout=120)
    assert served.token not in (served.folder / "runs/.prefect/server.log").read_text()


def test_nothing_in_the_working_folder_is_executed_or_used(served: Served) -> None:
    assert not (served.folder / "executed").exists()
    assert not (served.folder / "theirs.db").exists()
    assert not (served.folder / "ui").exists()
    assert (served.folder / "runs/.prefect/prefect.db").exists()


# ---------------------------------------------------------------- what a run may touch


@pytest.mark.exhaustive
def test_a_deployment_chooses_one_of_our_flows_and_its_parameters_only(served: Served, tmp_path: Path) -> None:
    """With the token in hand: shell steps, commands, environments and other code of a deployment are never carried out."""
    api, marker = served.api, tmp_path / "executed"
    shell = {"prefect.deployments.steps.run_shell_script": {"script": f"touch {marker}"}}
    limits = json.dumps({"read": [], "write": ["/"]})
    common = {"work_pool_name": "cpu", "pull_steps": [shell], "path": "/"}
    job = {"command": f"touch {marker}", "env": {"DRIFTLINE_LIMITS": limits}, "working_dir": str(tmp_path)}
    runs = {}
    for flow, name, entrypoint in (("ingest", "shell", "flows.entrypoints.ingest_flow"), ("evil", "evil", "os.system")):
        flow_id = api.post("/flows/", {"name": flow})["id"]
        made = api.post(
            "/deployments/", {"flow_id": flow_id, "name": name, "entrypoint": entrypoint, "job_variables": job, **common}
        )
        parameters = {"config": "tiny.yaml", "overrides": [f"runs={tmp_path}"]}
        requested = {"parameters": parameters, "enforce_parameter_schema": False}
        runs[name] = api.post(f"/deployments/{made['id']}/create_flow_run", requested)["id"]
    own = served.start("ingest", config=str(tmp_path / "elsewhere.yaml"))
    state = served.end_of(runs["shell"])
    assert (state["type"], "runs: may not write" in state["message"]) == ("FAILED", True), state
    state = served.end_of(runs["evil"])
    assert (state["type"], "driftline's flows are" in state["message"]) == ("CRASHED", True), state
    state = served.end_of(own)
    assert (state["type"], "config: may not read" in state["message"]) == ("FAILED", True), state
    assert list(tmp_path.iterdir()) == []
    logs = api.post("/logs/filter", {"logs": {"flow_run_id": {"any_": [own]}}})
    assert logs
    assert not any("Traceback" in line["message"] for line in logs)


@pytest.mark.exhaustive
def test_a_deployment_beside_serve_needs_absolute_paths(served: Served, tmp_path: Path) -> None:
    """`prefect deploy` and a worker of one's own: relative paths end in a folder that Prefect deletes."""
    prefect = [sys.executable, "-m", "prefect"]
    deployment = {
        "name": "second",
        "entrypoint": "flows.entrypoints.ingest_flow",
        "parameters": {"config": str(served.folder / "tiny.yaml")},
        "work_pool": {"name": "second"},
    }
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump({"name": "x", "pull": [], "deployments": [deployment]}))
    commands = (["work-pool", "create", "second", "--type", "process"], ["--no-prompt", "deploy", "--all"])
    for arguments in commands:
        subprocess.run([*prefect, *arguments], cwd=tmp_path, env=served.shell(), check=True, capture_output=True)
    found = served.api.get("/deployments/name/ingest/second")
    absolute = [f"runs={tmp_path}/runs", f"source.path={served.folder}/tiny.nc"]
    runs = [
        served.api.post(f"/deployments/{found['id']}/create_flow_run", {"parameters": {"overrides": overrides}})["id"]
        for overrides in ([], absolute)
    ]
    worker = [*prefect, "worker", "start", "--pool", "second", "--run-once"]
    subprocess.run(worker, cwd=tmp_path, env=served.shell(), check=True, capture_output=True, timeout=600)
    refused, done = (served.end_of(run) for run in runs)
    assert (refused["type"], "runs: runs\n" in refused["message"]) == ("FAILED", True), refused
    assert "source.path" not in refused["message"], "found beside the config"
    assert done["type"] == "COMPLETED", done
    assert (tmp_path / "runs/tiny/cube").is_dir()


# ---------------------------------------------------------------- runs that die


@pytest.mark.exhaustive
def test_flows_that_die_with_their_worker_give_their_place_back(served: Served) -> None:
    """A flow of each pool at once, killed with their workers: CRASHED within minutes, and every one can start again.

    Without the automation, which knows of a run only what it heard since the server started: `serve` itself must see it.
    """
    api = served.api
    for automation in api.post("/automations/filter", {}):
        api.post(f"/automations/{automation['id']}", {"enabled": False}, "PATCH")
    api.post("/work_pools/gpu/queues/default", {"concurrency_limit": len(HELD)}, "PATCH")
    os.mkfifo(served.folder / "hold.yaml")  # reading their config, they wait for ever
    killed = {flow: served.start(flow, config="hold.yaml") for flow in HELD}
    wait_until(lambda: all(served.state(run)["type"] == "RUNNING" for run in killed.values()), PATIENCE_S)
    waiting = {flow: served.start(flow, config="hold.yaml") for flow in HELD}  # as the next scheduled run: one at a time
    children = served.process.children(recursive=True)
    workers, engines = ([p for p in children if module in p.cmdline()] for module in ("flows.worker", "flows.engine"))
    assert len(engines) == len(HELD)
    for worker in workers:
        worker.kill()
    _, alive = psutil.wait_procs(engines, timeout=10)
    assert alive == []  # a run whose worker is gone would go on, and nobody would end it
    for flow, run in killed.items():
        state = served.end_of(run)
        assert (state["type"], "no heartbeat" in state["message"]) == ("CRASHED", True), (flow, state)
    wait_until(lambda: all(served.state(run)["type"] == "RUNNING" for run in waiting.values()), PATIENCE_S)


@pytest.mark.exhaustive
def test_the_end_leaves_nothing_behind(served: Served) -> None:
    """SIGTERM while runs are under way: each lives in a session of its own, and must not be left behind."""
    children = served.process.children(recursive=True)
    assert len([p for p in children if "flows.engine" in p.cmdline()]) == len(HELD)
    listening = {c.laddr.ip for child in children for c in child.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(60) is not None
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


@pytest.mark.exhaustive
def test_nothing_outlives_a_killed_serve(tmp_path: Path, write_tiny: Callable[[Path], Path]) -> None:
    """`driftline serve` killed outright: server, workers and runs end with it, and the port is free for the next one."""
    write_tiny(tmp_path)
    os.mkfifo(tmp_path / "hold.yaml")
    log = tmp_path / "serve.log"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "flows.cli", "serve", "tiny.yaml", "--port", "0"]
        child = subprocess.Popen(command, cwd=tmp_path, env=plain_environment(), stdout=file, stderr=file)
    wait_until(lambda: child.poll() is not None or "Ctrl-C stops" in log.read_text(), PATIENCE_S)
    url, token = re.search(r"(http://127\.0\.0\.1:\d+)/\?token=(\w+)", log.read_text()).groups()  # type: ignore[union-attr]
    served = Served(url, psutil.Process(child.pid), tmp_path, token)
    run = served.start("ingest", config="hold.yaml")
    wait_until(lambda: served.state(run)["type"] == "RUNNING", PATIENCE_S)
    children = served.process.children(recursive=True)
    assert any("flows.engine" in p.cmdline() for p in children)
    child.kill()
    child.wait(10)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


@pytest.mark.exhaustive
def test_an_auth_string_of_the_users_own(tmp_path: Path, write_tiny: Callable[[Path], Path]) -> None:
    """Registration takes it; it is neither printed nor kept."""
    config = write_tiny(tmp_path)
    done = driftline(
        tmp_path, "serve", config.name, "--port", "0", "--check", "--json", PREFECT_SERVER_API_AUTH_STRING="me:se cret&x=1"
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["deployments"]) == set(task_of("forecast").verbs) - set(UNTRACKED)
    assert json.loads(done.stdout)["token_file"] == ""
    assert "your own auth string" in done.stderr
    kept = "".join(p.read_text(errors="replace") for p in (tmp_path / "runs/.prefect").rglob("*") if p.is_file())
    assert "se cret" not in done.stdout + done.stderr + kept
