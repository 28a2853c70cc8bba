import re
from dataclasses import replace

import pytest
from PIL import Image

from pipelines.errors import ArtefactDamaged, MissingInput
from pipelines.products.page import Picture, duration, number, percent, when
from pipelines.products.report import ReportInput, render_report, tone, write_report
from pipelines.products.summary import Stage, Summary, read_summary, write_summary


@pytest.fixture
def summary(evaluation):
    return Summary(
        name="demo <b>",
        task="forecast",
        cube_snapshot="SNAP",
        split={"ok": True},
        metrics=evaluation["metrics"],
        verdict=evaluation["verdict"],
        stages=(Stage("ingest", 3.24, 210.0), Stage("train", 0.0, None, True)),
        products={"cogs": ["products/a.tif"]},
        skill=evaluation["skill"],
        intervals=evaluation["intervals"],
        refused=({"scene_id": "<script>alert(1)</script>", "reason": "truncated", "detail": 'a & "b"'},),
    )


@pytest.fixture
def content(summary, evaluation, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "p.png")
    part = {"windows": 3, "issue_dates": 2, "share_of_raster": 0.5, "targets_from_to": ["2020-01-01", "2020-02-01"]}
    rows = {"train": part, "test": {**part, "targets_from_to": None}}
    audit = {"ok": True, "problems": [], "parts": rows, "least_gap_days": {"train_to_test": 9.0, "validation_to_test": None}}
    picture = Picture(tmp_path / "p.png", "A <map>")
    return ReportInput(
        summary, "name: <demo>", {"scenes": 140}, audit, evaluation, [picture], [picture], [picture], [picture], ["Note."]
    )


def test_the_report_needs_nothing_from_outside(content):
    html = render_report(content)
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    assert "<script" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert "http" not in html.replace('http-equiv="Content-Security-Policy"', "")


def test_what_comes_from_files_is_escaped(content):
    html = render_report(content)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "a &amp; &#34;b&#34;" in html
    assert "name: &lt;demo&gt;" in html
    assert "demo &lt;b&gt;" in html


def test_the_verdict_comes_first_and_everything_is_there(content):
    html = render_report(content)
    assert html.index("cannot be told apart") < html.index('id="maps"')
    for text in (
        "how it was measured",
        "3.2 s",
        "up to date",
        "210 MB",
        "truncated: 1",
        "SNAP",
        "measured 88.0 %",
        "products/a.tif",
    ):
        assert text in html


def test_a_run_that_was_not_evaluated_has_a_report_too(summary):
    bare = Summary("demo", "forecast", "SNAP", {}, {}, {}, (), {})
    html = render_report(ReportInput(bare))
    assert "Not evaluated." in html
    assert "No intervals were calibrated." in html


@pytest.mark.parametrize(
    ("outcomes", "publishable", "expected"),
    [({"a": "beats"}, True, "good"), ({"a": "beats", "b": "loses"}, True, "unsure"), ({"a": "loses"}, False, "bad")],
)
def test_the_tone_follows_the_verdict(outcomes, publishable, expected):
    assert tone({"outcomes": outcomes, "is_publishable": publishable}) == expected


def test_numbers_read_well():
    assert [number(v) for v in (None, 0.05, 1234567, 12.345, "a", True)] == [
        "–",
        "0.0500",
        "1\u202f234\u202f567",
        "12.3",
        "a",
        "True",
    ]
    assert [percent(v) for v in (None, 0.123, -0.05)] == ["–", "+12.3%", "\u22125.0%"]
    assert [duration(v) for v in (0.44, 12, 200, 7500)] == ["0.4 s", "12 s", "3 min 20 s", "2 h 5 min"]


def test_report_and_summary_are_written_whole(content, summary, tmp_path):
    write_report(content, tmp_path / "report.html")
    write_summary(summary, tmp_path / "summary.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.png", "report.html", "summary.json"]
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_the_summary_is_read_back(summary, tmp_path):
    write_summary(summary, tmp_path / "summary.json")
    assert read_summary(tmp_path / "summary.json") == summary


def test_numbers_that_are_not_finite_become_null(summary, tmp_path):
    summary.split["x"] = float("nan")
    write_summary(summary, tmp_path / "summary.json")
    assert read_summary(tmp_path / "summary.json").split["x"] is None


def test_a_missing_or_damaged_summary_is_named(tmp_path):
    with pytest.raises(MissingInput, match="no summary here"):
        read_summary(tmp_path / "summary.json")
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(ArtefactDamaged, match="not a summary of this version"):
        read_summary(tmp_path / "summary.json")


def test_spans_and_dates_of_the_audit_are_said_for_minutes_too(content):
    minutes = {**content.audit, "least_gap_days": {"train_to_test": 5 / 1440, "validation_to_test": None}}
    minutes["parts"] = {
        "train": {**content.audit["parts"]["train"], "targets_from_to": ["2010-08-26T00:30:00", "2010-08-26T02:25:00"]}
    }
    html = render_report(replace(content, audit=minutes))
    assert "train to test 5 minutes" in html
    assert "2010-08-26 00:30 to 2010-08-26 02:25" in html
    assert when("2020-01-01T00:00:00") == when("2020-01-01") == "2020-01-01"
    assert when("2020-01-01T00:00:30Z") == "2020-01-01 00:00:30"
