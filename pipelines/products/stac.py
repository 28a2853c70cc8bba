"""Products as a STAC 1.1 collection with relative links, and the model as an item beside them.

One item per target date of a forecast, per site of change. Core: https://github.com/radiantearth/stac-spec/tree/v1.1.0.
Extensions: projection 2.0, raster 2.0, forecast 0.2, classification 2.0, machine learning model 1.4, all of
https://github.com/stac-extensions. File types as registered by IANA or, for GeoPackage and GeoParquet, as their own
specifications name them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from mimetypes import guess_type
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.calendar import to_days
from pipelines.files import write_json
from pipelines.grid import Grid, parse_crs
from pipelines.inference.staging import Field
from pipelines.products.cog import Lineage, band_name, date_for_name, iso, sidecar
from pipelines.products.footprint import box, footprint, joined_box
from pipelines.products.json_values import Json
from pipelines.products.layers import Class, Layer

VERSION = "1.1.0"
PROJECTION, RASTER, FORECAST, CLASSIFICATION = (
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("projection/v2.0.0", "raster/v2.0.0", "forecast/v0.2.0", "classification/v2.0.0")
)
COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
VECTOR_TYPES = {
    ".gpkg": ("application/geopackage+sqlite3", "GeoPackage"),
    ".parquet": ("application/vnd.apache.parquet", "GeoParquet"),
    ".geojson": ("application/geo+json", "GeoJSON, longitude and latitude"),
}
LINEAGE = tuple(f"driftline:{name}" for name in ("version", "cube_snapshot", "model_hash", "config_hash", "derived_from"))
ROLES = {"forecast": "forecast", "lower": "lower bound of the interval", "upper": "upper bound of the interval"}


def _item(
    name: str, title: str, grid: Grid, at_utc: str, times: Json, extension: str, lineage: Lineage, assets: Json, facts: Json
) -> dict[str, Any]:
    """An item that links to the collection beside it. `times`: its dates beside `datetime`; `facts`: properties of its own."""
    geometry = footprint(grid)
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": [PROJECTION, RASTER, extension],
        "id": name,
        "geometry": geometry,
        "bbox": box(geometry),
        "properties": {
            "title": title, "datetime": at_utc, **times, **projection(grid), **_lineage_fields(lineage), **facts,
        },
        "links": [_link(rel, "collection.json", "application/json") for rel in ("root", "parent", "collection")],
        "collection": "",  # its name is known when it is written
        "assets": assets,
    }  # fmt: skip


def forecast_item(
    grid: Grid, date: np.datetime64, cog: Path, fields: Sequence[Field], units: Mapping[str, str], lineage: Lineage
) -> dict[str, Any]:
    """The STAC item of one target date: `fields` are the bands of `cog`, in order; `units` is variable -> unit."""
    issued = np.datetime64(lineage.issued_utc.rstrip("Z"))
    horizon = duration(float(to_days(np.array(date)) - to_days(np.array(issued))))
    bands = [
        band_of(grid, band_name(field), f"{field.variable}, {ROLES[field.role]}", units.get(field.variable, ""))
        for field in fields
    ]
    return _item(
        f"forecast_{date_for_name(date)}", f"Forecast for {iso(date)}", grid, iso(date),
        {"forecast:reference_datetime": lineage.issued_utc, "forecast:horizon": horizon}, FORECAST, lineage,
        {"forecast": asset(cog, COG_TYPE, "Forecast and interval", bands=bands)}, {},
    )  # fmt: skip


def change_item(
    name: str, title: str, grid: Grid, start_utc: str, layers: Sequence[Layer], rasters: Mapping[str, Path],
    vectors: Sequence[Path], unit: str, lineage: Lineage, facts: Json, patches: str = "Changed patches",
) -> dict[str, Any]:  # fmt: skip
    """The STAC item of one site or map. `rasters` is layer name -> COG, `vectors` and they lie in the collection's folder.

    Change was looked for from `start_utc` (ISO 8601) to `lineage.issued_utc`; `facts` (flat, finite) become properties
    `driftline:KEY`, for instance the changed area; `unit` is the variable's.
    """
    assets = {}
    for layer in (layer for layer in layers if layer.name in rasters):
        path, nodata = rasters[layer.name], "nan" if layer.nodata != layer.nodata else int(layer.nodata)
        bands = [
            band_of(grid, band.name, band.description, band.unit_of(unit), layer.dtype, nodata, layer.classes)
            for band in layer.bands
        ]
        assets[layer.name] = asset(path, COG_TYPE, layer.title, bands=bands)
        if (names := sidecar(path)).exists():
            text = f"{layer.title}: names of the codes, for GDAL and QGIS"
            assets[f"{layer.name}_names"] = asset(names, "application/xml", text, "metadata")
    for path in vectors:
        kind, title_of_kind = VECTOR_TYPES[path.suffix]
        assets[f"patches_{path.suffix[1:]}"] = asset(path, kind, f"{patches}, {title_of_kind}")
    times = {"start_datetime": start_utc, "end_datetime": lineage.issued_utc}
    own = {f"driftline:{key}": value for key, value in facts.items()}
    return _item(name, title, grid, lineage.issued_utc, times, CLASSIFICATION, lineage, assets, own)


def write_collection(
    folder: Path, name: str, task: str, description: str, items: Sequence[dict[str, Any]], *, pictures: Mapping[str, Path],
    metrics: Json, method: str = "", model_item: Path | None = None,
) -> Path:  # fmt: skip
    """Writes `ID.json` per item and then `collection.json` into `folder`; returns the collection's path.

    `pictures` (title -> file, anywhere) become assets of the collection, `metrics` (flat numbers) go beside them, with the name
    of the `method` that they are of, where there are several; every item is derived from `model_item` (in the same folder) if
    there is one. The collection is written last, so it never names an item that is not there.
    """
    model = [] if model_item is None else [_link("derived_from", model_item.name, "application/geo+json")]
    for item in items:
        document = item | {"collection": name, "links": [*item["links"], *model]}
        write_json(folder / f"{item['id']}.json", document, is_strict=True)
    about: list[dict[str, Any]] = [item["properties"] for item in items]
    issued = about[0].get("forecast:reference_datetime")
    boxes = [item["bbox"] for item in (items[:1] if issued else items)]  # the dates of a forecast share theirs
    whole = joined_box(boxes)
    start, end = min(one.get("start_datetime", one["datetime"]) for one in about), max(one["datetime"] for one in about)
    shared = {key: about[0][key] for key in LINEAGE if all(one[key] == about[0][key] for one in about)}
    content = {
        "type": "Collection",
        "stac_version": VERSION,
        "stac_extensions": [],
        "id": name,
        "title": f"driftline {task}: {name}",
        "description": description,
        "license": "other",
        "extent": {
            # the first box holds all the others (STAC 1.1, collection spec)
            "spatial": {"bbox": [whole, *boxes] if len(boxes) > 1 else boxes},
            "temporal": {"interval": [[start, end]]},
        },
        **({"summaries": {"forecast:reference_datetime": [issued]}} if issued else {}),
        **shared,
        **({"driftline:method": method} if method else {}),
        **({"driftline:metrics": dict(metrics)} if metrics else {}),
        "links": [
            _link("root", "collection.json", "application/json"),
            *[_link("item", f"{item['id']}.json", "application/geo+json") for item in items],
        ],
        "assets": {path.stem: _picture(folder, title, path) for title, path in pictures.items()},
    }
    path = folder / "collection.json"
    write_json(path, content, is_strict=True)
    return path


def _link(rel: str, name: str, kind: str) -> dict[str, str]:
    return {"rel": rel, "href": f"./{name}", "type": kind}


def asset(path: Path, kind: str, title: str, role: str = "data", **more: list[Json]) -> Json:
    """A file of an item, beside it."""
    return {"href": f"./{path.name}", "type": kind, "title": title, "roles": [role], **more}


def _picture(folder: Path, title: str, path: Path) -> Json:
    href = Path(os.path.relpath(path, folder)).as_posix()
    return {"href": href, "type": guess_type(path)[0], "title": title, "roles": ["overview"]}


def band_of(
    grid: Grid, name: str, description: str, unit: str, dtype: str = "float32", nodata: str | int = "nan",
    classes: Sequence[Class] = (),
) -> Json:  # fmt: skip
    """A band of an asset."""
    crs, band = parse_crs(grid.crs), {"name": name, "description": description, "data_type": dtype, "nodata": nodata}
    band |= {"raster:sampling": "area"}
    if crs.is_projected:  # the extension wants metres
        band |= {"raster:spatial_resolution": grid.spacing[-1] * crs.linear_units_factor[1]}
    codes = [
        {"value": c.code, "name": c.name, "description": c.description, "color_hint": c.colour[1:].upper()}
        | ({"nodata": True} if c.is_nodata else {})
        for c in classes
    ]
    return band | ({"classification:classes": codes} if codes else {}) | ({"unit": unit} if unit else {})


def _lineage_fields(lineage: Lineage) -> dict[str, Any]:
    parts = lineage.version, lineage.snapshot, lineage.model_hash, lineage.config_hash, list(lineage.scene_ids)
    method = {"driftline:method": lineage.method} if lineage.method != "network" else {}
    return dict(zip(LINEAGE, parts, strict=True)) | method


def projection(grid: Grid) -> dict[str, Any]:
    """Fields of the projection extension: the code where there is one, else WKT2."""
    crs = parse_crs(grid.crs)
    authority = crs.to_authority(confidence_threshold=100)
    code = {"proj:code": ":".join(authority)} if authority else {"proj:code": None, "proj:wkt2": crs.to_wkt(version="WKT2_2019")}
    return code | {"proj:shape": list(grid.shape_yx), "proj:transform": list(grid.transform), "proj:bbox": list(grid.bounds_xy)}


def duration(days: float) -> str:
    """ISO 8601 duration: `P10D`, `P0DT5M`-like with hours, minutes and seconds where there are any."""
    seconds = round(days * 86_400)
    whole, rest = divmod(seconds, 86_400)
    parts = [(rest // 3600, "H"), (rest % 3600 // 60, "M"), (rest % 60, "S")]
    clock = "".join(f"{value}{unit}" for value, unit in parts if value)
    if not clock:
        return f"P{whole}D"
    return (f"P{whole}D" if whole else "P") + "T" + clock


# ---------------------------------------------------------------- the model


@dataclass(frozen=True)
class ModelCard:
    """What a stranger must know to use the model: the extension's terms, and the lineage.

    `trained_from`, `trained_to`: first and last date that training saw (ISO 8601, UTC). `weights` is the safetensors file.
    """

    name: str
    model_hash: str
    architecture: str
    variables: tuple[str, ...]
    context: int
    horizon: int
    parameters: int
    trained_from: str
    trained_to: str
    cube_snapshot: str
    framework_version: str
    hyperparameters: dict[str, Any]
    weights: Path


def write_model_item(card: ModelCard, grid: Grid, folder: Path, *, at: Path | None = None) -> Path:
    """Writes `model.json` into `folder` and returns its path; the link to the weights is relative to `at`, where it will stand.

    Shapes use -1 for what is free: batch, rows and columns. Raises OSError if the folder cannot be written.
    """
    import pystac
    from pystac.extensions import mlm
    from pystac.extensions.raster import DataType

    axes = ["batch", "time", "variable", "height", "width"]
    past, future = ([-1, steps, len(card.variables), -1, -1] for steps in (card.context, card.horizon))
    text = "physical values, 0 where not valid; a mask, elapsed days and the climatology go beside them"
    structure = mlm.InputStructure.create(past, axes, DataType.FLOAT32)
    result = mlm.ResultStructure.create(future, axes, DataType.FLOAT32)
    geometry = footprint(grid)
    start, end = (datetime.fromisoformat(text.replace("Z", "+00:00")) for text in (card.trained_from, card.trained_to))
    item = pystac.Item(f"model_{card.model_hash[:12]}", geometry, box(geometry), None, {}, start_datetime=start, end_datetime=end)
    item.common_metadata.title = f"driftline forecaster {card.name}"
    mlm.MLMExtension.ext(item, add_if_missing=True).apply(
        name=card.name,
        architecture=card.architecture,
        tasks=[mlm.TaskType.REGRESSION],
        input=[mlm.ModelInput.create("past", bands=list(card.variables), input=structure, description=text)],
        output=[mlm.ModelOutput.create("forecast", tasks=[mlm.TaskType.REGRESSION], result=result)],
        framework="PyTorch",
        framework_version=card.framework_version,
        total_parameters=card.parameters,
        pretrained=True,
        hyperparameters=mlm.Hyperparameters(card.hyperparameters),
    )
    item.properties |= {"driftline:model_hash": card.model_hash, "driftline:cube_snapshot": card.cube_snapshot}
    href = Path(os.path.relpath(card.weights, at or folder)).as_posix()
    weights = pystac.Asset(href, "Weights", media_type="application/x-safetensors", roles=["mlm:model", "mlm:weights"])
    weights.extra_fields["mlm:artifact_type"] = "safetensors"
    item.add_asset("model", weights)
    path = folder / "model.json"
    write_json(path, item.to_dict(include_self_link=False, transform_hrefs=False), is_strict=True)
    return path
