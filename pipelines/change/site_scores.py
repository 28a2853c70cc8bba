"""Scores over whole sites, in files: networks and change indices, each computed once for everything that it depends on.

Scores are computed tile by tile: every tile sees its whole halo, so the tiles are the whole, and only one window is in memory.
Shapes: T dates, C channels, H rows, W columns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pipelines.change.evaluation import HeldOut, standardised
from pipelines.change.networks import NamedIndex, TrainedNetwork
from pipelines.change.sites import Sites
from pipelines.cube.store import open_cube
from pipelines.errors import RequestError, StateError
from pipelines.files import replacing
from pipelines.inference.tiling import window_of
from pipelines.predictors import ChangeDetector, ChangeIndex
from pipelines.samples.decoded_sites import LabelledSite, frame_of, key_of, new_array
from pipelines.samples.pairs import read_prepared, site_of_cube
from pipelines.tiles import Box

Score = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class SiteScores:
    """Scores of `sites` as memory maps in `folder`, each made once; sites are scored in tiles of `tile_px`.

    All are (H, W) float32 over the whole site, NaN where fewer than two dates saw the pixel.
    """

    sites: Sites
    folder: Path
    tile_px: int

    def logits(self, name: str, detector: ChangeDetector, member: int, key: str) -> np.ndarray:
        """logit_HW of one network of a detector; `key` names the network."""
        score = partial(detector.member_logit, member)
        return self._file(name, key, partial(score_site, self.sites.all[name], score, detector, self.tile_px))

    def index(self, name: str, named: NamedIndex) -> np.ndarray:
        """score_HW of a change index on what the networks see."""

        def score(x_TCHW: torch.Tensor, valid_THW: torch.Tensor, _days_T: torch.Tensor) -> torch.Tensor:
            return named.index.score(x_TCHW, valid_THW)

        key = key_of(index=named.name, sites=self.sites.key)
        return self._file(name, key, partial(score_site, self.sites.all[name], score, named.index, self.tile_px))

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


def score_site(site: LabelledSite, score: Score, model: ChangeDetector | ChangeIndex, tile_px: int, out_HW: np.ndarray) -> None:
    """Fills `out_HW` (float32) with `score(x_TCHW, valid_THW, days_T)`; NaN where no or only one date saw the pixel.

    A window starts at multiples of the model's `stride_px`, where a network's cells do, and reaches its `halo_px` beyond its
    tile or to the raster's edge. Raises StateError where the score has another shape, RequestError where a score without a
    finite halo would need several tiles.
    """
    tiles, halo_px = Box.whole(site.shape_yx).cut(tile_px), model.halo_px(len(site.days_T))
    if halo_px is None and len(tiles) > 1:
        raise RequestError(
            f"this score needs the whole raster of {site.shape_yx} (y, x) at once: set prediction.tile_px to at least "
            f"{max(site.shape_yx)}, or take a network with a finite halo"
        )
    for tile in tiles:
        window = window_of(tile, halo_px or (0, 0), site.shape_yx, model.stride_px)
        rows, columns = tile.within(window)
        x_TCHW, valid_THW = (array[..., window.rows, window.columns] for array in (site.x_TCHW, site.valid_THW))
        seen_HW = np.count_nonzero(valid_THW[:, rows, columns], axis=0) >= 2
        if not seen_HW.any():
            out_HW[tile.rows, tile.columns] = np.nan
            continue
        score_HW = score(*(torch.from_numpy(np.ascontiguousarray(array)) for array in (x_TCHW, valid_THW, site.days_T))).numpy()
        if score_HW.shape != window.shape:
            raise StateError(f"the score of a window of {window.shape} (y, x) has shape {score_HW.shape}")
        out_HW[tile.rows, tile.columns] = np.where(seen_HW, score_HW[rows, columns], np.nan)


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
