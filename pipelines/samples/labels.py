"""Labels of places and times on the cube's grid: from points (CSV), polygons or a raster; what is dropped is counted.

Every kind becomes a list of labelled pixels: row, column, time span, class. A pixel may carry labels of several spans. Voxels
have a slice, too (`pipelines.samples.label_volumes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.calendar import elapsed_text, is_elapsed
from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.grid import Grid, parse_crs
from pipelines.samples.features import read_features
from pipelines.samples.label_tables import read_table
from pipelines.sources.isolation import isolate
from pipelines.wording import harmless

if TYPE_CHECKING:
    import geopandas
    from affine import Affine
    from rasterio.crs import CRS

Instant = np.datetime64
Place = tuple[Any, ...]  # index arrays, one per axis of space; Any, since NumPy's types know no index of slices and arrays
NO_CODE = 255  # of a label raster
OTHER_GRID = "lies on another grid: each pixel has the label nearest to its centre"
VECTORS = (".gpkg", ".geojson", ".json")  # other formats may refer to other files
WHY = {
    "no class": "without a class",
    "outside": "outside the grid",
    "other class": "of a class that is not listed",
    "other span": "of another time span than asked for",
    "no dates": "whose time span has no date in the cube",
    "missing data": "on pixels with too few usable dates",
    "between strips": "between the strips that sites were cut into",
    "thinned": "left out by source.every_px",
    "duplicate": "that repeat another one (same pixel, span and class)",
    "contradictory": "on pixels with two classes at one time",
}


@dataclass(frozen=True, order=True)
class Span:
    """A half-open span of time, UTC."""

    start: Instant
    stop: Instant

    @property
    def text(self) -> str:
        if is_elapsed(self.start):
            return f"{elapsed_text(self.start)} to {elapsed_text(self.stop)}"
        return f"{self.start.astype('datetime64[D]')} to {self.stop.astype('datetime64[D]')}"

    def holds(self, times_T: np.ndarray) -> np.ndarray:
        """bool_T: which dates lie in the span."""
        inside_T: np.ndarray = (times_T >= self.start) & (times_T < self.stop)
        return inside_T

    def overlaps(self, other: Span) -> bool:
        return bool(self.start < other.stop and other.start < self.stop)


@dataclass(frozen=True)
class Fields:
    """How the columns of a table are called; a span column that is "" or missing is not read."""

    x: str = "longitude"
    y: str = "latitude"
    start: str = "from"
    stop: str = "to"
    label: str = "label"


@dataclass(frozen=True)
class Given:
    """Labels as they were read: pixel (may lie outside the grid), span and name of each; notes in words. Of voxels the slice."""

    row_P: np.ndarray
    column_P: np.ndarray
    spans: Sequence[Span]
    names: Sequence[str]
    notes: tuple[str, ...] = ()
    slice_P: np.ndarray | None = None


@dataclass(frozen=True)
class Labels:
    """Labelled pixels, or voxels with a slice. `span_P` and `class_P` are indices into `spans` and `classes`; `dropped`: reason
    (of WHY) -> labels."""

    classes: tuple[str, ...]
    spans: tuple[Span, ...]
    row_P: np.ndarray
    column_P: np.ndarray
    span_P: np.ndarray
    class_P: np.ndarray
    given: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    slice_P: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.class_P)

    def place(self, p: np.ndarray | slice = slice(None)) -> Place:
        """Index arrays of the labels `p`, one per axis of space: ([slice,] row, column)."""
        axes = (self.row_P, self.column_P) if self.slice_P is None else (self.slice_P, self.row_P, self.column_P)
        return tuple(axis_P[p] for axis_P in axes)

    def keep(self, kept_P: np.ndarray, reason: str) -> Labels:
        """Those where `kept_P` (bool) is True; the others are counted under `reason`."""
        lost = int(np.count_nonzero(~kept_P))
        dropped = {**self.dropped, **({reason: self.dropped.get(reason, 0) + lost} if lost else {})}
        names = ("row_P", "column_P", "span_P", "class_P", *(() if self.slice_P is None else ("slice_P",)))
        arrays = {name: getattr(self, name)[kept_P] for name in names}
        return replace(self, **arrays, dropped=dropped)

    def counts(self) -> dict[str, int]:
        """Labels of each class."""
        numbers = np.bincount(self.class_P, minlength=len(self.classes))
        return {name: int(number) for name, number in zip(self.classes, numbers, strict=True)}

    @property
    def latest(self) -> Span:
        """The latest span that has labels."""
        return max(self.spans[int(s)] for s in np.unique(self.span_P))

    def pixels_in(self, span: Span) -> np.ndarray:
        """(P, 3) row, column and class of the labels of a span; of voxels (P, 4), the slice first."""
        is_in_P = np.array([one == span for one in self.spans])[self.span_P]
        pixels_P3: np.ndarray = np.stack([*self.place(), self.class_P], axis=1)[is_in_P]
        return pixels_P3

    @property
    def sentence(self) -> str:
        """`222 of 603 labels used; dropped: 358 of another time span than asked for, 23 of a class that is not listed`."""
        lost = ", ".join(f"{number} {WHY[reason]}" for reason, number in self.dropped.items())
        return f"{len(self)} of {self.given} labels used" + (f"; dropped: {lost}" if lost else "")


# ---------------------------------------------------------------- readers


def read_points(path: Path, fields: Fields, crs: str, grid: Grid, span: Span | None) -> Given:
    """A CSV with one point a line, in `crs`; `span` for lines without their own. Raises MissingInput, RequestError (line)."""
    if not path.is_file():
        raise MissingInput(f"no labels at {path}; correct labels.path")
    rows = read_table(path)
    needed = [fields.x, fields.y, fields.label, *(() if span else (fields.start, fields.stop))]
    if missing := [name for name in needed if name not in rows[0]]:
        raise RequestError(
            f"{path.name} has no column {missing[0]!r}, only {', '.join(rows[0])}; name it in labels.columns"
            + ("" if missing[0] in (fields.x, fields.y, fields.label) else ", or set labels.start and labels.stop")
        )
    xy_P2 = np.array([_position_of(row, fields, f"{path.name}:{n}") for n, row in enumerate(rows, start=2)])
    spans = [_span_of(row, fields, span, f"{path.name}:{n}") for n, row in enumerate(rows, start=2)]
    row_P, column_P = _pixels(xy_P2, crs, grid)
    return Given(row_P, column_P, spans, [_name_of(row[fields.label]) for row in rows])


def _position_of(row: Mapping[str, str], fields: Fields, where: str) -> tuple[float, float]:
    """(x, y). Raises RequestError for what is no finite number."""
    try:
        found = float(row[fields.x]), float(row[fields.y])
    except ValueError as e:
        raise RequestError(f"{where}: {e}; expected numbers such as 45.14 in {fields.x} and {fields.y}") from e
    if not np.isfinite(found).all():
        raise RequestError(f"{where}: {fields.x} {found[0]}, {fields.y} {found[1]} is no position")
    return found


def _name_of(value: object) -> str:
    """The class, "" for none; as one printable line, since it names bands, files and rows of tables."""
    return "" if value is None or value != value else harmless(str(value))


@isolate
def _read_vectors(path: Path, layer: str | None) -> geopandas.GeoDataFrame:
    return read_features(path, layer)


def read_polygons(path: Path, fields: Fields, grid: Grid, span: Span | None, layer: str | None = None) -> Given:
    """GeoPackage, GeoJSON or any vector file: every pixel whose centre lies in a polygon. Raises MissingInput, RequestError."""
    from rasterio.features import rasterize

    if not path.is_file():
        raise MissingInput(f"no labels at {path}; correct labels.path")
    if path.suffix.lower() not in VECTORS:
        raise RequestError(f"{path.name}: polygons are read from {', '.join(VECTORS)}; convert it with ogr2ogr")
    try:
        frame = _read_vectors(path, layer)
    except SceneRefused as e:
        raise RequestError(f"the labels {path} cannot be used: {e.detail}") from e
    if frame.crs is None:
        raise RequestError(f"{path.name} has no CRS, so its polygons have no place; write it with one")
    if fields.label not in frame:
        raise RequestError(
            f"{path.name} has no field {fields.label!r}, only {', '.join(frame.columns)}; set labels.columns.label"
        )
    placed = frame.to_crs(grid.crs).geometry
    is_placed = placed.isna() | placed.is_empty | np.isfinite(placed.bounds).all(axis=1)
    if not is_placed.all():
        first = int((~is_placed).to_numpy().argmax()) + 1
        raise RequestError(
            f"{path.name}, feature {first}: it has no place in {grid.crs[:40]}; correct its coordinates or its CRS"
        )
    crossing, empty = ~placed.is_valid & placed.notna(), placed.isna() | placed.is_empty
    inside = list(zip(placed.where(~crossing, placed.make_valid()), frame.to_dict("records"), strict=True))
    parts: list[tuple[np.ndarray, np.ndarray, Span, str]] = []
    for number, (geometry, row) in enumerate(inside, start=1):
        own = _span_of(row, fields, span, f"{path.name}, feature {number}")
        if geometry is None or geometry.is_empty:
            continue
        mask = rasterize([geometry], grid.shape_yx, transform=grid.affine, dtype="uint8")
        rows, columns = np.nonzero(mask)
        if not rows.size:  # smaller than a pixel or outside: the pixel of its centre, perhaps outside the grid
            centre = geometry.representative_point()
            rows, columns = _pixels(np.array([[centre.x, centre.y]]), grid.crs, grid)
        parts.append((rows, columns, own, _name_of(row[fields.label])))
    if not parts:
        raise RequestError(f"{path.name} holds no polygon")
    spans = [own for rows, _, own, _ in parts for _ in rows]
    names = [name for rows, _, _, name in parts for _ in rows]
    notes = [f"{len(parts)} polygons cover {len(spans)} pixels (those whose centre lies in them)"]
    if crossing.any():
        notes.append(f"{int(crossing.sum())} polygons cross themselves and were taken apart (shapely.make_valid)")
    if empty.any():
        notes.append(f"{int(empty.sum())} features without a geometry were left out")
    return Given(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), spans, names, tuple(notes))


@isolate
def read_band(path: Path, band: int) -> tuple[np.ndarray, np.ndarray, CRS | None, Affine, float | None]:
    """(values, which are masked, CRS, transform, nodata) of a raster's band."""
    from pipelines.sources.opening import open_raster

    with open_raster(path, (band,)) as raster:
        return raster.read(band), raster.read_masks(band) == 0, raster.crs, raster.transform, raster.nodatavals[band - 1]


def read_placed(path: Path, band: int, grid: Grid, *, on_grid: bool) -> tuple[np.ndarray, np.ndarray, Grid, float | None]:
    """(values, which are masked, their grid, nodata) of a label raster, for `read_raster`. Raises RequestError."""
    from pipelines.sources.layers import canonical_crs

    try:
        stored, unlabelled, crs, affine, nodata = read_band(path, band)
    except SceneRefused as e:
        raise RequestError(f"the labels {path} cannot be used: {e.detail}") from e
    has_place = crs is not None and affine.determinant != 0 and not affine.is_identity
    if not (on_grid or has_place):
        raise RequestError(f"the labels {path} have no georeferencing; set labels.on_cube_grid if their pixels are the cube's")
    if on_grid and stored.shape != grid.shape_yx:
        raise RequestError(f"the labels {path} are {stored.shape} pixels (y, x), the cube {grid.shape_yx}; correct labels.path")
    own = grid if on_grid or crs is None else Grid.from_affine(canonical_crs(crs.to_wkt()), affine, stored.shape)
    return stored, unlabelled, own, nodata


def read_raster(path: Path, codes: Mapping[int, str], grid: Grid, span: Span, band: int = 1, *, on_grid: bool = False) -> Given:
    """A label raster, nearest pixel where its grid is another one (said in the notes); codes that are not listed are unlabelled.

    `on_grid`: it has no georeferencing and lies on the cube's grid. Raises MissingInput, RequestError.
    """
    from pipelines.sources.facts import FileFacts
    from pipelines.sources.resampling import ArrayLayer, resample

    stored, unlabelled, own, nodata = read_placed(path, band, grid, on_grid=on_grid)
    listed = list(codes)
    number_YX = np.full(stored.shape, NO_CODE, np.uint8)
    for number, code in enumerate(listed):
        number_YX[stored == code] = number
    if nodata is not None and nodata in codes:
        named = f"{codes[int(nodata)]!r}"
        raise RequestError(f"{path} says that {nodata:g} means no data, labels.codes that it is {named}; correct one of them")
    number_YX[unlabelled] = NO_CODE
    notes = () if own.is_aligned(grid) else (f"{path.name} {OTHER_GRID}",)
    if notes:
        facts = FileFacts(number_YX.dtype, own, nodata=(NO_CODE,))
        number_YX = np.ma.getdata(resample(ArrayLayer(number_YX, facts), facts, grid, slice(0, grid.shape_yx[0]), "nearest"))
    rows, columns = np.nonzero(number_YX != NO_CODE)
    if not rows.size:
        found = ", ".join(f"{code:g}" for code in np.unique(stored)[:8])
        asked = ", ".join(map(str, codes))
        raise RequestError(f"the labels {path} have none of the codes {asked} on the images, only {found}; correct labels.codes")
    return Given(rows, columns, [span] * rows.size, [codes[listed[n]] for n in number_YX[rows, columns]], notes)


def _span_of(row: Mapping[str, object], fields: Fields, span: Span | None, where: str) -> Span:
    """The span of a line. Raises RequestError."""
    if fields.start not in row or fields.stop not in row:
        if span is None:
            raise RequestError(f"{where}: no fields {fields.start} and {fields.stop}; set labels.start and labels.stop")
        return span
    start, stop = (_name_of(row[name]) for name in (fields.start, fields.stop))
    if not (start or stop):
        if span is None:
            raise RequestError(
                f"{where}: {fields.start} and {fields.stop} are empty; fill them in, or set labels.start and labels.stop"
            )
        return span
    try:
        found = Span(*(Instant(text[:19].replace(" ", "T"), "s") for text in (start, stop)))
    except ValueError as e:
        raise RequestError(f"{where}: {start!r} to {stop!r} are no dates; write them as 2011-09-01") from e
    if not found.start < found.stop:
        raise RequestError(f"{where}: the span {start} to {stop} ends before it begins")
    return found


def _pixels(xy_P2: np.ndarray, crs: str, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """(row_P, column_P) of points in `crs`; they may lie outside the grid."""
    from pyproj import Transformer

    to_grid = Transformer.from_crs(crs, parse_crs(grid.crs).to_wkt(), always_xy=True)
    world_P2 = np.stack(to_grid.transform(xy_P2[:, 0], xy_P2[:, 1]), axis=1)
    index_P2 = np.floor(np.where(np.isfinite(world_P2), grid.to_index(np.nan_to_num(world_P2, posinf=0)), -1)).astype(np.int64)
    return index_P2[:, 1], index_P2[:, 0]


def _bounds(grid: Grid) -> str:
    """Where to look for mistakes of `crs` and `columns`."""
    edges = ", ".join(f"{edge:.7g}" for edge in grid.bounds_xy)
    return f"{edges} (x, y of the lower left and the upper right corner, {grid.crs[:30]}): check labels.crs and labels.columns"


# ---------------------------------------------------------------- to one list


def resolve_labels(given: Given, grid: Grid, classes: Sequence[str] = (), within: Span | None = None) -> Labels:
    """One label per pixel and span. `classes`: those that count, in this order (default: all, sorted); `within`: when.

    Raises RequestError where fewer than two classes are left.
    """
    known = tuple(classes) or tuple(sorted(set(given.names) - {""}))
    spans = tuple(sorted(set(given.spans)))
    of_class, of_span = ({one: i for i, one in enumerate(values)} for values in (known, spans))
    class_P = np.array([of_class.get(name, -1) for name in given.names], np.int64)
    span_P = np.array([of_span[span] for span in given.spans], np.int64)
    pixels = given.row_P, given.column_P
    labels = Labels(known, spans, *pixels, span_P, class_P, len(class_P), notes=given.notes, slice_P=given.slice_P)
    sides = zip(labels.place(), grid.shape, strict=True)
    inside_P = np.all([(axis_P >= 0) & (axis_P < size) for axis_P, size in sides], axis=0)
    labels = labels.keep(inside_P, "outside")
    labels = labels.keep(np.array([bool(name) for name in given.names])[inside_P], "no class")
    labels = labels.keep(labels.class_P >= 0, "other class")
    if within is not None:
        fits_S = np.array([within.start <= span.start and span.stop <= within.stop for span in spans])
        labels = labels.keep(fits_S[labels.span_P], "other span")
    labels = _unique(labels, grid.shape)
    found = [name for name, number in labels.counts().items() if number]
    if len(found) < 2:
        place = f"; the images lie at {_bounds(grid)}" if labels.dropped.get("outside") else ""
        raise RequestError(
            f"{labels.sentence}; two classes (or numbers) are needed, there are labels of {', '.join(found) or 'none'}{place}"
        )
    return labels


def _unique(labels: Labels, shape: tuple[int, ...]) -> Labels:
    """Without repeated labels, and without any of a pixel that has two classes in spans that overlap."""
    pixel_P = np.asarray(np.ravel_multi_index(labels.place(), shape))
    _, first = np.unique(np.stack([pixel_P, labels.span_P, labels.class_P]), axis=1, return_index=True)
    is_first_P = np.zeros(len(labels), bool)
    is_first_P[first] = True
    labels, pixel_P = labels.keep(is_first_P, "duplicate"), pixel_P[is_first_P]
    agrees_P = np.ones(len(labels), bool)
    _, number_P, count = np.unique(pixel_P, return_inverse=True, return_counts=True)
    by_pixel: dict[int, list[int]] = {}
    for index in np.flatnonzero(count[number_P] > 1).tolist():
        by_pixel.setdefault(int(pixel_P[index]), []).append(index)
    for members in by_pixel.values():
        for n, p in enumerate(members):
            for q in members[n + 1 :]:
                spans = labels.spans[labels.span_P[p]], labels.spans[labels.span_P[q]]
                if labels.class_P[p] != labels.class_P[q] and spans[0].overlaps(spans[1]):
                    agrees_P[p] = agrees_P[q] = False
    return labels.keep(agrees_P, "contradictory")
