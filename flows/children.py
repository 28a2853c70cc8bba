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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.errors import StateError

PR_SET_PDEATHSIG = 1  # prctl(2)
SHORT_LIFE_S, SHORT_LIVES = 60.0, 3
_prctl = getattr(ctypes.CDLL(None), "prctl", None)  # loaded before fork; does not exist on macOS


@dataclass
class Child:
    """A Python module that runs as a program, with its arguments; `process` is its current process, `log` its output.

    It works in `home`: Prefect reads settings, and code, from prefect.toml, pyproject.toml and .env of the working folder.
    `sockets` are file descriptors that it inherits.
    """

    name: str
    arguments: list[str]
    environment: dict[str, str]
    home: Path
    stop_signal: signal.Signals = signal.SIGTERM
    sockets: tuple[int, ...] = ()
    short_lives: int = 0

    def __post_init__(self) -> None:
        self.log = self.home / f"{self.name}.log"
        self.start()

    def start(self) -> None:
        parent, self.started = os.getpid(), time.monotonic()
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.arguments],
                env=self.environment,
                cwd=self.home,
                pass_fds=self.sockets,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: end_with_parent(parent),
            )

    def restart(self) -> None:
        """Starts it again. Raises StateError after three early ends in a row."""
        is_short = time.monotonic() - self.started < SHORT_LIFE_S
        self.short_lives = self.short_lives + 1 if is_short else 0
        if self.short_lives >= SHORT_LIVES:
            raise StateError(f"{self.name} ends right after its start (exit code {self.process.returncode}); see {self.log}")
        self.start()

    def end(self) -> None:
        """Ends the flow runs below the child, then the child itself: with SIGTERM, then SIGKILL."""
        below = descendants(self.process.pid)
        signal_all(below, signal.SIGTERM)  # a run that gets SIGTERM keeps a valid state and reports CRASHED
        _, alive = psutil.wait_procs(below, timeout=10)
        signal_all(alive, signal.SIGKILL)
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(12)
            except subprocess.TimeoutExpired:
                signal_all(descendants(self.process.pid), signal.SIGKILL)
                self.process.kill()
                self.process.wait()


def end_with_parent(parent: int) -> None:
    """Makes the kernel kill this process when its parent, the process `parent`, ends (Linux only).

    Uses SIGKILL: a worker without a server does not end on SIGTERM, and a run would wait for it. A kill loses no data.
    """
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call of prctl
            os._exit(1)


def descendants(pid: int) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
        return found
    except psutil.NoSuchProcess:
        return []


def signal_all(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Handles SIGTERM like Ctrl-C, so that the children are ended."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
