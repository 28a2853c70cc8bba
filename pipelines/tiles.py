"""Tiles: rectangles of pixels of a raster."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Tile:
    """A rectangle of pixels, zero-based, half-open: rows [row0, row1), columns [col0, col1)."""

    row0: int
    row1: int
    col0: int
    col1: int

    @property
    def key(self) -> str:
        return f"r{self.row0:06d}-{self.row1:06d}_c{self.col0:06d}-{self.col1:06d}"

    @property
    def rows(self) -> slice:
        return slice(self.row0, self.row1)

    @property
    def columns(self) -> slice:
        return slice(self.col0, self.col1)

    @property
    def shape_yx(self) -> tuple[int, int]:
        return self.row1 - self.row0, self.col1 - self.col0

    def grown(self, halo_px: int | tuple[int, ...], shape_yx: tuple[int, int]) -> "Tile":
        """The tile with `halo_px` more pixels on every side, clipped to a raster of `shape_yx`.

        `halo_px` is one number for both axes, or (y, x).

        >>> Tile(0, 8, 0, 8).grown(2, (10, 10))
        Tile(row0=0, row1=10, col0=0, col1=10)
        """
        down, across = (halo_px, halo_px) if isinstance(halo_px, int) else halo_px
        return Tile(
            max(self.row0 - down, 0),
            min(self.row1 + down, shape_yx[0]),
            max(self.col0 - across, 0),
            min(self.col1 + across, shape_yx[1]),
        )

    def shrunk(self, margin_px: int) -> "Tile":
        """The tile without `margin_px` pixels on every side. Raises ValueError if no pixel is left."""
        inner = Tile(self.row0 + margin_px, self.row1 - margin_px, self.col0 + margin_px, self.col1 - margin_px)
        if inner.row0 >= inner.row1 or inner.col0 >= inner.col1:
            raise ValueError(f"tile {self.key} has nothing left after a margin of {margin_px} pixels")
        return inner

    def within(self, outer: "Tile") -> tuple[slice, slice]:
        """(rows, columns) of this tile in an array that covers `outer`."""
        return (slice(self.row0 - outer.row0, self.row1 - outer.row0), slice(self.col0 - outer.col0, self.col1 - outer.col0))

    def overlaps(self, other: "Tile") -> bool:
        return self.row0 < other.row1 and other.row0 < self.row1 and self.col0 < other.col1 and other.col0 < self.col1


def tile_raster(shape_yx: tuple[int, int], tile_px: int) -> list[Tile]:
    """Tiles of `tile_px` squared that cover every pixel of the raster exactly once, row by row; edge tiles are smaller.

    >>> [tile.shape_yx for tile in tile_raster((3, 4), 3)]
    [(3, 3), (3, 1)]
    """
    height, width = shape_yx
    return [
        Tile(row, min(row + tile_px, height), col, min(col + tile_px, width))
        for row in range(0, height, tile_px)
        for col in range(0, width, tile_px)
    ]
