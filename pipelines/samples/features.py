"""Vector files from outside, opened by what they hold: GDAL would take a VRT named labels.geojson, which reads other files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import RequestError
from pipelines.grid import parse_crs

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

SQLITE = b"SQLite format 3\0"
MOST_BYTES = 1 << 28  # of GeoJSON, which is read whole


def read_features(path: Path, layer: str | None = None) -> GeoDataFrame:
    """The features of a GeoPackage or a GeoJSON FeatureCollection. Raises RequestError for all else and what is damaged."""
    from shapely.errors import ShapelyError

    with path.open("rb") as file:
        is_geopackage = file.read(16) == SQLITE
    try:
        return _read_geopackage(path, layer) if is_geopackage else _read_geojson(path)
    except RequestError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError, OSError, MemoryError, ShapelyError) as e:
        what = "GeoPackage" if is_geopackage else "GeoJSON"
        raise RequestError(f"{path.name} cannot be read as {what} ({type(e).__name__}: {str(e)[:200]}); write it again") from e


def _read_geopackage(path: Path, layer: str | None) -> GeoDataFrame:
    import geopandas

    return geopandas.read_file(path, layer=layer, engine="pyogrio")


def _read_geojson(path: Path) -> GeoDataFrame:
    """In WGS 84 (RFC 7946), or in the CRS that the member `crs` names (GeoJSON 2008, section 3)."""
    import geopandas

    if path.stat().st_size > MOST_BYTES:
        raise RequestError(
            f"{path.name} has {path.stat().st_size / 1e6:.0f} MB, the limit is {MOST_BYTES / 1e6:.0f}; use a GeoPackage"
        )
    found = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(found, dict) or not isinstance(found.get("features"), list):
        raise RequestError(f"{path.name} is no GeoJSON FeatureCollection, nor a GeoPackage, whatever its name says")
    if not found["features"]:
        raise RequestError(f"{path.name} holds no polygon")
    stated = found.get("crs")
    crs = "EPSG:4326" if stated is None else parse_crs(str(stated["properties"]["name"])).to_wkt()
    return geopandas.GeoDataFrame.from_features(found["features"], crs=crs)
