"""Outlines of tracked objects, one per object and date, as GeoParquet and GeoJSON."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.files import publish
from pipelines.grid import Grid
from pipelines.products.cog import iso
from pipelines.tracking.tracks import TrackedDate

if TYPE_CHECKING:
    import pandas as pd
    from geopandas import GeoDataFrame


def outlines_of(tracked: TrackedDate, grid: Grid) -> list[Any]:
    """A shapely MultiPolygon per object, in the grid's CRS, along pixel edges."""
    import shapely
    from rasterio.features import shapes
    from shapely.geometry import shape

    parts: list[list[Any]] = [[] for _ in range(len(tracked.shapes))]
    for outline, value in shapes(tracked.label, mask=tracked.label > 0, connectivity=4, transform=grid.affine):
        polygon = shape(outline)
        pieces = [polygon] if polygon.is_valid else shapely.get_parts(shapely.make_valid(polygon))
        parts[int(value) - 1] += [piece for piece in pieces if piece.geom_type == "Polygon"]
    return [shapely.orient_polygons(shapely.MultiPolygon(pieces)) for pieces in parts]


def frame_of(rows: Sequence[dict[str, Any]], outlines: Sequence[Any], grid: Grid) -> GeoDataFrame:
    """Rows as `object_rows` gives them, with their outlines."""
    import geopandas
    import pandas as pd

    table: pd.DataFrame = pd.DataFrame(list(rows))
    table["date"] = pd.to_datetime(table["date"].to_numpy(dtype="datetime64[ns]")).tz_localize("UTC")
    return geopandas.GeoDataFrame(table, geometry=list(outlines), crs=grid.crs)


def write_outlines(frame: GeoDataFrame, folder: Path, stem: str = "outlines") -> list[Path]:
    """Writes `STEM.parquet` in the grid's CRS and `STEM.geojson` in longitude and latitude (RFC 7946); returns their paths."""
    paths = [folder / f"{stem}.parquet", folder / f"{stem}.geojson"]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".outlines-") as drafts:
        frame.to_parquet(Path(drafts) / paths[0].name, index=False, compression="zstd")
        _write_geojson(frame, Path(drafts) / paths[1].name)
        for path in paths:
            publish(Path(drafts) / path.name, path)
    return paths


def _write_geojson(frame: GeoDataFrame, path: Path) -> None:
    import shapely

    outlines = shapely.orient_polygons(frame.geometry.to_crs("EPSG:4326").to_numpy())
    outlines = shapely.set_precision(outlines, 1e-8, mode="pointwise")
    rows = frame.drop(columns=frame.geometry.name).to_dict("records")
    features = [
        {
            "type": "Feature",
            "properties": {name: _plain(value) for name, value in row.items()},
            "geometry": json.loads(shapely.to_geojson(outline)),
        }
        for row, outline in zip(rows, outlines, strict=True)
    ]
    with path.open("w", encoding="utf-8") as file:
        json.dump({"type": "FeatureCollection", "features": features}, file, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if hasattr(value, "to_datetime64"):
        return iso(value.to_datetime64())
    return value.item() if isinstance(value, np.generic) else value
