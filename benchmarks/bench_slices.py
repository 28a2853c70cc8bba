"""10,000 small tiles predicted in 8 slices, with 20 kills at random moments, beside one process that nobody disturbs.

    python -m benchmarks.bench_slices [--quick]

Each slice is a process of its own, one after the other; a kill is SIGKILL, after which the slice is started again. Staged
regions and the fields that are read from them are compared byte for byte.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.criteria import verdict

TILE_PX, DATES, SLICES = 16, 4, 8
SIDES, KILLS = (1600, 480), (20, 4)  # full and quick: 10,000 and 900 tiles


def make(folder: str, side: int) -> None:
    from pipelines.cube.ingest import IngestSettings, ingest
    from pipelines.sources.fake import FakeSource

    ingest(FakeSource(dates=DATES, shape_yx=(side, side), bands=("red",)), None, f"{folder}/cube", None, IngestSettings())


def plan(folder: str, staging: str) -> Any:
    import numpy as np
    import torch

    from models.baselines.pointwise import Persistence
    from pipelines.cube.store import head_snapshot, open_cube
    from pipelines.inference.job import Prediction, plan_job
    from pipelines.samples.variables import Variable
    from pipelines.samples.windows import ForecastSteps

    torch.set_num_threads(1)
    uri, variables = f"{folder}/cube", (Variable("red", "band", ("red",)),)
    dataset, forecaster = open_cube(uri), Persistence()
    steps = ForecastSteps(np.arange(DATES), np.ones(DATES, bool), np.array([17600.0]), DATES - 1)
    job = plan_job(dataset, head_snapshot(uri), forecaster, variables, steps, tile_px=TILE_PX)
    return Prediction(job, dataset, forecaster, None, f"{folder}/{staging}", uri=uri)


def predict(folder: str, staging: str, share: str) -> None:
    """A slice, or all of it ("")."""
    from pipelines.inference.predict import predict as predict_all
    from pipelines.inference.predict import predict_slice
    from pipelines.slices import Slice

    prediction = plan(folder, staging)
    print("at work", flush=True)
    began = time.perf_counter()
    if share:
        predict_slice(prediction, Slice.parse(share))
    else:
        predict_all(prediction)
    print(time.perf_counter() - began)


def finish(folder: str, staging: str) -> None:
    """A digest of every region and field, once all are there."""
    from pipelines.inference.predict import PredictWork
    from pipelines.inference.predict import finish as finish_all
    from pipelines.inference.staged_work import require_all

    prediction = plan(folder, staging)
    require_all(PredictWork(prediction))
    staged, found = finish_all(prediction), hashlib.sha256()
    for part in prediction.regions.parts:
        found.update(prediction.regions.files.read(prediction.regions.name_of(part)))
    for field in staged.fields:
        found.update(staged.read(field, slice(None)).tobytes())
    tiles = sum(len(part.cut(TILE_PX)) for part in prediction.regions.parts)
    print(json.dumps({"digest": found.hexdigest(), "tiles": tiles, "regions": len(prediction.regions.parts)}))


def start(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.bench_slices", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def call(*arguments: object) -> str:
    with start(*arguments) as process:
        text = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(f"{arguments} ended with {process.returncode}")
    return text


def with_kills(folder: str, kills: int, longest_s: float) -> tuple[int, int]:
    """(kills that hit a process at work, processes started) until every slice is done.

    Each slice is killed equally often, at random moments; `longest_s` is what it takes undisturbed.
    """
    generator, hits, started = random.Random(0), 0, 0
    waiting = [f"{number}/{SLICES}" for number in range(1, SLICES + 1)]
    due = {share: (kills + n) // SLICES for n, share in enumerate(waiting)}
    within_s = longest_s / (1 + max(due.values()))
    while waiting:
        share = generator.choice(waiting)
        started += 1
        with start("predict", folder, "slices", share) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(generator.uniform(0, within_s) if due[share] else None)
            except subprocess.TimeoutExpired:
                process.kill()
                due[share] -= 1
                hits += 1
        if process.returncode == 0:
            waiting.remove(share)
    return hits, started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="900 tiles and 4 kills")
    is_quick = parser.parse_args().quick
    side, kills = SIDES[is_quick], KILLS[is_quick]
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()}-core {platform.machine()}, {side} x {side} px")
    with tempfile.TemporaryDirectory(prefix="bench-slices-") as folder:
        call("make", folder, side)
        whole_s = float(call("predict", folder, "whole", "").splitlines()[-1])
        began = time.perf_counter()
        hits, started = with_kills(folder, kills, whole_s / SLICES)
        sliced_s, left = time.perf_counter() - began, list(Path(folder, "slices").rglob(".*.region.*"))
        whole, sliced = (json.loads(call("finish", folder, one)) for one in ("whole", "slices"))
    print(f"{whole['tiles']} tiles in {whole['regions']} regions; undivided {whole_s:.1f} s")
    print(f"{SLICES} slices {sliced_s:.1f} s with the starts of all processes")
    print(f"{hits} kills hit a process at work, {started} processes were started; kills left {len(left)} drafts")
    print(verdict("kills that hit", hits, at_least=kills, unit=""))
    print(verdict("digests that differ", int(whole["digest"] != sliced["digest"]), at_most=0, unit=""))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder, side]:
            make(folder, int(side))
        case ["predict", folder, staging, share]:
            predict(folder, staging, share)
        case ["finish", folder, staging]:
            finish(folder, staging)
        case _:
            main()
