"""Runs in a bucket through the command line: a machine with an empty disk goes on from what another has published."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import driftline
from configs.trained import find_model
from flows.cli import app
from pipelines.errors import ConfigError, MissingInput
from pipelines.stored_files import files_at
from pipelines.stored_runs import StoredRun

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
