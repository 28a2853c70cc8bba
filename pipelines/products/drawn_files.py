"""A series with drawn events as files: the series, its labels, and the truth of every pixel."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from pipelines.errors import MissingInput
from pipelines.samples.drawn_events import CLASSES, Drawing, draw_events

if TYPE_CHECKING:
    import rasterio

UNLABELLED = 255


def write_events(
    source: Path, folder: Path, drawing: Drawing, span: tuple[str, str], labels: int, seed: int = 0, *, as_raster: bool = False
) -> dict[str, int]:
    """Number of pixels of each class; `series.nc`, `truth.tif` and the labels are written into `folder`.

    Labels: a CSV of points, `labels` of each class, or `as_raster` so many pixels, drawn from all alike. `source`: the demo's
    netCDF file.
    """
    import rasterio
    from pyproj import Transformer

    dataset = xr.load_dataset(source, mask_and_scale=False)
    truth_YX = draw_events(dataset, seed, drawing)
    folder.mkdir(parents=True, exist_ok=True)
    dataset.to_netcdf(folder / "series.nc")
    x, y, crs = dataset["x"].values, dataset["y"].values, dataset["spatial_ref"].attrs["spatial_ref"]
    affine = rasterio.Affine(x[1] - x[0], 0, x[0] - (x[1] - x[0]) / 2, 0, y[1] - y[0], y[0] - (y[1] - y[0]) / 2)
    write_codes(folder / "truth.tif", truth_YX, crs, affine)
    rng, to_lonlat = np.random.default_rng(seed), Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    if as_raster:
        labels_YX = np.full(truth_YX.shape, UNLABELLED, np.uint8)
        at = np.unravel_index(rng.choice(truth_YX.size, labels, replace=False), truth_YX.shape)
        labels_YX[at] = truth_YX[at]
        write_codes(folder / "labels.tif", labels_YX, crs, affine)
        return {name: int((truth_YX == code).sum()) for code, name in CLASSES.items()}
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["longitude", "latitude", "from", "to", "label"])
        for code, name in CLASSES.items():
            flat_P = rng.choice(np.flatnonzero(truth_YX == code), labels, replace=False)
            for row, column in zip(*np.unravel_index(flat_P, truth_YX.shape), strict=True):
                lines.writerow([*to_lonlat.transform(x[column], y[row]), *span, name])
    return {name: int((truth_YX == code).sum()) for code, name in CLASSES.items()}


def write_codes(path: Path, codes_YX: np.ndarray, crs: str, affine: rasterio.Affine) -> None:
    import rasterio

    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": crs, "transform": affine}
    with rasterio.open(path, "w", height=codes_YX.shape[0], width=codes_YX.shape[1], **profile) as raster:
        raster.write(codes_YX, 1)


def read_first_band(path: Path) -> np.ndarray:
    """Raises MissingInput."""
    import rasterio

    if not path.exists():
        raise MissingInput(f"{path} is not there; run the configs of the disaster first")
    with rasterio.open(path) as raster:
        values: np.ndarray = raster.read(1)
    return values
