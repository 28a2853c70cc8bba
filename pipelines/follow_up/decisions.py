"""What a reader decided about lesions that were proposed: confirmed, rejected, or moved to another place.

A decision is a line of a CSV file: the patient, the pair of visits, the place (mm, LPS) and the decision. It is tied to place and
visits and not to the number of a lesion, which may be another one in the next run. A lesion is meant if it comes within
`REACH_MM` of the place, the nearest one first. A later line on the same lesion replaces an earlier one. What finds no lesion is
listed, so that nothing is dropped in silence.

What is rejected is no lesion at later visits either: rows all of whose lesions before were rejected are rejected too, unless they
have a decision of their own.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from pipelines.errors import MissingInput, RequestError
from pipelines.follow_up.events import EVENTS, FollowedLesions, LesionChange
from pipelines.grid import Grid
from pipelines.wording import harmless

Kind = Literal["confirm", "reject", "move"]
Place = tuple[float, float, float]
KINDS: tuple[Kind, ...] = ("confirm", "reject", "move")
WORDS: dict[str, str] = {"confirm": "confirmed", "reject": "rejected", "move": "moved"}
COLUMNS = ("patient", "from_visit", "to_visit", "x_mm", "y_mm", "z_mm", "event", "decision", "new_x_mm", "new_y_mm", "new_z_mm")
NEEDED = tuple(name for name in COLUMNS if name not in ("event", "new_x_mm", "new_y_mm", "new_z_mm"))
REACH_MM = 3.0
MOST_BYTES, MOST_TEXT = 10_000_000, 80  # of a file, characters of a text in it


@dataclass(frozen=True)
class Decision:
    """A line: what was decided of the lesion at `place_mm` (LPS) between two visits; `new_mm`: of a move. `event`: what the
    lesion was called then, "" if not said. `line`: where it stands, for messages."""

    patient: str
    visits: tuple[str, str]
    place_mm: Place
    kind: Kind
    new_mm: Place | None = None
    event: str = ""
    line: str = ""

    def row(self) -> dict[str, str]:
        """As `read_decisions` takes it."""
        new = ("", "", "") if self.new_mm is None else tuple(f"{one:.1f}" for one in self.new_mm)
        place = (f"{one:.1f}" for one in self.place_mm)
        values = (self.patient, *self.visits, *place, self.event, self.kind, *new)
        return dict(zip(COLUMNS, values, strict=True))


def read_decisions(path: Path) -> list[Decision]:
    """The decisions in a CSV file, or in all CSV files of a folder in the order of their names.

    Raises MissingInput, RequestError with file and line for what cannot be understood.
    """
    if path.is_dir():
        return [one for file in sorted(path.glob("*.csv")) for one in read_decisions(file)]
    require_table(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            if lacking := [name for name in NEEDED if name not in (table.fieldnames or ())]:
                raise RequestError(f"{path.name}: no column {', '.join(lacking)}; the columns are {', '.join(COLUMNS)}")
            return [_decision(row, f"{path.name}:{table.line_num}") for row in table]
    except (UnicodeDecodeError, csv.Error) as e:
        raise RequestError(f"{path.name}: not a CSV file in UTF-8 ({e}); save it as one") from e


def require_table(path: Path) -> None:
    """Raises MissingInput where there is no file of decisions, RequestError for one that is too large; nothing is read."""
    if not path.is_file():
        raise MissingInput(f"{path.name}: no decisions here; correct `decisions`, or take it out")
    if path.stat().st_size > MOST_BYTES:
        raise RequestError(f"{path.name}: larger than {MOST_BYTES / 1e6:g} MB, so this is no table of decisions")


def _decision(row: Mapping[str, str | None], line: str) -> Decision:
    text = {name: (row.get(name) or "").strip() for name in COLUMNS}
    kind = next((one for one in KINDS if text["decision"].lower() in (one, WORDS[one])), None)
    if kind is None:
        raise RequestError(f"{line}: decision is {harmless(text['decision'], 40)!r}; expected {', '.join(KINDS)}")
    place = _place(text, ("x_mm", "y_mm", "z_mm"), line)
    new = _place(text, ("new_x_mm", "new_y_mm", "new_z_mm"), line) if kind == "move" else None
    # what finds no lesion is repeated in tables and pages: no text there but what driftline itself writes
    before, after = (name if name.isascii() and name.isdigit() else "?" for name in (text["from_visit"], text["to_visit"]))
    event = text["event"] if text["event"] in EVENTS else ""
    return Decision(harmless(text["patient"], MOST_TEXT), (before, after), place, kind, new, event, line)


def _place(text: Mapping[str, str], names: Sequence[str], line: str) -> Place:
    try:
        x, y, z = (float(text[name]) for name in names)
    except ValueError as e:
        raise RequestError(f"{line}: {', '.join(names)} are positions in mm; found {harmless(str(e), 80)}") from e
    if not np.isfinite([x, y, z]).all():
        raise RequestError(f"{line}: {', '.join(names)} are positions in mm, all of them numbers")
    return x, y, z


# ---------------------------------------------------------------- applied to what was found


@dataclass(frozen=True)
class DecidedLesion:
    """A row with what was decided of it, if anything. `follows_rejected`: a reader rejected all of it between earlier visits."""

    change: LesionChange
    decision: Decision | None = None
    follows_rejected: bool = False

    @property
    def status(self) -> str:
        """proposed, confirmed, rejected or moved."""
        if self.decision is not None:
            return WORDS[self.decision.kind]
        return "rejected" if self.follows_rejected else "proposed"

    @property
    def counts(self) -> bool:
        """Whether it is in counts and volumes: rejected lesions are not."""
        return self.status != "rejected"

    @property
    def place_mm(self) -> Place:
        """Where it lies, as a reader says or as it was found."""
        moved = self.decision.new_mm if self.decision is not None else None
        return self.change.place_mm if moved is None else moved


def decide(
    followed: FollowedLesions, grid: Grid, patient: str, visits: Sequence[str], decisions: Iterable[Decision]
) -> tuple[list[DecidedLesion], list[Decision]]:
    """(all rows with what was decided of them, the decisions on this patient that find no lesion)."""
    own = [one for one in decisions if one.patient == patient]
    decided: dict[int, Decision] = {}
    unmatched: list[Decision] = []
    pairs = {pair: n for n, pair in enumerate(pairwise(visits))}
    for one in own:
        interval = pairs.get(one.visits)
        found = None if interval is None else nearest(followed, grid, interval, one.place_mm)
        if found is None:
            unmatched.append(one)
        else:
            decided[found] = one
    return carry_rejections([DecidedLesion(change, decided.get(n)) for n, change in enumerate(followed.changes)]), unmatched


def carry_rejections(lesions: Sequence[DecidedLesion]) -> list[DecidedLesion]:
    """The rows, of which those that consist of lesions that were rejected up to their earlier visit alone are rejected too."""
    gone: set[tuple[int, int]] = set()  # (interval, number) of what is rejected at its earlier visit
    carried: dict[int, DecidedLesion] = {}
    for n, one in sorted(enumerate(lesions), key=lambda pair: pair[1].change.interval):
        change = one.change
        before = {(change.interval, number) for number in change.numbers_before}
        carried[n] = replace(one, follows_rejected=bool(before) and before <= gone)
        if not carried[n].counts:
            gone |= {(change.interval + 1, number) for number in change.numbers_after}
    return [carried[n] for n in range(len(lesions))]


def nearest(followed: FollowedLesions, grid: Grid, interval: int, place_mm: Place) -> int | None:
    """The position in `changes` of the lesion that comes nearest to a place, within `REACH_MM`; of equal ones the one whose
    centroid is nearer; None where there is none. The centroid belongs to a lesion, also where it is bent around it."""
    numbers, visits, away_N = voxels_near(followed, grid, interval, place_mm)
    best: tuple[float, float, int] | None = None
    for n, change in enumerate(followed.changes):
        if change.interval != interval:
            continue
        is_own = np.where(visits == 0, np.isin(numbers, change.numbers_before), np.isin(numbers, change.numbers_after))
        from_centroid = float(np.linalg.norm(np.subtract(change.place_mm, place_mm)))
        away = min(from_centroid, float(away_N[is_own].min(initial=np.inf)))
        if away <= REACH_MM:
            candidate = round(away, 3), from_centroid, n
            best = candidate if best is None else min(best, candidate)
    return None if best is None else best[2]


def voxels_near(
    followed: FollowedLesions, grid: Grid, interval: int, place_mm: Place
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lesion, visit 0 or 1, distance in mm) of each lesion's voxel in a box around a place, (N,) each."""
    centre_zyx = (grid.to_index(place_mm) - 0.5)[::-1]
    reach = np.ceil(REACH_MM / np.array(grid.spacing)).astype(int) + 1
    corner = np.maximum(np.round(centre_zyx).astype(int) - reach, 0)
    ends = np.maximum(np.round(centre_zyx).astype(int) + reach + 1, corner)
    part = tuple(slice(int(first), int(end)) for first, end in zip(corner, ends, strict=True))
    near = followed.numbers_TZYX[(slice(interval, interval + 2), *part)]
    index = np.argwhere(near > 0)
    place_N3 = grid.to_world((index[:, 1:] + corner)[:, ::-1] + 0.5)
    return near[tuple(index.T)], index[:, 0], np.linalg.norm(place_N3 - place_mm, axis=1)
