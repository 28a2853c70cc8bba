"""The forecast's files as a STAC 1.1 collection with relative links: one item per target date.

Core: https://github.com/radiantearth/stac-spec/tree/v1.1.0. Extensions: projection 2.0, raster 2.0, forecast 0.2.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.warp import transform_geom

from pipelines.calendar import to_days
from pipelines.files import write_json
from pipelines.grid import Grid, parse_crs
from pipelines.inference.staging import Field
from pipelines.products.cog import Lineage, band_name, date_for_name, iso

VERSION = "1.1.0"
EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/forecast/v0.2.0/schema.json",
)
COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"


def write_collection(
    folder: Path,
    name: str,
    description: str,
    grid: Grid,
    target_utc: list[np.datetime64],
    cogs: list[Path],
    fields: list[Field],
    units: dict[str, str],
    lineage: Lineage,
    *,
    pictures: dict[str, Path] | None = None,
    metrics: dict[str, Any] | None = None,
    model_item: Path | None = None,
) -> Path:
    """Writes `collection.json` and `forecast_DATE.json` beside the COGs into `folder`; returns the collection's path.

    `fields` are the staged ones; `pictures` (title -> PNG, anywhere) become assets of the collection, `metrics` (flat numbers)
    goes into its summaries; every item is derived from `model_item` (see `model_item.py`, in the same folder). The collection
    is written last, so it never names an item that is not there.
    """
    items = [
        _item(name, grid, date, cog, [field for field in fields if field.target == k], units, lineage)
        for k, (date, cog) in enumerate(zip(target_utc, cogs, strict=True))
    ]
    for item in items:
        if model_item is not None:
            item["links"].append({"rel": "derived_from", "href": f"./{model_item.name}", "type": "application/geo+json"})
        write_json(folder / f"{item['id']}.json", item, is_strict=True)
    path = folder / "collection.json"
    write_json(
        path, _collection(folder, name, description, items, target_utc, lineage, pictures or {}, metrics or {}), is_strict=True
    )
    return path


def _item(
    collection: str, grid: Grid, date: np.datetime64, cog: Path, fields: list[Field], units: dict[str, str], lineage: Lineage
) -> dict[str, Any]:
    geometry = footprint(grid)
    issued = np.datetime64(lineage.issued_utc.rstrip("Z"))
    properties = {
        "title": f"Forecast for {iso(date)}",
        "datetime": iso(date),
        "forecast:reference_datetime": lineage.issued_utc,
        "forecast:horizon": duration(float(to_days(np.array(date)) - to_days(np.array(issued)))),
        **projection(grid),
        **lineage_fields(lineage),
    }
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": f"forecast_{date_for_name(date)}",
        "geometry": geometry,
        "bbox": box(geometry),
        "properties": properties,
        "links": [
            {"rel": "root", "href": "./collection.json", "type": "application/json"},
            {"rel": "parent", "href": "./collection.json", "type": "application/json"},
            {"rel": "collection", "href": "./collection.json", "type": "application/json"},
        ],
        "collection": collection,
        "assets": {
            "forecast": {
                "href": f"./{cog.name}",
                "type": COG_TYPE,
                "title": "Forecast and interval",
                "roles": ["data"],
                "bands": [_band(field, grid, units) for field in fields],
            }
        },
    }


def _band(field: Field, grid: Grid, units: dict[str, str]) -> dict[str, Any]:
    text = {"forecast": "forecast", "lower": "lower bound of the interval", "upper": "upper bound of the interval"}
    band: dict[str, Any] = {
        "name": band_name(field),
        "description": f"{field.variable}, {text[field.role]}",
        "data_type": "float32",
        "nodata": "nan",
        "raster:sampling": "area",
    }
    crs, unit = parse_crs(grid.crs), units.get(field.variable, "")
    if crs.is_projected:  # the extension wants metres
        band["raster:spatial_resolution"] = abs(grid.resolution_xy[0]) * crs.linear_units_factor[1]
    return band | ({"unit": unit} if unit else {})


def lineage_fields(lineage: Lineage) -> dict[str, Any]:
    return {
        "driftline:version": lineage.version,
        "driftline:cube_snapshot": lineage.snapshot,
        "driftline:model_hash": lineage.model_hash,
        "driftline:config_hash": lineage.config_hash,
        "driftline:derived_from": list(lineage.scene_ids),
    }


def _collection(
    folder: Path, name: str, description: str, items: list[dict[str, Any]], target_utc: list[np.datetime64], lineage: Lineage,
    pictures: dict[str, Path], metrics: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    links = [{"rel": "root", "href": "./collection.json", "type": "application/json"}]
    links += [{"rel": "item", "href": f"./{item['id']}.json", "type": "application/geo+json"} for item in items]
    return {
        "type": "Collection",
        "stac_version": VERSION,
        "stac_extensions": [],
        "id": name,
        "title": f"driftline forecast: {name}",
        "description": description,
        "license": "other",
        "extent": {
            "spatial": {"bbox": [items[0]["bbox"]]},
            "temporal": {"interval": [[iso(min(target_utc)), iso(max(target_utc))]]},
        },
        "summaries": {"forecast:reference_datetime": [lineage.issued_utc]},
        **lineage_fields(lineage),
        **({"driftline:metrics": metrics} if metrics else {}),
        "links": links,
        "assets": {path.stem: picture_asset(folder, title, path) for title, path in pictures.items()},
    }


def picture_asset(folder: Path, title: str, path: Path) -> dict[str, Any]:
    kind = {".png": "image/png", ".gif": "image/gif", ".html": "text/html", ".json": "application/json"}[path.suffix]
    roles = ["overview"] if kind.startswith("image") else ["metadata"]
    return {"href": Path(os.path.relpath(path, folder)).as_posix(), "type": kind, "title": title, "roles": roles}


def projection(grid: Grid) -> dict[str, Any]:
    """Fields of the projection extension: the code where there is one, else WKT2."""
    crs = parse_crs(grid.crs)
    authority = crs.to_authority(confidence_threshold=100)
    folder: dict[str, Any] = (
        {"proj:code": ":".join(authority)} if authority else {"proj:code": None, "proj:wkt2": crs.to_wkt(version="WKT2_2019")}
    )
    return folder | {"proj:shape": list(grid.shape_yx), "proj:transform": list(grid.transform), "proj:bbox": list(grid.bounds_xy)}


def footprint(grid: Grid) -> dict[str, Any]:
    """GeoJSON polygon of the outer pixel edges in longitude and latitude, each edge in 8 parts, counter-clockwise."""
    height, width = grid.shape_yx
    steps = np.linspace(0, 1, 9)
    edge = [(0, t * height) for t in steps] + [(t * width, height) for t in steps[1:]]
    edge += [(width, (1 - t) * height) for t in steps[1:]] + [((1 - t) * width, 0) for t in steps[1:]]
    ring = [grid.affine * corner for corner in edge]
    polygon = transform_geom(parse_crs(grid.crs), "EPSG:4326", {"type": "Polygon", "coordinates": [ring]}, precision=7)
    rings = polygon["coordinates"]
    return {"type": "Polygon", "coordinates": [[[float(x), float(y)] for x, y in ring] for ring in rings]}


def box(geometry: dict[str, Any]) -> list[float]:
    """[west, south, east, north] of a polygon."""
    xs, ys = zip(*geometry["coordinates"][0], strict=True)
    return [min(xs), min(ys), max(xs), max(ys)]


def duration(days: float) -> str:
    """ISO 8601 duration: `P10D`, `P0DT5M`-like with hours, minutes and seconds where there are any."""
    seconds = round(days * 86_400)
    whole, rest = divmod(seconds, 86_400)
    parts = [(rest // 3600, "H"), (rest % 3600 // 60, "M"), (rest % 60, "S")]
    clock = "".join(f"{value}{unit}" for value, unit in parts if value)
    if not clock:
        return f"P{whole}D"
    return (f"P{whole}D" if whole else "P") + "T" + clock
