"""Shares of some work for jobs that know only their number: a Kubernetes Indexed Job, a Slurm array, a loop in a shell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipelines.errors import RequestError

Piece = TypeVar("Piece")


@dataclass(frozen=True)
class Slice:
    """The share `number` of `count`, counted from 1: every `count`-th piece.

    >>> Slice.parse("2/3").of([0, 1, 2, 3, 4])
    [1, 4]
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Slice:
        """Of `I/N`. Raises RequestError."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise RequestError(f"--slice {text}: expected I/N with I from 1 to N, such as 3/8 for the third of eight slices")
        return cls(int(found[1]), int(found[2]))

    def of(self, pieces: Sequence[Piece]) -> list[Piece]:
        return list(pieces[self.number - 1 :: self.count])

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class SliceDone:
    """What was done of a slice: pieces made now, and all pieces of it, which are there now."""

    made: int = 0
    size: int = 0

    def __add__(self, other: SliceDone) -> SliceDone:
        return SliceDone(self.made + other.made, self.size + other.size)
