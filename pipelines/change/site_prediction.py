"""A detector over a whole site: how likely every pixel has changed, and a mask."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.change.decision import fused_probability
from pipelines.change.metrics import UNKNOWN
from pipelines.change.networks import NamedIndex
from pipelines.change.site_scores import SiteScores, Wanted
from pipelines.predictors import ChangeDetector
from pipelines.progress import Progress
from pipelines.samples.decoded_sites import new_array
from pipelines.samples.site_groups import Grouping
from pipelines.tiles import Box

STRIP_PX = 1 << 22  # pixels that are fused at a time


@dataclass(frozen=True)
class SiteChange:
    """Change in a site, memory maps: `probability_HW` (float32, NaN: not seen), `mask_HW` (uint8; 0, 1, 255: not seen)."""

    probability_HW: np.ndarray
    mask_HW: np.ndarray


def predict_site(
    name: str,
    scores: SiteScores,
    detector: ChangeDetector,
    model_hash: str,
    fused: NamedIndex | None,
    folder: Path,
    progress: Progress,
    *,
    has_seen: bool = True,
) -> SiteChange:
    """Change in a site, written to `folder`. `model_hash` names the detector, `fused` is the index that it is fused with.

    A part that was learnt from is predicted by the network that has not seen it, everything else by all networks; so is all of
    it if the detector was trained on other sites (not `has_seen`).
    """
    shape_yx, members = scores.sites.all[name].shape_yx, _members(name, scores, detector, has_seen=has_seen)
    wanted, logits = scores.of_detector(name, detector, model_hash, sorted({i for one in members.values() for i in one})), {}
    for done, i in enumerate(wanted):
        progress(done, len(wanted))
        logits[i] = scores.of(wanted[i])
    index_HW = scores.fused_index(name, fused)
    folder.mkdir(parents=True, exist_ok=True)
    p_HW = new_array(folder / "probability.npy", np.float32, shape_yx)
    mask_HW = new_array(folder / "mask.npy", np.uint8, shape_yx)
    for at, chosen in ((at, chosen) for tile, chosen in members.items() for at in strips(tile)):
        index = None if index_HW is None else index_HW[at]
        p_HW[at] = fused_probability(detector, [(i, logits[i][at]) for i in chosen], index)
        seen = ~np.isnan(p_HW[at])
        mask_HW[at] = np.where(seen, np.where(seen, p_HW[at], 0) >= detector.threshold, UNKNOWN)
    p_HW.flush()
    mask_HW.flush()
    return SiteChange(p_HW, mask_HW)


def scores_of_site(
    name: str, scores: SiteScores, detector: ChangeDetector, model_hash: str, fused: NamedIndex | None, *, has_seen: bool = True
) -> list[Wanted]:
    """What `predict_site` needs."""
    members = _members(name, scores, detector, has_seen=has_seen)
    networks = scores.of_detector(name, detector, model_hash, sorted({i for one in members.values() for i in one}))
    return [*networks.values(), *([] if fused is None else [scores.of_index(name, fused)])]


def _members(name: str, scores: SiteScores, detector: ChangeDetector, *, has_seen: bool) -> dict[Box, list[int]]:
    grouping = scores.sites.grouping if has_seen else Grouping((), ())
    return members_of(grouping, name, scores.sites.all[name].shape_yx, len(detector.members))


def members_of(grouping: Grouping, name: str, shape_yx: tuple[int, int], members: int) -> dict[Box, list[int]]:
    """tile -> the networks that predict it; later tiles lie over earlier ones."""
    own = {region.tile: [g] for g, group in enumerate(grouping.groups) for region in group if region.site == name}
    return {Box.whole(shape_yx): list(range(members))} | own


def strips(tile: Box) -> list[tuple[slice, slice]]:
    """(rows, columns) of parts of a tile that are small enough for memory."""
    rows = max(1, STRIP_PX // (tile.shape[1]))
    return [(slice(row, min(row + rows, tile.rows.stop)), tile.columns) for row in range(tile.rows.start, tile.rows.stop, rows)]
