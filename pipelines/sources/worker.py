"""The processes that decode files: a server that has imported the decoders, and its forks, the workers.

The server is a process of its own with one thread, so forking is safe whatever threads the program has, and it is started by
its command, so the program's `__main__` is not run again (as multiprocessing would: a script without a guard would start
itself). Nothing outlives the program: the server ends when the other end of its channel is closed, and workers end with it.
A worker is a protection against crashes, not against an attacker: it runs as the same user.
"""

from __future__ import annotations

import contextlib
import copyreg
import ctypes
import gc
import importlib
import io
import logging
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

NEEDED = (  # imported by the server, so that a new worker takes milliseconds
    "pipelines.sources.reading",
    "pipelines.cube.encoding",
    "pipelines.sources.series",
    "pipelines.sources.image_pair",
    "scipy.ndimage",  # for quality masks: tens of MB that no call's memory is meant for
)
OPTIONAL = ("pydicom", "pipelines.privacy.file")  # those of them that the program has imported, too
NUMBER = struct.Struct("<q")
PR_SET_PDEATHSIG = 1
OOM_SCORE = "500"
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # sent to whole groups of processes; the program decides
CHECK_S = 2.0
MOST_PARTS = 1 << 16  # of a message
NOT_ENDED = 1 << 16

is_worker = False


@dataclass(frozen=True)
class Call:
    """What a worker shall do: `function(*args)` in `folder`, with at most `memory_bytes` more than it had when it began."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    folder: str
    memory_bytes: int


@dataclass(frozen=True)
class Answer:
    """The result; the exception that the function raised, with its traceback; or nothing, since memory was not enough."""

    kind: Literal["result", "error", "memory"]
    value: Any = None
    trace: str = ""


# ---------------------------------------------------------------- messages


def send(channel: socket.socket, message: bytes, buffers: list[pickle.PickleBuffer]) -> None:
    """A pickle and its buffers, which are sent from where they lie. Raises OSError if the other end is closed."""
    raw = [memoryview(message), *(buffer.raw() for buffer in buffers)]
    channel.sendall(struct.pack(f"<{1 + len(raw)}q", len(raw), *(part.nbytes for part in raw)))
    for part in raw:
        channel.sendall(part)


def receive(
    channel: socket.socket,
    allocate: Callable[[int], Any] = bytearray,
    seconds: float = 0.0,
    counted: Callable[[float], float] = float,
) -> tuple[Any, list[Any]]:
    """(pickle, buffers), each in memory of `allocate`. `seconds`: how long to wait on a channel that has a timeout; `counted`:
    how much of a timeout counts as waiting (all of it).

    Raises EOFError (the other end is closed), TimeoutError.
    """
    (count,) = NUMBER.unpack(_fill(channel, bytearray(NUMBER.size), seconds, counted))
    if not 0 < count <= MOST_PARTS:
        raise EOFError("the other end writes no messages any more")
    sizes = struct.unpack(f"<{count}q", _fill(channel, bytearray(NUMBER.size * count), seconds, counted))
    message, *buffers = (_fill(channel, allocate(size), seconds, counted) for size in sizes)
    return message, buffers


def _fill(channel: socket.socket, memory: Any, seconds: float, counted: Callable[[float], float]) -> Any:
    """Counts the timeouts of the channel rather than the clock, which runs on while both processes are stopped (Ctrl-Z)."""
    rest, waited = memoryview(memory).cast("B"), 0.0
    while rest:
        try:
            received = channel.recv_into(rest)
        except TimeoutError:
            waited += counted(channel.gettimeout() or 0.0)
            if waited >= seconds:
                raise
            continue
        except OSError as error:
            raise EOFError(str(error)) from error
        if not received:
            raise EOFError("the other end is closed")
        rest = rest[received:]
    return memory


# ---------------------------------------------------------------- the server


def serve(descriptor: int, loaded: Sequence[str] = ()) -> None:
    """Answers the program: a socket is answered by the id of a new worker that listens to it, an id by how that one ended."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    logging.getLogger().addHandler(logging.NullHandler())  # what decoders log is in the exception, too
    sys.modules["boto3"] = None  # type: ignore[assignment]  # rasterio imports it for clouds, which takes longer than GDAL
    for name in (*NEEDED, *loaded):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # workers share these pages
    program, workers = os.getppid(), set[int]()
    with socket.socket(fileno=descriptor) as control:
        control.settimeout(CHECK_S)
        while os.getppid() == program:  # a process that the program forked may keep the other end open
            try:
                message, descriptors, _, _ = socket.recv_fds(control, NUMBER.size, 1)
            except TimeoutError:
                continue
            except OSError:
                break
            if not message:
                break
            (number,) = NUMBER.unpack(message)
            if descriptors:
                answer = os.fork()
                if answer == 0:
                    control.close()
                    _work_until_closed(descriptors[0])
                workers.add(answer)
                os.close(descriptors[0])
            elif number in workers:
                workers.discard(number)
                os.kill(number, signal.SIGKILL)  # without effect on how it ended, if it has
                answer = _exit_code_of(number)
            else:  # a worker of a server before this one; another process may have its id
                answer = NOT_ENDED
            try:
                control.sendall(NUMBER.pack(answer))
            except OSError:  # the program was killed
                break
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    for worker in workers:
        _exit_code_of(worker)


def _exit_code_of(worker: int) -> int:
    """Of a worker that was killed; NOT_ENDED if it waits for a disk that does not answer, where no signal reaches it."""
    for _ in range(500):
        ended, status = os.waitpid(worker, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return NOT_ENDED


# ---------------------------------------------------------------- a worker


def _work_until_closed(descriptor: int) -> None:
    """Answers calls until the channel is closed; never returns."""
    global is_worker
    is_worker = True
    try:
        _end_with(os.getppid())
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):  # where memory runs out, a worker goes before the program
            Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
        own_bytes = data_bytes()
        with socket.socket(fileno=descriptor) as channel:
            channel.settimeout(None)
            while True:
                send(channel, *_answer_to(*receive(channel), own_bytes))
    except (EOFError, OSError):
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _answer_to(message: Any, buffers: list[Any], own_bytes: int) -> tuple[bytes, list[pickle.PickleBuffer]]:
    try:
        call: Call = pickle.loads(message, buffers=buffers)
        os.chdir(call.folder)
        limit_memory(own_bytes + call.memory_bytes)
        return _pickled(Answer("result", call.function(*call.args)))
    except BaseException as error:
        limit_memory(None)
        if is_shortage(error):
            return _pickled(Answer("memory"))
        trace = traceback.format_exc()
        try:
            message, _ = _pickled(Answer("error", error, trace))
            pickle.loads(message)
        except Exception:  # an exception that cannot be pickled, or not be read back
            return _pickled(Answer("error", RuntimeError(f"{type(error).__name__}: {error}"), trace))
        return message, []


def _pickled(answer: Answer) -> tuple[bytes, list[pickle.PickleBuffer]]:
    buffers: list[pickle.PickleBuffer] = []
    written = io.BytesIO()
    pickler = pickle.Pickler(written, protocol=5, buffer_callback=buffers.append if answer.kind == "result" else None)
    # without tblib, which distributed installs: it pickles the causes of an error too, and those of GDAL cannot be read back
    kept = {kind: how for kind, how in copyreg.dispatch_table.items() if not issubclass(kind, BaseException)}
    pickler.dispatch_table = kept
    pickler.dump(answer)
    return written.getvalue(), buffers


def is_shortage(error: BaseException | None) -> bool:
    """True if the error, or one that caused it, says that memory could not be allocated (numpy, GDAL, HDF5, the linker)."""
    while error is not None:
        may_say = isinstance(error, OSError | RuntimeError | ImportError) or "CPLE" in type(error).__name__
        text = str(error).lower() if may_say else ""
        is_said = "allocat" in text or "failed to map segment" in text
        if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or is_said:
            return True
        error = error.__cause__ or error.__context__
    return False


def data_bytes() -> int:
    """Bytes of private writable memory of this process, which RLIMIT_DATA limits; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    except OSError:
        return 0


def has_room(size_bytes: int) -> bool:
    """Whether this process may take so much more memory; True where nothing limits it."""
    most_bytes, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return most_bytes == resource.RLIM_INFINITY or data_bytes() + size_bytes <= most_bytes


def limit_memory(most_bytes: int | None) -> None:
    """Memory in excess of the limit is refused by the system; only on Linux (others do not count what malloc maps)."""
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard if most_bytes is None else most_bytes, hard))


def _end_with(server: int) -> None:
    """Makes the system end this process when the server ends, even while a decoder hangs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(0)
