"""Which file is which visit of whom, and masks on the common grid."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from pipelines.errors import RequestError
from pipelines.grid import Grid
from pipelines.sources.proposal import propose_run
from pipelines.sources.visit_files import VisitFiles
from pipelines.sources.visit_proposal import find_visits
from pipelines.sources.visits import mask_on_grid
from tests.made_visits import grid_of, rigid, write_nifti, write_patient

pytest.importorskip("nibabel")
SMALL = grid_of((4, 5, 6), (2.0, 2.0, 3.0), (10, 0, 5))


def files(folder: Path, *names: str, **patterns: str) -> VisitFiles:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return VisitFiles(folder, patterns)


def test_visits_are_in_natural_order_under_their_numbers_and_one_may_be_missing(tmp_path: Path) -> None:
    found = files(tmp_path, "b/v10.nii.gz", "b/v2.nii", "a/v1.nii.gz", "b/other.txt", visit="{patient}/v{visit}.nii*")
    assert found.names() == ["a", "b"]
    assert [one.id for one in found.visits("b")] == ["visit-2", "visit-10"]


def test_what_is_no_small_number_is_counted_so_that_no_name_leaves_the_path(tmp_path: Path) -> None:
    found = files(tmp_path, "Doe-baseline.nii.gz", "Doe-20190301.nii.gz", visit="Doe-{visit}.nii.gz")
    assert [one.name for one in found.visits("")] == ["1", "2"]
    assert "2019" not in repr([one.id for one in found.visits("")])


def test_files_beside_the_visits_are_found_by_the_same_fields(tmp_path: Path) -> None:
    names = ("a/s1.nii.gz", "a/s2.nii.gz", "t/a_1.txt", "t/a_2.txt", "atlas.nii.gz", "a/m1.nii.gz", "a/m2.nii.gz")
    patterns = {"visit": "{patient}/s{visit}.nii.gz", "transform": "t/{patient}_{visit}.txt", "grid": "atlas.nii.gz"}
    found = files(tmp_path, *names, **patterns, lesions="{patient}/m{visit}.nii.gz", brain="{patient}/*m.nii.gz")
    one, two = found.visits("a")
    assert found.file_of("transform", "a", two) == tmp_path / "t/a_2.txt"
    assert found.file_of("lesions", "a", one) == tmp_path / "a/m1.nii.gz"
    assert (found.file_of("grid", "a"), found.file_of("brain", "a")) == (tmp_path / "atlas.nii.gz", None)


def test_two_files_of_one_visit_are_an_error_without_their_names(tmp_path: Path) -> None:
    found = files(tmp_path, "a/s1_doe.nii.gz", "a/s1_roe.nii.gz", visit="{patient}/s{visit}_*.nii.gz")
    with pytest.raises(RequestError, match="2 files fit the pattern of the visit") as e:
        found.visits("a")
    assert "doe" not in str(e.value)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "far.nii.gz").touch()
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "s1.nii.gz").symlink_to(tmp_path / "far.nii.gz")
    with pytest.raises(RequestError, match="fits none of the 0 files"):
        files(inside, visit="s{visit}.nii.gz").names()


def nearly(grid: Grid) -> Grid:
    return Grid(grid.frame, tuple(value * (1 + 2e-7) for value in grid.transform), grid.shape)


def test_a_mask_on_the_grid_is_taken_voxel_by_voxel_though_spacings_differ_in_the_seventh_digit(tmp_path: Path) -> None:
    codes_ZYX = np.random.default_rng(0).integers(0, 5, SMALL.shape).astype(np.int16)
    path = write_nifti(tmp_path / "m.nii.gz", codes_ZYX, nearly(SMALL))
    assert np.array_equal(mask_on_grid(path, SMALL), codes_ZYX)


def test_a_mask_goes_where_its_visit_goes(tmp_path: Path) -> None:
    codes_ZYX = np.random.default_rng(0).integers(1, 5, SMALL.shape).astype(np.int16)
    visit = Grid.from_centres(
        SMALL.frame, SMALL.matrix_of_centres + np.array([[0, 0, 0, 7], [0, 0, 0, 0], [0, 0, 0, 0]]), SMALL.shape
    )
    path = write_nifti(tmp_path / "m.nii.gz", codes_ZYX, visit)
    moved = rigid((7, 0, 0))
    assert np.array_equal(mask_on_grid(path, SMALL, places=[(visit, tuple(moved.ravel()))]), codes_ZYX)
    other = rigid((-7, 0, 0))
    with pytest.raises(RequestError, match="voxels of 2 visits"):
        mask_on_grid(path, SMALL, places=[(visit, tuple(moved.ravel())), (visit, tuple(other.ravel()))])


def test_axes_of_a_mask_may_be_reversed_and_its_edges_cut_off(tmp_path: Path) -> None:
    codes_ZYX = np.random.default_rng(0).integers(1, 5, SMALL.shape).astype(np.int16)
    away = SMALL.matrix_of_centres + np.array([[0, 0, 0, 7], [0, 0, 0, 0], [0, 0, 0, 0]])
    visit, moved = Grid.from_centres(SMALL.frame, away, SMALL.shape), rigid((7, 0, 0))
    of_visit = {"places": [(visit, tuple(moved.ravel()))], "if_both": "refuse", "of_visit": True, "least_share": 0.9}
    turned = write_nifti(tmp_path / "t.nii.gz", codes_ZYX[:, :, ::-1], visit.flipped("x"))
    assert np.array_equal(mask_on_grid(turned, SMALL, **of_visit), codes_ZYX)
    part = slice(1, 3), slice(1, 4), slice(0, 5)
    cut, kept_ZYX = write_nifti(tmp_path / "c.nii.gz", codes_ZYX[part], visit.window(*part)), np.zeros_like(codes_ZYX)
    kept_ZYX[part] = codes_ZYX[part]
    assert np.array_equal(mask_on_grid(cut, SMALL, **of_visit), kept_ZYX)
    lost = write_nifti(tmp_path / "l.nii.gz", codes_ZYX, Grid.from_centres(SMALL.frame, np.eye(4)[:3], SMALL.shape))
    with pytest.raises(RequestError, match="neither on the voxels of its visit nor on those of the common grid"):
        mask_on_grid(lost, SMALL, **of_visit)
    beside = Grid.from_centres(SMALL.frame, SMALL.matrix_of_centres + np.array([[0, 0, 0, 4.0], [0] * 4, [0] * 4]), SMALL.shape)
    with pytest.raises(RequestError, match="only 67% of it lies within the common grid"):
        mask_on_grid(write_nifti(tmp_path / "b.nii.gz", codes_ZYX, beside), SMALL, least_share=0.9)


def test_a_mask_of_a_visit_whose_header_is_that_of_the_grid_goes_where_the_visit_goes_or_is_refused(tmp_path: Path) -> None:
    codes_ZYX = np.zeros(SMALL.shape, np.int16)
    codes_ZYX[:, :, 4] = 3
    path, moved = write_nifti(tmp_path / "m.nii.gz", codes_ZYX, SMALL), rigid((SMALL.spacing[2] * 2, 0, 0))
    places = [(SMALL, tuple(moved.ravel()))]
    assert np.array_equal(mask_on_grid(path, SMALL, places=places), codes_ZYX)
    found_ZYX = mask_on_grid(path, SMALL, places=places, if_both="visit")
    assert set(np.argwhere(found_ZYX)[:, 2]) == {2}
    with pytest.raises(RequestError, match="on the voxels of its visit or on the common grid"):
        mask_on_grid(path, SMALL, places=places, if_both="refuse")
    still = [(SMALL, tuple(np.eye(4).ravel()))]
    assert np.array_equal(mask_on_grid(path, SMALL, places=still, if_both="refuse"), codes_ZYX)


def test_what_is_no_mask_of_this_place_is_refused(tmp_path: Path) -> None:
    ones = np.ones(SMALL.shape, np.float32)
    ones[0] = np.nan
    assert mask_on_grid(write_nifti(tmp_path / "n.nii.gz", ones, SMALL), SMALL).sum() == SMALL.shape[1] * SMALL.shape[2] * 3
    halves = write_nifti(tmp_path / "h.nii.gz", np.full(SMALL.shape, 0.5, np.float32), SMALL)
    with pytest.raises(RequestError, match="no whole numbers"):
        mask_on_grid(halves, SMALL)
    far = Grid.from_centres(SMALL.frame, SMALL.matrix_of_centres + np.array([[0, 0, 0, 900.0]] * 3), SMALL.shape)
    away = write_nifti(tmp_path / "a.nii.gz", np.ones(SMALL.shape, np.uint8), far)
    with pytest.raises(RequestError, match="outside of the common grid"):
        mask_on_grid(away, SMALL)


def test_init_proposes_patterns_for_visits_on_grids_of_their_own(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        write_patient(tmp_path / patient, [rigid(), rigid((4, 0, 0))], [SMALL, SMALL.window(*[slice(0, 4)] * 3)], transforms=True)
    text = propose_run(tmp_path, "follow")
    source = yaml.safe_load(text)["source"]
    assert source["pattern"] == "{patient}/study{visit}_FLAIR.nii.gz"
    assert source["transforms"] == "{patient}/study{visit}_to_common.txt"
    assert (source["brain"], source["grid"]) == ("{patient}/brain.nii.gz", "{patient}/brain.nii.gz")
    for path in tmp_path.glob("*/*.txt"):
        path.unlink()
    source = yaml.safe_load(propose_run(tmp_path, "follow"))["source"]
    assert "transforms" not in source
    assert source["brain"] == "{patient}/brain.nii.gz"


def test_names_with_numbers_of_their_own_are_looked_at_once(tmp_path: Path) -> None:
    """The patient is in the names of files, too, so that each of them gives a pattern of its own."""
    for n in range(60):
        for visit in (1, 2):
            path = tmp_path / f"sub-{n:03d}" / f"sub-{n:03d}_ses-{visit}_flair.nii.gz"
            path.parent.mkdir(exist_ok=True)
            path.touch()
    looked = []
    original = Path.resolve

    def resolve(self: Path, strict: bool = False) -> Path:
        looked.append(self)
        return original(self, strict)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "resolve", resolve)
        found = find_visits(tmp_path)
    assert found is not None
    assert found.patterns["pattern"] == "{patient}/{patient}_ses-{visit}_flair.nii.gz"
    assert (found.patients, found.visits) == (60, 120)
    assert len(looked) < 10 * 120
