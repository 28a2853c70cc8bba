"""Values as HTML for notebooks: one compact table, everything in it escaped."""

from collections.abc import Iterable, Sequence
from html import escape

CELL = "text-align:left;padding:2px 8px;vertical-align:top"


def cell_text(value: object) -> str:
    """A value as people read it: numbers with three digits after the point, nothing for None.

    >>> cell_text(0.0631), cell_text(12), cell_text(None), cell_text("<b>")
    ('0.063', '12', '', '<b>')
    """
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def html_table(title: str, rows: Iterable[Sequence[object]], head: Sequence[str] = (), notes: Iterable[str] = ()) -> str:
    """A table with a title above it, an optional line of column names, and notes below it.

    >>> html_table("a < b", [("error", 0.5)])[:20]
    '<div><b>a &lt; b</b>'
    """

    def line(values: Sequence[object], tag: str) -> str:
        cells = (f'<{tag} style="{CELL}">{escape(cell_text(value))}</{tag}>' for value in values)
        return f"<tr>{''.join(cells)}</tr>"

    lines = [line(head, "th")] if head else []
    body = "".join([*lines, *(line(row, "td") for row in rows)])
    below = "".join(f"<p>{escape(note)}</p>" for note in notes if note)
    return f"<div><b>{escape(title)}</b><table>{body}</table>{below}</div>"
