"""Label volumes land on the voxels that they were drawn on, whatever the order of their axes; what is no label is refused."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from pipelines.errors import MissingInput, RequestError
from pipelines.grid import Grid
from pipelines.samples.label_volumes import read_label_volume
from pipelines.samples.labels import Given, Span, resolve_labels
from pipelines.scene import Band
from pipelines.sources.nifti import NiftiSource

SPAN = Span(np.datetime64("1800-01-01", "s"), np.datetime64("1800-01-01T00:01:00", "s"))
CODES = {7: "lesion", 2: "muscle"}
AFFINE = nibabel.affines.from_matvec(np.array([[0, 0, -4], [2, 0.1, 0], [-0.1, 2, 0]]), [31.5, -20, 7])  # sagittal, oblique


def codes_of(shape: tuple[int, ...] = (9, 8, 5)) -> np.ndarray:
    return np.random.default_rng(0).choice([0, 2, 5, 7], shape, p=[0.7, 0.1, 0.1, 0.1]).astype("uint8")


def save(path: Path, codes_XYZ: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(codes_XYZ, affine), path)
    return path


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    """Of a series of (9, 8, 5) voxels (x, y, z)."""
    return NiftiSource(save(tmp_path / "series.nii", codes_of()), Band("t1"), frame_time=1.0).native_grid()


def as_volume(given: Given, grid: Grid) -> np.ndarray:
    labels = resolve_labels(given, grid, tuple(CODES.values()))
    found_ZYX = np.full(grid.shape, -1)
    found_ZYX[labels.place()] = labels.class_P
    assert labels.keep(labels.class_P == 0, "no class").place()[0].size == labels.counts()["lesion"]
    return found_ZYX


@pytest.mark.parametrize("turned", [False, True])
def test_a_label_lies_on_the_voxel_that_it_was_drawn_on(turned: bool, grid: Grid, tmp_path: Path) -> None:
    codes_XYZ = codes_of()
    image = nibabel.Nifti1Image(codes_XYZ, AFFINE)
    image = nibabel.as_closest_canonical(image) if turned else image
    given = read_label_volume(save(tmp_path / "labels.nii.gz", np.asarray(image.dataobj), image.affine), CODES, grid, SPAN)
    expected_ZYX = np.select([codes_XYZ.T == 7, codes_XYZ.T == 2], [0, 1], -1)
    np.testing.assert_array_equal(as_volume(given, grid), expected_ZYX)
    assert len(given.notes) == turned


def test_a_smaller_or_coarser_label_volume_leaves_the_rest_unlabelled(grid: Grid, tmp_path: Path) -> None:
    part = codes_of()[2:6, 1:7, 3:]
    moved = AFFINE @ nibabel.affines.from_matvec(np.eye(3), [2, 1, 3])
    found_ZYX = as_volume(read_label_volume(save(tmp_path / "part.nii", part, moved), CODES, grid, SPAN), grid)
    assert (found_ZYX[3:, 1:7, 2:6] >= 0).sum() == (found_ZYX >= 0).sum() == np.isin(part, [2, 7]).sum()
    coarse = AFFINE @ nibabel.affines.from_matvec(np.diag([3.0, 2.0, 1.0]), [1, 0.5, 0])  # a voxel holds 3 x 2 x 1 of the series
    blocks = codes_of((3, 4, 5))
    given = read_label_volume(save(tmp_path / "coarse.nii", blocks, coarse), CODES, grid, SPAN)
    np.testing.assert_array_equal(as_volume(given, grid) >= 0, np.isin(np.kron(blocks, np.ones((3, 2, 1))), [2, 7]).T)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((9, 8, 5), "uint8"), "none of the codes 7, 2 on the series, only 0"),
        (np.zeros((9, 8, 5, 2), "uint8"), "holds 2 volumes, expected one"),
        (np.full((9, 8, 5), 0.5, "float32"), "holds fractions, no codes"),
    ],
)
def test_what_is_no_label_volume_is_refused_without_the_name_of_the_file(
    codes: np.ndarray, message: str, grid: Grid, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=message) as error:
        read_label_volume(save(tmp_path / "mueller.nii", codes), CODES, grid, SPAN)
    assert "mueller" not in str(error.value)
    with pytest.raises(MissingInput, match=r"no label volume at labels\.path"):
        read_label_volume(tmp_path / "none.nii", CODES, grid, SPAN)
