"""Networks and a change index -> one probability and a threshold, fitted on sites that the networks have not seen.

The detector's two numbers per member and those of the index are fitted here, member by member on the group that it has not
seen; then the threshold is chosen on the fused probability of all these groups together. The same is done for what is shipped
and, with one more group left out, for what is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipelines.change.calibration import CalibrationTally
from pipelines.change.evaluation import Part, Truth, choose_threshold
from pipelines.change.metrics import CHANGED, Threshold, usable_pixels
from pipelines.change.windows import Region
from pipelines.predictors import ChangeDetector


@dataclass(frozen=True)
class HeldOut:
    """A region that a member has not seen: the member's logits, scores of the index (None: no index), the truth; whole sites."""

    region: Region
    logit_HW: np.ndarray
    index_HW: np.ndarray | None
    truth: Truth

    def known(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """(logits, labels bool, index scores) of the region's pixels that are known and seen, flat."""
        tile = self.region.tile
        logit_HW, label_HW = (np.asarray(a[tile.rows, tile.columns]) for a in (self.logit_HW, self.truth.label_HW))
        known = self.truth.known_HW()[tile.rows, tile.columns] & ~np.isnan(logit_HW)
        index = None if self.index_HW is None else np.asarray(self.index_HW[tile.rows, tile.columns])[known]
        return logit_HW[known], label_HW[known] == CHANGED, index


def fit_decision(
    detector: ChangeDetector, held_out: Sequence[Sequence[HeldOut]], log_score: Callable[[Tensor], Tensor]
) -> Threshold:
    """Calibrates the detector and sets its threshold; returns the threshold with what it gives on these sites.

    `held_out[i]` are the regions that member i has not seen. The index is calibrated on `log_score` of its score. Raises
    RequestError where one of the groups holds one class only.
    """
    of_index = CalibrationTally()
    for i, regions in enumerate(held_out):
        of_member, names = CalibrationTally(), ", ".join(dict.fromkeys(one.region.site for one in regions))
        for one in regions:
            logit, is_changed, index = one.known()
            of_member.add(logit, is_changed)
            if index is not None:
                of_index.add(log_score(torch.from_numpy(index)).numpy(), is_changed)
        detector.calibrate_member(i, *of_member.fit(names))
    if of_index.pixels_2S.any():
        detector.calibrate_index(*of_index.fit("all sites together"))
        _calibrate_fusion(detector, held_out)
    threshold = choose_threshold(_fused_parts(detector, held_out))
    detector.set_threshold(threshold.value)
    return threshold


def _calibrate_fusion(detector: ChangeDetector, held_out: Sequence[Sequence[HeldOut]]) -> None:
    """The geometric mean ranks; two numbers make it a probability, fitted on what the members have not seen."""
    detector.calibrate_fusion(1.0, 0.0)
    tally = CalibrationTally()
    for part in _fused_parts(detector, held_out):
        known = usable_pixels(part.label_HW, part.seen_HW, part.score_HW.shape)
        p = torch.from_numpy(part.score_HW[known]).double()
        tally.add(torch.logit(p, eps=1e-9).numpy(), part.label_HW[known] == CHANGED)
    detector.calibrate_fusion(*tally.fit("all sites together"))


def fused_probability(
    detector: ChangeDetector, logits: Sequence[tuple[int, np.ndarray]], index_HW: np.ndarray | None
) -> np.ndarray:
    """p_HW float32 from (member, its logit_HW) of one or several members and the index's score; NaN where any is."""
    members = [detector.member_probability(i, torch.from_numpy(np.array(logit_HW))) for i, logit_HW in logits]
    network_HW = torch.stack(members).mean(dim=0)
    index = None if index_HW is None else detector.index_probability(torch.from_numpy(np.array(index_HW)))
    return detector.fuse(network_HW, index).numpy().astype(np.float32)


def _fused_parts(detector: ChangeDetector, held_out: Sequence[Sequence[HeldOut]]) -> Iterator[Part]:
    for i, regions in enumerate(held_out):
        for one in regions:
            at = one.region.tile.rows, one.region.tile.columns
            index = None if one.index_HW is None else np.asarray(one.index_HW[at])
            p_HW = fused_probability(detector, [(i, np.asarray(one.logit_HW[at]))], index)
            yield Part(p_HW, np.asarray(one.truth.label_HW[at]), np.asarray(one.truth.seen_HW[at]))
