"""The copy of a folder: what is done again, what is not, duplicates, refusals, interruptions; and files that are no DICOM."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pydicom")

from pydicom.pixels import iter_pixels
from pydicom.uid import DeflatedExplicitVRLittleEndian
from typer.testing import CliRunner

from flows.cli import app
from pipelines.errors import MissingInput, RequestError, RunBusy, SceneRefused
from pipelines.files import exclusive_owner
from pipelines.privacy import folder as folders
from pipelines.privacy.folder import MANIFEST, audit_folder, deidentify_folder, read_manifest
from pipelines.privacy.jobs import Job
from pipelines.privacy.keys import Key, load_key
from pipelines.privacy.nifti import clean_nifti
from pipelines.privacy.settings import PrivacyRefusal, PrivacySettings
from pipelines.privacy.video import clean_video
from pipelines.sources import deidentified
from pipelines.sources.deidentified import deidentify_in_workers
from pipelines.sources.deidentifying import kinds_of
from tests.unit.privacy.planted import as_bytes, image

SETTINGS = PrivacySettings(Key(bytes(range(32))))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three images of a patient, in a folder with other files."""
    folder = tmp_path / "Doe^Jane"
    folder.mkdir()
    for number in range(3):
        (folder / f"Doe{number}.dcm").write_bytes(as_bytes(image(instance=f"1.2.3.{number}")))
    (folder / "notes.txt").write_text("Jane")
    return folder


def copies(target: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in target.rglob("*.dcm")}


def test_a_second_time_writes_nothing_and_a_change_is_seen(scans: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    first = deidentify_folder(scans, target, SETTINGS)
    before, written = copies(target), {path: path.stat().st_mtime_ns for path in target.rglob("*.dcm")}
    second = deidentify_folder(scans, target, SETTINGS)
    assert (first.copied, first.other, second.copied, second.unchanged, len(before)) == (3, 1, 0, 3, 3)
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*.dcm")} == written
    (scans / "Doe0.dcm").write_bytes(as_bytes(image(instance="1.2.3.40")))
    (scans / "Doe1.dcm").write_bytes(b"no DICOM")
    (scans / "Doe2.dcm").unlink()
    third = deidentify_folder(scans, target, SETTINGS)
    assert (third.copied, third.unchanged, third.gone) == (1, 0, 2)
    assert len(copies(target)) == 3
    assert deidentify_folder(scans, target, PrivacySettings(SETTINGS.key, shift_days=(-5, -5))).copied == 1


def test_a_file_that_is_refused_now_loses_its_copy(scans: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    deidentify_folder(scans, target, SETTINGS)
    burned = image(instance="1.2.3.1")
    burned.BurnedInAnnotation = "YES"
    (scans / "Doe1.dcm").write_bytes(as_bytes(burned))
    manifest = deidentify_folder(scans, target, SETTINGS)
    assert [one.reason for one in manifest.quarantined] == ["burned-in"]
    assert len(copies(target)) == 2
    assert [one.reason for one in deidentify_folder(scans, target, SETTINGS).refused] == ["burned-in"]


def test_two_files_of_one_uid(scans: Path, tmp_path: Path) -> None:
    (scans / "Doe4.dcm").write_bytes((scans / "Doe0.dcm").read_bytes())
    other = image(instance="1.2.3.0")
    other.SliceThickness = 4
    counts = [audit_folder(scans, SETTINGS), deidentify_folder(scans, tmp_path / "copy", SETTINGS)]
    (scans / "Doe.dcm").write_bytes(as_bytes(other))  # before all others, whose copies are unchanged
    counts += [audit_folder(scans, SETTINGS), deidentify_folder(scans, tmp_path / "copy", SETTINGS)]
    assert [(made.copied + made.unchanged, made.duplicates, len(made.refused)) for made in counts] == [
        *[(3, 1, 0)] * 2, *[(2, 0, 3)] * 2,
    ]  # fmt: skip
    assert (counts[3].unchanged, len(copies(tmp_path / "copy"))) == (2, 2)
    assert len(deidentify_folder(scans, tmp_path / "copy", SETTINGS).refused) == 3
    (scans / "Doe.dcm").unlink()
    mended = deidentify_folder(scans, tmp_path / "copy", SETTINGS)
    assert (mended.copied, mended.unchanged, mended.duplicates, mended.refused) == (1, 2, 1, [])
    assert len(copies(tmp_path / "copy")) == 3


def test_an_interrupted_copy_goes_on(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, target = tmp_path / "whole", tmp_path / "copy"
    deidentify_folder(scans, whole, SETTINGS)
    publish, calls = folders.publish, []

    def killed_at_the_third(draft: Path, path: Path, flush: bool) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        publish(draft, path, flush=flush)

    monkeypatch.setattr(folders, "publish", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        deidentify_folder(scans, target, SETTINGS)
    with (target / MANIFEST).open("a") as journal:
        journal.write('{"file": "cut o')
    assert not list(target.rglob(".*.partial"))
    (target / ".killed.partial").write_text("half of an imag")
    monkeypatch.undo()
    manifest = deidentify_folder(scans, target, SETTINGS)
    assert (manifest.copied, manifest.unchanged) == (1, 2)
    assert copies(target) == copies(whole)
    assert (target / MANIFEST).read_bytes() == (whole / MANIFEST).read_bytes()
    assert not list(target.rglob(".*.partial"))


def test_workers_make_the_same_copy_and_one_that_dies_costs_its_file(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3, 20):  # more than go into one call
        (scans / f"Doe{number}.dcm").write_bytes(as_bytes(image(instance=f"1.2.3.{number}")))
    (scans / "Doe30.dcm").write_bytes((scans / "Doe4.dcm").read_bytes())
    (scans / "meta").write_bytes((scans / "Doe4.dcm").read_bytes()[132:])
    (scans / "cut.nii").write_bytes(b"n+1")
    kinds = kinds_of(["nifti"])
    alone = deidentify_folder(scans, tmp_path / "alone", SETTINGS, kinds=kinds)
    manifest = deidentify_folder(scans, tmp_path / "workers", SETTINGS, kinds=kinds, run=deidentify_in_workers)
    assert (manifest.copied, manifest.duplicates, manifest.other) == (20, 1, 1)
    assert {manifest.names[one.scene_id]: one.reason for one in manifest.refused} == {
        "meta": "no-preamble",
        "cut.nii": "unreadable",
    }
    assert manifest.elements == alone.elements
    assert copies(tmp_path / "workers") == copies(tmp_path / "alone")
    assert (tmp_path / "workers" / MANIFEST).read_bytes() == (tmp_path / "alone" / MANIFEST).read_bytes()

    def isolated(function: Callable[..., Any], jobs: list[Job], *args: Any, **options: Any) -> Any:
        if any(job.path.name == "Doe7.dcm" for job in jobs):
            for job in jobs:
                if job.draft:
                    job.draft.write_bytes(b"half")
            raise SceneRefused("", "unreadable", "the decoder was killed by signal 11 while reading Doe7.dcm")
        return function(jobs, *args)

    monkeypatch.setattr(deidentified, "isolated", isolated)
    audit = audit_folder(scans, SETTINGS, run=deidentify_in_workers)
    dying = deidentify_folder(scans, tmp_path / "dying", SETTINGS, run=deidentify_in_workers)
    for found in (audit, dying):
        assert (found.copied, found.duplicates) == (19, 1)
        assert [found.names[one.scene_id] for one in found.refused if one.reason == "unexpected"] == ["Doe7.dcm"]
        assert "Doe7" not in str(found.refused)
    assert not list((tmp_path / "dying").rglob(".*.partial"))


def test_the_manifest_names_elements_and_no_values(scans: Path, tmp_path: Path) -> None:
    deidentify_folder(scans, tmp_path / "copy", SETTINGS)
    (record, *_) = read_manifest(tmp_path / "copy")
    assert ["00100010", "PN", "pseudonym", 1] in record["elements"]
    assert ["00080020", "DA", "shifted", 1] in record["elements"]
    text = (tmp_path / "copy" / MANIFEST).read_text()
    assert [word for word in ("Doe", "Jane", "ID-1", "20200301", "1.2.3") if word in text] == []


def test_a_data_set_without_a_preamble_is_refused_by_name(scans: Path, tmp_path: Path) -> None:
    content = (scans / "Doe0.dcm").read_bytes()
    meta = 132 + 12 + struct.unpack_from("<I", content, 140)[0]
    for name, part in (("meta", content[132:]), ("magic", content[128:]), ("data", content[meta:])):
        (scans / name).write_bytes(part)
    manifest = deidentify_folder(scans, tmp_path / "copy", SETTINGS)
    assert [one.reason for one in manifest.refused] == ["no-preamble"] * 3
    assert (manifest.copied, manifest.other) == (3, 1)


def test_a_deflated_file_is_copied_unpacked(tmp_path: Path) -> None:
    made = image()
    pixels = made.pixel_array
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "one.dcm").write_bytes(as_bytes(made))
    deidentify_folder(tmp_path / "scan", tmp_path / "copy", SETTINGS)
    (path,) = (tmp_path / "copy").rglob("*.dcm")
    assert (next(iter_pixels(path)) == pixels).all()


def test_one_file_and_a_dicomdir(scans: Path, tmp_path: Path) -> None:
    assert deidentify_folder(scans / "Doe1.dcm", tmp_path / "one", SETTINGS).copied == 1
    (scans / "DICOMDIR").write_bytes(
        as_bytes(image()).replace(b"1.2.840.10008.5.1.4.1.1.4\0", b"1.2.840.10008.1.3.10".ljust(26, b"\0"))
    )
    manifest = deidentify_folder(scans / "DICOMDIR", tmp_path / "all", SETTINGS)
    assert (manifest.copied, [one.reason for one in manifest.refused]) == (3, ["directory"])


def test_a_file_that_only_says_that_it_is_anonymous(scans: Path, tmp_path: Path) -> None:
    made = image(instance="1.2.3.50")
    made.PatientIdentityRemoved, made.InstitutionName = "YES", "St. Elsewhere"
    for place in range(179):
        made.private_block(0x0019, "ACME", create=True).add_new(place + 1, "LO", "Jane")
    (scans / "anonymous.dcm").write_bytes(as_bytes(made))
    manifest = deidentify_folder(scans, tmp_path / "copy", SETTINGS)
    assert (manifest.copied, manifest.claimed) == (4, 1)
    assert not any(word in data for data in copies(tmp_path / "copy").values() for word in (b"Elsewhere", b"Jane", b"ACME"))


def test_folders_that_are_refused(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="within each other"):
        deidentify_folder(scans, scans / "copy", SETTINGS)
    with pytest.raises(MissingInput):
        deidentify_folder(tmp_path / "none", tmp_path / "copy", SETTINGS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(RequestError, match="not of a de-identified copy"):
        deidentify_folder(scans, tmp_path / "mine", SETTINGS)
    target = tmp_path / "busy"
    with exclusive_owner(target / ".lock", target / ".owner"), pytest.raises(RunBusy):
        deidentify_folder(scans, target, SETTINGS)


@pytest.mark.parametrize(("library", "extra"), [("pydicom", "medical"), ("av", "video")])
def test_a_missing_library_is_named_with_its_extra(
    library: str, extra: str, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    copy = (
        partial(clean_video, scans, tmp_path / "b.mp4")
        if library == "av"
        else partial(deidentify_folder, scans, tmp_path / "copy", SETTINGS)
    )
    with pytest.raises(RequestError, match=rf"driftline\[{extra}\]"):
        copy()


def test_the_commands(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def call(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, list(arguments))
        return result.exit_code, result.stdout + result.stderr

    code, text = call("deidentify", str(scans), "--audit")
    assert (code, "3 images would be copied" in text, list(tmp_path.iterdir())) == (0, True, [scans])
    code, text = call("deidentify", str(scans), "copy", "--json")
    answer = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert (code, answer["copied"], answer["actions"]["pseudonym"]) == (0, 3, 6)
    name = load_key(tmp_path / "data/driftline/privacy.key").pseudonym("ID-1")
    assert [path.name for path in Path("copy").iterdir() if path.is_dir()] == [name]
    Path("ids.txt").write_text("ID-0\nID-1\n")
    assert call("reidentify", name, "--ids", "ids.txt") == (0, f"{name}  ID-1\n")
    assert call("reidentify", "P0", "--ids", "ids.txt")[0] == 3
    assert call("deidentify", str(scans))[0] == 2
    assert call("deidentify", str(scans), "copy", "--key", "copy/a.key")[0] == 2
    assert call("deidentify", str(scans), "copy", "--mask", "5:1,0:3")[0] == 2
    (scans / "report.dcm").write_bytes(as_bytes(image()).replace(b"1.2.840.10008.5.1.4.1.1.4\0", b"1.2.840.10008.5.1.4.1.1.9\0"))
    code, text = call("deidentify", str(scans), "copy")
    assert (code, "report.dcm" in text) == (3, False)
    assert "report.dcm" in call("deidentify", str(scans), "copy", "--names")[1]


@pytest.mark.parametrize("kind", ["Nifti1Image", "Nifti2Image"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti_keeps_voxels_and_position_and_no_text(tmp_path: Path, kind: str, order: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    affine = np.array([[0, -2, 0, 5], [1.5, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1.0]])
    header = getattr(nibabel, kind.replace("Image", "Header"))(endianness=order)
    header.set_data_dtype(np.int16)
    made = getattr(nibabel, kind)(voxels, affine, header)
    made.header["descrip"], made.header["aux_file"], made.header["intent_name"] = b"CANARY1", b"CANARY2", b"CANARY3"
    if kind == "Nifti1Image":
        made.header["db_name"] = b"CANARY4"
    made.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"CANARY5"))
    made.header.set_xyzt_units("mm", "sec")
    nibabel.save(made, tmp_path / "CANARY6.nii.gz")
    for target in (tmp_path / "a.nii.gz", tmp_path / "a.nii"):
        clean_nifti(tmp_path / "CANARY6.nii.gz", target)
        read = nibabel.load(target)
        assert np.array_equal(np.asarray(read.dataobj), voxels)
        assert np.array_equal(read.affine, made.affine)
        assert read.header.get_xyzt_units() == ("mm", "sec")
        assert b"CANARY" not in target.read_bytes()
        assert b"CANARY" not in (tmp_path / "a.nii").read_bytes() if (tmp_path / "a.nii").exists() else True
    (tmp_path / "cut.nii").write_bytes((tmp_path / "a.nii").read_bytes()[:-1])
    with pytest.raises(PrivacyRefusal, match="cut off"):
        clean_nifti(tmp_path / "cut.nii", tmp_path / "b.nii")
    assert not (tmp_path / "b.nii").exists()


def test_video_keeps_pictures_and_no_text(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    source, target = tmp_path / "a.mp4", tmp_path / "b.mp4"
    with av.open(str(source), "w") as made:
        made.metadata.update({"title": "CANARY1", "comment": "CANARY2", "location": "CANARY3"})
        stream = made.add_stream("mpeg4", 25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.metadata["handler_name"] = "CANARY4"
        for level in range(5):
            made.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * level, np.uint8))))
        made.mux(stream.encode())
    assert b"CANARY" in source.read_bytes()
    clean_video(source, target)
    assert b"CANARY" not in target.read_bytes()
    pictures = [[frame.to_ndarray() for frame in av.open(str(path)).decode(video=0)] for path in (source, target)]
    assert len(pictures[0]) == 5
    assert np.array_equal(*pictures)
    with pytest.raises(PrivacyRefusal):
        clean_video(tmp_path / "none.mp4", tmp_path / "c.mp4")
