"""What a process and all its children cost: CPU seconds, and memory in which pages that they share count once."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import psutil

EVERY_S = 0.1


@dataclass(frozen=True)
class Costs:
    """Of one command, imports included; CPU seconds are those of the last sample before a process ended."""

    seconds: float
    cpu_seconds: float
    peak_gb: float
    returncode: int
    stdout: str


def cpu_seconds() -> float:
    """User and system time of this process and its living children."""
    process = psutil.Process()
    return sum(_cpu_of(one) or 0.0 for one in (process, *process.children(recursive=True)))


def run_measured(
    command: Sequence[str], stop_if: Callable[[], bool] | None = None, every_s: float = EVERY_S, log: Path | None = None
) -> Costs:
    """Runs `command` and samples its processes `every_s`. `stop_if` is asked at every sample; once true, it is killed (-9).

    log: the file to which its stderr goes; default: where that of this process goes.
    """
    started, peak, cpu = time.monotonic(), 0, dict[int, float]()
    with (
        nullcontext() if log is None else log.open("w") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as child,
    ):
        while child.poll() is None:
            tree = _tree(child.pid)
            cpu |= {one.pid: spent for one in tree if (spent := _cpu_of(one)) is not None}
            peak = max(peak, sum(map(_memory_of, tree)))
            if stop_if is not None and stop_if():
                child.kill()
            time.sleep(every_s)
        seconds = time.monotonic() - started
        output = child.stdout.read() if child.stdout is not None else ""
    return Costs(seconds, sum(cpu.values()), peak / 1e9, child.returncode, output)


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _cpu_of(process: psutil.Process) -> float | None:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


def _memory_of(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.Error, AttributeError):
        return 0
