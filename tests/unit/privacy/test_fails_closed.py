"""What goes wrong while a copy is made: nothing that is not clean is left, nothing half-made is read, and no value is shown."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nibabel")
pytest.importorskip("pydicom")

import nibabel
from typer.testing import CliRunner

from flows.cli import app
from pipelines.errors import RequestError
from pipelines.privacy import nifti as nifti_module
from pipelines.privacy.folder import MANIFEST, UNFINISHED, audit_folder, deidentify_folder, read_manifest
from pipelines.privacy.keys import Key
from pipelines.privacy.settings import Mask, PrivacySettings
from pipelines.scene import Band
from pipelines.sources import deidentifying
from pipelines.sources.deidentifying import kinds_of
from pipelines.sources.nifti import NiftiSource
from pipelines.sources.nifti_names import files_of
from tests.unit.privacy.planted import as_bytes, image
from tests.unit.sources.clips import make_clip

SETTINGS = PrivacySettings(Key(bytes(range(32))))
SECRET = "Doe"


def volume(path: Path, shape: tuple[int, ...] = (6, 5, 4), dtype: str = "int16", sidecar: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.arange(np.prod(shape)).reshape(shape).astype(dtype), np.eye(4))
    image.header["descrip"] = SECRET.encode()
    nibabel.save(image, path)
    if sidecar:
        path.with_name(path.name.split(".")[0] + ".json").write_text(sidecar)
    return path


def in_bytes(change: str) -> bytes:
    """A DICOM file that is damaged where a reader would stumble, with a name in it."""
    made = image(patient=SECRET)
    if change == "unknown VR":
        made.add_new(0x00081030, "LO", SECRET)  # of the study
        return as_bytes(made).replace(b"\x08\x00\x30\x10LO", b"\x08\x00\x30\x10ZZ")
    block = made.private_block(0x0019, "ACME", create=True)
    inner = image(patient=SECRET)
    del inner.file_meta
    block.add_new(0x10, "SQ", [inner])
    data = as_bytes(made)
    at = data.index(b"\x19\x00\x10\x10SQ") + 8
    return data[:at] + (2**31).to_bytes(4, "little") + data[at + 4 :]


@pytest.mark.parametrize("change", ["unknown VR", "corrupt private sequence"])
def test_damaged_elements_leave_no_value(change: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.dcm").write_bytes(in_bytes(change))
    manifest = deidentify_folder(tmp_path / "in", tmp_path / "copy", SETTINGS)
    assert manifest.copied + len(manifest.refused) == 1
    left = b"".join(path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file())
    assert SECRET.encode() not in left
    assert SECRET not in str(manifest.refused)
    assert change != "corrupt private sequence" or [one.reason for one in manifest.refused] == ["truncated"]


@pytest.mark.parametrize(
    ("name", "made", "reason"),
    [
        ("picture", {"shape": (6, 5, 1, 3)}, "burned-in"),
        ("colours", {"dtype": "colours"}, "burned-in"),
        ("cut", {"cut": 9}, "unreadable"),
        ("sidecar", {"sidecar": "{not JSON"}, "unreadable"),
        ("sidecar", {"sidecar": '["a list"]'}, "unreadable"),
        ("mask", {"masks": (Mask((0, 6), (0, 2)),)}, "mask-outside"),
    ],
)
def test_nifti_that_is_not_passed_on(name: str, made: dict[str, object], reason: str, tmp_path: Path) -> None:
    path = volume(tmp_path / f"in/{SECRET}.nii", **{key: value for key, value in made.items() if key in ("shape", "sidecar")})  # type: ignore[arg-type]
    if name == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    if name == "colours":
        values = np.zeros((6, 5, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    settings = PrivacySettings(SETTINGS.key, masks=made.get("masks", ()))  # type: ignore[arg-type]
    manifest = deidentify_folder(tmp_path / "in", tmp_path / "copy", settings, kinds=kinds_of())
    assert [one.reason for one in manifest.refused] == [reason]
    assert SECRET not in str(manifest.refused[0])
    assert [one for one in (tmp_path / "copy").rglob("*.*") if one.is_file() and one.name not in (MANIFEST, ".lock")] == []


def test_masks_of_nifti_and_video_set_pixels_to_black_and_leave_the_others(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    volume(tmp_path / "in/a.nii.gz", (6, 5, 1, 2))
    make_clip(tmp_path / "in/b.mp4", 5)
    settings = PrivacySettings(SETTINGS.key, masks=(Mask((1, 3), (2, 6)),))
    manifest = deidentify_folder(tmp_path / "in", tmp_path / "copy", settings, kinds=kinds_of())
    assert (manifest.copied, manifest.refused) == (2, [])
    (copied,) = (tmp_path / "copy").rglob("*.nii.gz")
    values, expected = (np.asarray(nibabel.load(path).dataobj).copy() for path in (copied, tmp_path / "in/a.nii.gz"))
    expected[2:6, 1:3] = 0
    assert np.array_equal(values, expected)
    (clip,) = (tmp_path / "copy").rglob("*.mp4")
    with av.open(str(tmp_path / "in/b.mp4")) as one, av.open(str(clip)) as other:
        for before, after in zip(one.decode(video=0), other.decode(video=0), strict=True):
            assert before.time == after.time
            luma, black = (frame.to_ndarray()[:48] for frame in (before, after))
            luma[1:3, 2:6] = 16
            assert np.array_equal(luma, black)


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mov", ".mkv", ".webm", ".gif"])
def test_every_container_is_copied_with_its_pictures_and_times(suffix: str, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    (tmp_path / "in").mkdir()
    source = make_clip(
        tmp_path / f"in/a{suffix}",
        6,
        pts=() if suffix == ".avi" else [0, 1, 3, 4, 8, 9],
        metadata={"title": SECRET, "comment": SECRET},
    )
    settings = PrivacySettings(SETTINGS.key, burned_in="checked")
    assert deidentify_folder(tmp_path / "in", tmp_path / "copy", settings, kinds=kinds_of()).copied == 1
    (copy,) = (tmp_path / "copy").rglob(f"*{suffix}")
    with av.open(str(source)) as one, av.open(str(copy)) as other:
        assert other.metadata.keys() <= {"major_brand", "minor_version", "compatible_brands", "encoder", "DURATION"}
        for before, after in zip(one.decode(video=0), other.decode(video=0), strict=True):
            assert (before.time, before.rotation) == (after.time, after.rotation)
            assert np.array_equal(before.to_ndarray(), after.to_ndarray())
    assert SECRET.encode() not in copy.read_bytes()


def test_a_clip_is_copied_as_what_it_is_whatever_its_name_says(tmp_path: Path) -> None:
    """An AVI file could not hold the times of an MP4 file, whose frames are not in the order in which they are shown."""
    av = pytest.importorskip("av")
    (tmp_path / "in").mkdir()
    made = make_clip(tmp_path / "in/a.mp4", 12, options={"bf": "2", "b_strategy": "0"})
    made.rename(made.with_suffix(".avi"))
    settings = PrivacySettings(SETTINGS.key, burned_in="checked")
    assert deidentify_folder(tmp_path / "in", tmp_path / "copy", settings, kinds=kinds_of()).refused == []
    (copy,) = (tmp_path / "copy").rglob("*.mp4")
    with av.open(str(tmp_path / "in/a.avi")) as one, av.open(str(copy)) as other:
        times = [[frame.time for frame in container.decode(video=0)] for container in (one, other)]
    assert times[0] == times[1]


def test_a_video_of_which_frames_are_missing_has_no_copy(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    source = make_clip(tmp_path / f"in/{SECRET}.mp4", 20)
    source.write_bytes(source.read_bytes()[:-300])
    settings = PrivacySettings(SETTINGS.key, burned_in="checked")
    manifest = deidentify_folder(tmp_path / "in", tmp_path / "copy", settings, kinds=kinds_of())
    assert [one.reason for one in manifest.refused] == ["truncated"]
    assert SECRET not in str(manifest.refused)
    assert list((tmp_path / "copy").rglob("*.mp4")) == []


def test_visits_keep_their_distances_and_a_series_is_of_one_patient(tmp_path: Path) -> None:
    folder = tmp_path / SECRET
    for date in ("20190301", "20190315", "20190402"):
        volume(folder / f"{SECRET}_{date}.nii.gz", sidecar='{"PatientID": "J1", "RepetitionTime": 2.0, "Doe": 1}')
    kinds = kinds_of(["nifti"], is_series=True)
    assert deidentify_folder(folder, tmp_path / "copy", SETTINGS, kinds=kinds, with_dicom=False).copied == 3
    days = [
        scene.observed_utc.astype("datetime64[D]") for scene in NiftiSource(tmp_path / "copy", Band("v")).list_scenes().scenes
    ]
    moved = SETTINGS.key.shift_days("J1", SETTINGS.shift_days)
    assert [str(day - moved) for day in days] == ["2019-03-01", "2019-03-15", "2019-04-02"]
    assert {path.parent.name for path in (tmp_path / "copy").rglob("*.json")} == {SETTINGS.key.pseudonym("J1")}
    assert {path.read_text() for path in (tmp_path / "copy").rglob("*.json")} == {'{\n "RepetitionTime": 2.0\n}\n'}
    assert deidentify_folder(folder, tmp_path / "copy", SETTINGS, kinds=kinds, with_dicom=False).unchanged == 3
    volume(folder / "late_20190501.nii.gz", sidecar='{"PatientID": "J2"}')
    refused = deidentify_folder(folder, tmp_path / "copy", SETTINGS, kinds=kinds, with_dicom=False).refused
    assert {one.reason for one in refused} == {"several-patients"}
    (folder / "late_20190501.nii.gz").unlink()
    (folder / "late_20190501.json").unlink()
    (folder / f"{SECRET}_20190315.nii.gz").unlink()
    assert deidentify_folder(folder, tmp_path / "copy", SETTINGS, kinds=kinds, with_dicom=False).gone == 0
    assert len(NiftiSource(tmp_path / "copy", Band("v")).list_scenes().scenes) == 2


def test_b_values_go_with_the_copy_and_nothing_else_that_stands_there(tmp_path: Path) -> None:
    volume(tmp_path / "in/dwi.nii.gz", (6, 5, 4, 3))
    (tmp_path / "in/dwi.bval").write_text("0 1000.0\n1e3\n")
    assert deidentify_folder(tmp_path / "in", tmp_path / "copy", SETTINGS, kinds=kinds_of()).copied == 1
    (copied,) = (tmp_path / "copy").rglob("*.bval")
    assert copied.read_text() == "0 1000 1000\n"
    with pytest.raises(RequestError, match="several contrasts"):
        NiftiSource(tmp_path / "copy", Band("v")).list_scenes()
    (tmp_path / "in/dwi.bval").write_text(f"0 {SECRET} 1000\n")
    (refused,) = deidentify_folder(tmp_path / "in", tmp_path / "copy", SETTINGS, kinds=kinds_of()).refused
    assert SECRET not in str(refused)
    assert list((tmp_path / "copy").rglob("dwi*")) == list((tmp_path / "copy").rglob("*.bval")) == []


def test_numbers_of_a_series_stay_and_those_of_patients_do_not(tmp_path: Path) -> None:
    for name in ("bold_0007", "bold_0008", "bold_0010"):
        volume(tmp_path / f"in/{name}.nii.gz")
    deidentify_folder(tmp_path / "in", tmp_path / "copy", SETTINGS, kinds=kinds_of())
    assert sorted(path.name[32:] for path in (tmp_path / "copy").rglob("*.gz")) == [
        "-0000.nii.gz",
        "-0001.nii.gz",
        "-0003.nii.gz",
    ]
    volume(tmp_path / "in/mrn_4711815.nii.gz")
    deidentify_folder(tmp_path / "in", tmp_path / "copy", SETTINGS, kinds=kinds_of())
    assert {path.name[32:] for path in (tmp_path / "copy").rglob("*.gz")} == {".nii.gz"}


def test_an_audit_lists_all_kinds_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    folder = tmp_path / "in"
    volume(folder / "a.nii.gz", sidecar='{"PatientName": "Doe", "Doe": 1}')
    make_clip(folder / "b.mp4", 4, metadata={"title": SECRET})
    (folder / "c.dcm").write_bytes(as_bytes(image()))
    (folder / "d.txt").write_text(SECRET)
    before = sorted(tmp_path.rglob("*"))
    manifest = audit_folder(folder, SETTINGS, kinds=kinds_of())
    assert sorted(tmp_path.rglob("*")) == before
    assert (manifest.copied, manifest.other, [one.reason for one in manifest.refused]) == (2, 1, ["burned-in"])
    listed = {path: action for path, _, action in manifest.elements}
    assert (listed["nifti/descrip"], listed["json/PatientName"], listed["json/unknown"]) == ("removed",) * 3
    assert listed["00100010"] == "pseudonym"
    assert sorted(manifest.names.values()) == ["a.nii.gz", "b.mp4", "c.dcm", "d.txt"][:3]


def test_a_key_that_cannot_be_made_or_read_stops_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume(tmp_path / "in/a.nii.gz")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for key in ("file/below/privacy.key", "file"):
        result = CliRunner().invoke(app, ["deidentify", "in", "copy", "--key", key])
        assert result.exit_code == 2, result.output
        assert not Path("copy").exists()
    assert CliRunner().invoke(app, ["reidentify", "P0", "--ids", "file", "--key", "none.key"]).exit_code == 2


def test_a_place_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume(tmp_path / "in/a.nii.gz")
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="cannot be written: Not a directory"):
        deidentify_folder(tmp_path / "in", tmp_path / "file/copy", SETTINGS, kinds=kinds_of())

    def read_only(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", SECRET)

    monkeypatch.setattr(deidentifying, "clean_nifti", read_only)
    with pytest.raises(RequestError, match="cannot be written: Permission denied") as caught:
        deidentify_folder(tmp_path / "in", tmp_path / "copy", SETTINGS, kinds=kinds_of())
    assert SECRET not in str(caught.value)
    assert (tmp_path / "copy" / UNFINISHED).exists()


def test_what_an_interrupted_copy_leaves_is_read_by_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at each block that is written: no copy, or a whole one; later steps read the manifest, or refuse."""
    for number in range(3):
        volume(tmp_path / f"in/a_{number}.nii.gz")
    whole = tmp_path / "whole"
    deidentify_folder(tmp_path / "in", whole, SETTINGS, kinds=kinds_of())
    blocks = nifti_module._blocks

    for kill_at in range(6):
        target, count = tmp_path / f"copy{kill_at}", iter(range(100))

        def killed(*arguments: object, count: object = count, kill_at: int = kill_at) -> object:
            for block in blocks(*arguments):  # type: ignore[arg-type]
                if next(count) == kill_at:  # type: ignore[call-overload]
                    raise KeyboardInterrupt
                yield block

        monkeypatch.setattr(nifti_module, "_blocks", killed)
        with pytest.raises(KeyboardInterrupt):
            deidentify_folder(tmp_path / "in", target, SETTINGS, kinds=kinds_of())
        monkeypatch.undo()
        finished = {one["target"]: one["bytes"] for one in read_manifest(target)}
        there = {path.relative_to(target).as_posix(): path.stat().st_size for path in target.rglob("*.nii.gz")}
        assert there == finished
        assert (target / UNFINISHED).exists()
        assert deidentify_folder(tmp_path / "in", target, SETTINGS, kinds=kinds_of()).copied == 3 - len(finished)
        assert (target / MANIFEST).read_bytes() == (whole / MANIFEST).read_bytes()
        assert not (target / UNFINISHED).exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from pipelines.privacy import nifti
from tests.unit.privacy.test_fails_closed import SETTINGS, deidentify_folder, kinds_of
blocks, count = nifti._blocks, iter(range(100))
def killed(*arguments):
    for block in blocks(*arguments):
        if next(count) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        yield block
nifti._blocks = killed
deidentify_folder(Path("in"), Path("copy"), SETTINGS, kinds=kinds_of())
"""


def test_a_killed_copy_is_no_file_that_a_later_step_reads(tmp_path: Path) -> None:
    for number in range(3):
        volume(tmp_path / f"in/a_{number}.nii.gz")
    path = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, timeout=100)
    assert done.returncode == -signal.SIGKILL
    copy = tmp_path / "copy"
    assert len(list(copy.rglob("*.partial"))) == len(list(copy.rglob("*.nii.gz"))) == len(files_of(copy)) == 1
    assert (copy / UNFINISHED).exists()
    assert deidentify_folder(tmp_path / "in", copy, SETTINGS, kinds=kinds_of()).copied == 2
    assert list(copy.rglob("*.partial")) == []


def test_a_run_does_not_read_a_copy_that_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for date in ("20190301", "20190315"):
        volume(tmp_path / f"in/{date}.nii.gz")
    variables = [{"name": "v", "formula": "band", "bands": ["intensity"]}]
    config = {"name": "n", "task": "forecast", "source": {"kind": "nifti", "path": "in"}, "samples": {"variables": variables}}
    Path("n.yaml").write_text(json.dumps(config | {"split": {"validation_from": "5 s", "test_from": "9 s"}}))
    assert CliRunner().invoke(app, ["ingest", "n.yaml"]).exit_code == 0
    copy = Path("runs/n/deidentified")
    (copy / UNFINISHED).touch()
    result = CliRunner().invoke(app, ["ingest", "runs/n/config.yaml"])
    assert (result.exit_code, "is not finished" in result.output) == (2, True)
    assert CliRunner().invoke(app, ["ingest", "n.yaml"]).exit_code == 0
    shutil.rmtree("in")
    assert CliRunner().invoke(app, ["ingest", "runs/n/config.yaml"]).exit_code == 0
