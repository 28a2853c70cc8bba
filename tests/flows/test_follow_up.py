"""Follow-up of two made patients from the command line to the page, and what a reader's decisions do to the next run."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from pipelines.follow_up.decisions import COLUMNS
from tests.made_lesions import GRID, brain, patient_of, sphere
from tests.made_visits import write_nifti

pytestmark = pytest.mark.torch
A, B, C, D = (-18.0, -15.0, -9.0), (0.0, 18.0, 0.0), (18.0, -10.0, 9.0), (-8.0, 4.0, 12.0)
VISITS = {  # patient -> lesions of both visits
    "one": [sphere(A, 0.3) | sphere(B, 0.3), sphere(A, 0.3) | sphere(C, 0.3)],
    "two": [sphere(D, 0.2) | sphere(B, 0.3), sphere(D, 0.6) | sphere(B, 0.3)],
}
CONFIG: dict[str, Any] = {
    "name": "made",
    "task": "follow_up",
    "source": {"kind": "visits", "path": "visits", "pattern": "{patient}/v{visit}.nii.gz", "brain": "{patient}/brain.nii.gz"},
    "registration": {"kind": "none", "min_edge_overlap": 0, "min_information": 1},
    "privacy": {"deidentify": False, "reason": "made images"},
    "lesions": {"masks": "{patient}/lesions{visit}.nii.gz"},
    "evaluation": {"reference": "{patient}/change.nii.gz", "resamples": 200},
}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the visits of two patients and `made.yaml`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "")
    for name, masks in VISITS.items():
        folder, patient = tmp_path / "visits" / name, patient_of(masks, shift_px=0.4)
        for n, (image, mask) in enumerate(zip(patient.images_TZYX, masks, strict=True), 1):
            write_nifti(folder / f"v{n}.nii.gz", np.round(image).astype(np.int16), GRID)
            write_nifti(folder / f"lesions{n}.nii.gz", mask.astype(np.uint8), GRID)
        write_nifti(folder / "brain.nii.gz", brain().astype(np.uint8), GRID)
        write_nifti(folder / "change.nii.gz", (masks[0] != masks[1]).astype(np.uint8), GRID)
    (tmp_path / "made.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return tmp_path


@pytest.fixture
def run(work: Path) -> Callable[..., dict[str, Any]]:
    def call(verb: str, *arguments: str, code: int = 0) -> dict[str, Any]:
        result = CliRunner().invoke(app, [verb, "made.yaml", "--json", *arguments])
        assert result.exit_code == code, result.output
        found: dict[str, Any] = json.loads(result.stdout) if result.stdout else {}
        return found

    return call


def rows_of(name: str) -> dict[str, dict[str, str]]:
    """event -> row of a patient's table."""
    with Path(f"runs/made/products/{name}-lesions.csv").open(newline="") as file:
        return {row["event"]: row for row in csv.DictReader(file)}


def test_patients_from_files_to_pages_and_back_with_decisions(run: Callable[..., dict[str, Any]], work: Path) -> None:
    assert run("run")["skipped"] is False
    one, two = rows_of("one"), rows_of("two")
    assert set(one) == {"stable", "disappearing", "new"}
    assert set(two) == {"stable", "enlarging"}
    assert float(two["enlarging"]["change_percent"]) == pytest.approx(200, abs=35)  # whole voxels
    summary = json.loads(Path("runs/made/summary.json").read_text())
    methods = summary["methods"]
    assert methods["proposal"]["lesion_f1"] > methods["differencing"]["lesion_f1"]
    index = json.loads(Path("runs/made/products/index.json").read_text())
    assert index["codes"]["1"] == "new"
    for listed in index["files"]:
        assert (Path("runs/made/products") / listed["file"]).is_file()
    page = Path("runs/made/products/one.html").read_text()
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")
    assert run("run")["skipped"] is True

    place = [one["new"][f"{axis}_mm"] for axis in "xyz"]
    lines = [",".join(COLUMNS), ",".join(["one", "1", "2", *place, "new", "reject", "", "", ""])]
    lines += [",".join(["two", "1", "2", "80", "80", "80", "new", "confirm", "", "", ""])]
    folder = Path("runs/made/decisions")
    folder.mkdir()
    (folder / "reader.csv").write_text("\n".join(lines) + "\n")
    again = run("run")
    assert again["skipped"] is False
    assert rows_of("one")["new"]["status"] == "rejected"
    assert any("a decision finds no lesion: confirm the lesion at (80.0, 80.0, 80.0)" in note for note in again["notes"])
    assert json.loads(Path("runs/made/summary.json").read_text())["sites"]["one"]["events"]["new"] == 0


@pytest.mark.exhaustive
def test_a_patient_whose_masks_cannot_be_used_is_left_out_and_the_others_go_on(
    run: Callable[..., dict[str, Any]], work: Path
) -> None:
    shutil.copytree(work / "visits/one", work / "visits/three")
    (work / "visits/three/lesions2.nii.gz").unlink()
    shutil.copytree(work / "visits/one", work / "visits/four")
    shutil.copy(work / "visits/four/lesions1.nii.gz", work / "visits/four/lesions1.nii")  # two masks of one visit
    speck = np.zeros(GRID.shape, np.uint8)
    speck[12, 48, 48] = 1  # 1.9 mm3: no lesion that counts
    write_nifti(work / "visits/two/change.nii.gz", speck, GRID)
    config = {**CONFIG, "lesions": {"masks": "{patient}/lesions{visit}.nii*"}}
    (work / "made.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    found = run("run")
    assert sum("three is left out: no mask of lesions" in note for note in found["notes"]) == 1
    assert sum("four is left out: 2 files fit the pattern" in note for note in found["notes"]) == 1
    index = json.loads(Path("runs/made/products/index.json").read_text())
    assert list(index["patients"]) == ["one", "two"]
    summary = json.loads(Path("runs/made/summary.json").read_text())
    assert summary["methods"]["proposal"]["lesion_f1"] is not None  # of `one` alone
    config["source"] = {**CONFIG["source"], "patients": ["three"]}
    config["evaluation"] = {}
    (work / "made.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    run("run", code=2)


def test_without_masks_and_reference_lesions_are_proposed_and_nothing_is_measured(
    run: Callable[..., dict[str, Any]], work: Path
) -> None:
    plain = {**CONFIG, "lesions": {}, "evaluation": {}, "source": {**CONFIG["source"], "patients": ["one"]}}
    (work / "made.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    run("run")
    found = rows_of("one")
    assert np.linalg.norm([float(found["new"][f"{axis}_mm"]) - mm for axis, mm in zip("xyz", C, strict=True)]) < 2
    report = Path("runs/made/report.html").read_text()
    assert "how well change is found here is not known" in report
    assert "No reader has marked them" in Path("runs/made/products/one.html").read_text()
    run("evaluate", code=2)
