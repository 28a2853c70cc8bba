"""The document of measured forecasts: what is printed of a row, and that the README says what was measured."""

import re
from pathlib import Path

import pytest

from benchmarks.forecasts_rows import SERIES
from benchmarks.results_forecasts import README, document, interval_of_mae

ROOT = Path(__file__).parents[2]
INTERVALS = {
    "coverage": 0.912, "coverage_of_dates": [0.75, 0.99], "mean_width": 0.3, "interval_score": 0.4, "crps": 0.05,
}  # fmt: skip
SKILL = {"skill": -0.04, "low": -0.10, "high": 0.03, "dates": 25, "effective_dates": 10.2, "outcome": "not distinguishable"}


def row(error: float = 0.063, **changes: object) -> dict[str, object]:
    metrics = {"model": error, "persistence": 0.1, "gradient_boosting": 0.06}
    return {
        "measured": "2026-11-29", "protocol": "How it is measured.", "published": "gradient_boosting",
        "metrics": {name: {"mae": mae, "low": mae - 0.01, "high": mae + 0.01} for name, mae in metrics.items()},
        "skill": {"persistence": SKILL | {"skill": 0.37, "low": 0.2, "high": 0.5}, "gradient_boosting": SKILL},
        "choice": {"reason": "its error is 0.7 % smaller than that of gradient_boosting"},
        "intervals": {
            "nominal": 0.9, "calibration_dates": 57, "is_bounded": True,
            "methods": dict.fromkeys(["model", "persistence", "gradient_boosting", "climatological"], INTERVALS),
        },
        "counts": {"windows": 72, "dates": 25, "pixels": 1000}, "windows": {"train": 40, "validation": 20, "test": 72},
        "epochs": [8, 7, 8], "networks": 3, "parameters": 5000, "refused": ["20040727 (all-nodata)"],
        "cpu_seconds": 80.4, "peak_gb": 1.234, "went_on": False, "exit_code": 3, **changes,
    }  # fmt: skip


def test_a_series_shows_every_method_its_seeds_and_what_is_missing() -> None:
    text = "\n".join(document({("demo", 0): row(), ("demo", 1): row(0.065)}))
    start = "| network | 0.0630 (0.053 to 0.073) | 0.630 |  | 0.912 | 0.75 to 0.99 | 0.3 | 0.4 | 0.05 |"
    assert start in text
    assert "| **gradient boosting** | 0.0600 (0.050 to 0.070) | 0.600 | -0.040 (-0.100 to 0.030) | 0.912" in text
    assert "| *climatological* |  |  |  | 0.912" in text
    flat = " ".join(text.split())
    assert "MAE of the network 0.0630, 0.0650 (mean 0.0640, standard deviation 0.0014)" in flat
    assert "Published is gradient boosting: its error is 0.7 % smaller than that of gradient boosting." in flat
    assert "80 CPU seconds, 1.23 GB; 3 x 5000 parameters, 8/7/8 epochs. Exit code 3: not used 20040727 (all-nodata)." in flat
    assert "Not run yet: seed 2." in text
    assert text.count("Not run yet") == len(SERIES)


def test_a_combination_is_told_with_its_members_and_its_skill() -> None:
    combined = {"mae": 0.055, "low": 0.05, "high": 0.06}
    shown = row(published="combination", choice={"reason": "it is", "members": ["model", "gradient_boosting"]})
    shown["metrics"] = {**shown["metrics"], "combination": combined}  # type: ignore[dict-item]
    shown["intervals"]["methods"]["combination"] = INTERVALS  # type: ignore[index]
    shown["combined_skill"] = {name: SKILL | {"skill": 0.06} for name in ("model", "persistence", "gradient_boosting")}
    text = "\n".join(document({("demo", 0): shown, ("demo", 1): shown}))
    assert "| **combination** | 0.0550 (0.050 to 0.060) | 0.550 |  | 0.912" in text
    flat = " ".join(text.split())
    assert "Published is the combination: it is. The combination is the mean of network, gradient boosting;" in flat
    assert "over the network 0.060 (-0.100 to 0.030), over gradient boosting 0.060 (-0.100 to 0.030)." in flat
    assert "of the combination 0.0550, 0.0550, of the best baseline 0.0600, 0.0600" in flat
    assert "The combination is not distinguishable from gradient boosting: its error is 6.0 % smaller" in flat


def test_the_interval_of_an_error_is_that_of_its_dates() -> None:
    found = interval_of_mae({"pixels": [10, 10, 20], "mae": {"it": [0.1, 0.1, 0.1]}}, "it")
    assert (found["low"], found["high"]) == pytest.approx((0.1, 0.1))
    wide = interval_of_mae({"pixels": [10] * 6, "mae": {"it": [0.1, 0.3] * 3}}, "it")
    assert 0.05 < wide["low"] < 0.2 < wide["high"] < 0.35


def test_the_readme_says_what_was_measured() -> None:
    measured = (ROOT / "docs/results/forecasts.md").read_text(encoding="utf-8")
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    said = measured.split("## What the README says of the demo", 1)[1]
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", said.strip())]
    assert len(paragraphs) >= 5, f"nothing is printed of the series {README}"
    assert [paragraph for paragraph in paragraphs if paragraph not in readme] == []
