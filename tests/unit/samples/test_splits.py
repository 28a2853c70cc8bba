from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from pipelines.errors import ArtefactDamaged, RequestError
from pipelines.samples.plan import Sampling, Split, from_json, to_json
from pipelines.samples.windows import cut_blocks, day_text, plan_windows

TIMES = (np.datetime64("2015-01") + np.arange(30)).astype("datetime64[ns]")


def plan_of(shape_yx, **changes):
    split = {"block_px": 10, "buffer_px": 1, "validation_from": "2016-06-01", "test_from": "2017-01-01", **changes}
    return plan_windows(TIMES, shape_yx, Split(**split), Sampling(), 3, 2)


def test_narrow_edges_are_merged_with_their_neighbour():
    assert sorted({b.shape for b in cut_blocks((24, 25), 10)}) == [(10, 5), (10, 10), (14, 5), (14, 10)]
    assert cut_blocks((4, 4), 10)[0].shape == (4, 4)


def test_training_is_inside_its_blocks_and_the_rest_uses_whole_blocks():
    plan = plan_of((40, 40))
    assert {w.tile.shape for w in plan.of_part("train")} == {(8, 8)}
    assert {w.tile.shape for w in plan.of_part("test")} == {(10, 10)}
    counts = {part: len({w.tile for w in plan.of_part(part)}) for part in ("train", "validation", "test")}
    assert counts == {"train": 10, "validation": 3, "test": 3}


def test_the_seed_assigns_the_blocks():
    def tiles(seed):
        return {w.tile for w in plan_of((40, 40), seed=seed).of_part("test")}

    assert tiles(1) == tiles(1)
    assert len({frozenset(tiles(seed)) for seed in range(5)}) > 1


def test_three_blocks_are_enough():
    plan = plan_of((10, 30), test_fraction=0.45, validation_fraction=0.45)
    assert [len({w.tile for w in plan.of_part(part)}) for part in ("train", "validation", "test")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("shape_yx", "changes", "message"),
    [
        ((20, 20), {"block_px": 64}, r"20 x 20 pixels gives 1 block of 64 pixels.*set split\.block_px to 13"),
        ((20, 20), {"buffer_px": 5}, r"buffer_px 5 on both sides leaves nothing: no block size leaves room"),
        ((20, 40), {"buffer_px": 5}, r"set split\.block_px to 14"),
        ((1, 2), {"buffer_px": 0}, "too small to be divided: use a larger area"),
        ((16, 1), {"buffer_px": 0}, "too small to be divided: use a larger area"),
        ((12, 12), {"buffer_px": 4}, r"no block size leaves room for split\.buffer_px 4: lower it"),
    ],
)
def test_rasters_that_cannot_be_divided_name_a_remedy(shape_yx, changes, message):
    with pytest.raises(RequestError, match=message):
        plan_of(shape_yx, **changes)


def test_the_proposed_block_size_works():
    assert plan_of((20, 20), block_px=13).windows
    assert plan_of((20, 40), block_px=14, buffer_px=5).windows


def test_usable_dates_of_training_leave_out_half_a_year_after_the_target():
    plan = plan_of((40, 40))
    window = plan.of_part("train")[0]  # issue 2015-03, targets 2015-04 and 2015-05
    usable = [day_text(day)[:7] for day in plan.days_N[plan.usable(window)]]
    assert usable == ["2015-01", "2015-02", "2015-03", "2015-11", "2015-12", *(f"2016-{m:02d}" for m in range(1, 6))]


def test_usable_dates_of_the_test_end_with_the_issue_date():
    plan = plan_of((40, 40))
    window = plan.of_part("test")[0]
    assert plan.usable(window).nonzero()[0].tolist() == list(range(window.issue + 1))


def test_json_round_trip():
    plan = plan_of((40, 40))
    again = from_json(to_json(plan))
    assert again == plan
    assert (again.times == plan.times).all()
    assert to_json(again) == to_json(plan)


def test_json_that_is_not_a_plan():
    with pytest.raises(ArtefactDamaged, match="not a window plan"):
        from_json('{"format": 1}')
    with pytest.raises(ArtefactDamaged, match="format 99, expected 1"):
        from_json('{"format": 99}')


def test_dates_with_a_time_zone_become_utc():
    east = timezone(timedelta(hours=3))
    split = Split(8, 0, datetime(2020, 1, 1, 3, tzinfo=east), datetime(2021, 1, 1, tzinfo=UTC))  # type: ignore[arg-type]
    assert split.validation_from == np.datetime64("2020-01-01")


def test_unknown_parts_raise():
    with pytest.raises(ValueError, match="no part 'training'"):
        plan_of((40, 40)).of_part("training")
