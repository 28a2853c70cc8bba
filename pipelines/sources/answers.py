"""What is known of each sample: a table (CSV) of files with their answers, or the names of the folders that hold them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

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
    """Answers by file name, or by path below the source. `from_folders`: the folder that holds a file names its class."""

    of_file: Mapping[str, Answer] = field(default_factory=dict)
    from_folders: bool = False

    def of(self, path: str) -> Answer | None:
        """The answer for the file or folder at `path` (with `/`, below the source); None: not known."""
        if self.from_folders:
            parents = PurePosixPath(path).parts[:-1]
            return Answer(parents[-1]) if parents else None
        return self.of_file.get(path) or self.of_file.get(PurePosixPath(path).name)


@dataclass(frozen=True)
class AnswerColumns:
    """Names of the columns; `group` and `part` may be missing in the table unless they are asked for."""

    file: str = "file"
    answer: str = "label"
    group: str = "group"
    part: str = "part"


def read_answers(path: Path, columns: AnswerColumns, required: tuple[str, ...] = ()) -> Answers:
    """The table in a CSV file (comma, semicolon or tab; UTF-8). `required`: columns that must be there beside file and answer.

    A file that stands in two lines with different answers is refused; the same line twice is read once. Raises MissingInput,
    RequestError.
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
    for name in (columns.file, columns.answer, *required):
        if name not in names:
            there = ", ".join(names) or "nothing"
            raise RequestError(f"{path.name} has no column {name!r}, only {there}; name the columns in labels.columns")
    found: dict[str, Answer] = {}
    try:
        for row in reader:
            name, answer = _cell(row, columns.file), _cell(row, columns.answer)
            if not name:
                raise RequestError(f"{path.name}, line {reader.line_num}: names no file")
            known = Answer(answer, _cell(row, columns.group), _cell(row, columns.part))
            key = str(PurePosixPath(name.replace("\\", "/")))
            if found.setdefault(key, known) != known:
                raise RequestError(f"{path.name}, line {reader.line_num}: {key} has two different answers; keep one")
    except csv.Error as e:
        raise RequestError(f"{path.name}, line {reader.line_num}: {e}") from e
    if not found:
        raise RequestError(f"{path.name} holds no line below its header")
    return Answers(found)


def _cell(row: Mapping[str, str | None], name: str) -> str:
    return (row.get(name) or "").strip()
