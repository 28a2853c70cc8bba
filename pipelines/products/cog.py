"""Forecast fields and layers of change as Cloud Optimised GeoTIFF: one file per target date, or per layer.

The pixels go window by window into a plain tiled GeoTIFF and from there through GDAL's COG driver
(https://gdal.org/en/stable/drivers/raster/cog.html), which writes tiles and overviews in one order, so that the same fields
give the same bytes. The file appears under its name by rename, whole or not at all. A GeoTIFF keeps a colour
table but not the names of its codes; those stand in `NAME.tif.aux.xml` beside it, where GDAL and QGIS look
(https://gdal.org/en/stable/user/raster_data_model.html#raster-band, "category names"), and once more in the file's tags.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window

from pipelines.calendar import iso_utc
from pipelines.errors import ArtefactDamaged
from pipelines.files import naming_full_disk, publish, write_text
from pipelines.grid import Grid
from pipelines.inference.staging import Field, Staged
from pipelines.products.layers import NOT_MONITORED, Class, Layer, LayerBand, Rows
from pipelines.wording import harmless, printable

BLOCK_PX = 512


@dataclass(frozen=True)
class Lineage:
    """Where a product comes from; written into every file and every STAC item. Dates are ISO 8601, UTC."""

    snapshot: str
    model_hash: str
    config_hash: str
    version: str  # of driftline
    issued_utc: str  # the last date that the forecast looked at
    scene_ids: tuple[str, ...] = ()  # the context, oldest first
    method: str = "network"  # or the name of the baseline that is published

    def tags(self, target_utc: str) -> dict[str, str]:
        """GeoTIFF tags; values are text."""
        return {
            "DRIFTLINE_VERSION": self.version,
            "DRIFTLINE_CUBE_SNAPSHOT": self.snapshot,
            "DRIFTLINE_MODEL_HASH": self.model_hash,
            **({"DRIFTLINE_METHOD": self.method} if self.method != "network" else {}),
            "DRIFTLINE_CONFIG_HASH": self.config_hash,
            "DRIFTLINE_ISSUED_UTC": self.issued_utc,
            "DRIFTLINE_TARGET_UTC": target_utc,
            "DRIFTLINE_CONTEXT_SCENES": " ".join(self.scene_ids),
        }


@dataclass(frozen=True)
class Band:
    """One band of a file: `read(rows)` gives its values there, (rows, columns) in the file's dtype."""

    name: str
    unit: str
    tags: dict[str, str]
    read: Callable[[slice], np.ndarray]


def write_forecast_cogs(
    staged: Staged, grid: Grid, target_utc: Sequence[np.datetime64], units: Mapping[str, str], lineage: Lineage, folder: Path,
    *, interval: float | None = None,
) -> list[Path]:  # fmt: skip
    """One COG per target date in `folder`, named by the date; each variable with its lower and upper bound as bands.

    float32, nodata NaN, overviews by average. `units` is variable -> unit, `interval` the nominal coverage of the bounds.
    Raises StorageFull, ArtefactDamaged.
    """
    if staged.shape != grid.shape_yx:
        raise ArtefactDamaged(f"{staged.uri}: fields are {staged.shape}, the grid is {grid.shape_yx}; predict again")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"forecast_{date_for_name(date)}.tif" for date in target_utc]
    for k, (date, path) in enumerate(zip(target_utc, paths, strict=True)):
        bands = [
            Band(band_name(field), units.get(field.variable, ""), {"ROLE": field.role, "VARIABLE": field.variable},
                 partial(staged.read, field))
            for field in staged.fields if field.target == k
        ]  # fmt: skip
        nominal = {} if interval is None else {"DRIFTLINE_INTERVAL": f"{interval:g}"}
        write_bands(bands, grid, path, lineage.tags(iso(date)) | nominal)
    return paths


def band_name(field: Field) -> str:
    """Name of a field's band: `ndvi`, `ndvi_lower` or `ndvi_upper`."""
    return field.variable if field.role == "forecast" else f"{field.variable}_{field.role}"


def write_layers(
    arrays: Mapping[str, Rows], layers: Sequence[Layer], grid: Grid, unit: str, lineage: Lineage, folder: Path, prefix: str = ""
) -> dict[str, Path]:
    """Layer name -> COG in `folder`, `PREFIXname.tif`, for those of `layers` whose array is given; the others are left out.

    `unit` is the monitored variable's; the layers hold for `lineage.issued_utc`. Where `arrays["status"]` is 0 nothing was
    monitored and every other layer is nodata. Memory does not grow with the raster. Raises ArtefactDamaged, StorageFull.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_shapes(arrays, grid)
    paths = {}
    for layer in layers:
        if layer.source in arrays:
            paths[layer.name] = folder / f"{prefix}{layer.name}.tif"
            _write_layer(arrays, layer, grid, unit, lineage.tags(lineage.issued_utc), paths[layer.name])
    return paths


def check_shapes(arrays: Mapping[str, Rows], grid: Grid) -> None:
    """Raises ArtefactDamaged where the shape of a layer is not the grid's."""
    for name, array in arrays.items():
        if tuple(array.shape) != grid.shape_yx:
            raise ArtefactDamaged(f"layer {name} is {tuple(array.shape)}, the grid is {grid.shape_yx}; compute the layers again")


def _write_layer(arrays: Mapping[str, Rows], layer: Layer, grid: Grid, unit: str, tags: dict[str, str], path: Path) -> None:
    """The names of the classes are published before the pixels, so a reader never sees codes without names."""
    bands = [
        Band(band.name, band.unit_of(unit), {"DESCRIPTION": band.description}, partial(_encode, arrays, layer, band))
        for band in layer.bands
    ]
    if layer.classes:
        write_category_names(layer.classes, path)
        tags = tags | {f"CLASS_{c.code}": harmless(c.name) for c in layer.classes}
    write_bands(bands, grid, path, tags, layer.dtype, layer.nodata, {c.code: c.rgba for c in layer.classes})


def _encode(arrays: Mapping[str, Rows], layer: Layer, band: LayerBand, rows: slice) -> np.ndarray:
    values = np.asarray(arrays[layer.source][rows])
    status = arrays.get("status")
    is_seen = np.ones(values.shape, bool) if status is None else np.asarray(status[rows]) != NOT_MONITORED
    return band.encode(values, is_seen)


def sidecar(path: Path) -> Path:
    """Where GDAL looks for what a file cannot hold."""
    return path.with_name(path.name + ".aux.xml")


def write_category_names(classes: Sequence[Class], path: Path) -> None:
    """Writes the names of the codes beside `path`, in one rename. GDAL numbers them from 0: a gap has an empty name."""
    names = {c.code: c.name for c in classes}
    lines = "".join(f"      <Category>{escape(harmless(names.get(code, '')))}</Category>\n" for code in range(max(names) + 1))
    text = (
        f'<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n{lines}'
        "    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n"
    )
    write_text(sidecar(path), text)


def write_bands(
    bands: Sequence[Band], grid: Grid, path: Path, tags: Mapping[str, str], dtype: str = "float32", nodata: float = float("nan"),
    colours: Mapping[int, tuple[int, int, int, int]] | None = None,
) -> None:  # fmt: skip
    """Writes one COG at `path`, rows of a block at a time; `colours` (code -> RGBA) only for a single band of uint8.

    Overviews are averages of float32 and nearest pixels of all else: neither codes nor dates have a mean. Raises StorageFull.
    """
    height, width = grid.shape_yx
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": len(bands), "dtype": dtype, "nodata": nodata,
        "crs": grid.wkt, "transform": grid.affine, "tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX,
        "BIGTIFF": "IF_SAFER", "interleave": "band",
    }  # fmt: skip
    predictor = "FLOATING_POINT" if dtype == "float32" else "NO" if colours else "STANDARD"
    resampling = "AVERAGE" if dtype == "float32" else "NEAREST"
    size = 3 * height * width * np.dtype(dtype).itemsize * len(bands)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".cog-") as draft, naming_full_disk(path.parent, size):
        plain, cog = Path(draft) / "plain.tif", Path(draft) / "cog.tif"
        with rasterio.Env(GDAL_CACHEMAX=64), rasterio.open(plain, "w", **profile) as raster:
            if colours:
                raster.write_colormap(1, colours)
            for number, band in enumerate(bands, start=1):
                raster.set_band_description(number, harmless(band.name))
                raster.set_band_unit(number, harmless(band.unit))
                raster.update_tags(number, **{key: printable(text) for key, text in band.tags.items()})
                for rows in row_bands(height):
                    raster.write(band.read(rows), number, window=Window(0, rows.start, width, rows.stop - rows.start))
            raster.update_tags(**{key: printable(text) for key, text in tags.items()})
        with rasterio.Env(GDAL_CACHEMAX=64, GDAL_NUM_THREADS=1):
            copy_raster(
                plain, cog, driver="COG", compress="DEFLATE", predictor=predictor, blocksize=BLOCK_PX,
                resampling=resampling, overviews="AUTO", bigtiff="IF_SAFER",
            )  # fmt: skip
        publish(cog, path)


def row_bands(height: int) -> Iterable[slice]:
    """Rows of one block after the other."""
    return (slice(row, min(row + BLOCK_PX, height)) for row in range(0, height, BLOCK_PX))


def iso(date: np.datetime64) -> str:
    """ISO 8601 with Z; the time since the first frame where nothing else is known."""
    return iso_utc(date)


def date_for_name(date: np.datetime64) -> str:
    """`2020-06-15`, or `2020-06-15T1005` where the time of day is not midnight; safe in any file name."""
    text = str(date.astype("datetime64[m]"))
    return text[:10] if text.endswith("T00:00") else text.replace(":", "")
