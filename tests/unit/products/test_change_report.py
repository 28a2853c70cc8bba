import json
import re

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import ArtefactDamaged, MissingInput
from pipelines.grid import Grid
from pipelines.products.change_report import (
    ChangeReportInput,
    Column,
    Table,
    alert_table,
    area_table,
    best_of,
    headline,
    label_table,
    label_tables,
    monitoring_table,
    render_change_report,
    tone_of,
    write_change_report,
)
from pipelines.products.change_summary import ChangeSummary, Criterion, read_change_summary, write_change_summary
from pipelines.products.page import Picture, fact, shown
from pipelines.products.polygons import outline_changes
from pipelines.products.summary import Stage

HOSTILE = '<script>alert("1")</script> | a & b'


def largest() -> tuple[dict, ...]:
    grid = Grid("EPSG:3035", (10.0, 0, 5.5e6, 0, -10.0, 2.7e6), (20, 20))
    changed = np.zeros(grid.shape_yx, bool)
    changed[2:6, 2:6] = changed[10:12, 10:12] = True
    frame = outline_changes(changed, grid, {"change_day": np.where(changed, 18_262.0, np.nan)})
    return tuple(frame.drop(columns="geometry").to_dict("records"))


@pytest.fixture
def monitored() -> ChangeSummary:
    return ChangeSummary(
        name=f"forest {HOSTILE}",
        task="monitor",
        stages=(Stage("ingest", 3.24, 210.0), Stage("monitor", 0.0, None, True)),
        products={"polygons": ["products/changes.gpkg", HOSTILE]},
        shipped="harmonic_cusum",
        verdict=HOSTILE,
        criteria=(Criterion("false alarms", 4.0, 10.0, "at most"), Criterion(HOSTILE, None, 0.95)),
        methods={"harmonic_cusum": {"false_alarms": 4.0, "found_0.2": 0.99, "delay_0.2": 73.0}, HOSTILE: {"false_alarms": 7.0}},
        found={"patches": 2, HOSTILE: HOSTILE},
        largest=largest(),
        alerts=({"number": 1, "id": HOSTILE, "is_standing": True, "notify": {HOSTILE: ""}},),
        computed={"tiles": 4, "up_to_date": 3},
        evaluation={"protocol": HOSTILE},
        refused=({"scene_id": HOSTILE, "reason": "all-cloud", "detail": HOSTILE},),
        cube_snapshot="SNAP",
    )


@pytest.fixture
def content(monitored, tmp_path) -> ChangeReportInput:
    Image.new("RGB", (4, 4)).save(tmp_path / "p.png")
    picture = Picture(tmp_path / "p.png", HOSTILE, HOSTILE)
    return ChangeReportInput(
        monitored, f"name: {HOSTILE}", {"dates": 140, HOSTILE: HOSTILE}, {"threshold": 8.9, HOSTILE: HOSTILE},
        [monitoring_table(monitored.methods, [0.2, 0.4], "harmonic_cusum")], [picture], [picture], [picture], [HOSTILE],
    )  # fmt: skip


def test_what_comes_from_files_is_escaped(content):
    html = render_change_report(content)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 15
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    assert "url(" not in html
    assert "http" not in html.replace('http-equiv="Content-Security-Policy"', "")


def test_the_report_tells_what_was_found_and_how_well(content):
    html = render_change_report(content)
    assert html.index("1 of 2 marks are met.") < html.index('id="maps"')
    for text in ("0.16 ha", "2020-01-01", "99.0 %", "73 d", "up to date", "210 MB", "all-cloud: 1", "SNAP", "r2-c2", "met</td>"):
        assert text in html
    assert "drop 0.4: found" in html


def test_a_run_that_found_nothing_has_a_report(tmp_path):
    bare = ChangeSummary("demo", "monitor", (), {})
    write_change_report(ChangeReportInput(bare), tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert "Nothing was judged." in html
    assert "This run was not evaluated." in html
    assert "No maps were made." in html
    assert 'id="patches"' not in html
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_labelled_change_lists_places_and_methods():
    methods = {"fused": {"f1": 0.371, "spread": 0.01, "f1_paris": 0.3}, "rule": {"f1": 0.343, "f1_paris": 0.35}}
    facts = {"from_utc": "2015-09-16T00:00:00Z", "changed": 0.012, "patches": 31, "area_m2": 2.5e7}
    summary = ChangeSummary("oscd", "change", (), {}, "fused", criteria=(Criterion("F1", 0.371, 0.36),), sites={"paris": facts})
    table = label_table(methods, ["paris", "rennes"], "fused")
    assert [column.key for column in table.columns] == ["method", "f1", "spread", "f1_paris"]  # nothing is known of rennes
    assert best_of(table) == {"f1": 0.371, "f1_paris": 0.35}
    html = render_change_report(ChangeReportInput(summary, cube={"paris": {"dates": 2}}, tables=[table]))
    for text in ("The mark is met.", "2015-09-16", "1.2 %", "25 km²", "0.371", "<h3>paris</h3>"):
        assert text in html
    assert 'id="alerts"' not in html


def test_many_places_have_tables_of_their_own():
    names = [f"site{k}" for k in range(14)]
    methods = {"fused": {"f1": 0.37, **{f"f1_{name}": 0.3 for name in names}}}
    assert [len(table.columns) for table in label_tables(methods, names[:6], "fused")] == [8]
    pooled, *per_site = label_tables(methods, names, "fused")
    assert [column.key for column in pooled.columns] == ["method", "f1"]
    assert [column.title for table in per_site for column in table.columns[1:]] == names
    assert max(len(table.columns) for table in per_site) <= 10
    assert all(table.strong == ["fused"] for table in per_site)


def test_areas_stand_beside_their_labels():
    areas = {
        "paris": {"mapped_m2": 27_594.0, "labelled_m2": 5047.0, "sampled": 999, "estimate": {"value": 30_181.0, "low": None}}
    }
    html = render_change_report(ChangeReportInput(ChangeSummary("oscd", "change", (), {}), tables=[area_table(areas, 0.95)]))
    for text in ("2.76 ha", "3.02 ha", "0.50 ha", "999", "95% confidence", "–", "called changed when judged"):
        assert text in html


def test_two_areas_of_one_place_name_their_thresholds():
    sites = {"paris": {"changed": 0.01, "patches": 85, "area_m2": 9000.0}}
    largest = tuple({"site": "paris", "id": f"r{n}-c1", "area_m2": 900.0 - n} for n in range(50))
    evaluation = {"area": {"paris": {"mapped_m2": 8000.0}}}
    summary = ChangeSummary(
        "oscd", "change", (), {}, found={"patches": 85}, largest=largest, computed={"threshold": 0.41234}, sites=sites,
        evaluation=evaluation,
    )  # fmt: skip
    html = render_change_report(ChangeReportInput(summary, tables=[area_table(evaluation["area"], 0.95)]))
    assert "With the shipped threshold (0.412), which was chosen on all labelled sites" in html
    assert "Called changed with a threshold that was chosen without the site" in html
    assert "The first 25 of 85;" in html, "not of the 50 that the summary keeps"


def test_the_tone_follows_the_marks():
    good, bad = Criterion("a", 1.0, 0.5), Criterion("b", 1.0, 0.5, "at most")
    assert (good.is_met, bad.is_met) == (True, False)
    assert not Criterion("c", float("nan"), 0.5).is_met
    assert [tone_of(criteria) for criteria in ([], [good], [good, bad], [bad])] == ["unsure", "good", "unsure", "bad"]
    assert [headline(criteria) for criteria in ([], [good, good], [bad])] == ["", "Every mark is met.", "No mark is met."]


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, "number", "–"), (float("nan"), "share", "–"), (0.123, "share", "12.3 %"), (73.4, "days", "73 d"),
        (12.0, "whole", "12"), (900.0, "area", "900 m²"), (12_300.0, "area", "1.23 ha"), (2.5e7, "area", "25 km²"),
        ("2020-01-01T10:00:00Z", "date", "2020-01-01"), (np.datetime64("NaT"), "date", "–"), (0.12345, "number", "0.123"),
        (12.34, "number", "12.3"), (22.123456, "degrees", "22.12346"),
    ],
)  # fmt: skip
def test_values_read_well(value, kind, text):
    assert shown(value, kind) == text


def test_a_column_with_one_value_has_no_best():
    rows: list[dict[str, float | None]] = [{"a": 1.0}, {"a": None}]
    assert best_of(Table("", [Column("a", "a", better="high")], rows)) == {}


def test_the_summary_is_machine_readable_and_read_back(monitored, tmp_path):
    write_change_summary(monitored, tmp_path / "summary.json")
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["criteria"][0]["is_met"] is True
    assert content["largest"][0]["first_date"] == "2020-01-01T00:00:00Z"
    assert content["largest"][0]["detected"] is None
    assert content["largest"][0]["magnitude"] is None
    read = read_change_summary(tmp_path / "summary.json")
    assert read.criteria == monitored.criteria
    assert read.stages == monitored.stages
    write_change_summary(read, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (tmp_path / "summary.json").read_text()
    render_change_report(ChangeReportInput(read))


def test_a_missing_or_damaged_summary_is_named(monitored, tmp_path):
    path = tmp_path / "summary.json"
    with pytest.raises(MissingInput, match="no summary here"):
        read_change_summary(path)
    for text in ("{", "[]", '{"version": 1}'):
        path.write_text(text)
        with pytest.raises(ArtefactDamaged, match="not a summary of this version"):
            read_change_summary(path)
    path.write_text('{"version": 99}')
    with pytest.raises(ArtefactDamaged, match="version 99, expected 1"):
        read_change_summary(path)


def test_alerts_of_the_latest_look_are_listed_first_and_say_who_was_told():
    alerts = [
        {
            "number": 1,
            "look": 1,
            "id": "a",
            "area_m2": 5000.0,
            "magnitude": -0.3,
            "direction": "decrease",
            "confidence": 0.9,
            "lon": 22.0,
            "is_standing": False,
            "notify": {"slack/ops": "2026-01-02T03:04:05Z"},
        },
        {"number": 2, "look": 2, "id": "b", "area_m2": 600.0, "is_standing": True, "notify": {"slack/ops": ""}},
    ]
    table = alert_table(alerts)
    assert [column.key for column in table.columns] == ["number", "id", "area_m2", "magnitude", "confidence", "standing", "told"]
    assert [row["number"] for row in table.rows] == [2, 1]
    assert [row["told"] for row in table.rows] == ["slack/ops: not yet", "slack/ops: 2026-01-02 03:04"]
    assert [row["standing"] for row in table.rows] == ["yes", "no"]
    first_night = [{"number": n, "look": 1, "area_m2": 5000.0 - n} for n in range(1, 46)]
    assert [row["number"] for row in alert_table(first_night).rows] == list(range(1, 26)), "of one look the largest"
    assert [row["number"] for row in alert_table([*first_night, {"number": 46, "look": 2, "area_m2": 1.0}]).rows][:2] == [46, 1]
    assert len(alert_table([{"number": n} for n in range(99)]).rows) == 25


def test_keys_are_words_where_people_read_them():
    methods = {name: {"false_alarms": 4.0} for name in ("harmonic cusum", "three_low", "harmonic_mosum", "difference")}
    found = {"pixels": 1308, "objects": 45, "pixels_new": 3, "objects_new": 0, "area_m2": 129_300.0}
    summary = ChangeSummary("forest", "monitor", (), {}, "harmonic cusum", methods=methods, found=found)
    html = render_change_report(ChangeReportInput(summary, tables=[monitoring_table(methods, [0.2], "harmonic cusum")]))
    for text in ("harmonic CUSUM", "three low in a row", "harmonic MOSUM", "difference to the same season"):
        assert f">{text}</td>" in html
    assert re.search(r'<tr class="model">\s*<td[^>]*>harmonic CUSUM', html)
    assert re.search(r"<dt>patches</dt><dd>45</dd>\s*<dt>newly changed pixels</dt><dd>3</dd>", html)
    assert not re.search(r"objects|three_low|mosum<", html)


def test_facts_read_well():
    assert fact(136_400.0, "area_m2") == "13.64 ha"
    assert fact("2020-06-25T00:00:00Z", "last_date") == "2020-06-25"
    assert fact(1385, "pixels") == "1\u202f385"
    assert shown(1.0, "sure") == "> 99.9 %"
    assert shown(0.95, "sure") == "95.0 %"


def test_patches_of_several_places_name_their_place():
    rows = ({"site": "paris", "id": "r1-c2", "area_m2": 900.0}, {"site": "rennes", "id": "r1-c2", "area_m2": 800.0})
    html = render_change_report(ChangeReportInput(ChangeSummary("oscd", "change", (), {}, largest=rows)))
    assert re.search(r"paris</td>\s*<td[^>]*>r1-c2</td>", html)
