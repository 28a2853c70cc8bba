"""Sections of the report about held-out scores."""

from pathlib import Path
from typing import Any

from pipelines.products.report_sections import audit_facts, intervals_section, scores_section
from pipelines.samples.audit import Audit


def test_scores_and_intervals_have_tables_and_pictures(evaluation: dict[str, Any], tmp_path: Path) -> None:
    section = scores_section(evaluation, "model", "How it was measured.", tmp_path)
    assert all(picture.path.exists() for picture in section.pictures)
    assert next(iter(section.tables[0].rows)) == {
        "method": "persistence", "saved": "+40.0%", "interval": "+35.0% to +45.0%", "outcome": "model is better",
    }  # fmt: skip
    few = intervals_section({**evaluation["intervals"], "is_bounded": False}, tmp_path)
    assert "Nominal coverage 90%, measured 88.0% of held-out pixels" in few.text[0]
    assert "too few dates" in few.text[1]
    assert [list(row.values())[1] for row in few.tables[0].rows] == [0.88, 0.3]
    assert intervals_section(None, tmp_path).is_empty


def test_gaps_of_minutes_are_given_in_minutes() -> None:
    found = {"shared_pixel_dates": {"train_test": 0}, "least_distance_px": 2, "least_gap_days": {"train_to_test": 5 / 1440}}
    assert audit_facts(Audit(True, (), {**found, "parts": {}})) == {
        "pixel-dates in both train and test": 0, "least distance in pixels": 2, "least gap train to test": "5 minutes",
    }  # fmt: skip
