"""What a report page is made of: pictures inside, figures and dates for people.

Everything that comes from files (names, messages, settings) is escaped by the template.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipelines.products.summary import plain

MEDIA = {".png": "image/png", ".gif": "image/gif", ".svg": "image/svg+xml"}


def render_page(template: str, content: Any, **more: Any) -> str:
    """A page as one HTML text. `content` has summary, cube, notes and config_yaml; `more` is what the template asks for."""
    environment = Environment(
        loader=PackageLoader("pipelines.products", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "number": number, "percent": percent, "duration": duration, "inline": inline, "when": when, "shown": shown, "fact": fact,
    }  # fmt: skip
    return environment.get_template(template).render(
        c=content,
        s=content.summary,
        has_sites=bool(content.cube) and all(isinstance(facts, Mapping) for facts in content.cube.values()),
        refused=grouped(content.summary["refused"]),
        **more,
    )


def grouped(refused: Sequence[Mapping[str, str]]) -> dict[str, list[Mapping[str, str]]]:
    """Refusals by reason, the most frequent reason first."""
    groups: dict[str, list[Mapping[str, str]]] = {}
    for entry in refused:
        groups.setdefault(entry["reason"], []).append(entry)
    return dict(sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0])))


def inline(path: Path) -> str:
    """A picture as a data URI."""
    return f"data:{MEDIA[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def number(value: Any) -> str:
    """Three significant digits; a dash where there is no number."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    return f"{value:.4f}" if 0.001 <= abs(value) < 1 else f"{value:.3g}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1%}".replace("-", "−")


def when(date: str) -> str:
    """An ISO 8601 date for people: `2020-06-05`, with the time of day where it is not midnight."""
    return date.rstrip("Z").replace("T", " ").removesuffix(":00").removesuffix(" 00:00")


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def fact(value: Any, key: str) -> str:
    """A fact for people, by the name that it has in `summary.json`."""
    value = plain(value)
    if key.endswith("_m2") and isinstance(value, int | float):
        return shown(value, "area")
    is_moment = isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value)
    return when(value) if is_moment else number(value)


def shown(value: Any, kind: str) -> str:
    """A value for people."""
    value = plain(value)
    if not is_there(value):
        return "–"
    if kind == "share":
        return f"{100 * value:.1f} %"
    if kind == "sure":  # a share of the pixels tried: never all there are
        return "> 99.9 %" if value > 0.9995 else f"{100 * value:.1f} %"
    if kind == "days":
        return f"{value:.0f} d"
    if kind == "whole":
        return number(int(value))
    if kind == "degrees":
        return f"{value:.5f}"
    if kind == "date":
        return when(str(value))[:10]
    if kind == "area":
        return f"{value / 1e6:.3g} km²" if value >= 1e7 else f"{value / 1e4:.2f} ha" if value >= 1000 else f"{value:.0f} m²"
    if kind == "number" and isinstance(value, int | float):
        return f"{value:.3f}" if abs(value) <= 1 else f"{value:.1f}" if abs(value) < 100 else number(round(value))
    return str(value)


def is_there(value: Any) -> bool:
    """False for None, NaN and "unknown"."""
    return value is not None and value == value and value != "unknown"
