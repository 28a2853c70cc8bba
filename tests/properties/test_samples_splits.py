"""For every valid split: the audit passes and agrees with brute force; a corrupted plan fails."""

from dataclasses import replace
from itertools import product

import numpy as np
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from pipelines.errors import RequestError
from pipelines.samples.audit import audit
from pipelines.samples.plan import PARTS, Sampling, Split, WindowPlan, from_json, to_json
from pipelines.samples.windows import cut_blocks, plan_windows

START = np.datetime64("2018-01-01", "ns")


@st.composite
def requests(draw, sides: tuple[int, int] = (5, 40), blocks: tuple[int, int] = (4, 20)) -> dict:
    """Arguments of `plan_windows`, most of them valid."""
    gaps = draw(st.lists(st.integers(1, 40), min_size=14, max_size=40))
    times = START + np.cumsum(gaps) * np.timedelta64(1, "D")
    cuts = draw(st.tuples(st.integers(6, len(times) - 6), st.integers(2, 12)))
    split = {
        "block_px": draw(st.integers(*blocks)),
        "buffer_px": draw(st.integers(0, 2)),
        "validation_from": times[cuts[0]],
        "test_from": times[min(cuts[0] + cuts[1], len(times) - 2)],
        "gap_days": draw(st.sampled_from([0.0, 0.5, 10.0, 30.0])),
        "test_fraction": draw(st.floats(0.05, 0.45)),
        "validation_fraction": draw(st.floats(0.05, 0.45)),
        "seed": draw(st.integers(0, 5)),
    }
    steps = draw(st.sampled_from([Sampling(), Sampling("regular"), Sampling("regular", 12.0, 3.0)]))
    side = st.integers(*sides)
    shape = draw(st.tuples(side, side) | st.tuples(st.integers(*blocks), side, side))
    sizes = {"context": draw(st.integers(1, 4)), "horizon": draw(st.integers(1, 3)), "stride": draw(st.integers(1, 3))}
    return {"times": times, "shape": shape, "split": split, "steps": steps, **sizes}


def plan_or_skip(request: dict) -> WindowPlan:
    """The plan; the example is skipped if the request is refused with a message that names a setting."""
    try:
        return plan_windows(**{**request, "split": Split(**request["split"])})
    except RequestError as e:
        message = str(e)
    assert any(word in message for word in ("split.", "samples.", "larger area"))
    reject()


def pixel_dates(plan: WindowPlan, part: str) -> set[tuple[int, ...]]:
    """Every (date, [slice,] row, column) that the part uses, by brute force."""
    seen: set[tuple[int, ...]] = set()
    for window in plan.of_part(part):
        dates = {date for date in (*window.context_T, *window.target_K) if date >= 0}
        seen.update(product(dates, *map(range, window.tile.start, window.tile.stop)))
    return seen


@settings(max_examples=60, deadline=None)
@given(requests())
def test_every_valid_plan_passes_the_audit(request_):
    plan = plan_or_skip(request_)
    found = audit(plan)
    assert found.ok, found.problems
    assert all(found.facts["parts"][part]["windows"] > 0 for part in PARTS)
    assert from_json(to_json(plan)) == plan


@settings(max_examples=10, deadline=None)
@given(requests((10, 15), (5, 6)), st.data())
def test_shared_pixel_dates_equal_brute_force(request_, data):
    plan = plan_or_skip(request_)
    numbers = data.draw(st.lists(st.integers(0, len(plan.windows) - 1), min_size=1, max_size=5))
    windows = list(plan.windows)
    for number in numbers:  # other parts, at random: most leak
        windows[number] = replace(windows[number], part=data.draw(st.sampled_from(PARTS)))
    mixed = replace(plan, windows=tuple(windows))
    seen = {part: pixel_dates(mixed, part) for part in PARTS}
    shared = audit(mixed).facts["shared_pixel_dates"]
    for pair, count in shared.items():
        first, second = pair.split("_")
        assert count == len(seen[first] & seen[second])


@settings(max_examples=40, deadline=None)
@given(requests(), st.data())
def test_a_corrupted_plan_is_detected(request_, data):
    plan = plan_or_skip(request_)
    train, test = (data.draw(st.sampled_from(plan.of_part(part))) for part in ("train", "test"))
    corruption = data.draw(
        st.sampled_from(
            [
                replace(test, part="train"),  # a test window in training
                replace(train, part="test"),  # a training window in the test
                replace(test, tile=train.tile, context_T=train.context_T),  # tested on training pixels and dates
                replace(train, target_K=test.target_K, target_days_K=test.target_days_K),  # trained on the test period
                replace(test, context_T=(*test.context_T[:-1], max(test.target_K))),  # the context holds the target
            ]
        )
    )
    assert not audit(replace(plan, windows=(*plan.windows, corruption))).ok


@given(st.tuples(st.integers(1, 60), st.integers(1, 60)), st.integers(1, 30))
def test_blocks_cover_every_pixel_once(shape_yx, block_px):
    covered = np.zeros(shape_yx, int)
    for block in cut_blocks(shape_yx, block_px):
        covered[block.rows, block.columns] += 1
        assert min(block.shape) >= min(block_px / 2, *shape_yx)
    assert (covered == 1).all()


@settings(max_examples=40, deadline=None)
@given(requests())
def test_training_never_uses_its_target_or_the_half_year_after(request_):
    plan = plan_or_skip(request_)
    for window in plan.windows[:: max(len(plan.windows) // 20, 1)]:
        usable, issue = plan.days_N[plan.usable(window)], plan.days_N[window.issue]
        assert plan.usable(window)[[i for i in window.context_T if i >= 0]].all()
        late = usable[usable > issue]
        assert not late.size or (window.part == "train" and late.min() > max(window.target_days_K) + 183)
