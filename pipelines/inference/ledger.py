"""The ledger: an append-only list of finished batches, one JSON line each, on disk before the next batch starts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import ArtefactDamaged
from pipelines.files import sync, write_text

NAME = "ledger.jsonl"


@dataclass(frozen=True)
class Record:
    """A finished batch: the key of its region, the SHA-256 of its bytes, and the disagreement of its windows.

    `seam_mean` and `seam_max` are the disagreement of blended windows in physical units, over `seam_count` values;
    `seam_share` is its mean in half widths of the intervals. All are 0 with exact halos.
    """

    region: str
    sha256: str
    seam_mean: float = 0.0
    seam_max: float = 0.0
    seam_count: int = 0
    seam_share: float = 0.0


def start_ledger(folder: Path, header: dict[str, Any]) -> None:
    """Writes a new ledger to `folder` with `header` as its first line; published by rename, so a ledger always has a header."""
    write_text(folder / NAME, json.dumps(header, sort_keys=True) + "\n", mark="partial")
    sync(folder)


def append_record(folder: Path, record: Record) -> None:
    """Appends one line in one write and waits until it is on disk."""
    line = (json.dumps(asdict(record), sort_keys=True) + "\n").encode()
    descriptor = os.open(folder / NAME, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_header(folder: Path) -> dict[str, Any] | None:
    """The first line of the ledger in `folder`; None if there is no ledger or its first line is incomplete.

    Raises ArtefactDamaged for a complete first line that is not a ledger header.
    """
    path = folder / NAME
    if not path.exists():
        return None
    first, newline, _ = path.read_bytes().partition(b"\n")
    if not newline:
        return None
    return _parse(first, path, 1)


def read_records(folder: Path) -> list[Record]:
    """The finished batches in order of completion. An incomplete last line is removed from the file.

    Raises ArtefactDamaged for any other unreadable line.
    """
    path = folder / NAME
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):  # killed during a write: that batch is repeated
        os.truncate(path, len(whole))
    lines = whole.splitlines()[1:]
    try:
        return [Record(**_parse(line, path, number)) for number, line in enumerate(lines, start=2)]
    except TypeError as e:
        raise ArtefactDamaged(f"{path}: a line is not a record of this version ({e}); delete {folder} and predict again") from e


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as e:
        value = e
    if not isinstance(value, dict):
        raise ArtefactDamaged(f"{path}:{number}: not a JSON object ({line[:40]!r}); delete {path.parent} and predict again")
    return value
