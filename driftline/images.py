"""Change between two images in memory, without labels and without training."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import RequestError

if TYPE_CHECKING:
    import xarray as xr

BEFORE_AND_AFTER = np.array(["2000-01-01", "2000-01-02"], "datetime64[ns]")  # the order is all that counts
ON_ONE_GRID = "after = after.rio.reproject_match(before), with rioxarray"


def find_change(
    before: xr.Dataset | xr.DataArray, after: xr.Dataset | xr.DataArray, threshold: float = 1.5, *, crs: str | None = None
) -> xr.Dataset:
    """`score(y, x)` float32, NaN where not seen on both, and `changed(y, x)` bool: score >= threshold, False where not seen.

    before, after: variables (y, x) of the same names, or DataArrays ([band,] y, x), on the same grid, NaN where missing. The
    second is moved onto the first to a fraction of a pixel, both are normalised per band, haze and season (what is wider than 61
    pixels) are removed; `score` is the change vector in standard deviations of these images. threshold: 1.5 was the best fixed
    one on labelled cities (docs/design/009). attributes: `shift_px` (down, right) of `after`, `notes`.

    Nothing says that the change is one that you look for: no label is used. Raises RequestError for other grids or bands.

        change = driftline.find_change(images.isel(time=3), images.isel(time=9))
        change.changed.mean()
    """
    import torch

    from driftline.cubes import open_cube, write
    from models.baselines.change_indices import ChangeVector
    from pipelines.change.pairs import common_ground, measure_site, prepare, site_of_cube
    from pipelines.sources.memory import memory_source
    from pipelines.tiles import Box

    if not threshold > 0:
        raise RequestError(f"threshold is {threshold}; expected standard deviations above 0, for example 1.5")
    pair = pair_of(before, after, crs)
    source = memory_source(pair, crs=crs)
    with TemporaryDirectory(prefix="driftline-") as folder:
        cube = Path(folder) / "cube"
        write(source, cube)
        site = common_ground(site_of_cube("images", open_cube(cube)))
        frame = measure_site(site)
        rows, columns = site.shape_yx
        x_TCHW, valid_THW = (torch.from_numpy(one) for one in prepare(*site.read(Box.whole((rows, columns))), frame))
    score_HW = ChangeVector().fit(x_TCHW, valid_THW).score(x_TCHW, valid_THW).numpy()
    return _as_dataset(pair, source.crs, score_HW, threshold, frame.shift_T_yx[-1], (*frame.notes, *frame.warnings))


def pair_of(before: xr.Dataset | xr.DataArray, after: xr.Dataset | xr.DataArray, crs: str | None) -> xr.Dataset:
    """Both images on an axis time. Raises RequestError unless bands, CRS and pixels are the same."""
    import xarray as xr

    from pipelines.sources.memory import EVEN_PX, find_crs, transform_of

    first, last = _one_date(before, "before"), _one_date(after, "after")
    names, others = (image_names(image) for image in (first, last))
    if not names or names != others:
        remedy = "give both the same variables (y, x)"
        raise RequestError(f"before has the bands {', '.join(names) or 'none'}, after {', '.join(others) or 'none'}: {remedy}")
    if (here_crs := find_crs(first, crs)) != (there_crs := find_crs(last, crs)):
        raise RequestError(f"before is in {here_crs}, after in {there_crs}: {ON_ONE_GRID}")
    here, there = transform_of(first), transform_of(last)
    sizes = [tuple(image.sizes[axis] for axis in ("y", "x")) for image in (first, last)]
    if sizes[0] != sizes[1] or not np.allclose(here, there, rtol=0, atol=EVEN_PX * min(abs(here[0]), abs(here[4]))):
        found = f"{sizes[0]} and {sizes[1]} pixels (y, x), {here} and {there}"
        raise RequestError(f"the images are on different grids, {found}: {ON_ONE_GRID}")
    last = last.assign_coords(x=first["x"], y=first["y"])
    images = [one[names] for one in (first, last)]
    pair = xr.concat(images, xr.DataArray(BEFORE_AND_AFTER, dims="time", name="time"), coords="minimal", compat="override")
    return pair.assign({name: one for name, one in first.variables.items() if one.ndim == 0})


def _one_date(image: xr.Dataset | xr.DataArray, which: str) -> xr.Dataset:
    """The image without its axis or coordinate time. Raises RequestError if it has several dates."""
    from pipelines.sources.memory import as_dataset

    whole = as_dataset(image)
    if whole.sizes.get("time", 1) != 1:
        raise RequestError(f"{which} has {whole.sizes['time']} dates, expected one image: {which}.isel(time=-1)")
    return (whole.squeeze("time") if "time" in whole.dims else whole).drop_vars("time", errors="ignore")


def image_names(image: xr.Dataset) -> list[str]:
    """The variables with the axes y, x, sorted."""
    return sorted(str(name) for name, one in image.data_vars.items() if {"y", "x"} == set(one.dims))


def _as_dataset(
    pair: xr.Dataset, crs: str, score_HW: np.ndarray, threshold: float, shift_yx: np.ndarray, notes: tuple[str, ...]
) -> xr.Dataset:
    import xarray as xr

    from driftline.forecaster import with_crs

    axes = ("y", "x")
    title = {"long_name": "change, in standard deviations of these images"}
    variables = {"score": (axes, score_HW, title), "changed": (axes, score_HW >= threshold, {"long_name": "changed"})}
    attributes = {"threshold": threshold, "shift_px": [round(float(one), 3) for one in shift_yx], "notes": "; ".join(notes)}
    found = xr.Dataset(variables, {"y": pair["y"], "x": pair["x"]}, attributes)
    return with_crs(found, crs)
