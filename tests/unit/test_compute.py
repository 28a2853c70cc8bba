"""Where pieces of work are done, without any work worth doing; predictions and monitoring by it have tests of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.compute import Compute, carry_out
from pipelines.errors import RequestError
from pipelines.slices import Slice

sys.path.insert(0, str(Path(__file__).parent))  # workers import what they unpickle; importlib mode does not add test folders
from waiting_work import Closed, Waiting

ROOT = Path(__file__).resolve().parents[2]


def test_workers_end_when_their_program_is_killed() -> None:
    """Otherwise they would wait for work for ever."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tests/unit/waiting_work.py")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        workers = {int(program.stdout.readline()) for _ in range(20)}
        assert all(map(psutil.pid_exists, workers))
        program.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(map(psutil.pid_exists, workers)):
        time.sleep(0.1)
    assert not any(map(psutil.pid_exists, workers))


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_what_cannot_be_opened_is_said(kind) -> None:
    with pytest.raises(RequestError, match="nothing to open"):
        list(carry_out(Closed(), [0.0], Compute(kind, workers=1)))


@pytest.mark.parametrize("compute", [Compute(), Compute(workers=3), Compute("processes", workers=2)])
def test_nothing_to_do_is_done_at_once(compute: Compute) -> None:
    assert list(carry_out(Waiting(), [], compute)) == []


def test_whoever_stops_early_stops_the_work() -> None:
    started = time.monotonic()
    found = carry_out(Waiting(), [0.0, *[0.3] * 1000], Compute(workers=2))
    assert next(found) == os.getpid()
    found.close()
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/2", "1/2/3", "1.5/2"])
def test_a_slice_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="expected I/N"):
        Slice.parse(text)


def test_slices_share_all_pieces_once() -> None:
    pieces = list(range(11))
    for count in range(1, 14):
        shares = [Slice(number, count).of(pieces) for number in range(1, count + 1)]
        assert sorted(piece for share in shares for piece in share) == pieces
