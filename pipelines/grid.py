"""Location of pixels: a CRS, an affine transform and a shape."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from rasterio.crs import CRS

_WKT_KEYWORDS = (
    "PROJCS|PROJCRS|PROJECTEDCRS|GEOGCS|GEOGCRS|GEOGRAPHICCRS|GEODCRS|GEODETICCRS|GEOCCS|BOUNDCRS|COMPD_CS|COMPOUNDCRS|DERIVEDPROJCRS|"
    "VERT_CS|VERTCRS|VERTICALCRS|LOCAL_CS|ENGCRS|ENGINEERINGCRS"
)
_CRS_FORMS = re.compile(
    r"\s*(?:"
    r"[A-Z][A-Z0-9_]*:[A-Z0-9._+]+\s*$|"  # EPSG:32635, OGC:CRS84
    r"urn:ogc:def:crs:[A-Z0-9._:+]+\s*$|"
    r"(?:WGS84|WGS72|NAD27|NAD83)\s*$|"
    r"\+?[a-z_]+=|"  # PROJ string
    rf"(?:{_WKT_KEYWORDS})\s*[\[(]|VERTCS\s*\[\s*\")",  # the last is ESRI's vertical CRS
    re.IGNORECASE,
)
# a value that begins like a path or an address: a grid file, which PROJ would open or fetch
_CRS_FILES = re.compile(r"""(?:["'=,(\[]|^)\s*@?(?:[/\\~]|\.\.?[/\\]|[A-Z][\w+.-]*:[/\\])|\.\.[/\\]""", re.IGNORECASE)
# an address that WKT 2 uses as an identifier; nothing fetches it
_WKT_IDENTIFIER = re.compile(r"""URI\s*\[\s*"https?://www\.opengis\.net/[\w./-]*"\s*\]""", re.IGNORECASE)


def parse_crs(text: str) -> CRS:
    """The CRS that an authority code (EPSG:32635), PROJ string or WKT names.

    GDAL opens a file, or fetches an address, that is passed as a CRS (OSRSetFromUserInput). The text may come from a config
    or a data file, so this function rejects names of files and addresses, and grid files that PROJ would open. Raises
    rasterio's CRSError (a ValueError).

        >>> parse_crs("EPSG:32635").linear_units
        'metre'
    """
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if not _CRS_FORMS.match(text) or _CRS_FILES.search(_WKT_IDENTIFIER.sub("", text)):
        raise CRSError(f"not an authority code, PROJ string or WKT: {text[:80]!r} (file names are not read)")
    return CRS.from_user_input(text)


@dataclass(frozen=True)
class Grid:
    """A regular raster grid: the position of each pixel of an array.

    `transform` is the GDAL affine (a, b, c, d, e, f) that maps (column, row) of a pixel's **upper-left corner** to
    (x, y) in CRS units (https://gdal.org/en/stable/tutorials/geotransforms_tut.html, reordered as in `affine.Affine`).
    `crs` is any string that PROJ parses; `wkt` gives the canonical form. `shape_yx` is (rows, columns).

    >>> grid = Grid("EPSG:32635", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (40, 56))
    >>> grid.bounds_xy
    (500000.0, 4999600.0, 500560.0, 5000000.0)
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]
    shape_yx: tuple[int, int]

    @classmethod
    def from_affine(cls, crs: str, affine: Affine, shape_yx: tuple[int, int]) -> Grid:
        a, b, c, d, e, f = (float(v) for v in tuple(affine)[:6])
        return cls(str(crs), (a, b, c, d, e, f), (int(shape_yx[0]), int(shape_yx[1])))

    @property
    def affine(self) -> Affine:
        return Affine(*self.transform)

    @property
    def geobox(self) -> GeoBox:
        from odc.geo.geobox import GeoBox

        return GeoBox(self.shape_yx, self.affine, self.crs)

    @property
    def wkt(self) -> str:
        wkt: str = parse_crs(self.crs).to_wkt()
        return wkt

    @property
    def resolution_xy(self) -> tuple[float, float]:
        """Signed pixel size (x, y) in CRS units; y is negative for north-up grids."""
        return self.transform[0], self.transform[4]

    @property
    def bounds_xy(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of the outer pixel edges, in CRS units."""
        height, width = self.shape_yx
        corners = [self.affine @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def x_centres(self) -> np.ndarray:
        """x of the pixel centres, (columns,), float64, CRS units. For grids without rotation."""
        a, _, c, _, _, _ = self.transform
        return c + a * (np.arange(self.shape_yx[1]) + 0.5)

    def y_centres(self) -> np.ndarray:
        """y of the pixel centres, (rows,), float64, CRS units. For grids without rotation."""
        _, _, _, _, e, f = self.transform
        return f + e * (np.arange(self.shape_yx[0]) + 0.5)

    def window(self, rows: slice, columns: slice) -> Grid:
        """The grid of the pixels `rows`, `columns` (zero-based, half-open)."""
        shifted = self.affine @ Affine.translation(columns.start, rows.start)
        return Grid.from_affine(self.crs, shifted, (rows.stop - rows.start, columns.stop - columns.start))

    def is_aligned(self, other: Grid, tolerance_px: float = 1e-3) -> bool:
        """True if CRS and shape are equal and the corners differ by at most `tolerance_px` pixels."""
        if self.shape_yx != other.shape_yx or not self.has_same_crs(other):
            return False
        height, width = self.shape_yx
        pixel = max(abs(v) for v in (*self.transform[0:2], *self.transform[3:5]))
        corners = [(self.affine @ corner, other.affine @ corner) for corner in ((0, 0), (width, height))]
        return not any(max(abs(a[0] - b[0]), abs(a[1] - b[1])) > tolerance_px * pixel for a, b in corners)

    def has_same_crs(self, other: Grid) -> bool:
        return self.crs == other.crs or parse_crs(self.crs) == parse_crs(other.crs)
