"""kill -9 within a trial: the search goes on, and tries and finds what one that was left alone does."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="needs driftline[sweep]")

DRIVER = Path(__file__).with_name("sweep_driver.py")


def search(path: Path, sampler: str, at: int = -1) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, DRIVER, path, sampler, str(at)], capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_search_that_was_killed_ends_like_one_that_was_not(tmp_path: Path, sampler: str) -> None:
    whole, killed = search(tmp_path / "whole.log", sampler), tmp_path / "killed.log"
    assert whole.returncode == 0, whole.stderr
    assert len(whole.stdout.splitlines()) == (9 if sampler == "grid" else 14)
    assert search(killed, sampler, at=6).returncode == -9
    with killed.open("ab") as journal:
        journal.write(b'{"op_code":7,"worker_i')  # as a kill in the middle of a write leaves it
    resumed = search(killed, sampler)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout == whole.stdout
