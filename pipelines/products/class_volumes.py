"""What is published of a class map of volumes: NIfTI files of classes and probabilities, their volumes, a picture, a page."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.cube.store import bands_of
from pipelines.files import write_json, write_text
from pipelines.grid import Grid
from pipelines.products.class_planes import draw_class_planes
from pipelines.products.class_products import ClassProducts, MappedCube, class_areas, classes_of, observed_share
from pipelines.products.cog import Lineage
from pipelines.products.json_values import plain
from pipelines.products.nifti import write_nifti
from pipelines.products.viewer import VIEWER, Layer, write_viewer
from pipelines.products.volume_products import INDEX, SLAB_VOXELS, grid_facts, slabs, time_origin
from pipelines.samples.variables import Variable, decode
from pipelines.wording import cell, harmless

CLASS, CONFIDENCE, PROBABILITY, MEAN = "class.nii.gz", "confidence.nii.gz", "probability.nii.gz", "mean.nii.gz"
TABLE, PICTURE = "volumes.csv", "quicklook.png"
COLUMNS = ("class", "code", "voxels", "mapped_mm3", "corrected_mm3", "low_mm3", "high_mm3", "held_out_labels")
UNTIMED = np.datetime64("NaT", "ns")


def write_class_volumes(one: MappedCube, settings: ClassProducts, folder: Path, pictures: Path) -> dict[str, Any]:
    """NIfTI files with the affine of the series, `volumes.csv`, `viewer.html` and `index.json` into `folder`, `quicklook.png`.

    class.nii.gz: codes (uint8, 0 = not observed); confidence.nii.gz: the probability of that class; probability.nii.gz: that of
    every class, in their order along the fourth axis; mean.nii.gz: the first band over all times of the span, to be looked at
    below. Slices are in memory a few at a time. Returns `volumes` (rows of the classes), `observed`, `span` and the last time.

    Raises StorageFull.
    """
    settings = replace(settings, classes=tuple(map(harmless, settings.classes)))
    grid, found = one.grid, one.found
    folder.mkdir(parents=True, exist_ok=True)
    rows, coded, band = class_areas({"": one}, settings), classes_of(settings.classes), bands_of(one.dataset)[0]
    write_nifti(folder / CLASS, parts_of(found.class_HW, grid), grid, (), None, "driftline class of each voxel", "|u1")
    write_nifti(folder / CONFIDENCE, parts_of(found.confidence_HW, grid), grid, (), None, "driftline probability of the class")
    each = (part for values in found.probability_KHW for part in parts_of(values, grid))
    untimed = [UNTIMED] * len(settings.classes)
    write_nifti(folder / PROBABILITY, each, grid, untimed, None, "driftline probability of each class")
    write_nifti(folder / MEAN, mean_of(one), grid, (), None, "driftline mean over time")
    codes = ", ".join(f"{known.code} {known.name}" for known in coded)
    layers = [
        Layer(folder / MEAN, f"{band.name}: mean over time", [found.span.text], "mean", band.unit or ""),
        Layer(folder / CLASS, f"class: {codes}", [found.span.text], "class", kind="labels"),
        Layer(folder / PROBABILITY, "probability of each class", list(settings.classes), "probability"),
        Layer(folder / CONFIDENCE, "probability of the class that is shown", [found.span.text], "probability"),
    ]
    title = f"{settings.run}: classes of each voxel"
    write_viewer(folder / VIEWER, title, f"{found.dates} times, {found.span.text}, model {settings.model_hash[:12]}", layers)
    write_text(folder / TABLE, as_csv(rows))
    write_json(folder / INDEX, plain(_index(one, settings)), is_strict=True)
    draw_class_planes(found, coded, grid, pictures / PICTURE, settings.run, rows)
    facts = {"volumes": rows, "observed": observed_share([found]), "span": found.span.text}
    return {**facts, "issued_utc": one.issued_utc, "target_utc": [one.issued_utc]}


def parts_of(values_ZYX: np.ndarray, grid: Grid) -> Iterator[np.ndarray]:
    """The slices in order, a few at a time."""
    return (np.asarray(values_ZYX[part]) for part in slabs(grid))


def mean_of(one: MappedCube) -> Iterator[np.ndarray]:
    """The mean of the first band over the usable times of the span, float32, NaN where there is none; a few slices at a time."""
    dataset, grid = one.dataset, one.grid
    bands, at = bands_of(dataset), np.flatnonzero(one.found.span.holds(dataset["time"].values))
    shown = (Variable(bands[0].name, "band", (bands[0].name,)),)
    depth = max(1, SLAB_VOXELS // (len(at) * math.prod(grid.shape[1:])))
    for first in range(0, grid.shape[0], depth):
        taken = dataset.isel(time=at, z=slice(first, first + depth))
        x_TCZYX, valid_TZYX = decode(taken["image"].values, taken["valid"].values, bands, shown)
        count_ZYX = valid_TZYX.sum(axis=0)
        yield np.where(count_ZYX > 0, x_TCZYX[:, 0].sum(axis=0) / np.maximum(count_ZYX, 1), np.nan)


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The volumes of the classes with a heading, mm3; empty where there is no label to correct by."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for code, row in enumerate(rows, start=1):
        numbers = [row["mapped_mm3"], row["value"], row["low"], row["high"]]
        shown = ["" if number is None else f"{number:.7g}" for number in numbers]
        writer.writerow([cell(row["class"]), code, row["voxels"], *shown, row["labels"]])
    return text.getvalue()


def _index(one: MappedCube, settings: ClassProducts) -> dict[str, Any]:
    """What the files are, for programs; names no file of the source."""
    known = (one.snapshot, settings.model_hash, settings.config_hash, settings.code_version, one.issued_utc, one.scenes)
    roles = {
        CLASS: "codes of the classes",
        CONFIDENCE: "probability of the class",
        PROBABILITY: "probability of every class",
        MEAN: "mean of the first band over time",
        TABLE: "volumes of the classes",
        VIEWER: "the volumes in a page for a browser",
    }
    return {
        "driftline_index": 1,
        "name": settings.run,
        "kind": "class map",
        "files": [{"file": name, "role": role} for name, role in roles.items()],
        "classes": [{"code": each.code, "name": each.name, "colour": each.colour} for each in classes_of(settings.classes)],
        "span": one.found.span.text,
        "times": one.found.dates,
        "time_origin": time_origin(one.found.span.start),
        "grid": grid_facts(one.grid),
        "lineage": asdict(Lineage(*known)),
        "metrics": dict(settings.metrics),
    }
