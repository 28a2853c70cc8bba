"""What a stage takes is measured beside its plan."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows import costs
from flows.costs import Meter, bytes_below, comparison_lines, read_costs, used_so_far
from flows.folder import RunFolder
from flows.planning import Extent, PlannedStep
from flows.stage import carry_out
from flows.task import Invocation
from pipelines.errors import StorageFull

MB = 1_000_000


def test_the_disk_is_measured_at_its_largest(tmp_path: Path) -> None:
    (tmp_path / "before").write_bytes(b"x" * MB)
    with Meter([tmp_path]) as meter:
        assert meter.figures()["disk_mb"] is None, "no work has begun"
        meter.begin()
        (tmp_path / "below").mkdir()
        (tmp_path / "below" / "staged").write_bytes(b"x" * 3 * MB)
        meter.figures()
        (tmp_path / "below" / "staged").unlink()
        assert meter.figures()["disk_mb"] == pytest.approx(3, abs=0.1)
    assert bytes_below(tmp_path / "nowhere") == 0


def test_cpu_seconds_and_bytes_of_processes_that_ended_count(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"x" * 20 * MB)
    before, read_before = used_so_far()
    work = f"import time\nwhile time.process_time() < 0.5: pass\nopen({str(path)!r}, 'rb').read()"
    subprocess.run([sys.executable, "-c", work], check=True)
    cpu, read = used_so_far()
    assert cpu - before > 0.4
    if read is not None and read_before is not None:
        assert read - read_before > 20 * MB


def test_the_table_says_what_is_not_known(tmp_path: Path) -> None:
    actual = {"seconds": 120.0, "cpu_seconds": 60.0, "memory_mb": 500.0, "disk_mb": 12_000.0, "read_mb": None}
    lines = comparison_lines([{"stage": "train", "planned": None, "actual": actual}])
    assert " ".join(lines[1].split()) == "train - -> 2.0 min - -> 60 s - -> 500 MB - -> 12.0 GB - -> -"
    assert comparison_lines([]) == []
    rows = [{"stage": stage, "planned": actual, "actual": actual} for stage in ("ingest", "train")]
    all_of_it = "4.0 min -> 4.0 min 2.0 min -> 2.0 min 500 MB -> 500 MB 24.0 GB -> 24.0 GB - -> -"
    assert " ".join(comparison_lines(rows)[-1].split()) == f"all {all_of_it}"


def test_what_is_damaged_of_the_costs_is_left_out(tmp_path: Path) -> None:
    times = {"seconds": 1.0, "cpu_seconds": 1.0}
    rows = {"a": [1], "b": {"actual": {}}, "c": {"actual": times, "planned": {"seconds": None}}, "d": {"actual": times}}
    (tmp_path / "costs.json").write_text(json.dumps(rows))
    assert list(read_costs(RunFolder(tmp_path, ""))) == ["d"]
    (tmp_path / "costs.json").write_text("{")
    assert read_costs(RunFolder(tmp_path, "")) == {}


def test_a_slow_disk_holds_up_neither_the_work_nor_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = threading.Event()

    def slow(folder: Path, is_stopped: Callable[[], bool]) -> int:
        while not is_stopped():
            stopped.wait(0.01)
        stopped.set()
        return 0

    monkeypatch.setattr(costs, "bytes_below", slow)
    with Meter([tmp_path]) as meter:
        meter.begin()
        assert not stopped.is_set()
    assert stopped.is_set()


class Planned:
    """A plan of every stage; `calls` counts how often it was made."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, run: Any, folder: RunFolder, verb: str, ingested: Any = None) -> tuple[Extent, list[PlannedStep]]:
        self.calls += 1
        steps = [PlannedStep(stage, "", 1.0, 1.0, 1.0, cpu_seconds=1.0) for stage in ("ingest", "train", "evaluate", "predict")]
        return Extent(1, 1, (1, 1), 1, 1), steps


def test_stages_are_planned_once_and_folders_are_listed_only_for_work(
    fake: Any, open_fake: Callable[[], Invocation], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = list[Path]()

    def count(folder: Path, is_stopped: Callable[[], bool]) -> int:
        listed.append(folder)
        return len(listed)

    monkeypatch.setattr(costs, "bytes_below", count)
    fake.plan = Planned()
    rows = carry_out(open_fake(), "run")["costs"]
    assert [row["stage"] for row in rows if row["planned"]] == ["ingest", "train", "evaluate", "predict"]
    assert fake.plan.calls == 1
    assert listed
    listed.clear()
    assert carry_out(open_fake(), "run")["costs"] == []
    assert (fake.plan.calls, listed) == (1, []), "there was nothing to do"


@pytest.mark.parametrize("plan", [Planned(), lambda: None], ids=["planned", "not planned"])
def test_neither_a_plan_nor_a_measurement_ends_a_run(
    plan: Any, no_home: None, fake: Any, open_fake: Callable[[], Invocation], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise psutil.AccessDenied

    def fill(path: Path, content: object) -> None:
        raise StorageFull(f"{path}: no space left")

    fake.plan = plan
    monkeypatch.setattr(psutil.Process, "io_counters", refuse, raising=False)
    monkeypatch.setattr(psutil.Process, "children", refuse)
    monkeypatch.setattr(costs, "write_json", fill)
    rows = carry_out(open_fake(), "run")["costs"]
    assert fake.done == ["train", "evaluate", "predict"]
    assert {row["actual"]["read_mb"] for row in rows} == {None}
    assert {row["planned"] is None for row in rows} == {not isinstance(plan, Planned)}
