"""Sections of the report about held-out scores, and the sentence about what is expected."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.products.course import Course, summary_sentence
from pipelines.products.held_out import audit_facts, intervals_section, scale_notes, scores_section
from pipelines.samples.audit import Audit

FOREST = Course("NDVI", "", "2020-08-01T00:00:00Z", 0.7101, "2020-10-15T00:00:00Z", 0.6302)


@pytest.mark.parametrize(
    ("course", "mae", "expected"),
    [
        (
            FOREST,
            0.0631,
            "NDVI of forest is expected to fall from 0.71 to 0.63 between 2020-08-01 and 2020-10-15; "
            "the forecast's mean error on dates and blocks it had not seen is 0.0631.",
        ),
        (replace(FOREST, observed=0.6299), None, "to stay at 0.63 between 2020-08-01 and 2020-10-15; "
         "the forecast's mean error is not measured."),
        (replace(FOREST, observed=None, unit="mm"), 1.0, "NDVI of forest is expected to be 0.63 mm on 2020-10-15; "),
        (replace(FOREST, observed=None, expected=None), 1.0, "expected to be what the maps show on 2020-10-15; "),
        (None, 2.0, "No forecast of forest is published; the model's mean error on dates and blocks it had not seen is 2."),
    ],
)  # fmt: skip
def test_the_sentence_says_what_is_expected_when_and_how_sure(course: Course | None, mae: float | None, expected: str) -> None:
    assert expected in summary_sentence("forest", course, mae)


@pytest.mark.parametrize(
    ("baseline", "scale_K", "expected"),
    [
        ("decaying_anomaly", [0.0, 0.0], ["this forecast is the baseline (decaying_anomaly) itself"]),
        ("persistence", [0.25, 0.25], ["supports 25% of the correction"]),
        ("none", [1.0], []),
    ],
)
def test_a_note_says_how_much_is_the_network_and_how_much_the_baseline(
    baseline: str, scale_K: list[float], expected: list[str]
) -> None:
    notes = scale_notes(baseline, scale_K)
    assert len(notes) == len(expected)
    assert all(text in note for text, note in zip(expected, notes, strict=True))


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
