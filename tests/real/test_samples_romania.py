"""The forest cube of the demo: windows, audit, statistics and cache on real, cloudy, irregular dates."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pipelines.samples.audit import audit
from pipelines.samples.cache import build_samples
from pipelines.samples.plan import Sampling, Split
from pipelines.samples.prepare import channel_statistics
from pipelines.samples.sampling import SampleCache
from pipelines.samples.variables import Variable
from pipelines.samples.windows import plan_windows

FILE = "satellite/sentinel2-romania/sentinel2_cube_subset_romania_10m.nc"
NDVI = (Variable("ndvi", "normalized_difference", ("B8", "B4"), valid_range=(-1, 1)),)
SPLIT = Split(25, 1, np.datetime64("2019-01-01"), np.datetime64("2020-01-01"))


@pytest.fixture(scope="module")
def forest(shared_data) -> xr.Dataset:
    """The netCDF with the layout of the cube; usable are vegetation and bare soil (SCL 4, 5) with all bands present."""
    names = ["B2", "B3", "B4", "B8"]
    with xr.open_dataset(shared_data(FILE), engine="h5netcdf", mask_and_scale=False) as file:
        image = np.stack([file[name].values for name in names], axis=1)
        valid = np.isin(file["SCL"].values, [4, 5]) & (image > 0).all(axis=1)
        coordinates = {"time": file["time"].values, "band": names}
    cube = xr.Dataset({"image": (("time", "band", "y", "x"), image), "valid": (("time", "y", "x"), valid)}, coordinates)
    cube["image"].attrs["bands"] = json.dumps(
        [{"name": name, "scale": 1e-4, "offset": 0.0, "nodata": 0, "unit": ""} for name in names]
    )
    return cube


def cut(forest: xr.Dataset, folder: Path, steps: Sampling) -> SampleCache:
    plan = plan_windows(forest["time"].values, (100, 100), SPLIT, steps, context=10, horizon=5)
    assert audit(plan).ok
    return build_samples(forest, "netcdf", folder, plan, NDVI, min_valid_fraction=0.1)


@pytest.mark.parametrize(("steps", "train", "test"), [(Sampling(), 557, 90), (Sampling("regular"), 400, 45)])
def test_every_part_has_windows(forest, tmp_path, steps, train, test):
    counts = cut(forest, tmp_path, steps).counts()
    assert counts["train"] >= train
    assert counts["test"] >= test
    assert counts["validation"] > 0


def test_statistics_are_those_of_a_forest(forest):
    plan = plan_windows(forest["time"].values, (100, 100), SPLIT, Sampling(), 10, 5)
    statistics = channel_statistics(forest, plan, NDVI)
    assert statistics.mean[0] == pytest.approx(0.781, abs=0.01)
    assert statistics.std[0] == pytest.approx(0.147, abs=0.01)


def test_persistence_has_its_known_error(forest, tmp_path):
    """0.127 was measured on the whole raster (docs of the data); three held-out blocks are close to it."""
    error = pixels = 0.0
    for window in cut(forest, tmp_path, Sampling()).windows("test"):
        last_CHW = torch.zeros(window.x_NCHW.shape[1:])
        seen_HW = torch.zeros(window.valid_NHW.shape[1:], dtype=torch.bool)
        for step in window.context_T:
            last_CHW = torch.where(window.valid_NHW[step], window.x_NCHW[step], last_CHW)
            seen_HW |= window.valid_NHW[step]
        judged_KHW = window.target_valid_KHW & seen_HW
        error += float(((window.target_KCHW[:, 0] - last_CHW[0]).abs() * judged_KHW).sum())
        pixels += float(judged_KHW.sum())
    assert 0.10 < error / pixels < 0.14
