"""What is published of a class map: class and confidence as COG, polygons of each class, picture, STAC; areas with intervals.

Of volumes `pipelines.products.class_volumes`.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from geopandas import GeoDataFrame

from pipelines.cube.store import grid_of
from pipelines.errors import RequestError
from pipelines.grid import Grid
from pipelines.inference.class_map import NOT_OBSERVED, ClassMap
from pipelines.learning.area_estimates import estimate_areas
from pipelines.products.charts import PALETTE
from pipelines.products.class_charts import draw_class_map
from pipelines.products.cog import Lineage, iso, write_layers
from pipelines.products.layers import GREY, Class, Layer, LayerBand, as_code, as_number
from pipelines.products.polygons import MOST_LARGEST, outline_changes, write_polygons
from pipelines.products.stac import change_item, write_collection
from pipelines.tracking.objects import Space
from pipelines.wording import harmless

COUNTED_PX = 1 << 22  # at a time
KEPT = ("id", "class", "code", "pixels", "area_m2", "perimeter_m", "confidence", "lon", "lat", "geometry")


@dataclass(frozen=True)
class ClassProducts:
    """How maps are published. `confusion_KK`: true class by predicted class of labels that were held out; None: there are none.

    `model_hash`, `config_hash`, `code_version`: the lineage that every file carries.
    """

    run: str
    classes: tuple[str, ...]
    min_area_px: int
    confusion_KK: Sequence[Sequence[int]] | None
    confidence: float
    metrics: Mapping[str, float]
    model_hash: str
    config_hash: str
    code_version: str


@dataclass(frozen=True)
class MappedCube:
    """The map of a cube at `snapshot`, and the labelled pixels in its span (row, column, class; (P, 3))."""

    found: ClassMap
    dataset: xr.Dataset
    snapshot: str
    labels_P3: np.ndarray

    @property
    def grid(self) -> Grid:
        return grid_of(self.dataset)

    @property
    def scenes(self) -> tuple[str, ...]:
        inside_T = self.found.span.holds(self.dataset["time"].values)
        return tuple(str(scene) for scene in self.dataset["scene_id"].values[inside_T])

    @property
    def issued_utc(self) -> str:
        times_T = self.dataset["time"].values
        return iso(times_T[self.found.span.holds(times_T)][-1])


def classes_of(names: Sequence[str]) -> tuple[Class, ...]:
    """Codes, names and colours, the code of what was not observed first. Raises RequestError for more classes than a byte has."""
    if len(names) > 254:
        raise RequestError(f"a class map has at most 254 classes, there are {len(names)}; leave some out with labels.classes")
    coloured = [
        Class(k + 1, name, f"the most likely class is {name}", PALETTE[k % len(PALETTE)].lower()) for k, name in enumerate(names)
    ]
    return Class(NOT_OBSERVED, "not-observed", "no usable date in the span", GREY, is_nodata=True), *coloured


def class_layers(names: Sequence[str]) -> tuple[Layer, ...]:
    """The layers of a map of these classes."""
    codes = ", ".join(f"{one.code} {one.name}" for one in classes_of(names))
    band, coloured = LayerBand("class", codes, "", as_code), classes_of(names)
    return (
        Layer("class", "Most likely class", "class", "uint8", NOT_OBSERVED, (band,), coloured),
        Layer("confidence", "Confidence", "confidence", "float32", float("nan"),
              (LayerBand("confidence", "calibrated probability of the most likely class", "1", as_number),)),
    )  # fmt: skip


def write_class_maps(
    maps: Mapping[str, MappedCube], settings: ClassProducts, folder: Path, pictures: Path, linked: Path
) -> dict[str, Any]:
    """Rasters, polygons and collection into `folder`, quicklooks to `pictures`, which will lie in `linked`.

    `maps`: site -> its map; "" is that of a run over one cube. Returns `areas` (rows of the classes), `largest` polygons,
    `patches` and `observed` (share of the pixels), `span`, and the last date of all maps.
    """
    settings = replace(settings, classes=tuple(map(harmless, settings.classes)))
    items, largest, shown, layers = [], [], {}, class_layers(settings.classes)
    areas = class_areas(maps, settings)
    for site, one in maps.items():
        prefix, found, grid = f"{site}-" if site else "", one.found, one.grid
        lineage = Lineage(
            one.snapshot, settings.model_hash, settings.config_hash, settings.code_version, one.issued_utc, one.scenes
        )
        arrays = {"class": found.class_HW, "confidence": found.confidence_HW}
        rasters = write_layers(arrays, layers, grid, "", lineage, folder, prefix=prefix)
        patches = outline_classes(found, grid, settings)
        vectors = write_polygons(patches, folder, f"{prefix}classes", layer="classes")
        facts = {"observed": observed_share([found]), "dates": found.dates, "patches": len(patches)}
        first, title = f"{found.span.start.astype('datetime64[s]')}Z", f"Classes from {found.span.text}"
        items.append(
            change_item(
                site or "classes", f"{title}{f' in {site}' if site else ''}", grid, first, layers, rasters, vectors, "", lineage,
                facts, "Patches of one class",
            )
        )  # fmt: skip
        rows = patches.drop(columns="geometry").head(MOST_LARGEST)
        records = rows.astype(object).where(rows.notna(), None).to_dict("records")
        largest += [{**({"site": site} if site else {}), **row} for row in records]
        shown[f"Class map{f' of {site}' if site else ''}"] = linked / quicklook_name(site)
        name, own = f"{settings.run}: {site}" if site else settings.run, class_areas({site: one}, settings)
        draw_class_map(found, classes_of(settings.classes), one.labels_P3, grid, pictures / quicklook_name(site), name, own)
    first_site = next(iter(maps))
    if first_site:
        shutil.copyfile(pictures / quicklook_name(first_site), pictures / quicklook_name(""))
    text = "driftline class map, " + (f"{len(maps)} sites" if first_site else maps[""].found.span.text)
    write_collection(folder, settings.run, "segment", text, items, pictures=shown, metrics=settings.metrics)
    largest.sort(key=lambda row: -row["area_m2"])
    dates = sorted({one.issued_utc for one in maps.values()})
    return {
        "areas": areas,
        "largest": largest[:MOST_LARGEST],
        "patches": sum(int(item["properties"]["driftline:patches"]) for item in items),
        "observed": observed_share([one.found for one in maps.values()]),
        "span": maps[first_site].found.span.text,
        "sites": [site for site in maps if site],
        "issued_utc": dates[-1],
        "target_utc": dates,
    }


def no_labels() -> np.ndarray:
    return np.zeros((0, 3), np.int64)


def quicklook_name(site: str) -> str:
    return f"quicklook-{site}.png" if site else "quicklook.png"


def observed_share(maps: Sequence[ClassMap]) -> float:
    """Share of the pixels of all maps with a usable date."""
    return float(sum(np.count_nonzero(one.class_HW) for one in maps) / sum(one.class_HW.size for one in maps))


def outline_classes(found: ClassMap, grid: Grid, settings: ClassProducts) -> GeoDataFrame:
    """One row per patch of one class of at least `min_area_px` pixels, largest first; `confidence` is the mean of its pixels."""
    frames = []
    for k, name in enumerate(settings.classes):
        patches = outline_changes(
            found.class_HW, grid, {"confidence": found.confidence_HW}, code=k + 1, min_area_px=settings.min_area_px
        )
        frames.append(patches.assign(**{"class": name, "code": k + 1})[list(KEPT)])
    joined = pd.concat(frames).sort_values(["area_m2", "id"], ascending=[False, True], ignore_index=True)
    return GeoDataFrame(joined, geometry="geometry", crs=frames[0].crs)


def count_classes(class_HW: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of each class, int64 (K,); some rows (slices) are in memory at a time."""
    step, counts_K = max(1, COUNTED_PX // math.prod(class_HW.shape[1:])), np.zeros(classes, np.int64)
    for first in range(0, len(class_HW), step):
        counts_K += np.bincount(np.asarray(class_HW[first : first + step]).ravel(), minlength=classes + 1)[1:]
    return counts_K


def class_areas(maps: Mapping[str, MappedCube], settings: ClassProducts) -> list[dict[str, Any]]:
    """Rows of the classes: mapped area, area corrected by the held-out labels, and its interval, m2; a map class is a stratum.

    Of volumes the same in mm3, with `mapped_mm3` in place of `mapped_m2` and `voxels` in place of `pixels`.

    The labels were held out from single members, so strata are the areas that members map alone, on average: the mean of all,
    which is published, errs less, and has learnt from all labels. A stratum without such a label has `labels` 0 and widens all
    intervals. Without held-out labels there is no correction and no interval.
    """
    classes, is_volume = len(settings.classes), any(one.grid.is_volume for one in maps.values())
    pixels_K, mapped_K, strata_K = np.zeros(classes, np.int64), np.zeros(classes), np.zeros(classes)
    for one in maps.values():
        size = one.grid.pixel_size if is_volume else Space.of_grid(one.grid).central_pixel
        own_K = count_classes(one.found.class_HW, classes)
        pixels_K += own_K
        mapped_K += own_K * size
        strata_K += one.found.pixels_MK.mean(axis=0) * size
    counted, measured = ("voxels", "mapped_mm3") if is_volume else ("pixels", "mapped_m2")
    rows = [
        {"class": name, counted: int(pixels), measured: float(mapped)}
        for name, pixels, mapped in zip(settings.classes, pixels_K, mapped_K, strict=True)
    ]
    if settings.confusion_KK is None:
        unknown = {"standard_error": None, "low": None, "high": None}
        return [{**row, "labels": 0, "value": row[measured], **unknown} for row in rows]
    sample_SK = np.array(settings.confusion_KK).T  # rows: what was said
    estimates = estimate_areas(sample_SK, strata_K, settings.confidence)
    return [{**row, "labels": int(own.sum()), **asdict(one)} for row, own, one in zip(rows, sample_SK, estimates, strict=True)]
