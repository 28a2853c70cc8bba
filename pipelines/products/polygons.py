"""Changed pixels as patches: outlines with area and dates, in the three formats that a GIS and a program open.

Pixels that touch by an edge or a corner belong together. They are found in strips and joined as a sparse graph, so that memory
grows with the changed pixels, not with the raster.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio

from pipelines.calendar import from_days
from pipelines.errors import ArtefactDamaged, MissingInput, RequestError
from pipelines.files import naming_full_disk, publish
from pipelines.grid import Grid
from pipelines.products.cog import row_bands
from pipelines.products.layer_cog import Rows

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

DIRECTIONS = {-1: "decrease", 0: "unknown", 1: "increase"}
COLUMNS = (
    "id", "pixels", "area_m2", "perimeter_m", "first_date", "last_date", "median_date", "detected", "magnitude", "direction",
    "confidence", "recovered_px", "lon", "lat",
)  # fmt: skip
DATES = ("first_date", "last_date", "median_date", "detected")
LAYERS = ("change_day", "detected_day", "magnitude", "direction", "confidence", "recovered_day")
LAYER = "changes"
MOST_LARGEST = 50  # rows in a summary
GPKG_EPOCH = "1970-01-01T00:00:00.000Z"  # stands for "last changed", which a GeoPackage must have
SEGMENT_PX = 8  # edges are cut this short before they are measured: a parallel is no shortest line


@dataclass(frozen=True)
class Pixels:
    """Changed pixels, sorted by row and column. `values[name]` are float64, NaN where the layer is not given or has no number."""

    row: np.ndarray
    column: np.ndarray
    values: dict[str, np.ndarray]


def outline_changes(
    changed: Rows,
    grid: Grid,
    layers: Mapping[str, Rows] | None = None,
    *,
    min_area_px: int = 1,
    split_days: float | None = None,
) -> GeoDataFrame:
    """One row per patch of at least `min_area_px` changed pixels, in the grid's CRS, largest area first.

    `changed` is (rows, columns), changed where it is 1 or True. Of `layers` (see `LAYERS`, days since 1970-01-01) any may be
    missing: its columns are then empty. With `split_days`, neighbours whose change days are further apart are not joined, so that
    the fellings of two winters are two patches.

    Columns: `id`, stable while the patch grows: date and place of the pixel with the earliest alarm, `20190612-r12-c7`; `pixels`;
    `area_m2` and `perimeter_m`, on the ellipsoid whatever the projection; `first_date`, `last_date`, `median_date` (of change)
    and `detected` (the first alarm), UTC; `magnitude` and `confidence`, means; `direction`: decrease, increase, mixed or unknown;
    `recovered_px`, those of the pixels that are as expected again; `lon`, `lat` of the centroid, WGS 84.
    """
    layers = layers or {}
    pixels = find_changed(changed, grid, layers)
    patch = join_neighbours(pixels, grid.shape_yx[1], split_days)
    sizes = np.bincount(patch) if patch.size else np.empty(0, np.int64)
    order = np.argsort(patch, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    members = [order[starts[k] : starts[k + 1]] for k in np.flatnonzero(sizes >= min_area_px)]
    with rasterio.Env():  # once, not for every patch
        outlines = [_outline(pixels, index, grid) for index in members]
    return _frame([_describe(pixels, index) for index in members], outlines, grid)


def kept_pixels(changed: Rows, grid: Grid, layers: Mapping[str, Rows], min_area_px: int, split_days: float | None) -> Pixels:
    """The changed pixels that lie in the patches of `outline_changes`, of the same arguments."""
    pixels = find_changed(changed, grid, layers)
    patch = join_neighbours(pixels, grid.shape_yx[1], split_days)
    keep = np.bincount(patch)[patch] >= min_area_px if patch.size else np.empty(0, bool)
    return Pixels(pixels.row[keep], pixels.column[keep], {name: values[keep] for name, values in pixels.values.items()})


def find_changed(changed: Rows, grid: Grid, layers: Mapping[str, Rows]) -> Pixels:
    """The changed pixels with their values, read in strips. Raises ArtefactDamaged where a shape is not the grid's."""
    for name, array in {"changed": changed, **layers}.items():
        if tuple(array.shape) != grid.shape_yx:
            raise ArtefactDamaged(f"layer {name} is {tuple(array.shape)}, the grid is {grid.shape_yx}; compute the layers again")
    rows, columns, values = [], [], []
    for strip in row_bands(grid.shape_yx[0]):
        row, column = np.nonzero(np.asarray(changed[strip]) == 1)
        rows.append(row + strip.start)
        columns.append(column)
        values.append(
            {name: np.asarray(layers[name][strip])[row, column].astype(np.float64) for name in LAYERS if name in layers}
        )
    row = np.concatenate(rows)
    missing = np.full(row.size, np.nan)
    found = {name: np.concatenate([v[name] for v in values]) if name in layers else missing for name in LAYERS}
    return Pixels(row, np.concatenate(columns), found)


def join_neighbours(pixels: Pixels, width: int, split_days: float | None) -> np.ndarray:
    """Patch number of every pixel, from 0: connected through edges and corners, and through time if `split_days` is given."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = pixels.row.size
    if not count:
        return np.empty(0, np.int64)
    stride = width + 2  # so that the right-most pixel of a row is not the neighbour of the next row's first
    folder = pixels.row.astype(np.int64) * stride + pixels.column
    day = pixels.values["change_day"]
    one, other = [], []
    for offset in (1, stride - 1, stride, stride + 1):  # right, and the three below
        at = np.searchsorted(folder, folder + offset)
        is_there = (at < count) & (folder[np.minimum(at, count - 1)] == folder + offset)
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
    days = values["change_day"]
    return {
        "id": _identity(pixels, index),
        "pixels": index.size,
        "first_date": _least(days),
        "last_date": -_least(-days),
        "median_date": _middle(days),
        "detected": _least(values["detected_day"]),
        "magnitude": _mean(values["magnitude"]),
        "direction": DIRECTIONS[signs.pop()] if len(signs) == 1 else "mixed",
        "confidence": _mean(values["confidence"]),
        "recovered_px": int(np.isfinite(values["recovered_day"]).sum()),
    }


def _identity(pixels: Pixels, index: np.ndarray) -> str:
    """Alarms are never taken back and later pixels have later ones, so the pixel with the earliest stays the same."""
    detected, changed = pixels.values["detected_day"][index], pixels.values["change_day"][index]
    days = np.where(np.isfinite(detected), detected, changed)
    days = np.where(np.isfinite(days), days, np.inf)
    first = index[np.lexsort((pixels.column[index], pixels.row[index], days))[0]]
    folder = f"r{pixels.row[first]}-c{pixels.column[first]}"
    day = days.min()
    return f"{str(from_days(day))[:10].replace('-', '')}-{folder}" if np.isfinite(day) else folder


def _least(values: np.ndarray) -> float:
    seen = values[np.isfinite(values)]
    return float(seen.min()) if seen.size else float("nan")


def _middle(values: np.ndarray) -> float:
    """The lower median: a date that was observed."""
    seen = np.sort(values[np.isfinite(values)])
    return float(seen[(seen.size - 1) // 2]) if seen.size else float("nan")


def _mean(values: np.ndarray) -> float:
    seen = values[np.isfinite(values)]
    return float(seen.mean()) if seen.size else float("nan")


def _outline(pixels: Pixels, index: np.ndarray, grid: Grid) -> Any:
    """Multipolygon in the grid's CRS. Corners that touch are points shared by two parts, so that it is valid."""
    import shapely
    from rasterio.features import shapes
    from shapely.geometry import shape

    row0, column0 = pixels.row[index].min(), pixels.column[index].min()
    mask = np.zeros((pixels.row[index].max() - row0 + 1, pixels.column[index].max() - column0 + 1), np.uint8)
    mask[pixels.row[index] - row0, pixels.column[index] - column0] = 1
    part = grid.window(slice(int(row0), int(row0) + mask.shape[0]), slice(int(column0), int(column0) + mask.shape[1]))
    polygons = [shape(ring) for ring, _ in shapes(mask, mask=mask == 1, connectivity=4, transform=part.affine)]
    parts = [piece for polygon in polygons for piece in _valid_parts(polygon)]
    return shapely.orient_polygons(shapely.MultiPolygon(parts))


def _valid_parts(polygon: Any) -> list[Any]:
    """The polygon, or what it falls into where holes touch its edge or each other in a point."""
    import shapely

    if polygon.is_valid:
        return [polygon]
    return [piece for piece in shapely.get_parts(shapely.make_valid(polygon)) if piece.geom_type == "Polygon"]


def _frame(rows: list[dict[str, Any]], outlines: list[Any], grid: Grid) -> GeoDataFrame:
    import geopandas
    import pandas as pd

    frame = geopandas.GeoDataFrame(pd.DataFrame(rows, columns=COLUMNS), geometry=outlines, crs=grid.crs)
    area, perimeter, lon, lat = measure(frame.geometry, grid)
    frame["area_m2"], frame["perimeter_m"], frame["lon"], frame["lat"] = area, perimeter, lon, lat
    for name in DATES:
        # to the second: GeoPackage keeps milliseconds, and a day as a float is good to some microseconds
        days = frame[name].to_numpy(np.float64)
        seconds = np.where(np.isfinite(days), np.round(np.where(np.isfinite(days), days, 0) * 86_400), np.iinfo(np.int64).min)
        frame[name] = (
            pd.to_datetime(seconds.astype(np.int64).astype("datetime64[s]")).tz_localize("UTC").astype("datetime64[ms, UTC]")
        )
    kinds = {
        "id": str,
        "direction": str,
        "pixels": np.int64,
        "recovered_px": np.int64,
        "magnitude": np.float64,
        "confidence": np.float64,
    }
    frame = frame.astype(kinds).sort_values(["area_m2", "id"], ascending=[False, True], ignore_index=True)
    return frame[[*COLUMNS, "geometry"]]


def measure(outlines: Any, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(area in m², perimeter in m, longitude and latitude of the centroid) of a GeoSeries, float64 each.

    On the ellipsoid of the CRS (Karney 2013, https://doi.org/10.1007/s00190-012-0578-z): for any projection and for degrees.
    Raises RequestError where the CRS is not of the Earth.
    """
    import shapely
    from pyproj import CRS

    crs = CRS.from_user_input(grid.crs)
    geod = crs.get_geod()
    if geod is None:
        raise RequestError(f"{grid.crs}: not a place on Earth, so a patch has no area in m² here; use a grid with a geodetic CRS")
    pixel = min(abs(v) for v in grid.resolution_xy)
    geographic = outlines.segmentize(SEGMENT_PX * pixel).to_crs(crs.geodetic_crs)
    measured = [geod.geometry_area_perimeter(shapely.orient_polygons(outline)) for outline in geographic]
    centres = outlines.centroid if crs.is_projected else shapely.centroid(outlines.to_numpy())
    lonlat = type(outlines)(centres, crs=grid.crs).to_crs("EPSG:4326")
    area, perimeter = np.array(measured, np.float64).reshape(-1, 2).T
    return np.abs(area), perimeter, lonlat.x.to_numpy(np.float64), lonlat.y.to_numpy(np.float64)


def write_polygons(frame: GeoDataFrame, folder: Path, stem: str) -> list[Path]:
    """Writes `STEM.gpkg`, `STEM.parquet` and `STEM.geojson`; returns their paths in this order. Empty frames give empty files.

    GeoPackage and GeoParquet keep the frame's CRS; GeoJSON is longitude and latitude of WGS 84 with rings by the right-hand rule
    (RFC 7946). The same frame gives the same bytes. Raises StorageFull.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}{suffix}" for suffix in (".gpkg", ".parquet", ".geojson")]
    writers = (_write_geopackage, _write_geoparquet, _write_geojson)
    size = 4096 + 3 * 4096 * len(frame)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".polygons-") as drafts, naming_full_disk(folder, size):
        for path, write in zip(paths, writers, strict=True):
            write(frame, Path(drafts) / path.name)
        for path in paths:
            publish(Path(drafts) / path.name, path)
    return paths


def read_polygons(path: Path) -> GeoDataFrame:
    """The patches of a GeoParquet file as `write_polygons` left it. Raises MissingInput, ArtefactDamaged."""
    import geopandas
    import pyarrow

    if not path.exists():
        raise MissingInput(f"{path}: no patches here; run `driftline monitor` or `driftline predict` first")
    try:
        return geopandas.read_parquet(path)
    except (ValueError, OSError, pyarrow.ArrowException) as e:
        raise ArtefactDamaged(f"{path}: not a GeoParquet file of patches ({e}); run the same command again") from e


def _write_geopackage(frame: GeoDataFrame, path: Path) -> None:
    import pyogrio

    with _fixed_clock():
        pyogrio.write_dataframe(
            frame, path, layer=LAYER, driver="GPKG", geometry_type="MultiPolygon", promote_to_multi=True,
            layer_options={"FID": "fid", "GEOMETRY_NAME": "geom", "SPATIAL_INDEX": "YES"},
        )  # fmt: skip


@contextmanager
def _fixed_clock() -> Iterator[None]:
    """OGR writes the current time into a GeoPackage unless told another (https://gdal.org/en/stable/drivers/vector/gpkg.html)."""
    import pyogrio

    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": GPKG_EPOCH})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})


def _write_geoparquet(frame: GeoDataFrame, path: Path) -> None:
    frame.to_parquet(path, index=False, compression="zstd", write_covering_bbox=True)


def _write_geojson(frame: GeoDataFrame, path: Path) -> None:
    """Written by hand: dates become ISO 8601 and missing numbers null, which drivers do each in their way."""
    import shapely

    lonlat = frame.to_crs("EPSG:4326")
    rounded = shapely.set_precision(lonlat.geometry.to_numpy(), 1e-8, mode="pointwise")
    outlines = shapely.orient_polygons(np.array([_cut_at_180(outline) for outline in rounded], object))
    columns = [name for name in frame.columns if name not in ("id", frame.geometry.name)]
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, (row, outline) in enumerate(zip(frame.to_dict("records"), outlines, strict=True)):
            feature = {
                "type": "Feature",
                "id": row["id"],
                "properties": {"id": row["id"], **{name: _plain(name, row[name]) for name in columns}},
                "geometry": json.loads(shapely.to_geojson(outline)),
            }
            file.write(("," if number else "") + "\n" + json.dumps(feature, allow_nan=False, ensure_ascii=False))
        file.write("\n]}\n")


def _cut_at_180(outline: Any) -> Any:
    """The outline in longitudes -180 to 180, in two parts where it crosses that line (RFC 7946, 3.1.9)."""
    import shapely

    left, _, right, _ = outline.bounds
    if right - left > 180:  # its corners were wrapped on either side
        outline = shapely.transform(
            outline, lambda xy: np.column_stack([np.where(xy[:, 0] < 0, xy[:, 0] + 360, xy[:, 0]), xy[:, 1]])
        )
    if outline.bounds[2] <= 180:
        return outline
    west, east = (outline.intersection(shapely.box(x, -90, x + 180, 90)) for x in (0, 180))
    east = shapely.transform(east, lambda xy: xy - np.array([360.0, 0.0]))
    pieces = shapely.get_parts([west, east])
    return shapely.MultiPolygon([part for piece in pieces for part in shapely.get_parts(piece) if part.geom_type == "Polygon"])


def _plain(name: str, value: Any) -> Any:
    if name in DATES:
        return None if value != value or value is None else value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def read_patches(folder: Path, stem: str = "changes") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(facts, the largest patches as rows) of what `write_polygons` left, without the outlines. Raises MissingInput."""
    from pyarrow import parquet

    path = folder / f"{stem}.parquet"
    if not path.exists():
        raise MissingInput(f"{path} is not there; run the command that made it again")
    columns = [name for name in parquet.read_schema(path).names if name != "geometry"]
    patches = parquet.read_table(path, columns=columns).to_pandas()
    facts: dict[str, Any] = {"area_m2": float(patches["area_m2"].sum())}
    if "recovered_px" in patches:  # patches of older versions do not count them
        facts = {"pixels_recovered": int(patches["recovered_px"].sum()), **facts}
    if len(patches):
        ends = patches["first_date"].min(), patches["last_date"].max()
        facts |= {
            name: f"{end:%Y-%m-%dT%H:%M:%SZ}" for name, end in zip(("first_date", "last_date"), ends, strict=True) if end == end
        }
    return facts, patches.head(MOST_LARGEST).to_dict("records")
