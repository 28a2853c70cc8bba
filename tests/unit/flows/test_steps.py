"""Steps are recorded, whether they complete or fail."""

import json
import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from flows.steps import LISTING_S, PeakMemory, StepRecord, Steps, append_line, read_records, stage_costs
from flows.terminal import Bars
from pipelines.progress import ignore_progress, note_progress


def test_a_step_is_recorded_with_its_time_and_memory(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "steps.jsonl")

    def work(progress) -> int:
        progress(1, 2)
        return int(np.ones(20_000_000).sum())

    assert steps.do("train", "add", work) == 20_000_000
    started, done = read_records(tmp_path / "steps.jsonl")
    assert (started["status"], done["status"]) == ("started", "done")
    assert done["peak_mb"] > 150
    assert stage_costs(tmp_path / "steps.jsonl")["train"]["seconds"] == done["seconds"]


@pytest.mark.parametrize("then", ["", "import os; os.fork(); "], ids=["one", "two that share it"])
def test_memory_of_what_children_have_started_counts_once_and_after_they_ended(then: str) -> None:
    holds = f"held = b'1' * 200_000_000; {then}print(flush=True); input()"
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {holds!r}])"
    with PeakMemory(every_s=0.05) as memory:
        before, deadline = memory.peak_mb(), time.monotonic() + 60
        with subprocess.Popen([sys.executable, "-c", starts], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            child.stdout.readline()
            while memory.peak_mb() < before + 190 and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(LISTING_S + 0.1 if then else 0)
            memory.peak_mb()
            child.communicate("\n\n")
    assert before + 190 < memory.peak_mb() < before + 350


def test_a_failed_step_is_recorded_and_raises(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "steps.jsonl")
    with pytest.raises(ZeroDivisionError):
        steps.do("train", "divide", lambda progress: 1 / 0)
    assert read_records(tmp_path / "steps.jsonl")[-1]["detail"].startswith("ZeroDivisionError")
    steps.skip("predict", "up to date")
    assert read_records(tmp_path / "steps.jsonl")[-1]["status"] == "skipped"


def test_a_truncated_line_does_not_affect_the_next(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_text('{"run": "a", "sta')
    whole = asdict(StepRecord("b", "train", "fit", "done", "2020-01-01"))
    append_line(path, json.dumps(whole))
    append_line(path, '{"status": "done"}')  # not a record
    assert read_records(path) == [whole]


def test_what_is_noted_of_a_step_stands_in_its_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars().step("train", "a network") as progress:
        note_progress(progress, "epoch 1: accuracy 0.5")
        note_progress(progress, "best epoch 3: accuracy 0.9")
    note_progress(ignore_progress, "nowhere")
    assert re.search(r"train: a network  \d+\.\d s, best epoch 3: accuracy 0\.9\n", capsys.readouterr().err)
