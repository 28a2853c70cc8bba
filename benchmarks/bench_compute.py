"""A prediction and the first look of monitoring by threads, processes and Dask: what a second worker gains, what Dask costs.

    python -m benchmarks.bench_compute [--quick] [--only TASK]

Every way has one thread of PyTorch per worker, and is measured in a new process. Dask's workers run before the clock does and
have imported what they need, as from their second work on; what they need to open cube and model counts. The start of a local
cluster, with these imports, is stated beside it.
"""

import argparse
import hashlib
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bench_predict import CONTEXT, TARGETS, make_variable, real
from benchmarks.criteria import verdict

HISTORY, DATES, REPEATS = 40, 60, (3, 1)  # full and quick
SIDES = {"predict": (4096, 1024), "monitor": (2048, 1024)}  # both then last about a minute by one thread
WAYS = {"threads": ("threads", 1), "processes, 2": ("processes", 2), "dask, 1": ("dask", 1), "dask, 2": ("dask", 2)}
IMPORTED = {"predict": "pipelines.inference.predict", "monitor": "pipelines.monitoring.blocks"}
TASKS = tuple(IMPORTED)


def make(folder: str, is_quick: bool) -> None:
    """A cube to predict and one to monitor."""
    from pipelines.cube.ingest import IngestSettings, ingest
    from pipelines.sources.fake import FakeSource

    for task, dates in (("predict", CONTEXT), ("monitor", DATES)):
        side = SIDES[task][is_quick]
        source = FakeSource(dates=dates, shape_yx=(side, side), bands=("red", "nir"), every_days=16)
        ingest(source, None, f"{folder}/{task}", None, IngestSettings())


def measure(folder: str, task: str, kind: Any, workers: int) -> dict[str, Any]:
    """Seconds of the work, and of starting a cluster, and a digest of what was made."""
    import torch

    from pipelines.compute import Compute, local_cluster

    torch.set_num_threads(1)
    started = time.perf_counter()
    with local_cluster(workers) if kind == "dask" else nullcontext() as cluster:
        compute = Compute(kind, workers) if cluster is None else Compute("dask", address=cluster.scheduler_address)
        if cluster is not None:
            with cluster.get_client() as client:
                client.run(importlib.import_module, IMPORTED[task])
        start_s, began = time.perf_counter() - started, time.perf_counter()
        with tempfile.TemporaryDirectory() as made:
            (predict if task == "predict" else monitor)(f"{folder}/{task}", Path(made), compute)
            seconds = time.perf_counter() - began
            return {"seconds": seconds, "start": start_s, "digest": digest(Path(made))}


def predict(uri: str, made: Path, compute: Any) -> None:
    import numpy as np
    import torch

    from pipelines.cube.store import head_snapshot, open_cube
    from pipelines.inference.job import Prediction, plan_job
    from pipelines.inference.predict import predict as predict_all
    from pipelines.samples.windows import ForecastSteps

    torch.manual_seed(0)
    dataset, forecaster, snapshot = open_cube(uri), real(), head_snapshot(uri)
    days = 17600.0 + 10 * np.arange(TARGETS)
    steps = ForecastSteps(np.arange(CONTEXT), np.ones(CONTEXT, bool), days, CONTEXT - 1)
    job = plan_job(dataset, snapshot, forecaster, (make_variable(),), steps, tile_px=256)
    predict_all(Prediction(job, dataset, forecaster, None, made, uri=uri), compute)


def monitor(uri: str, made: Path, compute: Any) -> None:
    from pipelines.cube.store import head_snapshot, open_cube
    from pipelines.monitoring.areas import MonitoredCube
    from pipelines.monitoring.blocks import Monitoring
    from pipelines.monitoring.detector import Calibration, Detector
    from pipelines.monitoring.harmonic_model import HarmonicModel
    from pipelines.monitoring.replay import advance_all
    from pipelines.monitoring.sequential_test import Cusum
    from pipelines.monitoring.state import Identity
    from pipelines.samples.variables import Variable

    dataset, snapshot = open_cube(uri), head_snapshot(uri)
    start_ns = int(dataset["time"].values[HISTORY].astype("datetime64[ns]").astype(int))
    cube = MonitoredCube(dataset, snapshot, Variable("ndvi", "normalized_difference", ("nir", "red")), start_ns, uri)
    detector = Detector(HarmonicModel(), Cusum(), Calibration(8.9), "down")
    made_for, block_px = Identity(detector.key, "ndvi", "start", "grid", 256), min(cube.shape_yx[0] // 2, 1024)  # four blocks
    advance_all(Monitoring(cube, detector, made_for, str(made), block_px=block_px), compute)


def digest(folder: Path) -> str:
    """Of every file of regions, states and layers."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock"):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def call(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.bench_compute", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1024 x 1024 px, once")
    parser.add_argument("--only", choices=TASKS, help="one of the two")
    arguments = parser.parse_args()
    is_quick, tasks = arguments.quick, [task for task in TASKS if arguments.only in (None, task)]
    repeats, sizes = REPEATS[is_quick], ", ".join(f"{task} {sides[is_quick]} px" for task, sides in SIDES.items())
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()}-core {platform.machine()}, {sizes}, {repeats} turns")
    found: dict[tuple[str, str], list[dict[str, Any]]] = {(task, way): [] for task in tasks for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="bench-compute-") as folder:
        call("make", folder, int(is_quick))
        for _ in range(repeats):
            for (task, way), rows in found.items():
                rows.append(call("measure", folder, task, *WAYS[way]))
    print(f"{'':10}{'':14}{'seconds':>8} {'least':>7} {'most':>7} {'start':>6}")
    for (task, way), rows in found.items():
        seconds, start = [row["seconds"] for row in rows], median(row["start"] for row in rows)
        print(f"{task:10}{way:14}{median(seconds):>8.1f} {min(seconds):>7.1f} {max(seconds):>7.1f} {start:>6.1f}")
    for task in tasks:
        of = {way: median(row["seconds"] for row in found[task, way]) for way in WAYS}
        print(verdict(f"{task}: two workers of Dask against one", of["dask, 1"] / of["dask, 2"], at_least=1.6))
        print(verdict(f"{task}: two processes against one thread", of["threads"] / of["processes, 2"], at_least=1.6))
        print(verdict(f"{task}: one worker of Dask against one thread", of["dask, 1"] / of["threads"], at_most=1.05))
        differ = len({row["digest"] for way in WAYS for row in found[task, way]}) - 1
        print(verdict(f"{task}: ways whose bytes differ", differ, at_most=0, unit=""))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder, is_quick]:
            make(folder, is_quick == "1")
            print("{}")
        case ["measure", folder, task, kind, workers]:
            print(json.dumps(measure(folder, task, kind, int(workers))))
        case _:
            main()
