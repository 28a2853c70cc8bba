"""The fields of a forecast on their way to the products: one number per pixel, target date, variable and role."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.inference.regions import Plane, Regions

ROLES = ("forecast", "lower", "upper")


@dataclass(frozen=True, order=True)
class Field:
    """One number per pixel: `role` (forecast, lower or upper) of a variable at the `target`-th target date (zero-based)."""

    target: int
    variable: str
    role: str

    @property
    def plane(self) -> Plane:
        return Plane(f"{self.target:03d}-{self.variable}-{self.role}")


@dataclass(frozen=True)
class Staged:
    """Finished or incomplete fields; each is float32 of `shape`, NaN = no data."""

    regions: Regions
    fields: tuple[Field, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.regions.shape

    @property
    def uri(self) -> str:
        """Where they are, for messages."""
        return self.regions.uri

    def read(self, field: Field, *slices: slice) -> np.ndarray:
        """A copy of the field at `slices`, one per axis from the first on (the rest whole), float32. Reads no other rows."""
        return self.regions.read(field.plane, *slices)
