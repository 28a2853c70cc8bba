"""Windows around labelled pixels, as training takes them: one pixel for networks per pixel, crops for the others.

Shapes: T dates, C variables, H rows, W columns of a window (of volumes slices, rows, columns); P labels.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from pipelines.samples.class_samples import DAYS_A_YEAR, ClassSamples

MEASURED = 20_000  # labels that mean and standard deviation are taken from


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training window, anew in every epoch.

    symmetries: the eight of the square. noise: standard deviation, in those of the variable. hidden_dates: share of the dates
    hidden. early: share of the windows cut after a random date, so that the network also learns to answer early.
    jitter_days: all dates moved by up to so many days, of 365.25; of series within a day by the same share of their length.
    """

    symmetries: bool = True
    noise: float = 0.05
    hidden_dates: float = 0.1
    early: float = 0.25
    jitter_days: float = 8.0


@dataclass(frozen=True)
class WindowSettings:
    """`window_px`: side of a crop (1: a pixel), in all axes. windows: so many an epoch. class_weights: rare classes weigh more.

    draw: "labels" alike, or "classes": equally many windows of each class, however rare.
    """

    window_px: int
    windows: int
    class_weights: bool = True
    draw: str = "labels"


class ClassWindows:
    """The labels `part_P` (indices) of the samples as a `WindowSet`; `std_C` scales the noise. Fixed without augmentation.

    For training `windows` of them an epoch: labels repeat where they are fewer, else some are drawn in every epoch, of
    each span its share. Without augmentation one per label, at most `windows`, of each class alike. Labels of other parts weigh
    nothing.
    """

    def __init__(
        self, samples: ClassSamples, part_P: np.ndarray, settings: WindowSettings, std_C: np.ndarray,
        augment: Augmentation | None, seed: int,
    ):  # fmt: skip
        self.samples, self.part_P, self.settings, self.std_C = samples, part_P, settings, std_C
        self.augment, self.seed, self.epoch = augment, seed, 0
        labels = samples.labels
        self.maps = [np.full(one.shape, -1, np.int16) for one in samples.images]
        for s, map_HW in enumerate(self.maps):
            p = part_P[labels.span_P[part_P] == s]
            map_HW[labels.place(p)] = labels.class_P[p]
        counts_K = np.bincount(labels.class_P[part_P], minlength=len(labels.classes))
        balanced_K = len(part_P) / np.maximum(counts_K, 1) / max(int(np.count_nonzero(counts_K)), 1)
        is_balanced = settings.draw == "classes" and settings.window_px == 1  # then the windows are
        weighted = settings.class_weights and not is_balanced
        self.weight_K = np.where(counts_K > 0, balanced_K if weighted else 1.0, 0.0).astype(np.float32)
        span_P = labels.span_P[part_P]
        self.of_span = {int(s): np.flatnonzero(span_P == s) for s in np.unique(span_P)}
        share = settings.windows / max(len(part_P), 1)
        share = share if augment is not None else min(1.0, share)
        self.items = [(s, n) for s, members in self.of_span.items() for n in range(max(1, round(share * len(members))))]
        self._draw()

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """(T, H, W) of every window."""
        return [(len(self.samples.images[s].years_T), *self._sides(s)) for s, _ in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def set_epoch(self, epoch: int) -> None:
        if self.augment is not None:
            self.epoch = epoch
            self._draw()

    def _sides(self, s: int) -> tuple[int, ...]:
        return tuple(min(self.settings.window_px, size) for size in self.samples.images[s].shape)

    def _draw(self) -> None:
        """Which label each item stands for in this epoch."""
        rng, class_P = np.random.default_rng([self.seed, self.epoch]), self.samples.labels.class_P[self.part_P]
        counts = Counter(s for s, _ in self.items)
        drawn: dict[int, np.ndarray] = {}
        for s, members in self.of_span.items():
            if self.augment is None:
                drawn[s] = evenly(members, class_P[members], counts[s])
            elif self.settings.draw == "labels":
                drawn[s] = rng.permutation(members)
            else:
                of_class = [rng.permutation(members[class_P[members] == k]) for k in np.unique(class_P[members])]
                turns = range(counts[s])
                drawn[s] = np.array([(own := of_class[n % len(of_class)])[n // len(of_class) % len(own)] for n in turns])
        self.chosen = [int(self.part_P[drawn[s][n % len(drawn[s])]]) for s, n in self.items]

    def gather(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """x_TCHW, valid_THW, years_T, target (1 H W) and weight (1 H W) of equal windows, with a leading B."""
        found = [self._window(index) for index in indices]
        names = ("x_TCHW", "valid_THW", "years_T", "target", "weight")
        return {name: torch.from_numpy(np.stack(arrays)) for name, arrays in zip(names, zip(*found, strict=True), strict=True)}

    def _window(self, index: int) -> tuple[np.ndarray, ...]:
        p, s = self.chosen[index], self.items[index][0]
        rng = np.random.default_rng([self.seed, self.epoch, index])
        images, sides = self.samples.images[s], self._sides(s)
        place = [int(axis_P[p]) for axis_P in self.samples.labels.place()]
        starts = [self._start(*axis, rng) for axis in zip(place, sides, images.shape, strict=True)]
        at = tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))
        x_TCHW, valid_THW = images.x_TCHW[:, :, *at], images.valid_THW[:, *at]
        class_HW, years_T = self.maps[s][at], images.years_T
        weight_HW = np.where(class_HW >= 0, self.weight_K[np.maximum(class_HW, 0)], 0).astype(np.float32)
        target_HW = np.maximum(class_HW, 0).astype(np.int64)
        if self.augment is not None:
            x_TCHW, valid_THW, years_T = self._augmented(x_TCHW, valid_THW, years_T, self.augment, rng)
            if self.augment.symmetries and sides[-2] == sides[-1]:
                turn, flip = int(rng.integers(4)), bool(rng.integers(2))
                x_TCHW, valid_THW, target_HW, weight_HW = (
                    _turned(array, turn, flip) for array in (x_TCHW, valid_THW, target_HW, weight_HW)
                )
        arrays = x_TCHW, valid_THW, years_T, target_HW[None], weight_HW[None]
        return tuple(np.ascontiguousarray(array) for array in arrays)

    def _start(self, at: int, side: int, size: int, rng: np.random.Generator) -> int:
        """First row (or column) of a window of `side` that holds `at`: in its middle, or anywhere in it if augmented."""
        before = side // 2 if self.augment is None else int(rng.integers(side))
        return int(min(max(at - before, 0), size - side))

    def _augmented(
        self, x_TCHW: np.ndarray, valid_THW: np.ndarray, years_T: np.ndarray, augment: Augmentation, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        dates, axes = len(years_T), x_TCHW.ndim - 2
        shown_T = rng.random(dates) >= augment.hidden_dates
        if rng.random() < augment.early:
            shown_T &= np.arange(dates) < rng.integers(1, dates + 1)
        if not shown_T.any():
            shown_T[rng.integers(dates)] = True
        if augment.noise:
            noise = rng.standard_normal(x_TCHW.shape, np.float32) * (augment.noise * self.std_C).reshape(-1, *[1] * axes)
            x_TCHW = x_TCHW + noise.astype(np.float32)
        jitter_days = augment.jitter_days * (self.samples.year_days / DAYS_A_YEAR)
        shift = np.float32(rng.uniform(-jitter_days, jitter_days) / DAYS_A_YEAR)
        return x_TCHW, valid_THW & shown_T.reshape(-1, *[1] * axes), years_T + shift


def _turned(array: np.ndarray, turn: int, flip: bool) -> np.ndarray:
    """One of the eight symmetries of the square, of the last two axes."""
    turned = np.rot90(array, turn, axes=(-2, -1))
    return turned[..., ::-1] if flip else turned


def evenly(members: np.ndarray, class_P: np.ndarray, count: int) -> np.ndarray:
    """`count` of the members in their order, of each class equally many as far as it has them, spread over all of it."""
    if count >= len(members):
        return members
    kinds, sizes = np.unique(class_P, return_counts=True)
    kept, left = [], count
    for turn, k in enumerate(np.argsort(sizes, kind="stable")):
        quota = min(int(sizes[k]), left // (len(kinds) - turn))
        own = members[class_P == kinds[k]]
        kept.append(own[np.linspace(0, len(own) - 1, quota).round().astype(np.int64)])
        left -= quota
    return np.sort(np.concatenate(kept))


def training_statistics(samples: ClassSamples, part_P: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(mean_C, std_C) float32 of the variables over the usable dates of these labels; a constant one has std 1.

    Of at most `MEASURED` labels, drawn at random. 0 and 1 for images that were made comparable.
    """
    if samples.is_comparable:
        bands = samples.images[0].x_TCHW.shape[1]
        return np.zeros(bands, np.float32), np.ones(bands, np.float32)
    if len(part_P) > MEASURED:
        part_P = np.sort(np.random.default_rng(seed).choice(part_P, MEASURED, replace=False))
    values = np.concatenate([x_TC[valid_T] for x_TC, valid_T, _ in samples.series(part_P)])
    mean_C, std_C = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    std_C[std_C <= 1e-9 * np.abs(mean_C)] = 1.0
    return mean_C.astype(np.float32), std_C.astype(np.float32)
