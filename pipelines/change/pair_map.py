"""Two images without a label, prepared as the sites of labelled change are; their change index and a map of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr

from pipelines.change.groups import Grouping
from pipelines.change.metrics import UNKNOWN
from pipelines.change.pairs import PairSettings, SiteFrame, read_prepared, site_of_cube
from pipelines.change.site_prediction import SiteChange
from pipelines.change.site_scores import SiteScores, score_file
from pipelines.change.sites import SiteFiles, Sites, about_site, decode_site, frame_of, key_of, open_site
from pipelines.cube.store import open_cube
from pipelines.errors import RequestError
from pipelines.predictors import ChangeIndex
from pipelines.tiles import Box
from pipelines.wording import share_text

IMAGES = ("BEFORE", "AFTER")
MOST_FACTOR = 3.0  # between means of one band on two dates; sun, season and sensor explain less


def open_pair(name: str, files: SiteFiles, settings: PairSettings, notify: Callable[[str], None]) -> Sites:
    """Both images as the one site of a run without labels, decoded where they are not.

    Raises RequestError: a date with hardly a usable pixel, or with nothing but one value.
    """
    is_there = about_site(files.decoded) == files.made_from
    site = open_site(files.decoded)[0] if is_there else decode_site(name, files, settings, notify, IMAGES)
    return Sites({name: site}, {name: files}, (), Grouping((), ()), key_of(sites={name: dict(files.made_from)}))


def map_index(
    scores: SiteScores, name: str, build_index: Callable[[Sequence[float]], ChangeIndex], threshold: float
) -> SiteChange:
    """A change index of the prepared dates, and where it is at least `threshold`; in tiles with their halo.

    `build_index(spread_C)`: the index in units of how much each band's difference, without its low-frequency component, spreads
    over the site. Networks see dates that lack that component already; the index removes it itself, and once only.
    """
    files, sites = scores.sites.files[name], scores.sites
    site, frame = site_of_cube(name, open_cube(files.cube_uri, files.snapshot)), frame_of(files.decoded)
    index = build_index(frame.spread_C.tolist())

    def fill(out_HW: np.ndarray) -> None:
        halo_px = max(index.halo_px(len(site.days_T)) or site.shape_yx)
        for tile in Box.whole(site.shape_yx).cut(scores.tile_px):
            window = tile.grown(halo_px, site.shape_yx)
            dates = (torch.from_numpy(array) for array in read_prepared(site, frame.pair, window))
            rows, columns = tile.within(window)
            out_HW[tile.rows, tile.columns] = index.score(*dates).numpy()[rows, columns]

    path = scores.folder / f"{name}-{key_of(index=repr(index), sites=sites.key)[:16]}.npy"
    score_HW = score_file(path, site.shape_yx, fill)
    mask_HW = np.where(np.isnan(score_HW), UNKNOWN, np.nan_to_num(score_HW) >= threshold).astype(np.uint8)
    return SiteChange(score_HW, mask_HW)


def check_differ(dataset: xr.Dataset) -> None:
    """Raises RequestError for two images of equal pixels: somebody named one image twice."""
    if len({str(digest) for digest in dataset["content_hash"].values}) == 1:
        raise RequestError("BEFORE and AFTER hold the same values in every band, so nothing changed: is it one image twice?")


def describe_levels(frame: SiteFrame, names: Sequence[str]) -> list[str]:
    """Bands whose mean differs by more than `MOST_FACTOR` between the images, as values of other units do."""
    notes = []
    for name, first, last in zip(names, frame.mean_TC[0], frame.mean_TC[-1], strict=True):
        low, high = sorted((abs(first), abs(last)))
        if high > MOST_FACTOR * low:
            notes.append(f"{name}: the mean is {first:.3g} in BEFORE and {last:.3g} in AFTER: values of another kind? Check them")
    return notes


def describe_missing(dataset: xr.Dataset) -> list[str]:
    """How much of each image is missing (nodata, mask, NaN, or outside of AFTER) in some band and left out."""
    pixels = dataset.sizes["y"] * dataset.sizes["x"]
    shares = zip(IMAGES, dataset["valid_fraction"].values, strict=True)
    missing = {word: round((1 - float(share)) * pixels) for word, share in shares}
    return [
        f"{word}: {count} pixels ({share_text(count / pixels)}) are missing and left out"
        for word, count in missing.items()
        if count
    ]
