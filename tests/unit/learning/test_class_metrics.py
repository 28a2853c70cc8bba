import numpy as np
import pytest

from pipelines.learning.class_metrics import (
    Predicted,
    accuracy_of,
    block_confusions,
    choose_weights,
    class_figure_of,
    confusion,
    decide,
    describe,
    difference,
    fit_biased_temperature,
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
    found = difference(blocks, blocks, accuracy_of, 0.95)
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


def test_a_bias_mends_what_drawing_classes_alike_did_to_a_rare_one():
    rng, shares = np.random.default_rng(0), np.array([0.97, 0.03])
    true = rng.choice(2, 20_000, p=shares)
    logit = 2.0 * (rng.normal(0, 1, (len(true), 2)) + 2 * np.eye(2)[true])  # as if both classes were as common
    temperature, bias = fit_biased_temperature(logit, true)
    assert bias[1] == pytest.approx(np.log(shares[1] / shares[0]), abs=0.2)
    p = np.exp(logit / temperature + bias) / np.exp(logit / temperature + bias).sum(axis=1, keepdims=True)
    assert reliability(p, true)["expected_error"] < 0.01 < reliability(np.eye(2)[true] * 0 + 0.5, true)["expected_error"]
    assert p[:, 1].mean() == pytest.approx(0.03, abs=0.003)


def test_without_labels_nothing_is_calibrated():
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1.0


def rarer_f1(true: np.ndarray, said: np.ndarray, classes: int) -> float:
    sums = confusion(true, said, classes).reshape(1, -1)
    return float(np.mean([class_figure_of("f1", k, sums)[0] for k in range(1, classes)]))


@pytest.mark.parametrize("shares", [(0.98, 0.02), (0.8, 0.19, 0.01)])
def test_the_weights_of_a_decision_find_a_rare_class(shares: tuple[float, ...]) -> None:
    rng, classes = np.random.default_rng(0), len(shares)
    true = rng.choice(classes, 20_000, p=shares)
    score = rng.normal(0, 1, (len(true), classes)) + 2.5 * np.eye(classes)[true]
    p = np.exp(score + np.log(shares)) / np.exp(score + np.log(shares)).sum(axis=1, keepdims=True)
    learn, test = slice(0, 10_000), slice(10_000, None)
    found = rarer_f1(true[test], decide(p[test], choose_weights(p[learn], true[learn])), classes)
    assert found > rarer_f1(true[test], p[test].argmax(axis=1), classes) - 0.01
    balanced = p / np.array(shares)  # of a network that learnt from classes drawn alike: it calls the rare one everywhere
    balanced /= balanced.sum(axis=1, keepdims=True)
    again = rarer_f1(true[test], decide(balanced[test], choose_weights(balanced[learn], true[learn])), classes)
    assert again == pytest.approx(found, abs=0.02)
    assert again > rarer_f1(true[test], balanced[test].argmax(axis=1), classes) + 0.1


def test_of_two_classes_the_weights_are_the_best_threshold_even_where_all_are_poor() -> None:
    rng = np.random.default_rng(1)
    true = (rng.random(3000) < 0.03).astype(int)
    p1 = np.clip(rng.normal(0.02 + 0.01 * true, 0.01), 1e-4, 1)
    p = np.stack([1 - p1, p1], axis=1)
    found = rarer_f1(true, decide(p, choose_weights(p, true)), 2)
    assert found >= max(rarer_f1(true, (p1 >= t).astype(int), 2) for t in p1[true == 1]) - 0.01
