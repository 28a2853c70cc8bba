"""What is known of each sample: a table (CSV) of files with answers, spans or boxes, or names of folders."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Literal

from pipelines.errors import MissingInput, RequestError

MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Answer:
    """`answer` is a class or a number as text; `group` and `part` are "" where the table does not state them."""

    answer: str
    group: str = ""
    part: str = ""


@dataclass(frozen=True)
class Answers:
    """Answers by file name, or by path below the source. `from_folders`: the folder that holds a file names its class.

    `places`: where the table names each file, if every one of them must be there.
    """

    of_file: Mapping[str, Answer] = field(default_factory=dict)
    from_folders: bool = False
    places: Mapping[str, str] = field(default_factory=dict)

    def of(self, path: str) -> Answer | None:
        """The answer for the file or folder at `path` (with `/`, below the source); None: not known."""
        if self.from_folders:
            parents = PurePosixPath(path).parts[:-1]
            return Answer(parents[-1]) if parents else None
        return self.of_file.get(path) or self.of_file.get(PurePosixPath(path).name)

    def require_files(self, paths: Iterable[str]) -> None:
        """Raises RequestError where the table must name files (or folders of them) that are there, and does not."""
        named = {one for path in map(PurePosixPath, paths) for one in (path, path.parent)} if self.places else set()
        there = {str(one) for one in named} | {one.name for one in named}
        if lost := [name for name in self.places if name not in there]:
            more = f"; so do {len(lost) - 1} further names" if len(lost) > 1 else ""
            raise RequestError(
                f"{self.places[lost[0]]}: {lost[0]} names no file below source.path{more}: correct the name, or take the line out"
            )


@dataclass(frozen=True)
class AnswerColumns:
    """Names of the columns; `group` and `part` may be missing in the table unless they are asked for."""

    file: str = "file"
    answer: str = "label"
    group: str = "group"
    part: str = "part"


@dataclass(frozen=True)
class BoxColumns(AnswerColumns):
    """The further columns of a table of boxes; `answer` holds the class of a box."""

    frame: str = "frame"
    top: str = "top"
    left: str = "left"
    bottom: str = "bottom"
    right: str = "right"


@dataclass(frozen=True)
class SpanColumns(AnswerColumns):
    """The further columns of a table of spans; `answer` holds the class of a span."""

    start: str = "from"
    stop: str = "to"


def read_answers(path: Path, columns: AnswerColumns, required: tuple[str, ...] = ()) -> Answers:
    """The table in a CSV file (comma, semicolon or tab; UTF-8). `required`: columns that must be there beside file and answer.

    A file that stands in two lines with different answers is refused; the same line twice is read once. Raises MissingInput,
    RequestError.
    """
    found: dict[str, Answer] = {}
    for line, row in table_rows(path, (columns.file, columns.answer, *required)):
        key = _name_of(row, columns, f"{path.name}, line {line}")
        known = Answer(_cell(row, columns.answer), _cell(row, columns.group), _cell(row, columns.part))
        if found.setdefault(key, known) != known:
            raise RequestError(f"{path.name}, line {line}: {key} has two different answers; keep one, or see labels.spans")
    return Answers(found)


def read_boxes(path: Path, columns: BoxColumns) -> Answers:
    """The boxes of each file from a table like that of `read_answers`, a line for each box.

    Rows and columns are whole pixels, both ends inside; frames and pixels are counted from 0. A line that names a file and no
    box says that the file has none. The answer is a JSON list as `pipelines.samples.boxes` reads it. Raises as `read_answers`.
    """
    boxes: dict[str, list[list[int | str]]] = {}
    about: dict[str, tuple[str, str]] = {}
    numbers = (columns.frame, columns.top, columns.left, columns.bottom, columns.right)
    for line, row in table_rows(path, (columns.file, columns.answer, *numbers)):
        where = f"{path.name}, line {line}"
        key = _name_of(row, columns, where)
        known = _cell(row, columns.group), _cell(row, columns.part)
        if about.setdefault(key, known) != known:
            raise RequestError(f"{where}: {key} has another group or part than in a line before; keep one")
        cells, label = [_cell(row, one) for one in numbers], _cell(row, columns.answer)
        own = boxes.setdefault(key, [])
        if not any(cells) and not label:
            continue
        if not label or not all(cell.isdecimal() for cell in cells):
            stated = ", ".join(f"{one} {cell!r}" for one, cell in zip((*numbers, columns.answer), (*cells, label), strict=True))
            raise RequestError(f"{where}: expected whole numbers from 0 and a class, got {stated}")
        frame, top, left, bottom, right = map(int, cells)
        if bottom < top or right < left:
            raise RequestError(f"{where}: the box ends before it begins (rows {top} to {bottom}, columns {left} to {right})")
        box: list[int | str] = [frame, top, left, bottom, right, label]
        if box not in own:  # the same line twice is read once
            own.append(box)
    texts = {key: json.dumps(own, separators=(",", ":"), ensure_ascii=False) for key, own in boxes.items()}
    return Answers({key: Answer(texts[key], *about[key]) for key in boxes})


def read_spans(path: Path, columns: SpanColumns, unit: Literal["frames", "seconds"]) -> Answers:
    """The spans of each file from a table like that of `read_answers`, a line for each span: from its first frame (or second,
    the first frame is 0) to the one after its last. The answer is as `pipelines.samples.spans` reads it.

    Spans of a file that overlap are refused; what lies between them is not labelled. A line without a class marks a span as not
    labelled, one with a name alone the whole file. Raises as `read_answers`.
    """
    spans: dict[str, list[tuple[float, float, str, int]]] = {}
    about: dict[str, tuple[str, str]] = {}
    first: dict[str, str] = {}
    for line, row in table_rows(path, (columns.file, columns.answer, columns.start, columns.stop)):
        where = f"{path.name}, line {line}"
        key = _name_of(row, columns, where)
        first.setdefault(key, where)
        known = _cell(row, columns.group), _cell(row, columns.part)
        if about.setdefault(key, known) != known:
            raise RequestError(f"{where}: {key} has another group or part than in a line before; keep one")
        ends, own = (_cell(row, columns.start), _cell(row, columns.stop)), spans.setdefault(key, [])
        if any(ends) or _cell(row, columns.answer):
            own.append((*_ends_of(ends, unit, where), _cell(row, columns.answer), line))
    for key, own in spans.items():
        own.sort()
        for one, other in pairwise(own):
            if other[0] < one[1]:
                shown = " and ".join(f"{start:g} to {stop:g} ({name or 'no class'})" for start, stop, name, _ in (one, other))
                raise RequestError(
                    f"{path.name}, lines {one[3]} and {other[3]}: the spans {shown} of {key} overlap; a span ends where the next "
                    f"begins: correct {columns.start} and {columns.stop}"
                )
    texts = {key: spans_as_text([one[:3] for one in own if one[2]], unit) for key, own in spans.items()}
    return Answers({key: Answer(texts[key], *about[key]) for key in spans}, places=first)


def spans_as_text(spans: Sequence[tuple[float, float, str]], unit: str) -> str:
    """The answer of a sample, "" without spans: {"unit": frames or seconds, "spans": [[start, stop, class], ...]} in JSON."""
    return json.dumps({"unit": unit, "spans": spans}, separators=(",", ":"), ensure_ascii=False) if spans else ""


def _ends_of(ends: tuple[str, str], unit: str, where: str) -> tuple[float, float]:
    expected = "whole numbers of frames from 0" if unit == "frames" else "seconds from 0"
    try:
        start, stop = (float(int(cell)) if unit == "frames" else float(cell) for cell in ends)
    except ValueError as e:
        raise RequestError(f"{where}: expected {expected}, got a span from {ends[0]!r} to {ends[1]!r}; see labels.spans") from e
    if not (math.isfinite(stop) and start >= 0):
        raise RequestError(f"{where}: expected {expected}, got a span from {start:g} to {stop:g}")
    if not start < stop:
        raise RequestError(
            f"{where}: the span from {start:g} to {stop:g} ends before it begins; it ends before frame or second `to`"
        )
    return start, stop


def _name_of(row: Mapping[str, str | None], columns: AnswerColumns, where: str) -> str:
    """The file that a line names. Raises RequestError."""
    name = _cell(row, columns.file)
    if not name:
        raise RequestError(f"{where}: names no file")
    return str(PurePosixPath(name.replace("\\", "/")))


def table_rows(path: Path, required: Sequence[str], key: str = "labels.columns") -> Iterator[tuple[int, dict[str, str | None]]]:
    """(number of the line, its cells by column) of a CSV file; `key` names the columns in the config.

    Raises MissingInput, RequestError: also where there is no line.
    """
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8-sig") if size <= MOST_BYTES else ""
    except FileNotFoundError as e:
        raise MissingInput(f"no such file: {path}") from e
    except (OSError, UnicodeDecodeError) as e:
        raise RequestError(f"{path} cannot be read as a table in UTF-8 ({e})") from e
    if size > MOST_BYTES:
        raise RequestError(f"{path} has {size / 1e6:.0f} MB, which is more than a table of labels ({MOST_BYTES >> 20} MB)")
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter, strict=True)
    names = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = names
    for name in required:
        if name not in names:
            there = ", ".join(names) or "nothing"
            raise RequestError(f"{path.name} has no column {name!r}, only {there}; name the columns in {key}")
    is_empty = True
    try:
        for row in reader:
            is_empty = False
            yield reader.line_num, row
    except csv.Error as e:
        raise RequestError(f"{path.name}, line {reader.line_num}: {e}") from e
    if is_empty:
        raise RequestError(f"{path.name} holds no line below its header")


def _cell(row: Mapping[str, str | None], name: str) -> str:
    return (row.get(name) or "").strip()
