"""Masks as DICOM SEG: read back with highdicom, pydicom and dcmtk; the same bytes for the same masks; nothing of the patient."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from made_dicom import classic, dataset, enhanced, mosaic, save, volumes, write_series
from pydicom.data import get_testdata_file
from pydicom.uid import UltrasoundMultiFrameImageStorage

from pipelines.errors import RequestError
from pipelines.grid import Grid
from pipelines.products.dicom_seg import Code, Maker, SegmentClass, write_segmentations
from pipelines.scene import Band
from pipelines.sources.dicom import DicomSource
from pipelines.sources.dicom_references import ReferencedSeries, referenced_series

highdicom = pytest.importorskip("highdicom")
MAKER = Maker("driftline", "1.2.3")
LESION = Code("52988006", "SCT", "Lesion")
CLASSES = (
    SegmentClass(2, "liver"),
    SegmentClass(5, "lésion", Code("49755003", "SCT", "Morphologically Abnormal Structure"), LESION),
)
ECHO = Path(str(get_testdata_file("examples_ybr_color.dcm")))  # a real clip of 30 frames
UIDS = {"StudyInstanceUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.5"}


def series_of(path: Path) -> ReferencedSeries:
    return referenced_series(DicomSource(path, Band("image")))


def masks_of(series: ReferencedSeries) -> np.ndarray:
    """Random masks of the values 0, 2 and 5, without any at the first time."""
    masks = np.random.default_rng(0).choice(np.array([0, 2, 5], np.uint8), (len(series.frames), *series.grid.shape))
    masks[0] = 0
    return masks


def check_volume(path: Path, mask_ZYX: np.ndarray, grid: Grid) -> None:
    """Asserts that highdicom reads this mask on this grid; its slices come in the other order."""
    found = highdicom.seg.segread(path).get_volume(combine_segments=True).flip_spatial(0)
    np.testing.assert_array_equal(found.array, np.searchsorted([0, 2, 5], mask_ZYX))
    matrix = grid.matrix_of_centres
    np.testing.assert_allclose(found.affine[:3], matrix[:, [2, 1, 0, 3]], rtol=0, atol=1e-6)


def dumped(path: Path) -> dict[str, Any]:
    """What dcmtk reads, by tag."""
    if shutil.which("dcm2json") is None:
        pytest.skip("dcmtk's dcm2json is not installed (Debian: dcmtk)")
    done = subprocess.run(["dcm2json", "-fc", str(path)], capture_output=True, check=True, timeout=60)
    content: dict[str, Any] = json.loads(done.stdout)
    return content


@pytest.mark.parametrize("vendor", ["ge", "philips", "philips_enhanced"])
def test_real_series(shared_data: Callable[[str], Path], vendor: str, tmp_path: Path) -> None:
    series = series_of(shared_data(f"medical/dicom-series/{vendor}/dicom"))
    assert not series.frame_uid  # it was removed from these files: none is made up
    masks = masks_of(series)
    (first, *_) = write_segmentations(masks, CLASSES, series, tmp_path / "as-it-is", MAKER)
    plain = pydicom.dcmread(first)
    assert "FrameOfReferenceUID" not in plain
    positions = np.array([item.PlanePositionSequence[0].ImagePositionPatient for item in plain.PerFrameFunctionalGroupsSequence])
    expected = series.grid.to_world([[0.5, 0.5, k + 0.5] for k in range(series.grid.shape[0])])
    np.testing.assert_allclose(sorted(map(tuple, positions)), sorted(map(tuple, np.tile(expected, (2, 1)))), atol=1e-6)
    series = replace(series, frame_uid="1.2.3.4.5")  # as an original would have it: highdicom needs one to read a volume
    for path, mask_ZYX in zip(write_segmentations(masks, CLASSES, series, tmp_path, MAKER), masks, strict=True):
        check_volume(path, mask_ZYX, series.grid)


def test_volumes_keep_masks_position_and_references(tmp_path: Path) -> None:
    oblique = [0.8, 0.6, 0.0, -0.6, 0.8, 0.0]
    series = series_of(write_series(tmp_path / "scan", volumes(), ImageOrientationPatient=oblique, **UIDS))
    masks = masks_of(series)
    paths = write_segmentations(masks, CLASSES, series, tmp_path / "seg", MAKER)
    assert [path.name for path in paths] == ["seg-0001.dcm", "seg-0002.dcm", "seg-0003.dcm"]
    for t, path in enumerate(paths):
        check_volume(path, masks[t], series.grid)
        seg = highdicom.seg.segread(path)
        assert (seg.FrameOfReferenceUID, seg.StudyInstanceUID, seg.InstanceNumber) == ("1.2.3.4.5678", "1.2.3.4", t + 1)
        uids = [frame.sop_instance for frame in series.frames[t]]
        assert {uid for _, _, uid in seg.get_source_image_uids()} == set(uids)
        pixels = seg.get_pixels_by_source_instance(uids, combine_segments=True)  # slice k was made from file k
        np.testing.assert_array_equal(pixels, np.searchsorted([0, 2, 5], masks[t]))
    assert len({pydicom.dcmread(path).SeriesInstanceUID for path in paths}) == 1
    assert [(one.SegmentLabel, one.SegmentAlgorithmType, one.SegmentAlgorithmName) for one in seg.SegmentSequence] == [
        ("liver", "AUTOMATIC", "driftline 1.2.3"), ("lésion", "AUTOMATIC", "driftline 1.2.3")]  # fmt: skip
    assert seg.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].CodeValue == LESION.value
    assert (seg.ContentDate, seg.ContentTime) == ("20200131", "100005.000000")  # of the volume: no clock is read


@pytest.mark.parametrize("kind", ["enhanced", "mosaic"])
def test_files_with_many_slices_are_referenced_by_frame(tmp_path: Path, kind: str) -> None:
    values = volumes(times=2, depth=4)
    day = {"AcquisitionDate": "20200131"}
    mosaics = [mosaic(volume, 1.0, t + 1, AcquisitionTime=f"10000{t}", **day) for t, volume in enumerate(values)]
    made = [enhanced(values)] if kind == "enhanced" else mosaics
    for number, one in enumerate(made):
        one.StudyInstanceUID, one.FrameOfReferenceUID = "1.2.3.4", "1.2.3"
        save(one, tmp_path / "scan" / f"{number}.dcm")
    series = series_of(tmp_path / "scan")
    masks = masks_of(series)
    paths = write_segmentations(masks, CLASSES, series, tmp_path / "seg", MAKER)
    check_volume(paths[1], masks[1], series.grid)
    items = pydicom.dcmread(paths[1]).PerFrameFunctionalGroupsSequence
    references = [item.DerivationImageSequence[0].SourceImageSequence[0] for item in items[:4]]
    heights = [float(item.PlanePositionSequence[0].ImagePositionPatient[2]) for item in items[:4]]
    uid = made[-1].SOPInstanceUID
    if kind == "mosaic":  # a tile is no frame
        assert {(one.ReferencedSOPInstanceUID, one.SpatialLocationsPreserved) for one in references} == {(uid, "NO")}
        assert not any("ReferencedFrameNumber" in one for one in references)
    else:  # frames lie slice by slice, two times each; the second of slice k is frame 2 k + 2
        assert [(one.ReferencedSOPInstanceUID, one.SpatialLocationsPreserved) for one in references] == [(uid, "YES")] * 4
        assert [one.ReferencedFrameNumber for one in references] == [2 * round(z / 3) + 2 for z in heights]


def test_a_cine_is_one_file_of_frames_in_time(tmp_path: Path) -> None:
    series = series_of(ECHO)
    masks = masks_of(series)
    (path,) = write_segmentations(masks, CLASSES, series, tmp_path, MAKER)
    seg = pydicom.dcmread(path)
    np.testing.assert_array_equal(seg.pixel_array, np.concatenate([masks == 2, masks == 5]))
    found = [
        (
            item.SegmentIdentificationSequence[0].ReferencedSegmentNumber,
            item.FrameContentSequence[0].TemporalPositionIndex,
            list(item.FrameContentSequence[0].DimensionIndexValues),
            item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber,
        )
        for item in seg.PerFrameFunctionalGroupsSequence
    ]
    assert found == [(segment, t, [segment, t], t) for segment in (1, 2) for t in range(1, 31)]
    assert "TemporalPositionIndex" in [
        pydicom.datadict.keyword_for_tag(one.DimensionIndexPointer) for one in seg.DimensionIndexSequence
    ]
    assert "FrameOfReferenceUID" not in seg
    assert not any("PlanePositionSequence" in item for item in seg.PerFrameFunctionalGroupsSequence)
    assert seg["PatientOrientation"].is_empty  # the clip does not state one
    offset = seg.PerFrameFunctionalGroupsSequence[29].TemporalPositionSequence[0].TemporalPositionTimeOffset
    assert offset == pytest.approx(29 * 0.033333, abs=1e-4)
    assert (seg.LossyImageCompression, float(seg.LossyImageCompressionRatio)) == ("01", 19)
    read = highdicom.seg.segread(path)
    pixels = read.get_pixels_by_source_frame(series.frames[0][0].sop_instance, [7, 20], combine_segments=True)
    np.testing.assert_array_equal(pixels, np.searchsorted([0, 2, 5], masks[[6, 19]]))


def test_a_cine_keeps_how_it_lies_to_the_patient_and_the_size_of_its_pixels(tmp_path: Path) -> None:
    clip = dataset(volumes(1)[0], UltrasoundMultiFrameImageStorage, FrameTime=40.0, PatientOrientation=["L", "F"],
                   PixelSpacing=[0.4, 0.3], StudyInstanceUID="1.2.3.4")  # fmt: skip
    series = series_of(save(clip, tmp_path / "clip.dcm"))
    seg = pydicom.dcmread(write_segmentations(masks_of(series), CLASSES, series, tmp_path, MAKER)[0])
    assert list(seg.PatientOrientation) == ["L", "F"]
    assert list(seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing) == [0.4, 0.3]


@pytest.mark.parametrize("kind", ["volume", "cine"])
def test_dcmtk_reads_it(tmp_path: Path, kind: str) -> None:
    path = write_series(tmp_path / "scan", volumes(), **UIDS) if kind == "volume" else ECHO
    series = series_of(path)
    seg = write_segmentations(masks_of(series), CLASSES, series, tmp_path, MAKER)[0]
    content = dumped(seg)
    frames = 8 if kind == "volume" else 60
    assert content["00280008"]["Value"] in ([frames], [str(frames)])
    assert len(content["52009230"]["Value"]) == frames
    assert [one["00620005"]["Value"] for one in content["00620002"]["Value"]] == [["liver"], ["lésion"]]
    for tool in (["dcmdump", "-q", str(seg)], ["dcmconv", str(seg), str(tmp_path / "again.dcm")]):
        done = subprocess.run(tool, capture_output=True, text=True, timeout=60, errors="replace")
        assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_array_equal(pydicom.dcmread(tmp_path / "again.dcm").pixel_array, pydicom.dcmread(seg).pixel_array)


@pytest.mark.parametrize("kind", ["volume", "cine"])
def test_the_same_masks_give_the_same_bytes_and_others_other_uids(tmp_path: Path, kind: str) -> None:
    path = write_series(tmp_path / "scan", volumes(), **UIDS) if kind == "volume" else ECHO
    series = series_of(path)
    masks = masks_of(series)
    one, again = (write_segmentations(masks, CLASSES, series_of(path), tmp_path / name, MAKER) for name in ("one", "again"))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in again]
    masks[1:, ..., 0] = 0
    other = write_segmentations(masks, CLASSES, series, tmp_path / "other", MAKER)
    before, after = ([pydicom.dcmread(file) for file in files] for files in (one, other))
    assert not {seg.SOPInstanceUID for seg in before} & {seg.SOPInstanceUID for seg in after}
    assert len({seg.SOPInstanceUID for seg in before}) == len(one)
    assert before[0].SeriesInstanceUID != after[0].SeriesInstanceUID


def test_nothing_of_the_patient_is_carried_over_beyond_the_study(tmp_path: Path) -> None:
    named = ("AccessionNumber", "StudyID", "ReferringPhysicianName", "InstitutionName", "StudyDescription", "SeriesDescription",
             "ProtocolName", "PatientComments", "PatientAddress", "DeviceSerialNumber", "OtherPatientIDs", "EthnicGroup",
             "OperatorsName", "StationName", "PositionReferenceIndicator")  # fmt: skip
    numbers = {"PatientBirthDate": "19330917", "PatientSex": "O", "PatientAge": "077Y", "PatientWeight": 77.7}
    canaries: dict[str, Any] = {name: f"Canary {n}" for n, name in enumerate(named)} | numbers
    pseudonym = {
        "PatientName": "P0123",
        "PatientID": "P0123",
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "profile",
    }
    clip = dataset(volumes(1)[0], UltrasoundMultiFrameImageStorage, FrameTime=40.0, **UIDS, **(canaries | pseudonym))
    save(clip, tmp_path / "clip" / "clip.dcm")
    write_series(tmp_path / "scan", volumes(), **UIDS, **(canaries | pseudonym))
    for name in ("clip", "scan"):
        series = series_of(tmp_path / name)
        assert series.is_deidentified
        for path in write_segmentations(masks_of(series), CLASSES, series, tmp_path / "out" / name, MAKER):
            content = path.read_bytes().lower()
            assert not [one for one in (b"canary", b"19330917", b"077y", b"77.7") if one in content]
            seg = pydicom.dcmread(path)
            assert (seg.PatientID, seg.PatientIdentityRemoved, seg.DeidentificationMethod) == ("P0123", "YES", "profile")


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    series = series_of(write_series(tmp_path / "scan", volumes(), **UIDS))
    masks = masks_of(series)
    for wrong, classes, message in (
        (masks[:, :3], CLASSES, "the masks are uint8 3 x 3 x 6 x 5, the series is 3 x 4 x 6 x 5"),
        (masks.astype(np.int32), CLASSES, "the masks are int32"),
        (masks, CLASSES[:1], r"the masks hold \[5\], which no class names"),
        (masks, (*CLASSES, CLASSES[0]), "expected different ones"),
        (masks, (*CLASSES, SegmentClass(1, "x" * 65)), "1 to 64 characters"),
    ):
        with pytest.raises(RequestError, match=message):
            write_segmentations(wrong, classes, series, tmp_path / "out", MAKER)
    assert not (tmp_path / "out").exists()
    save(classic(volumes()[0, 0], 0.0, 1), tmp_path / "out" / "seg-0004.dcm")
    with pytest.raises(RequestError, match="of another series"):
        write_segmentations(masks, CLASSES, series, tmp_path / "out", MAKER)


def test_a_source_that_nothing_can_refer_to_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="has no StudyInstanceUID"):
        series_of(write_series(tmp_path / "scan", volumes()))


def test_one_slice_in_time(tmp_path: Path) -> None:
    for t in range(3):
        made = classic(volumes(3)[t, 0], 0.0, t + 1, SliceThickness=5.0, TriggerTime=40.0 * t, AcquisitionTime="100000", **UIDS)
        save(made, tmp_path / "scan" / f"{t}.dcm")
    series = series_of(tmp_path / "scan")
    paths = write_segmentations(masks_of(series), CLASSES, series, tmp_path / "seg", MAKER)
    assert [pydicom.dcmread(path).NumberOfFrames for path in paths] == [2, 2, 2]
