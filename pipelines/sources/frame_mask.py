"""Overlays and borders of images that must not be used: boxes, or a picture of the same size."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.errors import RequestError
from pipelines.scene import Asset
from pipelines.sources.pictures import read_codes

Edges = tuple[int, int, int, int]  # first row, first column, one past the last row, one past the last column


@dataclass(frozen=True)
class FrameMask:
    """Pixels inside one of `boxes`, and those that are not 0 in the picture `file`, are masked: stored as 0 and never valid."""

    boxes: tuple[Edges, ...] = ()
    file: Path | None = None

    @property
    def is_empty(self) -> bool:
        return not self.boxes and self.file is None

    @property
    def assets(self) -> dict[str, Asset]:
        """The file, as one of each scene: when it changes, every frame is read again."""
        return {} if self.file is None else {"mask": Asset(str(self.file))}

    def masked(self, shape_yx: tuple[int, int]) -> np.ndarray:
        """(rows, columns) bool, not to be written to.

        Raises RequestError: a box outside the frames, a picture of another size, nothing left.
        """
        return _masked(self, shape_yx, 0 if self.file is None or not self.file.exists() else self.file.stat().st_mtime_ns)

    def apply(self, planes_BYX: np.ndarray) -> np.ndarray:
        """The planes with what is masked taken out: a masked array, 0 below the mask; without a mask the planes themselves."""
        if self.is_empty:
            return planes_BYX
        masked_YX = self.masked(planes_BYX.shape[1:])
        values = np.where(masked_YX, planes_BYX.dtype.type(0), planes_BYX)
        return np.ma.MaskedArray(values, np.broadcast_to(masked_YX, values.shape))

    def notes(self, shape_yx: tuple[int, int]) -> list[str]:
        if self.is_empty:
            return []
        return [f"{self.masked(shape_yx).mean():.1%} of each frame is masked: stored as 0 and never used"]


NO_MASK = FrameMask()


@functools.lru_cache(maxsize=4)
def _masked(mask: FrameMask, shape_yx: tuple[int, int], mtime_ns: int) -> np.ndarray:
    masked_YX = np.zeros(shape_yx, bool)
    for box in mask.boxes:
        row, column, row_end, column_end = box
        if row_end > shape_yx[0] or column_end > shape_yx[1]:
            raise RequestError(
                f"source.mask: the box {list(box)} leaves the frames of {shape_yx[0]} x {shape_yx[1]} pixels (rows x columns); "
                "its order is first row, first column, one past the last row, one past the last column"
            )
        masked_YX[row:row_end, column:column_end] = True
    if mask.file is not None:
        codes_YX, _ = read_codes(mask.file)
        if codes_YX.shape != tuple(shape_yx):
            sizes = f"{codes_YX.shape[0]} x {codes_YX.shape[1]} pixels, the frames have {shape_yx[0]} x {shape_yx[1]}"
            raise RequestError(f"source.mask_file: {mask.file.name} has {sizes} (rows x columns); draw it on a frame")
        masked_YX |= codes_YX != 0
    if masked_YX.all():
        raise RequestError("source.mask: the whole frame is masked, so nothing is left")
    masked_YX.setflags(write=False)
    return masked_YX
