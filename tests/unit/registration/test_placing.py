"""Visits of made heads whose positions are known: found again, and refused where they are wrong."""

from collections.abc import Mapping

import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.grid import Grid
from pipelines.registration.figures import Fit
from pipelines.registration.placing import Placed, Placement, RegistrationSettings, copies_among, place_visits
from pipelines.registration.resampling import is_copy
from pipelines.registration.rigid import Level, register_rigid
from pipelines.registration.volumes import Volume, surface_points
from tests.made_visits import Head, brain_on, grid_of, made_visit, rigid

pytest.importorskip("SimpleITK")
SECOND = grid_of((24, 50, 48), (3.5, 3.7, 5.5), (8, -4, 3))
MOVED = rigid((4, -6, 8), (5, -3, 7))


def place(volumes: Mapping[str, Volume], how: str = "rigid", given: Mapping[str, np.ndarray] | None = None) -> Placement:
    settings = RegistrationSettings(how)  # type: ignore[arg-type]
    return place_visits(volumes, given or {}, grid_of() if how == "given" else None, brain_on, settings)


def first() -> Volume:
    return made_visit(Head(), np.eye(4), grid_of())


def second(matrix: np.ndarray = MOVED, head: Head | None = None) -> Volume:
    return made_visit(head or Head(), matrix, SECOND, seed=2)


def furthest(found: np.ndarray, truth: np.ndarray, grid: Grid) -> float:
    """The largest distance in mm at the boundary of the brain."""
    points, apart = surface_points(brain_on(grid), grid), found - truth
    return float(np.linalg.norm(points @ apart[:3, :3].T + apart[:3, 3], axis=1).max())


@pytest.mark.parametrize("moved", [rigid((-12, 9, -7), (-8, 10, -10)), rigid()])
def test_a_movement_is_found_to_a_third_of_a_millimetre_and_every_time_the_same(moved: np.ndarray) -> None:
    one, other = first(), second(moved)
    found = register_rigid(one, other, brain_on(one.grid))
    assert furthest(found, moved, one.grid) < 0.3
    assert np.array_equal(found, register_rigid(one, other, brain_on(one.grid)))


def test_what_is_registered_is_used_with_its_figures() -> None:
    placed = place({"1": first(), "2": second()})
    one, other = placed.visits
    assert (placed.reference, one.fit, one.problem, other.problem) == ("1", None, "", "")
    assert other.fit is not None
    assert (other.fit.residual_mm < 0.5, other.fit.field > 0.99, other.fit.edge_overlap > 0.7) == (True, True, True)
    assert other.fit.information > other.fit.mirrored + 0.1


def test_the_way_in_which_axes_are_stored_changes_nothing() -> None:
    visit = second()
    flipped = Volume(visit.values_ZYX[:, ::-1, ::-1].copy(), SECOND.flipped("x").flipped("y"))
    found = place({"1": first(), "2": flipped}).visits[1]
    assert found.problem == ""
    assert furthest(found.matrix_44, MOVED, grid_of()) < 0.3


@pytest.mark.parametrize(("wrong", "said"), [
    (rigid((0, 0, 5)), "a second registration still moves it by"),
    (rigid((2, 0, 0)), "a second registration still moves it by"),
    (rigid(degrees_xyz=(0, 0, 3)), "a second registration still moves it by"),
    (rigid((0, 0, 70)), "it shows"),
])  # fmt: skip
def test_a_transform_that_is_off_is_refused_with_what_is_left(wrong: np.ndarray, said: str) -> None:
    problem = place({"1": first(), "2": second()}, "given", {"1": np.eye(4), "2": MOVED @ wrong}).visits[1].problem
    assert said in problem
    assert "mutual information" in problem


def test_transforms_that_map_the_other_way_are_named() -> None:
    """Both visits are moved from the common space, so that a wrong direction moves each twice."""
    head, back = Head(), rigid((-5, 6, 4), (-4, 6, -3))
    volumes = {"1": made_visit(head, back, grid_of()), "2": second()}
    turned = {"1": np.linalg.inv(back), "2": np.linalg.inv(MOVED)}
    assert "set registration.maps: to_common" in place(volumes, "given", turned).visits[1].problem
    assert place(volumes, "given", {"1": back, "2": MOVED}).visits[1].problem == ""


def test_exchanged_left_and_right_is_called_so() -> None:
    visit = second()
    mirrored = Volume(visit.values_ZYX[:, :, ::-1].copy(), SECOND)
    assert "mirror image fits better" in place({"1": first(), "2": mirrored}).visits[1].problem


def test_another_person_is_refused() -> None:
    assert place({"1": first(), "2": second(head=Head(9))}).visits[1].problem


def test_of_three_visits_the_one_that_fits_no_other_is_refused_even_if_it_is_the_first() -> None:
    third = made_visit(Head(), rigid((-3, 2, 1), (2, 2, 2)), SECOND, seed=3)
    placed = place({"1": made_visit(Head(9), np.eye(4), grid_of()), "2": second(), "3": third})
    assert placed.reference == "2"
    assert [bool(one.problem) for one in placed.visits] == [True, False, False]
    assert placed.grid == SECOND


def test_a_visit_without_a_transform_is_not_used() -> None:
    assert "no transform" in place({"1": first(), "2": second()}, "given", {"1": np.eye(4)}).visits[1].problem


def test_like_transforms_of_both_visits_are_used_as_stated_and_the_doubt_is_a_note() -> None:
    """Both are off the common space by the same shift: the other way round they fit each other just as well."""
    shift = rigid((0, 8, 0))
    volumes = {name: made_visit(Head(), shift, grid_of(), seed=n) for n, name in enumerate("12")}
    placed = place(volumes, "given", {"1": shift, "2": shift})
    assert [one.problem for one in placed.visits] == ["", ""]
    [note] = placed.notes
    assert "cannot tell which way" in note


def test_a_first_visit_without_a_transform_leaves_the_others_in_use() -> None:
    volumes = {"1": first(), "2": second(), "3": made_visit(Head(), np.eye(4), grid_of(), seed=3)}
    placed = place(volumes, "given", {"2": MOVED, "3": np.eye(4)})
    assert (placed.reference, [bool(one.problem) for one in placed.visits]) == ("2", [True, False, False])
    with pytest.raises(RequestError, match="no transform of visit 1"):
        place({"1": first(), "2": second()}, "given", {"2": MOVED})


def test_a_visit_of_which_no_figure_can_be_measured_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*_: object) -> Fit:
        raise RequestError("nothing in common")

    monkeypatch.setattr("pipelines.registration.placing.measure_fit", measure)
    problem = place({"1": first(), "2": first()}, "given", {"1": np.eye(4), "2": np.eye(4)}).visits[1].problem
    assert problem == "nothing in common"


def test_a_first_visit_that_shows_half_of_the_brain_is_not_used() -> None:
    half = first()
    half.values_ZYX[:11] = np.nan
    given = {"1": np.eye(4), "2": MOVED, "3": np.eye(4)}
    volumes = {"1": half, "2": second(), "3": made_visit(Head(), np.eye(4), grid_of(), seed=3)}
    placed = place(volumes, "given", given)
    assert (placed.reference, [bool(one.problem) for one in placed.visits]) == ("2", [True, False, False])
    two = place({"1": half, "2": second()}, "given", given).visits
    assert "it shows 50% of the brain" in two[0].problem


def test_of_four_visits_the_next_is_tried_if_one_of_three_fits_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Visit 1 fits 2 alone; 3 and 4 fit 2."""
    fits = {"1": {"2"}, "2": {"1", "3", "4"}}

    def place_on(reference: str, volumes: Mapping[str, Volume], *_: object) -> Placement:
        own = [Placed(name, (), None, "" if name in {reference, *fits[reference]} else "off") for name in volumes]
        return Placement(grid_of(), reference, tuple(own))

    monkeypatch.setattr("pipelines.registration.placing._place_on", place_on)
    assert place(dict.fromkeys("1234", first())).reference == "2"


def test_without_a_stated_grid_the_reference_brings_its_own_into_the_common_space() -> None:
    """The common space is 60 mm beside the scanner's: the whole brain stays on the grid, and no voxel is interpolated."""
    away = rigid((60, 0, 0), (0, 0, 5))
    volumes = {"1": made_visit(Head(), away, centred(away)), "2": made_visit(Head(), away, centred(away), seed=2)}
    settings = RegistrationSettings("given")
    placed = place_visits(volumes, {"1": away, "2": away}, None, brain_on, settings)
    assert is_copy(centred(away), away, placed.grid)
    assert np.count_nonzero(brain_on(placed.grid)) == pytest.approx(np.count_nonzero(brain_on(grid_of())), rel=0.02)
    assert [one.problem for one in placed.visits] == ["", ""]


def centred(matrix: np.ndarray) -> Grid:
    """A grid around where the head is."""
    rows = grid_of().matrix_of_centres
    rows[:, 3] += matrix[:3, 3]
    return Grid.from_centres(grid_of().frame, rows, grid_of().shape)


def test_registration_leaves_the_threads_of_the_process_alone() -> None:
    import SimpleITK as sitk  # noqa: N813

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    try:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(3)
        register_rigid(first(), first(), levels=[Level(8.0, 4.0, 1.0, 2)], starts=["positions"])
        assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 3
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def test_two_files_with_the_same_voxels_are_named() -> None:
    [line] = copies_among({"1": first(), "2": second(), "3": first()})
    assert "visits 1 and 3 have the same voxels" in line
