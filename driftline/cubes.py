"""Cubes: open one, or write images that are in memory into one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import CubeMismatch, MissingInput

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

    from pipelines.cube.ingest import IngestReport
    from pipelines.grid import Grid
    from pipelines.sources.memory import MemorySource

SHOWN_DATES = 5


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
    dataset: xr.Dataset | xr.DataArray, path: str | Path, *, bands: str | Sequence[str] = (), crs: str | int | None = None
) -> xr.Dataset:
    """The cube at `path`, opened, after the dates of `dataset` are in it; it is created if there is none.

    dataset: variables (time, y, x), or a DataArray (time, [band,] y, x), NaN where missing. bands: default: all. crs: for data
    without a grid mapping. A date without any usable pixel is left out, and dropped if the cube had it; a date that is there
    already is replaced. What was left out, dropped, replaced or converted is in the attribute `notes`, and a UserWarning. Scenes
    in files are ingested by a run: `driftline.run("my-run.yaml", verb="ingest")`.

    Raises RequestError (see `pipelines.sources.memory`), and CubeMismatch before anything is written where the cube has another
    grid, CRS, dtype, or other bands.

        cube = driftline.ingest(dataset, "cubes/mine", crs="EPSG:32635")
    """
    from pipelines.sources.memory import memory_source

    source = memory_source(dataset, bands, crs)
    before = require_same(source, path, [str(axis) for axis in dataset.dims])
    notes = (*source.notes, *describe(write(source, path), source, before))
    if not notes:
        return open_cube(path)
    text = "; ".join(notes)
    warnings.warn(f"{path}: {text}", stacklevel=2)
    return open_cube(path).assign_attrs(notes=text)


def write(source: MemorySource, path: str | Path) -> IngestReport:
    """What became of the dates of `source`, which are in the cube at `path` now."""
    from pipelines.cube.ingest import IngestSettings
    from pipelines.cube.ingest import ingest as ingest_scenes

    return ingest_scenes(source, None, str(path), None, IngestSettings())


def require_same(source: MemorySource, path: str | Path, axes: Sequence[str]) -> set[np.datetime64]:
    """The dates of the cube at `path`; none if there is no cube. axes: what the dataset calls them.

    Raises CubeMismatch where the dataset does not fit the cube.
    """
    from pipelines.cube.store import bands_of, grid_of

    try:
        cube = open_cube(path)
    except MissingInput:
        return set()
    here, there = grid_of(cube), source.native_grid()
    if not there.is_aligned(here):
        raise CubeMismatch(_explain_grids(there, here, path, axes))
    remedy = "write to another path, or convert the dataset"
    if cube["image"].dtype != source.dtype():
        raise CubeMismatch(f"the cube at {path} stores {cube['image'].dtype}, the dataset gives {source.dtype()}: {remedy}")
    (stored, given), shown = (
        ([(band.name, band.scale, band.offset, str(band.nodata)) for band in bands] for bands in (bands_of(cube), source.bands)),
        "(name, scale_factor, add_offset, _FillValue)",
    )
    if stored != given:
        raise CubeMismatch(f"the cube at {path} has the bands {shown} {stored}, the dataset has {given}: {remedy}")
    return set(cube["time"].values)


def _explain_grids(there: Grid, here: Grid, path: str | Path, axes: Sequence[str]) -> str:
    """How the grid of a dataset differs from that of a cube, and what brings it there."""
    from pipelines.sources.memory import AXES

    remedy = f"dataset.rio.reproject_match(driftline.open_cube({str(path)!r})), with rioxarray and dataset.rio.write_crs first"
    if not there.has_same_frame(here):
        found, wanted = (str(grid.frame) for grid in (there, here))
        return f"the dataset is in {found}, the cube at {path} in {wanted}: {remedy}; nothing was written"
    for axis in ("y", "x"):
        if there.flipped(axis).is_aligned(here):
            falls = here.resolution_xy["xy".index(axis)] < 0
            name = next((one for one in (axis, *AXES[axis]) if one in axes), axis)
            remedy = f'dataset.sortby("{name}"{", ascending=False" * falls})'
            return f"the axis {name} of the dataset runs against that of the cube at {path}: {remedy}; nothing was written"
    return f"the dataset has {_text_of(there)}; the cube at {path} has {_text_of(here)}: {remedy}; nothing was written"


def _text_of(grid: Grid) -> str:
    (rows, columns), (dx, dy), (left, bottom, right, top) = grid.shape_yx, grid.resolution_xy, grid.bounds_xy
    return (
        f"{rows} x {columns} pixels (y, x) of {dy:.12g} x {dx:.12g}, x {left:.12g} to {right:.12g}, y {bottom:.12g} to {top:.12g}"
    )


def describe(report: IngestReport, source: MemorySource, before: set[np.datetime64]) -> list[str]:
    """What a user must know of the dates of `source`, given those that the cube had `before`."""
    dates = {scene.id: scene.observed_utc for scene in source.list_scenes().scenes}
    refused = {one.scene_id for one in report.refused}
    dropped = [name for name in dates if name in refused and dates[name] in before]
    groups = {
        "without a usable pixel left out": [name for name in dates if name in refused and name not in dropped],
        "dropped from the cube, without a usable pixel now": dropped,
        "replaced in the cube": [name for name in (*report.added, *report.replaced) if dates[name] in before],
    }
    return [f"{what}: {_dates_text([dates[name] for name in names])}" for what, names in groups.items() if names]


def _dates_text(dates: Sequence[np.datetime64]) -> str:
    """`2 dates (2020-01-01, 2020-01-11)`."""
    shown = ", ".join(str(date.astype("datetime64[s]")).removesuffix("T00:00:00") for date in dates[:SHOWN_DATES])
    more = f" and {len(dates) - SHOWN_DATES} more" * (len(dates) > SHOWN_DATES)
    return f"{len(dates)} date{'s' * (len(dates) != 1)} ({shown}{more})"
