"""What the UI says of a watch: figures as they are in summary.json, and no name that could break a table."""

from flows.change_markdown import change_markdown

SUMMARY = {
    "verdict": "2 patches",
    "criteria": [{"name": "found", "value": 0.96, "wanted": 0.95, "kind": "at least", "unit": "", "is_met": True}],
    "found": {"area_m2": 1234567.8, "objects": 2, "pixels_new": 0},
    "computed": {"steps": 4},
    "alerts": [
        {"number": 1, "look": 1, "area_m2": 400.0, "detected": "2020-05-16T00:00:00Z", "lon": 22.156291, "lat": -45.2},
        {"number": 2, "look": 2, "area_m2": 100.0, "median_date": "2020|05\n<b>"},
        {"number": 3, "look": 2, "area_m2": 90.0},
    ],
    "methods": {"harmonic": {"false_alarms": 4.25, "by_drop": {"0.2": {}}}, "three_low": {"found_0.2": None}},
    "cube_snapshot": "S",
    "config_hash": "0123456789abcdef",
}


def test_marks_alerts_and_methods_are_tables() -> None:
    text = change_markdown(SUMMARY)
    assert "| found | 0.96 | at least 0.95  | yes |" in text
    assert "- area m2: 1234568" in text
    assert "- patches: 2\n- newly changed pixels: 0" in text
    assert text.index("| 2 | 100 |") < text.index("| 3 | 90 |") < text.index("| 1 | 400 |"), "the latest look, then the largest"
    assert "## Alerts: 3, those of the latest look first" in text
    assert "| alert | area [m²] | changed | alarm |" in text
    assert "2020\\|05 &lt;b>" in text
    assert "| 2020-05-16 |  |  | 22.15629 | -45.20000 |" in text, "a site to the metre"
    assert "|  | false alarms per 1000 px and year | drop 0.2: found (share) |" in text
    assert "| three low in a row |  |  |" in text


def test_a_run_without_figures_is_said_in_a_line() -> None:
    nothing = {"criteria": [], "found": {}, "computed": {}, "alerts": [], "methods": {}}
    assert change_markdown({**SUMMARY, **nothing}).splitlines() == [
        "**2 patches**",
        "",
        "Cube snapshot `S`, config `0123456789ab`.",
    ]
