"""Layers and polygons of change as a STAC 1.1 collection with relative links: one item per site and date of issue.

Extensions: projection 2.0, raster 2.0, classification 2.0 (https://github.com/stac-extensions/classification), file types as
registered by IANA or, for GeoPackage and GeoParquet, as their own specifications name them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.files import write_json
from pipelines.grid import Grid, parse_crs
from pipelines.products.cog import Lineage
from pipelines.products.layer_cog import sidecar
from pipelines.products.layers import Layer
from pipelines.products.stac import (
    COG_TYPE,
    EXTENSIONS,
    VERSION,
    box,
    footprint,
    lineage_fields,
    picture_asset,
    projection,
)

CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
VECTOR_TYPES = {
    ".gpkg": ("application/geopackage+sqlite3", "GeoPackage"),
    ".parquet": ("application/vnd.apache.parquet", "GeoParquet"),
    ".geojson": ("application/geo+json", "GeoJSON, longitude and latitude"),
}


@dataclass(frozen=True)
class ChangeItem:
    """The files of one site. `rasters` is layer name -> COG, `vectors` and they lie in the collection's folder.

    `start_utc` and `end_utc` (ISO 8601) bound the time in which change was looked for; `facts` (flat, finite) become properties
    `driftline:KEY`, for instance the changed area; `unit` is the variable's.
    """

    id: str
    title: str
    grid: Grid
    start_utc: str
    end_utc: str
    layers: Sequence[Layer]
    rasters: Mapping[str, Path]
    vectors: Sequence[Path]
    unit: str
    lineage: Lineage
    facts: Mapping[str, Any] = field(default_factory=dict)


def write_change_collection(
    folder: Path,
    name: str,
    description: str,
    items: Sequence[ChangeItem],
    *,
    pictures: Mapping[str, Path] | None = None,
    metrics: Mapping[str, Any] | None = None,
    model_item: Path | None = None,
) -> Path:
    """Writes `ID.json` per item and then `collection.json` into `folder`; returns the collection's path.

    `pictures` is title -> file anywhere; every item is derived from `model_item` (in the same folder) if there is one.
    """
    documents = [item_document(name, item) for item in items]
    for document in documents:
        if model_item is not None:
            document["links"].append({"rel": "derived_from", "href": f"./{model_item.name}", "type": "application/geo+json"})
        write_json(folder / f"{document['id']}.json", document, is_strict=True)
    path = folder / "collection.json"
    write_json(path, _collection(folder, name, description, items, documents, pictures or {}, metrics or {}), is_strict=True)
    return path


def item_document(collection: str, item: ChangeItem) -> dict[str, Any]:
    """One item as JSON, its files linked relative to it."""
    geometry = footprint(item.grid)
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": [*EXTENSIONS[:2], CLASSIFICATION],
        "id": item.id,
        "geometry": geometry,
        "bbox": box(geometry),
        "properties": {
            "title": item.title,
            "datetime": item.end_utc,
            "start_datetime": item.start_utc,
            "end_datetime": item.end_utc,
            **projection(item.grid),
            **lineage_fields(item.lineage),
            **{f"driftline:{key}": value for key, value in item.facts.items()},
        },
        "links": [
            {"rel": "root", "href": "./collection.json", "type": "application/json"},
            {"rel": "parent", "href": "./collection.json", "type": "application/json"},
            {"rel": "collection", "href": "./collection.json", "type": "application/json"},
        ],
        "collection": collection,
        "assets": _assets(item),
    }


def _assets(item: ChangeItem) -> dict[str, Any]:
    assets: dict[str, Any] = {}
    for layer in item.layers:
        if layer.name not in item.rasters:
            continue
        path = item.rasters[layer.name]
        assets[layer.name] = {
            "href": f"./{path.name}",
            "type": COG_TYPE,
            "title": layer.title,
            "roles": ["data"],
            "bands": _bands(layer, item),
        }
        if sidecar(path).exists():
            assets[f"{layer.name}_names"] = {
                "href": f"./{sidecar(path).name}",
                "type": "application/xml",
                "title": f"{layer.title}: names of the codes, for GDAL and QGIS",
                "roles": ["metadata"],
            }
    for path in item.vectors:
        kind, title = VECTOR_TYPES[path.suffix]
        text = {"href": f"./{path.name}", "type": kind, "title": f"Changed patches, {title}", "roles": ["data"]}
        assets[f"patches_{path.suffix[1:]}"] = text
    return assets


def _bands(layer: Layer, item: ChangeItem) -> list[dict[str, Any]]:
    crs = parse_crs(item.grid.crs)
    common: dict[str, Any] = {
        "data_type": layer.dtype,
        "nodata": "nan" if layer.nodata != layer.nodata else int(layer.nodata),
        "raster:sampling": "area",
    }
    if crs.is_projected:  # the extension wants metres
        common["raster:spatial_resolution"] = abs(item.grid.resolution_xy[0]) * crs.linear_units_factor[1]
    if layer.classes:
        common["classification:classes"] = [
            {"value": c.code, "name": c.name, "description": c.description, "color_hint": c.colour[1:].upper()}
            | ({"nodata": True} if c.is_nodata else {})
            for c in layer.classes
        ]
    bands = []
    for band in layer.bands:
        unit = item.unit if band.unit is None else band.unit
        bands.append({"name": band.name, "description": band.description, **common, **({"unit": unit} if unit else {})})
    return bands


def _collection(
    folder: Path, name: str, description: str, items: Sequence[ChangeItem], documents: list[dict[str, Any]],
    pictures: Mapping[str, Path], metrics: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    links = [{"rel": "root", "href": "./collection.json", "type": "application/json"}]
    links += [{"rel": "item", "href": f"./{document['id']}.json", "type": "application/geo+json"} for document in documents]
    boxes = [document["bbox"] for document in documents]
    origins = [lineage_fields(item.lineage) for item in items]  # what they share is the collection's
    whole = [*(min(b[k] for b in boxes) for k in (0, 1)), *(max(b[k] for b in boxes) for k in (2, 3))]
    return {
        "type": "Collection",
        "stac_version": VERSION,
        "stac_extensions": [],
        "id": name,
        "title": f"driftline change: {name}",
        "description": description,
        "license": "other",
        "extent": {
            # the first box holds all the others (STAC 1.1, collection spec)
            "spatial": {"bbox": [whole, *boxes] if len(boxes) > 1 else boxes},
            "temporal": {"interval": [[min(i.start_utc for i in items), max(i.end_utc for i in items)]]},
        },
        **{key: value for key, value in origins[0].items() if all(origin[key] == value for origin in origins)},
        **({"driftline:metrics": dict(metrics)} if metrics else {}),
        "links": links,
        "assets": {path.stem: picture_asset(folder, title, path) for title, path in pictures.items()},
    }
