"""Sections of the report about held-out scores."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.learning.result import Evaluation, Verdict
from pipelines.products.report_sections import (
    audit_facts,
    change_section,
    evaluation_section,
    events_section,
    intervals_section,
    scores_section,
)
from pipelines.samples.audit import Audit


def test_scores_and_intervals_have_tables_and_pictures(evaluation: dict[str, Any], tmp_path: Path) -> None:
    section = scores_section(evaluation, "model", "How it was measured.", tmp_path)
    assert all(picture.path.exists() for picture in section.pictures)
    assert next(iter(section.tables[0].rows)) == {
        "method": "persistence", "saved": "+40.0 %", "interval": "+35.0 % to +45.0 %", "outcome": "beats",
    }  # fmt: skip
    few = intervals_section({**evaluation["intervals"], "is_bounded": False}, "model", tmp_path)
    assert "Nominal coverage 90 %, measured 88.0 % of held-out pixels" in few.text[0]
    assert "too few dates" in few.text[1]
    assert [list(row.values())[1] for row in few.tables[0].rows] == [0.88, 0.3]
    assert intervals_section(None, "model", tmp_path).is_empty


def test_events_have_a_table_by_threshold_and_by_lead(tmp_path: Path) -> None:
    one = {"csi": 0.5, "fss": None, "bias": 1.2, "events": 12}
    method = [{"threshold": 2.0, "overall": {**one, "csi_low": 0.4, "csi_high": 0.6}, "by_lead": [{"lead": 1, **one}]}]
    scores = {
        "unit": "mm/h", "scale": 12.0, "near_px": 5, "thresholds": [2.0], "dates": 9,
        "methods": {"persistence": method, "model": method},
    }  # fmt: skip
    section = events_section(scores, "model", tmp_path)
    assert [table.title for table in section.tables] == [
        "Events of at least 2 mm/h", "CSI of at least 2 mm/h by steps ahead", "FSS of at least 2 mm/h by steps ahead",
    ]  # fmt: skip
    assert [row["method"] for row in section.tables[0].rows] == ["network", "persistence"]
    assert section.tables[1].rows[0]["1"] == 0.5
    assert section.pictures[0].path.exists()
    assert events_section(None, "model", tmp_path).is_empty


def test_intervals_of_all_methods_stand_side_by_side(evaluation: dict[str, Any], tmp_path: Path) -> None:
    overall = {**evaluation["intervals"]["overall"], "interval_score": 0.4, "crps": 0.05}
    curve = [{"nominal": level, "measured": level, "is_bounded": level < 0.9} for level in (0.5, 0.9)]
    by_date = [{"date": f"2020-06-0{n}T00:00:00", **overall, "coverage": n / 10} for n in range(1, 9)]
    more = {
        "methods": dict.fromkeys(("persistence", "model", "constant"), overall),
        "reliability": {"persistence": curve, "model": curve},
        "by_date": [*by_date, {"date": "2020-07-01T00:00:00", **dict.fromkeys(overall), "pixels": 0}],
    }
    section = intervals_section({**evaluation["intervals"], **more}, "model", tmp_path)
    assert all(picture.path.exists() for picture in section.pictures)
    side_by_side, _, dates = section.tables
    assert [row["method"] for row in side_by_side.rows] == ["persistence", "network", "constant"]
    assert [row["date"] for row in dates.rows] == [f"2020-06-0{n}" for n in range(1, 6)]
    assert dates.note == "5 of 8 test dates."


def test_gaps_of_minutes_are_given_in_minutes() -> None:
    found = {"shared_pixel_dates": {"train_test": 0}, "least_distance_px": 2, "least_gap_days": {"train_to_test": 5 / 1440}}
    assert audit_facts(Audit(True, (), {**found, "parts": {}, "block_px": 10, "buffer_px": 1})) == {
        "side of a block in pixels": 10, "buffer in pixels": 1,
        "pixel-dates in both train and test": 0, "least distance in pixels": 2, "least gap train to test": "5 minutes",
    }  # fmt: skip


@pytest.mark.parametrize(("note", "part"), [("", "site"), ("two sites are cut into strips", "strip")])
def test_captions_say_whether_sites_or_strips_were_left_out(note: str, part: str, tmp_path: Path) -> None:
    bins = [{"pixels": 9, "claimed": 0.5, "happened": 0.4}]
    method = {
        "pooled": {"f1": 0.5}, "sites": {"paris": {"f1": 0.5}}, "f1_interval": {},
        "reliability": {"bins": bins, "expected_error": 0.1},
    }  # fmt: skip
    details = {"note": note, "methods": {"net": method}, "area": {}, "confidence": 0.95}
    verdict = Verdict({}, (), True, "", "blocks", 0.01, 0.95)
    section = evaluation_section(Evaluation("net", {"net": {"f1": 0.5}}, verdict, details=details), tmp_path)
    text = " ".join(picture.caption for picture in section.pictures)
    assert f"chosen on other {part}s" in text
    assert f"no method has seen the {part}" in text
    assert f"on {part}s that were left out" in text


def test_the_largest_patches_are_counted_among_all(tmp_path: Path) -> None:
    site = {"from_utc": "2018-06-01T00:00:00Z", "to_utc": "2019-06-01T00:00:00Z", "patches": 129, "area_m2": 6400.0}
    section = change_section({"paris": site}, [{"id": f"{n}", "area_m2": 100.0} for n in range(50)], {}, 0.4)
    assert section.tables[1].note.startswith("The first 25 of 129;")
