"""Two images without a label, prepared as the sites of labelled change are; their change index and a map of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from scipy.ndimage import find_objects, label

from pipelines.change.metrics import CHANGED, UNKNOWN
from pipelines.change.score_work import ScoreTile, ScoreWork
from pipelines.change.site_prediction import SiteChange
from pipelines.change.site_scores import IndexScore, Scorer, SiteScores, Wanted
from pipelines.change.sites import Sites
from pipelines.cube.store import open_cube
from pipelines.errors import RequestError
from pipelines.predictors import ChangeIndex
from pipelines.samples.decoded_sites import LabelledSite, SiteFiles, decode_site, frame_of, key_of
from pipelines.samples.pairs import PairSettings, SiteFrame, common_ground, read_prepared, site_of_cube
from pipelines.samples.site_groups import Grouping
from pipelines.stored_files import absolute
from pipelines.tiles import Box
from pipelines.wording import counted, share_text

IMAGES = ("BEFORE", "AFTER")
LEAST_OVERLAP = 0.1  # of the pixels of BEFORE; with fewer the images hardly show one place
LEAST_FILL = 0.01  # of the pixels; so many of one value in all bands are rarely measured
MOST_DEVIATIONS = 30.0  # of a band's difference; a lone value that is wrong, not change
TILE_PX = 512  # squares of this side are read at a time
MOST_FACTOR = 3.0  # between means of one band on two dates; sun, season and sensor explain less


def open_pair(name: str, files: SiteFiles, settings: PairSettings, notify: Callable[[str], None]) -> Sites:
    """Both images as the one site of a run without labels, decoded where they are not.

    Raises RequestError: a date with hardly a usable pixel, or with nothing but one value.
    """
    site = decode_site(name, files, settings, notify, IMAGES)
    return Sites({name: site}, {name: files}, (), Grouping((), ()), key_of(sites={name: dict(files.made_from)}))


@dataclass(frozen=True)
class PreparedPair:
    """The prepared dates of both images of a cube's version (`pipelines.change.score_work.Place`)."""

    name: str
    uri: str
    snapshot: str
    pair: SiteFrame
    shape_yx: tuple[int, int]

    def open(self) -> ScoreTile:
        site = common_ground(site_of_cube(self.name, open_cube(self.uri, self.snapshot)), IMAGES)

        def score(by: Scorer, tile: Box) -> np.ndarray:
            window = tile.grown(max(by.model.halo_px(len(site.days_T)) or site.shape_yx), site.shape_yx)
            x_TCHW, valid_THW = (torch.from_numpy(array) for array in read_prepared(site, self.pair, window))
            rows, columns = tile.within(window)
            score_HW: np.ndarray = by.score(x_TCHW, valid_THW, torch.from_numpy(site.days_T)).numpy()[rows, columns]
            return score_HW

        return score


def index_work(
    scores: SiteScores, name: str, build_index: Callable[[Sequence[float]], ChangeIndex], staging: str
) -> tuple[Wanted, ScoreWork]:
    """A change index of the prepared dates, and the work that makes it where it is not there: tiles with their halo.

    `build_index(spread_C)`: the index in units of how much each band's difference, without its low-frequency component, spreads
    over the site. Networks see dates that lack that component already; the index removes it itself, and once only.
    """
    files, shape_yx = scores.sites.files[name], scores.sites.all[name].shape_yx
    frame = frame_of(files.decoded)
    index = build_index(frame.spread_C.tolist())
    wanted = Wanted(name, key_of(index=repr(index), sites=scores.sites.key), IndexScore(index))
    place = PreparedPair(name, absolute(files.cube_uri), files.snapshot, frame.pair, shape_yx)
    return wanted, ScoreWork(tuple(scores.missing([wanted])), {name: place}, scores.tile_px, staging)


def map_index(scores: SiteScores, wanted: Wanted, threshold: float) -> SiteChange:
    """Where a score that was made is at least `threshold`."""
    score_HW = scores.of(wanted)
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


def describe_overlap(dataset: xr.Dataset) -> list[str]:
    """A warning where both images show less than `LEAST_OVERLAP` of the pixels."""
    both = sum(np.count_nonzero(dataset["valid"].isel(at).values.all(0)) for at in _tiles(dataset))
    share = both / (dataset.sizes["y"] * dataset.sizes["x"])
    text = (
        f"WARNING only {share_text(share)} of BEFORE's pixels are shown by AFTER too: the rest is unknown; is it the right file?"
    )
    return [text] if share < LEAST_OVERLAP else []


def describe_fill(dataset: xr.Dataset, stored: Callable[[int, np.ndarray], np.ndarray]) -> list[str]:
    """Values that all bands share in more than `LEAST_FILL` of the pixels of a date, as those do that mean missing.

    `stored(date, x_CN)`: the values in the files of the physical ones.
    """
    if dataset.sizes["band"] < 2:
        return []
    counts: tuple[Counter[float], Counter[float]] = Counter(), Counter()
    for at in _tiles(dataset):
        x_TCHW, valid_THW = dataset["image"].isel(at).values, dataset["valid"].isel(at).values.astype(bool)
        for date, count in enumerate(counts):
            x_CN = stored(date, x_TCHW[date][:, valid_THW[date]])
            values, numbers = np.unique(x_CN[0, (x_CN == x_CN[:1]).all(0)], return_counts=True)
            count.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    pixels = dataset.sizes["y"] * dataset.sizes["x"]
    return [
        f"{word}: {number} pixels ({share_text(number / pixels)}) hold {value:g} in every band; if it means missing: "
        f"--nodata {value:g}"
        for word, count in zip(("BEFORE", "AFTER"), counts, strict=True)
        for value, number in count.most_common(3)
        if number > LEAST_FILL * pixels
    ]


def _tiles(dataset: xr.Dataset) -> Iterator[dict[str, slice]]:
    for tile in Box.whole((dataset.sizes["y"], dataset.sizes["x"])).cut(TILE_PX):
        yield {"y": tile.rows, "x": tile.columns}


def describe_width(mask_HW: np.ndarray, background_px: int, pixel_m: float | None) -> list[str]:
    """What is too wide to be found, since the mean of its surroundings is change as well; and patches that may be such."""
    width = f"{background_px} pixels" if pixel_m is None else f"{background_px * pixel_m:.3g} m ({background_px} pixels)"
    patches_HW, _ = label(mask_HW == CHANGED, np.ones((3, 3)))
    boxes = [[side.stop - side.start for side in box] for box in find_objects(patches_HW)]
    wide = [box for box in boxes if min(box) >= background_px]
    found = f"; {counted(len(wide), 'patch', 'patches')} here may be the edge of one" if wide else ""
    return [f"change wider than {width} is missed in its middle and is mapped as a ring{found}"]


def describe_outliers(site: LabelledSite, names: Sequence[str]) -> list[str]:
    """The band and pixel of a difference above `MOST_DEVIATIONS`: the deviations are not robust, so one hides other change."""
    largest, where = MOST_DEVIATIONS, ""
    for tile in Box.whole(site.label_HW.shape).cut(TILE_PX):
        x_TCHW, seen_HW = site.x_TCHW[..., tile.rows, tile.columns], site.valid_THW[:, tile.rows, tile.columns].all(0)
        difference_CHW = np.where(seen_HW, np.abs(x_TCHW[-1] - x_TCHW[0]), 0)
        if (here := float(difference_CHW.max())) > largest:
            band, row, column = map(int, np.unravel_index(difference_CHW.argmax(), difference_CHW.shape))
            at = f"row {tile.rows.start + row}, column {tile.columns.start + column}"
            largest, where = here, f"{names[band]} differs by {here:.0f} standard deviations at {at}"
    text = "one such value widens the deviations, so that other change is missed: a wrong value? --nodata VALUE leaves it out"
    return [f"{where}: {text}"] if where else []


def describe_shift(frame: SiteFrame, remedy: str) -> list[str]:
    """How AFTER was moved, or why not; `remedy` for a shift beyond the limit."""
    dy, dx = frame.shift_T_yx[-1]
    moved = [f"AFTER is moved by ({dy:+.2f}, {dx:+.2f}) pixels (down, right)"] if dy or dx else []
    return [*moved, *(f"{note}{remedy if 'exceeds' in note else ''}" for note in frame.notes)]
