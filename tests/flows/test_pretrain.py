"""Pretraining without labels through the command line, and class maps that begin from it, on a made series."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from rasterio.warp import transform
from safetensors.numpy import load_file
from typer.testing import CliRunner

from flows.cli import app
from pipelines.learning.member import EpochEnd

pytestmark = pytest.mark.torch
SIDE, DATES = 12, 6
SOURCE = {"kind": "netcdf", "path": "tiny.nc", "bands": ["red", "nir"], "scale": 0.001, "nodata": 0, "crs": "EPSG:32635",
          "transform": [10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0]}  # fmt: skip
MODEL = {"kind": "gru", "hidden": 6, "dropout": 0.0}
PRETRAIN: dict[str, Any] = {
    "name": "before", "task": "pretrain", "source": SOURCE, "cube": {"chunk_px": 32, "workers": 1}, "split": {"block_px": 4},
    "model": MODEL, "training": {"epochs": 3, "windows": 16, "window_px": 4, "batch": 8, "accelerator": "cpu", "features": 4},
}  # fmt: skip
CLASSES: dict[str, Any] = {
    "name": "map", "task": "segment", "source": SOURCE, "cube": {"chunk_px": 32, "workers": 1},
    "labels": {"kind": "points", "path": "points.csv"}, "split": {"block_px": 3, "folds": 2}, "model": MODEL,
    "training": {"epochs": 1, "windows": 8, "batch": 8, "accelerator": "cpu", "learning_rate": 1e-9, "start_from": "runs/before",
                 "most_labels": 2},
    "evaluation": {"references": [], "must_equal": []},
}  # fmt: skip


def call(verb: str, content: dict[str, Any], code: int = 0, **changes: Any) -> str:
    """What the command prints, in one line."""
    name = f"{changes.get('name', content['name'])}.yaml"
    Path(name).write_text(yaml.safe_dump({**content, **changes}, sort_keys=False))
    result = CliRunner().invoke(app, [verb, name])
    assert result.exit_code == code, result.output
    return " ".join(str(result.output).split())


def weights(run: str) -> dict[str, np.ndarray]:
    return load_file(f"runs/{run}/model/model.safetensors")


@pytest.fixture
def series(here: Path) -> None:
    """`tiny.nc` and `points.csv` in the working folder."""
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, 2, (6, 6)), np.ones((2, 2), int))
    curves = np.array([[300, 320, 300, 340, 300, 310], [800, 500, 300, 300, 500, 800]])[:, :, None, None]
    values = {"red": curves[0] + 200 * truth, "nir": np.where(truth, curves[1], 600)}
    times = np.datetime64("2020-03-01", "ns") + np.arange(DATES) * np.timedelta64(30, "D")
    bands = {name: (("time", "y", "x"), (one + rng.normal(0, 20, (DATES, SIDE, SIDE))).astype("uint16"))
             for name, one in values.items()}  # fmt: skip
    axes = {"y": 5e6 - 10 * (np.arange(SIDE) + 0.5), "x": 5e5 + 10 * (np.arange(SIDE) + 0.5)}
    xr.Dataset(bands, {"time": times, **axes}).to_netcdf("tiny.nc", engine="h5netcdf")
    rows, columns = rng.permutation(SIDE**2)[:60] // SIDE, rng.integers(0, SIDE, 60)
    lon, lat = transform("EPSG:32635", "EPSG:4326", 5e5 + 10 * (columns + 0.5), 5e6 - 10 * (rows + 0.5))
    lines = [f"{x},{y},2020-01-01,2021-01-01,{'ab'[truth[r, c]]}" for x, y, r, c in zip(lon, lat, rows, columns, strict=True)]
    Path("points.csv").write_text("\n".join(["longitude,latitude,from,to,label", *lines]))


def test_class_maps_begin_from_what_was_pretrained_without_labels(series: None) -> None:
    assert "fills what is hidden of places held out with a loss of" in call("run", PRETRAIN)
    assert "up to date" in call("train", PRETRAIN)
    assert "No label was read" in (call("report", PRETRAIN), Path("runs/before/report.md").read_text())[1]
    call("ingest", CLASSES)
    text = call("train", CLASSES)
    assert "begun from runs/before (`task: pretrain`), tensors: 6 copied, 2 untrained" in text
    assert "it has seen before on 2020-03-01 to 2020-07-29" in text
    begun = json.loads(Path("runs/map/model/begun.json").read_text())
    assert begun["untrained"] == ["head.weight", "head.bias"]
    assert json.loads(Path("runs/map/stages/train.json").read_text())["begun"] == begun
    own, theirs = weights("map"), weights("before")
    for member in range(2):
        for name in begun["copied"]:
            np.testing.assert_allclose(own[f"members.{member}.{name}"], theirs[f"members.0.trunk.{name}"], atol=1e-6)
        np.testing.assert_array_equal(own["mean_MC"][member], theirs["mean_C"])
    members = json.loads(Path("runs/map/stages/train.json").read_text())["training"]["members"]
    assert {one["labels"]["train"] for one in members} == {4}  # two of each class
    call("evaluate", CLASSES)
    methods = json.loads(Path("runs/map/evaluation.json").read_text())["details"]["methods"]
    assert np.sum(methods["model"]["confusion"]) > 40  # all that is labelled is tested
    onward = {**CLASSES, "name": "onward", "training": {**CLASSES["training"], "start_from": "runs/map", "most_labels": None}}
    call("ingest", onward)
    text = call("train", onward, code=2, split={**CLASSES["split"], "seed": 1})
    assert "has learnt from labels of this area (onward), and its folds are not those of this run" in text
    record = Path("runs/map/model/model.json")
    as_saved = record.read_text()
    described = json.loads(as_saved)
    described["metadata"] |= {"task": "change", "folds_sha256": None}  # which learns from labels too, without folds
    record.write_text(json.dumps(described))
    assert "has learnt from labels of this area (onward)" in call("train", onward, code=2)
    record.write_text(as_saved)
    call("train", onward)
    theirs = weights("onward")
    for member in range(2):  # each from the network of its own fold
        name = f"members.{member}.head.weight"
        np.testing.assert_allclose(theirs[name], own[name], atol=1e-6)


@pytest.mark.exhaustive
def test_a_model_of_other_images_or_layers_is_refused(series: None) -> None:
    call("run", PRETRAIN)
    call("ingest", CLASSES)
    swapped = {**SOURCE, "bands": ["nir", "red"]}
    call("ingest", CLASSES, name="swapped", source=swapped)
    assert "was trained with variables =" in call("train", CLASSES, code=2, name="swapped", source=swapped)
    call("ingest", CLASSES, name="red", source={**SOURCE, "bands": ["red"]})
    assert "needs the band nir" in call("train", CLASSES, code=2, name="red", source={**SOURCE, "bands": ["red"]})
    other = {"kind": "l_tae", "hidden": 8, "heads": 2}
    assert "no layer of the PixelRecurrent of runs/before" in call("train", CLASSES, code=2, model=other)
    text = call("ingest", PRETRAIN, code=2, name="pair", model={"kind": "fc_ef"})
    assert "fc_ef sees a pixel only where both dates are valid" in text


def test_a_pretraining_that_was_stopped_ends_with_the_same_weights(series: None, monkeypatch: pytest.MonkeyPatch) -> None:
    call("run", PRETRAIN)
    call("ingest", PRETRAIN, name="again")
    end = EpochEnd.on_train_epoch_end

    def stop(self: Any, trainer: Any, module: Any) -> None:
        end(self, trainer, module)
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(EpochEnd, "on_train_epoch_end", stop)
    Path("again.yaml").write_text(yaml.safe_dump({**PRETRAIN, "name": "again"}, sort_keys=False))
    assert CliRunner().invoke(app, ["train", "again.yaml"]).exit_code != 0
    monkeypatch.setattr(EpochEnd, "on_train_epoch_end", end)
    call("train", PRETRAIN, name="again")
    assert json.loads(Path("runs/again/stages/train.json").read_text())["training"]["members"][0]["resumed"]
    one, other = weights("before"), weights("again")
    assert all(np.array_equal(one[name], other[name]) for name in one)
