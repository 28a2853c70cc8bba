"""The child processes of `driftline serve`: started in separate sessions, ended with all their descendants.

A worker starts every flow run in another session, so a signal to the worker's process group does not reach it: runs are
found as descendants. If a process is killed, the kernel (Linux) ends its children, so that no unsupervised process keeps the
password in its environment.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipelines.errors import StateError

PR_SET_PDEATHSIG = 1  # prctl(2)
SHORT_LIFE_S, SHORT_LIVES = 60.0, 3
_prctl = getattr(ctypes.CDLL(None), "prctl", None)  # loaded before fork; does not exist on macOS


@dataclass
class Child:
    """A Python module that runs as a program; `process` is its current process."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    home: Path
    process: subprocess.Popen[bytes]
    started: float
    stop_signal: signal.Signals
    sockets: tuple[int, ...] = ()
    short_lives: int = 0

    @property
    def log(self) -> Path:
        return self.home / f"{self.name}.log"


def start(
    stack: ExitStack,
    name: str,
    arguments: list[str],
    environment: dict[str, str],
    home: Path,
    stop_signal: signal.Signals = signal.SIGTERM,
    sockets: tuple[int, ...] = (),
) -> Child:
    """A module, with its arguments, as a child with its own log; ended when `stack` unwinds.

    It works in `home`: Prefect reads settings, and code, from prefect.toml, pyproject.toml and .env of the working
    folder.
    `sockets` are file descriptors that it inherits.
    """
    process = spawn(name, arguments, environment, home, sockets)
    child = Child(name, arguments, environment, home, process, time.monotonic(), stop_signal, sockets)
    stack.callback(end, child)
    return child


def restart(child: Child) -> None:
    """Starts it again. Raises StateError after three early ends in a row."""
    is_short = time.monotonic() - child.started < SHORT_LIFE_S
    child.short_lives = child.short_lives + 1 if is_short else 0
    if child.short_lives >= SHORT_LIVES:
        raise StateError(f"{child.name} ends right after its start (exit code {child.process.returncode}); see {child.log}")
    child.process = spawn(child.name, child.arguments, child.environment, child.home, child.sockets)
    child.started = time.monotonic()


def spawn(
    name: str, arguments: list[str], environment: dict[str, str], home: Path, sockets: tuple[int, ...]
) -> subprocess.Popen[bytes]:
    parent = os.getpid()
    with (home / f"{name}.log").open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=environment,
            cwd=home,
            pass_fds=sockets,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: end_with_parent(parent),
        )


def end_with_parent(parent: int) -> None:
    """Makes the kernel kill this process when its parent, the process `parent`, ends (Linux only).

    Uses SIGKILL: a worker without a server does not end on SIGTERM, and a run would wait for it. A kill loses no data.
    """
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call of prctl
            os._exit(1)


def end(child: Child) -> None:
    """Ends the flow runs below the child, then the child itself: with SIGTERM, then SIGKILL."""
    below = descendants(child.process.pid)
    signal_all(below, signal.SIGTERM)  # a run that gets SIGTERM keeps a valid state and reports CRASHED
    _, alive = psutil.wait_procs(below, timeout=10)
    signal_all(alive, signal.SIGKILL)
    if child.process.poll() is None:
        child.process.send_signal(child.stop_signal)
        try:
            child.process.wait(12)
        except subprocess.TimeoutExpired:
            signal_all(descendants(child.process.pid), signal.SIGKILL)
            child.process.kill()
            child.process.wait()


def descendants(pid: int) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
        return found
    except psutil.NoSuchProcess:
        return []


def signal_all(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Handles SIGTERM like Ctrl-C, so that the children are ended."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
