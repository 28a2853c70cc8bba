"""One report for every task: what it shows first, what it escapes, and that the summary keeps to its schema."""

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

from pipelines.errors import ArtefactDamaged, MissingInput
from pipelines.grid import Grid
from pipelines.learning.result import Criterion, Evaluation, Verdict
from pipelines.products.polygons import outline_changes
from pipelines.products.report import (
    Report,
    duration,
    fact,
    headline,
    number,
    render_markdown,
    render_report,
    shown,
    tone_of,
    write_report,
)  # fmt: skip
from pipelines.products.report_sections import percent
from pipelines.products.section import Column, Picture, Section, Table
from pipelines.products.summary import Published, Refusal, StageCost, Summary, read_summary, schema, write_summary
from pipelines.products.tables import alert_table, area_table, label_tables, lead_tables, monitoring_table, patch_table

HOSTILE = '<script>alert("1")</script> | [a](http://x.y) www.x.y & b'
SCHEMA = Path(__file__).parents[3] / "docs" / "summary.schema.json"


def verdict(outcome: str = "beats", is_publishable: bool = True) -> Verdict:
    return Verdict({"persistence": outcome}, ("persistence",), is_publishable, f"It {outcome}. {HOSTILE}", "dates", 0.01, 0.95)


def patches() -> tuple[dict, ...]:
    grid = Grid("EPSG:3035", (10.0, 0, 5.5e6, 0, -10.0, 2.7e6), (20, 20))
    changed = np.zeros(grid.shape_yx, bool)
    changed[2:6, 2:6] = changed[10:12, 10:12] = True
    frame = outline_changes(changed, grid, {"change_day": np.where(changed, 18_262.0, np.nan)})
    return tuple(frame.drop(columns="geometry").to_dict("records"))


SUMMARY = Summary(
    name=f"forest {HOSTILE}",
    task="monitor",
    sentence="2 patches of forest have changed.",
    verdict=verdict(),
    criteria=(Criterion("false alarms", 4.0, 10.0, "at most"),
              Criterion("saved", 0.0303, 0.01, unit="share"), Criterion(HOSTILE, float("nan"), 0.95)),
    shipped="harmonic_cusum",
    methods={"harmonic_cusum": {"false_alarms": 4.0, "found_0.2": 0.99, "delay_0.2": 73.0}, HOSTILE: {"false_alarms": 7.0}},
    found={"patches": 2, HOSTILE: HOSTILE},
    largest=patches(),
    alerts=({"number": 1, "id": HOSTILE, "is_standing": False, "notify": {HOSTILE: ""}},),
    computed={"tiles": 4, HOSTILE: 3},
    products=Published(("products/changes.gpkg", HOSTILE), "products/collection.json", "SNAP", "abc", "2020-01-01T00:00:00Z"),
    stages=(StageCost("ingest", 3.24, 210.0), StageCost("monitor", 0.0)),
    refused=(Refusal(HOSTILE, "truncated", HOSTILE),),
    cube_snapshot="SNAP",
)  # fmt: skip


@pytest.fixture
def report(tmp_path: Path) -> Report:
    Image.new("RGB", (4, 4)).save(tmp_path / "p.png")
    table = monitoring_table(SUMMARY.methods, [0.2, 0.4], "harmonic_cusum")
    sections = [
        Section(
            "maps", "What changed", (HOSTILE,), {HOSTILE: HOSTILE, "area_m2": 1600.0}, [Picture(tmp_path / "p.png", HOSTILE)]
        ),
        Section("alerts", "Alerts", tables=[alert_table(SUMMARY.alerts), patch_table(SUMMARY.largest), table]),
    ]
    return Report(
        SUMMARY.to_json(), sections, {"dates": 140, HOSTILE: HOSTILE}, {"threshold": 8.9}, [HOSTILE], f"name: {HOSTILE}"
    )


def test_what_comes_from_files_is_escaped_and_nothing_is_loaded(report: Report) -> None:
    html = render_report(report)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 15
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    assert not re.search(r"url\(|@import", html)


def test_control_characters_of_names_are_written_out(report: Report) -> None:
    html = render_report(replace(report, notes=["class \x1b[31mred\x1b[0m \u202egnp"], config_yaml="name: \x9b31m"))
    assert "class \\x1b[31mred" in html
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", html)


def test_markdown_makes_neither_links_nor_html_nor_broken_tables_of_anything(report: Report) -> None:
    text = render_markdown(report)
    for live in ("<script", " [a](", "http://", "www.x"):
        assert live not in text
    assert text.count("&lt;script>") >= 12
    widths = {
        line.replace("\\|", "").count("|") for line in text.split("### False alarms")[1].splitlines() if line.startswith("|")
    }
    assert len(widths) == 1


def test_the_plain_sentence_comes_first_then_verdict_criteria_and_sections(report: Report) -> None:
    html, text = render_report(report), render_markdown(report)
    order = ["2 patches of forest have changed.", "It beats.", "false alarms", "What changed", "Alerts"]
    body = html[html.index("<main>") :]
    for shown_text in (body.replace('href="#maps">What changed', "").replace('href="#alerts">Alerts', ""), text):
        positions = [shown_text.index(part) for part in order]
        assert positions == sorted(positions)
    for part in (
        "0.16 ha",
        "2020-01-01",
        "99.0 %",
        "73 d",
        "at least 1 %",
        "3.0 %",
        "210 MB",
        "truncated: 1",
        "SNAP",
        "r2-c2",
        "met</td>",
        "drop 0.4: found",
    ):
        assert part in html
    assert "harmonic CUSUM" in html
    assert "Pictures, in report.html: " in text
    assert "- truncated: 1" in text
    assert text.count("| false alarms |") == 1


@pytest.mark.parametrize(
    ("given", "criteria", "tone"),
    [
        (verdict(), (), "good"),
        (verdict("not distinguishable"), (), "unsure"),
        (verdict("loses", False), (), "bad"),
        (verdict(), (Criterion("a", 1.0, 2.0),), "bad"),
        (verdict(), (Criterion("a", 1.0, 2.0), Criterion("b", 3.0, 2.0)), "unsure"),
        (None, (), "unsure"),
    ],
)
def test_the_tone_follows_verdict_and_criteria(given: Verdict | None, criteria: tuple[Criterion, ...], tone: str) -> None:
    assert tone_of(replace(SUMMARY, verdict=given, criteria=criteria).to_json()) == tone


@pytest.mark.parametrize(
    ("outcome", "must_beat", "criteria", "expected"),
    [
        ("beats", ("persistence",), (), "The model beats what it must beat."),
        ("not distinguishable", ("persistence", "climatology"), (),
         "The model may be published: a smaller error than persistence (beyond doubt) and climatology (may be chance)."),
        ("loses", (), (Criterion("a", 1.0, 2.0), Criterion("b", 3.0, 2.0)), "1 of 2 acceptance criteria is NOT met: a."),
        ("loses", (), (Criterion("b", 3.0, 2.0),), "Every acceptance criterion is met."),
        ("published", (), (), "Published is the baseline climatology, not the network."),
    ],
)  # fmt: skip
def test_the_headline_says_what_is_doubtful(outcome: str, must_beat: tuple, criteria: tuple, expected: str) -> None:
    given = replace(verdict(), outcomes={"persistence": "beats", "climatology": outcome}, must_beat=must_beat)
    if outcome == "published":
        given = replace(given, published="climatology")
    assert headline(replace(SUMMARY, task="forecast", verdict=given, criteria=criteria).to_json()) == expected


def test_a_run_that_has_nothing_to_show_has_a_report(tmp_path: Path) -> None:
    write_report(Report(Summary("demo", "forecast", "Nothing yet.").to_json()), tmp_path / "report.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.md"]
    html = (tmp_path / "report.html").read_text()
    assert html.startswith("<!doctype html>")
    assert "Not evaluated." in html
    assert "Nothing is published." in html


def test_tables_of_forecasts_name_the_best_and_put_the_shipped_first() -> None:
    def of(mae: float, ssim: float | None) -> dict:
        return {"overall": {"mae": mae, "ssim": ssim}, "by_lead": [{"lead": k, "mae": mae * k, "ssim": ssim} for k in (1, 2)]}

    tables = lead_tables({"persistence": of(0.1, 0.4), "model": of(0.063, None)}, "model")
    assert [table.title for table in tables] == ["Errors over all leads", "MAE by steps ahead", "SSIM by steps ahead"]
    assert [row["method"] for row in tables[1].rows] == ["model", "persistence"]
    html = render_report(Report(SUMMARY.to_json(), [Section("scores", "Scores", tables=tables)]))
    assert '<td class="best">0.063</td>' in html
    assert "–" in html


def test_many_sites_have_tables_of_their_own_and_areas_stand_beside_labels() -> None:
    sites = [f"s{i}" for i in range(20)]
    methods = {"net": {"f1": 0.4, "precision": None, **{f"f1_{site}": 0.5 for site in sites}}}
    tables = label_tables(methods, sites, "net")
    assert [len(table.columns) for table in tables] == [2, 10, 10, 3]
    assert len(label_tables(methods, sites[:3], "net")) == 1
    area = area_table(
        {"s1": {"mapped_m2": 1e4, "labelled_m2": 2e4, "estimate": {"value": 1.5e4, "low": None, "high": 2e4}}}, 0.95
    )
    html = render_report(Report(SUMMARY.to_json(), [Section("known", "Scores", tables=[area])], {"s1": {"dates": 2}}))
    assert "1.00 ha" in html
    assert "<h3>s1</h3>" in html


def test_long_tables_are_cut_and_counted() -> None:
    alerts = [{"number": n, "look": 2, "area_m2": float(n)} for n in range(1, 60)]
    table = alert_table([*alerts, {"number": 99, "look": 1}, {"number": 98, "look": 1, "is_standing": False}])
    assert (len(table.rows), table.rows[0]["number"], table.rows[1]["number"]) == (25, 59, 58)
    assert "25 of 60" in table.note
    many = Table("t", [Column("a", "a")], [{"a": n} for n in range(70)])
    text = render_markdown(Report(SUMMARY.to_json(), [Section("x", "X", tables=[many])]))
    assert "The first 50 of 70 rows." in text


def test_patches_have_the_numbers_of_their_alerts_and_those_of_one_run_are_not_listed_twice() -> None:
    alerts = [{"id": "a", "number": 7, "look": 1, "notify": {"mail": ""}}]
    rows = patch_table([{"id": "a", "area_m2": 5.0}, {"id": "b", "area_m2": 4.0}], 2, alerts).rows
    assert [(row["number"], row["notified"]) for row in rows] == [(7, "mail: not yet"), (None, None)]
    assert not alert_table(alerts).rows


def test_numbers_read_well() -> None:
    assert [number(v) for v in (None, 0.05, 1234567, 12.345, "a", True)] == [
        "–",
        "0.0500",
        "1\u202f234\u202f567",
        "12.3",
        "a",
        "True",
    ]
    assert [percent(v) for v in (None, 0.123, -0.05)] == ["–", "+12.3 %", "\u22125.0 %"]
    assert [duration(v) for v in (0.44, 12, 200, 7500)] == ["0.4 s", "12 s", "3 min 20 s", "2 h 5 min"]
    assert [shown(0.063, "number"), shown(None, "date"), shown(0.9999, "sure"), fact(12_300.0, "area_m2")] == [
        "0.063",
        "–",
        "> 99.9 %",
        "1.23 ha",
    ]


# ---------------------------------------------------------------- summary.json


def test_the_summary_keeps_to_its_schema_and_is_read_back(tmp_path: Path) -> None:
    assert json.loads(SCHEMA.read_text()) == schema(), "run: python -m pipelines.products.summary > docs/summary.schema.json"
    for one in (SUMMARY, Summary("demo", "forecast", "Nothing yet.")):
        write_summary(one, tmp_path / "summary.json")
        content = read_summary(tmp_path / "summary.json")
        jsonschema.validate(content, schema())
        assert content == one.to_json()
        with pytest.raises(jsonschema.ValidationError, match="required property"):
            jsonschema.validate({key: content[key] for key in content if key != "sentence"}, schema())
    assert SUMMARY.to_json()["criteria"][2]["value"] is None
    assert SUMMARY.to_json()["largest"][0]["first_date"] == "2020-01-01T00:00:00Z"


def test_a_summary_that_is_damaged_or_of_another_version_says_so(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    with pytest.raises(MissingInput, match="driftline run"):
        read_summary(path)
    path.write_text("{")
    with pytest.raises(ArtefactDamaged, match="not a summary"):
        read_summary(path)
    path.write_text('{"version": 1}')
    with pytest.raises(ArtefactDamaged, match="version 1, expected 2; `driftline report CONFIG`"):
        read_summary(path)


def test_an_evaluation_comes_back_from_json() -> None:
    one = Evaluation("net", {"net": {"f1": 0.5}}, verdict(), (Criterion("a", 1.0, 0.5),), {"by_lead": [1]}, ("note",), "how")
    assert Evaluation.from_json(json.loads(json.dumps(one.to_json()))) == one
