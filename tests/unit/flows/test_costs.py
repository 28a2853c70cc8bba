"""What a stage takes is measured beside its plan."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.costs import Meter, bytes_below, comparison_lines, read_costs, used_so_far
from flows.folder import RunFolder

MB = 1_000_000


def test_the_disk_is_measured_at_its_largest(tmp_path: Path) -> None:
    (tmp_path / "before").write_bytes(b"x" * MB)
    with Meter([tmp_path]) as meter:
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
