"""Location of pixels and voxels: what their coordinates are in, an affine transform and a shape."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine

from pipelines.errors import RequestError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from rasterio.crs import CRS

DIMS = ("z", "y", "x")

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
class PatientFrame:
    """Coordinates of a patient: millimetres to the patient's left, posterior and head (LPS; DICOM PS3.3, C.7.6.2.1.1).

    `uid` is the Frame of Reference UID (C.7.4.1); positions of two series can be compared only if theirs are equal. "": unknown.
    """

    uid: str = ""


@dataclass(frozen=True)
class ImagePlane:
    """Coordinates in an image whose position in the world no file states, such as ultrasound or video.

    From its upper left corner, x to the right and y down, in `unit`: mm where the size of a pixel is known, else px.
    """

    unit: str = "px"


Frame = str | PatientFrame | ImagePlane


@dataclass(frozen=True)
class Grid:
    """A regular grid: the position of each pixel or voxel of an array.

    `frame` is what the world coordinates are in: a CRS (any string that `parse_crs` takes; `wkt` gives the canonical form), a
    `PatientFrame` or an `ImagePlane`. `transform` maps the index of a pixel's **outer corner** to the world, row by row, index
    order (column, row[, slice]), world order (x, y[, z]): six numbers in two dimensions, the GDAL affine (a, b, c, d, e, f) as in
    `affine.Affine`
    (https://gdal.org/en/stable/tutorials/geotransforms_tut.html), twelve in three. `shape` is ([slices,] rows, columns).

    Raises ValueError if transform and shape do not fit each other.

    >>> grid = Grid("EPSG:32635", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (40, 56))
    >>> grid.bounds_xy
    (500000.0, 4999600.0, 500560.0, 5000000.0)
    >>> volume = Grid.from_centres(PatientFrame(), ((1, 0, 0, -10), (0, 1, 0, -20), (0, 0, 5, 30)), (4, 40, 20))
    >>> volume.dims, volume.spacing, volume.transform[3::4]
    (('z', 'y', 'x'), (5.0, 1.0, 1.0), (-10.5, -20.5, 27.5))
    """

    frame: Frame
    transform: tuple[float, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        expected = {2: 6, 3: 12}.get(len(self.shape))
        if expected != len(self.transform):
            raise ValueError(f"a grid has 2 axes and 6 numbers, or 3 and 12; got shape {self.shape}, transform {self.transform}")

    @classmethod
    def from_affine(cls, crs: str, affine: Affine, shape_yx: tuple[int, int]) -> Grid:
        return cls(str(crs), tuple(float(v) for v in tuple(affine)[:6]), (int(shape_yx[0]), int(shape_yx[1])))

    @classmethod
    def from_centres(cls, frame: Frame, matrix: ArrayLike, shape: Sequence[int]) -> Grid:
        """The grid whose `matrix` (n x (n + 1), rows as in `transform`) maps an index to the **centre** of its voxel.

        That is the convention of DICOM (PS3.3, C.7.6.2.1.1) and NIfTI; the corner is half a voxel before it on every axis.
        """
        rows = np.array(matrix, float)
        rows[:, -1] -= rows[:, :-1].sum(axis=1) / 2
        return cls(frame, tuple(rows.ravel().tolist()), tuple(map(int, shape)))

    # ------------------------------------------------------------ what it is

    @property
    def dims(self) -> tuple[str, ...]:
        """The axes of arrays on this grid, ("y", "x") or ("z", "y", "x")."""
        return DIMS[-len(self.shape) :]

    @property
    def crs(self) -> str:
        """The CRS. Raises RequestError for the frame of a patient or of an image, which is not on Earth."""
        if isinstance(self.frame, str):
            return self.frame
        of = "a patient" if isinstance(self.frame, PatientFrame) else "their own plane"
        raise RequestError(f"this needs a position on Earth, but the images have the coordinates of {of}")

    @property
    def wkt(self) -> str:
        wkt: str = parse_crs(self.crs).to_wkt()
        return wkt

    @property
    def is_on_earth(self) -> bool:
        """True if the coordinates are those of a CRS, False for those of a patient or of an image's own plane."""
        return isinstance(self.frame, str)

    @property
    def unit(self) -> str:
        """Of coordinates that are not on Earth: mm, or px where nothing states the size of a pixel."""
        return self.frame.unit if isinstance(self.frame, ImagePlane) else "mm"

    @property
    def is_volume(self) -> bool:
        return len(self.shape) == 3

    def require_2d(self, what: str) -> Grid:
        """This grid. Raises RequestError, which names `what` needs images, for a grid of volumes."""
        if self.is_volume:
            raise RequestError(f"{what} takes images (y, x); these are volumes of {self.shape} (z, y, x)")
        return self

    @property
    def shape_yx(self) -> tuple[int, int]:
        """(rows, columns), of volumes those of each slice."""
        return self.shape[-2], self.shape[-1]

    @property
    def affine(self) -> Affine:
        """The transform of images. Raises RequestError for volumes."""
        return Affine(*self.require_2d("an affine of six numbers").transform)

    @property
    def matrix(self) -> np.ndarray:
        """(n, n + 1) float64: world = matrix @ (column, row[, slice], 1), of outer corners."""
        return np.reshape(np.array(self.transform, float), (len(self.shape), -1))

    @property
    def matrix_of_centres(self) -> np.ndarray:
        """(n, n + 1) float64, as `from_centres` takes it: an index gives the centre of its pixel or voxel."""
        matrix = self.matrix
        matrix[:, -1] += matrix[:, :-1].sum(axis=1) / 2
        return matrix

    # ------------------------------------------------------------ where it is

    def to_world(self, index: ArrayLike) -> np.ndarray:
        """World coordinates (..., n), order (x, y[, z]), of `index` (..., n), order (column, row[, slice]); .5 is a centre."""
        world: np.ndarray = np.asarray(index, float) @ self.matrix[:, :-1].T + self.matrix[:, -1]
        return world

    def to_index(self, world: ArrayLike) -> np.ndarray:
        """The inverse of `to_world`: fractional indices."""
        index: np.ndarray = (np.asarray(world, float) - self.matrix[:, -1]) @ np.linalg.inv(self.matrix[:, :-1]).T
        return index

    @property
    def spacing(self) -> tuple[float, ...]:
        """Length of a pixel along each of `dims`, in units of the frame; positive, also of rotated grids."""
        return tuple(np.linalg.norm(self.matrix[:, :-1], axis=0)[::-1].tolist())

    @property
    def pixel_size(self) -> float:
        """Area of a pixel, volume of a voxel, in units of the frame."""
        return float(abs(np.linalg.det(self.matrix[:, :-1])))

    @property
    def resolution_xy(self) -> tuple[float, float]:
        """Signed pixel size (x, y) in units of the frame, of grids without rotation; y is negative for north-up grids."""
        return self.matrix[0, 0].item(), self.matrix[1, 1].item()

    @property
    def bounds(self) -> tuple[float, ...]:
        """The least x, y[, z] and the largest of the outer edges, in units of the frame."""
        ends = itertools.product(*((0, size) for size in self.shape[::-1]))
        corners = self.to_world(list(ends))
        return (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())

    @property
    def bounds_xy(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of the outer pixel edges of images, in CRS units."""
        height, width = self.shape_yx
        corners = [self.affine @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def is_straight(self) -> bool:
        """True if the axes of the array are those of the world: no rotation, no shear."""
        matrix = self.matrix[:, :-1]
        return not np.any(matrix - np.diag(np.diag(matrix)))

    def centres(self, dim: str) -> np.ndarray:
        """World coordinate of the pixel centres along `dim`, float64, of grids without rotation."""
        axis = "xyz".index(dim)
        step, first = float(self.matrix[axis, axis]), float(self.matrix[axis, -1])
        return first + step * (np.arange(self.shape[-1 - axis]) + 0.5)

    def window(self, *slices: slice) -> Grid:
        """The grid of the pixels in `slices`, one per axis (zero-based, half-open)."""
        corner = self.to_world([one.start for one in slices[::-1]])
        matrix = np.column_stack([self.matrix[:, :-1], corner])
        return Grid(self.frame, tuple(matrix.ravel().tolist()), tuple(one.stop - one.start for one in slices))

    def flipped(self, dim: str) -> Grid:
        """The same pixels, in the opposite order along `dim`."""
        axis, matrix = "xyz".index(dim), self.matrix.copy()
        matrix[:, -1] += matrix[:, axis] * self.shape[-1 - axis]
        matrix[:, axis] *= -1
        return Grid(self.frame, tuple(matrix.ravel().tolist()), self.shape)

    def is_aligned(self, other: Grid, tolerance_px: float = 1e-3) -> bool:
        """True if frame and shape are equal and the corners differ by at most `tolerance_px` pixels."""
        if self.shape != other.shape or not self.has_same_frame(other):
            return False
        corners = [(0,) * len(self.shape), self.shape[::-1], *np.diag(self.shape[::-1])]
        difference = np.abs(self.to_world(corners) - other.to_world(corners)).max()
        return bool(difference <= tolerance_px * np.abs(self.matrix[:, :-1]).max())

    def has_same_frame(self, other: Grid) -> bool:
        if not (self.is_on_earth and other.is_on_earth):
            return self.frame == other.frame
        return self.crs == other.crs or parse_crs(self.crs) == parse_crs(other.crs)


def require_lonlat(grid: Grid) -> Grid:
    """`grid`, if every part of it has a longitude and latitude, or if it is not on Earth.

    Raises RequestError for images that reach beyond the edge of the Earth (a whole geostationary disk), or lie in a CRS that is
    not of the Earth: areas, polygons and catalogues need the place of every pixel, and would fail when all work is done.
    """
    if not isinstance(grid.frame, str) or parse_crs(grid.frame).is_geographic:
        return grid
    if _has_lonlat(grid, 1.0):
        return grid
    share = next((share for share in np.arange(0.95, 0, -0.05) if _has_lonlat(grid, float(share))), None)
    problem = f"the images lie in {grid.frame[:60]}, and pixels of theirs have no longitude and latitude"
    if share is None:
        nowhere = "for images that lie nowhere EPSG:3857, with source.transform: [SIZE, 0, 0, 0, -SIZE, 0] (SIZE of a pixel in m)"
        raise RequestError(f"{problem}: this is no CRS of the Earth; state the right one in source.crs, {nowhere}")
    (height, width), margin = grid.shape_yx, (1 - float(share)) / 2
    rows, columns = (slice(math.ceil(margin * side), math.floor((1 - margin) * side)) for side in (height, width))
    bounds = ", ".join(f"{edge:.10g}" for edge in grid.window(rows, columns).bounds_xy)
    raise RequestError(
        f"{problem}, where products could not say where they are; take a part: grid: {{crs: ..., resolution: "
        f"{grid.spacing[-1]:.10g}, bounds: [{bounds}]}}"
    )


def _has_lonlat(grid: Grid, share: float) -> bool:
    """Whether all of the middle of a grid has longitudes and latitudes: `share` of its sides."""
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    try:
        to_lonlat = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)  # by its name: PROJ keeps what it read
    except ProjError:
        return False
    steps = 0.5 + share * np.linspace(-0.5, 0.5, 33)
    index = np.stack(np.meshgrid(*(steps * side for side in grid.shape_yx[::-1])), axis=-1)
    world = grid.to_world(index)
    lon, lat = to_lonlat.transform(world[..., 0], world[..., 1])
    return bool(np.isfinite(lon).all() and np.isfinite(lat).all())
