"""Executes the steps of a run as plain calls or as Prefect task runs. Both are recorded in `steps.jsonl`.

A step is a function of a progress callback; its inputs are bound to it, so no array passes through Prefect:

    steps.do("train", "cut windows", lambda progress: build_samples(..., progress=progress))
"""

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

import psutil

from flows import Json
from pipelines.progress import Progress
from pipelines.wording import without_secrets

Result = TypeVar("Result")
LISTING_S, LOOKING_SHARE = 0.25, 0.005


class Display(Protocol):
    """Shows the steps: bars on a terminal, a progress artifact in Prefect's UI, or nothing."""

    def step(self, stage: str, name: str) -> AbstractContextManager[Progress]: ...

    def log(self, text: str) -> None: ...


class Caller(Protocol):
    """Executes one step and returns its result."""

    def __call__(self, stage: str, name: str, work: Callable[[], Result]) -> Result: ...


class Silent:
    """Shows nothing."""

    def step(self, stage: str, name: str) -> AbstractContextManager[Progress]:
        return nullcontext(lambda done, total: None)

    def log(self, text: str) -> None:
        return None


def call_plainly(stage: str, name: str, work: Callable[[], Result]) -> Result:
    return work()


def ignore_work(stage: str) -> None:
    return None


@dataclass(frozen=True)
class StepRecord:
    """One line of `steps.jsonl`. A step with `started` but neither `done` nor `failed` was killed."""

    run: str  # id of the invocation
    stage: str
    step: str
    status: str  # started, done, failed, skipped
    at_utc: str
    seconds: float = 0.0
    peak_mb: float = 0.0
    detail: str = ""
    prefect_flow_run: str = ""


@dataclass
class Steps:
    """Executes steps and records them. `invocation` identifies one call of `driftline` in the record."""

    record: Path
    display: Display = field(default_factory=Silent)
    call: Caller = call_plainly
    flow_run: str = ""
    on_work: Callable[[str], None] = ignore_work  # called before each step with its stage
    invocation: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}")

    def do(self, stage: str, name: str, work: Callable[[Progress], Result]) -> Result:
        """The result of `work(progress)`. Exceptions are recorded and raised again."""
        self.on_work(stage)
        self._note(stage, name, "started")
        started, status, detail = time.monotonic(), "done", ""
        with PeakMemory() as memory:
            try:
                with self.display.step(stage, name) as progress:
                    return self.call(stage, name, lambda: work(progress))
            except BaseException as e:
                status, detail = "failed", without_secrets(f"{type(e).__name__}: {e}")
                raise
            finally:
                self._note(stage, name, status, time.monotonic() - started, memory.peak_mb(), detail)

    def skip(self, stage: str, why: str) -> None:
        self._note(stage, "", "skipped", detail=without_secrets(why))
        self.display.log(f"{stage}: {why}")

    def log(self, text: str) -> None:
        self.display.log(text)

    def _note(self, stage: str, step: str, status: str, seconds: float = 0.0, peak_mb: float = 0.0, detail: str = "") -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = StepRecord(self.invocation, stage, step, status, now, round(seconds, 3), round(peak_mb, 1), detail, self.flow_run)
        append_line(self.record, json.dumps(asdict(line)))


def append_line(path: Path, line: str) -> None:
    """Appends a line to `path`, on disk when this returns. Completes a line truncated by a crash first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else "\n" + line
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_records(path: Path) -> list[Json]:
    """Every complete record; lines truncated by a crash are skipped."""
    if not path.exists():
        return []
    records, names = [], {f.name for f in fields(StepRecord)}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and names <= record.keys():
            records.append(record)
    return records


def stage_costs(path: Path) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of each stage over the last invocation in which it was not skipped."""
    records = [r for r in read_records(path) if r["status"] == "done"]
    last = {record["stage"]: record["run"] for record in records}
    costs: dict[str, dict[str, float]] = {}
    for record in records:
        if last[record["stage"]] == record["run"]:
            cost = costs.setdefault(record["stage"], {"seconds": 0.0, "peak_mb": 0.0})
            cost["seconds"] = round(cost["seconds"] + record["seconds"], 3)
            cost["peak_mb"] = max(cost["peak_mb"], record["peak_mb"])
    return costs


class PeakMemory:
    """Samples the memory of this process and its children in a thread; `peak_mb()` is the highest sum.

    Of the children a page that several processes share counts in parts (Linux: Pss), so that four workers with the same libraries
    are not four times as large. To find the processes and to count the pages of one takes time: both are done so rarely that
    each takes at most LOOKING_SHARE of it, and pages only where the sum could be a new peak.
    """

    def __init__(self, every_s: float = 0.1):
        self.every_s = every_s
        self._peak = 0
        self._family: list[psutil.Process] = []
        self._list_at = self._count_at = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def peak_mb(self) -> float:
        self._look()
        return self._peak / 1e6

    def _look(self) -> None:
        with self._lock:
            if time.monotonic() >= self._list_at:
                started, own = time.thread_time(), psutil.Process()
                self._family = [own, *children_of(own)]
                self._list_at = time.monotonic() + max(LISTING_S, (time.thread_time() - started) / LOOKING_SHARE)
            resident, *others = map(resident_bytes, self._family)
            if resident + sum(others) > self._peak and time.monotonic() >= self._count_at:
                started = time.thread_time()
                self._peak = max(self._peak, resident + sum(map(own_bytes, self._family[1:])))
                self._count_at = time.monotonic() + (time.thread_time() - started) / LOOKING_SHARE

    def _sample(self) -> None:
        while not self._stop.wait(self.every_s):
            self._look()


def children_of(process: psutil.Process) -> list[psutil.Process]:
    """All processes that it has started, and those that they have; [] where the system does not let us list them."""
    try:
        return list(process.children(recursive=True))
    except (psutil.Error, OSError, RuntimeError):
        return []


def resident_bytes(process: psutil.Process) -> int:
    """Its resident memory, with all pages that it shares with others; 0 of one that has ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def own_bytes(process: psutil.Process) -> int:
    """Its resident memory, of pages that it shares with others its part, where the system counts them; 0 of one that has ended.

    Source: proc_pid_smaps(5), Pss.
    """
    try:
        return int(process.memory_full_info().pss)
    except (psutil.AccessDenied, AttributeError, OSError):  # not on this system, or of another user
        return resident_bytes(process)
    except psutil.Error:
        return 0
