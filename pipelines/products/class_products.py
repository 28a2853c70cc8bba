"""What is published of a class map: class and confidence as COG, polygons of each class, picture, STAC; areas with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from geopandas import GeoDataFrame

from pipelines.errors import RequestError
from pipelines.grid import Grid
from pipelines.inference.class_map import NOT_OBSERVED, ClassMap
from pipelines.learning.area_estimates import estimate_areas
from pipelines.products.class_charts import draw_class_map
from pipelines.products.cog import Lineage, write_layers
from pipelines.products.layers import GREY, Class, Layer, LayerBand, as_code, as_number
from pipelines.products.polygons import MOST_LARGEST, outline_changes, write_polygons
from pipelines.products.stac import change_item, write_collection
from pipelines.samples.labels import Labels
from pipelines.tracking.objects import Space
from pipelines.wording import harmless

# Okabe & Ito (2008), told apart with any colour vision; then the light ones of Tol (2021)
PALETTE = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#77AADD", "#EE8866", "#BBCC33", "#AAAA00",
    "#99DDFF", "#FFAABB", "#44BB99", "#882255", "#332288",
)  # fmt: skip
KEPT = ("id", "class", "code", "pixels", "area_m2", "perimeter_m", "confidence", "lon", "lat", "geometry")


@dataclass(frozen=True)
class ClassProducts:
    """How a map is published. `confusion_KK`: true class by predicted class of labels that were held out."""

    run: str
    classes: tuple[str, ...]
    min_area_px: int
    confusion_KK: np.ndarray
    confidence: float
    metrics: Mapping[str, float]
    lineage: Lineage


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


def write_class_map(
    found: ClassMap, labels: Labels, grid: Grid, settings: ClassProducts, folder: Path, picture: Path, linked: Path
) -> dict[str, Any]:
    """Rasters, polygons and collection into `folder`, the quicklook to `picture`, which will lie at `linked`.

    Returns `areas` (rows of the classes), `largest` polygons, `patches` and `observed` (share of the pixels).
    """
    settings = replace(settings, classes=tuple(map(harmless, settings.classes)))
    layers = class_layers(settings.classes)
    arrays = {"class": found.class_HW, "confidence": found.confidence_HW}
    rasters = write_layers(arrays, layers, grid, "", settings.lineage, folder)
    areas, patches = class_areas(found, grid, settings), outline_classes(found, grid, settings)
    vectors = write_polygons(patches, folder, "classes", layer="classes")
    observed = float(np.count_nonzero(found.class_HW) / found.class_HW.size)
    first = f"{found.span.start.astype('datetime64[s]')}Z"
    facts = {"observed": observed, "dates": found.dates, "patches": len(patches)}
    title = f"Classes from {found.span.text}"
    item = change_item(
        "classes", title, grid, first, layers, rasters, vectors, "", settings.lineage, facts, "Patches of one class"
    )
    write_collection(
        folder,
        settings.run,
        "segment",
        f"driftline class map, {title}",
        [item],
        pictures={"Class map": linked},
        metrics=settings.metrics,
    )
    draw_class_map(found, classes_of(settings.classes), labels, grid, picture, settings.run, areas)
    rows = patches.drop(columns="geometry").head(MOST_LARGEST)
    largest = rows.astype(object).where(rows.notna(), None).to_dict("records")
    return {"areas": areas, "largest": largest, "patches": len(patches), "observed": observed, "span": found.span.text}


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


def class_areas(found: ClassMap, grid: Grid, settings: ClassProducts) -> list[dict[str, Any]]:
    """Rows of the classes: mapped area, area corrected by the held-out labels, and its interval, m2; a map class is a stratum.

    The labels were held out from single members, so strata are the areas that members map alone, on average: the mean of all,
    which is published, errs less, and has learnt from all labels. A stratum without such a label has `labels` 0 and widens all
    intervals.
    """
    pixel_m2 = Space.of_grid(grid).central_pixel
    pixels_K = np.bincount(np.asarray(found.class_HW).ravel(), minlength=len(settings.classes) + 1)[1:]
    sample_SK = settings.confusion_KK.T  # rows: what was said
    estimates = estimate_areas(sample_SK, found.pixels_MK.mean(axis=0) * pixel_m2, settings.confidence)
    return [
        {
            "class": name,
            "pixels": int(pixels),
            "mapped_m2": float(pixels * pixel_m2),
            "labels": int(sample_SK[k].sum()),
            **asdict(one),
        }
        for k, (name, pixels, one) in enumerate(zip(settings.classes, pixels_K, estimates, strict=True))
    ]
