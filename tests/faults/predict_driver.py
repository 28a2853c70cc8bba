"""Forecasts a small cube in child processes that kill themselves at the n-th disk call.

Usage: python predict_driver.py FOLDER. Prints one JSON object. A separate script, because forking is safe only in a
process that has no threads yet.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from pipelines.inference.job import Prediction, plan_job
from pipelines.inference.predict import predict
from pipelines.inference.staging import Staged
from pipelines.samples.variables import Variable
from pipelines.samples.windows import ForecastSteps

CALLS = ("pwrite", "write", "fsync", "replace")


class Doubler:
    """Forecast = the last date, twice; pointwise, so the halo is 0."""

    stride_px = 1, 1

    def halo_px(self, steps):
        return 0, 0

    def forecast(self, x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K):
        return torch.stack([x_NCHW[-1], x_NCHW[-1] * 2])


def make_cube() -> xr.Dataset:
    height, width = 5, 12
    image = np.arange(2 * height * width, dtype=np.uint16).reshape(2, 1, height, width) + 1
    time = np.array(["2020-01-01", "2020-01-11"], "datetime64[ns]")
    dataset = xr.Dataset(
        {"image": (("time", "band", "y", "x"), image), "valid": (("time", "y", "x"), np.ones((2, height, width), bool))},
        coords={"time": time, "band": ["B4"]},
    )
    dataset["image"].attrs["bands"] = json.dumps([{"name": "B4", "scale": 1.0, "offset": 0.0, "nodata": 0, "unit": ""}])
    return dataset


def forecast(folder: Path) -> Staged:
    variable = Variable("red", "band", ("B4",))
    steps = ForecastSteps(np.array([0, 1]), np.ones(2, bool), np.array([18300.0, 18310.0]), 1)
    cube, forecaster = make_cube(), Doubler()
    job = plan_job(cube, "SNAP", forecaster, (variable,), steps, tile_px=4, memory_mb=0)
    return predict(Prediction(job, cube, forecaster, None, folder))


def digest(folder: Path) -> str:
    files = sorted(folder.glob("*/*.region"))
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


def kill_at(number: int, half: bool) -> None:
    """Makes the `number`-th disk call the last one; with `half` a write first writes half of its bytes."""
    count = 0

    def wrap(name):
        original = getattr(os, name)

        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == number:
                if half and name in ("write", "pwrite"):
                    original(arguments[0], bytes(arguments[1])[: len(bytes(arguments[1])) // 2], *arguments[2:])
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, wrap(name))


def run_child(folder: Path, number: int, half: bool) -> bool:
    """True if the child was killed, False if it completed."""
    child = os.fork()
    if child == 0:
        kill_at(number, half)
        forecast(folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise SystemExit(f"child {number} failed with {os.WEXITSTATUS(status)}")
    return False


def main(root: Path) -> None:
    torch.set_num_threads(1)
    forecast(root / "undisturbed")
    expected, number, different = digest(root / "undisturbed"), 0, []
    for half in (False, True):
        number = 0
        while True:
            number += 1
            folder = root / f"{half}-{number}"
            if not run_child(folder, number, half):
                break
            forecast(folder)
            if digest(folder) != expected:
                different.append(f"{half}-{number}")
    again, kills = root / "again-and-again", 0
    while run_child(again, 15, False):  # at most 15 calls per child, and still it completes
        kills += 1
    if digest(again) != expected:
        different.append("again-and-again")
    print(json.dumps({"calls": number - 1, "kills_in_a_row": kills, "different": different}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
