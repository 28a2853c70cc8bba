import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.torch

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PREFECT_API_URL": ""}


@pytest.fixture(scope="module")
def write_tiny():
    """As in the tests of the stages; a conftest of another folder cannot be imported by name."""
    return runpy.run_path(str(ROOT / "tests" / "flows" / "conftest.py"))["write_tiny_run"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_at_chosen_writes_gives_the_same_bytes(tmp_path, write_tiny):
    config = write_tiny(tmp_path)
    content = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**content, "training": {**content["training"], "epochs": 2}}))
    driver = Path(__file__).with_name("run_driver.py")
    command = [sys.executable, str(driver), str(tmp_path), config.name]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    killed = list(result["killed"].values())
    assert all(killed), result
    assert len(killed) >= 2, result
    assert (result["status"], result["different"]) == (0, []), result["said"]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_sigterm_reports_json_and_the_run_resumes(tmp_path, write_tiny):
    config = write_tiny(tmp_path)
    command = [sys.executable, "-m", "flows.cli", "run", config.name, "--json", "--set", "training.epochs=500"]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    resume, deadline = tmp_path / "runs" / "tiny" / "model" / "resume", time.monotonic() + 120
    while not list(resume.glob("*.ckpt")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    answer = json.loads(out)
    assert (answer["status"], answer["exit_code"]) == ("interrupted", 143)
    assert "the same command resumes" in answer["error"]
    assert "Traceback" not in err
