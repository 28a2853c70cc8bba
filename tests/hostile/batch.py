"""One batch: hostile and good files in one folder, read by `driftline ingest` in its own process, and what became of each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import yaml

from tests.hostile import hdf5s, tiffs
from tests.hostile.case import GRID, Case, pixels

ROOT = Path(__file__).resolve().parents[2]
MEMORY_MB = 512
STOP_MB = 4000  # a process that takes more is ended, so that the machine survives
TIMEOUT_S = 120
SUFFIXES = {"tif": ".tif", "pair": ".tif", "jp2": ".jp2", "h5": ".h5"}
FIRST_DAY = np.datetime64("1990-01-01")


@dataclass
class Tally:
    """What a batch, or many, came to."""

    files: int = 0
    good: int = 0
    refused: int = 0
    accepted: int = 0
    deaths: int = 0
    hangs: int = 0
    ended: int = 0  # batches whose good files did not all arrive
    truncations: int = 0  # accepted
    wrong: int = 0  # accepted where they must be refused, with other values or validity than expected
    escapes: int = 0  # bytes of files that reached the terminal or the answer as control characters, and requests to the network
    peak_mb: float = 0.0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    suspects: set[str] = field(default_factory=set)  # files that were open when a process was ended
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        for name in (
            "files",
            "good",
            "refused",
            "accepted",
            "deaths",
            "hangs",
            "ended",
            "truncations",
            "wrong",
            "escapes",
            "seconds",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.peak_mb = max(self.peak_mb, other.peak_mb)
        self.faults += other.faults
        self.reasons += other.reasons

    @property
    def line(self) -> str:
        names = ("files", "good", "refused", "accepted", "deaths", "hangs")
        counts = ", ".join(f"{name} {getattr(self, name)}" for name in names)
        more = f"batches ended {self.ended}, accepted truncations {self.truncations}, wrong {self.wrong}, escapes {self.escapes}"
        return f"hostile: {counts}, {more}, peak {self.peak_mb:.0f} MB (memory_mb {MEMORY_MB}), {self.seconds:.0f} s"

    @property
    def is_clean(self) -> bool:
        return not (self.deaths or self.hangs or self.ended or self.truncations or self.wrong or self.escapes)


class Listener:
    """A web server on loopback that nobody should ask."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_error(404)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


def config_of(group: str) -> dict[str, object]:
    kind, _, is_warped = group.partition("-")
    bands = ["b1", "b2"] if kind == "pair" else ["b1"]
    source = {"kind": "folder", "path": "scenes", "pattern": f"{{date:%Y%m%d}}_*{SUFFIXES[kind]}", "bands": bands}
    source |= {"variable": "image"} if kind == "h5" else {}
    left, bottom, right, top = GRID.bounds_xy  # 0.3 pixel beside the files' own: the nearest pixel is the same
    grid = {"crs": GRID.crs, "resolution": 10, "bounds": [left + 3, bottom - 3, right + 3, top - 3]}
    return {
        "name": "hostile", "task": "forecast", "source": source, **({"grid": grid} if is_warped else {}),
        "cube": {"memory_mb": MEMORY_MB, "chunk_px": 64, **({"on_other_grid": "reproject"} if is_warped else {})},
        "samples": {"variables": [{"name": "v", "bands": ["b1"]}], "context": 3, "horizon": 1},
        "split": {"validation_from": "1991-01-01", "test_from": "1992-01-01"},
    }  # fmt: skip


def write_good(group: str, path: Path, number: int) -> np.ndarray:
    values = pixels(2 if group == "pair" else 1, seed=1000 + number)
    if group.startswith("h5"):
        hdf5s.write(path, values[0], chunks=(16, 16), compression="gzip")
    elif group.startswith("jp2"):
        tiffs.write(path, values, driver="JP2OpenJPEG", quality=100, reversible=True)
    else:
        tiffs.write(path, values, **tiffs.TILED, compress="deflate")
    return values


def day(number: int) -> str:
    return str(FIRST_DAY + number).replace("-", "")


def run_batch(cases: list[Case], folder: Path, listener: Listener, timeout_s: float = TIMEOUT_S) -> Tally:
    """Ingest of `cases` (of one group) and good files between them."""
    group = cases[0].group
    suffix, scenes = SUFFIXES[group.partition("-")[0]], folder / "scenes"
    scenes.mkdir(parents=True)
    (folder / "url.txt").write_text(listener.url)
    (folder / "run.yaml").write_text(yaml.safe_dump(config_of(group)))
    count, of_day, good = 10 + len(cases) // 4, dict[str, Case](), dict[str, np.ndarray]()
    for number, case in enumerate(cases):
        of_day[day(2 * number)] = case
        case.make(scenes / f"{day(2 * number)}_{case.name[:80]}{suffix}")
    for number in range(count):
        date = day(2 * (number * len(cases) // count) + 1 if number < len(cases) else 2 * number + 1)
        good[date] = write_good(group, scenes / f"{date}_good{suffix}", number)
    asked = len(listener.asked)
    process = Ingest(folder, timeout_s)
    suspects = {name[:8] for name in process.open_files} & of_day.keys()
    tally = Tally(len(cases), len(good), peak_mb=process.peak_mb, seconds=process.seconds, hangs=int(process.hung))
    tally.suspects = {of_day[date].name for date in suspects}
    tally.deaths = int(not process.hung and (process.code < 0 or "traceback" in process.answer))
    if len(listener.asked) > asked:
        tally.escapes += 1
        tally.faults.append(f"{group}: the network was asked for {listener.asked[asked:][:3]}")
    if bad := [c for c in process.shown if (ord(c) < 32 and c not in "\n\r") or 127 <= ord(c) < 160]:
        tally.escapes += 1
        tally.faults.append(f"{group}: control characters reached the terminal: {bad[:5]}")
    if tally.deaths or tally.hangs or process.code not in (0, 3):
        tally.ended = int(not tally.deaths and not tally.hangs)
        what = "hang" if tally.hangs else f"exit {process.code}"
        names = ", ".join(f"{case.kind}/{case.name[:40]}" for case in cases[:3])
        tally.faults.append(f"{group}: {what} with {names}...: {process.answer.get('error', process.shown)[-1500:]}")
        return tally
    judge(tally, folder, of_day, good, process.answer)
    return tally


class Ingest:
    """`driftline ingest run.yaml --json`, as it ended."""

    def __init__(self, folder: Path, timeout_s: float):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PREFECT_API_URL": "", "PYTHONUTF8": "1"}
        command = [sys.executable, "-m", "flows.cli", "ingest", "run.yaml", "--json"]
        started = time.monotonic()
        self.peak_mb, self.hung, self.open_files = 0.0, False, set[str]()
        out, err = folder / "out.txt", folder / "err.txt"
        with out.open("wb") as to_out, err.open("wb") as to_err:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=to_out,
                stderr=to_err,
                start_new_session=True,
            )
            while process.poll() is None:
                self.peak_mb = max(self.peak_mb, tree_mb(process.pid))
                if time.monotonic() - started > timeout_s or self.peak_mb > STOP_MB:
                    self.hung, self.open_files = self.peak_mb <= STOP_MB, open_scenes(process.pid)
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                time.sleep(0.05)
        self.code, self.seconds = int(process.returncode), time.monotonic() - started
        self.shown = err.read_text(encoding="utf-8", errors="replace")
        text = out.read_text(encoding="utf-8", errors="replace")
        self.answer = json.loads(text) if text.strip().startswith("{") and text.strip().endswith("}") else {"error": text}
        self.shown += text


def open_scenes(pid: int) -> set[str]:
    """Names of the scenes that a process and its children have open."""
    import psutil

    found = set()
    for one in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        for link in Path(f"/proc/{one.pid}/fd").glob("*"):
            try:
                target = link.readlink()
            except OSError:
                continue
            if target.parent.name == "scenes":
                found.add(target.name)
    return found


def tree_mb(pid: int) -> float:
    """Resident memory of a process and its children; what several share counts once for each (PSS)."""
    import psutil

    try:
        process = psutil.Process(pid)
        return sum(_pss(one.pid) for one in (process, *process.children(recursive=True))) / 1e3
    except psutil.Error:
        return 0.0


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


def judge(tally: Tally, folder: Path, of_day: dict[str, Case], good: dict[str, np.ndarray], answer: dict[str, object]) -> None:
    from pipelines.cube.store import open_cube

    cube = open_cube(str(folder / "runs" / "hostile" / "cube"))
    dates = [str(date)[:10].replace("-", "") for date in cube["time"].values]
    image, valid = cube["image"].values, cube["valid"].values
    refused = {str(one["scene_id"])[:8]: one for one in answer["refused"]}  # type: ignore[attr-defined]
    lost = [date for date in good if date not in dates or not (image[dates.index(date)] == good[date]).all()]
    lost += [date for date in good if date not in lost and not valid[dates.index(date)].all()]
    if lost:
        tally.ended += 1
        group = next(iter(of_day.values())).group
        tally.faults.append(
            f"{group}: {len(lost)} good files did not arrive unchanged: {[refused.get(d, {}).get('detail') for d in lost[:2]]}"
        )
    for date, case in of_day.items():
        if date not in dates:
            tally.refused += 1
            reason = refused.get(date, {}).get("reason", "not listed")
            tally.reasons[f"{case.kind}: {reason}"] += 1
            if case.expected == "kept":
                problem = f"is {reason}: {str(refused.get(date, {}).get('detail', ''))[:150]}"
                tally.wrong += 1
                tally.faults.append(f"{case.group} {case.kind}/{case.name[:50]}: must be kept, {problem}")
            continue
        tally.accepted += 1
        tally.reasons[f"{case.kind}: accepted"] += 1
        found, is_valid = image[dates.index(date)], valid[dates.index(date)]
        if problem := problem_of(case, found, is_valid):
            tally.truncations += case.is_truncation
            tally.wrong += not case.is_truncation
            tally.faults.append(f"{case.group} {case.kind}/{case.name[:50]}: {problem}")


def problem_of(case: Case, image: np.ndarray, valid: np.ndarray) -> str:
    """What is wrong with an accepted file, "" if nothing is."""
    if (image == 4242).mean() > 0.5 and case.name != "hard":
        return "pixels of another file were read"
    if case.expected == "refused":
        return "accepted"
    if case.expected == "missing":
        assert case.written is not None
        if (valid & ~case.written).any():
            return f"{int((valid & ~case.written).sum())} pixels that were never written are valid"
        return "" if (image[:, valid] == case.bands[:, valid]).all() else "values differ"
    if case.expected in ("whole", "kept"):
        return "" if valid.all() and (image == case.bands).all() else "accepted with other pixels"
    return ""
