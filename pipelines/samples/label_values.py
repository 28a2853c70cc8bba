"""Numbers of places and times on a cube's grid, from rasters; points with numbers are read as those with classes are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.errors import RequestError
from pipelines.grid import Grid
from pipelines.samples.labels import OTHER_GRID, Given, Span, read_placed


def read_values(
    path: Path, grid: Grid, span: Span, band: int = 1, nodata: float | None = None, *, on_grid: bool = False
) -> Given:
    """A raster of numbers, as text; of another grid the pixel nearest to each centre (said in the notes), never a mean.

    What the file calls missing, `nodata` and what is not finite have no number. `on_grid`: it has no georeferencing and lies on
    the cube's grid. Raises RequestError.
    """
    from pipelines.sources.facts import FileFacts
    from pipelines.sources.resampling import ArrayLayer, resample

    stored, is_missing, own, _ = read_placed(path, band, grid, on_grid=on_grid)
    values_YX = stored.astype(np.float64)
    values_YX[is_missing | (False if nodata is None else stored == nodata)] = np.nan
    notes = () if own.is_aligned(grid) else (f"{path.name} {OTHER_GRID}",)
    if notes:
        facts = FileFacts(values_YX.dtype, own)
        moved = resample(ArrayLayer(values_YX, facts), facts, grid, slice(0, grid.shape_yx[0]), "nearest")
        values_YX = np.ma.filled(moved, np.nan)
    rows, columns = np.nonzero(np.isfinite(values_YX))
    if not rows.size:
        raise RequestError(f"the labels {path} hold no number on the images; check labels.band, labels.nodata and where it lies")
    texts = [f"{value:.9g}" for value in values_YX[rows, columns]]
    return Given(rows, columns, [span] * rows.size, texts, notes)
