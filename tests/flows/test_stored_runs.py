"""Runs in a bucket through the command line: a machine with an empty disk goes on from what another has published."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from typer.testing import CliRunner

import driftline
from configs.load import load_run
from configs.tasks.monitor import MonitorRun, fingerprint_model
from configs.trained import downloaded, find_model
from flows.cli import app
from pipelines.errors import ConfigError, MissingInput, StateError
from pipelines.stored_files import files_at
from pipelines.stored_runs import StoredRun
from pipelines.working_copies import WorkingCopy, open_stored

runner = CliRunner()
STAGES = ("train", "evaluate", "predict")


def call(*arguments: str) -> tuple[int, str]:
    found = runner.invoke(app, [*arguments])
    return found.exit_code, found.output


def products_of(uri: str) -> dict[str, bytes]:
    version = StoredRun.at(uri).read()
    assert version is not None
    return {name: files_at(uri).read(file.object) for name, file in version.files.items() if name.startswith("products/")}


@pytest.mark.torch
def test_a_machine_with_an_empty_disk_goes_on(tiny_run: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def machine(name: str) -> None:
        monkeypatch.setenv("DRIFTLINE_CACHE", str(tiny_run.parent / name))

    uri, config = f"{bucket}/runs/tiny", [str(tiny_run), "--set", f"runs={bucket}/runs"]
    machine("one")
    code, text = call("run", *config)
    assert code == 0, text
    assert text.count(" MB: s3://") == 4, "a version after each stage"
    assert text.splitlines()[-1].startswith(f"stored:  {uri}/versions/")
    made = products_of(uri)
    assert "products/collection.json" in made
    assert not (tiny_run.parent / "runs").exists()

    machine("two")
    code, text = call("run", *config)
    assert code == 0, text
    assert f"of {uri}, " in text
    assert all(f"{stage}: up to date" in text for stage in STAGES), text
    assert products_of(uri) == made
    assert "(finished before;" in call("run", *config, "--dry-run")[1]

    machine("three")
    fewer = [*config, "--set", "prediction.dates=[2020-02-24]"]
    assert call("predict", *fewer, "--slice", "1/1")[0] == 0
    machine("four")
    code, text = call("predict", *fewer, "--finish")
    assert code == 1
    assert "covers less than what is published: 1 date instead of 2. What is published stays." in " ".join(text.split())
    assert products_of(uri) == made
    code, text = call("check", uri)
    assert (code, text.startswith("ok: ")) == (0, True)
    opened = driftline.open_run(uri)
    assert {name: (opened.folder / name).read_bytes() for name in made} == made
    assert opened.summary["name"] == "tiny"
    assert find_model(uri).name == "tiny"

    chosen = f"monitoring.model={{kind: forecaster, run: {uri}}}"
    watched = json.loads(runner.invoke(app, ["monitor", "watched.yaml", "--set", chosen, "--json"]).stdout)
    assert (watched["model"], watched["fallback"]) == ("forecaster", "")
    stored, local = (load_run("watched.yaml", [chosen.replace(uri, place)]) for place in (uri, str(opened.folder)))
    assert isinstance(stored, MonitorRun)
    assert isinstance(local, MonitorRun)
    assert fingerprint_model(stored) == fingerprint_model(local) != ""

    version = StoredRun.at(uri).read()
    assert version is not None
    files_at(uri).write(version.files["report.html"].object, b"changed")
    code, text = call("check", uri)
    assert (code, text.startswith("damaged: 1 of ")) == (1, True)


def test_the_copy_of_patients_images_is_not_put_into_a_bucket(here: Path) -> None:
    content = {
        "name": "clip",
        "source": {"kind": "dicom", "path": "clip"},
        "samples": {"variables": [{"name": "intensity", "bands": ["intensity"]}]},
        "split": {"validation_from": "24 s", "test_from": "30 s"},
        "runs": "s3://bucket/runs",
    }
    Path("clip").mkdir()
    with pytest.raises(ConfigError, match="the de-identified copy of the images lies in the run's folder, on a disk"):
        driftline.run(content)


def test_a_run_that_is_not_there_is_named(bucket: str) -> None:
    with pytest.raises(MissingInput, match="holds no run"):
        driftline.open_run(f"{bucket}/runs/none")


@pytest.fixture
def felling(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A stored monitoring run with an object of 12 pixels and one of 3."""
    monkeypatch.chdir(tmp_path)
    uri, made = f"{bucket}/{tmp_path.name}/felling", tmp_path / "made" / "felling"
    (made / "products").mkdir(parents=True)
    day = np.full((20, 20), -1, np.int32)
    day[2:5, 2:6], day[10, 10:13] = 18_000, 18_030
    profile = {"height": 20, "width": 20, "count": 1, "dtype": "int32", "crs": "EPSG:3035", "nodata": -1}
    with rasterio.open(
        made / "products" / "change_date.tif", "w", driver="GTiff", transform=Affine(10, 0, 5000000, 0, -10, 2700000), **profile
    ) as raster:
        raster.write(day, 1)
    (made / "config.yaml").write_text("task: monitor\nmonitoring: {min_area_px: 3}")
    (made / "report.html").write_text("report")
    copy = WorkingCopy(made, StoredRun.at(uri))
    copy.begin()
    assert copy.publish() is not None
    return uri


def test_objects_of_a_stored_run_are_tracked_and_the_tables_published(felling: str, tmp_path: Path) -> None:
    first = StoredRun.at(felling).read()
    assert first is not None
    code, text = call("track", felling, "--out", "tables")
    assert code == 0, text
    assert StoredRun.at(felling).read() == first, "with --out the run stays as it is"
    code, text = call("track", felling)
    assert code == 0, text
    version = StoredRun.at(felling).read()
    assert version is not None
    assert text.splitlines()[-1] == f"stored:  {felling}/versions/{version.version}/track/track.json"
    assert call("track", str(tmp_path / "made" / "felling"))[0] == 0
    for name in ("objects.csv", "events.csv", "tracks.csv"):
        stored = files_at(felling).read(version.files[f"track/{name}"].object)
        assert stored == Path("tables", name).read_bytes() == (tmp_path / "made/felling/track" / name).read_bytes()
    assert version.version in version.files["report.html"].object, "its links lead to the tables"
    assert "track" not in {path.name for path in open_stored(felling).parent.parent.glob(f"{first.version}/felling/*")}
    code, text = call("track", f"{felling}/products/none.tif")
    assert (code, f"{felling} has no products/none.tif" in " ".join(text.split())) == (2, True)
    code, text = call("track", f"{felling}-no/masks")
    assert (code, "is not in a run that is stored there" in " ".join(text.split())) == (2, True)
    code, text = call("export-seg", "m.nii.gz", "--source", "s3://bucket/scans")
    assert (code, "is read from a disk of this machine" in " ".join(text.split())) == (2, True)


def test_a_store_that_does_not_answer_is_no_missing_forecaster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StateError, match="cannot be read or written"):
        downloaded("s3://bucket/runs/closed")


@pytest.mark.torch
def test_a_search_goes_on_from_another_machine(tiny_run: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna", reason="needs driftline[sweep]")
    space = {"space": {"training.learning_rate": [0.03, 0.003]}, "sampler": "random", "pruner": "none", "trials": 1}
    tiny_run.write_text(yaml.safe_dump({**yaml.safe_load(tiny_run.read_text()), "sweep": space}, sort_keys=False))
    where = [str(tiny_run), "--set", f"runs={bucket}/searched"]
    code, text = call("sweep", *where)
    assert code == 0, text
    version = StoredRun.at(f"{bucket}/searched/tiny").read()
    assert version is not None
    assert f"{bucket}/searched/tiny/{version.files['sweep/best.yaml'].object}" in text
    assert not [name for name in version.files if "trials/" in name]

    monkeypatch.setenv("DRIFTLINE_CACHE", str(tiny_run.parent / "another"))
    code, text = call("sweep", *where, "--trials", "2", "--dry-run")
    assert (code, "2 trials, 1 of them done" in text) == (0, True), text
    code, text = call("sweep", *where, "--trials", "2")
    assert (code, "2 finished, of 2 asked for" in " ".join(text.split())) == (0, True), text
