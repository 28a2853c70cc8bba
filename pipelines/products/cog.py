"""Forecast fields as Cloud Optimised GeoTIFF, one file per target date.

The pixels go window by window into a plain tiled GeoTIFF and from there through GDAL's COG driver
(https://gdal.org/en/stable/drivers/raster/cog.html), which writes tiles and overviews in one order, so that the same fields
give the same bytes. The file appears under its name by rename, whole or not at all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window

from pipelines.errors import ArtefactDamaged
from pipelines.files import naming_full_disk, publish
from pipelines.grid import Grid
from pipelines.inference.staging import Field, Staged

BLOCK_PX = 512
DESCRIPTIONS = {"forecast": "{}", "lower": "{}_lower", "upper": "{}_upper"}


@dataclass(frozen=True)
class Lineage:
    """Where a product comes from; written into every file and every STAC item. Dates are ISO 8601, UTC."""

    snapshot: str
    model_hash: str
    config_hash: str
    version: str  # of driftline
    issued_utc: str  # the last date that the forecast looked at
    scene_ids: tuple[str, ...] = ()  # the context, oldest first

    def tags(self, target_utc: str) -> dict[str, str]:
        """GeoTIFF tags; values are text."""
        return {
            "DRIFTLINE_VERSION": self.version,
            "DRIFTLINE_CUBE_SNAPSHOT": self.snapshot,
            "DRIFTLINE_MODEL_HASH": self.model_hash,
            "DRIFTLINE_CONFIG_HASH": self.config_hash,
            "DRIFTLINE_ISSUED_UTC": self.issued_utc,
            "DRIFTLINE_TARGET_UTC": target_utc,
            "DRIFTLINE_CONTEXT_SCENES": " ".join(self.scene_ids),
        }


def band_name(field: Field) -> str:
    """Name of a field's band: `ndvi`, `ndvi_lower` or `ndvi_upper`."""
    return DESCRIPTIONS[field.role].format(field.variable)


def write_forecast_cogs(
    staged: Staged,
    grid: Grid,
    target_utc: list[np.datetime64],
    units: dict[str, str],
    lineage: Lineage,
    folder: Path,
    *,
    interval: float | None = None,
) -> list[Path]:
    """One COG per target date in `folder`, named by the date; each variable with its lower and upper bound as bands.

    float32, nodata NaN, overviews by average. `units` is variable -> unit, `interval` the nominal coverage of the bounds.
    Raises StorageFull, ArtefactDamaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, date in enumerate(target_utc):
        fields = [field for field in staged.fields if field.target == k]
        path = folder / f"forecast_{date_for_name(date)}.tif"
        tags = lineage.tags(iso(date)) | ({"DRIFTLINE_INTERVAL": f"{interval:g}"} if interval is not None else {})
        write_cog(staged, fields, grid, path, units, tags)
        paths.append(path)
    return paths


def write_cog(staged: Staged, fields: list[Field], grid: Grid, path: Path, units: dict[str, str], tags: dict[str, str]) -> None:
    """Writes `fields` as the bands of one COG at `path`; memory does not grow with the raster's height."""
    if staged.shape_yx != grid.shape_yx:
        raise ArtefactDamaged(f"{staged.folder}: fields are {staged.shape_yx}, the grid is {grid.shape_yx}; predict again")
    bands = [
        Band(
            band_name(field),
            units.get(field.variable, ""),
            {"ROLE": field.role, "VARIABLE": field.variable},
            partial(staged.read, field),
        )
        for field in fields
    ]  # fmt: skip
    write_bands(bands, grid, path, tags)


@dataclass(frozen=True)
class Band:
    """One band of a file: `read(rows)` gives its values there, (rows, columns) in the file's dtype."""

    name: str
    unit: str
    tags: dict[str, str]
    read: Callable[[slice], np.ndarray]


def write_bands(
    bands: Sequence[Band],
    grid: Grid,
    path: Path,
    tags: dict[str, str],
    *,
    dtype: str = "float32",
    nodata: float = float("nan"),
    resampling: str = "AVERAGE",
    predictor: str = "FLOATING_POINT",
    colours: dict[int, tuple[int, int, int, int]] | None = None,
) -> None:
    """Writes one COG at `path`, rows of a block at a time; `colours` (code -> RGBA) only for a single band of uint8.

    `resampling` (of the overviews) and `predictor` as GDAL's COG driver names them. Raises StorageFull.
    """
    height, width = grid.shape_yx
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": len(bands), "dtype": dtype, "nodata": nodata,
        "crs": grid.wkt, "transform": grid.affine, "tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX,
        "BIGTIFF": "IF_SAFER", "interleave": "band",
    }  # fmt: skip
    size = 3 * height * width * np.dtype(dtype).itemsize * len(bands)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".cog-") as draft, naming_full_disk(path.parent, size):
        plain, cog = Path(draft) / "plain.tif", Path(draft) / "cog.tif"
        with rasterio.Env(GDAL_CACHEMAX=64), rasterio.open(plain, "w", **profile) as raster:
            if colours:
                raster.write_colormap(1, colours)
            for number, band in enumerate(bands, start=1):
                raster.set_band_description(number, band.name)
                raster.set_band_unit(number, band.unit)
                raster.update_tags(number, **band.tags)
                for rows in row_bands(height):
                    window = Window(0, rows.start, width, rows.stop - rows.start)
                    raster.write(band.read(rows), number, window=window)
            raster.update_tags(**tags)
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
    """ISO 8601 with Z, to the second."""
    return f"{date.astype('datetime64[s]')}Z"


def date_for_name(date: np.datetime64) -> str:
    """`2020-06-15`, or `2020-06-15T1005` where the time of day is not midnight; safe in any file name."""
    text = str(date.astype("datetime64[m]"))
    return text[:10] if text.endswith("T00:00") else text.replace(":", "")
