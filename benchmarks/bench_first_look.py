"""Monitoring of 4096 x 4096 pixels on 24 dates: how busy both cores are in the first look, what memory it takes, and what the
next date costs.

    python -m benchmarks.bench_first_look [--quick]

The cube is made by the fake source with the default settings, in a separate process. Two worker processes carry out the work;
for one new date, threads do it.
"""

import argparse
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime

from benchmarks.criteria import verdict
from benchmarks.measuring import Costs, run_measured

SIDES, HISTORY, DATES = (4096, 1024), 16, 24  # full and quick


def make(folder: str, side: int, dates: int) -> None:
    """A cube of so many dates; what it has already stays."""
    from pipelines.cube.ingest import IngestSettings, ingest
    from pipelines.sources.fake import FakeSource

    source = FakeSource(dates=dates, shape_yx=(side, side), bands=("red", "nir"), every_days=16)
    ingest(source, None, f"{folder}/cube", None, IngestSettings())


def look(folder: str, name: str, workers: int) -> None:
    """The state NAME, brought to the dates of the cube by one thread or by two processes."""
    from pipelines.compute import Compute
    from pipelines.cube.store import head_snapshot, open_cube
    from pipelines.monitoring.areas import MonitoredCube
    from pipelines.monitoring.blocks import Monitoring
    from pipelines.monitoring.detector import Calibration, Detector
    from pipelines.monitoring.harmonic_model import HarmonicModel
    from pipelines.monitoring.replay import advance_all
    from pipelines.monitoring.sequential_test import Cusum
    from pipelines.monitoring.state import Identity
    from pipelines.samples.variables import Variable

    uri = f"{folder}/cube"
    dataset = open_cube(uri)
    start_ns = int(dataset["time"].values[HISTORY].astype("datetime64[ns]").astype(int))
    variable = Variable("ndvi", "normalized_difference", ("nir", "red"))
    cube = MonitoredCube(dataset, head_snapshot(uri), variable, start_ns, uri)
    detector = Detector(HarmonicModel(), Cusum(), Calibration(8.9), "down")
    made_for = Identity(detector.key, "ndvi", "start", "grid", 256)
    compute = Compute("processes", workers) if workers > 1 else Compute("threads", 1)
    advance_all(Monitoring(cube, detector, made_for, f"{folder}/{name}"), compute)


def call(*arguments: object) -> Costs:
    costs = run_measured([sys.executable, "-m", "benchmarks.bench_first_look", *map(str, arguments)])
    if costs.returncode:
        raise SystemExit(costs.returncode)
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the pixels")
    side = SIDES[parser.parse_args().quick]
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()}-core {platform.machine()}, {side} x {side} px, {DATES} dates")
    with tempfile.TemporaryDirectory(prefix="bench-first-look-") as folder:
        call("make", folder, side, DATES - 1)
        found = {
            "first look, two processes": call("look", folder, "two", 2),
            "first look, one process": call("look", folder, "one", 1),
        }
        call("make", folder, side, DATES)
        found |= {
            "one new date": call("look", folder, "two", 2),
            "nothing new": call("look", folder, "two", 2),
        }
    print(f"{'':28}{'seconds':>8} {'CPU s':>7} {'peak MB':>8}")
    for name, row in found.items():
        print(f"{name:28}{row.seconds:>8.1f} {row.cpu_seconds:>7.1f} {1000 * row.peak_gb:>8.0f}")
    first, alone, new, idle = found.values()
    print(verdict("share of two cores that the first look uses", first.cpu_seconds / (2 * first.seconds), at_least=0.85))
    print(verdict("peak memory of the first look, all processes", 1000 * first.peak_gb, at_most=800, unit=" MB"))
    print(verdict("one new date against the first look, CPU time", new.cpu_seconds / first.cpu_seconds, at_most=0.05))
    print(verdict("the same beyond what starting takes", beyond(new, first, idle), at_most=0.05))
    print(verdict("two processes against one", alone.seconds / first.seconds, at_least=1.6))


def beyond(new: Costs, first: Costs, idle: Costs) -> float:
    """The ratio of CPU time, imports and starts (those of a run with nothing to do) taken off both."""
    return (new.cpu_seconds - idle.cpu_seconds) / (first.cpu_seconds - idle.cpu_seconds)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder, side, dates]:
            make(folder, int(side), int(dates))
        case ["look", folder, name, workers]:
            look(folder, name, int(workers))
        case _:
            main()
