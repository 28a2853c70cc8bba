"""What Prefect's UI says of a run that looks for change: what was found and computed, alerts, how the methods compare."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.products.labels import latest_run_first, method_label, name_facts

MOST_ROWS = 50
ALERT_COLUMNS = ("number", "area_m2", "median_date", "detected", "magnitude", "confidence", "lon", "lat")
HEADINGS = {
    "number": "alert",
    "area_m2": "area [m²]",
    "median_date": "changed",
    "detected": "alarm",
    "lon": "longitude",
    "lat": "latitude",
    "false_alarms": "false alarms per 1000 px and year",
}


def change_markdown(summary: Mapping[str, Any]) -> str:
    """`summary.json` of `task: monitor` or `task: change` as Markdown."""
    lines = [f"**{summary['verdict']}**", ""]
    if summary["criteria"]:
        rows = [
            [m["name"], shown(m["value"]), f"{m['kind']} {m['wanted']:g} {m['unit']}", "yes" if m["is_met"] else "no"]
            for m in summary["criteria"]
        ]
        lines += [*table(("mark", "measured", "wanted", "met"), rows), ""]
    for title, facts in (("Found", name_facts(summary["found"])), ("Computed", summary["computed"])):
        if facts:
            lines += [f"## {title}", "", *(f"- {key.replace('_', ' ')}: {shown(value)}" for key, value in facts.items()), ""]
    if summary["alerts"]:
        alerts = latest_run_first(summary["alerts"])
        rows = [[in_column(column, alert.get(column)) for column in ALERT_COLUMNS] for alert in alerts[:MOST_ROWS]]
        informative = f"the first {MOST_ROWS} of {len(alerts)}" if len(alerts) > MOST_ROWS else f"{len(alerts)}"
        lines += [f"## Alerts: {informative}, those of the latest look first, the largest first", ""]
        lines += [*table([heading(column) for column in ALERT_COLUMNS], rows), ""]
    methods = {name: flat(figures) for name, figures in summary["methods"].items()}
    if methods:
        columns = list(dict.fromkeys(key for figures in methods.values() for key in figures))
        rows = [[method_label(name), *(shown(figures.get(key)) for key in columns)] for name, figures in methods.items()]
        lines += ["## Methods", "", *table(("", *(heading(column) for column in columns)), rows), ""]
    lines.append(f"Cube snapshot `{summary['cube_snapshot']}`, config `{summary['config_hash'][:12]}`.")
    return "\n".join(lines)


def heading(column: str) -> str:
    """A key in words: `found_0.2` is "drop 0.2: found"."""
    what, _, drop = column.partition("_")
    if what in ("found", "delay") and drop:
        return f"drop {drop}: {'found (share)' if what == 'found' else 'median delay [days]'}"
    return HEADINGS.get(column, column.replace("_", " "))


def flat(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that fit a cell."""
    return {key: value for key, value in figures.items() if not isinstance(value, dict | list)}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(one_cell(str(cell)) for cell in line) + " |" for line in lines]


def shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.0f}"
    return str(value).removesuffix("T00:00:00Z")


def in_column(column: str, value: Any) -> str:
    """Longitude and latitude to the metre; everything else as `shown`."""
    return f"{value:.5f}" if column in ("lon", "lat") and value is not None else shown(value)


def one_cell(text: str) -> str:
    """Text that neither ends a table's cell nor its row; file names and messages are not ours."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
