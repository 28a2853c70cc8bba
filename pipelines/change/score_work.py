"""Scores over sites as work for `compute`: pieces are tiles of a site and a network or index (docs/design/033).

work = ScoreWork(scores.missing(wanted), ...)
make_all(work, compute), make_slice(work, share) or require_all(work)
keep_scores(work, scores)          each as the file in which `SiteScores` finds it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from pipelines.change.networks import Do
from pipelines.change.site_scores import NetworkScore, Scorer, SiteScores, Wanted, check_tiles, score_file, score_tile
from pipelines.errors import RequestError
from pipelines.inference.regions import Plane, Record, Regions
from pipelines.inference.staged_work import Piece, check_worker, copy_plane, cut_regions, make_all
from pipelines.samples.decoded_sites import key_of, open_site
from pipelines.stored_files import absolute, files_at
from pipelines.tiles import Box

VERSION = 1  # of the meaning of the staged bytes; part of the key
SCORE = Plane("score")
STAGED = "scores"  # folder in the staging


ScoreTile = Callable[[Scorer, Box], np.ndarray]


class Place(Protocol):
    """A site that other processes can open."""

    @property
    def shape_yx(self) -> tuple[int, int]: ...
    def open(self) -> ScoreTile: ...


@dataclass(frozen=True)
class DecodedSite:
    """What networks see of a site lies in `folder`, which all workers see."""

    folder: str
    shape_yx: tuple[int, int]

    def open(self) -> ScoreTile:
        if not Path(self.folder).exists():
            raise RequestError(f"this worker does not see {self.folder}: the run's folder must be one that all of them share")
        return partial(score_tile, open_site(Path(self.folder))[0])


@dataclass(frozen=True)
class ScoreWork:
    """Scores of sites (`pipelines.inference.staged_work`); models travel by value, sites by their folder."""

    wanted: tuple[Wanted, ...]
    sites: Mapping[str, Place]
    tile_px: int
    folder: str
    device: str = ""

    @property
    def on_gpu(self) -> bool:
        return bool(self.device)

    @property
    def key(self) -> str:
        return key_of(scores=[regions.key for regions in self.rasters.values()])

    @cached_property
    def rasters(self) -> dict[str, Regions]:
        found = {}
        for one in self.wanted:
            shape_yx = self.sites[one.site].shape_yx
            key = key_of(version=VERSION, score=one.key, site=one.site, shape=shape_yx, tile_px=self.tile_px, device=self.device)
            folder, parts = f"{self.folder}/{STAGED}/{one.name}", cut_regions(shape_yx, self.tile_px)
            found[one.name] = Regions(folder, key, (SCORE,), shape_yx, parts)
        return found

    def open(self) -> Callable[[Piece], Record]:
        check_worker(self, self.device)
        by_name, opened = {one.name: self._moved(one) for one in self.wanted}, dict[str, ScoreTile]()

        def make(piece: Piece) -> Record:
            wanted, regions = by_name[piece.raster], self.rasters[piece.raster]
            if wanted.site not in opened:
                opened[wanted.site] = self.sites[wanted.site].open()
            with regions.writing(piece.region) as writer:
                for tile in piece.region.cut(self.tile_px):
                    writer.write(tile, {SCORE: opened[wanted.site](wanted.by, tile)})
            return regions.record(piece.region)

        return make

    def _moved(self, wanted: Wanted) -> Wanted:
        """With the networks where they are to work."""
        if not isinstance(wanted.by, NetworkScore):
            return wanted
        wanted.by.model.members[wanted.by.member].to(self.device or "cpu")
        return replace(wanted, by=replace(wanted.by, device=self.device))

    def limit(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def __getstate__(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"folder": absolute(self.folder)}


def score_work(scores: SiteScores, wanted: Sequence[Wanted], staging: str) -> ScoreWork:
    """The scores that are wanted and not there yet. Raises RequestError as `check_tiles`."""
    missing, device = scores.missing(wanted), "cuda" if scores.compute.gpus else ""
    sites = dict[str, Place]()
    for one in missing:
        site, files = scores.sites.all[one.site], scores.sites.files[one.site]
        check_tiles(one.by, site.shape_yx, len(site.days_T), scores.tile_px)
        sites[one.site] = DecodedSite(str(files.decoded.absolute()), site.shape_yx)
    return ScoreWork(tuple(missing), sites, scores.tile_px, staging, device)


def keep_scores(work: ScoreWork, scores: SiteScores) -> None:
    """Every score as the file in which `SiteScores` looks for it; then their regions go. Raises StateError where some lack."""
    for one in work.wanted:
        regions = work.rasters[one.name]
        regions.records()
        score_file(scores.folder / f"{one.name}.npy", work.sites[one.site].shape_yx, partial(copy_plane, regions, SCORE))
    files_at(work.folder).remove(STAGED)


def make_scores(scores: SiteScores, wanted: Sequence[Wanted], do: Do, title: str) -> None:
    """Where `scores.compute` has more than one worker: makes what is missing, so that whoever asks for a score finds its file."""
    if scores.compute.at_once == 1 and scores.compute.is_local and not scores.compute.gpus:
        return
    work = score_work(scores, wanted, str(scores.folder / "staging"))
    if work.wanted:
        do(title, lambda show: make_all(work, scores.compute, show))
        keep_scores(work, scores)
