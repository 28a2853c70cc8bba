"""The dates of a site made comparable: the same spread in every band, on the same pixels to a fraction of one, without haze.

Raw differences of two dates mostly show sun, haze and season: on another sensor they are worse than chance. A few numbers are
measured once over the whole site and are constants from then on, so that a tile is prepared to the same values as the whole:

- `measure_site`, `prepare`: every date on the first one's pixels, in standard deviations. Change indices see this.
- `measure_change_frame`, `read_frames`: besides without its low-frequency component, in units of how much the site differs by
  itself. Networks see this. Sun, haze and season change a site slowly across the image; what was built or felled differs from
  its surroundings. So the mean of the surroundings (`low_frequency_px` across) is taken from every date, and what is left is
  divided by the spread of its difference between the first and the last date. Then one threshold means the same in every site.

Shapes: T dates, C bands, H rows, W columns.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from scipy.ndimage import uniform_filter

from pipelines.calendar import to_days
from pipelines.cube.store import bands_of
from pipelines.errors import RequestError
from pipelines.samples.coregistration import Pair, estimate_shift, halo_px, likeness, move
from pipelines.samples.variables import Variable, decode
from pipelines.tiles import Box

MEASURED_PX = 512  # squares of at most this are read at a time
WINDOWS_PER_AXIS = 3  # so many squares each way at most, on which shifts are estimated
MEMORY_BYTES = 256 * 2**20  # of decoded pixels held at once; squares get smaller where there are many dates
MIN_SEEN_PX = 64  # fewer usable pixels of a date have no mean worth the name
LEAST_LIKENESS = 0.1  # of the edges of two dates; below it they are hardly pictures of one site
LOW_FREQUENCY_PX = 61  # odd; what is wider than this is season or haze
LEAST_SPREAD = 1e-6  # of values in standard deviations; a band that does not differ at all stays at 0
Dates = tuple[np.ndarray, np.ndarray]  # (x_TCHW float32, 0 where invalid; valid_THW bool)
Read = Callable[[Box], Dates]


@dataclass(frozen=True)
class Site:
    """What is read of a site: `read(tile)` is (x_TCHW float32 physical, 0 where invalid; valid_THW bool).

    `images`: what the dates are called where they are two images and no site of a config; of these only common pixels are read
    (`common_ground`).
    """

    name: str
    shape_yx: tuple[int, int]
    days_T: np.ndarray
    bands: tuple[str, ...]
    read: Read
    images: tuple[str, ...] = ()

    def date(self, number: int) -> str:
        """What a message calls the date, from 0."""
        return self.images[number] if self.images else f"{self.name}, date {number + 1}"


def site_of_cube(name: str, dataset: xr.Dataset, chosen: Sequence[str] = ()) -> Site:
    """The chosen bands, in that order (none: all), and all dates of a cube (`open_cube`).

    Raises RequestError if it has fewer than two dates, or lacks a band.
    """
    bands = bands_of(dataset)
    if dataset.sizes["time"] < 2:
        there = ", ".join(str(one) for one in dataset["scene_id"].values) or "none"
        raise RequestError(
            f"the site {name} has {dataset.sizes['time']} usable date(s) ({there}), change needs two; "
            "see refused.json for what was left out, or leave the site out of source.sites"
        )
    variables = tuple(Variable(band, "band", (band,)) for band in chosen or [band.name for band in bands])

    def read(tile: Box) -> Dates:
        part = dataset.isel(y=tile.rows, x=tile.columns)
        return decode(part["image"].values, part["valid"].values.astype(bool, copy=False), bands, variables)

    shape_yx, days_T = (dataset.sizes["y"], dataset.sizes["x"]), to_days(dataset["time"].values)
    return Site(name, shape_yx, days_T, tuple(one.name for one in variables), read)


def common_ground(site: Site, images: Sequence[str]) -> Site:
    """The pixels that both `images` show: one that shows other ground too would be scaled by that, and its background taken."""

    def read(tile: Box) -> Dates:
        x_TCHW, valid_THW = site.read(tile)
        both_HW = valid_THW.all(0)
        return np.where(both_HW, x_TCHW, np.float32(0)), np.broadcast_to(both_HW, valid_THW.shape)

    return replace(site, read=read, images=tuple(images))


@dataclass(frozen=True)
class PairSettings:
    """How dates are made comparable. `normalise`: z_score (per site, date and band) or none."""

    normalise: str = "z_score"
    coregister: bool = True
    max_shift_px: float = 2.0


@dataclass(frozen=True)
class SiteFrame:
    """The constants of a site. `mean_TC`, `std_TC` (float64) over the usable pixels of each date.

    `shift_T_yx` is how far each date is moved (down, right; pixels; 0 for the first), `gain_T` how much its correlation with
    the first date rises by it; `notes` say what was not done, and why; `warnings` what makes it doubtful that the dates can be
    compared at all.
    """

    mean_TC: np.ndarray
    std_TC: np.ndarray
    shift_T_yx: np.ndarray
    gain_T: np.ndarray
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def halo_px(self) -> int:
        """How many pixels around a window `prepare` must see."""
        return max(halo_px((float(dy), float(dx))) for dy, dx in self.shift_T_yx)


# ---------------------------------------------------------------- comparable dates


def measure_site(site: Site, settings: PairSettings = PairSettings()) -> SiteFrame:
    """The constants of a site. Raises RequestError where a date has hardly a usable pixel, or holds nothing but one value."""
    mean_TC, std_TC = _moments(site)
    is_flat_TC = ~(std_TC > 1e-12 * np.abs(mean_TC))
    warnings = _check_flat(site, is_flat_TC, mean_TC)
    std_TC = np.where(is_flat_TC, 1.0, std_TC)  # a band of one value stays at 0
    if settings.normalise == "none":
        mean_TC, std_TC = np.zeros_like(mean_TC), np.ones_like(std_TC)
    dates, notes = len(mean_TC), []
    shift_T_yx, gain_T = np.zeros((dates, 2)), np.zeros(dates)
    windows = [site.read(tile) for tile in _windows(site)]
    for date in range(1, dates):
        pairs, which = [Pair(x[0], x[date], seen[0], seen[date]) for x, seen in windows], site.date(date)
        if settings.coregister:
            shift = estimate_shift(pairs, settings.max_shift_px)
            shift_T_yx[date], gain_T[date] = shift.yx, shift.gain
            if shift.note:
                notes.append(f"{which}: {shift.note}")
        like = likeness(pairs, (float(shift_T_yx[date, 0]), float(shift_T_yx[date, 1])))
        if like is not None and like < LEAST_LIKENESS:
            warnings.append(
                f"{which}: hardly like the first date (their edges correlate by {like:.2f}): another "
                "site, wrong georeferencing, or cloud that the mask misses? Check it, or leave it out"
            )
    return SiteFrame(mean_TC, std_TC, shift_T_yx, gain_T, tuple(notes), tuple(warnings))


def _check_flat(site: Site, is_flat_TC: np.ndarray, mean_TC: np.ndarray) -> list[str]:
    """A warning for every band of one value. Raises RequestError for a date that has no other."""
    warnings = []
    for date, is_flat_C in enumerate(is_flat_TC):
        if is_flat_C.all():
            values = f"{', '.join(f'{value:g}' for value in mean_TC[date])} in {', '.join(site.bands)}"
            what, remedy = (
                f"the site {site.name} holds nothing but one value on date {date + 1} of {len(is_flat_TC)}",
                "fetch the file again, state source.nodata if this is it, or leave the site out of source.sites",
            )
            if site.images:
                what, remedy = f"{site.date(date)} holds nothing but one value", "is it the nodata value, or the wrong image?"
            raise RequestError(f"{what} ({values}): there is nothing to compare; {remedy}")
        if is_flat_C.any():
            names = ", ".join(band for band, is_flat in zip(site.bands, is_flat_C, strict=True) if is_flat)
            warnings.append(f"{site.date(date)}: {names} holds one value everywhere and has no information")
    return warnings


def _moments(site: Site) -> tuple[np.ndarray, np.ndarray]:
    """(mean_TC, std_TC), merged square by square (Chan, Golub, LeVeque 1983, eq. 2.1)."""
    count_T, (mean_TC, square_TC) = np.zeros(len(site.days_T)), np.zeros((2, len(site.days_T), len(site.bands)))
    for tile in Box.whole(site.shape_yx).cut(square_px(len(site.days_T), len(site.bands))):
        x_TCHW, valid_THW = site.read(tile)
        n_T = np.count_nonzero(valid_THW, axis=(1, 2)).astype(np.float64)
        here_TC, here_square_TC = np.zeros((2, *mean_TC.shape))
        for date, seen_HW in enumerate(valid_THW):
            values_CN = x_TCHW[date][:, seen_HW].astype(np.float64)
            here_TC[date] = values_CN.sum(1) / max(n_T[date], 1)
            here_square_TC[date] = ((values_CN - here_TC[date, :, None]) ** 2).sum(1)
        total_T = count_T + n_T
        delta_TC, share_T1 = here_TC - mean_TC, (n_T / np.maximum(total_T, 1))[:, None]
        square_TC = square_TC + here_square_TC + delta_TC**2 * count_T[:, None] * share_T1
        mean_TC, count_T = mean_TC + delta_TC * share_T1, total_T
    if (few := np.flatnonzero(count_T < MIN_SEEN_PX)).size:
        count, needed = f"{int(count_T[few[0]])} usable pixels", f"at least {MIN_SEEN_PX} are needed"
        if site.images:
            problem = f"{' and '.join(site.images)} show {int(count_T[0])} pixels in common, {needed}"
            raise RequestError(f"{problem}; check their nodata values and masks, or take images that overlap more")
        raise RequestError(
            f"the site {site.name} has {count} on date {few[0] + 1} of {len(count_T)}, {needed}; check nodata and quality, or "
            "set cube.min_valid_fraction to leave such scenes out"
        )
    return mean_TC, np.sqrt(square_TC / count_T[:, None])


def square_px(dates: int, bands: int, squares: int = 1) -> int:
    """The side of squares of which `squares`, decoded, fit into memory."""
    pixel_bytes = dates * (4 * bands + 1)
    return int(np.clip(np.sqrt(MEMORY_BYTES / squares / pixel_bytes), 128, MEASURED_PX))


def _windows(site: Site) -> list[Box]:
    """At most nine squares, spread evenly; all of a small site."""
    largest, per_axis = square_px(len(site.days_T), len(site.bands), WINDOWS_PER_AXIS**2), []
    for length in site.shape_yx:
        count = min(WINDOWS_PER_AXIS, -(-length // largest))
        size = min(largest, -(-length // count))
        starts = np.linspace(0, length - size, count).round().astype(int).tolist()
        per_axis.append([(start, start + size) for start in starts])
    return [Box.from_edges((*rows, *columns)) for rows, columns in itertools.product(*per_axis)]


def prepare(x_TCHW: np.ndarray, valid_THW: np.ndarray, frame: SiteFrame) -> Dates:
    """Every date on the first one's pixels, in standard deviations.

    What lies outside of the window counts as not seen: a window with `frame.halo_px` around it gives the pixels of the whole.
    """
    x_TCHW, valid_THW = np.array(x_TCHW, np.float32), np.array(valid_THW, bool)
    for date, (dy, dx) in enumerate(frame.shift_T_yx):
        scaled_CHW = (x_TCHW[date] - frame.mean_TC[date, :, None, None]) / frame.std_TC[date, :, None, None]
        x_TCHW[date], valid_THW[date] = move(scaled_CHW.astype(np.float32), valid_THW[date], (float(dy), float(dx)))
    return x_TCHW, valid_THW


def read_prepared(site: Site, frame: SiteFrame, tile: Box) -> Dates:
    """The prepared window of `tile`: the same pixels as of the whole."""
    seen = tile.grown(frame.halo_px, site.shape_yx)
    x_TCHW, valid_THW = prepare(*site.read(seen), frame)
    rows, columns = tile.within(seen)
    return x_TCHW[:, :, rows, columns], valid_THW[:, rows, columns]


# ---------------------------------------------------------------- what networks see


@dataclass(frozen=True)
class ChangeFrame:
    """The constants of a site: those of its dates (`pair`), and the spread per band (float64) of what networks see change."""

    pair: SiteFrame
    spread_C: np.ndarray
    low_frequency_px: int = LOW_FREQUENCY_PX


def without_low_frequency(x_TCHW: np.ndarray, valid_THW: np.ndarray, low_frequency_px: int) -> np.ndarray:
    """x_TCHW float32 minus the mean of the usable pixels in the `low_frequency_px` squared around; 0 where not valid.

    The window ends at the array's edges, where the mean is one of fewer pixels.
    """
    out_TCHW = np.zeros(x_TCHW.shape, np.float32)
    for t, valid_HW in enumerate(valid_THW):
        weight_HW = uniform_filter(valid_HW.astype(np.float64), low_frequency_px, mode="constant")
        safe_HW = np.maximum(weight_HW, 0.5 / low_frequency_px**2)
        for c, x_HW in enumerate(x_TCHW[t]):
            mean_HW = uniform_filter(np.where(valid_HW, x_HW, 0).astype(np.float64), low_frequency_px, mode="constant") / safe_HW
            out_TCHW[t, c] = np.where(valid_HW, x_HW - mean_HW, 0)
    return out_TCHW


def measure_change_frame(site: Site, pair: SiteFrame, low_frequency_px: int = LOW_FREQUENCY_PX) -> ChangeFrame:
    """The frame of a site: the spread is that of the last minus the first date, over pixels seen on both; read in squares."""
    sums, count, unscaled = np.zeros((2, len(site.bands))), 0, ChangeFrame(pair, np.ones(len(site.bands)), low_frequency_px)
    for tile in Box.whole(site.shape_yx).cut(MEASURED_PX):
        x_TCHW, valid_THW = read_frames(site, unscaled, tile)
        both_HW = valid_THW[0] & valid_THW[-1]
        difference_CN = (x_TCHW[-1] - x_TCHW[0])[:, both_HW].astype(np.float64)
        sums += difference_CN.sum(axis=1), (difference_CN**2).sum(axis=1)
        count += int(both_HW.sum())
    mean_C = sums[0] / max(count, 1)
    spread_C = np.sqrt(np.maximum(sums[1] / max(count, 1) - mean_C**2, 0))
    return ChangeFrame(pair, np.where(spread_C > LEAST_SPREAD, spread_C, 1.0), low_frequency_px)


def read_frames(site: Site, frame: ChangeFrame, tile: Box) -> Dates:
    """What networks compare of `tile`, the same as of the whole."""
    around = tile.grown(frame.low_frequency_px // 2, site.shape_yx)
    x_TCHW, valid_THW = read_prepared(site, frame.pair, around)
    rows, columns = tile.within(around)
    high_TCHW = without_low_frequency(x_TCHW, valid_THW, frame.low_frequency_px)[..., rows, columns]
    return high_TCHW / frame.spread_C.astype(np.float32)[:, None, None], valid_THW[..., rows, columns]
