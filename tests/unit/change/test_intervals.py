import numpy as np
import pytest

from pipelines.change import intervals
from pipelines.change.intervals import block_counts, f1_difference, f1_interval
from pipelines.change.metrics import count_changes

MARGIN = 0.01


def make_site(seed, shape=(96, 100), share=0.05):
    rng = np.random.default_rng(seed)
    label = (rng.random(shape) < share).astype(np.uint8)
    mapped = (rng.random(shape) < np.where(label, 0.6, 0.03)).astype(bool)
    label[rng.random(shape) < 0.1] = 255
    return mapped, label


def pooled_f1(blocks):
    true, false, missed = sum(counts.sum(axis=0) for counts in blocks.values())
    return 2 * true / (2 * true + false + missed)


def test_blocks_add_up_to_the_counts_of_the_site():
    mapped, label = make_site(0)
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


def test_the_interval_holds_the_value_and_is_always_the_same():
    blocks = {name: block_counts(*make_site(seed), block_px=16) for seed, name in enumerate("ab")}
    one = f1_interval(blocks)
    assert one.low < one.value < one.high
    assert one == f1_interval(blocks)
    assert one.value == pooled_f1(blocks)


@pytest.mark.parametrize("silent", [0, 60])
def test_the_interval_agrees_with_drawing_by_hand(silent, monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 20_000)
    blocks = np.vstack([block_counts(*make_site(3), block_px=24), np.zeros((silent, 3), int)])
    rng = np.random.default_rng(0)
    drawn = blocks[rng.integers(len(blocks), size=(20_000, len(blocks)))].sum(axis=1)
    by_hand = np.quantile(2 * drawn[:, 0] / (2 * drawn[:, 0] + drawn[:, 1] + drawn[:, 2]), [0.025, 0.975])
    interval = f1_interval({"a": blocks})
    assert [interval.low, interval.high] == pytest.approx(by_hand, abs=3e-3 if silent == 0 else 8e-3)


def test_blocks_without_any_count_are_drawn_too():
    informative = np.array([[5, 1, 1], [1, 5, 5]])
    few = f1_interval({"a": informative})
    many = f1_interval({"a": np.vstack([informative, np.zeros((98, 3), np.int64)])})
    assert many.value == few.value
    assert many.count == 100
    assert many.low is not None


def make_sites(precisions, seed=0):
    """Sites of 40 blocks that are alike within a site; each with its own precision."""
    rng = np.random.default_rng(seed)
    return {
        f"site {n}": np.column_stack([rng.poisson(50, 40), rng.poisson(50 * (1 - p) / p, 40), rng.poisson(20, 40)])
        for n, p in enumerate(precisions)
    }


def test_three_sites_and_more_are_the_unit_not_their_blocks():
    """Within a site everything is alike, so blocks vary little; sites differ, and other sites may differ as much."""
    found = f1_interval(make_sites([0.9, 0.2, 0.5, 0.7]))
    assert (found.unit, found.count, found.basis) == ("sites", 4, "4 sites")
    assert found.high - found.low > 0.4
    two = f1_interval(make_sites([0.9, 0.2]))
    assert (two.unit, two.count, two.basis) == ("blocks", 80, "80 blocks of 2 sites")
    assert two.high - two.low < 0.05


def test_a_gain_at_one_site_only_is_not_distinguishable_although_its_blocks_leave_no_doubt():
    """As five cities: better at one, the same at the others."""
    theirs = make_sites([0.4, 0.4, 0.4, 0.4, 0.4])
    ours = {**theirs, "site 0": theirs["site 0"] * [1, 0, 1]}
    assert f1_difference(ours, theirs).outcome(MARGIN) == "not distinguishable"
    alone = {"site 0": theirs["site 0"]}
    assert f1_difference({"site 0": ours["site 0"]}, alone).outcome(MARGIN) == "beats"


def test_two_equal_methods_are_seldom_told_apart_by_five_sites():
    rng = np.random.default_rng(1)
    wins = 0
    for _ in range(1000):
        true = rng.lognormal(5, 0.8, 5)
        methods = [
            {str(n): np.array([[t, t * rng.lognormal(0, 0.5), t * rng.lognormal(0, 0.5)]]) for n, t in enumerate(true)}
            for _ in range(2)
        ]
        wins += f1_difference(*methods).outcome(MARGIN) == "beats"
    assert wins / 1000 <= 0.06


def test_sites_of_one_group_count_as_one():
    sites = make_sites([0.9, 0.2, 0.5, 0.7])
    assert f1_interval(sites, [["site 0", "site 1"], ["elsewhere"]]).count == 3
    assert f1_interval(sites, [["site 0", "site 1", "site 2"]]).unit == "blocks"


def test_the_interval_stays_within_what_an_f1_can_be():
    found = f1_interval(make_sites([0.99, 0.1, 0.9]))
    assert (found.low, found.high) == (0, 1)


def test_a_method_equals_itself_and_a_better_one_beats():
    mapped, label = make_site(4)
    blocks = {"a": block_counts(mapped, label)}
    for same in (blocks, dict.fromkeys("abc", blocks["a"])):
        found = f1_difference(same, same)
        assert (found.value, found.low, found.high, found.outcome(MARGIN)) == (0, 0, 0, "equal")
    perfect = {"a": block_counts(label == 1, label)}
    better = f1_difference(perfect, blocks)
    assert better.outcome(MARGIN) == "beats"
    assert better.value == pytest.approx(1 - pooled_f1(blocks))
    assert f1_difference(blocks, perfect).outcome(MARGIN) == "loses"


def test_without_change_there_is_a_reason_instead_of_a_number():
    empty = {"a": np.array([[0, 3, 0], [0, 1, 0]])}
    found = f1_interval(empty)
    assert (found.value, found.low, found.reason) == (None, None, "no usable pixel is labelled changed")
    assert f1_difference(empty, empty).value is None
    one = f1_interval({"a": np.array([[2, 1, 0], [0, 1, 0]])})
    assert (one.value, one.low) == (0.5 * 4 / 3, None)
    assert "fewer than two blocks" in one.reason
    three = {"a": np.array([[2, 1, 0]]), "b": np.array([[0, 1, 0]]), "c": np.array([[0, 1, 0]])}
    assert f1_interval(three).reason == "only one site holds change"
    assert f1_interval({name: np.array([[0, 1, 0]]) for name in "abc"}).value is None


def test_methods_must_be_counted_on_the_same_blocks():
    with pytest.raises(ValueError, match="same sites and blocks"):
        f1_difference({"a": np.ones((4, 3), int)}, {"a": np.ones((5, 3), int)})
