"""Masks of patients from NIfTI, DICOM SEG and NumPy files, onto the grid of their series, and back out of what was written."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from made_dicom import dataset, save, volumes, write_series
from PIL import Image
from pydicom.uid import UltrasoundMultiFrameImageStorage

from pipelines.calendar import is_elapsed
from pipelines.errors import MissingInput, RequestError
from pipelines.grid import Grid, ImagePlane, PatientFrame
from pipelines.products.dicom_seg import Maker, SegmentClass, write_segmentations
from pipelines.products.nifti import affine_ras
from pipelines.scene import Band
from pipelines.sources.dicom import DicomSource
from pipelines.sources.dicom_references import referenced_series
from pipelines.tracking.label_files import read_labels
from pipelines.tracking.label_series import LabelSeries, on_grid
from pipelines.tracking.seg_files import find_seg

OBLIQUE = [[1.2, -0.9, 0, -10], [1.6, 1.2, 0, -20], [0, 0, 3, 30]]
GRID = Grid.from_centres(PatientFrame("1.2"), OBLIQUE, (4, 6, 5))
LABELS = np.random.default_rng(0).integers(0, 3, (2, *GRID.shape), dtype=np.uint8)


def save_nifti(path: Path, labels_TZYX: np.ndarray, grid: Grid) -> Path:
    nibabel.save(nibabel.Nifti1Image(labels_TZYX.T, affine_ras(grid)), path)
    return path


def test_nifti_masks_lie_on_their_series_whatever_the_order_of_their_axes(tmp_path: Path) -> None:
    plain = read_labels([save_nifti(tmp_path / "plain.nii.gz", LABELS, GRID)])
    labels, notes = on_grid(plain, 2, GRID)
    np.testing.assert_array_equal(labels, LABELS)
    assert notes == []
    image = nibabel.load(tmp_path / "plain.nii.gz")
    for turns in ([[1, -1], [0, 1], [2, -1]], [[2, 1], [1, -1], [0, 1]], [[1, 1], [2, -1], [0, -1]]):
        nibabel.save(image.as_reoriented(np.array(turns)), tmp_path / "turned.nii")
        labels, notes = on_grid(read_labels([tmp_path / "turned.nii"]), 2, GRID)
        np.testing.assert_array_equal(labels, LABELS)
        assert "they are turned" in notes[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda matrix: matrix + np.outer([1, 0, 0], [0, 0, 0, 0.1]),  # a shift of a twentieth of a voxel
        lambda matrix: matrix * [1, 1, 1.01, 1],
        lambda matrix: matrix[[1, 0, 2]],
        lambda matrix: matrix @ np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    ],
)
def test_masks_that_lie_elsewhere_are_refused(change: Any) -> None:
    elsewhere = Grid.from_centres(PatientFrame(), change(np.array(OBLIQUE)), GRID.shape)
    with pytest.raises(RequestError, match="do not lie on those of the series"):
        on_grid(LabelSeries(LABELS, elsewhere, [0.0, 1.0], {}), 2, GRID)


def test_arrays_have_no_position_and_need_the_shape_of_the_series(tmp_path: Path) -> None:
    np.save(tmp_path / "masks.npy", LABELS.astype(np.int64))
    series = read_labels([tmp_path / "masks.npy"])
    labels, notes = on_grid(series, 2, GRID)
    np.testing.assert_array_equal(labels, LABELS)
    assert "state no position" in notes[0]
    with pytest.raises(RequestError, match=r"2 x 4 x 6 x 5 pixels .* 3 x 4 x 6 x 5"):
        on_grid(series, 3, GRID)
    plane = Grid(ImagePlane(), (1.0, 0, 0, 0, 1, 0), (6, 5))
    single = LabelSeries(LABELS[:, :1], GRID, [0.0, 1.0], {})  # a clip as NIfTI has one slice
    np.testing.assert_array_equal(on_grid(single, 2, plane)[0], LABELS[:, 0])


def test_png_files_are_frames_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for t in range(11):
        Image.fromarray(np.full((6, 5), t, np.uint8)).save(tmp_path / f"mask-{t}.png")
    labels, notes = on_grid(read_labels([tmp_path]), 11, Grid(ImagePlane(), (1.0, 0, 0, 0, 1, 0), (6, 5)))
    np.testing.assert_array_equal(labels[:, 0, 0], np.arange(11))
    assert notes == []


def test_what_are_no_masks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "masks.npy").write_bytes(b"\x93NUMPY\x01\x00no")
    (tmp_path / "a.txt").write_text("no")
    save_nifti(tmp_path / "image.nii", LABELS.astype(np.float32) + 0.5, GRID)
    write_series(tmp_path / "scan", volumes(1))
    for name, error, message in (
        ("masks.npy", RequestError, "cannot be read as a NumPy array"),
        ("a.txt", RequestError, "expected masks as"),
        ("image.nii", RequestError, "an image, not a mask"),
        ("scan", RequestError, "no binary segmentation"),
        ("nothing", MissingInput, "no such file"),
    ):
        with pytest.raises(error, match=message):
            read_labels([tmp_path / name])


def test_messages_on_pictures_do_not_repeat_their_names(tmp_path: Path) -> None:
    for name, content in (("no picture", b"no"), ("cut off", b""), ("coloured", b"")):
        folder = tmp_path / name
        folder.mkdir()
        for t in range(3):
            Image.fromarray(np.zeros((6, 5, 3) if name == "coloured" and t else (6, 5), np.uint8)).save(folder / f"Doe-{t}.png")
        if name == "coloured":
            Image.fromarray(np.arange(90, dtype=np.uint8).reshape(6, 5, 3)).save(folder / "Doe-1.png")
        else:
            (folder / "Doe-1.png").write_bytes(content or (folder / "Doe-1.png").read_bytes()[:-20])
        with pytest.raises(RequestError, match=r"PNG file 2 of 3 \(in natural order of names\)") as caught:
            read_labels([folder])
        assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("kind", ["volume", "volume-without-frame", "cine", "cine-without-date"])
def test_segmentations_come_back_as_they_were_written(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("highdicom")
    uids = {"StudyInstanceUID": "1.2.3.4"}
    is_cine = kind.startswith("cine")
    if is_cine:
        about = {"FrameTime": 40.0, "PixelSpacing": [0.4, 0.3], **uids, **({"StudyDate": None} if kind != "cine" else {})}
        save(dataset(volumes(1)[0], UltrasoundMultiFrameImageStorage, **about), tmp_path / "a.dcm")
    else:
        frame = {"FrameOfReferenceUID": None} if kind == "volume-without-frame" else {}
        write_series(tmp_path / "scan", volumes(3), **uids, **frame)
    source = referenced_series(DicomSource(tmp_path / "a.dcm" if is_cine else tmp_path / "scan", Band("image")))
    masks = np.random.default_rng(0).choice(np.array([0, 1, 4], np.uint8), (len(source.frames), *source.grid.shape))
    classes = [SegmentClass(1, "one"), SegmentClass(4, "four")]
    paths = write_segmentations(masks, classes, source, tmp_path / "seg", Maker("driftline", "1"))
    assert find_seg([tmp_path / "seg"]) == paths
    found = read_labels(paths[::-1])
    np.testing.assert_array_equal(found.labels, np.where(masks == 4, 2, masks))
    assert found.grid is not None
    assert found.grid.is_aligned(source.grid, 1e-6)
    assert found.names == {1: "one", 2: "four"}
    times = np.array(found.times, "datetime64[ns]")
    elapsed = (times - times[0]) / np.timedelta64(1, "s")
    np.testing.assert_allclose(elapsed, (0.04 if is_cine else 2.5) * np.arange(len(masks)), atol=1e-9)
    assert is_elapsed(times[0]) == (kind == "cine-without-date")


def test_objects_of_segmentations_are_tracked_in_mm(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    from flows.track import track

    source = referenced_series(
        DicomSource(write_series(tmp_path / "scan", volumes(3), StudyInstanceUID="1.2.3.4"), Band("image"))
    )
    masks = np.zeros((3, 4, 6, 5), np.uint8)
    for t in range(3):
        masks[t, 1:3, 1 : 3 + t, 1:3] = 1
    write_segmentations(masks, [SegmentClass(1, "one")], source, tmp_path / "seg", Maker("driftline", "1"))
    record = track([tmp_path / "seg"], tmp_path / "out")
    assert (record["tracks"], record["events"]) == (1, {"grown": 2, "first seen": 1})
    assert record["volume_mm3_on_last_date"] == pytest.approx(2 * 4 * 2 * 1.5 * 2 * 3, rel=1e-5)
    heading, first, *_ = (tmp_path / "out" / "objects.csv").read_text().splitlines()
    row = dict(zip(heading.split(","), first.split(","), strict=True))
    assert row["date"].startswith("2020-01-31 10:00:00")
    middle = source.grid.to_world([2.0, 2.0, 2.0])  # of the box [1, 3) on every axis
    np.testing.assert_allclose([float(row[axis]) for axis in "xyz"], middle, atol=1e-4)
    with pytest.raises(RequestError, match="of one time"):
        track([tmp_path / "seg" / "seg-0001.dcm"], tmp_path / "out")
    with pytest.raises(RequestError, match="leave --pattern and --spacing-mm out"):
        track([tmp_path / "seg"], tmp_path / "out", spacing_mm=(1, 1))
