"""`driftline track --run`: SEG, SR, key images and an index of masks of a run, at its times; what it says without DICOM."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from flows.artifacts import linked_files
from flows.cli import app
from flows.folder import RunFolder
from flows.stage import carry_out
from flows.task import open_invocation
from pipelines.cube.store import grid_of, open_cube
from pipelines.products.nifti import affine_ras
from pipelines.products.track_index import tracks_section

sys.path.insert(0, str(Path(__file__).parents[1] / "sources"))
from made_dicom import volumes, write_series

highdicom = pytest.importorskip("highdicom")


def ingested(tmp_path: Path, kind: str, path: Path, name: str = "scan") -> Path:
    """The folder of a run whose cube is there."""
    config: dict[str, Any] = {
        "name": name, "runs": str(tmp_path / "runs"),
        "privacy": {"key_file": str(tmp_path / "key"), "burned_in": "checked"},
        "source": {"kind": kind, "path": str(path)},
        "samples": {"variables": [{"name": "intensity", "bands": ["intensity"]}]},
        "split": {"validation_from": "2001-01-01", "test_from": "2001-01-02"},
    }  # fmt: skip
    carry_out(open_invocation(config, []), "ingest")
    return tmp_path / "runs" / name


def tracked(masks: Path, run: Path, *options: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["track", str(masks), "--run", str(run), "--json", *options])
    assert result.exit_code == 0, result.output
    record: dict[str, Any] = json.loads(result.stdout)
    return record


def uids_of(copy: Path) -> set[str]:
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in copy.rglob("*.dcm")]
    assert all(header.PatientIdentityRemoved == "YES" for header in headers)
    return {str(header.SOPInstanceUID) for header in headers}


def check_seg(run: Path, is_volume: bool) -> None:
    """Asserts that the SEG files refer to the copy, lie on the cube's grid, and hold the pixels of the table."""
    index = json.loads((run / "track" / "index.json").read_text())
    paths = [run / "track" / one["file"] for one in index["files"] if one["role"] == "DICOM SEG"]
    cube, found = open_cube(str(run / "cube")), [pydicom.dcmread(path) for path in paths]
    assert len(found) == (cube.sizes["time"] if is_volume else 1)
    frames = [item for seg in found for item in seg.PerFrameFunctionalGroupsSequence]
    references = {item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID for item in frames}
    assert references == uids_of(run / "deidentified")
    if is_volume:
        grid = grid_of(cube)
        lies = sorted({tuple(item.PlanePositionSequence[0].ImagePositionPatient) for item in frames})
        expected = sorted(map(tuple, grid.to_world([[0.5, 0.5, k + 0.5] for k in range(grid.shape[0])])))
        np.testing.assert_allclose(np.array(lies, float), expected, rtol=0, atol=1e-6)
    objects = pd.read_csv(run / "track" / "objects.csv")
    counts = [seg.pixel_array.sum() for seg in found] if is_volume else found[0].pixel_array.sum(axis=(1, 2))
    np.testing.assert_array_equal(objects.groupby("date").pixels.sum(), counts)


def check_sr(run: Path, is_volume: bool) -> None:
    """Asserts that the reports hold the sizes of the table, of segments of the copy that have as many pixels."""
    index = json.loads((run / "track" / "index.json").read_text())
    paths = {role: [run / "track" / one["file"] for one in index["files"] if one["role"].startswith(role)] for role in SR_ROLES}
    segmentations = {str((seg := pydicom.dcmread(path)).SOPInstanceUID): seg for path in paths[SR_ROLES[0]]}
    objects, sizes = pd.read_csv(run / "track" / "objects.csv"), list[float]()
    for path in paths[SR_ROLES[1]]:
        content = highdicom.sr.srread(path).content
        for group in content.get_volumetric_roi_measurement_groups() or content.get_planar_roi_measurement_groups():
            sizes.append(group.get_measurements()[0].value)
            named = [item for item in group[0].ContentSequence if item.ValueType == "IMAGE"]
            (seg,) = {
                uid for item in named if (uid := str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)) in segmentations
            }
            tracking = {one.TrackingUID: one.SegmentNumber for one in segmentations[seg].SegmentSequence}
            assert group.tracking_uid in tracking
            assert {str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for item in named} - {seg} <= uids_of(
                run / "deidentified"
            )
    table = objects.sort_values(["date", "track_id"])["volume_mm3" if is_volume else "area_px2"]
    np.testing.assert_allclose(sizes, table, rtol=1e-9)
    pixels = sum(int(seg.pixel_array.sum()) for seg in segmentations.values())
    assert pixels == objects.pixels.sum()


SR_ROLES = ("DICOM SEG of single objects", "DICOM SR")


def test_a_cine_gives_seg_times_key_images_and_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ingested(tmp_path, "dicom", Path(str(get_testdata_file("examples_ybr_color.dcm"))))
    (run / "masks").mkdir()
    for t in range(30):
        mask = np.zeros((240, 320), np.uint8)
        mask[80 : 100 + t, 120:160] = 255
        Image.fromarray(mask).save(run / "masks" / f"frame_{t}.png")
    record = tracked(run / "masks", run, "--class", "255=left ventricle", "--made-by", "manual")
    assert record["files"][-1].endswith("track.json")
    check_seg(run, is_volume=False)
    check_sr(run, is_volume=False)
    (segment,) = pydicom.dcmread(run / "track" / "seg" / "seg.dcm").SegmentSequence
    assert (segment.SegmentLabel, segment.SegmentAlgorithmType) == ("left ventricle", "MANUAL")
    objects = pd.read_csv(run / "track" / "objects.csv", parse_dates=["date"])
    np.testing.assert_array_equal(objects.area_px2, 40 * (20 + np.arange(30)))
    assert np.ptp(objects.date.diff().dropna().dt.total_seconds() - 1 / 30) < 1e-4
    with Image.open(run / "track" / "key_images.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert ((pixels[..., 2] - pixels[..., 0]) > 100).any()  # the outline is blue, the clip is grey
    section = tracks_section(run)
    assert {"track/seg/seg.dcm", "track/seg-objects/seg.dcm", "track/sr/sr.dcm"} <= set(section.links)
    assert {one.path.name for one in section.pictures} == {"key_images.png", "motion.png", "tracks.png"}
    assert {"track/motion.csv", "track/cycle.csv"} <= set(section.links)
    assert "motion of track 1: (largest - smallest) / largest 59.2 %" in section.text[0]
    linked = linked_files(RunFolder(run, ""))
    assert {"tracks", "dicom-seg", "dicom-sr"} <= set(linked)
    assert not [path for path in linked.values() if "deidentified" in str(path)]
    monkeypatch.setattr("flows.sr.MOST_MEASURED", 29)
    record = tracked(run / "masks", run)
    assert "note: no DICOM SR: 30 objects at all times together, and reports hold at most 29" in "\n".join(record["lines"])
    assert sorted(path.parent.name for path in (run / "track").rglob("*.dcm")) == ["seg"]  # none of the earlier call is left


@pytest.mark.parametrize("vendor", ["made", "ge"])
def test_volumes_turned_by_a_conversion_lie_on_their_series(
    tmp_path: Path, shared_data: Callable[[str], Path], vendor: str
) -> None:
    uids = {"StudyInstanceUID": "1.2.3.4"}
    series = write_series(tmp_path / "in", volumes(3), **uids) if vendor == "made" else None
    run = ingested(tmp_path, "dicom", series or shared_data(f"medical/dicom-series/{vendor}/dicom"))
    cube = open_cube(str(run / "cube"))
    values = cube["image"].values[:, 0]
    bright = values > np.percentile(values, 80, axis=(1, 2, 3), keepdims=True)
    image = nibabel.Nifti1Image(bright.astype(np.uint8).T, affine_ras(grid_of(cube)))
    nibabel.save(image.as_reoriented(np.array([[0, -1], [1, 1], [2, -1]])), tmp_path / "mask.nii.gz")
    record = tracked(tmp_path / "mask.nii.gz", run, "--min-size", "400" if vendor != "made" else "0")
    assert "they are turned" in " ".join(record["lines"])
    check_seg(run, is_volume=True)
    check_sr(run, is_volume=True)
    heading = (run / "track" / "objects.csv").read_text().splitlines()[0]
    assert heading.startswith("date,track_id,event,parents,volume_mm3")
    tracks = nibabel.load(run / "track" / "tracks.nii.gz")
    np.testing.assert_allclose(tracks.affine, affine_ras(grid_of(cube)), atol=1e-5)
    assert tracks.header["pixdim"][4] == pytest.approx(np.diff(cube.time.values).mean() / np.timedelta64(1, "s"), rel=1e-4)
    linked = {what: path.name for what, path in linked_files(RunFolder(run, "")).items()}
    files = {"tracks": "index.json", "track-viewer": "viewer.html", "tracks-nii-gz": "tracks.nii.gz"}
    assert linked == files | {"dicom-seg": "seg", "dicom-sr": "sr"}
    shutil.rmtree(run / "deidentified")
    record = tracked(tmp_path / "mask.nii.gz", run)
    assert [line for line in record["lines"] if "no DICOM SEG" in line and "not there any more" in line]
    assert not list((run / "track").rglob("*.dcm"))
    assert "DICOM SEG" not in (run / "track" / "index.json").read_text()


@pytest.fixture
def undated(tmp_path: Path) -> Path:
    """A run over a NIfTI series of 1.5 s a frame."""
    image = nibabel.Nifti1Image(np.arange(5 * 6 * 3 * 4, dtype=np.int16).reshape(5, 6, 3, 4), np.diag([2, 2, 4, 1]))
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 1.5
    nibabel.save(image, tmp_path / "bold.nii.gz")
    np.save(tmp_path / "masks.npy", np.tile(np.pad(np.ones((1, 2, 2), np.uint8), ((1, 1), (2, 2), (1, 2))), (4, 1, 1, 1)))
    return ingested(tmp_path, "nifti", tmp_path / "bold.nii.gz")


def test_times_without_a_date_are_seconds_and_what_is_no_dicom_is_said(undated: Path, tmp_path: Path) -> None:
    record = tracked(tmp_path / "masks.npy", undated)
    assert [line for line in record["lines"] if "no DICOM SEG: the images of the run are no DICOM series" in line]
    objects = pd.read_csv(undated / "track" / "objects.csv")
    assert objects.seconds.tolist() == [0, 1.5, 3, 4.5]
    assert objects.volume_mm3.tolist() == [2 * 2 * 2 * 2 * 4] * 4
    header = nibabel.load(undated / "track" / "tracks.nii.gz").header
    assert (header["pixdim"][4], header.get_xyzt_units()) == (1.5, ("mm", "sec"))
    index = json.loads((undated / "track" / "index.json").read_text())
    assert (index["times"][1], index["time_origin"]) == ("1.5 s", "unknown: seconds since the first frame")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pattern", "{frame}.png"], "leave --pattern out"),
        (["--spacing-mm", "1,1"], "leave --spacing-mm out"),
        (["--class", "2=lesion"], "hold [1], which no --class names"),
        (["--made-by", "NOBODY"], "expected one of AUTOMATIC"),
    ],
)
def test_options_that_contradict_the_run_are_refused(undated: Path, tmp_path: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["track", str(tmp_path / "masks.npy"), "--run", str(undated), *options])
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (undated / "track").exists()


def test_masks_of_other_frames_and_folders_that_are_no_run_are_refused(undated: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "few.npy", np.ones((3, 3, 6, 5), np.uint8))
    np.save(tmp_path / "unseen.npy", np.full((4, 3, 6, 5), 255, np.uint8) - 254 * np.tri(6, 5, dtype=np.uint8))
    for masks, run, message in (
        ("few.npy", undated, "there are 3 masks, the cube of"),
        ("unseen.npy", undated, "--code 1 takes the objects alone"),
        ("masks.npy", tmp_path, "has no config.yaml"),
    ):
        result = CliRunner().invoke(app, ["track", str(tmp_path / masks), "--run", str(run)])
        assert result.exit_code == 2
        assert message in result.stderr
    result = CliRunner().invoke(app, ["track", str(tmp_path / "masks.npy"), "--class", "1=lesion"])
    assert "--run RUN writes" in result.stderr
