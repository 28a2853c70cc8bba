"""Windows of series without labels, part of whose dates are hidden: what a network fills or forecasts to learn from them.

Shapes: T dates, C variables, H rows, W columns of a window (of volumes slices, rows, columns).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipelines.errors import RequestError
from pipelines.samples.class_samples import DAYS_A_YEAR, SpanImages
from pipelines.tiles import Box

Part = tuple[tuple[int, Box], ...]  # (number of the images, where in them), places that windows are drawn from
MEASURED = 512  # windows that mean and standard deviation are taken from


@dataclass(frozen=True)
class Hiding:
    """What of a window is hidden, anew in every epoch.

    `hidden` of the dates, each by chance; with `patch_px` above 0 squares of that side on each date instead. With a `horizon`
    above 0 all dates after a random one, of which so many count.
    """

    hidden: float = 0.3
    patch_px: int = 0
    horizon: int = 0

    def draw(self, valid_THW: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(hidden_THW, counts_THW) bool: what the network may not see, and what of it is to be filled, valid or not.

        Some dates with valid pixels are hidden and some visible, where there are two.
        """
        usable = np.flatnonzero(valid_THW.reshape(len(valid_THW), -1).any(axis=1))
        hidden_THW, counts_THW = (np.zeros(valid_THW.shape, bool) for _ in range(2))
        if len(usable) < 2:
            return hidden_THW, counts_THW
        if self.horizon:
            after = usable[int(rng.integers(1, len(usable))) :]
            hidden_THW[after[0] :], counts_THW[after[: self.horizon]] = True, True
            return hidden_THW, counts_THW
        if self.patch_px:
            hidden_THW = self._squares(valid_THW.shape, rng)
            return hidden_THW, hidden_THW
        chosen = rng.random(len(usable)) < self.hidden
        if chosen.all() or not chosen.any():
            chosen[:] = chosen.all()
            chosen[int(rng.integers(len(usable)))] = not chosen[0]
        hidden_THW[usable[chosen]] = True
        return hidden_THW, hidden_THW

    def _squares(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Squares of a lattice that begins anywhere, other ones on each date; of volumes through all slices."""
        dates, (rows, columns), side = shape[0], shape[-2:], self.patch_px
        cells = rng.random((dates, rows // side + 2, columns // side + 2)) < self.hidden
        row, column = (int(start) for start in rng.integers(side, size=2))
        fine = cells.repeat(side, axis=1).repeat(side, axis=2)[:, row : row + rows, column : column + columns]
        return np.broadcast_to(fine.reshape(dates, *[1] * (len(shape) - 3), rows, columns), shape).copy()


@dataclass(frozen=True)
class HiddenSettings:
    """`window_px`: side of a window, in all axes; windows: so many an epoch; `jitter_days`: as `class_windows.Augmentation`."""

    window_px: int
    windows: int
    symmetries: bool = True
    jitter_days: float = 8.0


def divide(images: Sequence[SpanImages], block_px: int, share: float, seed: int) -> tuple[Part, Part]:
    """(what is learnt from, what validates): whole sites where there are several, else blocks, the same ones in all spans.

    Raises RequestError where nothing is left for one of the two.
    """
    rng, sites = np.random.default_rng(seed), list(dict.fromkeys(one.site for one in images))
    if len(sites) > 1:
        held = {sites[n] for n in rng.permutation(len(sites))[: max(1, round(share * len(sites)))]}
        places = [(s, Box.whole(one.shape), one.site in held) for s, one in enumerate(images)]
    else:
        blocks = list(Box.whole(images[0].shape).cut(block_px))
        numbers = set(rng.permutation(len(blocks))[: max(1, round(share * len(blocks)))].tolist())
        places = [(s, block, n in numbers) for s in range(len(images)) for n, block in enumerate(blocks)]
    learnt, fixed = (tuple((s, box) for s, box, is_held in places if is_held is wanted) for wanted in (False, True))
    if not learnt:
        raise RequestError("all blocks (or sites) validate, and none is left to learn from; set a smaller split.block_px")
    order = np.random.default_rng([seed, 1])  # windows come from the places in turn: not from one corner where there are few
    learnt, fixed = (tuple(part[n] for n in order.permutation(len(part))) for part in (learnt, fixed))
    return learnt, fixed


class HiddenWindows:
    """Windows of a part as a `WindowSet`; `mean_C` and `std_C` standardise what is to be filled. Fixed ones are the same in
    every epoch, without symmetries and jitter.

    What is drawn and hidden depends on (seed, epoch, number of the window) alone.
    """

    def __init__(
        self, images: Sequence[SpanImages], part: Part, settings: HiddenSettings, hiding: Hiding, seed: int, *, is_fixed: bool,
        mean_C: np.ndarray | None = None, std_C: np.ndarray | None = None, year_days: float = DAYS_A_YEAR,
    ):  # fmt: skip
        self.images, self.part, self.settings, self.hiding, self.seed = images, part, settings, hiding, seed
        self.is_fixed, self.epoch, self.year_days = is_fixed, 0, year_days
        bands = images[0].x_TCHW.shape[1]
        self.mean_C = np.zeros(bands, np.float32) if mean_C is None else mean_C
        self.std_C = np.ones(bands, np.float32) if std_C is None else std_C

    def __len__(self) -> int:
        return self.settings.windows

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """(T, H, W) of every window; windows come from the places in turn."""
        return [(len(self.images[s].years_T), *self._sides(box)) for s, box in (self._place(n) for n in range(len(self)))]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = 0 if self.is_fixed else epoch

    def gather(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """x_TCHW (0 where hidden), valid_THW (visible), years_T, target (T C H W, standardised) and weight (T 1 H W), with B."""
        found = [self.window(index) for index in indices]
        return {name: torch.from_numpy(np.stack([one[name] for one in found])) for name in found[0]}

    def _place(self, index: int) -> tuple[int, Box]:
        return self.part[index % len(self.part)]

    def _sides(self, box: Box) -> tuple[int, ...]:
        return tuple(min(self.settings.window_px, size) for size in box.shape)

    def window(self, index: int) -> dict[str, np.ndarray]:
        """The arrays of one window."""
        (s, box), rng = self._place(index), np.random.default_rng([self.seed, self.epoch, index])
        images, sides = self.images[s], self._sides(box)
        starts = [int(rng.integers(start, stop - side + 1)) for start, stop, side in zip(box.start, box.stop, sides, strict=True)]
        at = tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))
        x_TCHW, valid_THW, years_T = np.array(images.x_TCHW[:, :, *at]), np.array(images.valid_THW[:, *at]), images.years_T
        if not self.is_fixed:
            x_TCHW, valid_THW = self._turned(x_TCHW, valid_THW, rng)
            jitter_days = self.settings.jitter_days * (self.year_days / DAYS_A_YEAR)
            years_T = years_T + np.float32(rng.uniform(-jitter_days, jitter_days) / DAYS_A_YEAR)
        hidden_THW, counts_THW = self.hiding.draw(valid_THW, rng)
        axes = x_TCHW.ndim - 2
        mean_C, std_C = (one.reshape(-1, *[1] * axes) for one in (self.mean_C, self.std_C))
        visible_THW = valid_THW & ~hidden_THW
        arrays = {
            "x_TCHW": np.where(visible_THW[:, None], x_TCHW, np.float32(0)),
            "valid_THW": visible_THW,
            "years_T": years_T,
            "target": ((x_TCHW - mean_C) / std_C).astype(np.float32),
            "weight": (counts_THW & valid_THW)[:, None].astype(np.float32),
        }
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    def _turned(self, x_TCHW: np.ndarray, valid_THW: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        turn, flip = int(rng.integers(4)), bool(rng.integers(2))
        if not self.settings.symmetries or x_TCHW.shape[-1] != x_TCHW.shape[-2]:
            return x_TCHW, valid_THW
        found = [np.rot90(one, turn, axes=(-2, -1)) for one in (x_TCHW, valid_THW)]
        return (found[0][..., ::-1], found[1][..., ::-1]) if flip else (found[0], found[1])


def statistics_of(windows: HiddenWindows) -> tuple[np.ndarray, np.ndarray]:
    """(mean_C, std_C) float32 of the variables over usable pixels of at most `MEASURED` windows; a constant one has std 1.

    Raises RequestError where there are none.
    """
    total, squares, count = 0.0, 0.0, 0
    for index in range(min(len(windows), MEASURED)):
        one = windows.window(index)
        seen_THW = one["valid_THW"] | (one["weight"][:, 0] > 0)
        values_PC = np.moveaxis(one["target"], 1, -1)[seen_THW].astype(np.float64)
        total, squares, count = total + values_PC.sum(axis=0), squares + (values_PC**2).sum(axis=0), count + len(values_PC)
    if not count:
        raise RequestError("no window has a usable pixel; correct the source's valid_range, the quality mask or the spans")
    mean_C = np.asarray(total / count)
    std_C = np.sqrt(np.maximum(squares / count - mean_C**2, 0))
    std_C[std_C <= 1e-9 * np.abs(mean_C)] = 1.0
    return mean_C.astype(np.float32), std_C.astype(np.float32)


def interpolated(x_TP: np.ndarray, visible_TP: np.ndarray, years_T: np.ndarray) -> np.ndarray:
    """value_TP of each pixel: linear in time between its visible dates, constant beyond them; 0 without any.

    >>> interpolated(np.array([[1.0], [9.0], [3.0]]), np.array([[True], [False], [True]]), np.array([0.0, 0.5, 1.0])).ravel()
    array([1., 2., 3.])
    """
    dates, date_T1 = len(years_T), np.arange(len(years_T))[:, None]
    before_TP = np.maximum.accumulate(np.where(visible_TP, date_T1, -1))
    after_TP = np.minimum.accumulate(np.where(visible_TP, date_T1, dates)[::-1])[::-1]
    first_TP = np.where(before_TP >= 0, before_TP, after_TP) % dates
    second_TP = np.where(after_TP < dates, after_TP, before_TP)
    gap_TP = years_T[second_TP] - years_T[first_TP]
    share_TP = np.divide(years_T[:, None] - years_T[first_TP], gap_TP, out=np.zeros(x_TP.shape), where=gap_TP > 0)
    first, second = (np.take_along_axis(x_TP, at_TP, axis=0) for at_TP in (first_TP, second_TP))
    value_TP: np.ndarray = np.where(visible_TP.any(axis=0), first + share_TP * (second - first), 0.0)
    return value_TP


def error_of_interpolation(windows: HiddenWindows) -> float | None:
    """Mean absolute error of `interpolated`, in standard deviations, over what the windows hide; None: nothing is hidden."""
    error, weight = 0.0, 0.0
    for index in range(len(windows)):
        one = windows.window(index)
        counted_TP = one["weight"][:, 0].reshape(len(one["years_T"]), -1)
        visible_TP = one["valid_THW"].reshape(counted_TP.shape)
        for target_THW in np.moveaxis(one["target"], 1, 0):
            target_TP = target_THW.reshape(counted_TP.shape)
            value_TP = interpolated(target_TP, visible_TP, one["years_T"])
            error, weight = error + float((np.abs(value_TP - target_TP) * counted_TP).sum()), weight + float(counted_TP.sum())
    return error / weight if weight else None
