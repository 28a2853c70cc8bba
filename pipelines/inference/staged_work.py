"""Work whose pieces are regions of rasters (docs/design/033): the missing ones are made, and a killed call goes on where it was.

make_all(work, compute)            all of them, for whoever holds the run
make_slice(work, share, compute)   a share, beside processes and machines that do the rest
require_all(work)                  every region is there and whole, else StateError names the others
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from filelock import FileLock, Timeout

from pipelines.compute import HERE, Compute, Work, carry_out
from pipelines.errors import CubeBusy, RequestError
from pipelines.inference.regions import Plane, Record, Regions
from pipelines.progress import Progress
from pipelines.samples.decoded_sites import new_array
from pipelines.slices import Slice, SliceDone
from pipelines.stored_files import is_remote
from pipelines.tiles import Box

logger = logging.getLogger(__name__)
MOST_REGIONS = 400  # of a raster: files in its staging, and keys that are sent


@dataclass(frozen=True, order=True)
class Piece:
    """A region of one of a work's rasters."""

    raster: str
    region: Box

    def __str__(self) -> str:
        return f"{self.raster} {self.region.key}".strip()


class StagedWork(Work[Record], Protocol):
    """Work that writes regions; its function takes a `Piece`.

    `rasters`: name ("" of the only one of a run) -> what is staged of it, all below `folder`.
    """

    @property
    def folder(self) -> str: ...
    @property
    def rasters(self) -> Mapping[str, Regions]: ...


def cut_regions(shape: Sequence[int], tile_px: int) -> tuple[Box, ...]:
    """Regions of whole tiles that cover every pixel once: a tile each, of large rasters squares of them, about `MOST_REGIONS`.

    >>> [region.shape for region in cut_regions((30, 20), 16)], len(cut_regions((1600, 1600), 16))
    ([(16, 16), (16, 4), (14, 16), (14, 4)], 400)
    """
    along = 1
    while len(regions := Box.whole(tuple(shape)).cut(along * tile_px)) > MOST_REGIONS:
        along += 1
    return tuple(regions)


def make_all(work: StagedWork, compute: Compute = HERE, progress: Progress | None = None) -> None:
    """Makes every region that is missing or damaged. `progress` counts regions.

    Called again after a kill it goes on, and the bytes equal those of an undisturbed call. What other jobs left is removed.
    Raises CubeBusy if another process works in the folder, StorageFull.
    """
    with exclusive(work.folder):
        for regions in work.rasters.values():
            regions.sweep()
        _make_missing(work, pieces_of(work), compute, progress)


def make_slice(work: StagedWork, share: Slice, compute: Compute = HERE, progress: Progress | None = None) -> SliceDone:
    """Makes those regions of a slice that are missing. Other slices may be at work beside it."""
    own = share.of(pieces_of(work))
    return SliceDone(_make_missing(work, own, compute, progress), len(own))


def require_all(work: StagedWork) -> None:
    """Raises StateError that names regions that are missing or damaged; then removes what other jobs left."""
    for regions in work.rasters.values():
        regions.require_whole()
    for regions in work.rasters.values():
        regions.sweep()


def pieces_of(work: StagedWork) -> list[Piece]:
    return [Piece(name, region) for name, regions in work.rasters.items() for region in regions.parts]


def missing_of(work: StagedWork, pieces: Sequence[Piece]) -> list[Piece]:
    """Those still to be made; says of those that are damaged that they are."""
    found = []
    for name, regions in work.rasters.items():
        if parts := [piece.region for piece in pieces if piece.raster == name]:
            regions.begin()
            for region, why in regions.missing(parts):
                if why:
                    logger.warning("%s; it is predicted again", why)
                found.append(Piece(name, region))
    return found


def _make_missing(work: StagedWork, pieces: Sequence[Piece], compute: Compute, progress: Progress | None) -> int:
    """How many of the pieces were missing."""
    missing = missing_of(work, pieces)
    if progress:
        progress(len(pieces) - len(missing), len(pieces))
    done = 0
    for done, _ in enumerate(carry_out(work, missing, compute) if missing else (), start=1):
        if progress:
            progress(len(pieces) - len(missing) + done, len(pieces))
    return done


def check_worker(work: StagedWork, device: str) -> None:
    """Whether this process can do pieces, for `open`. Raises RequestError where it sees no staging, or no GPU."""
    first = next(iter(work.rasters.values()), None)
    if first is not None and not any(regions.has_begun() for regions in work.rasters.values()):
        raise RequestError(f"this worker does not see {first.uri}: set prediction.staging to a place that all of them share")
    if device:
        import torch

        if not torch.cuda.is_available():
            raise RequestError("compute.gpus is set, but PyTorch sees no GPU here; take it out, or start workers where one is")


def to_file(regions: Regions, plane: Plane, folder: Path) -> np.ndarray:
    """A plane as a memory map in `folder`, for products, which read it in any order. Raises StorageFull, ArtefactDamaged."""
    folder.mkdir(parents=True, exist_ok=True)
    values = new_array(folder / f"{plane.name}.npy", np.dtype(plane.dtype).type, regions.shape)
    copy_plane(regions, plane, values)
    values.flush()
    return values


def copy_plane(regions: Regions, plane: Plane, out: np.ndarray) -> None:
    """Fills `out`, of the raster's shape, a row of regions at a time. Raises ArtefactDamaged."""
    for rows in dict.fromkeys((region.start[0], region.stop[0]) for region in regions.parts):
        out[slice(*rows)] = regions.read(plane, slice(*rows))


@contextmanager
def exclusive(folder: Path | str) -> Iterator[None]:
    """Holds a folder of this machine; in a bucket regions are whole and equal, whoever writes them."""
    if is_remote(str(folder)):
        yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(folder) / "lock", timeout=0)  # held by the kernel, released when its owner ends
    try:
        lock.acquire()
    except Timeout as e:
        raise CubeBusy(f"{folder}: another process predicts into this folder; wait for it or choose another run") from e
    try:
        yield
    finally:
        lock.release()
