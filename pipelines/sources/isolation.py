"""Runs what decodes untrusted files in worker processes, which may crash, hang or need too much without ending the program.

A worker stays between files. It gets `BASE_S` and a second for each `BYTES_PER_S` of the files, without the time that it waits
for a CPU, and `OVERHEAD_BYTES` more memory than its call asks for. One that dies, or has not enough of a memory that others
share, gets a second try: a new worker, alone, with the whole memory. After that the scene is refused by the name of its files.
See docs/design/013-isolation.md.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar, cast

import numpy as np
import psutil

from pipelines.errors import DriftlineError, SceneRefused, StateError
from pipelines.sources import worker as of_worker
from pipelines.sources.worker import NOT_ENDED, NUMBER, Answer, Call, receive, send

BASE_S, BYTES_PER_S = 60.0, 1e6  # far below what any disk or decoder in order needs
OVERHEAD_BYTES = 128 << 20  # GDAL's cache, decoders, projections
MOST_OF_MACHINE = 0.75  # of its memory, for what reads whole rasters and has no memory_mb
TICK_S = 1.0
REMEMBERED_S = 600.0  # survey and ingest open the same file: one that takes too long does so once
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from pipelines.sources.worker import serve; serve(int(sys.argv[1]), json.loads(sys.argv[3]))"
)
DAMAGED = "the file may be damaged: download it again"
OUT_OF_MEMORY = "the system does that when memory runs out: lower cube.memory_mb or cube.workers"
RAISE_IT = "raise cube.memory_mb"
SPLIT_IT = "that is most of this machine's memory: split the file"
P = ParamSpec("P")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """Bytes of memory for all calls together (default: most of the machine's), how many share it, seconds (default: by size)."""

    memory_bytes: int | None = None
    shared_by: int = 1
    seconds: float | None = None


NO_LIMITS = Limits()
_Stamp = tuple[str, int, int]
_too_slow: dict[_Stamp | None, tuple[float, str]] = {}  # files that took too long: when, and what was said


def isolated(
    function: Callable[..., Result], *args: object, label: str, paths: Sequence[str | Path], limits: Limits = NO_LIMITS
) -> Result:
    """`function(*args)`, computed in a worker; in a worker, directly. All three must be picklable. `paths`: what it reads.

    Raises what the function raises, and SceneRefused(unreadable) of the scene `label` if the worker was killed twice, took too
    long, or needed too much memory.
    """
    if of_worker.is_worker:
        return function(*args)
    whole = limits.memory_bytes or int(MOST_OF_MACHINE * psutil.virtual_memory().total)
    seconds = limits.seconds or BASE_S + sum(map(_size, set(paths))) / BYTES_PER_S
    names, problem, again = _names(paths), "", "; ingest --retry-refused tries again" if limits.memory_bytes else ""
    stamp = _stamp(paths)
    if stamp in _too_slow and time.monotonic() - _too_slow[stamp][0] < REMEMBERED_S:
        raise SceneRefused(label, "unreadable", _too_slow[stamp][1])
    for is_alone in (False, True):
        memory_bytes = OVERHEAD_BYTES + (whole if is_alone else whole // limits.shared_by)
        try:
            answer = _POOL.call(Call(function, args, str(Path.cwd()), memory_bytes), seconds, is_alone)
        except TimeoutError:
            problem = f"reading {names} took longer than {round(seconds, 1):g} s; {DAMAGED}{again}"
            if stamp is not None:
                _too_slow[stamp] = time.monotonic(), problem
            break
        except _Died as died:
            problem = f"the decoder {died} while reading {names}; {OUT_OF_MEMORY if died.is_killed else DAMAGED}{again}"
        else:
            if answer.kind != "memory":
                return cast(Result, _value_of(answer))
            remedy = RAISE_IT if limits.memory_bytes else SPLIT_IT
            problem = f"reading {names} needed more than {memory_bytes / 2**20:.0f} MB; {remedy}{again}"
            if limits.shared_by == 1:
                break
    raise SceneRefused(label, "unreadable", problem)


def isolate(function: Callable[Concatenate[Path, P], Result]) -> Callable[Concatenate[Path, P], Result]:
    """Decorator for functions of a module that read the file which is their first argument: they run in a worker."""

    @functools.wraps(function)
    def call(path: Path, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        if of_worker.is_worker:
            return function(path, *args, **kwargs)
        return isolated(functools.partial(call, **kwargs), path, *args, label=path.name, paths=(path,))

    return cast(Callable[Concatenate[Path, P], Result], call)


def _value_of(answer: Answer) -> object:
    if answer.kind == "error":
        error: BaseException = answer.value
        if not isinstance(error, DriftlineError):
            error.add_note(f"in a worker:\n{answer.trace}")
        raise error
    return answer.value


def _names(paths: Sequence[str | Path]) -> str:
    names = list(dict.fromkeys(Path(path).name for path in paths))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _stamp(paths: Sequence[str | Path]) -> _Stamp | None:
    """The only file of a call, as it is now; None for several, or one that is not there."""
    if len(set(paths)) != 1:
        return None
    try:
        status = Path(paths[0]).stat()
    except OSError:
        return None
    return str(paths[0]), status.st_size, status.st_mtime_ns


def _size(path: str | Path) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


class _Died(Exception):
    """A worker ended during a call, with this exit code (negative: the signal); None: not known."""

    def __init__(self, code: int | None):
        self.is_killed = code == -signal.SIGKILL
        how = "" if code is None else f" with exit code {code}"
        super().__init__(f"was killed by signal {-code}" if code is not None and code < 0 else f"ended{how}")


@dataclass(frozen=True)
class _Worker:
    """`is_used`: it has answered a call, and keeps some of the memory that it needed for that."""

    pid: int
    channel: socket.socket
    is_used: bool = False


class _Clock:
    """How much of its time a worker had: on a machine that others keep busy it may be ready to run and not get a CPU."""

    def __init__(self, pid: int):
        self._pid, self._cpu_s = pid, 0.0

    def __call__(self, tick_s: float) -> float:
        """Of the last `tick_s` seconds: those that it computed if it could run, all if it waited for something else."""
        try:
            process = psutil.Process(self._pid)
            is_ready, (user_s, system_s, *_) = process.status() == psutil.STATUS_RUNNING, process.cpu_times()
        except psutil.Error:
            return tick_s
        used_s, self._cpu_s = user_s + system_s - self._cpu_s, user_s + system_s
        return min(used_s, tick_s) if is_ready else tick_s


class _Pool:
    """The workers of this process. A thread has one for itself during a call; what is idle is used again."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._is_alone = False
        self._waiting_alone = 0
        self._idle: list[_Worker] = []
        self._asking = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def call(self, call: Call, seconds: float, is_alone: bool) -> Answer:
        """Raises _Died, TimeoutError; StateError if no worker can be started."""
        message = pickle.dumps(call, protocol=5)
        with self._turn(is_alone):
            worker = self._take(is_new=is_alone)
            answer = self._ask_worker(worker, message, seconds)
            if answer.kind == "memory" and worker.is_used:
                answer = self._ask_worker(self._take(is_new=True), message, seconds)
            return answer

    def _ask_worker(self, worker: _Worker, message: bytes, seconds: float) -> Answer:
        """Its answer; one that was short of memory, or did not answer, is ended."""
        is_kept = False
        try:
            worker.channel.settimeout(min(TICK_S, seconds))
            send(worker.channel, message, [])
            text, buffers = receive(worker.channel, lambda size: np.empty(size, np.uint8), seconds, _Clock(worker.pid))
            answer: Answer = pickle.loads(text, buffers=buffers)
            is_kept = answer.kind != "memory"
            return answer
        except TimeoutError:
            raise
        except (EOFError, OSError):
            raise _Died(self._end(worker)) from None
        finally:
            if is_kept:
                with self._changed:
                    self._idle.append(replace(worker, is_used=True))
            else:
                self._end(worker)

    @contextmanager
    def _turn(self, is_alone: bool) -> Iterator[None]:
        """One that runs alone waits for the others, and keeps new ones out."""
        with self._changed:
            self._waiting_alone += is_alone
            try:
                self._changed.wait_for(lambda: not self._is_alone and not (self._running if is_alone else self._waiting_alone))
            finally:
                self._waiting_alone -= is_alone
            self._running += 1
            self._is_alone = is_alone
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._is_alone = False
                self._changed.notify_all()

    def _take(self, is_new: bool) -> _Worker:
        with self._changed:
            if self._idle and not is_new:
                return self._idle.pop()
        ours, theirs = socket.socketpair()
        try:
            pid = self._ask(0, theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return _Worker(pid, ours)

    def _end(self, worker: _Worker) -> int | None:
        """The exit code of the worker, which is killed if it has not ended; None if that is not known."""
        if worker.channel.fileno() < 0:
            return None
        worker.channel.close()
        try:
            code = self._ask(worker.pid, None)
        except StateError:  # the server has died, and its workers with it
            return None
        return None if code == NOT_ENDED else code

    def _ask(self, number: int, channel: socket.socket | None) -> int:
        """The server's answer; a server that died is replaced, once, when a worker is asked for. Raises StateError."""
        with self._asking:
            for is_last in (channel is None, True):
                try:
                    if self._control is None:
                        self._start()
                    assert self._control is not None
                    descriptors = [] if channel is None else [channel.fileno()]
                    socket.send_fds(self._control, [NUMBER.pack(number)], descriptors)
                    if answer := self._control.recv(NUMBER.size):
                        return int(NUMBER.unpack(answer)[0])
                except OSError:
                    pass
                except BaseException:  # its answer would be taken for that to the next question
                    self._stop()
                    raise
                self._stop()
                if is_last:
                    break
        raise StateError("the process that decodes files could not be started; its error is above")

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # a server with threads cannot be forked
        loaded = [name for name in of_worker.OPTIONAL if name in sys.modules]
        command = [sys.executable, "-c", START, str(theirs.fileno()), json.dumps(sys.path), json.dumps(loaded)]
        with theirs:
            self._server = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._server is not None:
            try:
                self._server.wait(5)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        self._control = self._server = None

    def leave(self) -> None:
        """Closes this process's ends, without a word to the server."""
        for channel in (self._control, *(worker.channel for worker in self._idle)):
            if channel is not None:
                channel.close()
        if self._server is not None:
            self._server.returncode = 0  # it is no child of this process

    def close(self) -> None:
        """Ends all workers."""
        with self._changed:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.channel.close()
        with self._asking:
            self._stop()


_POOL = _Pool()


def end_workers() -> None:
    """Ends the workers of this process, with what they hold in memory; the next call starts others."""
    _POOL.close()


def _forget() -> None:
    """In a fork of this process the workers are those of the parent."""
    global _POOL
    _POOL.leave()
    _POOL = _Pool()


atexit.register(lambda: _POOL.close())
os.register_at_fork(after_in_child=_forget)
