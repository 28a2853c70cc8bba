"""Files that do not belong together, values that are not what they seem, frames that are no times: refused, converted, said."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from made_dicom import classic, dataset, enhanced, group, save, volumes, write_series
from pydicom.dataelem import DataElement
from pydicom.sequence import Sequence

from pipelines.errors import RequestError
from pipelines.privacy.folder import deidentify_folder
from pipelines.privacy.keys import Key
from pipelines.privacy.settings import PrivacySettings
from pipelines.scene import Band
from pipelines.sources.dicom import DicomSource

BAND = Band("bold")
SETTINGS = PrivacySettings(Key(bytes(range(32))))
Edit = Callable[[pydicom.Dataset, int], object]


def edited(folder: Path, edit: Edit, values: np.ndarray | None = None, **elements: Any) -> DicomSource:
    """A series whose files were changed by `edit(file, number of its time)`."""
    write_series(folder, volumes(times=2) if values is None else values, **elements)
    for path in folder.iterdir():
        made = pydicom.dcmread(path)
        edit(made, int(path.stem[-1]))
        made.save_as(path)
    return DicomSource(folder, BAND)


def read_all(source: DicomSource) -> np.ndarray:
    grid = source.native_grid()
    return np.stack([source.read(scene, grid, ("bold",), "nearest")[0] for scene in source.list_scenes().scenes])


def of_time(keyword: str, *values: Any) -> Edit:
    return lambda made, t: setattr(made, keyword, values[t])


def private(creator: str, group: int, element: int, vr: str, *values: Any) -> Edit:
    return lambda made, t: made.private_block(group, creator, create=True).add_new(element, vr, values[t])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (of_time("PatientID", "CANARY-1", "CANARY-2"), "mixed patients: the 8 files of the series name 2 patient IDs"),
        (of_time("StudyInstanceUID", "1.2.3", "1.2.4"), "mixed studies"),
        (of_time("FrameOfReferenceUID", "1.2.3", "1.2.4"), "mixed frames of reference: .* cannot be compared"),
        (of_time("PhotometricInterpretation", "MONOCHROME1", "MONOCHROME2"), "mixed meanings of values: MONOCHROME[12] .4 files"),
        (of_time("FlipAngle", 5, 20), "several contrasts: .* differ in flip angle"),
        (of_time("KVP", 80, 140), "several contrasts: .* differ in tube voltage"),
        (private("SIEMENS MR HEADER", 0x19, 0x0C, "IS", 0, 1000), "several contrasts: .* differ in b-value"),
        (private("GEMS_PARM_01", 0x43, 0x39, "IS", [0, 0], [1_000_001_000, 0]), "several contrasts: .* differ in b-value"),
        (private("Philips Imaging DD 001", 0x2001, 0x03, "FL", 0.0, 800.0), "several contrasts: .* differ in b-value"),
        (private("GEMS_PARM_01", 0x43, 0x2F, "SS", 0, 1), "several contrasts: .* differ in image type"),
        (lambda made, t: setattr(made, "BitsStored", 12), "its 12 stored bits end at bit 15, not at 11"),
        (lambda made, t: setattr(made, "RescaleSlope", 0), "its rescale slope is 0"),
        (lambda made, t: setattr(made, "PhotometricInterpretation", "PALETTE COLOR"), "it has no palette"),
        (lambda made, t: setattr(made.file_meta, "TransferSyntaxUID", "1.2.840.10008.1.2.1.99"), "its data set is deflated"),
    ],
)
def test_what_does_not_belong_together_is_refused_by_name(tmp_path: Path, edit: Edit, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        edited(tmp_path, edit).list_scenes()
    assert "CANARY" not in str(caught.value)


def test_contrasts_that_differ_away_from_the_first_slice_are_seen(tmp_path: Path) -> None:
    def edit(made: pydicom.Dataset, t: int) -> None:
        made.EchoTime = 10.0 * (1 + t) if made.ImagePositionPatient[2] == 6 else 10.0

    with pytest.raises(RequestError, match=r"several contrasts: .* differ in echo time"):
        edited(tmp_path, edit).list_scenes()


def test_one_b_value_written_in_two_ways_is_one(tmp_path: Path) -> None:
    source = edited(tmp_path, private("GEMS_PARM_01", 0x43, 0x39, "IS", [1000, 0], [1_000_001_000, 0]))
    assert len(source.list_scenes().scenes) == 2


def test_inverted_values_and_real_world_values_are_said(tmp_path: Path) -> None:
    def edit(made: pydicom.Dataset, t: int) -> None:
        mapping = pydicom.Dataset()
        mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 0.25, 0.0
        made.PhotometricInterpretation, made.RealWorldValueMappingSequence = "MONOCHROME1", Sequence([mapping])

    source = edited(tmp_path, edit)
    np.testing.assert_array_equal(read_all(source), volumes(times=2))
    notes = source.list_scenes().notes
    assert any(note.startswith("MONOCHROME1") for note in notes)
    assert any("not applied" in note for note in notes)


def test_numbers_of_a_palette_become_the_grey_of_its_colours(tmp_path: Path) -> None:
    red, green, blue = (np.random.default_rng(seed).permutation(256).astype("uint8") for seed in range(3))

    def edit(made: pydicom.Dataset, t: int) -> None:
        made.PhotometricInterpretation = "PALETTE COLOR"
        for name, entries in (("Red", red), ("Green", green), ("Blue", blue)):
            descriptor, data = (f"{name}PaletteColorLookupTable{part}" for part in ("Descriptor", "Data"))
            made[descriptor] = DataElement(descriptor, "US", [256, 0, 8])
            made[data] = DataElement(data, "OW", entries.tobytes())

    values = volumes(times=2).astype("uint8")
    source = edited(tmp_path, edit, values)
    expected = 0.299 * red[values] + 0.587 * green[values] + 0.114 * blue[values]
    np.testing.assert_allclose(read_all(source), expected, atol=0.51)
    assert any("converted to grey" in note for note in source.list_scenes().notes)


@pytest.mark.parametrize("element", ["AcquisitionTime", "ContentTime"])
def test_times_without_a_day_run_on_past_midnight(tmp_path: Path, element: str) -> None:
    times = ("235958", "000000.5", "000003")
    unsaid = {"AcquisitionDate": None, "AcquisitionTime": None}
    source = edited(tmp_path, of_time(element, *times), volumes(), **unsaid)
    np.testing.assert_array_equal(read_all(source), volumes())
    listing = source.list_scenes()
    since = [(scene.observed_utc - listing.scenes[0].observed_utc) / np.timedelta64(1, "s") for scene in listing.scenes]
    assert since == [0, 2.5, 5]
    assert any("times pass midnight" in note for note in listing.notes)


@pytest.mark.parametrize(("instances", "is_next_day"), [((1, 2), True), ((2, 1), False), ((1, 1), False)])
def test_a_stated_day_is_not_advanced_where_the_numbers_of_the_images_say_so(
    tmp_path: Path, instances: tuple[int, int], is_next_day: bool
) -> None:
    def edit(made: pydicom.Dataset, t: int) -> None:
        made.AcquisitionTime, made.InstanceNumber = ("235958", "000001")[t], instances[t]

    source = edited(tmp_path, edit)
    np.testing.assert_array_equal(read_all(source), volumes(times=2)[:: 1 if is_next_day else -1])
    listing = source.list_scenes()
    assert listing.scenes[1].observed_utc - listing.scenes[0].observed_utc == np.timedelta64(3 if is_next_day else 86397, "s")
    assert any("of the next day" in note for note in listing.notes) == is_next_day


def test_times_that_contradict_the_temporal_positions_are_said(tmp_path: Path) -> None:
    def edit(made: pydicom.Dataset, t: int) -> None:
        made.TemporalPositionIdentifier, made.RepetitionTime = 2 - t, 2000

    source = edited(tmp_path, edit)
    np.testing.assert_array_equal(read_all(source), volumes(times=2)[::-1])
    assert any("the acquisition times contradict that order" in note for note in source.list_scenes().notes)


@pytest.mark.parametrize("is_copied", [False, True])
@pytest.mark.parametrize(
    ("element", "words"), [("ConvolutionKernel", "convolution kernel"), ("SeriesDescription", "series description")]
)
def test_reconstructions_are_told_apart_in_a_de_identified_copy_too(
    tmp_path: Path, is_copied: bool, element: str, words: str
) -> None:
    folder = tmp_path / "in"
    edited(folder, of_time(element, "CANARY-B30f", "CANARY-B70f"), StudyInstanceUID="1.2.3")
    if is_copied:
        for target in ("once", "twice"):
            deidentify_folder(folder, tmp_path / target, SETTINGS)
            folder = tmp_path / target
        assert not any(b"CANARY" in path.read_bytes() for path in folder.rglob("*.dcm"))
    with pytest.raises(RequestError, match=f"several contrasts: .* differ in {words} .2 values"):
        DicomSource(folder, BAND).list_scenes()


def test_frames_of_enhanced_ct_with_other_kernels_are_told_apart_in_a_copy(tmp_path: Path) -> None:
    made = enhanced(volumes(times=2))
    made.StudyInstanceUID = "1.2.3"
    for n, one in enumerate(made.PerFrameFunctionalGroupsSequence):
        one.CTReconstructionSequence = group(ConvolutionKernel="sharp" if n % 2 else "soft")
    save(made, tmp_path / "in" / "one.dcm")
    deidentify_folder(tmp_path / "in", tmp_path / "out", SETTINGS)
    with pytest.raises(RequestError, match="differ in convolution kernel"):
        DicomSource(tmp_path / "out", BAND).list_scenes()


def test_files_of_one_uid_are_one_image_or_refused(tmp_path: Path) -> None:
    write_series(tmp_path, volumes(times=2))
    shutil.copy(tmp_path / "1-0.dcm", tmp_path / "copy.dcm")
    assert "1 further copy of a file not read" in DicomSource(tmp_path, BAND).list_scenes().notes
    other = pydicom.dcmread(tmp_path / "copy.dcm")
    other.PixelData = bytes(len(other.PixelData))
    other.save_as(tmp_path / "copy.dcm")
    with pytest.raises(RequestError, match=r"duplicate UIDs: files 1, 9 .* are not the same; keep the right one"):
        DicomSource(tmp_path, BAND).list_scenes()


@pytest.mark.parametrize(
    ("kind", "has_pixels", "message"),
    [
        ("66.4", True, r"a segmentation \(SEG\); `driftline track` reads it"),
        ("481.2", True, r"a dose \(RTDOSE\); name the series"),
        ("481.3", False, r"1 file: contours \(RTSTRUCT\): convert them to SEG"),
        ("88.33", False, r"a report \(SR\): name the series"),
        ("88.59", False, r"a selection of key objects \(KO\)"),
        ("11.4", False, r"a presentation state \(PR\)"),
    ],
)
def test_objects_that_are_no_images_are_refused_by_kind(tmp_path: Path, kind: str, has_pixels: bool, message: str) -> None:
    made = dataset(volumes(times=1)[0], f"1.2.840.10008.5.1.4.1.1.{kind}")
    if not has_pixels:
        del made.PixelData, made.Rows, made.Columns
    with pytest.raises(RequestError, match=message):
        DicomSource(save(made, tmp_path / "one.dcm"), BAND).list_scenes()


def test_times_of_a_patient_are_no_overpasses(tmp_path: Path) -> None:
    source = edited(tmp_path, of_time("AcquisitionTime", "100000", "100002", "120000"), volumes())
    assert source.list_scenes().remarks() == []


@pytest.mark.parametrize(("rest", "is_image"), [(2 * 4, False), (3 * 10, True), (60, True), (3, False)])
def test_pixels_beyond_the_stated_size_are_more_image_or_padding(tmp_path: Path, rest: int, is_image: bool) -> None:
    for k, pixels in enumerate(volumes(times=1)[0]):
        made = classic(pixels, 3.0 * k, k + 1)
        made.PixelData += bytes([7 if is_image or rest == 3 else 0]) * rest
        save(made, tmp_path / f"{k}.dcm")
    refused = DicomSource(tmp_path, BAND).list_scenes().refused
    assert [one.reason for one in refused] == (["truncated"] if is_image else [])


def test_frames_that_are_slices_are_no_times(tmp_path: Path) -> None:
    made = dataset(volumes(times=1)[0], FrameTime=40.0, FrameIncrementPointer=0x00540080, SliceVector=[1, 2, 3, 4])
    with pytest.raises(RequestError, match="not frames in time: they are slices"):
        DicomSource(save(made, tmp_path / "one.dcm"), BAND).list_scenes()


def test_frames_in_no_order_are_sorted_by_the_dimension_of_time(tmp_path: Path) -> None:
    values = volumes(times=2)
    made = enhanced(values)
    dimensions = [pydicom.Dataset() for _ in range(2)]
    dimensions[0].DimensionIndexPointer, dimensions[1].DimensionIndexPointer = 0x00209057, 0x00209128
    made.DimensionIndexSequence = Sequence(dimensions)
    groups, pixels = list(made.PerFrameFunctionalGroupsSequence), made.pixel_array
    for one in groups:
        content = one.FrameContentSequence[0]
        del content.TemporalPositionIndex, content.FrameAcquisitionDateTime
    order = np.random.default_rng(0).permutation(len(groups))
    made.PerFrameFunctionalGroupsSequence = Sequence([groups[i] for i in order])
    made.PixelData = pixels[order].tobytes()
    source = DicomSource(save(made, tmp_path / "one.dcm"), BAND, frame_time=2.0)
    np.testing.assert_array_equal(read_all(source), values)
