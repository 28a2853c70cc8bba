"""Events of lesions with known truth through two and three visits."""

from collections.abc import Sequence

import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.follow_up.events import EventSettings, FollowedLesions, LesionChange, follow_lesions, lesions_by_change
from tests.made_lesions import GRID, ellipsoid, sphere, with_ragged_edge

A, B, C = (-22.0, -20.0, -12.0), (0.0, 20.0, 0.0), (22.0, -10.0, 12.0)
NONE = np.zeros(GRID.shape, bool)


def follow(*visits: np.ndarray, settings: EventSettings | None = None) -> FollowedLesions:
    return follow_lesions(np.stack(visits), GRID, settings or EventSettings())


def only(changes: Sequence[LesionChange]) -> LesionChange:
    assert len(changes) == 1
    return changes[0]


@pytest.mark.parametrize(
    ("before_ml", "after_ml", "event"),
    [
        (0.5, 0.5, "stable"),
        (0.5, 0.6, "stable"),  # 20 %
        (0.5, 0.7, "enlarging"),  # 40 %
        (0.5, 0.3, "shrinking"),
        (0.5, 0.0, "disappearing"),
        (0.0, 0.5, "new"),
    ],
)
def test_one_lesion_has_the_event_of_its_volumes(before_ml: float, after_ml: float, event: str) -> None:
    change = only(follow(*(sphere(A, ml) if ml else NONE for ml in (before_ml, after_ml))).changes)
    assert change.event == event
    if before_ml and after_ml:
        assert change.change == pytest.approx(after_ml / before_ml - 1, abs=0.07)


def test_lesions_far_apart_do_not_meet() -> None:
    found = follow(sphere(A, 0.3) | sphere(B, 0.3), sphere(B, 0.6) | sphere(C, 0.3))
    assert {change.event: change.number for change in found.changes} == {"disappearing": 1, "enlarging": 2, "new": 3}
    where = {change.event: change.place_mm for change in found.changes}
    assert where["new"] == (pytest.approx(C[0], abs=0.5), pytest.approx(C[1], abs=0.5), pytest.approx(C[2], abs=1.5))


def test_two_become_one_and_one_becomes_two() -> None:
    apart = sphere((-5, 0, 0), 0.15) | sphere((5, 0, 0), 0.15)
    joined = apart | ellipsoid((0, 0, 0), (14, 4, 4))
    merged, split = only(follow(apart, joined).changes), only(follow(joined, apart).changes)
    assert (merged.event, merged.numbers_before, len(merged.numbers_after)) == ("merging", (1, 2), 1)
    assert (split.event, split.numbers_before, len(split.numbers_after)) == ("splitting", (1,), 2)
    assert merged.before is not None
    assert split.after is not None
    assert merged.before.volume_ml == pytest.approx(split.after.volume_ml)  # of both parts together


def test_lesions_that_stay_joined_by_a_third_are_one_confluent_row() -> None:
    left, right = sphere((-5, 0, 0), 0.15), sphere((5, 0, 0), 0.15)
    before = np.where(left, 1, np.where(right, 2, 0)).astype(np.uint8)  # codes of their own
    after = np.where(ellipsoid((-2, 0, 0), (14, 6, 6)), 1, np.where(right, 2, 0)).astype(np.uint8)
    change = only(follow(before, after).changes)
    assert change.is_confluent
    assert (len(change.numbers_before), len(change.numbers_after)) == (2, 2)
    assert change.event not in ("merging", "splitting")


def test_touching_lesions_with_codes_of_their_own_are_two() -> None:
    codes = np.where(ellipsoid((-3, 0, 0), (6, 6, 6)), 1, 0) + np.where(ellipsoid((3.2, 0, 0), (6, 6, 6)), 2, 0)
    found = follow(codes, codes)
    assert [change.event for change in found.changes] == ["stable", "stable"]


def test_noise_at_the_outline_is_no_event() -> None:
    """Ragged outlines at both visits: lesions of 0.01 to 1 ml stay stable, and none is new or gone."""
    events = []
    for seed in range(6):
        mask = sphere(A, 0.03) | sphere(B, 0.2) | sphere(C, 1.0)
        found = follow(with_ragged_edge(mask, 2 * seed), with_ragged_edge(mask, 2 * seed + 1))
        events += [change.event for change in found.changes]
    assert events.count("stable") >= 0.95 * len(events)
    assert not {"new", "disappearing"} & set(events)


def test_what_edge_voxels_explain_is_stable_though_it_is_more_than_the_share() -> None:
    before, after = NONE.copy(), NONE.copy()
    before[10, 40, 40:45] = True  # 5 voxels
    after[10, 40, 39:46] = True  # 7: 40 % more
    change = only(follow(before, after).changes)
    assert change.change == pytest.approx(0.4)
    assert change.floor is not None
    assert change.floor == pytest.approx(2 * np.sqrt((5 + 7) / 12) / 5)  # 40 %
    assert change.event == "stable"
    before[10, 40:45, 40:45], after[10, 39:45, 39:46] = True, True  # 25 and 42: no edge explains that
    assert only(follow(before, after).changes).event == "enlarging"


def test_specks_are_no_lesions_and_make_no_merger() -> None:
    speck = NONE.copy()
    speck[2, 10, 10] = True
    assert follow(speck, speck).changes == ()
    near = NONE.copy()
    near[12, 53:55, 48] = True  # within the lesion that follows
    one = sphere((0, 0, 0), 0.2)
    change = only(follow((one & ~near) | near, one).changes)
    assert change.event == "stable"
    assert only(follow(near, sphere((0, 4, 0), 0.5)).changes).event == "new"  # two voxels are no lesion before


def test_a_small_lesion_that_registration_moved_is_the_same() -> None:
    before, after = NONE.copy(), NONE.copy()
    before[10, 40:44, 40:42], after[10, 40:44, 42:44] = True, True  # they do not overlap
    assert [change.event for change in follow(before, after).changes] == ["stable"]
    far = EventSettings(match_mm=0.5)
    assert {change.event for change in follow(before, after, settings=far).changes} == {"new", "disappearing"}


def test_numbers_hold_through_three_visits() -> None:
    found = follow(sphere(A, 0.3), sphere(A, 0.3) | sphere(B, 0.3), sphere(B, 0.6))
    rows = [(change.interval, change.number, change.event) for change in found.changes]
    assert rows == [(0, 1, "stable"), (0, 2, "new"), (1, 1, "disappearing"), (1, 2, "enlarging")]
    assert set(np.unique(found.numbers_TZYX[2])) == {0, 2}
    painted = found.paint({2: 5}, 1)
    assert np.array_equal(painted == 5, sphere(A, 0.3))


def test_lesions_that_are_proposed_differ_only_where_change_was_found() -> None:
    base, new, gone = sphere(A, 0.3), sphere(B, 0.3), sphere(C, 0.3)
    change = new.astype(np.int8) - gone.astype(np.int8)
    dark = np.stack([NONE, NONE])
    masks = lesions_by_change(base, dark, change[None])
    assert np.array_equal(masks[0], base | gone)
    assert np.array_equal(masks[1], base | new)
    still = lesions_by_change(base, np.stack([gone, gone]), change[None])  # darker, and still bright enough to be a lesion
    assert np.array_equal(still[1], base | new)


def test_images_are_refused_as_masks() -> None:
    with pytest.raises(RequestError, match="codes of two visits or more, whole numbers"):
        follow(np.zeros(GRID.shape), np.zeros(GRID.shape))
