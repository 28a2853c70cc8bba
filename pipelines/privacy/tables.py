"""The data tables of the profile: what becomes of each attribute, and the closed lists of what is kept beside it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Action = Literal["X", "Z", "D", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"]
HERE = Path(__file__).parent
EDITION = "2026c"


@dataclass(frozen=True)
class Row:
    """A row of table E.1-1 of PS3.15: the action of the basic profile, and whether the option of modified dates replaces it."""

    tag: str
    name: str
    basic: Action
    shifts_dates: bool


@dataclass(frozen=True)
class PrivateRow:
    """A private element that is kept: its creator as the maker writes it, its VR, how many
    values it may have, and which ones if they are terms.
    """

    creator: str
    vr: str
    most: int
    terms: frozenset[str]
    what: str


def _lines(name: str) -> Iterator[str]:
    text = (HERE / name).read_text(encoding="utf-8")
    return (line for line in text.splitlines() if line and not line.startswith("#"))


@cache
def profile() -> dict[int, Row]:
    """Tag -> row, of all rows that are one tag each. The patterns are `is_repeating` and odd groups."""
    rows = csv.DictReader(_lines("profile.csv"))
    found = [Row(r["tag"], r["name"], r["basic"], r["modified_dates"] == "C") for r in rows]  # type: ignore[arg-type]
    return {int(row.tag[1:5] + row.tag[6:10], 16): row for row in found if not set("xg") & set(row.tag)}


def is_repeating(tag: int) -> bool:
    """Whether a tag is of a curve (50xx) or an overlay (60xx): of those nothing is kept, pictures of text included."""
    return tag >> 24 in (0x50, 0x60)


@cache
def private_rows() -> dict[tuple[str, int, int], PrivateRow]:
    """(creator in upper case, group, last byte of the element) -> what is kept there."""
    return {
        (row["creator"].upper(), int(row["group"], 16), int(row["element"], 16)): PrivateRow(
            row["creator"], row["vr"], int(row["most"]), frozenset(filter(None, row["terms"].split("|"))), row["what"]
        )
        for row in csv.DictReader(_lines("private.csv"))
    }


@cache
def codes() -> dict[tuple[str, str], str]:
    """(code value, scheme) -> meaning, of the codes that are kept."""
    return {(row["value"], row["scheme"]): row["meaning"] for row in csv.DictReader(_lines("codes.csv"))}


@cache
def terms() -> frozenset[str]:
    """The words that a code string may hold."""
    return frozenset(word.replace("|", " ") for line in _lines("terms.txt") for word in line.split())
