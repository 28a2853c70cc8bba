"""The protocol of sources of samples: many small series, each with one answer (a label or a number), see docs/design/016.

Shapes: T frames, C bands, HW stands for all axes of space (y, x) or (z, y, x).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pipelines.errors import SceneRefused
from pipelines.scene import Band

FACTS = ("rows", "columns", "frames", "frame_s", "bytes")  # of the files; a stored sample no longer shows them
PLACE_FACTS = ("row", "column", "year", "missing")  # of windows of a cube; missing: share of the frames


@dataclass(frozen=True)
class Sample:
    """One series: `paths` are its files, `index` its place in a file of many.

    `answer`: class or number as text, "" where it is not known. `group`: what must stay together in a split (patient, clip set,
    site). `part`: the part that the data set itself assigns it to (train, test), "" without one. `state`: of a sample without
    files, what changes when it changes.
    """

    id: str
    paths: tuple[Path, ...]
    answer: str = ""
    group: str = ""
    part: str = ""
    index: int = 0
    state: str = ""


@dataclass(frozen=True)
class SampleListing:
    """What a source found, sorted by id. `unused`: files that no sample needs. `notes`: readings that may be doubted."""

    samples: Sequence[Sample] = ()
    refused: Sequence[SceneRefused] = ()
    unused: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Frames:
    """A sample as it was read: `image_TCHW` as stored, `valid_THW` (None: all), `seconds_T` from the first frame (NaN: unknown).

    A frame without a valid pixel is not valid. `facts`: some of FACTS and PLACE_FACTS.
    """

    image_TCHW: np.ndarray
    seconds_T: np.ndarray
    valid_THW: np.ndarray | None = None
    facts: Mapping[str, float] = field(default_factory=dict)

    @property
    def valid_T(self) -> np.ndarray:
        """Whether a frame has a valid pixel."""
        if self.valid_THW is None:
            return np.ones(len(self.image_TCHW), bool)
        return np.asarray(self.valid_THW.any(axis=tuple(range(1, self.valid_THW.ndim))))


class SampleSource(Protocol):
    """Samples of one data set; small enough to be sent to a worker."""

    @property
    def bands(self) -> tuple[Band, ...]: ...

    def list_samples(self) -> SampleListing:
        """Raises RequestError or MissingInput where there is nothing to read."""

    def read(self, sample: Sample) -> Frames:
        """Raises SceneRefused."""


@runtime_checkable
class DescribesItself(Protocol):
    """Sources whose `description` (JSON values) all samples of a store must share, beside bands and frames."""

    @property
    def description(self) -> Mapping[str, Any]: ...


def evenly_spread(frames: int, count: int | None) -> np.ndarray:
    """Indices of at most `count` of so many frames, evenly spread, the first and the last among them.

    >>> evenly_spread(9, 3).tolist(), evenly_spread(2, 3).tolist()
    ([0, 4, 8], [0, 1])
    """
    if count is None or frames <= count:
        return np.arange(frames)
    return np.round(np.linspace(0, frames - 1, count)).astype(int) if count > 1 else np.array([frames // 2])
