"""Thousands of planted values in a series: after a whole run none is in anything that the run leaves, shows or logs."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("pydicom")
pytest.importorskip("torch")

from numcodecs.zstd import Zstd
from pydicom.dataset import Dataset
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from flows.cli import app
from pipelines.cube.store import open_cube
from tests.unit.privacy.planted import Canaries, any_values, as_bytes, found_in, image, plant_everywhere

pytestmark = pytest.mark.slow

ULTRASOUND = "1.2.840.10008.5.1.4.1.1.3.1"
FRAMES, SIZE = 24, 48
UNREADABLE = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "ModalityLUTSequence")  # if they fit no clip


def made_clip(patient: str) -> Dataset:
    """A cine that states that no text is burned in."""
    clip = image(SIZE, SIZE, FRAMES, patient=patient)
    clip.SOPClassUID, clip.Modality, clip.BurnedInAnnotation, clip.FrameTime = ULTRASOUND, "US", "NO", 40
    clip.BitsAllocated, clip.BitsStored, clip.HighBit = 8, 8, 7
    noise = gaussian_filter(np.random.default_rng(0).normal(0, 1, (FRAMES, SIZE, SIZE)), (1, 3, 3))
    clip["PixelData"].value = np.clip(128 + 900 * noise, 0, 255).astype(np.uint8).tobytes()
    del clip.ImagePositionPatient, clip.ImageOrientationPatient, clip.SliceThickness
    return clip


def planted_folder(folder: Path, canaries: Canaries) -> None:
    """A cine with a canary in every element, among files that are refused, in a folder and with names that are canaries."""
    folder.mkdir(parents=True)
    clip = made_clip(canaries.text())
    with any_values():
        plant_everywhere(clip, canaries)
    for keyword in UNREADABLE:
        if keyword in clip:
            delattr(clip, keyword)
    (folder / f"{canaries.text()}.dcm").write_bytes(as_bytes(clip, canaries.text().encode().ljust(128, b" ")))
    whole = as_bytes(image(patient=canaries.text(), instance="1.2.3.70"))
    (folder / f"cut {canaries.text()}.dcm").write_bytes(whole[:-40])
    report = image(patient=canaries.text(), instance="1.2.3.71")
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    (folder / f"report {canaries.text()}.dcm").write_bytes(as_bytes(report))
    (folder / f"{canaries.text()}.txt").write_text(canaries.text())


def config_of(source: Path, key: Path) -> dict[str, object]:
    return {
        "name": "echo",
        "task": "forecast",
        "source": {"kind": "dicom", "path": str(source)},
        "privacy": {"key_file": str(key)},
        "cube": {"chunk_px": 64},
        "samples": {"variables": [{"name": "intensity", "formula": "band", "bands": ["intensity"]}], "context": 2, "horizon": 1},
        "split": {"block_px": 12, "buffer_px": 0, "validation_from": "0.4 s", "test_from": "0.64 s"},
        "model": {"hidden": [2], "baseline": "persistence"},
        "training": {"epochs": 1, "accelerator": "cpu"},
        "evaluation": {"baselines": ["persistence"], "must_beat": []},
    }


def test_no_planted_value_is_left_by_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    caplog.set_level(logging.DEBUG)
    left = tmp_path / "left"
    left.mkdir()
    monkeypatch.chdir(left)
    monkeypatch.setenv("TMPDIR", str(left))
    monkeypatch.setenv("PREFECT_API_URL", "")
    canaries = Canaries()
    originals = tmp_path / canaries.text() / canaries.text()
    planted_folder(originals, canaries)
    assert len(set(canaries.planted)) == len(canaries.planted) > 1000
    config = tmp_path / "echo.yaml"
    config.write_text(yaml.safe_dump(config_of(originals, tmp_path / "study.key")))
    caplog.clear()
    recwarn.clear()
    outputs: list[str] = []

    def call(*arguments: str) -> int:
        result = CliRunner().invoke(app, list(arguments))
        outputs.extend([result.stdout, result.stderr])
        return result.exit_code

    assert call("run", str(config)) == 3, outputs  # a file is cut off
    assert call("info", "runs/echo/cube") == 0, outputs
    assert call("ingest", str(config), "--set", "source.series=7") == 2  # there is one series
    logged = [record.getMessage() + str(record.exc_info) for record in caplog.records] + [str(one.message) for one in recwarn]
    cube = open_cube("runs/echo/cube")
    stored = [json.dumps(cube.attrs, default=str), *(str(cube[name].values) for name in ("scene_id", "source", "time"))]
    assert found_in(canaries, [*outputs, *logged, *stored], [left]) == {}
    (left / "runs/echo/planted.zst").write_bytes(Zstd().encode(canaries.text().encode()))
    assert len(found_in(canaries, [], [left])) == 1  # the search looks into what is compressed
    for name in ("report.html", "summary.json", "products/index.json", "model/model.json", "steps.jsonl", "config.yaml"):
        assert (left / "runs/echo" / name).is_file()
    assert cube.attrs["driftline_privacy"] == "read from a de-identified copy"
    assert "path" not in json.loads(cube.attrs["driftline_config"])["source"]
    assert call("run", "runs/echo/config.yaml") == 0, outputs  # what the run leaves can be run again, without the originals
    assert "unchanged (nothing new)" in "".join(outputs[-2:])


def test_a_run_on_originals_says_so_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans/clip.dcm").write_bytes(as_bytes(made_clip("ID-1")))
    config = config_of(tmp_path / "scans", tmp_path / "study.key")
    config["privacy"] = {"deidentify": False, "reason": "made for a test"}
    (tmp_path / "echo.yaml").write_text(yaml.safe_dump(config))
    assert CliRunner().invoke(app, ["run", "echo.yaml"]).exit_code == 0
    statement = "not de-identified: made for a test"
    assert open_cube("runs/echo/cube").attrs["driftline_privacy"] == statement
    assert json.loads(Path("runs/echo/summary.json").read_text())["privacy"] == statement
    assert f"The images of patients were {statement}" in Path("runs/echo/report.md").read_text().replace("\\", "")
