"""What each stage of a call took, beside what was planned: time, CPU seconds, memory, disk, bytes read.

Bytes read are those that the program asked the operating system for (Linux: `rchar`), from a disk or from memory that keeps what
was read before, which no plan could know. Files that are mapped into memory are not counted. CPU seconds and bytes are of all
processes that the program started. The figures stand in `costs.json` of the run, from which report and summary take them.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from configs.trained import used_by
from flows import Json
from flows.folder import RunFolder
from flows.machine import FIGURES, PastRun, is_crowded, keep_run, stage_key
from flows.steps import PeakMemory, children_of
from pipelines.files import write_json

if TYPE_CHECKING:
    from flows.planning import PlannedStep
    from flows.task import Invocation, Task

logger = logging.getLogger(__name__)
FIRST_LOOK_S = 0.3  # that work waits for the first size of the folders; a longer look goes on beside it
DISK_EVERY_S = 2.0  # and so rarely that the folder is listed for at most a fiftieth of the time


class Meter:
    """Measures this process and those that it starts, and from `begin()` on the size of folders; `figures()` at any time."""

    def __init__(self, folders: Sequence[Path]):
        self.folders = folders
        self.started, self.used = time.monotonic(), used_so_far()
        self.first_bytes: int | None = None
        self.largest_bytes = 0
        self.memory = PeakMemory(every_s=0.25)
        self._begun, self._has_looked, self._stop = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._sample, name="disk-size", daemon=True)

    def __enter__(self) -> Meter:
        self.memory.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._begun.set()
        self._thread.join()
        self.memory.__exit__()

    def begin(self) -> None:
        """Work begins, before which the size is that of nothing done. To list large folders takes minutes on a network disk."""
        if not self._begun.is_set():
            self._begun.set()
            self._has_looked.wait(FIRST_LOOK_S)

    def figures(self) -> dict[str, float | None]:
        """So far, by the names of FIGURES; `disk_mb` is what the folders grew by at most, None before work has begun."""
        cpu, read = used_so_far()
        if self._begun.is_set():
            self._has_looked.wait()
            self._look()
        return {
            "seconds": round(time.monotonic() - self.started, 2),
            "cpu_seconds": round(cpu - self.used[0], 2),
            "memory_mb": round(self.memory.peak_mb(), 1),
            "disk_mb": None if self.first_bytes is None else round((self.largest_bytes - self.first_bytes) / 1e6, 2),
            "read_mb": None if read is None or self.used[1] is None else round((read - self.used[1]) / 1e6, 2),
        }

    def _look(self) -> None:
        size = sum(bytes_below(folder, self._stop.is_set) for folder in self.folders)
        if not self._stop.is_set():
            self.first_bytes = size if self.first_bytes is None else self.first_bytes
            self.largest_bytes = max(self.largest_bytes, size)
        self._has_looked.set()

    def _sample(self) -> None:
        self._begun.wait()
        pause = 0.0
        while not self._stop.wait(pause):
            started = time.monotonic()
            self._look()
            pause = max(DISK_EVERY_S, 50 * (time.monotonic() - started))


def used_so_far() -> tuple[float, int | None]:
    """(CPU seconds, bytes read; None: the system does not count them) of this process and its children, also those that ended."""
    process = psutil.Process()
    own = process.cpu_times()
    cpu = own.user + own.system + own.children_user + own.children_system
    read = read_by(process)
    for child in children_of(process):
        try:
            times = child.cpu_times()
            more = read_by(child)
        except (psutil.Error, OSError):  # it ended meanwhile; the system then counts it with its parent
            continue
        cpu += times.user + times.system + times.children_user + times.children_system
        read = None if read is None or more is None else read + more
    return cpu, read


def read_by(process: psutil.Process) -> int | None:
    """Bytes read; None: not counted here, or (Linux) of a process that others may not look into. Raises psutil.NoSuchProcess."""
    try:
        return getattr(process.io_counters(), "read_chars", None) if hasattr(process, "io_counters") else None
    except psutil.NoSuchProcess:
        raise
    except (psutil.Error, OSError, RuntimeError):
        return None


def bytes_below(folder: Path, is_stopped: Callable[[], bool] = lambda: False) -> int:
    """Bytes on the disk of all files of a folder; what vanishes meanwhile does not count. Ends early when it is stopped."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_stopped():
                    return total
                try:
                    if entry.is_dir(follow_symlinks=False):
                        total += bytes_below(Path(entry.path), is_stopped)
                    else:
                        status = entry.stat(follow_symlinks=False)
                        total += status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
                except OSError:
                    continue
    except OSError:
        return total
    return total


def folders_of(folder: RunFolder) -> list[Path]:
    """The run's folder, and the cube where it lies elsewhere on a disk."""
    cube = Path(folder.cube_uri)
    try:
        is_elsewhere = "://" not in folder.cube_uri and not cube.resolve().is_relative_to(folder.path.resolve())
    except (OSError, RuntimeError):  # links in a circle
        is_elsewhere = False
    return [folder.path, *([cube] if is_elsewhere else [])]


# ---------------------------------------------------------------- planned and actual, stage by stage


@dataclass
class Costs:
    """The stages of one call. Nothing of a plan may stop a run: what cannot be planned is not compared."""

    task: Task
    context: Invocation
    verb: str
    ingested: Json = field(default_factory=lambda: {"added": 0, "replaced": 0})
    running: str = ""
    planned: dict[str, PlannedStep] = field(default_factory=dict)
    rows: dict[str, Json] = field(default_factory=dict)
    meter: Meter | None = None

    @contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        """Measures a stage, which is planned when its first step begins; `done` says what it did."""
        self.running, self.context.steps.on_work = stage, self._before_step
        with Meter(folders_of(self.context.folder)) as self.meter:
            yield

    def _before_step(self, stage: str) -> None:
        """Plans the running stage before its first step; how much ingest has to read is known when it has listed the source."""
        if self.meter is not None:
            self.meter.begin()
        if stage == self.running and stage != "ingest" and stage not in self.planned:
            self._plan(stage)
        if stage == "report" and self.running in self.planned and self.meter is not None:  # what it shows of its own stage
            self._note(self.running, self.meter.figures())

    def _plan(self, stage: str) -> None:
        """All stages at once, since a plan lists the source of every site."""
        if stage in self.planned:
            return
        try:
            from flows.planning import plan_steps

            _, steps = plan_steps(self.task, self.context.run, self.context.folder, self.verb, self.ingested)
        except Exception as e:
            logger.info("no plan to compare the stage %s with: %s", stage, e)
            return
        self.planned |= {step.stage: step for step in steps}

    def done(self, stage: str, record: Json) -> None:
        """Compares what the stage took with its plan; a stage that was skipped is not compared."""
        if stage == "ingest":
            self.ingested = record
        if record["skipped"] or self.meter is None:
            return
        actual = self.meter.figures()
        if stage == "ingest":
            self._plan(stage)
        self._note(stage, actual)
        if stage in self.planned and used_by(self.context.run) is None:
            try:
                keep_run(stage_key(self.context.run, stage), PastRun(self.planned[stage].plain, actual, is_crowded()))
            except Exception as e:
                logger.info("what the stage %s took is not kept for later plans: %s", stage, e)
        if stage == "choose":  # the stages that follow are those of what it chose
            self.planned.clear()

    def _note(self, stage: str, actual: Mapping[str, float | None]) -> None:
        step = self.planned.get(stage)
        self.rows[stage] = {
            "stage": stage,
            "planned": None if step is None else step.figures,
            "actual": dict(actual),
            "past_runs": 0 if step is None else step.past_runs,
            "at_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        folder = self.context.folder
        try:
            write_json(folder.costs, {**read_costs(folder), **self.rows})
        except Exception as e:  # a full disk ends a run where results are written
            logger.warning("what the stage %s took is not written: %s", stage, e)

    def lines(self) -> list[str]:
        return comparison_lines(list(self.rows.values()))


def read_costs(folder: RunFolder) -> dict[str, Json]:
    """stage -> its row, of the last call in which it did something; {} where there is nothing that can be read."""
    try:
        content = json.loads(folder.costs.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    rows = content.items() if isinstance(content, dict) else ()
    return {stage: row for stage, row in rows if _is_row(row)}


def _is_row(row: object) -> bool:
    if not isinstance(row, dict):
        return False
    figures = [row.get("actual"), *([row["planned"]] if row.get("planned") is not None else [])]
    times = [one.get(name) if isinstance(one, dict) else None for one in figures for name in ("seconds", "cpu_seconds")]
    return all(isinstance(value, int | float) for value in times)


def comparison_lines(rows: Sequence[Json]) -> list[str]:
    """The table for a terminal: `planned -> actual` of each figure."""
    if not rows:
        return []
    heads = ("time", "CPU", "memory", "disk", "read")
    lines = ["planned -> took" + "".join(f"{head:>20}" for head in heads)]
    for row in [*rows, *([whole_of(rows)] if len(rows) > 1 else [])]:
        cells = [f"{amount(row['planned'], name)} -> {amount(row['actual'], name)}" for name in FIGURES]
        lines.append(f"  {row['stage']:<13}" + "".join(f"{cell:>20}" for cell in cells))
    return lines


def whole_of(rows: Sequence[Json]) -> Json:
    """All stages that were planned: the largest memory, the sums of the rest."""
    planned = [row for row in rows if row["planned"] is not None]
    whole: Json = {"stage": "all"}
    for what in ("planned", "actual"):
        known = {name: [row[what][name] for row in planned if row[what].get(name) is not None] for name in FIGURES}
        whole[what] = {name: (max if name == "memory_mb" else sum)(values) for name, values in known.items() if values}
    return whole


def amount(figures: Mapping[str, float | None] | None, name: str) -> str:
    """A figure with its unit, "-" where it is not known."""
    value = None if figures is None else figures.get(name)
    if value is None:
        return "-"
    if name in ("seconds", "cpu_seconds"):
        return f"{value:.0f} s" if value < 90 else f"{value / 60:.1f} min" if value < 5400 else f"{value / 3600:.1f} h"
    return f"{value:.0f} MB" if value < 10_000 else f"{value / 1000:.1f} GB"
