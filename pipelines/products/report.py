"""`report.html`: one page for every task, without network or scripts, its pictures inside; `report.md`: the same as text.

Everything that comes from files (names, messages, settings) is escaped by the template, and in Markdown by `markdown_text`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from mimetypes import guess_type
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from pipelines.files import write_text
from pipelines.learning.result import listed
from pipelines.products.json_values import Json, plain
from pipelines.products.section import Section, Table
from pipelines.wording import printable

MOST_ROWS = 50  # of a table in report.md, which ends up in Prefect's database
FACTS = {  # what keys of summary.json are called where people read them
    "pixels": "changed pixels", "pixels_new": "newly changed pixels", "objects": "patches", "objects_new": "new patches",
    "pixels_recovered": "pixels of patches as expected again",
    **{f"windows_{part}": f"{part} windows with enough usable targets" for part in ("train", "validation", "test")},
    "block_px": "side of a block, pixels", "buffer_px": "buffer at its edge, pixels",
    **{f"share_{part}": f"share of raster x dates for {part}" for part in ("train", "validation", "test")},
    "choice_candidates": "candidates of the model", "choice_trainings": "short trainings of them",
    "choice_windows": "windows that they learnt from", "choice_cpu_seconds": "CPU seconds of the choice",
}  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What the report shows. `summary` is the content of summary.json.

    `sections` stand between verdict and data. `cube` are facts to list, for several sites name -> facts. `settings` are the few
    that a reader must know; all are in `config_yaml`. `notes` are sentences that must be seen first.
    """

    summary: Json
    sections: Sequence[Section] = ()
    cube: Json = field(default_factory=dict)
    settings: Json = field(default_factory=dict)
    notes: Sequence[str] = ()
    config_yaml: str = ""

    @property
    def computed(self) -> Json:
        """What was computed, by its names for people; what says itself what it is (`area_m2`, `first_date`) keeps its key."""
        return {FACTS.get(key, key): value for key, value in self.summary["computed"].items()}

    @property
    def refused(self) -> dict[str, list[Json]]:
        """Refusals by reason, the most frequent reason first."""
        groups: dict[str, list[Json]] = {}
        for entry in self.summary["refused"]:
            groups.setdefault(entry["reason"], []).append(entry)
        return dict(sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0])))


def write_report(report: Report, path: Path) -> None:
    """Writes `path` (HTML) and the Markdown beside it, each in one rename."""
    write_text(path.with_suffix(".md"), render_markdown(report))
    write_text(path, render_report(report))


def render_report(report: Report) -> str:
    """The report as one HTML text."""
    has_sites = bool(report.cube) and all(isinstance(facts, Mapping) for facts in report.cube.values())
    verdict = {"tone": tone_of(report.summary), "headline": headline(report.summary)}
    return template("report.html").render(c=report, s=report.summary, has_sites=has_sites, best_of=best_of, **verdict)


def render_markdown(report: Report) -> str:
    """The report as Markdown; pictures are named, not shown. Prefect's artifacts show it."""
    return template("report.md.jinja").render(c=report, s=report.summary, most_rows=MOST_ROWS)


def template(name: str) -> Template:
    """A template of this package: of HTML with every value escaped; no value keeps control characters."""
    environment = Environment(
        loader=PackageLoader("pipelines.products", "."), autoescape=name.endswith(".html"), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=name.endswith(".md.jinja"), finalize=_without_control,
    )  # fmt: skip
    filters = {
        "duration": duration,
        "inline": inline,
        "when": when,
        "shown": shown,
        "fact": fact,
        "amount": amount,
        "markdown": markdown_text,
    }
    environment.filters |= filters
    return environment.get_template(name)


def _without_control(value: object) -> object:
    """What the templates show of a value: text of files without control characters, which no browser and terminal should get."""
    if isinstance(value, Markup):
        return Markup(printable(value))  # it was markup before
    return printable(value) if isinstance(value, str) else value


def tone_of(summary: Json) -> str:
    """`good`, `bad` or `unsure`: how the verdict is coloured.

    good: everything that was to be beaten is beaten and every criterion is met; bad: not to be published, or no criterion is met.
    A forecast is good where what is published is no worse on the test part than the best baseline.
    """
    verdict, met = summary["verdict"], [criterion["is_met"] for criterion in summary["criteria"]]
    if verdict is None:
        return "unsure"
    if not verdict["is_publishable"] or (met and not any(met)):
        return "bad"
    if verdict["published"]:
        return "good" if all(met) else "unsure"
    beaten = [verdict["outcomes"].get(name) == "beats" for name in verdict["must_beat"]]
    return "good" if all(beaten) and all(met) and (beaten or met) else "unsure"


def headline(summary: Json) -> str:
    """The verdict in a line: whether the model may be published and why, or which criteria are not met."""
    verdict, criteria = summary["verdict"], summary["criteria"]
    if verdict is None:
        return "Not evaluated. `driftline evaluate CONFIG` measures how far the result can be trusted."
    if verdict["confounded_by"]:
        return f"CONFOUNDED by {listed(verdict['confounded_by'])}."
    if published := verdict["published"]:
        is_baseline = published in verdict["outcomes"]
        one = "the combination of several forecasts" if published == "combination" else "the network"
        return f"Published is the baseline {published}, not the network." if is_baseline else f"Published is {one}."
    if verdict["must_beat"]:
        if not verdict["is_publishable"] or tone_of(summary) == "good":
            return f"The model {'beats' if verdict['is_publishable'] else 'does not beat'} what it must beat."
        better = "a larger F1" if summary["task"] == "change" else "a smaller error"
        sure = {True: "beyond doubt", False: "may be chance"}
        others = [f"{name} ({sure[verdict['outcomes'][name] == 'beats']})" for name in verdict["must_beat"]]
        return f"The model may be published: {better} than {listed(others)}."
    missed = [criterion["name"] for criterion in criteria if not criterion["is_met"]]
    if missed:
        are = "is" if len(missed) == 1 else "are"
        return f"{len(missed)} of {len(criteria)} acceptance criteria {are} NOT met: {'; '.join(missed)}."
    return "Every acceptance criterion is met." if criteria else ""


def best_of(table: Table) -> dict[str, float]:
    """The best value of each column that has one, where there are at least two to choose from."""
    best = {}
    for column in table.columns:
        values = [row[column.key] for row in table.rows if isinstance(row.get(column.key), int | float)]
        if column.better and len(values) > 1:
            best[column.key] = max(values) if column.better == "high" else min(values)
    return best


def inline(path: Path) -> str:
    """A picture as a data URI."""
    return f"data:{guess_type(path)[0]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def number(value: object) -> str:
    """Three significant digits; a dash where there is no number."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    return f"{value:.4f}" if 0.001 <= abs(value) < 1 else f"{value:.3g}"


def when(date: str) -> str:
    """An ISO 8601 date for people: `2020-06-05`, with the time of day where it is not midnight."""
    return date.rstrip("Z").replace("T", " ").removesuffix(":00").removesuffix(" 00:00")


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def fact(value: object, key: str) -> str:
    """A fact for people, by the name that it has in `summary.json`."""
    value = plain(value)
    if key.endswith(("_m2", "_mm3")) and isinstance(value, int | float):
        return shown(value, "area" if key.endswith("_m2") else "volume")
    is_moment = isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value)
    return when(str(value)) if is_moment else number(value)


def shown(value: object, kind: str) -> str:
    """A value for people; `kind` as of a `Column`."""
    value = plain(value)
    if not is_there(value):
        return "–"
    if kind == "date":
        return when(str(value))[:10]
    if not isinstance(value, int | float):
        return str(value)
    match kind:
        case "share":
            return f"{100 * value:.1f} %"
        case "sure":  # a share of the pixels tried: never all there are
            return "> 99.9 %" if value > 0.9995 else f"{100 * value:.1f} %"
        case "days":
            return f"{value:.0f} d"
        case "whole":
            return number(int(value))
        case "degrees":
            return f"{value:.5f}"
        case "area":
            return f"{value / 1e6:.3g} km²" if value >= 1e7 else f"{value / 1e4:.2f} ha" if value >= 1000 else f"{value:.0f} m²"
        case "volume":
            return volume_text(value)
        case "number":
            return f"{value:.3f}" if abs(value) <= 1 else f"{value:.1f}" if abs(value) < 100 else number(round(value))
    return str(value)


def volume_text(value_mm3: float) -> str:
    """`12.3 ml`, `45 mm³`."""
    return f"{value_mm3 / 1000:.3g} ml" if value_mm3 >= 1000 else f"{value_mm3:.3g} mm³"


def amount(value: float | None, unit: str, form: str = "") -> str:
    """What was measured for a criterion, or with `form` "%g" what it requires: `4.29`; `41.5 %` where the unit is a share."""
    if unit == "share":
        return f"{100 * value:g} %" if form and value is not None else shown(value, "share")
    return f"{form % value if form else shown(value, 'number')} {unit}".strip()


def is_there(value: object) -> bool:
    """False for None, NaN and "unknown"."""
    return value is not None and value == value and value != "unknown"


def markdown_text(text: str) -> str:
    """One line that neither ends a table's cell nor becomes a link, a picture, a heading or HTML; names of files are not ours.

    >>> markdown_text("[a](http://x.y) | www.x.y")
    '\\\\[a\\\\](http:&#47;&#47;x.y) \\\\| www&#46;x.y'
    """
    escaped = "".join(f"\\{c}" if c in "\\`*_[]|#" else c for c in printable(" ".join(str(text).split())))
    for mark, entity in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        ("://", ":&#47;&#47;"),
        ("@", "&#64;"),
    ):  # renderers make links of bare addresses too
        escaped = escaped.replace(mark, entity)
    return re.sub(r"(?i)\b(www)\.", r"\1&#46;", escaped)
