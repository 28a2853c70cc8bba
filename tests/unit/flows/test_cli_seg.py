"""`driftline export-seg`: masks of a DICOM series as DICOM SEG, and what it refuses."""

import json
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.seg import parse_class
from pipelines.errors import RequestError
from pipelines.products.dicom_seg import Code, SegmentClass

sys.path.insert(0, str(Path(__file__).parents[1] / "sources"))
from made_dicom import volumes, write_series

pytest.importorskip("highdicom")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write_series(tmp_path / "scan", volumes(2), StudyInstanceUID="1.2.3.4", PatientIdentityRemoved="YES")


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    values = np.zeros((2, 4, 6, 5), np.uint8)
    values[:, 1, 2, 3], values[:, 2, 2, 3] = 1, 7
    np.save(tmp_path / "masks.npy", values)
    return tmp_path / "masks.npy"


def test_masks_become_files_that_name_their_classes(scan: Path, masks: Path, tmp_path: Path) -> None:
    named = ["--class", "1=lesion;SCT:49755003:Morphologically abnormal structure;SCT:52988006:Lesion", "--class", "7=cyst"]
    arguments = ["export-seg", str(masks), "--source", str(scan), "--out", str(tmp_path / "seg"), *named, "--json"]
    result = CliRunner().invoke(app, [*arguments, "--algorithm", "other 2.0"])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["segments"] == ["lesion", "cyst"]
    seg = pydicom.dcmread(record["files"][1])
    assert seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Lesion"
    assert seg.SegmentSequence[1].SegmentAlgorithmName == "other 2.0"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--source", "nowhere"], "no such folder or file: nowhere"),
        (["--out", "scan/seg"], "lies in the folder of the series"),
        (["--class", "1=lesion"], r"hold [7], which no class names"),
        (["--class", "lesion"], "expected --class 1=lesion"),
        (["--made-by", "NOBODY"], "expected one of AUTOMATIC"),
    ],
)
def test_what_cannot_be_written_is_refused(
    scan: Path, masks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["export-seg", str(masks), "--source", str(scan), *extra])
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_series_with_a_patient_in_it_needs_a_statement(masks: Path, tmp_path: Path) -> None:
    scan = write_series(tmp_path / "scan", volumes(2), StudyInstanceUID="1.2.3.4")
    arguments = ["export-seg", str(masks), "--source", str(scan), "--out", str(tmp_path / "seg")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "does not state that it is de-identified" in result.stderr
    assert "anary" not in result.output
    assert not (tmp_path / "seg").exists()
    assert CliRunner().invoke(app, [*arguments, "--identified"]).exit_code == 0


def test_classes_have_a_value_a_name_and_codes() -> None:
    assert parse_class("1=left lung") == SegmentClass(1, "left lung")
    assert parse_class("2=a;SCT:1:b;99X:2:c:d") == SegmentClass(2, "a", Code("1", "SCT", "b"), Code("2", "99X", "c:d"))
    for wrong in ("=a", "1=", "x=a", "1=a;SCT:1:b", "1=a;SCT;SCT"):
        with pytest.raises(RequestError, match="expected --class"):
            parse_class(wrong)
