"""`report.html`: one page for every task, without network or scripts, its pictures inside; `report.md`: the same as text.

Everything that comes from files (names, messages, settings) is escaped by the template, and in Markdown by `markdown_text`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.files import write_text
from pipelines.products.labels import name_facts
from pipelines.products.page import fact, grouped, render_page, shown
from pipelines.products.section import Column, Section, Table

MOST_ROWS = 50  # of a table in report.md, which ends up in Prefect's database


@dataclass(frozen=True)
class Report:
    """What the report shows. `summary` is the content of summary.json.

    `sections` stand between verdict and data. `cube` are facts to list, for several sites name -> facts. `settings` are the few
    that a reader must know; all are in `config_yaml`. `notes` are sentences that must be seen first.
    """

    summary: Mapping[str, Any]
    sections: Sequence[Section] = ()
    cube: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    config_yaml: str = ""


def write_report(report: Report, path: Path) -> None:
    """Writes `path` (HTML) and the Markdown beside it, each in one rename."""
    write_text(path.with_suffix(".md"), render_markdown(report))
    write_text(path, render_report(report))


def render_report(report: Report) -> str:
    """The report as one HTML text."""
    return render_page(
        "report.html",
        report,
        tone=tone_of(report.summary),
        headline=headline(report.summary),
        best_of=best_of,
        computed=name_facts(report.summary["computed"]),
    )


def tone_of(summary: Mapping[str, Any]) -> str:
    """`good`, `bad` or `unsure`: how the verdict is coloured.

    good: everything that was to be beaten is beaten and every criterion is met; bad: not to be published, or no criterion is met.
    """
    verdict, met = summary["verdict"], [criterion["is_met"] for criterion in summary["criteria"]]
    if verdict is None:
        return "unsure"
    if not verdict["is_publishable"] or (met and not any(met)):
        return "bad"
    beaten = [verdict["outcomes"].get(name) == "beats" for name in verdict["must_beat"]]
    return "good" if all(beaten) and all(met) and (beaten or met) else "unsure"


def headline(summary: Mapping[str, Any]) -> str:
    """The verdict in a line: whether the model may be published, and how many criteria are met."""
    verdict, criteria = summary["verdict"], summary["criteria"]
    if verdict is None:
        return "Not evaluated. `driftline evaluate CONFIG` measures how far the result can be trusted."
    if verdict["must_beat"]:
        gate = "The model beats" if tone_of(summary) == "good" else "The model may be published: it is better than"
        return f"{gate} what it must beat." if verdict["is_publishable"] else "The model does not beat what it must beat."
    met = sum(criterion["is_met"] for criterion in criteria)
    return f"{met} of {len(criteria)} acceptance criteria are met." if criteria else ""


def best_of(table: Table) -> dict[str, float]:
    """The best value of each column that has one, where there are at least two to choose from."""
    best = {}
    for column in table.columns:
        values = [row[column.key] for row in table.rows if isinstance(row.get(column.key), int | float)]
        if column.better and len(values) > 1:
            best[column.key] = max(values) if column.better == "high" else min(values)
    return best


# ---------------------------------------------------------------- Markdown


def render_markdown(report: Report) -> str:
    """The report as Markdown; pictures are named, not shown. Prefect's artifacts show it."""
    summary = report.summary
    lines = [markdown_text(summary["sentence"]), ""]
    if verdict := summary["verdict"]:
        lines += [f"**{markdown_text(verdict['sentence'])}**", ""]
    if summary["criteria"]:
        lines += [*markdown_table(criteria_table(summary["criteria"])), ""]
    if report.notes:
        lines += [*(f"- {markdown_text(note)}" for note in report.notes), ""]
    for section in report.sections:
        lines += _section_lines(section)
    refused = [f"{reason}: {len(entries)}" for reason, entries in grouped(summary["refused"]).items()]
    files = summary["products"]["files"]
    for title, facts in (("Computed", name_facts(summary["computed"])), ("Refused", refused), ("Products", files)):
        if facts:
            lines += [f"## {title}", "", *_listed(facts), ""]
    model = f", model `{summary['model_hash'][:12]}`" if summary["model_hash"] else ""
    return "\n".join([*lines, f"Cube `{summary['cube_snapshot'][:20]}`{model}, config `{summary['config_hash'][:12]}`.", ""])


def criteria_table(criteria: Sequence[Mapping[str, Any]]) -> Table:
    """The acceptance criteria as a table: what was required, what was measured."""
    columns = [
        Column("name", "criterion", "text"),
        Column("required", "required", "text"),
        Column("measured", "measured", "text"),
        Column("met", "", "text"),
    ]
    rows = [
        {
            "name": one["name"],
            "required": f"{one['kind']} {one['requested']:g} {one['unit']}",
            "measured": f"{shown(one['value'], 'number')} {one['unit']}",
            "met": "met" if one["is_met"] else "not met",
        }
        for one in criteria
    ]
    return Table("Acceptance criteria", columns, rows)


def markdown_table(table: Table) -> Iterator[str]:
    """The lines of a table, at most `MOST_ROWS` rows."""
    yield "| " + " | ".join(markdown_text(column.title) for column in table.columns) + " |"
    yield "|" + " --- |" * len(table.columns)
    for row in table.rows[:MOST_ROWS]:
        yield "| " + " | ".join(markdown_text(shown(row.get(c.key), c.kind)) for c in table.columns) + " |"
    if len(table.rows) > MOST_ROWS:
        yield ""
        yield f"The first {MOST_ROWS} of {len(table.rows)} rows."


def markdown_text(text: str) -> str:
    """One line that neither ends a table's cell nor becomes a link, a picture, a heading or HTML; names of files are not ours.

    >>> markdown_text("[a](http://x.y) | www.x.y")
    '\\\\[a\\\\](http:&#47;&#47;x.y) \\\\| www&#46;x.y'
    """
    escaped = "".join(f"\\{c}" if c in "\\`*_[]|#" else c for c in " ".join(str(text).split()))
    for plain, entity in (("<", "&lt;"), ("://", ":&#47;&#47;"), ("@", "&#64;")):  # renderers make links of bare addresses too
        escaped = escaped.replace(plain, entity)
    return re.sub(r"(?i)\b(www)\.", r"\1&#46;", escaped)


def _section_lines(section: Section) -> Iterator[str]:
    yield from (f"## {markdown_text(section.title)}", "")
    for paragraph in section.text:
        yield from (markdown_text(paragraph), "")
    if section.facts:
        yield from (*_listed(section.facts), "")
    if section.pictures:
        titles = "; ".join(markdown_text(picture.title) for picture in section.pictures)
        yield from (f"Pictures, in report.html: {titles}.", "")
    for table in section.tables:
        yield from ([f"### {markdown_text(table.title)}", ""] if table.title else [])
        yield from (*markdown_table(table), "")
        yield from ([markdown_text(table.note), ""] if table.note else [])


def _listed(facts: Mapping[str, Any] | Sequence[str]) -> list[str]:
    if not isinstance(facts, Mapping):
        return [f"- {markdown_text(line)}" for line in facts]
    return _listed([f"{key.replace('_m2', '').replace('_', ' ')}: {fact(value, key)}" for key, value in facts.items()])
