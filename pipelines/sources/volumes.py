"""What the sources of volumes share: one band, volumes on one grid, LPS and RAS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.errors import SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Asset, Band, Scene

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])  # NIfTI's x and y point the other way (and back: it is its own inverse)


def require_grid(scene: Scene, there: Grid, asked: Grid) -> None:
    """Raises SceneRefused(wrong-grid) unless the volume is on the grid that is asked for."""
    if not there.is_aligned(asked):
        sizes = (" x ".join(map(str, grid.shape)) for grid in (there, asked))
        detail = "it has {} voxels at another position, the cube {}; volumes are not resampled: register them first".format(
            *sizes
        )
        raise SceneRefused(scene.id, "wrong-grid", detail)


def stored_bytes(values: np.ndarray) -> np.ndarray:
    """The same values in the byte order of this machine; int8 as int16, which the cube's readers know."""
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return native.astype(np.int16) if native.dtype == np.int8 else native


def scene_of(number: int, moment: np.datetime64, band: str, parts: Sequence[Asset], width: int = 4) -> Scene:
    """The scene of the time with this number (zero-based); its further assets are the other files of the volume, in order.

    Its label stands in the cube for the names of its files, which may name a patient.
    """
    assets: Mapping[str, Asset] = {band if not k else f"{band}/{k:05d}": asset for k, asset in enumerate(parts)}
    return Scene(f"frame-{number:0{width}d}", moment, dict(assets), label=f"frame {number}")


def completed_band(asked: Band, scale: float, offset: float, nodata: float | None, unit: str) -> Band:
    """The band of the cube: what the config states, else what the files do."""
    return asked.completed(Band(asked.name, scale, offset, nodata, unit))
