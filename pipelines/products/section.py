"""What a report shows: sections of text, facts, tables and pictures. The HTML page and Prefect's artifacts show the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines.products.json_values import Json

Kind = Literal["text", "name", "number", "share", "sure", "days", "whole", "degrees", "date", "area", "volume"]


@dataclass(frozen=True)
class Picture:
    """A picture file and the sentence under it."""

    path: Path
    title: str
    caption: str = ""


@dataclass(frozen=True)
class Column:
    """`kind`: how a value is shown (pipelines.products.report.shown); share: a part of one, as percent; area: in m²;
    volume: in mm³.

    `better`: high, low or "" (no best value is marked).
    """

    key: str
    title: str
    kind: Kind = "number"
    better: Literal["high", "low", ""] = ""


@dataclass(frozen=True)
class Table:
    """Rows of figures; missing and None are dashes. `strong` names rows (by their first column) that are set in bold."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Json]
    note: str = ""
    strong: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """A part of the report; one without any content is left out. `name`: the anchor, and its entry in the page's navigation.

    `facts` are listed as label: value, `text` are paragraphs, in the order text, links, facts, pictures, tables. `links`: path
    from the report's folder -> what a click on it opens.
    """

    name: str
    title: str
    text: Sequence[str] = ()
    facts: Json = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (self.text or self.links or self.facts or self.pictures or self.tables)
