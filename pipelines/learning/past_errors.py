"""Errors of forecasters on the windows of the past, of some pixels of each frame, by lead and target date.

Axes as in `conformal`; n errors of single pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pipelines.calendar import seconds_of
from pipelines.compute import HERE, Compute
from pipelines.errors import RequestError
from pipelines.learning.window_work import Pass, WindowTally, tell_all
from pipelines.predictors import Forecaster
from pipelines.progress import Progress
from pipelines.samples.sampling import WindowArrays
from pipelines.samples.variables import transformed

ENOUGH_WINDOWS = 1000  # of the past


class Sampled(NamedTuple):
    """Some valid pixels of a frame: their places in the flat image, and how many valid ones there are."""

    lead: int
    seconds: float
    place_n: np.ndarray
    valid: int


class SampledFrame(NamedTuple):
    """A frame of which pixels were sampled, and how many valid ones it has."""

    lead: int
    seconds: float
    valid: int


def sample_pixels(window: WindowArrays, pixels_per_frame: int, rng: np.random.Generator | None) -> list[Sampled]:
    """At most `pixels_per_frame` random valid target pixels of each lead that has any."""
    assert rng is not None, "a tally that samples has a generator"
    found = []
    for k, (day, valid_HW) in enumerate(zip(window.target_days_K.tolist(), window.target_valid_KHW.numpy(), strict=True)):
        (place_n,) = np.nonzero(valid_HW.reshape(-1))
        if (count := len(place_n)) > 0:
            some_n = place_n if count <= pixels_per_frame else np.sort(rng.choice(place_n, pixels_per_frame, replace=False))
            found.append(Sampled(k, float(seconds_of(day)), some_n, count))
    return found


def values_at(image_CHW: np.ndarray, place_n: np.ndarray) -> np.ndarray:
    """(C, n)."""
    return image_CHW.reshape(len(image_CHW), -1)[:, place_n]


@dataclass
class Errors:
    """Errors (truth - forecast) of one forecaster by lead and target date: some of each frame, and how many there were.

    On the scale of the variables' transforms; none where `transforms_C` is empty.
    """

    transforms_C: tuple[str, ...] = ()
    of_frame: dict[tuple[int, float], list[np.ndarray]] = field(default_factory=dict)  # (lead, seconds): [(2, C, n)]
    pixels: dict[tuple[int, float], int] = field(default_factory=dict)

    def measure(self, window: WindowArrays, y_KCHW: np.ndarray, sampled: list[Sampled]) -> list[np.ndarray]:
        """(2, C, n) of each sampled frame: errors, and forecasts."""
        target_KCHW, found = window.target_KCHW.numpy(), []
        for k, _, place_n, _ in sampled:
            truth_Cn, y_Cn = (self._scaled(values_at(image_KCHW[k], place_n)) for image_KCHW in (target_KCHW, y_KCHW))
            found.append(np.stack([truth_Cn - y_Cn, y_Cn]))
        return found

    def include(self, frames: list[np.ndarray], sampled: list[SampledFrame]) -> None:
        for error_2Cn, (k, seconds, valid) in zip(frames, sampled, strict=True):
            self.of_frame.setdefault((k, seconds), []).append(error_2Cn)
            self.pixels[k, seconds] = self.pixels.get((k, seconds), 0) + valid

    def _scaled(self, value_Cn: np.ndarray) -> np.ndarray:
        if not any(transform != "none" for transform in self.transforms_C):
            return value_Cn
        return np.stack([transformed(value_n, transform) for value_n, transform in zip(value_Cn, self.transforms_C, strict=True)])

    def joined(self, other: Errors) -> Errors:
        keys = self.pixels.keys() | other.pixels.keys()
        frames = {key: self.of_frame.get(key, []) + other.of_frame.get(key, []) for key in keys}
        return Errors(self.transforms_C, frames, {key: self.pixels.get(key, 0) + other.pixels.get(key, 0) for key in keys})

    @property
    def leads(self) -> int:
        return 1 + max((k for k, _ in self.pixels), default=-1)

    @property
    def dates(self) -> int:
        """Of the lead that has the fewest."""
        return min(sum(key[0] == k for key in self.pixels) for k in range(self.leads))

    def frame(self, key: tuple[int, float]) -> np.ndarray:
        """All errors of a lead and date, and the forecasts that they were made with, (2, C, n) float64."""
        return np.concatenate(self.of_frame[key], axis=2).astype(np.float64)

    def mean_C(self) -> np.ndarray:
        """Mean absolute error of each variable, (C,)."""
        sums = [np.abs(self.frame(key)[0]).mean(axis=1) * count for key, count in self.pixels.items()]
        mean_C: np.ndarray = np.sum(sums, axis=0) / sum(self.pixels.values())
        return mean_C


class ErrorsTally(WindowTally):
    """Collects the errors of several forecasters on the same pixels, some of each frame."""

    def __init__(self, errors: Mapping[str, Errors], pixels_per_frame: int, rng: np.random.Generator):
        self.errors, self.pixels_per_frame, self.rng = dict(errors), pixels_per_frame, rng

    def draw(self, window: WindowArrays, names: Sequence[str]) -> None:
        sample_pixels(window, self.pixels_per_frame, self.rng)

    def measure(
        self, window: WindowArrays, forecasts: Mapping[str, np.ndarray], rng: np.random.Generator | None
    ) -> tuple[list[SampledFrame], dict[str, list[np.ndarray]]]:
        sampled = sample_pixels(window, self.pixels_per_frame, rng)
        frames = {name: errors.measure(window, forecasts[name], sampled) for name, errors in self.errors.items()}
        return [SampledFrame(one.lead, one.seconds, one.valid) for one in sampled], frames

    def include(self, measured: tuple[list[SampledFrame], dict[str, list[np.ndarray]]]) -> None:
        sampled, frames = measured
        for name, errors in self.errors.items():
            errors.include(frames[name], sampled)


def collect(
    forecasters: Mapping[str, Forecaster], past: Sequence[str], training: Iterable[WindowArrays],
    validation: Iterable[WindowArrays], progress: Progress | None, pixels_per_frame: int, seed: int,
    transforms_C: tuple[str, ...] = (), others: Sequence[WindowTally] = (), compute: Compute = HERE,
) -> tuple[dict[str, Errors], dict[str, Errors]]:  # fmt: skip
    """(errors of all on validation, errors of `past` on training), by name; of all on the same pixels.

    others: further tallies that are told of validation.
    """
    rng = np.random.default_rng(seed)  # of one pass after the other
    recent, former = ({name: Errors(transforms_C) for name in names} for names in (forecasters, past))
    passes = [Pass(forecasters, validation, [ErrorsTally(recent, pixels_per_frame, rng), *others])]
    if past:
        methods = {name: forecasters[name] for name in past}
        passes.append(Pass(methods, training, [ErrorsTally(former, pixels_per_frame, rng)], ENOUGH_WINDOWS))
    tell_all(passes, compute, progress)
    pixels = next(iter(recent.values())).pixels
    if not pixels or len({k for k, _ in pixels}) <= max(k for k, _ in pixels):
        raise RequestError("a lead has no valid pixel in the calibration windows; mend `split` or samples.min_valid_fraction")
    return recent, former
