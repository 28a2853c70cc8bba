import numpy as np
import pytest

from pipelines.learning.change_intervals import Interval, block_counts, f1_difference, f1_interval, pooled_f1
from pipelines.learning.change_metrics import count_changes


def make_place(seed, shape=(96, 100), share=0.05):
    rng = np.random.default_rng(seed)
    label = (rng.random(shape) < share).astype(np.uint8)
    mapped = (rng.random(shape) < np.where(label, 0.6, 0.03)).astype(bool)
    label[rng.random(shape) < 0.1] = 255
    return mapped, label


def test_blocks_add_up_to_the_counts_of_the_place():
    mapped, label = make_place(0)
    blocks = block_counts(mapped, label, block_px=32)
    counts = count_changes(mapped, label)
    assert blocks.shape == (3 * 4, 3)
    assert blocks.sum(axis=0).tolist() == [counts.true_changed, counts.false_changed, counts.missed]
    assert pooled_f1({"a": blocks}) == counts.f1


def test_a_block_holds_its_own_pixels_only():
    mapped, label = np.zeros((4, 5), bool), np.zeros((4, 5), np.uint8)
    mapped[0, 4] = True
    label[3, 0] = 1
    assert block_counts(mapped, label, block_px=2).tolist() == [[0] * 3, [0] * 3, [0, 1, 0], [0, 0, 1], [0] * 3, [0] * 3]


def test_the_interval_holds_the_value_and_is_that_of_the_seed():
    blocks = {name: block_counts(*make_place(seed), block_px=16) for seed, name in enumerate("ab")}
    one = f1_interval(blocks, seed=1)
    assert one.low < one.value < one.high
    assert one == f1_interval(blocks, seed=1)
    assert one != f1_interval(blocks, seed=2)
    assert one.value == pooled_f1(blocks)


@pytest.mark.parametrize("silent", [0, 60])
def test_the_interval_agrees_with_drawing_by_hand(silent):
    blocks = np.vstack([block_counts(*make_place(3), block_px=24), np.zeros((silent, 3), int)])
    rng = np.random.default_rng(0)
    drawn = blocks[rng.integers(len(blocks), size=(20_000, len(blocks)))].sum(axis=1)
    by_hand = np.quantile(2 * drawn[:, 0] / (2 * drawn[:, 0] + drawn[:, 1] + drawn[:, 2]), [0.025, 0.975])
    interval = f1_interval({"a": blocks}, resamples=20_000)
    assert [interval.low, interval.high] == pytest.approx(by_hand, abs=3e-3 if silent == 0 else 8e-3)


def test_blocks_without_any_count_are_drawn_too():
    told = np.array([[5, 1, 1], [1, 5, 5]])
    few = f1_interval({"a": told})
    many = f1_interval({"a": np.vstack([told, np.zeros((98, 3), np.int64)])})
    assert many.value == few.value
    assert many.blocks == 100
    assert many.low is not None


def test_places_are_not_traded_for_each_other():
    """Within each place all blocks are alike, so nothing varies, although the places differ."""
    blocks = {"good": np.tile([9, 0, 1], (6, 1)), "bad": np.tile([1, 9, 9], (6, 1))}
    interval = f1_interval(blocks)
    assert interval.low == interval.high == interval.value


def test_a_method_does_not_differ_from_itself_and_a_better_one_is_better():
    mapped, label = make_place(4)
    blocks = {"a": block_counts(mapped, label)}
    same = f1_difference(blocks, blocks)
    assert (same.value, same.low, same.high, same.outcome) == (0, 0, 0, "not distinguishable")
    perfect = {"a": block_counts(label == 1, label)}
    better = f1_difference(perfect, blocks)
    assert better.outcome == "better"
    assert better.value == pytest.approx(1 - pooled_f1(blocks))
    assert f1_difference(blocks, perfect).outcome == "worse"


def test_without_change_there_is_a_reason_instead_of_a_number():
    empty = {"a": np.array([[0, 3, 0], [0, 1, 0]])}
    assert f1_interval(empty) == Interval(None, None, None, 2, "no usable pixel is labelled changed")
    assert f1_difference(empty, empty).value is None
    one = f1_interval({"a": np.array([[2, 1, 0], [0, 1, 0]])})
    assert (one.value, one.low) == (0.5 * 4 / 3, pytest.approx(None))
    assert "fewer than two blocks" in one.reason


def test_methods_must_be_counted_on_the_same_blocks():
    with pytest.raises(ValueError, match="same places and blocks"):
        f1_difference({"a": np.ones((4, 3), int)}, {"a": np.ones((5, 3), int)})
