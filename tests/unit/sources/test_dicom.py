"""DICOM series as volumes in time: geometry, time, values, and every refusal by its name."""

import base64
import gc
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from made_dicom import classic, dataset, enhanced, group, mosaic, save, volumes, write_series
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from pipelines.calendar import UNKNOWN_ORIGIN
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import grid_of, open_cube
from pipelines.errors import RequestError, SceneRefused
from pipelines.products.nifti import affine_ras
from pipelines.scene import Band
from pipelines.sources import dicom
from pipelines.sources.dicom import DicomSource

BAND = Band("bold")
SECONDS = np.timedelta64(1, "s")


def read_all(source: DicomSource) -> np.ndarray:
    """(t, z, y, x) physical values."""
    grid, band = source.native_grid(), source.bands[0]
    stored = [source.read(scene, grid, ("bold",), "nearest")[0] for scene in source.list_scenes().scenes]
    return np.stack(stored) * band.scale + band.offset


def seconds(source: DicomSource) -> list[float]:
    times = [scene.observed_utc for scene in source.list_scenes().scenes]
    return [float((time - times[0]) / SECONDS) for time in times]


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("vendor", ["ge", "philips", "philips_enhanced"])
def test_real_series_equal_their_expected_nifti(shared_data: Callable[[str], Path], vendor: str) -> None:
    folder = shared_data(f"medical/dicom-series/{vendor}")
    source, expected = DicomSource(folder / "dicom", BAND), nibabel.load(folder / "001_ground_truth.nii.gz")
    np.testing.assert_allclose(read_all(source), np.asarray(expected.dataobj).T, rtol=1e-6)
    np.testing.assert_allclose(affine_ras(source.native_grid()), expected.affine, rtol=1e-6, atol=3e-6)


@pytest.mark.parametrize("vendor", ["ge", "philips"])
def test_real_series_equal_what_dicom2nifti_makes(shared_data: Callable[[str], Path], vendor: str, tmp_path: Path) -> None:
    dicom2nifti = pytest.importorskip("dicom2nifti")
    folder = shared_data(f"medical/dicom-series/{vendor}/dicom")
    dicom2nifti.dicom_series_to_nifti(str(folder), str(tmp_path / "oracle.nii.gz"), reorient_nifti=True)
    oracle, source = nibabel.load(tmp_path / "oracle.nii.gz"), DicomSource(folder, BAND)
    values, own = read_all(source), affine_ras(source.native_grid())
    # its axes are turned: the same voxels at the same places
    index = np.stack(np.meshgrid(*map(np.arange, oracle.shape[:3]), indexing="ij"), -1).reshape(-1, 3)
    there = nibabel.affines.apply_affine(np.linalg.inv(own) @ oracle.affine, index)
    x, y, z = np.round(there).astype(int).T
    np.testing.assert_allclose(there, np.round(there), atol=1e-4)
    np.testing.assert_array_equal(values[:, z, y, x].T, np.asarray(oracle.dataobj).reshape(len(index), -1))


def test_classic_files_in_any_order_make_volumes_with_their_affine(tmp_path: Path) -> None:
    values = volumes()
    source = DicomSource(write_series(tmp_path, values), BAND)
    np.testing.assert_array_equal(read_all(source), values)
    expected = [[1.5, 0, 0, -10], [0, 2, 0, -20], [0, 0, 3, 0]]  # LPS
    np.testing.assert_allclose(source.native_grid().matrix_of_centres, expected)
    assert seconds(source) == [0, 2.5, 5]
    assert source.list_scenes().scenes[1].observed_utc == np.datetime64("2020-01-31T10:00:02.5")
    rows = source.read(source.list_scenes().scenes[2], source.native_grid(), ("bold",), "nearest", slice(1, 3))
    np.testing.assert_array_equal(rows[0], values[2, 1:3])


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"TemporalPositionIdentifier": lambda t: 3 - t, "TemporalResolution": lambda t: 0, "frame_time": 2.0}, [0, 2, 4]),
        ({"TriggerTime": lambda t: 40.5 * t}, [0, 0.0405, 0.081]),
        ({"FrameReferenceTime": lambda t: 1000.0 * t * t + 500}, [0, 1, 4]),
        ({"ContentTime": lambda t: f"1000{7 * t:02d}", "ContentDate": lambda t: "20200131"}, [0, 7, 14]),
        ({"RepetitionTime": lambda t: 1500.0}, [0, 1.5, 3]),
    ],
    ids=["temporal position", "trigger time", "reference time", "content time", "repetition time"],
)
def test_times_come_from_what_the_vendor_fills(tmp_path: Path, elements: dict[str, Any], expected: list[float]) -> None:
    values, frame_time = volumes(), elements.pop("frame_time", None)
    for t, volume in enumerate(values):
        of_time = {keyword: value(t) for keyword, value in elements.items()}
        write_series(tmp_path / str(t), volume[None], AcquisitionTime="100000", **of_time)
        for k, path in enumerate(sorted((tmp_path / str(t)).iterdir(), reverse=True)):
            made = pydicom.dcmread(path)
            made.InstanceNumber = 4 * t + k + 1
            made.save_as(path)
    source = DicomSource(tmp_path, BAND, frame_time=frame_time)
    is_reversed = "TemporalPositionIdentifier" in elements
    np.testing.assert_array_equal(read_all(source), values[::-1] if is_reversed else values)
    np.testing.assert_allclose(seconds(source), expected)


def test_without_a_date_times_count_from_the_first_frame(tmp_path: Path) -> None:
    source = DicomSource(write_series(tmp_path, volumes(), AcquisitionDate=None, StudyDate=None), BAND)
    listing = source.list_scenes()
    assert listing.scenes[0].observed_utc == UNKNOWN_ORIGIN
    assert seconds(source) == [0, 2.5, 5]
    assert any("no acquisition date" in note for note in listing.notes)


def test_an_enhanced_file_is_read_by_its_functional_groups(tmp_path: Path) -> None:
    values = volumes()
    source = DicomSource(save(enhanced(values), tmp_path / "one.dcm"), BAND)
    np.testing.assert_allclose(read_all(source), 2.0 * values + 1)
    assert (source.dtype(), source.bands[0].scale, source.bands[0].offset) == (np.int16, 2.0, 1.0)
    np.testing.assert_allclose(seconds(source), [0, 0.2, 0.4])


def test_slopes_that_differ_between_slices_are_applied_and_said(tmp_path: Path) -> None:
    values, slopes = volumes(), (1.0, 2.0, 0.5, 3.0)
    source = DicomSource(save(enhanced(values, slopes), tmp_path / "one.dcm"), BAND)
    np.testing.assert_allclose(read_all(source), values * np.array(slopes)[:, None, None] + 1)
    assert (source.dtype(), source.bands[0].scale) == (np.float32, 1.0)
    assert any("scale and offset differ" in note for note in source.list_scenes().notes)


@pytest.mark.parametrize("z_normal", [1.0, -1.0])
def test_a_mosaic_is_its_tiles_along_the_normal_of_its_csa_header(tmp_path: Path, z_normal: float) -> None:
    values = volumes(times=2, depth=5)
    for t, volume in enumerate(values):
        save(mosaic(volume, z_normal, t + 1, AcquisitionTime=f"10000{t}"), tmp_path / f"{t}.dcm")
    source = DicomSource(tmp_path, BAND)
    # slices are ordered along the normal of rows and columns, whichever way the tiles go
    np.testing.assert_array_equal(read_all(source), values[:, :: int(z_normal)])
    first = 0.0 if z_normal > 0 else -12.0
    np.testing.assert_allclose(
        source.native_grid().matrix_of_centres, [[1.5, 0, 0, -10], [0, 2, 0, -20], [0, 0, 3, first]], atol=1e-9
    )


def test_a_compressed_series_is_decoded_and_padding_is_missing(tmp_path: Path) -> None:
    values = volumes(times=2).astype("uint16")
    write_series(tmp_path, values, PixelPaddingValue=7)
    for path in tmp_path.iterdir():
        made = pydicom.dcmread(path)
        made.compress(RLELossless)
        made.save_as(path)
    source = DicomSource(tmp_path, BAND)
    np.testing.assert_array_equal(read_all(source), values)
    assert source.bands[0].nodata == 7


@pytest.mark.filterwarnings("ignore:Implicitly cleaning up")  # pydicom's FileSet leaves its folder to the garbage collector
def test_a_dicomdir_lists_the_files(tmp_path: Path) -> None:
    from pydicom.fileset import FileSet

    fileset = FileSet()
    for path in sorted(
        write_series(tmp_path / "in", volumes(times=1), StudyInstanceUID="1.2.9", StudyID="1", StudyTime="100000").iterdir()
    ):
        fileset.add(path)
    fileset.write(tmp_path / "disc")
    del fileset
    gc.collect()
    directory = tmp_path / "disc" / "DICOMDIR"
    np.testing.assert_array_equal(read_all(DicomSource(directory, BAND)), volumes(times=1))
    np.testing.assert_array_equal(read_all(DicomSource(directory.parent, BAND)), volumes(times=1))
    next(path for path in sorted(directory.parent.rglob("*")) if path.is_file() and path != directory).unlink()
    with pytest.raises(RequestError, match="DICOMDIR lists 1 files that are not there"):
        DicomSource(directory, BAND).list_scenes()


def test_a_cube_holds_the_series_and_nothing_of_the_patient(tmp_path: Path) -> None:
    folder, uri = write_series(tmp_path / "Canary^Patient", volumes()), str(tmp_path / "cube")
    source = pickle.loads(pickle.dumps(DicomSource(folder, BAND)))
    report = ingest(source, None, uri, None, IngestSettings())
    cube = open_cube(uri)
    np.testing.assert_array_equal(cube.image[:, 0], volumes())
    assert grid_of(cube) == source.native_grid()
    assert grid_of(cube).frame.uid.startswith("2.25.")
    text = str((cube, cube.attrs, cube.spatial_ref.attrs, cube.source.values, cube.scene_id.values, report.notes)).lower()
    assert not [secret for secret in ("canary", "1.2.3.4.5678", ".dcm") if secret in text]
    assert not ingest(DicomSource(folder, BAND), None, uri, None, IngestSettings()).is_new


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("gantrytilting", "gantry tilt: .* leans by 14"),
        ("notavolume", "not a volume: all 4 images lie at one slice position"),
        ("slicecount", "missing slices: 2 of one time"),
        ("sliceincrement", "uneven increments: the slices lie 5 to 10 mm apart"),
        ("sliceorientation", "mixed orientation: the images lie in 2 directions"),
    ],
)
def test_real_bad_geometry_is_refused_by_name(shared_data: Callable[[str], Path], case: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        DicomSource(shared_data(f"medical/dicom-series/bad-geometry/{case}"), BAND).list_scenes()


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def change(name: str, **elements: Any) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        made = pydicom.dcmread(folder / name)
        for keyword, value in elements.items():
            setattr(made, keyword, value)
        made.save_as(folder / name)

    return edit


def tilt(folder: Path) -> None:
    for path in folder.iterdir():
        made = pydicom.dcmread(path)
        x, y, z = made.ImagePositionPatient
        made.ImagePositionPatient = [x, y + 0.3 * z, z]
        made.save_as(path)


def copy_of(name: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        shutil.copy(folder / name, folder / "copy.dcm")
        change("copy.dcm", SOPInstanceUID="1.2.3.4.99")(folder)

    return make


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (remove("3-0.dcm"), "missing slices: 1 of 4 are not there"),
        (copy_of("2-0.dcm"), "duplicate slices: up to 2 images lie at one position"),
        (change("2-0.dcm", ImagePositionPatient=[-10, -20, 6.9]), "uneven increments"),
        (tilt, "gantry tilt: .* leans by 16.7 degrees"),
        (change("1-0.dcm", ImageOrientationPatient=[0, 1, 0, 0, 0, 1]), "mixed orientation"),
        (change("1-0.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer: 1 of 4 images"),
        (change("1-0.dcm", PixelSpacing=[1, 1]), "mixed pixel spacing"),
        (change("1-0.dcm", ImagePositionPatient=None), "not a volume: 1 of 4 images state no position"),
        (
            lambda folder: save(classic(np.zeros((9, 9), "int16"), 12.0, 9), folder / "x.dcm"),
            "mixed sizes: 6 x 5 .4 images., 9 x 9",
        ),
        (change("1-0.dcm", ImagePositionPatient=[1, 2]), "an element of geometry, time or pixels has no valid value"),
    ],
    ids=["hole", "copy", "uneven", "tilt", "orientation", "localizer", "spacing", "no position", "sizes", "nonsense"],
)
@pytest.mark.filterwarnings("ignore")  # pydicom warns of what is written wrongly on purpose
def test_a_broken_volume_is_refused_by_name(tmp_path: Path, edit: Callable[[Path], object], message: str) -> None:
    folder = write_series(tmp_path, volumes(times=1))
    edit(folder)
    with pytest.raises(RequestError, match=message) as caught:
        DicomSource(folder, BAND).list_scenes()
    assert "Canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"EchoTime": lambda t: 10.0 * (t + 1)}, "several contrasts: .* differ in echo time"),
        ({"DiffusionBValue": lambda t: 500.0 * t}, "several contrasts: .* differ in b-value"),
        ({"ImageType": lambda t: ["ORIGINAL", "PRIMARY", "MP"[t]]}, "several contrasts: .* differ in image type"),
        ({}, "duplicate slices"),
        ({"AcquisitionNumber": lambda t: t}, "no frame times: the acquisition number orders the 2 times"),
    ],
    ids=["echoes", "b-values", "phase", "nothing", "no interval"],
)
def test_positions_that_repeat_for_another_reason_are_no_series(tmp_path: Path, elements: dict[str, Any], message: str) -> None:
    for t, volume in enumerate(volumes(times=2)):
        of_time = {keyword: value(t) for keyword, value in elements.items()}
        write_series(tmp_path / str(t), volume[None], AcquisitionTime="100000", **of_time)
    with pytest.raises(RequestError, match=message):
        DicomSource(tmp_path, BAND).list_scenes()


def test_a_time_that_lacks_a_slice_or_is_cut_is_refused_alone(tmp_path: Path) -> None:
    for t, volume in enumerate(volumes()):
        write_series(tmp_path / str(t), volume[None], TemporalPositionIdentifier=t + 1, AcquisitionTime=f"10000{t}")
    (tmp_path / "0" / "2-0.dcm").unlink()
    cut = tmp_path / "2" / "2-0.dcm"
    cut.write_bytes(cut.read_bytes()[:-20])
    listing = DicomSource(tmp_path, BAND).list_scenes()
    assert [scene.id for scene in listing.scenes] == ["frame-0001"]
    assert {refusal.scene_id: refusal.reason for refusal in listing.refused} == {
        "frame-0000": "missing-slices",
        "frame-0002": "truncated",
    }


@pytest.mark.parametrize("compressed", [False, True])
def test_no_truncation_is_accepted(tmp_path: Path, compressed: bool) -> None:
    folder = write_series(tmp_path / "whole", volumes(times=1))
    source_file = folder / "1-0.dcm"
    if compressed:
        made = pydicom.dcmread(source_file)
        made.compress(RLELossless)
        made.save_as(source_file)
    content = source_file.read_bytes()
    for length in np.linspace(140, len(content) - 1, 25).astype(int):
        source_file.write_bytes(content[:length])
        source = DicomSource(folder, BAND)
        try:
            listing = source.list_scenes()
        except RequestError:
            continue  # without the file the volume has 3 slices and a remark, or too few
        assert listing.refused, length


def test_several_series_are_listed_and_one_is_chosen(tmp_path: Path) -> None:
    write_series(tmp_path / "a", volumes())
    write_series(tmp_path / "b", volumes(times=1) + 100, SeriesInstanceUID="1.2.77", SeriesNumber=9)
    with pytest.raises(RequestError, match=r"there are 2 series(.|\n)*series 5: MR, 12 files(.|\n)*series 9: MR, 4 files"):
        DicomSource(tmp_path, BAND).list_scenes()
    for chosen in ("9", "1.2.77", "#2"):
        source = DicomSource(tmp_path, BAND, series=chosen)
        np.testing.assert_array_equal(read_all(source), volumes(times=1) + 100)
    with pytest.raises(RequestError, match="'77' is none of them"):
        DicomSource(tmp_path, BAND, series="77").list_scenes()


def test_files_without_images_and_other_files_are_not_a_series(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM")
    with pytest.raises(RequestError, match="holds no DICOM file"):
        DicomSource(tmp_path, BAND).list_scenes()
    made = dataset(np.zeros((2, 2), "uint8"), "1.2.840.10008.5.1.4.1.1.88.22")  # a structured report
    for keyword in ("Rows", "Columns", "PixelData", "BitsAllocated"):
        delattr(made, keyword)
    save(made, tmp_path / "report.dcm")
    with pytest.raises(RequestError, match="none with an image"):
        DicomSource(tmp_path, BAND).list_scenes()


def test_without_pydicom_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(RequestError, match=r"pip install 'driftline\[medical\]'"):
        DicomSource(tmp_path, BAND).list_scenes()


def test_pixels_that_disappear_are_a_refusal(tmp_path: Path) -> None:
    folder = write_series(tmp_path, volumes())
    source = DicomSource(folder, BAND)
    scene, grid = source.list_scenes().scenes[0], source.native_grid()
    shutil.rmtree(folder)
    with pytest.raises(SceneRefused, match="cannot be decoded"):
        source.read(scene, grid, ("bold",), "nearest")


@pytest.mark.parametrize("signed", [0, 1])
def test_what_is_in_unused_bits_is_not_read(signed: int, tmp_path: Path) -> None:
    folder = write_series(tmp_path, volumes(times=1))
    for path in folder.iterdir():
        made = pydicom.dcmread(path)
        made.BitsStored, made.HighBit, made.PixelRepresentation = 12, 11, signed
        made.PixelData = np.random.default_rng(1).integers(0, 2**16, made.Rows * made.Columns, np.uint16).tobytes()
        made.save_as(path)
    decoded = np.stack([pydicom.dcmread(path).pixel_array for path in sorted(folder.iterdir())])
    read_ZYX = read_all(DicomSource(folder, BAND))[0]
    assert (np.sort(read_ZYX, axis=0) == np.sort(decoded, axis=0)).all()
    assert read_ZYX.max() < (2**11 if signed else 2**12)


def test_a_decoder_that_dies_costs_its_time_and_names_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_series(tmp_path, volumes(times=1))
    made = pydicom.dcmread(folder / "1-0.dcm")
    made.compress(RLELossless)
    made.save_as(folder / "1-0.dcm")
    source = DicomSource(folder, BAND)
    np.testing.assert_array_equal(read_all(source), volumes(times=1))

    def isolated(*args: Any, label: str, **options: Any) -> Any:
        raise SceneRefused(label, "unreadable", "the decoder was killed by signal 11 while reading 1-0.dcm")

    monkeypatch.setattr(dicom, "isolated", isolated)
    with pytest.raises(SceneRefused, match=r"frame-0000.* file 1 .in order of name.: its decoder was killed") as caught:
        read_all(source)
    assert "1-0" not in str(caught.value)


# ---------------------------------------------------------------- cines: images in their own plane


def cine(folder: Path, **elements: Any) -> DicomSource:
    """An ultrasound cine of four images of 6 x 5 pixels, 40 ms apart unless `elements` say otherwise."""
    frames = volumes(times=1)[0].astype("uint8")
    times = {"FrameTime": 40.0, "ContentDate": "20200131", "ContentTime": "100000", "Modality": "US"}
    return DicomSource(save(dataset(frames, **(times | elements)), folder / "clip.dcm"), BAND)


def region(x: int, y: int, delta_cm: float) -> Any:
    edges = {"RegionLocationMinX0": 0, "RegionLocationMinY0": 0, "RegionLocationMaxX1": x, "RegionLocationMaxY1": y}
    units = {"PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3, "RegionSpatialFormat": 1}
    return group(PhysicalDeltaX=delta_cm, PhysicalDeltaY=2 * delta_cm, **edges, **units)[0]


def test_a_cine_keeps_its_frames_and_frame_times(tmp_path: Path) -> None:
    source = cine(tmp_path, FrameTimeVector=[0, 40, 30, 50], FrameTime=None)
    np.testing.assert_array_equal(read_all(source), volumes(times=1)[0])
    np.testing.assert_allclose(seconds(source), [0, 0.04, 0.07, 0.12])
    assert source.list_scenes().scenes[0].observed_utc == np.datetime64("2020-01-31T10:00:00")
    assert source.native_grid().dims == ("y", "x")
    rows = source.read(source.list_scenes().scenes[1], source.native_grid(), ("bold",), "nearest", slice(2, 4))
    np.testing.assert_array_equal(rows[0], volumes(times=1)[0, 1, 2:4])


@pytest.mark.parametrize(
    ("elements", "expected", "note"),
    [
        ({}, ("px", 1.0, 1.0), "the size of a pixel is unknown"),
        ({"PixelSpacing": [0.5, 0.25]}, ("mm", 0.5, 0.25), ""),
        ({"ImagerPixelSpacing": [0.5, 0.25]}, ("px", 1.0, 1.0), "that of the detector"),
        ({"SequenceOfUltrasoundRegions": [region(5, 6, 0.02)]}, ("mm", 0.4, 0.2), "that of the ultrasound region"),
        ({"SequenceOfUltrasoundRegions": [region(9, 6, 0.02)]}, ("px", 1.0, 1.0), "an image of another size"),
        (
            {"SequenceOfUltrasoundRegions": [region(5, 3, 0.02), region(5, 6, 0.03)]},
            ("px", 1.0, 1.0),
            "2 regions state 2 different",
        ),
    ],
    ids=["nothing", "spacing", "detector", "region", "of another size", "two sizes"],
)
def test_the_size_of_a_pixel_is_stated_or_unknown(tmp_path: Path, elements: dict[str, Any], expected: Any, note: str) -> None:
    source = cine(tmp_path, **elements)
    grid = source.native_grid()
    assert (grid.unit, *grid.spacing) == pytest.approx(expected)
    assert not note or any(note in line for line in source.list_scenes().notes)
    uri = str(tmp_path / "cube")
    ingest(source, None, uri, None, IngestSettings())
    assert grid_of(open_cube(uri)) == grid


def test_a_cine_without_frame_times_and_several_clips_are_refused(tmp_path: Path) -> None:
    source = cine(tmp_path, FrameTime=None, CineRate=25)
    with pytest.raises(RequestError, match=r"no frame times: .*rates of playback do not"):
        source.list_scenes()
    assert seconds(DicomSource(source.path, BAND, frame_time=0.5)) == [0, 0.5, 1, 1.5]
    shutil.copy(source.path, tmp_path / "other.dcm")
    change("other.dcm", SOPInstanceUID="1.2.3.4.99")(tmp_path)
    with pytest.raises(RequestError, match="several clips: the series has 2 files"):
        DicomSource(tmp_path, BAND).list_scenes()


HTJ2K = base64.b64decode(  # of (arange(48) * 37 - 500) as 8 rows and 6 columns of int16, by OpenJPH
    "/0//UQApQAAAAAAGAAAACAAAAAAAAAAAAAAABgAAAAgAAAAAAAAAAAABjwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJCQkJCQiIiI"
    "/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAFIAAf+TwAAlpgEHdAAAAMAAEsAAEoA4AYd0AOgCh3QAwAARwAATACtzAOabAINUAMAAKmAAFSBI"
    "BEH+l+CLdQC6dXXAGMCMtgD/2Q=="
)


def test_high_throughput_jpeg_2000_is_read_exactly(tmp_path: Path) -> None:
    expected = (np.arange(48).reshape(8, 6) * 37 - 500).astype("int16")
    for k in range(3):
        made = classic(expected, 3.0 * k, k)
        made.PixelData, made.file_meta.TransferSyntaxUID = encapsulate([HTJ2K]), "1.2.840.10008.1.2.4.201"
        made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
        save(made, tmp_path / f"{k}.dcm")
    source = DicomSource(tmp_path, BAND)
    (scene,) = source.list_scenes().scenes
    np.testing.assert_array_equal(source.read(scene, source.native_grid(), ("bold",), "nearest")[0], np.stack([expected] * 3))


def test_a_gantry_that_moves_is_said(tmp_path: Path) -> None:
    notes = cine(tmp_path, Modality="XA", PositionerMotion="DYNAMIC").list_scenes().notes
    assert any(note.startswith("the gantry moves during the run") for note in notes)
    assert not any("moves" in note for note in cine(tmp_path, PositionerMotion="STATIC").list_scenes().notes)


def test_a_real_echo_is_grey_and_its_region_is_of_another_size() -> None:
    source = DicomSource(Path(pydicom.data.get_testdata_file("examples_ybr_color.dcm")), BAND)
    listing = source.list_scenes()
    assert (len(listing.scenes), source.native_grid().shape, source.native_grid().unit) == (30, (240, 320), "px")
    assert any("converted to grey" in note for note in listing.notes)
    frame = source.read(listing.scenes[3], source.native_grid(), ("bold",), "nearest")[0]
    assert (frame.dtype, frame.max() > 100) == (np.uint8, True)
