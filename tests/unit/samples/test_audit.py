"""Every kind of leak, added to a valid plan, is found."""

from dataclasses import replace

import pytest

from pipelines.samples.audit import audit
from pipelines.samples.plan import WindowPlan
from pipelines.tiles import Box


def with_window(plan: WindowPlan, part: str, **changes) -> WindowPlan:
    """The plan with its first window of `part` changed."""
    number = next(i for i, window in enumerate(plan.windows) if window.part == part)
    windows = list(plan.windows)
    windows[number] = replace(windows[number], **changes)
    return replace(plan, windows=tuple(windows))


def test_a_valid_plan_passes_with_its_counts(plan):
    found = audit(plan)
    assert found.ok
    assert found.problems == ()
    assert found.facts["shared_pixel_dates"] == {"train_validation": 0, "train_test": 0, "validation_test": 0}
    assert found.facts["least_distance_px"] == 1
    assert sum(part["windows"] for part in found.facts["parts"].values()) == len(plan.windows)


def test_a_test_window_on_training_pixels_in_training_time(plan):
    train = plan.of_part("train")[0]
    leaking = with_window(plan, "test", tile=train.tile, context_T=train.context_T)
    found = audit(leaking)
    assert any("pixel-dates are in train and in test windows" in problem for problem in found.problems)
    height, width = train.tile.shape
    assert found.facts["shared_pixel_dates"]["train_test"] == 3 * height * width


def test_one_shared_pixel_is_enough(plan):
    train, test = plan.of_part("train")[0], plan.of_part("test")[0]
    corner = Box((train.tile.rows.stop - 1, train.tile.columns.stop - 1), (train.tile.rows.stop, train.tile.columns.stop))
    leaking = replace(plan, windows=(*plan.windows, replace(test, tile=corner, context_T=train.context_T)))
    assert audit(leaking).facts["shared_pixel_dates"]["train_test"] == 3


def test_a_training_tile_inside_the_buffer(plan):
    tile = plan.of_part("train")[0].tile
    wider = Box((max(tile.rows.start - 1, 0), max(tile.columns.start - 1, 0)), (tile.rows.stop + 1, tile.columns.stop + 1))
    assert any(
        "are 0 pixels from another part, split.buffer_px is 1" in p
        for p in audit(with_window(plan, "train", tile=wider)).problems
    )


def test_training_in_the_validation_period(plan):
    validation = plan.of_part("validation")[0]
    late = with_window(plan, "train", target_K=validation.target_K, target_days_K=validation.target_days_K)
    assert "a training window extends into the validation period or its gap" in audit(late).problems


def test_validation_and_test_targets_outside_their_period(plan):
    train = plan.of_part("train")[0]
    early = {"context_T": train.context_T, "target_K": train.target_K, "target_days_K": train.target_days_K}
    assert (
        "a validation window has targets outside the validation period"
        in audit(with_window(plan, "validation", **early)).problems
    )
    assert "a test window has targets before the test period" in audit(with_window(plan, "test", **early)).problems


def test_a_target_that_is_its_own_context(plan):
    window = plan.of_part("test")[0]
    assert (
        "a test window has a target that is not after its context"
        in audit(with_window(plan, "test", context_T=(*window.context_T[1:], window.target_K[0]))).problems
    )


@pytest.mark.parametrize("context", [(0, 1, 99), (0, 1, -1), (0, -7, 2)])
def test_dates_that_do_not_exist(plan, context):
    assert (
        "a train window has the index of a date that does not exist"
        in audit(with_window(plan, "train", context_T=context)).problems
    )


def test_tiles_outside_the_raster(plan):
    assert any(
        "is outside the raster of 31 x 29" in p for p in audit(with_window(plan, "test", tile=Box((25, 0), (35, 9)))).problems
    )


def test_a_missing_part(plan):
    found = audit(replace(plan, windows=plan.of_part("train")))
    assert found.problems == ("there is no validation window", "there is no test window")
