"""Changed pixels as patches: outlines with area and dates, in the three formats that a GIS and a program open.

Pixels that touch by an edge or a corner belong together. They are found in strips and joined as a sparse graph, so that memory
grows with the changed pixels, not with the raster.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyogrio
import rasterio
import shapely
from geopandas import GeoDataFrame, GeoSeries
from pyarrow import parquet
from pyproj import CRS
from rasterio.features import rasterize, shapes
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from shapely.geometry import shape

from pipelines.calendar import from_days
from pipelines.errors import MissingInput, RequestError
from pipelines.files import naming_full_disk, publish
from pipelines.grid import Grid
from pipelines.products.cog import check_shapes, row_bands
from pipelines.products.footprint import cut_at_180, wrap_longitude
from pipelines.products.json_values import plain
from pipelines.products.layers import Rows

DIRECTIONS = {-1: "decrease", 0: "unknown", 1: "increase"}
COLUMNS = (
    "id", "pixels", "area_m2", "perimeter_m", "first_date", "last_date", "median_date", "detected", "magnitude", "direction",
    "confidence", "recovered_px", "lon", "lat",
)  # fmt: skip
KINDS = {
    "id": str, "direction": str, "pixels": np.int64, "recovered_px": np.int64, "magnitude": np.float64, "confidence": np.float64,
}  # fmt: skip
DATES = ("first_date", "last_date", "median_date", "detected")
LAYERS = ("change_day", "detected_day", "magnitude", "direction", "confidence", "recovered_day")
LAYER = "changes"
MOST_LARGEST = 50  # rows in a summary
GPKG_EPOCH = "1970-01-01T00:00:00.000Z"  # stands for "last changed", which a GeoPackage must have
LOWER_MEDIAN = partial(np.quantile, q=0.5, method="lower")  # a date that was observed
SEGMENT_PX = 8  # edges are cut this short before they are measured: a parallel is no shortest line


@dataclass(frozen=True)
class Pixels:
    """Changed pixels, sorted by row and column. `values[name]` are float64, NaN where the layer is not given or has no number."""

    row: np.ndarray
    column: np.ndarray
    values: dict[str, np.ndarray]


def outline_changes(
    changed: Rows, grid: Grid, layers: Mapping[str, Rows] | None = None, *, code: int = 1, min_area_px: int = 1,
    split_days: float | None = None,
) -> GeoDataFrame:  # fmt: skip
    """One row per patch of at least `min_area_px` changed pixels, in the grid's CRS, largest area first.

    `changed` is (rows, columns), changed where it is `code` (1 is True too). Of `layers` (see `LAYERS`, days since 1970-01-01)
    any may be missing: its columns are then empty. With `split_days`, neighbours whose change days are further apart are not
    joined, so that the fellings of two winters are two patches.

    Columns: `id`, stable while the patch grows: date and place of the pixel with the earliest alarm, `20190612-r12-c7`; `pixels`;
    `area_m2` and `perimeter_m`, on the ellipsoid whatever the projection; `first_date`, `last_date`, `median_date` (of change)
    and `detected` (the first alarm), UTC; `magnitude` and `confidence`, means; `direction`: decrease, increase, mixed or unknown;
    `recovered_px`, those of the pixels that are as expected again; `lon`, `lat` of the centroid, WGS 84.
    """
    pixels = find_changed(changed, grid, layers or {}, code)
    patch = join_neighbours(pixels, grid.shape_yx[1], split_days)
    sizes = np.bincount(patch)
    order = np.argsort(patch, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    members = [order[starts[k] : starts[k + 1]] for k in np.flatnonzero(sizes >= min_area_px)]
    with rasterio.Env():  # once, not for every patch
        outlines = [_outline(pixels, index, grid) for index in members]
    return _frame([_describe(pixels, index) for index in members], outlines, grid)


def kept_pixels(
    changed: Rows, grid: Grid, layers: Mapping[str, Rows], code: int, min_area_px: int, split_days: float | None
) -> Pixels:
    """The changed pixels that lie in the patches of `outline_changes`, of the same arguments."""
    pixels = find_changed(changed, grid, layers, code)
    patch = join_neighbours(pixels, grid.shape_yx[1], split_days)
    keep = np.bincount(patch)[patch] >= min_area_px
    return Pixels(pixels.row[keep], pixels.column[keep], {name: values[keep] for name, values in pixels.values.items()})


def find_changed(changed: Rows, grid: Grid, layers: Mapping[str, Rows], code: int) -> Pixels:
    """The changed pixels with their values, read in strips. Raises ArtefactDamaged where a shape is not the grid's."""
    check_shapes({"changed": changed, **layers}, grid)
    rows, columns = [], []
    values: dict[str, list[np.ndarray]] = {name: [] for name in LAYERS}
    for strip in row_bands(grid.shape_yx[0]):
        row, column = np.nonzero(np.asarray(changed[strip]) == code)
        rows.append(row + strip.start)
        columns.append(column)
        for name, parts in values.items():
            part = np.asarray(layers[name][strip])[row, column] if name in layers else np.full(row.size, np.nan)
            parts.append(part.astype(np.float64))
    return Pixels(np.concatenate(rows), np.concatenate(columns), {name: np.concatenate(parts) for name, parts in values.items()})


def join_neighbours(pixels: Pixels, width: int, split_days: float | None) -> np.ndarray:
    """Patch number of every pixel, from 0: connected through edges and corners, and through time if `split_days` is given."""
    count = pixels.row.size
    if not count:
        return np.empty(0, np.int64)
    stride = width + 2  # so that the right-most pixel of a row is not the neighbour of the next row's first
    place = pixels.row.astype(np.int64) * stride + pixels.column
    day = pixels.values["change_day"]
    one, other = [], []
    for offset in (1, stride - 1, stride, stride + 1):  # right, and the three below
        at = np.searchsorted(place, place + offset)
        is_there = (at < count) & (place[np.minimum(at, count - 1)] == place + offset)
        i, j = np.flatnonzero(is_there), at[is_there]
        if split_days is not None:
            is_near = ~(np.abs(day[i] - day[j]) > split_days)  # a pixel without a date is near to all
            i, j = i[is_near], j[is_near]
        one.append(i)
        other.append(j)
    i, j = np.concatenate(one), np.concatenate(other)
    patch: np.ndarray
    _, patch = connected_components(coo_matrix((np.ones(i.size, bool), (i, j)), (count, count)), directed=False)
    return patch


def _describe(pixels: Pixels, index: np.ndarray) -> dict[str, Any]:
    values = {name: pixels.values[name][index] for name in LAYERS}
    signs = set(np.sign(values["direction"][np.isfinite(values["direction"])]).astype(int)) or {0}
    return {
        "id": _identity(pixels, index),
        "pixels": index.size,
        "first_date": _known(values["change_day"], np.min),
        "last_date": _known(values["change_day"], np.max),
        "median_date": _known(values["change_day"], LOWER_MEDIAN),
        "detected": _known(values["detected_day"], np.min),
        "magnitude": _known(values["magnitude"], np.mean),
        "direction": DIRECTIONS[signs.pop()] if len(signs) == 1 else "mixed",
        "confidence": _known(values["confidence"], np.mean),
        "recovered_px": int(np.isfinite(values["recovered_day"]).sum()),
    }


def _identity(pixels: Pixels, index: np.ndarray) -> str:
    """Alarms are never taken back and later pixels have later ones, so the pixel with the earliest stays the same."""
    detected, changed = pixels.values["detected_day"][index], pixels.values["change_day"][index]
    days = np.where(np.isfinite(detected), detected, changed)
    days = np.where(np.isfinite(days), days, np.inf)
    first = index[np.lexsort((pixels.column[index], pixels.row[index], days))[0]]
    place = f"r{pixels.row[first]}-c{pixels.column[first]}"
    day = days.min()
    return f"{str(from_days(day))[:10].replace('-', '')}-{place}" if np.isfinite(day) else place


def _known(values: np.ndarray, reduce: Callable[[np.ndarray], np.floating]) -> float:
    """Of the finite values; NaN where there are none."""
    seen = values[np.isfinite(values)]
    return float(reduce(seen)) if seen.size else float("nan")


# ---------------------------------------------------------------- outlines


def _outline(pixels: Pixels, index: np.ndarray, grid: Grid) -> shapely.MultiPolygon:
    """In the grid's CRS. Corners that touch are points shared by two parts, so that it is valid."""
    row0, column0 = pixels.row[index].min(), pixels.column[index].min()
    mask = np.zeros((pixels.row[index].max() - row0 + 1, pixels.column[index].max() - column0 + 1), np.uint8)
    mask[pixels.row[index] - row0, pixels.column[index] - column0] = 1
    part = grid.window(slice(int(row0), int(row0) + mask.shape[0]), slice(int(column0), int(column0) + mask.shape[1]))
    return outlines_of(mask, part, 1)[0]


def outlines_of(label: np.ndarray, grid: Grid, count: int) -> list[shapely.MultiPolygon]:
    """Of each object 1 ... `count` in `label` (0: none) a valid multipolygon along pixel edges, in the grid's CRS."""
    parts: list[list[shapely.Polygon]] = [[] for _ in range(count)]
    for ring, value in shapes(label, mask=label > 0, connectivity=4, transform=grid.affine):
        polygon = shape(ring)
        # what it falls into where holes touch its edge or each other in a point
        pieces = [polygon] if polygon.is_valid else shapely.get_parts(shapely.make_valid(polygon))
        parts[int(value) - 1] += [piece for piece in pieces if piece.geom_type == "Polygon"]
    return [shapely.orient_polygons(shapely.MultiPolygon(pieces)) for pieces in parts]


def _frame(rows: Sequence[dict[str, Any]], outlines: Sequence[shapely.MultiPolygon], grid: Grid) -> GeoDataFrame:
    frame = GeoDataFrame(pd.DataFrame(rows, columns=COLUMNS), geometry=outlines, crs=grid.crs)
    frame["area_m2"], frame["perimeter_m"], frame["lon"], frame["lat"] = measure(frame.geometry, grid)
    for name in DATES:
        # to the second: GeoPackage keeps milliseconds, and a day as a float is good to some microseconds
        days = frame[name].to_numpy(np.float64)
        seconds = np.where(np.isfinite(days), np.round(np.where(np.isfinite(days), days, 0) * 86_400), np.iinfo(np.int64).min)
        dates = pd.to_datetime(seconds.astype(np.int64).astype("datetime64[s]"))
        frame[name] = dates.tz_localize("UTC").astype("datetime64[ms, UTC]")
    frame = frame.astype(KINDS).sort_values(["area_m2", "id"], ascending=[False, True], ignore_index=True)
    return frame[[*COLUMNS, "geometry"]]


def measure(outlines: GeoSeries, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(area in m², perimeter in m, longitude and latitude of the centroid), float64 each.

    On the ellipsoid of the CRS (Karney 2013, https://doi.org/10.1007/s00190-012-0578-z): for any projection and for degrees.
    Raises RequestError where the CRS is not of the Earth.
    """
    crs = CRS.from_user_input(grid.crs)
    geod = crs.get_geod()
    if geod is None:
        raise RequestError(f"{grid.crs}: not a place on Earth, so a patch has no area in m² here; use a grid with a geodetic CRS")
    pixel = min(grid.spacing)
    if crs.is_geographic:  # pixels whose centres lie on a pole end there
        outlines = GeoSeries(shapely.transform(outlines.to_numpy(), _clip_to_poles), crs=outlines.crs)
    geographic = outlines.segmentize(SEGMENT_PX * pixel).to_crs(crs.geodetic_crs)
    measured = [geod.geometry_area_perimeter(shapely.orient_polygons(outline)) for outline in geographic]
    centres = outlines.centroid if crs.is_projected else shapely.centroid(outlines.to_numpy())
    lonlat = GeoSeries(centres, crs=grid.crs).to_crs("EPSG:4326")
    area, perimeter = np.array(measured, np.float64).reshape(-1, 2).T
    lon = wrap_longitude(lonlat.x.to_numpy(np.float64))
    return np.abs(area), perimeter, lon, lonlat.y.to_numpy(np.float64)


def _clip_to_poles(xy: np.ndarray) -> np.ndarray:
    return np.column_stack([xy[:, 0], np.clip(xy[:, 1], -90, 90)])


def strongest_pixel(outline: shapely.MultiPolygon, grid: Grid, evidence: Rows) -> tuple[int, int]:
    """(row, column) of the pixel inside `outline` (in the grid's CRS) whose evidence (score, magnitude) is largest."""
    left, bottom, right, top = outline.bounds
    corners = np.array([~grid.affine @ corner for corner in ((left, top), (right, bottom), (left, bottom), (right, top))])
    (column0, row0), (column1, row1) = np.rint(corners.min(axis=0)).astype(int), np.rint(corners.max(axis=0)).astype(int)
    part = grid.window(slice(int(row0), int(row1)), slice(int(column0), int(column1)))
    inside = rasterize([outline], part.shape_yx, transform=part.affine) == 1
    values = np.abs(np.asarray(evidence[row0:row1])[:, column0:column1])
    row, column = np.unravel_index(np.argmax(np.where(inside & np.isfinite(values), values, -1)), values.shape)
    return int(row0 + row), int(column0 + column)


# ---------------------------------------------------------------- files


def write_polygons(frame: GeoDataFrame, folder: Path, stem: str, layer: str = LAYER) -> list[Path]:
    """Writes `STEM.gpkg`, `STEM.parquet` and `STEM.geojson`; returns their paths in this order. Empty frames give empty files.

    GeoPackage and GeoParquet keep the frame's CRS; GeoJSON is longitude and latitude of WGS 84 with rings by the right-hand rule
    (RFC 7946). The same frame gives the same bytes. Raises StorageFull.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = 4096 + 3 * 4096 * len(frame)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".polygons-") as name, naming_full_disk(folder, size):
        drafts = [Path(name) / f"{stem}{suffix}" for suffix in (".gpkg", ".parquet", ".geojson")]
        _write_geopackage(frame, drafts[0], layer)
        frame.to_parquet(drafts[1], index=False, compression="zstd", write_covering_bbox=True)
        write_geojson(frame, drafts[2])
        for draft in drafts:
            publish(draft, folder / draft.name)
    return [folder / draft.name for draft in drafts]


def _write_geopackage(frame: GeoDataFrame, path: Path, layer: str) -> None:
    """OGR writes the current time into a GeoPackage unless told another (https://gdal.org/en/stable/drivers/vector/gpkg.html)."""
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": GPKG_EPOCH})
    try:
        pyogrio.write_dataframe(
            frame, path, layer=layer, driver="GPKG", geometry_type="MultiPolygon", promote_to_multi=True,
            layer_options={"FID": "fid", "GEOMETRY_NAME": "geom", "SPATIAL_INDEX": "YES"},
        )  # fmt: skip
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})


def write_geojson(frame: GeoDataFrame, path: Path) -> None:
    """Written by hand: dates become ISO 8601 and missing numbers null, which drivers do each in their way."""
    rounded = shapely.set_precision(frame.geometry.to_crs("EPSG:4326").to_numpy(), 1e-8, mode="pointwise")
    is_wrapped = not (frame.crs is not None and frame.crs.is_geographic)
    outlines = shapely.orient_polygons(np.array([_cut(outline, is_wrapped=is_wrapped) for outline in rounded], object))
    rows = frame.drop(columns=frame.geometry.name).to_dict("records")
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, (row, outline) in enumerate(zip(rows, outlines, strict=True)):
            feature = {"type": "Feature"} | ({"id": row["id"]} if "id" in row else {})
            feature |= {"properties": plain(row), "geometry": json.loads(shapely.to_geojson(outline))}
            file.write(("," if number else "") + "\n" + json.dumps(feature, allow_nan=False, ensure_ascii=False))
        file.write("\n]}\n")


def _cut(outline: shapely.MultiPolygon, *, is_wrapped: bool) -> shapely.MultiPolygon:
    """The outline cut at the 180th meridian; `is_wrapped`: a projection gave its corners on either side of it."""
    left, _, right, _ = outline.bounds
    if is_wrapped and right - left > 180:
        outline = shapely.transform(
            outline, lambda xy: np.column_stack([np.where(xy[:, 0] < 0, xy[:, 0] + 360, xy[:, 0]), xy[:, 1]])
        )
    return shapely.MultiPolygon([*shapely.get_parts(cut_at_180(outline))])


def read_patches(folder: Path, stem: str = "changes") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(facts, the largest patches as rows) of what `write_polygons` left, without the outlines. Raises MissingInput."""
    path = folder / f"{stem}.parquet"
    if not path.exists():
        raise MissingInput(f"{path} is not there; run the command that made it again")
    columns = [name for name in parquet.read_schema(path).names if name != "geometry"]
    patches = parquet.read_table(path, columns=columns).to_pandas()
    facts: dict[str, Any] = {"area_m2": float(patches["area_m2"].sum())}
    if "recovered_px" in patches:  # patches of older versions do not count them
        facts = {"pixels_recovered": int(patches["recovered_px"].sum()), **facts}
    ends = {"first_date": patches["first_date"].min(), "last_date": patches["last_date"].max()}
    facts |= {name: f"{end:%Y-%m-%dT%H:%M:%SZ}" for name, end in ends.items() if end == end}
    return facts, patches.head(MOST_LARGEST).to_dict("records")
