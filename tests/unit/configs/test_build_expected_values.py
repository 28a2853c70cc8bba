"""Config -> what foretells: trained once, loaded afterwards, refused with a remedy."""

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from configs.build_expected_values import build_expected_values, networks_key
from configs.monitor import MonitorRun
from models.baselines.decaying_anomaly import DecayingAnomaly
from models.checkpoint import save_forecaster
from models.networks.encoder_forecaster import ConvLSTMSettings
from models.residual_forecaster import Scaling, build_forecaster
from pipelines.errors import ArtefactDamaged, MissingInput, RequestError
from pipelines.monitoring.detector import Calibration, Detector
from pipelines.monitoring.harmonic_model import HarmonicModel
from pipelines.monitoring.sequential_test import Cusum

NDVI = {"name": "ndvi", "formula": "band", "bands": ["v"]}


def run_of(**value_model) -> MonitorRun:
    return MonitorRun.model_validate(
        {
            "name": "watch",
            "task": "monitor",
            "source": {"kind": "folder", "path": "scenes", "pattern": "{band}_{date}.tif", "bands": ["v"]},
            "variable": NDVI,
            "monitoring": {"start": "2019-01-01", "model": value_model},
        }
    )


def cube(years=3, shape_yx=(9, 11)) -> xr.Dataset:
    """What `open_cube` answers: a season and noise, a date every 16 days."""
    rng = np.random.default_rng(0)
    days = np.arange(17897 - years * 365, 17897 + 100, 16.0)
    season = 5000 + 2000 * np.cos(2 * math.pi * days / 365.2422)
    image = (season[:, None, None, None] + 200 * rng.normal(size=(len(days), 1, *shape_yx))).astype(np.uint16)
    bands = [{"name": "v", "scale": 1e-4, "offset": 0.0, "nodata": 0, "unit": None, "valid_range": None}]
    return xr.Dataset(
        {
            "image": (("time", "band", "y", "x"), image, {"bands": json.dumps(bands)}),
            "valid": (("time", "y", "x"), image[:, 0] > 0),
        },
        coords={"time": (days * 86400e9).astype("datetime64[ns]"), "band": ["v"], "spatial_ref": 0},
    )


def test_the_curve_needs_no_cube():
    assert build_expected_values(run_of(kind="harmonic", harmonics=3), None, Path("nowhere")) == HarmonicModel(3, False)


def test_networks_are_trained_once_and_stay_what_they_are(tmp_path):
    run, dataset, calls = run_of(kind="recurrent", epochs=1, hidden=4), cube(), []
    first = build_expected_values(run, dataset, tmp_path, lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1]
    assert len(first.networks) == len(first.left_out) == 3
    assert first.halo_px == 0
    longer = xr.concat(
        [dataset, dataset.isel(time=[-1]).assign_coords(time=dataset["time"][-1:] + np.timedelta64(9, "D"))], "time"
    )
    again = build_expected_values(run, longer, tmp_path, lambda done, total: pytest.fail("trained again"))
    keys = [Detector(e, Cusum(), Calibration(9.0)).key for e in (first, again)]
    assert keys[0] == keys[1]
    for one, other in zip(first.networks, again.networks, strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name])
    with_radius = run_of(kind="recurrent", epochs=1, hidden=4, radius=1)
    assert networks_key(with_radius, dataset) != networks_key(run, dataset)


def test_damaged_networks_say_how_to_train_them_again(tmp_path):
    run, dataset = run_of(kind="recurrent", epochs=1, hidden=4), cube()
    build_expected_values(run, dataset, tmp_path)
    tensors = tmp_path / networks_key(run, dataset) / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-8])
    with pytest.raises(ArtefactDamaged, match=r"networks of the recurrent expectation in .*cannot be used.*--restart"):
        build_expected_values(run, dataset, tmp_path)


def test_a_short_history_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"two years of history.*kind: harmonic"):
        build_expected_values(run_of(kind="recurrent"), cube(years=1), tmp_path)


# ---------------------------------------------------------------- forecaster


def save(folder: Path, test_from="2019-01-01", **variable) -> Path:
    forecaster = build_forecaster(
        DecayingAnomaly(), Scaling((0.5,), (0.2,), ("none",), 16.0), context=6, horizon=3, network=ConvLSTMSettings(hidden=(4,))
    )
    described = {**NDVI, "transform": "none", "valid_range": None, **variable}
    save_forecaster(forecaster, folder / "model", {"variables": [described], "split": {"test_from": test_from}})
    return folder


def test_a_forecaster_looks_as_far_as_one_date_needs(tmp_path):
    expected = build_expected_values(run_of(kind="forecaster", run=str(save(tmp_path))), None, tmp_path)
    assert (expected.context, expected.step_days, expected.halo_px) == (6, 16.0, 7)


def test_a_network_without_a_finite_halo_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("models.networks.encoder_forecaster.EncoderForecaster.halo_px", lambda self, steps: None)
    with pytest.raises(RequestError, match=r"has no finite halo, and the state of a tile must not depend on others"):
        build_expected_values(run_of(kind="forecaster", run=str(save(tmp_path))), None, tmp_path)


def test_no_run_there(tmp_path):
    with pytest.raises(MissingInput, match=r"monitoring.model.run: no forecaster in .*gone/model.*kind: harmonic"):
        build_expected_values(run_of(kind="forecaster", run=str(tmp_path / "gone")), None, tmp_path)


def test_a_damaged_run(tmp_path):
    save(tmp_path)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ArtefactDamaged, match=r"does not match the model.safetensors.*kind: harmonic"):
        build_expected_values(run_of(kind="forecaster", run=str(tmp_path)), None, tmp_path)


def test_a_forecaster_of_something_else(tmp_path):
    save(tmp_path, bands=["w"])
    with pytest.raises(RequestError, match=r"foretells .*'w'.*what is watched is .*'v'.*train one on that variable alone"):
        build_expected_values(run_of(kind="forecaster", run=str(tmp_path)), None, tmp_path)


def test_a_forecaster_that_knows_watched_time_is_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        build_expected_values(run_of(kind="forecaster", run=str(save(tmp_path, test_from="2020-01-01"))), None, tmp_path)
    assert "until 2020-01-01, monitoring starts 2019-01-01" in caplog.text
