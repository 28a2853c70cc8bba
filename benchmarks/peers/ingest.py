"""24 COGs of two UTM zones onto one grid, chunks of 256: driftline, and odc-stac with Dask's threads and xarray's Zarr."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_ingest import CHUNK_PX, LEFT, RESOLUTION_M, SIZE_PX, TARGET_CRS, TOP, make_scenes

TITLE = f"ingest: 24 COGs of {SIZE_PX}x{SIZE_PX}, two UTM zones, nearest"


def prepare(case: Path, is_quick: bool) -> None:
    (case / "scenes").mkdir()
    make_scenes(case / "scenes")


def driftline(case: Path, out: Path) -> Callable[[], None]:
    import pipelines.cube.ingest
    import pipelines.sources.folder  # noqa: F401
    from benchmarks.bench_ingest import run_driftline

    return lambda: run_driftline(case / "scenes", out, "nearest")


def odc_stac(case: Path, out: Path) -> Callable[[], None]:
    """The items are made before the clock runs: a user gets them from a catalogue."""
    import dask
    import odc.stac
    import xarray  # noqa: F401
    from affine import Affine
    from odc.geo.geobox import GeoBox
    from zarr.codecs import BloscCodec

    items = [make_item(path) for path in sorted((case / "scenes").glob("*.tif"))]
    grid = GeoBox((SIZE_PX, SIZE_PX), Affine(RESOLUTION_M, 0, LEFT, 0, -RESOLUTION_M, TOP), TARGET_CRS)
    pixels = {"*": {"assets": {"*": {"data_type": "uint16", "nodata": 0}}}}

    def work() -> None:
        with dask.config.set(scheduler="threads", num_workers=os.cpu_count()):
            cube = odc.stac.load(
                items, bands=["B04"], geobox=grid, chunks={"y": SIZE_PX, "x": SIZE_PX}, resampling="nearest", stac_cfg=pixels
            )
            codec = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=2)
            encoding = {"B04": {"chunks": (1, CHUNK_PX, CHUNK_PX), "compressors": [codec]}}
            cube.to_zarr(out / "cube.zarr", encoding=encoding, consolidated=False)

    return work


def make_item(path: Path) -> Any:
    import pystac
    import rasterio
    from rasterio.warp import transform_bounds

    with rasterio.open(path) as file:
        west, south, east, north = transform_bounds(file.crs, "EPSG:4326", *file.bounds)
        shape, transform, code = file.shape, list(file.transform)[:6], file.crs.to_string()
    corners = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    date = datetime.strptime(path.stem.split("_")[1], "%Y%m%d").replace(tzinfo=UTC)
    item = pystac.Item(
        path.stem, {"type": "Polygon", "coordinates": [corners]}, [west, south, east, north], date, {"proj:code": code},
        stac_extensions=["https://stac-extensions.github.io/projection/v2.0.0/schema.json"],
    )  # fmt: skip
    fields = {"proj:shape": list(shape), "proj:transform": transform}
    item.add_asset("B04", pystac.Asset(str(path), media_type=pystac.MediaType.COG, roles=["data"], extra_fields=fields))
    return item


WAYS = {"driftline": driftline, "odc-stac": odc_stac}


def compare(case: Path, outs: dict[str, Path]) -> str:
    import zarr

    from pipelines.cube.store import open_cube

    ours = open_cube(str(outs["driftline"] / "cube"))["image"]
    theirs = zarr.open_array(outs["odc-stac"] / "cube.zarr" / "B04", mode="r")
    shares = [np.mean(ours[index, 0].values != np.asarray(theirs[index])) for index in range(ours.sizes["time"])]
    return f"{np.mean(shares):.2%} of the pixels differ, {max(shares):.2%} of one date's"
