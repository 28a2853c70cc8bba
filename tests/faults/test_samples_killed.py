"""A process killed at any write call of the sample cache leaves no incomplete cache, and the next one succeeds."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.samples.cache import GrowingArray, build_samples
from pipelines.samples.plan import Sampling, Split, WindowPlan
from pipelines.samples.sampling import open_samples
from pipelines.samples.variables import Variable
from pipelines.samples.windows import plan_windows

RED = (Variable("red", "band", ("red",)),)
SIGNAL = 9


@pytest.fixture
def cube() -> xr.Dataset:
    """Three blocks of 8 pixels, 14 monthly dates."""
    rng = np.random.default_rng(0)
    times = (np.datetime64("2015-01") + np.arange(14)).astype("datetime64[ns]")
    image = xr.DataArray(
        rng.random((14, 1, 8, 24), np.float32),
        dims=("time", "band", "y", "x"),
        attrs={"bands": json.dumps([{"name": "red", "scale": 1.0, "offset": 0.0, "nodata": None, "unit": ""}])},
    )
    valid = (("time", "y", "x"), np.ones((14, 8, 24), bool))
    return xr.Dataset({"image": image, "valid": valid}, coords={"time": times})


@pytest.fixture
def plan(cube: xr.Dataset) -> WindowPlan:
    split = Split(8, 1, np.datetime64("2015-06-01"), np.datetime64("2015-10-01"))
    return plan_windows(cube.time.values, (8, 24), split, Sampling(), 2, 1)


def prepare(x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K):
    return {"x_TCHW": x_NCHW[context_T]}


def die_at_call(number: int, folder: Path, cube: xr.Dataset, plan: WindowPlan) -> int:
    """Exit status of a child that builds the cache and exits at its write call `number` (writes, renames)."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    calls = 0

    def counted(original):
        def call(*arguments, **keywords):
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), SIGNAL)
            return original(*arguments, **keywords)

        return call

    GrowingArray.append = counted(GrowingArray.append)  # type: ignore[method-assign]
    GrowingArray.close = counted(GrowingArray.close)  # type: ignore[method-assign]
    Path.write_text = counted(Path.write_text)  # type: ignore[method-assign]
    Path.rename = counted(Path.rename)  # type: ignore[method-assign]
    try:
        build_samples(cube, "S1", folder, plan, RED, prepare, prepare_key="x")
        os._exit(0)
    finally:
        os._exit(1)


def test_killed_at_every_write_call(cube, plan, tmp_path):
    whole = build_samples(cube, "S1", tmp_path / "whole", plan, RED, prepare, prepare_key="x")
    expected = {path.relative_to(whole.folder): path.read_bytes() for path in whole.folder.rglob("*.npy")}
    number, statuses = 0, [-SIGNAL]
    while statuses[-1] == -SIGNAL:
        number += 1
        folder = tmp_path / f"killed-{number}"
        statuses.append(die_at_call(number, folder, cube, plan))
        if statuses[-1] == -SIGNAL:
            assert list(folder.glob("cache-*")) == []
        again = build_samples(cube, "S1", folder, plan, RED, prepare, prepare_key="x")
        assert {path.relative_to(again.folder): path.read_bytes() for path in again.folder.rglob("*.npy")} == expected
        assert [path.name for path in folder.iterdir()] == [open_samples(again.folder).folder.name]
    assert statuses[-1] == 0
    assert number > 20
