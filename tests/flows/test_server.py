"""`driftline serve` for real: every deployment runs once under its worker; history, artifacts, and nothing left behind."""

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
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from flows.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(900)]


def ask(url: str, content: Any = None) -> Any:
    """The server's answer. SQLite that is busy answers 503, and nothing was done: asked again, as Prefect's own client does."""
    for _ in range(20):
        try:
            return ask_once(url, content)
        except urllib.error.HTTPError as e:
            if e.code != 503:
                raise
            time.sleep(1)
    return ask_once(url, content)


def ask_once(url: str, content: Any) -> Any:
    request = urllib.request.Request(
        url, None if content is None else json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def wait_until(condition: Callable[[], Any], timeout_s: float) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"nothing within {timeout_s} s"
        time.sleep(0.5)
    return found


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[[Path], Path]
) -> Iterator[tuple[str, psutil.Process, Path]]:
    """(API URL, the process `driftline serve`, its folder)."""
    folder = tmp_path_factory.mktemp("serve")
    config = write_tiny(folder)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | {"PYTHONPATH": str(ROOT)}
    log = folder / "serve.log"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "flows.cli", "serve", config.name, "--port", "0"]
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file)
    try:
        wait_until(lambda: child.poll() is not None or "Ctrl-C takes" in log.read_text(), 150)
        found = re.search(r"PREFECT_API_URL=(\S+)", log.read_text())
        assert found, log.read_text()
        yield found[1], psutil.Process(child.pid), folder
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(60)


def refuse_wrong_requests(api: str, folder: Path) -> None:
    """A second server on the same folder, and a port that is taken, are refused with the remedy."""
    port = api.split(":")[2].split("/")[0]
    for arguments, message in ((["--port", "0"], "another `driftline serve`"), (["--port", port], "is not free")):
        command = [sys.executable, "-m", "flows.cli", "serve", "tiny.yaml", *arguments]
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
        )
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert message in done.stderr


def fail_with_complete_history(api: str, folder: Path) -> None:
    """`driftline ingest` with the server: a step that fails is in both histories, its message in log and artifact."""
    command = [sys.executable, "-m", "flows.cli", "run", "tiny.yaml", "--set", "name=bad", "--set", "split.block_px=4000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": api}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    run = ask(f"{api}/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 1})[0]
    assert run["state"]["type"] == "FAILED"
    recorded = ask(f"{api}/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    lines = [json.loads(line) for line in (folder / "runs/bad/steps.jsonl").read_text().splitlines()]
    expected = {f"{line['stage']}: {line['step']}": line["status"] for line in lines if line["status"] != "skipped"}
    assert {t["name"]: {"COMPLETED": "done", "FAILED": "failed"}[t["state"]["type"]] for t in recorded} == expected
    assert "failed" in expected.values()
    page = ask(f"{api}/artifacts/filter", {"artifacts": {"key": {"any_": ["bad-run"]}}})[0]["data"]
    assert run["state"]["message"].splitlines()[0] in page


def test_every_deployment_runs_with_complete_history_and_goes_down_cleanly(server: tuple[str, psutil.Process, Path]) -> None:
    api, process, folder = server
    named = [d["name"] for d in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]]
    offered = {d["name"] for d in ask(f"{api}/deployments/filter", {})}
    assert offered == {name for name in named if name in STAGES["forecast"]} != set(named)
    for name in (n for n in named if n in offered):  # in this order: each needs the one before
        deployment = ask(f"{api}/deployments/name/{name}/{name}")
        run = ask(f"{api}/deployments/{deployment['id']}/create_flow_run", {})

        def finished(run_id: str = run["id"]) -> Any:
            state = ask(f"{api}/flow_runs/{run_id}")["state"]
            return state if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

        state = wait_until(finished, 150)
        assert state["type"] == "COMPLETED", (name, state["message"])
        recorded = ask(f"{api}/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
        lines = [json.loads(line) for line in (folder / "runs/tiny/steps.jsonl").read_text().splitlines()]
        expected = [
            f"{line['stage']}: {line['step']}"
            for line in lines
            if line["prefect_flow_run"] == run["id"] and line["status"] == "done"
        ]
        assert sorted(task["name"] for task in recorded) == sorted(expected)
        assert all(task["state"]["type"] == "COMPLETED" for task in recorded)
    keys = {artifact["key"] for artifact in ask(f"{api}/artifacts/filter", {})}
    assert {"tiny-run", "tiny-metrics", "tiny-costs", "tiny-quicklook", "tiny-report", "tiny-products"} <= keys
    refuse_wrong_requests(api, folder)
    fail_with_complete_history(api, folder)

    # SIGTERM while a run is under way: it lives in a session of its own, and must not be left behind
    deployment = ask(f"{api}/deployments/name/run/run")
    ask(
        f"{api}/deployments/{deployment['id']}/create_flow_run",
        {"parameters": {"overrides": ["training.epochs=5000", "training.patience=5000"]}},
    )
    steps = folder / "runs/tiny/steps.jsonl"
    wait_until(lambda: '"train the networks", "status": "started"' in steps.read_text().splitlines()[-1], 90)

    children = process.children(recursive=True)
    assert len(children) >= 3
    listening = {c.laddr.ip for child in children for c in child.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) is not None
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
