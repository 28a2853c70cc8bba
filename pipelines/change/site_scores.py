"""Scores over whole sites, in files: networks and change indices, each computed once for everything that it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipelines.change.decision import HeldOut
from pipelines.change.evaluation import standardised
from pipelines.change.frames import frame_of
from pipelines.change.networks import NamedIndex, TrainedNetwork
from pipelines.change.pairs import read_prepared, site_of_cube
from pipelines.change.scoring import Score, score_file, score_site
from pipelines.change.sites import Sites, key_of
from pipelines.cube.store import open_cube
from pipelines.predictors import ChangeDetector
from pipelines.tiles import Tile

Halo = tuple[int, ...] | None


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
        steps = len(self.sites.all[name].days_T)

        def score(x_TCHW: np.ndarray, valid_THW: np.ndarray, days_T: np.ndarray) -> np.ndarray:
            return detector.member_logit(member, *(as_tensor(array) for array in (x_TCHW, valid_THW, days_T))).numpy()

        return self._tiled(name, key, score, detector.halo_px(steps), detector.stride_px)

    def index(self, name: str, named: NamedIndex) -> np.ndarray:
        """score_HW of a change index on what the networks see."""
        steps = len(self.sites.all[name].days_T)

        def score(x_TCHW: np.ndarray, valid_THW: np.ndarray, _days_T: np.ndarray) -> np.ndarray:
            return named.index.score(as_tensor(x_TCHW), as_tensor(valid_THW)).numpy()

        key = key_of(index=named.name, sites=self.sites.key)
        return self._tiled(name, key, score, named.index.halo_px(steps), named.index.stride_px)

    def fused_index(self, name: str, named: NamedIndex | None) -> np.ndarray | None:
        """score_HW of the index that networks are fused with; None for none."""
        return None if named is None else self.index(name, named)

    def reference(self, name: str, named: NamedIndex) -> np.ndarray:
        """score_HW of an index as a method of its own, on the site's prepared dates; the whole site is in memory.

        An index that networks are fused with sees what they see: the same figures, fused or alone.
        """
        if named.is_comparable:
            return self.index(name, named)
        files, shape_yx = self.sites.files[name], self.sites.all[name].shape_yx

        def fill(out_HW: np.ndarray) -> None:
            source = site_of_cube(name, open_cube(files.cube_uri, files.snapshot))
            x_TCHW, valid_THW = read_prepared(source, frame_of(files.decoded).pair, Tile(0, shape_yx[0], 0, shape_yx[1]))
            out_HW[:] = named.index.score(torch.from_numpy(x_TCHW), torch.from_numpy(valid_THW)).numpy()

        return score_file(self._path(name, key_of(reference=named.name, sites=self.sites.key)), shape_yx, fill)

    def comparable(self, name: str, named: NamedIndex) -> np.ndarray:
        """`reference` in a form for which one threshold serves every site: as it is, or standardised by the site."""
        score_HW = self.reference(name, named)
        return score_HW if named.is_comparable else standardised(score_HW, self.sites.truths[name].seen_HW)

    def held_out(self, network: TrainedNetwork, fused: NamedIndex | None, group: int) -> list[HeldOut]:
        """The regions of a group as a network sees them that was not trained on it."""
        return [
            HeldOut(
                region,
                self.logits(region.site, network.detector, 0, network.key),
                self.fused_index(region.site, fused),
                self.sites.truths[region.site],
            )
            for region in self.sites.grouping.groups[group]
        ]

    def _tiled(self, name: str, key: str, score: Score, halo_px: Halo, stride_px: tuple[int, ...]) -> np.ndarray:
        """`score` over a decoded site, tile by tile."""
        site = self.sites.all[name]

        def read(tile: Tile) -> tuple[np.ndarray, np.ndarray]:
            return site.x_TCHW[..., tile.rows, tile.columns], site.valid_THW[..., tile.rows, tile.columns]

        def fill(out_HW: np.ndarray) -> None:
            score_site(
                read, site.days_T, site.shape_yx, score,
                halo_px=halo_px, stride_px=stride_px, tile_px=self.tile_px, out_HW=out_HW,
            )  # fmt: skip

        return score_file(self._path(name, key), site.shape_yx, fill)

    def _path(self, name: str, key: str) -> Path:
        return self.folder / f"{name}-{key[:16]}.npy"


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor over a contiguous copy of a part of a memory map."""
    return torch.from_numpy(np.ascontiguousarray(array))
