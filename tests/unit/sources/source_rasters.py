"""Small files for the tests of sources: GeoTIFF, JPEG2000, HDF5 and netCDF, valid and broken."""

from pathlib import Path

import h5py
import numpy as np
import rasterio
from affine import Affine

from pipelines.grid import Grid
from pipelines.sources.reading import SceneReader

UTM = Grid("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (40, 56))


def ramp(shape_yx: tuple[int, int] = UTM.shape_yx, dtype: str = "uint16", start: int = 1) -> np.ndarray:
    """Unique pixel values, none of them 0."""
    return (np.arange(shape_yx[0] * shape_yx[1]).reshape(shape_yx) + start).astype(dtype)


def write_tiff(path: Path, *planes: np.ndarray, grid: Grid = UTM, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    planes = planes or (ramp(grid.shape_yx),)
    profile = {"driver": "GTiff", "crs": grid.crs, "transform": grid.affine, "dtype": planes[0].dtype.name, **options}
    with rasterio.open(path, "w", count=len(planes), height=planes[0].shape[0], width=planes[0].shape[1], **profile) as file:
        for index, plane in enumerate(planes, start=1):
            file.write(plane, index)
    return path


def shifted(grid: Grid, columns: float, rows: float) -> Grid:
    return Grid.from_affine(grid.crs, grid.affine @ Affine.translation(columns, rows), grid.shape_yx)


def write_cube(path: Path, bands: dict[str, np.ndarray], days: list[float], grid: Grid = UTM, **attributes) -> Path:
    """A netCDF-4 style cube with dimension scales; `bands` are (time, y, x)."""
    with h5py.File(path, "w") as file:
        scales = {"time": np.array(days, float), "y": grid.centres("y"), "x": grid.centres("x")}
        for name, values in scales.items():
            file[name] = values
            file[name].make_scale(name)
        file["time"].attrs["units"] = "days since 2018-01-01"
        file["crs"] = 0
        file["crs"].attrs["crs_wkt"] = grid.wkt
        for name, values in bands.items():
            data = file.create_dataset(name, data=values)
            data.attrs["grid_mapping"] = "crs"
            for key, value in attributes.items():
                data.attrs[key] = value
            for axis, scale in enumerate(scales):
                data.dims[axis].attach_scale(file[scale])
    return path


def read_slice(source, quality_mask, scene, grid, **options):
    return SceneReader(source, quality_mask, grid, **options).read(scene)
