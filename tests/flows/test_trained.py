"""Models that travel, through the command line on tiny runs: used elsewhere, refused, begun from, listed."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import xarray as xr
import yaml
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from flows.cli import app
from tests.flows.change_sites import write_site, write_sites
from tests.flows.conftest import TINY, write_tiny_run

pytestmark = pytest.mark.torch
OTHER = {key: TINY[key] for key in ("source", "cube", "split", "evaluation", "prediction")} | {
    "name": "other",
    "task": "forecast",
}


def call(*arguments: str, code: int = 0) -> str:
    """What the command prints; it must end with `code`."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return str(result.output)


def read(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def files(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def write(name: str, content: dict[str, Any], **changes: Any) -> str:
    Path(f"{name}.yaml").write_text(yaml.safe_dump({**content, "name": name, **changes}, sort_keys=False))
    return f"{name}.yaml"


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a forecast run that is trained and evaluated."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PREFECT_API_URL", "")
        config = write_tiny_run(folder)
        for verb in ("ingest", "train", "evaluate"):
            call(verb, str(config))
    return folder


@pytest.fixture
def trained(tiny_run: Path, trained_once: Path) -> str:
    """The folder of the run, copied into the working folder of the test."""
    shutil.copytree(trained_once / "runs", "runs")
    return "runs/tiny"


# ---------------------------------------------------------------- a forecaster


def test_a_forecaster_is_used_scored_and_said_to_be_of_elsewhere(trained: str) -> None:
    config = write("other", OTHER)
    text = call("evaluate", config, "--model", trained)
    assert not Path("runs/other/products").exists()
    call("predict", config, "--model", trained, "--even-if-worse")
    assert "trained on tiny (47 dates, 2018-01-05 to 2019-08-26), not trained here" in text
    assert "the model has seen this area (other) on dates up to 201" in text
    summary, own = read("runs/other/summary.json"), read(f"{trained}/stages/train.json")
    assert summary["model_hash"] == summary["products"]["model_hash"] == own["model_hash"]
    assert {"persistence", "climatology", "model"} == set(summary["methods"])
    assert summary["trained"]["run"] == "tiny"
    assert "not trained here" in summary["sentence"]
    assert "not trained here" in Path("runs/other/report.html").read_text()
    assert Path("runs/other/model/scores.json").is_file()
    assert read("runs/other/model/scores.json")["model_hash"] == own["model_hash"]
    assert "nothing to do" in call("predict", config, "--model", trained, "--even-if-worse")
    own = write("other", OTHER, samples=TINY["samples"], model=TINY["model"])
    assert "holds the model of runs/tiny: add --model runs/tiny" in call("evaluate", own, code=2)
    assert "check the model and copy it" in call("predict", config, "--model", trained, "--dry-run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": {**TINY["source"], "scale": 1.0}}, "differ by a factor of"),
        (
            {"source": {**TINY["source"], "bands": [{"name": "rouge", "source": "red"}]}},
            "needs the band red; the images have rouge",
        ),
        ({"samples": {"context": 5}}, "the config says samples.context = 5, the model in runs/tiny was trained with 4"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_is_used(trained: str, change: dict[str, Any], message: str) -> None:
    text = " ".join(call("predict", write("other", OTHER, **change), "--model", trained, code=2).split())
    assert message in text
    assert not Path("runs/other/model").exists()


@pytest.mark.parametrize("damage", ["truncated", "huge"])
def test_a_damaged_model_leaves_that_of_the_run_alone(trained: str, tiny_run: Path, damage: str) -> None:
    shutil.copytree(f"{trained}/model", "broken")
    path = Path("broken", "model.safetensors")
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    else:
        save_file({name: np.full_like(tensor, 1e30) for name, tensor in load_file(path).items()}, path)
        content = {**read("broken/model.json"), "tensors_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        Path("broken", "model.json").write_text(json.dumps(content))
    call("models", trained)
    before = files(f"{trained}/model")
    config = write("tiny", OTHER)
    text = " ".join(call("predict", config, "--model", "broken", code=1).split())
    assert "the model of broken cannot be used" in text
    assert "train again" not in text
    assert files(f"{trained}/model") == before


@pytest.mark.exhaustive
def test_another_scale_is_taken_if_the_user_insists(trained: str) -> None:
    config = write("other", OTHER, source={**TINY["source"], "scale": 1.0})
    text = call("run", config, "--model", trained, "--model-as-is", "--even-if-worse")
    assert "used as it is although values of red" in text
    assert "sed as it is although values of red" in Path("runs/other/report.md").read_text().replace("\n", " ")


def test_a_model_that_cannot_be_scored_here_says_so(trained: str) -> None:
    with xr.open_dataset("tiny.nc", engine="h5netcdf") as series:
        series.isel(time=slice(0, 9)).to_netcdf("short.nc", engine="h5netcdf")
    config = write("short", OTHER, source={**TINY["source"], "path": "short.nc"})
    text = call("predict", config, "--model", trained)
    assert "not evaluated here" in text
    assert "lower samples.context" not in text
    summary = read("runs/short/summary.json")
    assert summary["verdict"] is None
    assert len(summary["products"]["target_utc"]) == 2
    assert "not evaluated here" in summary["sentence"]


def test_a_new_observation_needs_no_training(trained: str, tiny_run: Path) -> None:
    before = read(f"{trained}/stages/train.json")
    with xr.open_dataset("tiny.nc", engine="h5netcdf") as series:
        whole = series.load()
    later = whole.isel(time=[-1]).assign_coords(time=whole.time.values[-1:] + np.timedelta64(13, "D"))
    xr.concat([whole, later], "time").to_netcdf("tiny.nc", engine="h5netcdf")
    assert "1 added" in call("ingest", str(tiny_run))
    call("predict", str(tiny_run), "--even-if-worse")
    assert read(f"{trained}/summary.json")["products"]["issued_utc"] == f"{later.time.values[0].astype('datetime64[s]')}Z"
    assert read(f"{trained}/stages/train.json") == before


def weights(folder: str) -> dict[str, np.ndarray]:
    """The tensors of the networks."""
    tensors = load_file(f"{folder}/model/model.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith("members.")}


@pytest.mark.exhaustive
def test_training_begins_from_the_weights_of_a_model_of_the_same_architecture(trained: str) -> None:
    still = {**TINY["training"], "learning_rate": 1e-9}
    begun = {**TINY, "training": {**still, "start_from": trained}}
    for name, content in (("begun", begun), ("anew", {**TINY, "training": still})):
        call("ingest", write(name, content))
        call("train", f"{name}.yaml")
    first = "members.0.head.weight" if "members.0.head.weight" in weights(trained) else max(weights(trained))
    np.testing.assert_allclose(weights("runs/begun")[first], weights(trained)[first], atol=1e-6)
    assert np.abs(weights("runs/anew")[first] - weights(trained)[first]).max() > 1e-4
    assert "up to date" in call("train", "begun.yaml")
    call("ingest", write("wider", begun, model={**TINY["model"], "hidden": [6]}))
    text = " ".join(call("train", "wider.yaml", code=2).split())
    assert "another architecture: hidden = [6] (there [4])" in text
    unlike = ("--set", "model.members=2", "--set", "samples.context=3")
    call("ingest", "begun.yaml", *unlike)
    text = " ".join(call("train", "begun.yaml", *unlike, code=2).split())
    assert "model.members = 2 (there 1), samples.context = 3 (there 4)" in text


def test_models_are_listed_with_their_scores_and_have_a_card(trained: str) -> None:
    assert "trained on tiny" in call("models")
    assert "Unknown" not in call("models", trained)
    assert {"card.md", "card.json"} <= {path.name for path in Path(trained, "model").iterdir()}
    item = json.loads(call("models", f"{trained}/model/model.safetensors", "--json"))
    assert pystac.Item.from_dict({**item, "stac_extensions": []}).validate()  # the schemas of extensions lie on the network
    properties = item["properties"]
    assert properties["mlm:input"][0]["bands"] == ["red"]
    assert properties["driftline:scores"]["model"]["mae"] > 0
    call("models", "runs/nothing", code=2)
    for number, name in enumerate(("cut", "odd", "half", "bare")):
        shutil.copytree(f"{trained}/model", f"runs/{name}/model")
        description, tensors = (Path("runs", name, "model", file) for file in ("model.json", "model.safetensors"))
        content = read(str(description))
        odd = json.dumps({**content, "metadata": {**content["metadata"], "inputs": "foo"}})
        description.write_text((description.read_text()[:50], odd, json.dumps(content), odd)[number])
        tensors.write_bytes(tensors.read_bytes()[: -1 if name == "half" else None])
    Path("runs/bare/model/model.safetensors").unlink()
    assert call("models").count("cannot be read: ") == 4
    assert "trained on tiny" in call("models")
    assert "cannot be read" in call("models", "runs/odd", code=1)


def test_a_model_of_classes_names_them(tmp_path: Path) -> None:
    from models.segmenter import SEGMENTER, build_segmenter

    model = build_segmenter({"kind": "gru", "dropout": 0.0, "hidden": 4, "bands": 1}, ["water", "field"], members=1, seed=0)
    SEGMENTER.save(model, tmp_path / "crops" / "model", {"task": "segment", "bands": ["red"], "config": {}})
    assert "segment: the classes water, field from red" in call("models", str(tmp_path))
    assert "Map of the classes water, field" in call("models", str(tmp_path / "crops"))


# ---------------------------------------------------------------- a detector


@pytest.mark.exhaustive
def test_a_detector_is_used_on_other_sites_with_and_without_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "")
    config = write_sites(tmp_path)
    for verb in ("ingest", "train"):
        call(verb, str(config))
    content = yaml.safe_load(config.read_text())
    content = {key: content[key] for key in ("task", "labels", "cube", "evaluation")}
    for number, name in enumerate(("delta", "epsilon", "zeta"), start=10):
        write_site(Path("elsewhere", name), seed=number)
    source = {"kind": "sites", "path": "elsewhere", "pattern": "{site}/{step}/{band}.tif", "dates": "{site}/dates.txt"}
    call(
        "predict", write("there", content, source={**source, "bands": ["nir", "red"]}), "--model", "runs/tiny", "--even-if-worse"
    )
    summary = read("runs/there/summary.json")
    assert summary["methods"]["siamese_dcrn"]["f1"] > 0.8
    assert "change_vector" in summary["methods"]
    for name in ("delta", "epsilon", "zeta"):
        Path("elsewhere", name, "label.tif").unlink()
    call("ingest", str(write("begun", yaml.safe_load(config.read_text()))))
    call("train", "begun.yaml", "--set", "training.start_from=runs/tiny", "--set", "training.learning_rate=1e-9")
    members = {name: [tensor for key, tensor in weights(f"runs/{name}").items() if "weight" in key] for name in ("begun", "tiny")}
    assert all(
        any(np.allclose(one, other, atol=1e-5) for other in members["tiny"] if other.shape == one.shape)
        for one in members["begun"]
    )
    config_of_other = write("unlabelled", content, source={**source, "bands": ["nir", "red"]})
    assert "not evaluated here" in call("predict", config_of_other, "--model", "runs/tiny")
    assert read("runs/unlabelled/summary.json")["found"]["patches"] >= 3
    refused = write("missing", content, source={**source, "bands": ["nir"]})
    assert "needs the band red" in call("predict", refused, "--model", "runs/tiny", code=2)
