"""Tables of labels as they are written: CSV by commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

from pipelines.errors import RequestError


def read_table(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV by heading; separated by commas, semicolons or tabs. Raises RequestError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise RequestError(f"{path.name} is not UTF-8 ({e.reason} at byte {e.start}); save it as UTF-8") from e
    heading = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=heading.count))
    try:
        names, rows = list(reader.fieldnames or ()), list(reader)
    except csv.Error as e:
        raise RequestError(f"{path.name}:{reader.line_num}: {e}; is a quote not closed?") from e
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise RequestError(f"{path.name} has two columns {repeated[0]!r}; rename one")
    if not rows:
        raise RequestError(f"{path.name} holds no labels; expected a heading and a line for each point")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise RequestError(f"{path.name}:{number}: {len(names)} columns in the heading, more or fewer in this line")
    return rows
