"""Config -> model of expected values: trained once, loaded afterwards, refused with a remedy."""

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from configs.tasks.monitor import (
    MonitorRun,
    Networks,
    build_expected_values,
    build_value_model,
    build_variable,
    fingerprint_model,
    networks_key,
)
from models.baselines.pointwise import DecayingAnomaly
from models.checkpoint import FORECASTER
from models.networks.encoder_forecaster import ConvLSTMSettings
from models.residual_forecaster import Scaling, build_forecaster
from pipelines.errors import ArtefactDamaged, MissingInput, RequestError
from pipelines.monitoring.areas import MonitoredCube
from pipelines.monitoring.detector import Calibration, Detector
from pipelines.monitoring.harmonic_model import HarmonicModel
from pipelines.monitoring.sequential_test import Cusum
from pipelines.stored_files import files_at

NDVI = {"name": "ndvi", "formula": "band", "bands": ["v"]}


def run_of(**value_model) -> MonitorRun:
    return MonitorRun.model_validate(
        {
            "name": "forest",
            "task": "monitor",
            "source": {"kind": "folder", "path": "scenes", "pattern": "{band}_{date}.tif", "bands": ["v"]},
            "variable": NDVI,
            "monitoring": {"start": "2019-01-01", "model": value_model},
        }
    )


def cube_of(run: MonitorRun, dataset: xr.Dataset) -> MonitoredCube:
    return MonitoredCube(dataset, "S", build_variable(run), int(np.datetime64(run.monitoring.start, "ns").astype(int)))


def pixels(years=3, shape_yx=(9, 11)) -> xr.Dataset:
    """What `open_cube` returns: a season and noise, a date every 16 days."""
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
        coords={
            "time": (days * 86400e9).astype("datetime64[ns]"),
            "band": ["v"],
            "spatial_ref": 0,
            "scene_id": ("time", [f"S{day:.0f}" for day in days]),
            "content_hash": ("time", [f"{day:.0f}" for day in days]),
        },
    )


def at(folder: Path) -> Networks:
    return Networks(str(folder), folder)


def test_the_curve_needs_no_cube():
    assert build_value_model(run_of(kind="harmonic", harmonics=3), None, at(Path("nowhere"))) == HarmonicModel(3, False)


def test_networks_are_trained_once_and_stay_what_they_are(tmp_path):
    run, calls = run_of(kind="recurrent", epochs=1, hidden=4), []
    cube = cube_of(run, pixels())
    first = build_value_model(run, cube, at(tmp_path), lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1]
    assert len(first.networks) == len(first.left_out) == 3
    assert first.halo_px == 0
    last = cube.dataset.isel(time=[-1])
    longer = xr.concat([cube.dataset, last.assign_coords(time=last["time"] + np.timedelta64(9, "D"))], "time")
    again = build_value_model(run, cube_of(run, longer), at(tmp_path), lambda done, total: pytest.fail("trained again"))
    keys = [Detector(e, Cusum(), Calibration(9.0)).key for e in (first, again)]
    assert keys[0] == keys[1]
    for one, other in zip(first.networks, again.networks, strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name])
    with_radius = run_of(kind="recurrent", epochs=1, hidden=4, radius=1)
    assert networks_key(with_radius, cube) != networks_key(run, cube)


def test_damaged_networks_say_how_to_train_them_again_and_the_curve_stands_in(tmp_path):
    run = run_of(kind="recurrent", epochs=1, hidden=4)
    cube = cube_of(run, pixels())
    assert build_expected_values(run, cube, at(tmp_path)).name == "recurrent"
    tensors = tmp_path / "recurrent" / "networks" / networks_key(run, cube) / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-8])
    with pytest.raises(ArtefactDamaged, match=r"networks of the recurrent model in .*cannot be used.*--restart"):
        build_value_model(run, cube, at(tmp_path))
    instead = build_expected_values(run, cube, at(tmp_path))
    assert (instead.name, instead.value_model) == ("harmonic", HarmonicModel(2))
    assert "--restart" in instead.fallback


def test_networks_in_a_bucket_are_those_of_every_machine_and_slices_train_none(tmp_path, bucket):
    run = run_of(kind="recurrent", epochs=1, hidden=4)
    cube, state = cube_of(run, pixels()), f"{bucket}/networks-of-a-test"
    with pytest.raises(RequestError, match=r"need the same networks, and there are none; run `driftline evaluate CONFIG` first"):
        build_value_model(run, cube, Networks(state, tmp_path / "one", may_train=False))
    first = build_value_model(run, cube, Networks(state, tmp_path / "one"))
    second = build_value_model(run, cube, Networks(state, tmp_path / "two", may_train=False))
    assert first.key == second.key
    described, tensors = (next((tmp_path / "two").rglob(name)) for name in ("model.json", "model.safetensors"))
    number, content = described.stat().st_ino, tensors.read_bytes()
    tensors.write_bytes(content[:-8])
    assert build_value_model(run, cube, Networks(state, tmp_path / "two", may_train=False)).key == first.key
    assert tensors.read_bytes() == content
    assert described.stat().st_ino == number, "another slice may be reading it"
    files_at(state).remove("recurrent")
    with pytest.raises(RequestError, match="there are none"):  # begun anew on another machine
        build_value_model(run, cube, Networks(state, tmp_path / "two", may_train=False))


def test_a_short_history_is_refused(tmp_path):
    run = run_of(kind="recurrent")
    with pytest.raises(RequestError, match=r"two years of history.*kind: harmonic"):
        build_value_model(run, cube_of(run, pixels(years=1)), at(tmp_path))


# ---------------------------------------------------------------- forecaster


def save(folder: Path, test_from="2019-01-01", **variable) -> Path:
    forecaster = build_forecaster(
        DecayingAnomaly(), Scaling((0.5,), (0.2,), ("none",), 16.0), context=6, horizon=3, network=ConvLSTMSettings(hidden=(4,))
    )
    described = {**NDVI, "transform": "none", "valid_range": None, **variable}
    FORECASTER.save(forecaster, folder / "model", {"variables": [described], "split": {"test_from": test_from}})
    return folder


def test_the_halo_of_a_forecaster_is_that_of_one_date(tmp_path):
    expected = build_value_model(run_of(kind="forecaster", run=str(save(tmp_path))), None, at(tmp_path))
    assert (expected.context, expected.step_days, expected.halo_px) == (6, 16.0, 7)


def test_a_forecaster_that_is_trained_again_is_another_model(tmp_path):
    run = run_of(kind="forecaster", run=str(tmp_path))
    assert fingerprint_model(run) == fingerprint_model(run_of(kind="harmonic")) == ""
    save(tmp_path)
    first = fingerprint_model(run)
    save(tmp_path, test_from="2018-06-01")
    assert "" != fingerprint_model(run) != first


def test_a_network_without_a_finite_halo_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("models.networks.encoder_forecaster.EncoderForecaster.halo_px", lambda self, steps: None)
    with pytest.raises(RequestError, match=r"has no finite halo, and the state of a tile must not depend on others"):
        build_value_model(run_of(kind="forecaster", run=str(save(tmp_path))), None, at(tmp_path))


def test_no_run_there(tmp_path):
    with pytest.raises(MissingInput, match=r"monitoring.model.run: no forecaster in .*gone/model.*kind: harmonic"):
        build_value_model(run_of(kind="forecaster", run=str(tmp_path / "gone")), None, at(tmp_path))


def test_a_damaged_run(tmp_path):
    save(tmp_path)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ArtefactDamaged, match=r"does not match the model.safetensors.*kind: harmonic"):
        build_value_model(run_of(kind="forecaster", run=str(tmp_path)), None, at(tmp_path))


def test_a_forecaster_of_something_else(tmp_path):
    save(tmp_path, bands=["w"])
    with pytest.raises(RequestError, match=r"predicts .*'w'.*what is monitored is .*'v'.*train one on that variable alone"):
        build_value_model(run_of(kind="forecaster", run=str(tmp_path)), None, at(tmp_path))


def test_a_forecaster_that_saw_monitored_dates_is_noted(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        build_value_model(run_of(kind="forecaster", run=str(save(tmp_path, test_from="2020-01-01"))), None, at(tmp_path))
    assert "until 2020-01-01, monitoring starts 2019-01-01" in caplog.text
