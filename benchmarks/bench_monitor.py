"""One new date over 1,000 tiles against the whole sequence over the same tiles, and the memory of both.

    python -m benchmarks.bench_monitor [--quick]

The cube is a real Icechunk cube of the fake source, in small tiles, written in a separate process. Three runs, each in a new
process: all dates but the last one; then the last one; then all dates at once. The states must be the same bytes.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.bench_predict import peak_mb
from benchmarks.criteria import verdict

TILE_PX, CHUNK_PX = 32, 256  # an eighth of the default: files and headers have more weight
FULL, QUICK = (1024, 1024, 80, 40), (256, 512, 80, 40)  # rows, columns, dates, of these, history; 1024 and 128 tiles


def make(folder: str, rows: int, columns: int, dates: int) -> None:
    from pipelines.cube.ingest import IngestSettings, ingest
    from pipelines.sources.fake import FakeSource
    from pipelines.sources.quality import SclMask

    source = FakeSource(dates=dates, shape_yx=(rows, columns), every_days=16)
    ingest(source, SclMask((4,)), f"{folder}/cube", None, IngestSettings(chunk_px=CHUNK_PX))


def measure(folder: str, name: str, history: int, dates: int) -> dict:
    """Seconds, peak memory and counts of updating the state NAME to the first `dates` of the cube."""
    from pipelines.cube.store import open_cube
    from pipelines.monitoring.areas import MonitoredCube
    from pipelines.monitoring.blocks import Monitoring
    from pipelines.monitoring.detector import Calibration, Detector
    from pipelines.monitoring.harmonic_model import HarmonicModel
    from pipelines.monitoring.replay import advance_all
    from pipelines.monitoring.sequential_test import Cusum
    from pipelines.monitoring.state import Identity
    from pipelines.samples.variables import Variable

    dataset = open_cube(f"{folder}/cube")
    start_ns = int(dataset["time"].values[history].astype("datetime64[ns]").astype(int))
    variable = Variable("ndvi", "normalized_difference", ("nir", "red"))
    cube = MonitoredCube(dataset.isel(time=slice(0, dates)), "", variable, start_ns)
    detector = Detector(HarmonicModel(), Cusum(), Calibration(8.9), "down")
    monitoring = Monitoring(cube, detector, Identity(detector.key, "ndvi", "start", "grid", TILE_PX), str(Path(folder) / name))
    before, started, busy = peak_mb(), time.perf_counter(), time.process_time()
    counts = advance_all(monitoring)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - busy,
        "before_mb": before,
        "peak_mb": peak_mb(),
        "tiles": counts.tiles,
        "steps": counts.steps,
        "fits": counts.fits,
    }


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return found.hexdigest()


def call(*arguments: object) -> dict:
    command = [sys.executable, "-m", "benchmarks.bench_monitor", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="128 tiles")
    rows, columns, dates, history = QUICK if parser.parse_args().quick else FULL
    tiles = (rows // TILE_PX) * (columns // TILE_PX)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()}-core {platform.machine()}, {tiles} tiles of {TILE_PX} px, ", end="")
    print(f"{history} dates of history, {dates - history} monitored")
    with tempfile.TemporaryDirectory(prefix="bench-monitor-") as folder:
        call("make", folder, rows, columns, dates)
        found = {
            "all but one date": call("measure", folder, "nights", history, dates - 1),
            "one new date": call("measure", folder, "nights", history, dates),
            "no news": call("measure", folder, "nights", history, dates),
            "all dates at once": call("measure", folder, "whole", history, dates),
        }
        is_same = digest(Path(folder) / "nights" / "blocks") == digest(Path(folder) / "whole" / "blocks")
    print(f"{'':18}{'seconds':>8} {'CPU s':>7} {'tiles':>6} {'steps':>7} {'fits':>6} {'start MB':>9} {'peak MB':>8}")
    for name, row in found.items():
        print(
            f"{name:18}{row['seconds']:>8.2f} {row['cpu_seconds']:>7.2f} {row['tiles']:>6} {row['steps']:>7} {row['fits']:>6} "
            f"{row['before_mb']:>9.0f} {row['peak_mb']:>8.0f}"
        )
    one, whole = found["one new date"], found["all dates at once"]
    print(verdict("one new date against the whole sequence, wall clock", one["seconds"] / whole["seconds"], at_most=0.1))
    print(verdict("one new date against the whole sequence, CPU time", one["cpu_seconds"] / whole["cpu_seconds"], at_most=0.1))
    print(verdict("states that differ between the two", 0.0 if is_same else 1.0, at_most=0.0, unit=""))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder, rows, columns, dates]:
            make(folder, int(rows), int(columns), int(dates))
            print("{}")
        case ["measure", folder, name, history, dates]:
            print(json.dumps(measure(folder, name, int(history), int(dates))))
        case _:
            main()
