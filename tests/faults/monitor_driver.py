"""Monitors a small cube in child processes that kill themselves at the n-th disk call.

Usage: python monitor_driver.py FOLDER. Prints one JSON object. A separate script, because forking is safe only in a process
that has no threads yet.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "monitoring"))

from monitored_cube import digests, make_monitoring

from pipelines.monitoring.alerts import (
    AlertLog,
    AlertSettings,
    Patch,
    flat_indices,
    read_alert_log,
    update_alert_log,
    write_alert_log,
)
from pipelines.monitoring.layers import Layers
from pipelines.monitoring.replay import advance_all

BEFORE = {**dict.fromkeys(set(range(58)) - {30, 45}, "first"), 47: "older"}
AFTER = dict.fromkeys(range(60), "first")  # two new dates, two late ones (one of them history), one reprocessed
EVENTS = {"os.rename", "os.remove", "os.mkdir", "open", "os.truncate"}  # os.replace raises os.rename as well


def monitor(scenes, folder: Path) -> None:
    monitoring = make_monitoring(scenes, folder / "state", tile_px=8)
    advance_all(monitoring)
    layers = Layers.open(monitoring.layers)
    changed = flat_indices(layers.map("status"), 2)
    patches = [Patch(changed, {"pixels": changed.size, "area_m2": 100.0})] if changed.size else []
    alert_log, _ = update_alert_log(
        read_alert_log(folder / "alerts.json", folder / "alerts"), changed, patches, AlertSettings(), "S"
    )
    write_alert_log(folder / "alerts.json", folder / "alerts", alert_log)


def kill_at(number: int, folder: str) -> None:
    """The process dies at its `number`-th change to a file below `folder`: before it, or (pwrite) after half of it."""
    count, planes = 0, 0

    def stop_if_due() -> bool:
        nonlocal count
        count += 1
        return count == number

    def hook(event: str, arguments: tuple) -> None:
        if event in EVENTS and isinstance(arguments[0], str | os.PathLike) and str(arguments[0]).startswith(folder):
            if "layers" in str(arguments[0]) and event == "open":
                return  # what happens between them is what `pwrite` stands for
            is_write = event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if is_write and stop_if_due():
                os.kill(os.getpid(), signal.SIGKILL)

    original, write_bytes = os.pwrite, Path.write_bytes

    def pwrite(descriptor, content, offset):
        nonlocal planes
        planes += 1
        if planes % 2 == 0 and stop_if_due():
            original(descriptor, bytes(content)[: len(bytes(content)) // 2], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(descriptor, content, offset)

    def write_half(path, content):
        if stop_if_due():
            write_bytes(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write_bytes(path, content)

    os.pwrite, Path.write_bytes = pwrite, write_half
    sys.addaudithook(hook)


def run_child(folder: Path, number: int) -> bool:
    """True if the child was killed, False if it completed."""
    child = os.fork()
    if child == 0:
        kill_at(number, str(folder))
        monitor(AFTER, folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise SystemExit(f"child {number} failed with {os.WEXITSTATUS(status)}")
    return False


def main(root: Path) -> None:
    before, whole = root / "before", root / "whole"
    monitor(BEFORE, before)
    shutil.copytree(before, whole)
    monitor(AFTER, whole)
    expected, number, different = digests(whole), 0, []
    while True:
        number += 1
        folder = root / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(before, folder)
        if not run_child(folder, number):
            break
        monitor(AFTER, folder)
        if digests(folder) != expected:
            different.append(number)
    again, kills = root / "again-and-again", 0
    shutil.copytree(before, again)
    while kills < 20 and run_child(again, 48):  # enough for a block
        kills += 1
    if digests(again) != expected:
        different.append("again-and-again")
    assert isinstance(read_alert_log(again / "alerts.json", again / "alerts"), AlertLog)
    print(json.dumps({"calls": number - 1, "kills_in_a_row": kills, "different": different}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
