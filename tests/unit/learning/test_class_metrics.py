import numpy as np
import pytest

from pipelines.learning.class_metrics import (
    Predicted,
    accuracy_difference,
    accuracy_of,
    block_confusions,
    describe,
    fit_temperature,
    over_blocks,
    reliability,
)  # fmt: skip

TRUE = np.array([0, 0, 1, 1, 1, 0, 1, 0])
SAID = np.array([0, 1, 1, 1, 0, 0, 1, 0])
BLOCK = np.array([0, 0, 0, 5, 5, 5, 9, 9])


def test_the_figures_of_a_written_out_case():
    described = describe(Predicted(SAID), TRUE, BLOCK, ("a", "b"), 0.95)
    assert described["confusion"] == [[3, 1], [1, 3]]
    assert described["accuracy"]["value"] == 0.75
    assert [row["f1"] for row in described["classes"]] == [0.75, 0.75]
    assert [row["blocks"] for row in described["classes"]] == [3, 3]


def test_the_interval_of_accuracy_leaves_out_one_block_after_the_other():
    found = over_blocks(block_confusions(TRUE, SAID, BLOCK, 2), accuracy_of, 0.95)
    without = np.array([4 / 5, 4 / 5, 4 / 6])
    error = np.sqrt(2 / 3 * ((without - 0.75) ** 2).sum())
    assert (found.value, found.low) == pytest.approx((0.75, 0.75 - 4.3027 * error), abs=1e-4)
    assert (found.high, found.unit, found.count) == (1.0, "blocks", 3)


def test_a_perfect_score_on_few_blocks_is_not_certain():
    found = over_blocks(block_confusions(TRUE, TRUE, BLOCK, 2), accuracy_of, 0.95)
    assert found.value == 1
    assert found.high == 1
    assert found.low < 0.6


def test_a_method_does_not_differ_from_itself():
    blocks = block_confusions(TRUE, SAID, BLOCK, 2)
    found = accuracy_difference(blocks, blocks, 0.95)
    assert (found.value, found.low, found.high) == (0, 0, 0)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_of_logits_is_found_and_calibrates_them(temperature):
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 2, (20_000, 3))
    p = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
    true = (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1)
    assert fit_temperature(temperature * logit, true) == pytest.approx(temperature, rel=0.05)
    assert reliability(p, true)["expected_error"] < 0.02
    assert reliability(p**4 / (p**4).sum(axis=1, keepdims=True), true)["expected_error"] > 0.1


def test_without_labels_nothing_is_calibrated():
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1.0
