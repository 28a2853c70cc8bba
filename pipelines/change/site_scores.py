"""Scores over whole sites, in files: networks and change indices, each computed once for everything that it depends on.

Scores are computed tile by tile: every tile sees its whole halo, so the tiles are the whole, and only one window is in memory.
Shapes: T dates, C channels, H rows, W columns.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from pipelines.change.evaluation import HeldOut, standardised
from pipelines.change.networks import NamedIndex, TrainedNetwork
from pipelines.change.sites import Sites
from pipelines.compute import HERE, Compute
from pipelines.cube.store import open_cube
from pipelines.errors import RequestError, StateError
from pipelines.files import replacing
from pipelines.inference.tiling import window_of
from pipelines.predictors import ChangeDetector, ChangeIndex
from pipelines.samples.decoded_sites import LabelledSite, frame_of, key_of, new_array
from pipelines.samples.pairs import read_prepared, site_of_cube
from pipelines.tiles import Box


class Scorer(Protocol):
    """What gives each pixel of a window a score; its model says how much of the surroundings it needs."""

    @property
    def model(self) -> ChangeDetector | ChangeIndex: ...
    def score(self, x_TCHW: torch.Tensor, valid_THW: torch.Tensor, days_T: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True)
class NetworkScore:
    """logit_HW of one network of a detector, which works on `device` ("": the CPU)."""

    model: ChangeDetector
    member: int
    device: str = ""

    def score(self, x_TCHW: torch.Tensor, valid_THW: torch.Tensor, days_T: torch.Tensor) -> torch.Tensor:
        there = (one.to(self.device or "cpu") for one in (x_TCHW, valid_THW, days_T))
        return self.model.member_logit(self.member, *there).cpu()


@dataclass(frozen=True)
class IndexScore:
    """score_HW of a change index on what the networks see."""

    model: ChangeIndex

    def score(self, x_TCHW: torch.Tensor, valid_THW: torch.Tensor, _days_T: torch.Tensor) -> torch.Tensor:
        return self.model.score(x_TCHW, valid_THW)


@dataclass(frozen=True)
class Wanted:
    """A score of a whole site; `key` names all that it depends on but the tiles."""

    site: str
    key: str
    by: Scorer

    @property
    def name(self) -> str:
        """Of its file, without an ending."""
        return f"{self.site}-{self.key[:16]}"


@dataclass(frozen=True)
class SiteScores:
    """Scores of `sites` as memory maps in `folder`, each made once; sites are scored in tiles of `tile_px`.

    `compute`: where scores are made that `pipelines.change.score_work` makes; a single one that is asked for is made here.
    All are (H, W) float32 over the whole site, NaN where fewer than two dates saw the pixel.
    """

    sites: Sites
    folder: Path
    tile_px: int
    compute: Compute = HERE

    def of_network(self, name: str, detector: ChangeDetector, member: int, key: str) -> Wanted:
        """logit_HW of one network of a detector; `key` names the network."""
        key = key_of(network=key, device="cuda") if self.compute.gpus else key  # it rounds otherwise
        return Wanted(name, key, NetworkScore(detector, member))

    def of_detector(self, name: str, detector: ChangeDetector, model_hash: str, members: Iterable[int]) -> dict[int, Wanted]:
        """member -> its logit_HW, of the networks of a saved detector."""
        keys = {i: key_of(detector=model_hash, member=i, sites=self.sites.key) for i in members}
        return {i: self.of_network(name, detector, i, key) for i, key in keys.items()}

    def of_index(self, name: str, named: NamedIndex) -> Wanted:
        """score_HW of a change index on what the networks see."""
        return Wanted(name, key_of(index=named.name, sites=self.sites.key), IndexScore(named.index))

    def missing(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        """Those whose files are not there, once each."""
        by_name = {one.name: one for one in wanted}
        return [one for name, one in by_name.items() if not (self.folder / f"{name}.npy").exists()]

    def logits(self, name: str, detector: ChangeDetector, member: int, key: str) -> np.ndarray:
        return self.of(self.of_network(name, detector, member, key))

    def index(self, name: str, named: NamedIndex) -> np.ndarray:
        return self.of(self.of_index(name, named))

    def of(self, wanted: Wanted) -> np.ndarray:
        """The score, computed tile by tile where its file is not there."""
        return self._file(wanted.site, wanted.key, partial(score_site, self.sites.all[wanted.site], wanted.by, self.tile_px))

    def fused_index(self, name: str, named: NamedIndex | None) -> np.ndarray | None:
        """score_HW of the index that networks are fused with; None for none."""
        return None if named is None else self.index(name, named)

    def reference(self, name: str, named: NamedIndex) -> np.ndarray:
        """score_HW of an index as a method of its own, on the site's prepared dates; the whole site is in memory.

        An index that networks are fused with sees what they see: the same figures, fused or alone.
        """
        if named.is_comparable:
            return self.index(name, named)
        files, (height, width) = self.sites.files[name], self.sites.all[name].shape_yx

        def fill(out_HW: np.ndarray) -> None:
            source = site_of_cube(name, open_cube(files.cube_uri, files.snapshot), files.bands)
            dates = read_prepared(source, frame_of(files.decoded).pair, Box.whole((height, width)))
            out_HW[:] = named.index.score(*(torch.from_numpy(array) for array in dates)).numpy()

        return self._file(name, key_of(reference=named.name, sites=self.sites.key), fill)

    def comparable(self, name: str, named: NamedIndex) -> np.ndarray:
        """`reference` in a form for which one threshold serves every site: as it is, or standardised by the site."""
        score_HW = self.reference(name, named)
        return score_HW if named.is_comparable else standardised(score_HW, self.sites.truths[name].seen_HW)

    def of_group(self, network: TrainedNetwork, fused: NamedIndex | None, group: int) -> list[Wanted]:
        """What `held_out` needs."""
        names = dict.fromkeys(region.site for region in self.sites.grouping.groups[group])
        indices = [] if fused is None else [self.of_index(name, fused) for name in names]
        return [*(self.of_network(name, network.detector, 0, network.key) for name in names), *indices]

    def held_out(self, network: TrainedNetwork, fused: NamedIndex | None, group: int) -> list[HeldOut]:
        """The regions of a group as a network sees them that was not trained on it."""
        found = []
        for site, tile in ((region.site, region.tile) for region in self.sites.grouping.groups[group]):
            logit_HW = self.logits(site, network.detector, 0, network.key)[tile.rows, tile.columns]
            index_HW = self.fused_index(site, fused)
            index_HW = None if index_HW is None else np.asarray(index_HW[tile.rows, tile.columns])
            found.append(HeldOut(site, np.asarray(logit_HW), index_HW, self.sites.truths[site].cut(tile)))
        return found

    def _file(self, name: str, key: str, fill: Callable[[np.ndarray], None]) -> np.ndarray:
        return score_file(self.folder / f"{name}-{key[:16]}.npy", self.sites.all[name].shape_yx, fill)


def score_site(site: LabelledSite, by: Scorer, tile_px: int, out_HW: np.ndarray) -> None:
    """Fills `out_HW` (float32), as `score_tile` does tile by tile."""
    check_tiles(by, site.shape_yx, len(site.days_T), tile_px)
    for tile in Box.whole(site.shape_yx).cut(tile_px):
        out_HW[tile.rows, tile.columns] = score_tile(site, by, tile)


def check_tiles(by: Scorer, shape_yx: tuple[int, int], dates: int, tile_px: int) -> None:
    """Raises RequestError where a score without a finite halo would need several tiles."""
    if by.model.halo_px(dates) is None and max(shape_yx) > tile_px:
        raise RequestError(
            f"this score needs the whole raster of {shape_yx} (y, x) at once: set prediction.tile_px to at least "
            f"{max(shape_yx)}, or take a network with a finite halo"
        )


def score_tile(site: LabelledSite, by: Scorer, tile: Box) -> np.ndarray:
    """score_HW of a tile, float32; NaN where no or only one date saw the pixel.

    A window starts at multiples of the model's `stride_px`, where a network's cells do, and reaches its `halo_px` beyond its
    tile or to the raster's edge. Raises StateError where the score has another shape.
    """
    window = window_of(tile, by.model.halo_px(len(site.days_T)) or (0, 0), site.shape_yx, by.model.stride_px)
    rows, columns = tile.within(window)
    x_TCHW, valid_THW = (array[..., window.rows, window.columns] for array in (site.x_TCHW, site.valid_THW))
    seen_HW = np.count_nonzero(valid_THW[:, rows, columns], axis=0) >= 2
    if not seen_HW.any():
        return np.full(tile.shape, np.nan, np.float32)
    score_HW = by.score(*(torch.from_numpy(np.ascontiguousarray(array)) for array in (x_TCHW, valid_THW, site.days_T))).numpy()
    if score_HW.shape != window.shape:
        raise StateError(f"the score of a window of {window.shape} (y, x) has shape {score_HW.shape}")
    return np.where(seen_HW, score_HW[rows, columns], np.nan).astype(np.float32)


def score_file(path: Path, shape_yx: tuple[int, int], fill: Callable[[np.ndarray], None]) -> np.ndarray:
    """The scores in the `.npy` file at `path`, a memory map; `fill(out_HW)` makes them where the file is not there yet.

    The file is there as a whole or not at all; its name must identify what it was made from.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, flush=False, mark="partial") as draft:
            out_HW = new_array(draft, np.float32, shape_yx)
            fill(out_HW)
            out_HW.flush()
    score_HW: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return score_HW
