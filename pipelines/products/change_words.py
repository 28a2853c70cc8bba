"""A change run in Markdown, for Prefect's UI and for messages: the verdict, the methods, the largest patches, what was computed.

It reads the content of `summary.json`, so that the UI, the report and the file cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.products.change_report import LARGEST, PLACES, Column, headline, shown, used_columns
from pipelines.products.change_summary import Mark

MOST_ROWS = 10


def change_markdown(summary: Mapping[str, Any]) -> str:
    """One page of Markdown from what `write_change_summary` wrote; nothing in it can end a cell, a row or begin a tag."""
    marks = [Mark(**{key: value for key, value in mark.items() if key != "is_met"}) for mark in summary["marks"]]
    lines = [f"**{cell(headline(marks))}** {cell(summary['verdict'])}".strip()]
    if marks:
        rows = [
            {"mark": m.name, "wanted": f"{m.kind} {m.wanted:g} {m.unit}", "measured": m.value, "met": "yes" if m.is_met else "no"}
            for m in marks
        ]
        columns = [Column("mark", "mark", "text"), Column("wanted", "wanted", "text"), Column("measured", "measured"),
                   Column("met", "met", "text")]  # fmt: skip
        lines += ["", *table(columns, rows)]
    if summary["methods"]:
        keys = list(dict.fromkeys(key for row in summary["methods"].values() for key in row))
        rows = [{"method": name, **row} for name, row in summary["methods"].items()]
        lines += ["", *table([Column("method", "method", "text"), *[Column(key, key.replace("_", " ")) for key in keys]], rows)]
    if summary["found"]:
        lines += [
            "",
            *[f"- {cell(key.replace('_', ' '))}: {cell(shown(value, 'text'))}" for key, value in summary["found"].items()],
        ]
    if summary["places"]:
        places = [{"place": name, **facts} for name, facts in summary["places"].items()]
        lines += ["", *table(used_columns(PLACES, places), places)]
    if summary["largest"]:
        largest = summary["largest"][:MOST_ROWS]
        lines += ["", f"The largest {len(largest)} of {len(summary['largest'])} patches:", ""]
        lines += table([column for column in used_columns(LARGEST, largest) if column.key != "pixels"], largest)
    if summary["computed"]:
        lines += [
            "",
            "Computed: "
            + ", ".join(f"{cell(key.replace('_', ' '))} {cell(value)}" for key, value in summary["computed"].items()),
        ]
    alerts = len(summary["alerts"])
    if summary["task"] == "monitor":
        lines += ["", f"Alerts so far: {alerts}."]
    return "\n".join(lines)


def table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a Markdown table."""
    head = ["| " + " | ".join(cell(column.title) for column in columns) + " |", "|---" * len(columns) + "|"]
    return head + ["| " + " | ".join(cell(shown(row.get(c.key), c.kind)) for c in columns) + " |" for row in rows]


def cell(value: Any) -> str:
    """Text that neither ends a table's cell nor its row, nor is read as HTML; names and messages are not ours."""
    text = str(value).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return " ".join(text.split())
