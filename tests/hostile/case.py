"""A hostile file: where it belongs, what is wrong with it, and what ingest may do with it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pipelines.grid import Grid

SIDE = 64
GRID = Grid("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (SIDE, SIDE))

# refused: by name; any: refused, or accepted whatever its values (no checksum shows a changed byte of pixels or metadata);
# whole: refused, or accepted with the pixels of the base; kept: accepted with them; missing: refused, or accepted with the
# pixels of the base where its writer got to, and nothing elsewhere
Expected = Literal["refused", "any", "whole", "kept", "missing"]


@dataclass(frozen=True)
class Case:
    """`group` is a folder of files that one config reads, `make` writes the file (and what belongs beside it) at a path.

    `written` (y, x): where the writer of a "missing" file got to. `bands`: the pixels of the base, (band, y, x).
    """

    group: str
    kind: str
    name: str
    make: Callable[[Path], None]
    expected: Expected
    bands: np.ndarray
    written: np.ndarray | None = None

    @property
    def is_truncation(self) -> bool:
        return self.kind.startswith("cut")


def pixels(count: int = 1, dtype: str = "uint16", seed: int = 7) -> np.ndarray:
    """(band, y, x), none of them 0."""
    values = np.random.default_rng(seed).integers(1000, 1500, (count, SIDE, SIDE))
    return np.asarray(values, dtype)


def drawn(*what: object) -> np.random.Generator:
    """Random numbers that depend on `what` only."""
    return np.random.default_rng(zlib.crc32(repr(what).encode()))


def put(content: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(content)

    return make


def cuts(content: bytes, edges: Iterator[int] | list[int], count: int, *what: object) -> dict[str, bytes]:
    """The content cut at `count` places: at edges of its parts, a byte before and after them, and anywhere."""
    size = len(content)
    near = sorted({at for edge in edges for at in (edge - 1, edge, edge + 1) if 0 < at < size} | {1, size - 1, size // 2})
    anywhere = drawn("cut", *what).integers(1, size, max(count // 3, 3))
    chosen = near if len(near) <= count else [near[n] for n in np.linspace(0, len(near) - 1, count).astype(int)]
    return {f"at{at}": content[:at] for at in dict.fromkeys([*chosen, *anywhere.tolist()])}


def flipped(content: bytes, count: int, *what: object, until: int | None = None) -> dict[str, bytes]:
    """The content with one bit changed, or a few bytes, before the byte `until`."""
    rng, found = drawn("flip", *what), {}
    for number in range(count):
        changed, at = bytearray(content), int(rng.integers(0, min(until or len(content), len(content))))
        if number % 4:
            changed[at] ^= 1 << int(rng.integers(8))
        else:
            several = rng.bytes(int(rng.integers(1, 9)))[: len(content) - at]
            changed[at : at + len(several)] = several
        found[f"b{at}n{number}"] = bytes(changed)
    return found
