"""Thousands of planted values in a series: after a whole run none is in anything that the run leaves, shows or logs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("highdicom")
pytest.importorskip("torch")

from pydicom.dataset import Dataset
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from flows.artifacts import overview_markdown
from flows.cli import app
from flows.task import open_invocation
from pipelines.cube.store import open_cube
from tests.unit.privacy.conftest import Left
from tests.unit.privacy.planted import Canaries, any_values, as_bytes, image, others_beside, plant_around, plant_everywhere

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
        plant_around(clip, canaries)
        plant_everywhere(clip, canaries)
    for keyword in UNREADABLE:
        if keyword in clip:
            delattr(clip, keyword)
    (folder / f"{canaries.text()}.dcm").write_bytes(as_bytes(clip, canaries.text().encode().ljust(128, b" ")))
    others_beside(folder, canaries)


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
        "evaluation": {"baselines": ["persistence"], "publish": "network"},
    }


def test_no_planted_value_is_left_by_a_run(left: Left) -> None:
    canaries = left.canaries
    originals = left.root / canaries.text() / canaries.text()
    planted_folder(originals, canaries)
    assert len(set(canaries.planted)) == len(canaries.planted) > 1000
    config = left.path.parent / "echo.yaml"
    config.write_text(yaml.safe_dump(config_of(originals, left.key)))
    left.forget()
    assert left.call("run", config) == 3, left.outputs  # a file is cut off
    np.save(originals / "masks.npy", np.pad(np.ones((FRAMES, 9, 9), np.uint8), ((0, 0), (9, 30), (9, 30))))
    assert left.call("track", originals / "masks.npy", "--run", "runs/echo") == 0, left.outputs
    assert left.call("report", config) == 0, left.outputs
    assert left.call("info", "runs/echo/cube") == 0, left.outputs
    assert left.call("ingest", config, "--set", "source.series=7") == 2  # there is one series
    cube = open_cube("runs/echo/cube")
    stored = [json.dumps(cube.attrs, default=str), *(str(cube[name].values) for name in ("scene_id", "source", "time"))]
    assert left.found(*stored, overview_markdown(open_invocation(str(config), []), "done")) == {}
    for name in (
        "report.html",
        "summary.json",
        "products/index.json",
        "model/model.json",
        "steps.jsonl",
        "config.yaml",
        "track/seg/seg.dcm",
        "track/seg-objects/seg.dcm",
        "track/sr/sr.dcm",
    ):
        assert (left.path / "runs/echo" / name).is_file()
    assert "DICOM SR" in (left.path / "runs/echo/report.html").read_text()
    assert cube.attrs["driftline_privacy"] == "read from a de-identified copy"
    assert "path" not in json.loads(cube.attrs["driftline_config"])["source"]
    assert left.call("run", "runs/echo/config.yaml") == 0, left.outputs  # what the run leaves can be run again, without originals
    assert "unchanged (nothing new)" in "".join(left.outputs[-3:])


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
