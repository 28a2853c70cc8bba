"""Outlines in longitude and latitude as GeoJSON wants them: -180 to 180, cut at that line (RFC 7946, 3.1.9 and 5.2)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import shapely
from rasterio.warp import transform_geom

from pipelines.grid import Grid, parse_crs
from pipelines.products.json_values import Json

DIGITS = 7  # of a degree: a centimetre


def footprint(grid: Grid) -> dict[str, Any]:
    """GeoJSON of the outer pixel edges in longitude and latitude, each edge in 8 parts, counter-clockwise.

    A Polygon; a MultiPolygon where the grid crosses the 180th meridian. Pixels beyond a pole, whose centres lie on it, end there.
    """
    crs, (height, width) = parse_crs(grid.crs), grid.shape_yx
    steps = np.linspace(0, 1, 9)
    edge = [(0, t * height) for t in steps] + [(t * width, height) for t in steps[1:]]
    edge += [(width, (1 - t) * height) for t in steps[1:]] + [((1 - t) * width, 0) for t in steps[1:]]
    ring = [grid.affine * corner for corner in edge]
    if crs.is_geographic:
        ring = [(x, min(max(y, -90.0), 90.0)) for x, y in ring]
    found = transform_geom(crs, "EPSG:4326", {"type": "Polygon", "coordinates": [ring]}, precision=DIGITS)
    polygons = found["coordinates"] if found["type"] == "MultiPolygon" else [found["coordinates"]]
    if any(abs(point[0]) > 180 for rings in polygons for point in rings[0]):
        cut = cut_at_180(shapely.MultiPolygon([shapely.Polygon(*rings[:1], rings[1:]) for rings in polygons]))
        polygons = shapely.geometry.mapping(shapely.set_precision(cut, 10**-DIGITS))["coordinates"]
        polygons = polygons if cut.geom_type == "MultiPolygon" else [polygons]
    lists = [[[[float(x), float(y)] for x, y in ring] for ring in rings] for rings in polygons]
    return {"type": "Polygon", "coordinates": lists[0]} if len(lists) == 1 else {"type": "MultiPolygon", "coordinates": lists}


def box(geometry: Json) -> list[float]:
    """[west, south, east, north] of a Polygon or MultiPolygon; west > east where it crosses the 180th meridian."""
    outlines = (
        [rings[0] for rings in geometry["coordinates"]] if geometry["type"] == "MultiPolygon" else geometry["coordinates"][:1]
    )
    xs = [[point[0] for point in ring] for ring in outlines]
    ys = [point[1] for ring in outlines for point in ring]
    west, east = min(map(min, xs)), max(map(max, xs))
    eastern, western = [ring for ring in xs if max(ring) == 180], [ring for ring in xs if min(ring) == -180]
    if len(xs) > 1 and eastern and western:
        from_x, to_x = min(map(min, eastern)), max(map(max, western))
        if from_x > to_x:
            west, east = from_x, to_x
    return [west, min(ys), east, max(ys)]


def joined_box(boxes: list[list[float]]) -> list[float]:
    """The box around boxes that may cross the 180th meridian."""
    crosses = any(west > east for west, _, east, _ in boxes)
    easts = [east + 360 if crosses and (west > east or east < 0) else east for west, _, east, _ in boxes]
    wests = [west + 360 if crosses and west <= east < 0 else west for west, _, east, _ in boxes]
    west, east = min(wests), max(easts)
    if east - west >= 360:
        west, east = -180.0, 180.0
    south, north = min(b[1] for b in boxes), max(b[3] for b in boxes)
    return [west, south, east - 360 if east > 180 else east, north]


def wrap_longitude(lon: np.ndarray) -> np.ndarray:
    """Longitudes from -180 to 180; those that lie there keep their bits."""
    return np.where(np.abs(lon) > 180, np.mod(lon + 180, 360) - 180, lon)


def cut_at_180(outline: shapely.MultiPolygon) -> shapely.MultiPolygon | shapely.Polygon:
    """The outline, of any longitudes, in longitudes from -180 to 180; in parts where it crosses that line."""
    left, _, right, _ = outline.bounds
    if left >= -180 and right <= 180:
        return outline
    parts: list[shapely.Polygon] = []
    for turn in range(math.floor((left + 180) / 360), math.floor((right + 180) / 360) + 1):
        piece = outline.intersection(shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90))
        moved = shapely.transform(piece, lambda xy, turn=turn: xy - np.array([360.0 * turn, 0.0]))
        parts += [part for part in shapely.get_parts(moved) if part.geom_type == "Polygon"]
    joined = shapely.union_all(parts)
    return joined if joined.geom_type in ("Polygon", "MultiPolygon") else shapely.MultiPolygon(parts)
