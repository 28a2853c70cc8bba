"""Exports a version of the cube as plain Zarr, for programs without Icechunk."""

import os
import shutil
import tempfile
from pathlib import Path

import xarray as xr
import zarr
from numcodecs import Blosc
from zarr.types import AnyArray

from pipelines.cube.store import IMAGE, STEP_TEXTS, VALID, bands_of, grid_of, missing_value, open_cube
from pipelines.errors import RequestError
from pipelines.stored_files import is_remote


def export_zarr(uri: str, target: str | Path, snapshot: str | None = None) -> Path:
    """Path of the plain Zarr store at `target` to which one version of the cube is written.

    Zarr **format 2**: the GDAL inside rasterio's wheels (3.10) does not read format 3 ("Unsupported codec: bytes"), xarray
    and rioxarray read both. CRS and transform are in `spatial_ref` (CF) and in the GeoZarr attributes, nodata in
    `_FillValue`, scale and offset in the CF attributes if all bands share them (`bands` has them per band). So
    `xr.open_zarr(target)` gives physical values, NaN without an observation, and GDAL
    `ZARR:"target":/image:TIME:BAND` (zero-based) gives the stored ones.

    Written to a temporary folder and renamed when complete. One date is in memory at a time.

    Raises RequestError if `target` exists, or for a rotated grid, which GDAL would read as a straight one.
    """
    if is_remote(str(target)):
        raise RequestError(f"{target}: export to a local folder, then copy it")
    target = Path(target).expanduser().absolute()
    if target.exists():
        raise RequestError(f"{target} exists and is not overwritten: remove it or choose another path")
    cube = open_cube(uri, snapshot)
    if not (grid := grid_of(cube)).is_straight and not grid.is_volume:
        remedy = "ingest it onto a straight one (grid: with crs, resolution and bounds, and cube.on_other_grid: reproject)"
        raise RequestError(f"the grid of {uri} is rotated, which readers of plain Zarr do not see: {remedy}, then export that")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        _write(cube, staging)
        staging.chmod(0o755)  # mkdtemp makes it private
        os.rename(staging, target)  # noqa: PTH104  (Path.rename would say the same and hide that this is the commit)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return target


def _write(cube: xr.Dataset, folder: Path) -> None:
    _coordinates(cube).to_zarr(folder, zarr_format=2, consolidated=False, mode="w")
    root = zarr.open_group(folder, mode="r+", zarr_format=2)
    bands = bands_of(cube)
    has_nodata = len({band.nodata for band in bands}) == 1 and bands[0].nodata is not None
    image = _create(root, cube[IMAGE], missing_value(bands, cube[IMAGE].dtype) if has_nodata else None)
    for name, field, trivial in (("scale_factor", "scale", 1.0), ("add_offset", "offset", 0.0), ("units", "unit", "")):
        values = {getattr(band, field) for band in bands}
        if len(values) == 1 and values != {trivial}:
            image.attrs[name] = values.pop()
    valid = _create(root, cube[VALID], None)
    for index in range(cube.sizes["time"]):
        image[index] = cube[IMAGE][index].values
        valid[index] = cube[VALID][index].values
    zarr.consolidate_metadata(folder, zarr_format=2)


def _coordinates(cube: xr.Dataset) -> xr.Dataset:
    """Everything but the pixels; texts in fixed width, since GDAL supports no other."""
    small = cube.drop_vars([IMAGE, VALID]).drop_encoding()
    texts = {name: (small[name].dims, small[name].values.astype(str)) for name in (*STEP_TEXTS, "band")}
    small = small.assign_coords(texts).drop_vars("fingerprint")
    for name in ("driftline_format", "coordinates"):  # specific to the cube; xarray writes the coordinates itself
        small.attrs.pop(name, None)
    return small


def _create(root: zarr.Group, variable: xr.DataArray, fill: object) -> AnyArray:
    return root.create_array(
        str(variable.name),
        shape=variable.shape,
        chunks=tuple(variable.encoding["chunks"]),
        dtype=variable.dtype,
        fill_value=fill,
        compressors=Blosc(cname="zstd", clevel=3, shuffle=Blosc.BITSHUFFLE),
        config={"write_empty_chunks": fill is None},
        attributes={**variable.attrs, "_ARRAY_DIMENSIONS": [str(dim) for dim in variable.dims]},
    )
