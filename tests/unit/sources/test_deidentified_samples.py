"""Samples of a de-identified copy: keyed names with the right labels, and nothing of what is not whole."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom")

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.privacy.folder import deidentify_folder
from pipelines.privacy.keys import Key
from pipelines.privacy.settings import PrivacySettings
from pipelines.scene import Band
from pipelines.sources.answers import AnswerColumns, read_answers
from pipelines.sources.deidentified_samples import CopiedSamples, find_originals, name_samples, write_labels
from pipelines.sources.deidentifying import kinds_of
from pipelines.sources.image_bands import ImageRequest
from pipelines.sources.sample_files import SampleFiles
from tests.unit.privacy.planted import Canaries, as_bytes
from tests.unit.privacy.planted_series import picture
from tests.unit.sources.made_dicom import classic, volumes

SETTINGS = PrivacySettings(Key(bytes(range(32))), burned_in="checked")
COLUMNS = {"file": "file", "answer": "label", "group": "group", "part": "part"}
GREY = ImageRequest((Band("gray"),), ("gray",))


def copied(root: Path, unit: str = "folder") -> tuple[CopiedSamples, SampleFiles]:
    """(what became of the samples below root/in, the samples of the copy)."""
    originals = find_originals(SampleFiles(root / "in", GREY, unit=unit))  # type: ignore[arg-type]
    kinds = kinds_of(is_ordered=unit == "folder")
    manifest = deidentify_folder(root / "in", root / "copy", SETTINGS, kinds=kinds, only=originals.files)
    found = name_samples(originals, root / "copy", manifest, SETTINGS.key)
    return found, SampleFiles(root / "copy", GREY, unit=unit)  # type: ignore[arg-type]


def series(folder: Path, uid: str, scale: float = 1.0, slices: slice = slice(4), patient: str = "DOE") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for k, pixels in list(enumerate(volumes(1)[0]))[slices]:
        uids = {"SeriesInstanceUID": uid, "SOPInstanceUID": f"{uid}.{k}", "PatientID": patient}
        made = classic(pixels, 3.0 * k, k + 1, RescaleSlope=scale, RescaleIntercept=0, **uids)
        (folder / f"{k}.dcm").write_bytes(as_bytes(made))


def test_labels_and_groups_go_with_their_files(tmp_path: Path) -> None:
    for name in ("x/a.png", "y/a.png", "y/b.png", "c.png"):
        picture(tmp_path / "in" / name, Canaries(), 1)
    (tmp_path / "t.csv").write_text(
        "file;label;group;note\nx/a.png;one;g;doe\na.png;two;g;doe\nb.png;three;h;doe\nd.png;one;;doe\n"
    )
    found, source = copied(tmp_path, "file")
    notes = write_labels(found, tmp_path / "copy", SETTINGS.key, COLUMNS, tmp_path / "t.csv")
    answers = read_answers(tmp_path / "copy/labels.csv", AnswerColumns())
    known = {name: answers.of(of_copy) for name, of_copy in found.names.items()}
    assert {name: one and one.answer for name, one in known.items()} == {
        "x/a.png": "one",
        "y/a.png": "two",
        "y/b.png": "three",
        "c.png": None,
    }
    assert known["x/a.png"].group == known["y/a.png"].group != known["y/b.png"].group  # type: ignore[union-attr]
    assert notes == ["1 samples are not in the table of labels"]
    text = (tmp_path / "copy/labels.csv").read_text()
    assert not any(word in text for word in ("doe", "a.png", ",g,", ",g\n", ",h\n", "note"))
    assert len(source.list_samples().samples) == 4


def test_a_folder_names_the_class_of_its_samples(tmp_path: Path) -> None:
    for name in ("ill/a.png", "well/b.png"):
        picture(tmp_path / "in" / name, Canaries(), 1)
    found, _ = copied(tmp_path, "file")
    write_labels(found, tmp_path / "copy", SETTINGS.key, COLUMNS)
    with (tmp_path / "copy/labels.csv").open() as file:
        assert {row["file"]: row["label"] for row in csv.DictReader(file)} == {
            found.names["ill/a.png"]: "ill",
            found.names["well/b.png"]: "well",
        }


def test_frames_keep_their_order_and_a_folder_that_is_not_whole_is_no_sample(tmp_path: Path) -> None:
    for number in (2, 10, 1):
        picture(tmp_path / f"in/doe/{number}.png", Canaries(), number)
        picture(tmp_path / f"in/cut/{number}.png", Canaries(), number)
    cut = tmp_path / "in/cut/2.png"
    cut.write_bytes(cut.read_bytes()[:-20])
    found, source = copied(tmp_path)
    assert list(found.names) == ["doe"]
    assert [(one.reason, one.detail[:16]) for one in found.refused] == [("truncated", "1 of its 3 files")]
    (sample,) = source.list_samples().samples
    assert source.read(sample).image_TCHW[:, 0, 0, 0].tolist() == [110, 120, 200]
    assert "doe" not in sample.id


def test_a_series_is_a_sample_of_its_patient_in_physical_values(tmp_path: Path) -> None:
    series(tmp_path / "in/doe", "1.2.3", scale=2.0)
    series(tmp_path / "in/roe", "1.2.4", patient="ROE")
    series(tmp_path / "in/two", "1.2.5", slices=slice(2))
    series(tmp_path / "in/two/more", "1.2.5", slices=slice(2, 4))  # the same series, in two folders
    found, source = copied(tmp_path)
    assert sorted(found.names) == ["doe", "roe"]
    assert {one.reason for one in found.refused} == {"several-series"}
    (tmp_path / "t.csv").write_text("file,label\ndoe,a\nroe,b\n")
    write_labels(found, tmp_path / "copy", SETTINGS.key, COLUMNS, tmp_path / "t.csv")
    groups = {name: read_answers(tmp_path / "copy/labels.csv", AnswerColumns()).of(one) for name, one in found.names.items()}
    assert groups["doe"].group == SETTINGS.key.pseudonym("DOE")  # type: ignore[union-attr]
    frames = {sample.id: source.read(sample).image_TCHW for sample in source.list_samples().samples}
    one, other = (frames[found.names[name]] for name in ("doe", "roe"))
    assert one.dtype == other.dtype == np.float32
    assert np.array_equal(one, 2 * other)


def test_messages_on_tables_and_folders_name_nothing(tmp_path: Path) -> None:
    picture(tmp_path / "in/doe.png", Canaries(), 1)
    found, _ = copied(tmp_path, "file")
    (tmp_path / "doe.csv").write_text("name,label\ndoe.png,a\n")
    for table, kind in ((tmp_path / "doe.csv", RequestError), (tmp_path / "roe.csv", MissingInput)):
        with pytest.raises(kind) as caught:
            write_labels(found, tmp_path / "copy", SETTINGS.key, COLUMNS, table)
        assert "oe" not in str(caught.value).replace("does", "")
    with pytest.raises(RequestError, match="no file below") as caught:
        find_originals(SampleFiles(tmp_path / "in", GREY, pattern="doe*.avi"))
    assert "doe" not in str(caught.value)


def test_originals_with_folders_in_folders_are_refused(tmp_path: Path) -> None:
    series(tmp_path / "in/a", "1.2.3")
    series(tmp_path / "in/a/b", "1.2.4")
    source = SampleFiles(tmp_path / "in", GREY, unit="folder")
    outer, _ = source.list_samples().samples
    with pytest.raises(SceneRefused, match="folders within it"):
        source.read(outer)
