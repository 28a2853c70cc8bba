"""Layers of change as Cloud Optimised GeoTIFF, one file per layer; class rasters with colours and names.

A GeoTIFF keeps a colour table but not the names of its codes; those stand in `NAME.tif.aux.xml` beside it, where GDAL and QGIS
look (https://gdal.org/en/stable/user/raster_data_model.html#raster-band, "category names"), and once more in the file's tags.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol
from xml.sax.saxutils import escape

import numpy as np

from pipelines.errors import ArtefactDamaged
from pipelines.files import write_text
from pipelines.grid import Grid
from pipelines.products.cog import Band, Lineage, write_bands
from pipelines.products.layers import NOT_MONITORED, Class, Layer, LayerBand


class Rows(Protocol):
    """An array, a memory map or a zarr array: (rows, columns), sliced by rows."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice) -> np.ndarray: ...


def write_layers(
    arrays: Mapping[str, Rows],
    layers: Sequence[Layer],
    grid: Grid,
    unit: str,
    lineage: Lineage,
    at_utc: str,
    folder: Path,
    *,
    prefix: str = "",
) -> dict[str, Path]:
    """Layer name -> COG in `folder`, `PREFIXname.tif`, for those of `layers` whose array is given; the others are left out.

    `unit` is the watched variable's, `at_utc` the date that the layers hold for (ISO 8601). Where `arrays["status"]` is 0 nothing
    was monitored and every other layer is nodata. Memory does not grow with the raster. Raises ArtefactDamaged, StorageFull.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        if tuple(array.shape) != grid.shape_yx:
            raise ArtefactDamaged(f"layer {name} is {tuple(array.shape)}, the grid is {grid.shape_yx}; compute the layers again")
    paths = {}
    for layer in layers:
        if layer.source in arrays:
            paths[layer.name] = write_layer(arrays, layer, grid, unit, lineage.tags(at_utc), folder / f"{prefix}{layer.name}.tif")
    return paths


def write_layer(arrays: Mapping[str, Rows], layer: Layer, grid: Grid, unit: str, tags: dict[str, str], path: Path) -> Path:
    """Writes one layer; the names of its classes are published before the pixels, so a reader never sees codes without names."""
    bands = [
        Band(band.name, _unit(band, unit), {"DESCRIPTION": band.description}, _reader(arrays, layer, band))
        for band in layer.bands
    ]
    if layer.classes:
        write_category_names(layer.classes, path)
        tags = tags | {f"CLASS_{c.code}": c.name for c in layer.classes}
    write_bands(
        bands, grid, path, tags, dtype=layer.dtype, nodata=layer.nodata, resampling=layer.resampling,
        predictor="FLOATING_POINT" if layer.dtype == "float32" else "NO" if layer.classes else "STANDARD",
        colours={c.code: c.rgba for c in layer.classes} or None,
    )  # fmt: skip
    return path


def _unit(band: LayerBand, variable_unit: str) -> str:
    return variable_unit if band.unit is None else band.unit


def _reader(arrays: Mapping[str, Rows], layer: Layer, band: LayerBand) -> Callable[[slice], np.ndarray]:
    def read(rows: slice) -> np.ndarray:
        values = np.asarray(arrays[layer.source][rows])
        status = arrays.get("status")
        is_seen = np.ones(values.shape, bool) if status is None else np.asarray(status[rows]) != NOT_MONITORED
        return band.encode(values, is_seen)

    return read


def sidecar(path: Path) -> Path:
    """Where GDAL looks for what a file cannot hold."""
    return path.with_name(path.name + ".aux.xml")


def write_category_names(classes: Sequence[Class], path: Path) -> None:
    """Writes the names of the codes beside `path`, in one rename. GDAL numbers them from 0: a gap has an empty name."""
    names = {c.code: c.name for c in classes}
    lines = "".join(f"      <Category>{escape(names.get(code, ''))}</Category>\n" for code in range(max(names) + 1))
    text = (
        f'<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n{lines}'
        "    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n"
    )
    write_text(sidecar(path), text)
