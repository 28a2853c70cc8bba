"""Change in made images: what is found, with which sign, and how it compares with simple differencing."""

import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.follow_up.agreement import count_agreement, dice, lesion_f1
from pipelines.follow_up.analysis import FollowUpSettings, follow_patient, lesion_rows, score_patient
from pipelines.follow_up.calibration import DEFAULTS, choose_thresholds, count_methods, held_out_thresholds
from pipelines.follow_up.change_score import BrightSettings, ChangeSettings, changed, score_change
from pipelines.follow_up.decisions import Decision
from pipelines.follow_up.events import EventSettings
from pipelines.follow_up.intensity import foreground, standardise
from tests.made_lesions import GRID, SPACING, brain, image_of, patient_of, sphere

A, B, C, D = (-18.0, -15.0, -9.0), (0.0, 18.0, 0.0), (18.0, -10.0, 9.0), (-8.0, 4.0, 12.0)
CHANGE = ChangeSettings()
SETTINGS = FollowUpSettings(CHANGE, BrightSettings(edge_mm=4, bright=1.5, contrast=1.0), EventSettings())


def test_what_appears_is_brighter_and_what_goes_is_darker() -> None:
    patient = patient_of([sphere(A, 0.2) | sphere(B, 0.2), sphere(A, 0.2) | sphere(C, 0.2)])
    scores = score_patient(patient, SETTINGS)
    found = changed(scores[0], "proposal", DEFAULTS["proposal"], CHANGE)
    assert np.count_nonzero((found == 1) & sphere(C, 0.2)) > 0.6 * sphere(C, 0.2).sum()
    assert np.count_nonzero((found == -1) & sphere(B, 0.2)) > 0.6 * sphere(B, 0.2).sum()
    assert not found[sphere(A, 0.1)].any()


def test_gain_and_offset_of_a_scanner_are_no_change() -> None:
    image = image_of(sphere(A, 0.2), 1)
    scores = score_change(np.stack([image, 3 * image + 700]), brain(), SPACING, CHANGE)
    assert all(np.abs(score).max() < 0.1 for score in scores.scores.values())


def test_with_a_bad_registration_the_proposal_beats_differencing() -> None:
    """The later visit lies half a voxel off. Thresholds are the defaults, which no made image has seen."""
    patient = patient_of([sphere(A, 0.2) | sphere(B, 0.1), sphere(A, 0.2) | sphere(C, 0.2) | sphere(D, 0.1)], shift_px=0.5)
    assert patient.reference_ZYX is not None
    counts = count_methods(score_patient(patient, SETTINGS), patient.reference_ZYX, patient.voxel_ml, DEFAULTS, CHANGE)
    total = {name: sums.sum(axis=0) for name, sums in counts.by_method.items()}
    assert lesion_f1(total["proposal"]) > 0.7
    assert lesion_f1(total["proposal"]) > lesion_f1(total["differencing"]) + 0.2
    assert dice(total["proposal"]) > dice(total["differencing"])


def test_no_change_is_found_where_there_is_none() -> None:
    lesions = sphere(A, 0.2) | sphere(B, 0.2)
    patient = patient_of([lesions, lesions])
    assert not changed(score_patient(patient, SETTINGS)[0], "proposal", DEFAULTS["proposal"], CHANGE).any()


def test_a_patient_without_any_mask_gets_rows_with_the_right_events() -> None:
    patient = patient_of([sphere(A, 0.3) | sphere(B, 0.3), sphere(A, 0.3) | sphere(C, 0.3)])
    found = follow_patient(patient, score_patient(patient, SETTINGS), DEFAULTS["proposal"], SETTINGS)
    rows = lesion_rows(found)
    for event, place in (("stable", A), ("disappearing", B), ("new", C)):
        own = [(row["x_mm"], row["y_mm"], row["z_mm"]) for row in rows if row["event"] == event]
        assert min(np.linalg.norm(np.subtract(one, place)) for one in own) < 5, event  # 25 mm and more apart
        assert event == "stable" or len(own) == 1  # bright folds are proposed as lesions, and none of them changes
    assert [row["days"] for row in lesion_rows(found)] == [182] * len(found.lesions)


def test_lesions_that_are_given_are_followed_in_place_of_a_proposal() -> None:
    first, second = sphere(A, 0.3), sphere(A, 0.6)
    patient = patient_of([first, second])
    given = type(patient)(**{**vars(patient), "lesions_TZYX": np.stack([first, second]).astype(np.uint8)})
    asked = [Decision("made", ("1", "2"), A, "reject")]
    found = follow_patient(given, score_patient(given, SETTINGS), DEFAULTS["proposal"], SETTINGS, asked)
    assert [one.change.event for one in found.lesions] == ["enlarging"]
    assert (found.is_given, found.events["enlarging"], found.volumes_ml) == (True, 0, [0, 0])  # rejected: counts no more


def test_a_lesion_that_a_visit_does_not_show_has_not_disappeared() -> None:
    first, second = sphere(A, 0.3) | sphere(C, 0.3), sphere(A, 0.3)
    patient = patient_of([first, second])
    patient.images_TZYX[1][sphere(C, 2.0)] = np.nan
    given = type(patient)(**{**vars(patient), "lesions_TZYX": np.stack([first, second]).astype(np.uint8)})
    found = follow_patient(given, score_patient(given, SETTINGS), DEFAULTS["proposal"], SETTINGS)
    assert [one.change.event for one in found.lesions] == ["stable"]
    assert found.notes == ("left out because a visit shows less than half of it: 1 lesion",)


def test_thresholds_of_a_patient_do_not_depend_on_its_own_reference() -> None:
    methods = {
        "proposal": (2.5, 2.75, 3.0, 3.25, 3.5, 3.75, 4.0, 4.5, 5.0),
        "differencing": (3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0),
    }

    def peak(position: int) -> dict[str, dict[float, float]]:
        return {name: {t: float(n == position) for n, t in enumerate(tried)} for name, tried in methods.items()}

    known = {"a": peak(1), "b": peak(4), "c": peak(4)}
    found = held_out_thresholds(known, list(known))
    assert found["a"] == {"proposal": 3.5, "differencing": 5.0}
    assert held_out_thresholds({**known, "a": peak(8)}, ["a"])["a"] == found["a"]
    assert choose_thresholds({}) == DEFAULTS


def test_what_has_no_contrast_is_refused() -> None:
    with pytest.raises(RequestError, match="visit 2: more than half of the brain has one and the same value"):
        standardise(np.ones(GRID.shape, np.float32), brain(), "visit 2")
    with pytest.raises(RequestError, match="fewer than 1000 voxels"):
        standardise(np.full(GRID.shape, np.nan, np.float32), brain(), "visit 2")


def test_without_a_brain_mask_the_head_counts() -> None:
    images = np.stack([image_of(sphere(A, 0.2), seed) for seed in (1, 2)])
    assert np.count_nonzero(foreground(images) != brain()) < 0.02 * brain().sum()


def test_agreement_of_a_mask_with_itself_is_whole() -> None:
    mask = sphere(A, 0.2) | sphere(B, 0.1)
    total = count_agreement(mask, {"same": mask}, GRID.pixel_size / 1000).by_method["same"].sum(axis=0)
    assert (float(dice(total)), float(lesion_f1(total))) == (1.0, 1.0)
