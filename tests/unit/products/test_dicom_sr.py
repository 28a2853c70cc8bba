"""Measurements as DICOM SR: read back with highdicom and dcmtk, against the masks that they refer to; nothing of the patient."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from made_dicom import dataset, enhanced, mosaic, save, volumes, write_series
from pydicom.data import get_testdata_file
from pydicom.sr.codedict import codes
from pydicom.uid import UltrasoundMultiFrameImageStorage

from pipelines.errors import RequestError
from pipelines.products.dicom_objects import Code, Maker
from pipelines.products.dicom_seg import SegmentClass, write_segmentations
from pipelines.products.dicom_sr import CHANGE, Measured, classes_of_tracks, write_measurements
from pipelines.scene import Band
from pipelines.sources.dicom import DicomSource
from pipelines.sources.dicom_references import ReferencedSeries, referenced_series

highdicom = pytest.importorskip("highdicom")
CHANGE_NAME = highdicom.sr.CodedConcept(CHANGE.value, CHANGE.scheme, CHANGE.meaning)
MAKER = Maker("driftline", "1.2.3")
ABNORMAL, LESION = Code("49755003", "SCT", "Morphologically Abnormal Structure"), Code("52988006", "SCT", "Lesion")
CLASSES = (SegmentClass(2, "liver"), SegmentClass(5, "lésion", ABNORMAL, LESION))
ECHO = Path(str(get_testdata_file("examples_ybr_color.dcm")))  # a real clip of 30 frames
SEGMENT = "SegmentIdentificationSequence"
UIDS = {"StudyInstanceUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.5"}


def series_of(path: Path) -> ReferencedSeries:
    return referenced_series(DicomSource(path, Band("image")))


def tracks_of(series: ReferencedSeries) -> np.ndarray:
    """Track 1 at all times, growing; track 2 beside it from the second time on, gone at the last."""
    tracks = np.zeros((len(series.frames), *series.grid.shape), np.uint8)
    for t in range(len(tracks)):
        tracks[t, ..., 1 : 3 + min(t, 2), 0:2] = 1
    tracks[1:-1, ..., 0:2, 3:5] = 2
    if series.grid.is_volume:
        tracks[:, 3:] = 0  # nothing in the slices behind
    return tracks


def measured(tracks: np.ndarray, series: ReferencedSeries) -> list[Measured]:
    """What is true of these tracks."""
    unit = float(np.prod(series.grid.spacing)) if series.grid.unit == "mm" else 1.0
    name = "volume_mm3" if series.grid.is_volume else f"area_{series.grid.unit}2"
    made = []
    for t, of_time in enumerate(tracks):
        for track in np.unique(of_time[of_time > 0]).tolist():
            event = "grown" if t == 1 and track == 1 else "stable" if t else "first seen"
            made.append(Measured(t, track, event, {name: unit * int((of_time == track).sum())}, 0.5 if t else None))
    return [*made, *([Measured(len(tracks) - 1, 2, "gone")] if (tracks == 2).any() else [])]


def written(series: ReferencedSeries, out: Path, tracks: np.ndarray | None = None) -> tuple[list[Path], list[Path]]:
    """(SR files, the SEG files of the objects)."""
    tracks = tracks_of(series) if tracks is None else tracks
    labels = np.where(tracks == 2, np.uint8(2), np.where(tracks > 0, np.uint8(5), np.uint8(0)))
    classes = classes_of_tracks(list(tracks), labels, CLASSES, series)
    segmentations = write_segmentations(tracks, classes, series, out / "seg-objects", MAKER)
    reports = write_measurements(measured(tracks, series), classes, segmentations, series, out / "sr")
    return reports, segmentations


def groups_in(report: Path) -> tuple[list[Any], list[Any]]:
    """(groups with a region, groups without) as highdicom reads them."""
    content = highdicom.sr.srread(report).content
    regions = [*content.get_volumetric_roi_measurement_groups(), *content.get_planar_roi_measurement_groups()]
    return regions, content.get_image_measurement_groups()


def size_of_region(group: Any, segmentations: Sequence[Path]) -> int:
    """Pixels of the region that a group refers to, in the SEG file that has its UID, and only there."""
    (file,) = [path for path in segmentations if pydicom.dcmread(path).SOPInstanceUID == segment_of(group)[0]]
    content = pydicom.dcmread(file)
    frames = content.pixel_array.reshape(-1, content.Rows, content.Columns)
    _, number, frame = segment_of(group)
    if frame is not None:
        return int(frames[frame - 1].sum())
    items = content.PerFrameFunctionalGroupsSequence
    (shared,) = content.SharedFunctionalGroupsSequence  # has the number where there is one segment
    numbers = [(item.get(SEGMENT) or shared.get(SEGMENT))[0].ReferencedSegmentNumber for item in items]
    return int(sum(frames[n].sum() for n, own in enumerate(numbers) if own == number))


def segment_of(group: Any) -> tuple[str, int | None, int | None]:
    """(UID of the SEG, number of the segment, number of the frame)."""
    names = (codes.DCM.ReferencedSegment, codes.DCM.ReferencedSegmentationFrame)
    (item,) = [one for one in group[0].ContentSequence if one.name in names]
    reference = item.ReferencedSOPSequence[0]
    assert ("ReferencedSegmentNumber" in reference) != ("ReferencedFrameNumber" in reference)  # PS3.3, C.18.4
    number, frame = reference.get("ReferencedSegmentNumber"), reference.get("ReferencedFrameNumber")
    return str(reference.ReferencedSOPInstanceUID), number and int(number), frame and int(frame)


def sources_of(group: Any) -> set[tuple[str, int | None]]:
    """(UID, frame) of the source images of a region."""
    made = set()
    for item in group[0].ContentSequence:
        if item.name == codes.DCM.SourceImageForSegmentation:
            reference = item.ReferencedSOPSequence[0]
            frames = reference.get("ReferencedFrameNumber")
            several = [frames] if frames is None or isinstance(frames, int) else frames
            made |= {(str(reference.ReferencedSOPInstanceUID), None if one is None else int(one)) for one in several}
    return made


def evidence_of(report: Path) -> set[str]:
    (study,) = pydicom.dcmread(report).CurrentRequestedProcedureEvidenceSequence
    return {
        str(one.ReferencedSOPInstanceUID) for series in study.ReferencedSeriesSequence for one in series.ReferencedSOPSequence
    }


@pytest.mark.parametrize("kind", ["classic", "enhanced", "mosaic"])
def test_a_report_of_each_volume_measures_the_segments_that_it_refers_to(tmp_path: Path, kind: str) -> None:
    oblique, day = [0.8, 0.6, 0.0, -0.6, 0.8, 0.0], {"AcquisitionDate": "20200131"}
    if kind == "classic":
        write_series(tmp_path / "scan", volumes(), ImageOrientationPatient=oblique, **UIDS)
    made = [enhanced(volumes())] if kind == "enhanced" else []
    made = (
        [mosaic(one, 1.0, t + 1, AcquisitionTime=f"10000{t}", **day) for t, one in enumerate(volumes())]
        if kind == "mosaic"
        else made
    )
    for number, one in enumerate(made):
        one.StudyInstanceUID, one.FrameOfReferenceUID = "1.2.3.4", "1.2.3"
        save(one, tmp_path / "scan" / f"{number}.dcm")
    series = series_of(tmp_path / "scan")
    reports, segmentations = written(series, tmp_path)
    assert [path.name for path in reports] == ["sr-0001.dcm", "sr-0002.dcm", "sr-0003.dcm"]
    voxel = float(np.prod(series.grid.spacing))
    uids: dict[str, set[str]] = {}
    for t, report in enumerate(reports):
        regions, gone = groups_in(report)
        assert [group.tracking_identifier for group in regions] == (["lésion 1", "liver 2"] if t == 1 else ["lésion 1"])
        for group in regions:
            (volume,) = group.get_measurements(codes.SCT.Volume)
            assert volume.unit.value == "mm3"
            assert volume.value == pytest.approx(voxel * size_of_region(group, segmentations), rel=1e-9)
            used = [(one.sop_instance, one.frame) for one in series.frames[t][:3]]  # the slices that have something
            assert sources_of(group) == set(used)
            uids.setdefault(group.tracking_identifier, set()).add(str(group.tracking_uid))
        assert regions[0].finding_type == codes.SCT.Lesion
        assert [(group.tracking_identifier, group.get_qualitative_evaluations()[-1].value.meaning) for group in gone] == (
            [("liver 2", "Absent")] if t == 2 else []
        )
        assert evidence_of(report) == {frame.sop_instance for frame in series.frames[t]} | {segment_of(regions[0])[0]}
    assert [len(one) for one in uids.values()] == [1, 1]  # the same at all times
    if kind == "classic":
        read = pydicom.dcmread(reports[1])
        assert (read.ContentDate, read.ContentTime) == ("20200131", "100002.500000")  # of the volume: no clock is read
    segments = pydicom.dcmread(segmentations[1]).SegmentSequence
    assert {one.TrackingID: {one.TrackingUID} for one in segments} == uids


@pytest.mark.parametrize("kind", ["volume", "cine"])
def test_a_single_object_has_a_report(tmp_path: Path, kind: str) -> None:
    series = series_of(write_series(tmp_path / "scan", volumes(), **UIDS) if kind == "volume" else ECHO)
    tracks = np.minimum(tracks_of(series), 1)
    reports, segmentations = written(series, tmp_path, tracks)
    regions = [group for report in reports for group in groups_in(report)[0]]
    unit = float(np.prod(series.grid.spacing)) if kind == "volume" else 1.0
    name = codes.SCT.Volume if kind == "volume" else codes.SCT.Area
    sizes = [group.get_measurements(name)[0].value for group in regions]
    assert sizes == pytest.approx([unit * size_of_region(group, segmentations) for group in regions])
    assert sizes == pytest.approx(unit * np.count_nonzero(tracks.reshape(len(tracks), -1), axis=1))
    assert {one.name for group in regions for one in group.get_measurements()} <= {name, CHANGE_NAME}  # nothing else is a number


def test_a_report_of_a_cine_measures_frames(tmp_path: Path) -> None:
    series = series_of(ECHO)
    (report,), segmentations = written(series, tmp_path)
    regions, (gone,) = groups_in(report)
    assert len(regions) == 30 + 28
    for group in regions:
        (area,) = group.get_measurements(codes.SCT.Area)
        assert (area.value, area.unit.value) == (size_of_region(group, segmentations), "{pixels}")
    (clip,) = {frame.sop_instance for frame in series.frames[0]}
    assert [sources_of(group) for group in regions if group.tracking_identifier == "lésion 1"] == [
        {(clip, t + 1)} for t in range(30)
    ]
    (change,) = regions[1].get_measurements(CHANGE_NAME)
    assert (change.value, change.unit.value) == (50, "%")
    assert regions[1].get_qualitative_evaluations()[-1].value == codes.SCT.IncreaseInSize
    assert gone.tracking_identifier == "liver 2"
    assert evidence_of(report) == {clip, str(pydicom.dcmread(segmentations[0]).SOPInstanceUID)}


@pytest.mark.parametrize("kind", ["volume", "cine"])
def test_the_same_objects_give_the_same_bytes_and_keep_their_tracking_uid(tmp_path: Path, kind: str) -> None:
    path = write_series(tmp_path / "scan", volumes(), **UIDS) if kind == "volume" else ECHO
    series = series_of(path)
    tracks = tracks_of(series)
    one, again = (written(series_of(path), tmp_path / name)[0] for name in ("one", "again"))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in again]
    tracks[-1, ..., -1] = 1  # later than where the objects are first seen
    other, _ = written(series, tmp_path / "other", tracks)
    before, after = ([pydicom.dcmread(file) for file in files] for files in (one, other))
    assert not {str(sr.SOPInstanceUID) for sr in before} & {str(sr.SOPInstanceUID) for sr in after}
    assert before[0].SeriesInstanceUID != after[0].SeriesInstanceUID
    tracking = [{str(group.tracking_uid) for file in files for group in groups_in(file)[0]} for files in (one, other)]
    assert tracking[0] == tracking[1]
    assert len(tracking[0]) == 2


@pytest.mark.parametrize("kind", ["volume", "cine"])
def test_dcmtk_reads_it(tmp_path: Path, kind: str) -> None:
    if shutil.which("dsrdump") is None:
        pytest.skip("dcmtk's dsrdump is not installed (Debian: dcmtk)")
    path = write_series(tmp_path / "scan", volumes(), **UIDS) if kind == "volume" else ECHO
    reports, _ = written(series_of(path), tmp_path)
    done = subprocess.run(["dsrdump", "+U8", str(reports[0])], capture_output=True, text=True, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if "Specific Character Set: ISO_IR 192" not in line]
    assert (done.returncode, complaints) == (0, [])
    assert done.stdout.count('"Measurement Group"') == (1 if kind == "volume" else 59)
    assert 'TEXT:(,,"Tracking Identifier")="lésion 1"' in done.stdout


def test_nothing_of_the_patient_is_carried_over_beyond_the_study(tmp_path: Path) -> None:
    named = ("AccessionNumber", "StudyID", "ReferringPhysicianName", "InstitutionName", "StudyDescription", "SeriesDescription",
             "ProtocolName", "PatientComments", "OtherPatientIDs", "OperatorsName", "StationName")  # fmt: skip
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
        reports, segmentations = written(series_of(tmp_path / name), tmp_path / "out" / name)
        for path in (*reports, *segmentations):
            content = path.read_bytes().lower()
            assert not [one for one in (b"canary", b"19330917", b"077y", b"77.7") if one in content]
            made = pydicom.dcmread(path)
            assert (made.PatientID, made.PatientIdentityRemoved, made.DeidentificationMethod) == ("P0123", "YES", "profile")


def test_more_objects_than_a_segmentation_has_segments_are_refused(tmp_path: Path) -> None:
    series = series_of(ECHO)
    tracks = np.zeros((30, *series.grid.shape), np.uint16)
    tracks[0, :2].flat[:600:2] = np.arange(1, 301)
    with pytest.raises(RequestError, match=r"more than 255 tracks.*--min-size"):
        classes_of_tracks(list(tracks), np.where(tracks > 0, np.uint8(2), np.uint8(0)), CLASSES, series)
