"""A run small enough to go through every stage in seconds: a seeded netCDF cube and its config."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

TINY = {
    "name": "tiny",
    "source": {
        "kind": "netcdf",
        "path": "tiny.nc",
        "bands": ["red"],
        "scale": 0.001,
        "crs": "EPSG:32635",
        "transform": [10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0],
    },
    "cube": {"chunk_px": 32, "workers": 1},
    "samples": {"variables": [{"name": "red", "bands": ["red"]}], "context": 4, "horizon": 2},
    "split": {"block_px": 8, "buffer_px": 1, "validation_from": "2019-01-01", "test_from": "2019-09-01"},
    "model": {"hidden": [4], "members": 1, "baseline": "none"},  # which an epoch makes better
    "training": {"epochs": 1, "batch": 8, "learning_rate": 0.03, "accelerator": "cpu"},
    "evaluation": {"baselines": ["persistence", "climatology"], "publish": "network"},
    "prediction": {"tile_px": 32},
}

WATCHED = {  # the same series, monitored
    **{key: TINY[key] for key in ("source", "cube")},
    "name": "watched",
    "task": "monitor",
    "variable": {"name": "red", "bands": ["red"]},
    "monitoring": {"start": "2019-12-01", "tile_px": 32, "test": {"direction": "down", "threshold": 6.0}},
}


def write_tiny_run(folder: Path) -> Path:
    """`tiny.nc` (60 dates, 32x32, a season and noise), `tiny.yaml` and `watched.yaml` in `folder`; the path of `tiny.yaml`."""
    rng = np.random.default_rng(0)
    times = np.datetime64("2018-01-05", "ns") + np.arange(60) * np.timedelta64(13, "D")
    season = 300 + 100 * np.sin(2 * np.pi * np.arange(60) * 13 / 365.25)
    image = season[:, None, None] + rng.normal(0, 20, (60, 32, 32)) + 100 * rng.random((32, 32))
    dataset = xr.Dataset(
        {"red": (("time", "y", "x"), image.astype("uint16"))},
        {"time": times, "y": 5000000.0 - 10 * (np.arange(32) + 0.5), "x": 500000.0 + 10 * (np.arange(32) + 0.5)},
    )
    dataset.to_netcdf(folder / "tiny.nc", engine="h5netcdf")
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY, sort_keys=False))
    (folder / "watched.yaml").write_text(yaml.safe_dump(WATCHED, sort_keys=False))
    return config


@pytest.fixture
def tiny_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The config; the working folder is the one that it lies in, and no Prefect server is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "")
    return write_tiny_run(tmp_path)


@pytest.fixture(scope="session")
def write_tiny() -> Callable[[Path], Path]:
    return write_tiny_run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the test; no Prefect server is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "")
    return tmp_path
