"""Change between two images in memory, without labels and without training."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import RequestError

if TYPE_CHECKING:
    import xarray as xr

BEFORE_AND_AFTER = np.array(["2000-01-01", "2000-01-02"], "datetime64[ns]")  # the order is all that counts
IMAGES = ("before", "after")
ON_ONE_GRID = "after = after.rio.reproject_match(before), with rioxarray"


def find_change(
    before: xr.Dataset | xr.DataArray, after: xr.Dataset | xr.DataArray, threshold: float = 1.5, *, crs: str | int | None = None
) -> xr.Dataset:
    """`score(y, x)` float32, NaN where not seen on both, and `changed(y, x)` bool: score >= threshold, False where not seen.

    before, after: variables (y, x) of the same names, or DataArrays ([band,] y, x), on the same grid, NaN where missing. The
    second is moved onto the first to a fraction of a pixel, both are normalised per band, haze and season (what is wider than 61
    pixels) are removed; `score` is the change vector in standard deviations of these images. threshold: 1.5 was the best fixed
    one on labelled cities (docs/design/009). attributes: `shift_px` (down, right) of `after`, `notes`; a UserWarning says what
    makes it doubtful that the two can be compared.

    Nothing says that the change is one that you look for: no label is used. Raises RequestError for other grids or bands.

        change = driftline.find_change(images.isel(time=3), images.isel(time=9))
        change.changed.mean()
    """
    import torch

    from driftline.cubes import open_cube, write
    from models.baselines.change_indices import ChangeVector
    from pipelines.samples.pairs import common_ground, measure_site, prepare, site_of_cube
    from pipelines.sources.memory import memory_source
    from pipelines.tiles import Box

    if not (isinstance(threshold, int | float | np.number) and threshold > 0):
        raise RequestError(f"threshold is {threshold!r}; expected standard deviations above 0, for example 1.5")
    pair = pair_of(before, after, crs)
    source = memory_source(pair, crs=crs)
    if unseen := [name for name, date in zip(IMAGES, BEFORE_AND_AFTER, strict=True) if date not in source.usable_times()]:
        raise RequestError(f"no pixel of {' and of '.join(unseen)} has data in every band: check the values and `_FillValue`")
    with TemporaryDirectory(prefix="driftline-") as folder:
        cube = Path(folder) / "cube"
        write(source, cube)
        site = common_ground(site_of_cube("images", open_cube(cube)), IMAGES)
        frame = measure_site(site)
        rows, columns = site.shape_yx
        x_TCHW, valid_THW = (torch.from_numpy(one) for one in prepare(*site.read(Box.whole((rows, columns))), frame))
    if frame.warnings:
        warnings.warn("; ".join(frame.warnings), stacklevel=2)
    score_HW = ChangeVector().fit(x_TCHW, valid_THW).score(x_TCHW, valid_THW).numpy()
    return _as_dataset(
        pair, source.crs, score_HW, threshold, frame.shift_T_yx[-1], (*source.notes, *frame.notes, *frame.warnings)
    )


def pair_of(before: xr.Dataset | xr.DataArray, after: xr.Dataset | xr.DataArray, crs: str | int | None) -> xr.Dataset:
    """Both images on an axis time. Raises RequestError unless bands, CRS and pixels are the same."""
    import xarray as xr

    from pipelines.sources.memory import EVEN_PX, find_crs, transform_of

    first, last = _one_date(before, "before"), _one_date(after, "after")
    names, others = (image_names(image) for image in (first, last))
    if not names or names != others:
        remedy = "give both the same variables (y, x)"
        raise RequestError(f"before has the bands {', '.join(names) or 'none'}, after {', '.join(others) or 'none'}: {remedy}")
    places = {}
    for which, image in zip(IMAGES, (first, last), strict=True):
        try:
            places[which] = find_crs(image, crs), transform_of(image)
        except RequestError as e:
            raise RequestError(f"{which}: {e}") from e
    (here_crs, here), (there_crs, there) = places.values()
    if here_crs != there_crs:
        raise RequestError(f"before is in {here_crs}, after in {there_crs}: {ON_ONE_GRID}")
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
