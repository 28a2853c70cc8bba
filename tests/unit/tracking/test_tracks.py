import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import RequestError
from pipelines.tracking.objects import Space
from pipelines.tracking.tracks import Tracker, TrackSettings, hold, track_objects

SPACE = Space.of_spacing((10.0, 10.0), "m")
SHAPE = (20, 30)


def boxes(*corners):
    """A mask with rectangles (first row, end row, first column, end column)."""
    mask = np.zeros(SHAPE, bool)
    for row0, row1, column0, column1 in corners:
        mask[row0:row1, column0:column1] = True
    return mask


def dates(count):
    return [np.datetime64("2020-01-01") + 10 * k for k in range(count)]


def track(masks, seen=None, **settings):
    return track_objects(masks, dates(len(masks)), SPACE, seen, TrackSettings(**settings))


def story(tracked):
    """What happened on each date: (kind, track, others)."""
    return [[(e.kind, e.track_id, *e.others) for e in one.events] for one in tracked]


A = (2, 6, 2, 8)  # 24 pixels
B = (12, 16, 20, 26)


def test_new_grown_shrunk_stable_and_gone():
    tracked = track([boxes(A), boxes(A, B), boxes((2, 6, 2, 9), B), boxes((2, 6, 2, 9)), boxes((2, 6, 2, 5))])
    assert story(tracked) == [
        [("first seen", 1)],
        [("stable", 1), ("new", 2)],
        [("grown", 1), ("stable", 2)],
        [("stable", 1), ("gone", 2)],
        [("shrunk", 1)],
    ]
    assert tracked[2].change_N == (pytest.approx(28 / 24 - 1), 0.0)
    assert tracked[4].events[0].change == pytest.approx(12 / 28 - 1)
    assert [one.shapes.size_N.tolist() for one in tracked] == [[2400], [2400, 2400], [2800, 2400], [2800], [1200]]


def test_growth_of_a_pixel_row_at_a_time_is_told_in_the_end():
    masks = [boxes((0, 10, 0, width)) for width in (20, 21, 22, 23)]  # +5, +10, +15 % of the first
    assert [event for one in story(track(masks)) for event in one] == [
        ("first seen", 1), ("stable", 1), ("stable", 1), ("grown", 1)
    ]  # fmt: skip
    assert [one[0][0] for one in story(track(masks, tolerance=0.02))] == ["first seen", "grown", "grown", "grown"]


def test_a_split_keeps_the_larger_part_and_names_the_parent():
    tracked = track([boxes(A), boxes((2, 6, 2, 6), (2, 6, 7, 8))])
    assert story(tracked)[1] == [("split", 1, 2)]
    assert tracked[1].track_id_N == (1, 2)
    assert tracked[1].parents_N == ((), (1,))
    assert tracked[1].event_N == ("split", "split")


def test_a_merge_keeps_the_larger_and_names_what_ended():
    tracked = track([boxes((2, 6, 2, 4), (2, 6, 5, 12)), boxes((2, 6, 2, 12)), boxes((2, 6, 2, 12))])
    assert story(tracked)[1:] == [[("merged", 2, 1)], [("stable", 2)]]
    assert tracked[1].parents_N == ((1,),)
    assert tracked[1].change_N == (pytest.approx(40 / 28 - 1),)


def test_parts_that_merge_again_carry_on_with_the_old_identity():
    parts = boxes((2, 6, 2, 6), (2, 6, 7, 8))
    assert story(track([boxes(A), parts, boxes(A)])) == [[("first seen", 1)], [("split", 1, 2)], [("merged", 1, 2)]]


def test_a_moving_object_is_the_same_only_where_movement_is_allowed():
    masks = [boxes((5, 8, 2 + 6 * k, 5 + 6 * k)) for k in range(4)]  # 60 m a date, no overlap
    assert [one.track_id_N for one in track(masks)] == [(1,), (2,), (3,), (4,)]
    assert story(track(masks))[1] == [("new", 2), ("gone", 1)]
    moving = track(masks, farthest=60.0)
    assert [one.track_id_N for one in moving] == [(1,)] * 4
    assert [float(one.moved_N[0]) for one in moving[1:]] == [60.0] * 3
    assert [one.track_id_N for one in track(masks, farthest=59.0)] == [(1,), (2,), (3,), (4,)]


def test_a_row_of_moving_objects_keeps_its_order():
    """Each moves onto the place of the next: overlap alone would take one for the other."""
    masks = [boxes((5, 8, 2 + k, 5 + k), (5, 8, 6 + k, 9 + k), (5, 8, 10 + k, 13 + k)) for k in (0, 3, 6)]
    assert [one.track_id_N for one in track(masks, farthest=60.0)] == [(1, 2, 3)] * 3
    assert all(event[0] == "stable" for event in story(track(masks, farthest=60.0))[2])


def test_under_cloud_is_not_seen_and_never_gone():
    seen = np.ones(SHAPE, bool)
    cloud = seen.copy()
    cloud[:, :15] = False
    tracked = track([boxes(A, B), boxes(B), boxes(A, B), boxes(B)], [seen, cloud, seen, seen])
    assert story(tracked)[1:] == [
        [("not seen", 1), ("stable", 2)],
        [("stable", 1), ("stable", 2)],
        [("stable", 2), ("gone", 1)],
    ]
    assert tracked[1].shapes.seen_share_N.tolist() == [0, 1]
    assert tracked[1].shapes.size_N.tolist() == [2400, 2400]  # held
    assert tracked[1].change_N[0] is None


def test_what_went_under_cloud_is_gone_on_the_next_clear_date():
    seen = np.ones(SHAPE, bool)
    assert story(track([boxes(A), boxes(), boxes()], [seen, ~seen, seen])) == [
        [("first seen", 1)], [("not seen", 1)], [("gone", 1)]
    ]  # fmt: skip


def test_a_strip_of_cloud_splits_nothing():
    seen = np.ones(SHAPE, bool)
    strip = seen.copy()
    strip[:, 4:6] = False
    for mask in (boxes(A), boxes(A).astype(np.uint8) * 9):
        tracked = track([mask, np.where(strip, mask, 0).astype(mask.dtype), mask], [seen, strip, seen])
        assert story(tracked) == [[("first seen", 1)], [("stable", 1)], [("stable", 1)]]
        assert tracked[1].shapes.seen_share_N[0] == pytest.approx(16 / 24)


def test_what_appears_where_nobody_had_looked_is_not_new():
    seen, west = np.ones(SHAPE, bool), np.ones(SHAPE, bool)
    west[:, 15:] = False
    assert story(track([boxes(), boxes(A, B)], [west, seen])) == [[], [("new", 1), ("first seen", 2)]]


def test_pixels_from_under_cloud_are_no_growth_but_growth_under_cloud_is():
    seen, half = np.ones(SHAPE, bool), np.ones(SHAPE, bool)
    half[:, 5:] = False  # hides the right half of A
    left = boxes((2, 6, 2, 5))
    assert story(track([boxes(), left, boxes(A)], [seen, half, seen]))[1:] == [[("new", 1)], [("stable", 1)]]
    assert story(track([left, left, boxes(A)], [seen, half, seen]))[1:] == [[("stable", 1)], [("grown", 1)]]


def test_a_new_object_at_the_time_of_a_cloud_keeps_its_event_until_it_is_seen():
    """Half of it gone, half hidden: the rest is not judged before it is seen again."""
    seen, half = np.ones(SHAPE, bool), np.ones(SHAPE, bool)
    half[:, 5:] = False
    tracked = track([boxes(A), boxes(), boxes((2, 6, 5, 8))], [seen, half, seen])
    assert story(tracked)[1:] == [[("not seen", 1)], [("shrunk", 1)]]


def test_small_objects_are_left_out():
    speck = (18, 19, 1, 3)
    assert [len(one.shapes) for one in track([boxes(A, speck)] * 2, least_size=200.0)] == [2, 2]
    assert [len(one.shapes) for one in track([boxes(A, speck)] * 2, least_size=201.0)] == [1, 1]
    assert track([boxes(speck), boxes(A)], least_size=201.0)[1].track_id_N == (1,)


def test_an_overlap_of_one_pixel_is_no_identity():
    beside = boxes((5, 9, 7, 13))  # shares 1 of 24 pixels with A
    assert story(track([boxes(A), beside]))[1] == [("new", 2), ("gone", 1)]
    assert story(track([boxes(A), beside], least_overlap=0.04))[1] == [("stable", 1)]


def test_a_touch_of_one_pixel_is_no_merge():
    """Codes: two touching objects, one of which takes a pixel of the other."""
    before, after = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, np.int32)
    before[2:6, 2:8], before[2:6, 8:14] = 5, 7
    after[2:6, 2:8], after[2:6, 8:14] = 1, 2
    after[2, 8] = 1
    tracked = track([before, after])
    assert story(tracked)[1] == [("stable", 1), ("stable", 2)]


@given(st.integers(0, 2**32 - 1))
def test_permuting_the_codes_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    frames, acquisitions = [], []
    for _ in range(4):
        codes = np.zeros(SHAPE, np.int64)
        for code in range(1, 6):
            row, column = rng.integers(0, SHAPE[0] - 5), rng.integers(0, SHAPE[1] - 5)
            codes[row : row + rng.integers(2, 6), column : column + rng.integers(2, 6)] = code
        frames.append(codes)
        acquisitions.append(rng.random(SHAPE) < 0.8)
    permuted = [np.concatenate([[0], rng.permutation(5) + 11])[codes] for codes in frames]
    plain, other = track(frames, acquisitions), track(permuted, acquisitions)
    assert story(plain) == story(other)
    assert [one.track_id_N for one in plain] == [one.track_id_N for one in other]


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_every_object_has_one_living_identity_and_every_ending_is_told(seed, moves):
    rng = np.random.default_rng(seed)
    masks = [rng.random(SHAPE) < 0.25 for _ in range(5)]
    acquisitions = [rng.random(SHAPE) < 0.9 for _ in range(5)]
    alive: set[int] = set()
    ended: set[int] = set()
    for one in track(masks, acquisitions, farthest=30.0 if moves else None):
        ids = set(one.track_id_N)
        assert len(ids) == len(one.track_id_N) == len(one.shapes)
        assert not ids & ended  # nobody comes back from the dead
        notified = {e.track_id for e in one.events if e.kind == "gone"} | {
            t for e in one.events if e.kind == "merged" for t in e.others
        }
        assert notified == alive - ids
        born = {t for t, kind in zip(one.track_id_N, one.event_N, strict=True) if kind in ("new", "first seen")}
        born |= {t for e in one.events if e.kind == "split" for t in e.others}
        assert born == ids - alive
        ended |= notified
        alive = ids


def test_doubling_the_spacing_changes_sizes_and_no_event():
    rng = np.random.default_rng(3)
    masks = [rng.random(SHAPE) < 0.3 for _ in range(4)]
    one = track_objects(masks, dates(4), Space.of_spacing((1.0, 1.0)))
    two = track_objects(masks, dates(4), Space.of_spacing((2.0, 2.0)))
    assert story(one) == story(two)
    assert two[3].shapes.size_N == pytest.approx(4 * one[3].shapes.size_N)


def test_volumes_are_tracked_through_visits():
    masks = np.zeros((3, 6, 10, 10), bool)
    masks[0, 1:4, 2:6, 2:6] = masks[1, 1:5, 2:6, 2:6] = True
    masks[1, 2, 8, 8] = masks[2, 2, 8, 8] = True
    tracked = track_objects(masks, [0.0, 1.0, 2.0], Space.of_spacing((3.0, 1.0, 1.0)))
    assert story(tracked) == [[("first seen", 1)], [("grown", 1), ("new", 2)], [("stable", 2), ("gone", 1)]]
    assert tracked[1].shapes.size_N.tolist() == [4 * 16 * 3.0, 3.0]


def test_held_codes_join_what_their_object_is_now():
    held = np.array([[4, 4, 4, 0, 6, 6]])
    mask = np.array([[9, 0, 9, 0, 0, 0]])
    seen = np.array([[True, False, True, True, False, False]])
    result = hold(mask, held, seen)
    assert result[0, :3].tolist() == [9, 9, 9]
    assert result[0, 4] == result[0, 5] not in (0, 9)


def test_bad_input_is_named():
    tracker = Tracker(SPACE)
    tracker.advance(boxes(A), np.datetime64("2020-02-01"))
    with pytest.raises(RequestError, match="2020-02-01 is there twice; give every date once"):
        tracker.advance(boxes(A), np.datetime64("2020-02-01"))
    with pytest.raises(RequestError, match="2020-01-01 comes after 2020-02-01"):
        tracker.advance(boxes(A), np.datetime64("2020-01-01"))
    with pytest.raises(RequestError, match=r"shape \(3, 3\), expected \(20, 30\); bring all masks onto one grid"):
        tracker.advance(np.zeros((3, 3), bool), np.datetime64("2020-03-01"))
    with pytest.raises(RequestError, match="float64: that is an image, not a mask; compare it with a threshold"):
        tracker.advance(np.zeros(SHAPE), np.datetime64("2020-03-01"))
    with pytest.raises(RequestError, match="use one kind for all"):
        tracker.advance(boxes(A).astype(np.uint8), np.datetime64("2020-03-01"))
    with pytest.raises(RequestError, match="expected bool"):
        tracker.advance(boxes(A), np.datetime64("2020-03-01"), np.ones(SHAPE, np.uint8))
    with pytest.raises(RequestError, match="2 masks, 1 dates"):
        track_objects([boxes(A)] * 2, dates(1), SPACE)
    with pytest.raises(RequestError, match="a relative change of size between 0 and 1"):
        TrackSettings(tolerance=10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"least_size": -5.0}, r"least_size \(--min-size\) is -5; it is an area"),
        ({"tolerance": -1.0}, r"tolerance \(--grow\) is -1; it is a relative change"),
        ({"farthest": 0.0}, r"farthest \(--farthest\) is 0; it is a distance"),
    ],
)
def test_a_setting_out_of_range_is_named_as_on_the_command_line(settings, message):
    with pytest.raises(RequestError, match=message):
        TrackSettings(**settings)
