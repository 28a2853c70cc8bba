"""Boxes of pixels or voxels of a raster, and the boxes that cover one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_LETTERS = "zrc"  # of slices, rows and columns in a key


@dataclass(frozen=True, order=True)
class Box:
    """A box of pixels (y, x) or voxels (z, y, x): zero-based, half-open, `start` and `stop` per axis.

    >>> box = Box((0, 8), (4, 16))
    >>> box.shape, box.rows, box.columns
    ((4, 8), slice(0, 4, None), slice(8, 16, None))
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Box:
        """The box of a whole raster of `shape`."""
        return cls((0,) * len(shape), tuple(int(size) for size in shape))

    @classmethod
    def from_edges(cls, edges: Sequence[int]) -> Box:
        """The box whose `edges` are these.

        >>> Box.from_edges((0, 4, 8, 16))
        Box(start=(0, 8), stop=(4, 16))
        """
        return cls(tuple(edges[::2]), tuple(edges[1::2]))

    @classmethod
    def around(cls, boxes: Iterable[Box]) -> Box:
        """The smallest box that contains all of `boxes`."""
        starts, stops = zip(*((box.start, box.stop) for box in boxes), strict=True)
        return cls(tuple(map(min, zip(*starts, strict=True))), tuple(map(max, zip(*stops, strict=True))))

    @property
    def edges(self) -> tuple[int, ...]:
        """start and stop of the first axis, then of the next."""
        return tuple(itertools.chain.from_iterable(zip(self.start, self.stop, strict=True)))

    @property
    def key(self) -> str:
        """The box as text for file names and ledgers, `r000000-000004_c000008-000016`."""
        spans = zip(_LETTERS[-len(self.start) :], self.start, self.stop, strict=True)
        return "_".join(f"{letter}{start:06d}-{stop:06d}" for letter, start, stop in spans)

    @property
    def slices(self) -> tuple[slice, ...]:
        """One slice per axis."""
        return tuple(map(slice, self.start, self.stop))

    @property
    def rows(self) -> slice:
        return slice(self.start[-2], self.stop[-2])

    @property
    def columns(self) -> slice:
        return slice(self.start[-1], self.stop[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(stop - start for start, stop in zip(self.start, self.stop, strict=True))

    def grown(self, halo_px: int | Sequence[int], shape: Sequence[int]) -> Box:
        """The box with `halo_px` more pixels on every side, clipped to a raster of `shape`.

        `halo_px` is one number for all axes, or one per axis.

        >>> Box((0, 0), (8, 8)).grown(2, (10, 10))
        Box(start=(0, 0), stop=(10, 10))
        """
        halo = (halo_px,) * len(shape) if isinstance(halo_px, int) else halo_px
        return Box(
            tuple(max(start - px, 0) for start, px in zip(self.start, halo, strict=True)),
            tuple(min(stop + px, size) for stop, px, size in zip(self.stop, halo, shape, strict=True)),
        )

    def shrunk(self, margin_px: int) -> Box:
        """The box without `margin_px` pixels on every side. Raises ValueError if no pixel is left."""
        inner = Box(tuple(start + margin_px for start in self.start), tuple(stop - margin_px for stop in self.stop))
        if min(inner.shape) <= 0:
            raise ValueError(f"tile {self.key} has nothing left after a margin of {margin_px} pixels")
        return inner

    def moved(self, offset: Sequence[int]) -> Box:
        """The box further along by `offset`, one number per axis."""
        starts, stops = ((edge + by for edge, by in zip(edges, offset, strict=True)) for edges in (self.start, self.stop))
        return Box(tuple(starts), tuple(stops))

    def common(self, other: Box) -> Box:
        """What both boxes cover; of no use unless they overlap."""
        return Box(tuple(map(max, self.start, other.start)), tuple(map(min, self.stop, other.stop)))

    def within(self, outer: Box) -> tuple[slice, ...]:
        """One slice per axis: this box in an array that covers `outer`."""
        return self.moved([-start for start in outer.start]).slices

    def overlaps(self, other: Box) -> bool:
        return min(self.common(other).shape) > 0

    def cut(self, size: int | Sequence[int]) -> list[Box]:
        """Boxes of `size` (one number, or one per axis) that cover every pixel of this one once, the last axis first.

        Those at the far edges are smaller.

        >>> [part.shape for part in Box((0, 0), (3, 4)).cut(3)]
        [(3, 3), (3, 1)]
        """
        sizes = (size,) * len(self.start) if isinstance(size, int) else size
        spans = (
            [(first, min(first + step, stop)) for first in range(start, stop, step)]
            for start, stop, step in zip(self.start, self.stop, sizes, strict=True)
        )
        return [Box.from_edges(tuple(itertools.chain(*edges))) for edges in itertools.product(*spans)]


# ---------------------------------------------------------------- blocks of a split

SMALLEST_BLOCK_PX, LARGEST_BLOCK_PX = 8, 256
KEPT_SIDE = 15  # a buffer of a 15th of the side leaves three quarters of the pixels of a block


def block_sizes(shape: Sequence[int], halo_px: int, block_px: int | None = None) -> tuple[int, int]:
    """(block_px, buffer_px) of a split of a raster of `shape` into blocks, for a network of that halo.

    Four blocks along the shorter side of the image, or blocks of the `block_px` that is given. The buffer is as wide as the halo
    as far as at least three quarters of the pixels of a training block are left, so that small rasters do not starve.

    >>> block_sizes((255, 147), 15), block_sizes((40, 43), 15), block_sizes((400, 400), 4)
    ((36, 2), (10, 0), (100, 4))
    """
    if block_px is None:
        block_px = min(max(min(shape[-2:]) // 4, SMALLEST_BLOCK_PX), LARGEST_BLOCK_PX)
    return block_px, min(halo_px, block_px // KEPT_SIDE, (min(shape) - 1) // 3)
