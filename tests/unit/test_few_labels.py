"""The page of few labels: a line for each number of labels, with the spread over seeds, and what was not run."""

from dataclasses import replace

from benchmarks.few_labels import CURVES, NOTHING, table_lines


def test_a_line_for_each_number_of_labels_with_the_spread_over_seeds() -> None:
    curve = replace(CURVES["crops"], counts=(1, 4), pretrained={"filled": ("none", {})})
    rows = {(NOTHING, 1, seed): {"accuracy": 0.5 + 0.1 * seed, "forest_accuracy": 0.7} for seed in range(3)}
    lines = table_lines(curve, {**rows, ("filled", 1, 0): {"accuracy": 0.8}})
    assert lines[-5:] == [
        "| labels of each class | from nothing | filled | random forest |",
        "|---|---|---|---|",
        "| 1 | 0.600 ± 0.100 (3) | 0.800 (1) | 0.700 ± 0.000 (3) |",
        "| 4 | not run | not run | not run |",
        "",
    ]
