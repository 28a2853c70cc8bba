"""The visits of one patient on one grid: what every step of a follow-up works on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.grid import Grid


@dataclass(frozen=True)
class Patient:
    """Images of all visits that are used, in the order of time; masks lie on the same grid.

    `name` is a pseudonym. `images_TZYX` is float32, NaN where a visit shows nothing. `times` are datetime64[ns], moved by
    de-identification, or counted from `pipelines.calendar.UNKNOWN_ORIGIN` where nothing states a date. `visits`: what the pattern
    calls them. `brain_ZYX` limits where lesions may lie; `lesions_TZYX` are codes of each visit's lesions (0 is none);
    `reference_ZYX` is change that readers marked. None: not given.
    """

    name: str
    grid: Grid
    times: np.ndarray
    visits: tuple[str, ...]
    images_TZYX: np.ndarray
    brain_ZYX: np.ndarray | None = None
    lesions_TZYX: np.ndarray | None = None
    reference_ZYX: np.ndarray | None = None
    is_dated: bool = False

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in ml."""
        return float(abs(np.linalg.det(self.grid.matrix[:3, :3]))) / 1000.0
