"""Matches names against a sequence of parts in a time that does not explode, whatever the name.

A regular expression with several `*` tries a name that does not match in every combination of their lengths: minutes for one
hostile name. Here each part is tried once at each place of the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Spans = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Part:
    """A part of a pattern, the shorter text first. With a `name` it is a field, and is found in the result.

    `literal`: this text. `regex`: text of one length, such as eight digits. `choices`: one of these, the first that fits.
    `same_as`: what the field of that name matched. Else at least `least` characters other than /.
    """

    name: str = ""
    literal: str = ""
    regex: re.Pattern[str] | None = None
    choices: tuple[str, ...] = ()
    same_as: str = ""
    least: int = 0

    @property
    def is_free(self) -> bool:
        return self.regex is None and not (self.literal or self.choices or self.same_as)

    def ends(self, path: str, start: int, spans: Spans) -> Iterator[int]:
        """Where the part can end that begins at `start`, in the order of preference."""
        if self.is_free:
            yield from range(start + self.least, _segment_end(path, start) + 1)
        elif self.regex is not None:
            if match := self.regex.match(path, start):
                yield match.end()
        else:
            same = path[slice(*spans[self.same_as])] if self.same_as else self.literal
            for text in self.choices or (same,):
                if path.startswith(text, start):
                    yield start + len(text)


def _segment_end(path: str, start: int) -> int:
    slash = path.find("/", start)
    return len(path) if slash < 0 else slash


def find_spans(parts: Sequence[Part], path: str) -> Spans | None:
    """Name of each field -> (start, end) in `path`, of which the parts match the whole; None if they do not.

    >>> find_spans([Part("a", least=1), Part(literal="_"), Part()], "xy_z_")
    {'a': (0, 2)}
    """
    remembered = [part.same_as for part in parts if part.same_as]
    failed: dict[tuple[object, ...], int] = {}  # from which start on; a free part that failed fails later in its segment, too

    def matches(number: int, start: int, spans: Spans) -> Spans | None:
        if number == len(parts):
            return spans if start == len(path) else None
        part = parts[number]
        place = _segment_end(path, start) if part.is_free else start
        state = (number, place, *(path[slice(*spans[name])] for name in remembered if name in spans))
        if start >= failed.get(state, start + 1):
            return None
        for end in part.ends(path, start, spans):
            found = matches(number + 1, end, {**spans, part.name: (start, end)} if part.name else spans)
            if found is not None:
                return found
        failed[state] = start
        return None

    return matches(0, 0, {})
