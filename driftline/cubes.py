"""Cubes: open one, or write images that are in memory into one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

    from pipelines.sources.memory import MemorySource


def open_cube(path: str | Path, snapshot: str | None = None) -> xr.Dataset:
    """The cube as a lazy Dataset: `image(time, band, y, x)` as stored, `valid(time, y, x)` bool, dates sorted.

    path: a folder such as runs/demo/cube, or s3://bucket/prefix. snapshot: an older version; default: the newest. Raises
    MissingInput.

        cube = driftline.open_cube("runs/demo/cube")
        cube.valid.mean(("y", "x")).plot()
    """
    from pipelines.cube import store

    return store.open_cube(str(path), snapshot)


def ingest(
    dataset: xr.Dataset | xr.DataArray, path: str | Path, *, bands: Sequence[str] = (), crs: str | None = None
) -> xr.Dataset:
    """The cube at `path`, opened, after the dates of `dataset` are in it; it is created if there is none.

    dataset: variables (time, y, x), or a DataArray (time, [band,] y, x), NaN where missing. bands: default: all. crs: for data
    without a grid mapping. A date without any usable pixel is left out. Scenes in files are ingested by a run:
    `driftline.run("my-run.yaml", verb="ingest")`. Raises RequestError (see `pipelines.sources.memory`), CubeMismatch.

        cube = driftline.ingest(dataset, "cubes/mine", crs="EPSG:32635")
    """
    from pipelines.sources.memory import memory_source

    write(memory_source(dataset, bands, crs), path)
    return open_cube(path)


def write(source: MemorySource, path: str | Path) -> str:
    """The snapshot of the cube at `path` after the dates of `source` are in it."""
    from pipelines.cube.ingest import IngestSettings
    from pipelines.cube.ingest import ingest as ingest_scenes

    return ingest_scenes(source, None, str(path), None, IngestSettings()).snapshot
