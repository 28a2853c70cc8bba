"""The document of measured labels: which rows are measured again, and what is printed of them."""

import json
from pathlib import Path
from typing import Any

import yaml

from benchmarks.labels_tables import TABLES
from benchmarks.results_labels import table_lines
from benchmarks.run_rows import config_of, kept_row

ROW = {
    "measured": "2026-11-29", "protocol": "What was asked.",
    "methods": {"model": {"accuracy": 0.75}, "commonest": {"accuracy": 0.5}},
    "single": [0.7, 0.8], "confounded": {"frame size": 0.7}, "balanced": 0.72, "seeds": [0, 1], "parameters": 12,
    "cpu_seconds": 3.0, "peak_gb": 0.5, "went_on": False,
}  # fmt: skip


def config(data: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    return config_of("moving-digits", {"model": {"kind": "dcrn"}, **changes}, "row", data, folder)


def test_a_row_is_measured_again_only_with_other_settings(tmp_path: Path) -> None:
    (tmp_path / "row.yaml").write_text(yaml.safe_dump(config(tmp_path, tmp_path)))
    (tmp_path / "row.json").write_text(json.dumps(ROW))
    assert kept_row(config(tmp_path / "elsewhere", tmp_path / "other"), tmp_path) == ROW
    assert kept_row(config(tmp_path, tmp_path, **{"training.epochs": 3}), tmp_path) is None


def test_missing_rows_and_shortcuts_are_named() -> None:
    text = "\n".join(table_lines(TABLES["lung"], {"dcrn": ROW}))
    assert "| dcrn | 0.7500 |  | 0.7500 (0.0707) | 12 | 3 | 0.50 |" in text
    assert "| *commonest* | 0.5000 |" in text
    assert "dcrn 0.720, frame size 0.700." in text
    assert "Not run yet: frame_cnn; cnn_lstm." in text
