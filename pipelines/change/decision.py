"""Networks and a change index -> one probability and a threshold, fitted on sites that the networks have not seen.

Each network leaves out one group of sites. Its two numbers and those of the index are fitted here, network by network on the
group that it has not seen; then the threshold is chosen on the fused probability of all these groups together. The same is done
for what is shipped and, with one more group left out, for what is evaluated.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.change.evaluation import HeldOut, Part, choose_threshold
from pipelines.change.metrics import CHANGED, Threshold
from pipelines.change.networks import Do, Recipe, TrainedNetwork, train_networks
from pipelines.change.score_work import make_scores
from pipelines.change.site_scores import SiteScores
from pipelines.errors import RequestError
from pipelines.predictors import ChangeDetector

LIMIT = 40.0  # logits beyond it are as good as it
BINS = 8000
STEPS = 100


def train_detector(
    scores: SiteScores, recipe: Recipe, folder: Path, do: Do
) -> tuple[ChangeDetector, Threshold, list[TrainedNetwork]]:
    """The detector that is published: a network without each group, below `folder`, fitted on the groups left out."""
    groups = range(len(scores.sites.grouping))
    members = list(train_networks(scores.sites, recipe, [(g,) for g in groups], folder, do).values())
    wanted = [one for g, network in zip(groups, members, strict=True) for one in scores.of_group(network, recipe.fused, g)]
    make_scores(scores, wanted, do, "score the groups left out")
    detector, threshold = do("calibrate and fuse", lambda _: fit_detector(scores, recipe, members, groups))
    return detector, threshold, members


def fit_detector(
    scores: SiteScores, recipe: Recipe, networks: Sequence[TrainedNetwork], groups: Sequence[int]
) -> tuple[ChangeDetector, Threshold]:
    """(detector, threshold): network i is calibrated on group `groups[i]`, which it has not seen. Raises as `fit_decision`."""
    detector = recipe.build_detector([one.detector.members[0] for one in networks])
    detector.eval()
    held_out = [scores.held_out(network, recipe.fused, group) for network, group in zip(networks, groups, strict=True)]
    return detector, fit_decision(detector, held_out, recipe.log_score)


def fit_decision(
    detector: ChangeDetector, held_out: Sequence[Sequence[HeldOut]], log_score: Callable[[Tensor], Tensor]
) -> Threshold:
    """Calibrates the detector and sets its threshold; returns the threshold with what it gives on these sites.

    `held_out[i]` are the regions that member i has not seen. The index is calibrated on `log_score` of its score. Raises
    RequestError where one of the groups holds one class only.
    """
    of_index = CalibrationTally()
    for i, regions in enumerate(held_out):
        of_member = CalibrationTally()
        for one in regions:
            known = one.truth.known_HW() & ~np.isnan(one.logit_HW)
            is_changed = one.truth.label_HW[known] == CHANGED
            of_member.add(one.logit_HW[known], is_changed)
            if one.index_HW is not None:
                of_index.add(log_score(torch.from_numpy(one.index_HW[known])).numpy(), is_changed)
        detector.calibrate_member(i, *of_member.fit(", ".join(dict.fromkeys(one.site for one in regions))))
    if of_index.pixels_2S.any():
        detector.calibrate_index(*of_index.fit("all sites together"))
        # the geometric mean ranks; two numbers make it a probability
        detector.calibrate_fusion(1.0, 0.0)
        of_fusion = CalibrationTally()
        for p_HW, truth in _fused_parts(detector, held_out):
            known = truth.known_HW()
            logit = torch.logit(torch.from_numpy(p_HW[known]).double(), eps=1e-9)
            of_fusion.add(logit.numpy(), truth.label_HW[known] == CHANGED)
        detector.calibrate_fusion(*of_fusion.fit("all sites together"))
    threshold = choose_threshold(_fused_parts(detector, held_out))
    detector.set_threshold(threshold.value)
    return threshold


def fused_probability(
    detector: ChangeDetector, logits: Sequence[tuple[int, np.ndarray]], index_HW: np.ndarray | None
) -> np.ndarray:
    """p_HW float32 from (member, its logit_HW) of one or several members and the index's score; NaN where any is."""
    members = [detector.member_probability(i, torch.from_numpy(np.array(logit_HW))) for i, logit_HW in logits]
    index = None if index_HW is None else detector.index_probability(torch.from_numpy(np.array(index_HW)))
    return detector.fuse(torch.stack(members).mean(dim=0), index).numpy().astype(np.float32)


def _fused_parts(detector: ChangeDetector, held_out: Sequence[Sequence[HeldOut]]) -> Iterator[Part]:
    for i, regions in enumerate(held_out):
        for one in regions:
            yield fused_probability(detector, [(i, one.logit_HW)], one.index_HW), one.truth


class CalibrationTally:
    """Platt scaling (Platt 1999) of scores that come piece by piece: probability = sigmoid(scale x value + bias).

    Values of unchanged and of changed pixels are counted in bins of 0.01, so any number of pixels fits in 128 kB. The scale is
    never negative: a higher value is never a lower probability. Values that say nothing, or the opposite, give the share of
    changed pixels everywhere.
    """

    def __init__(self) -> None:
        self.pixels_2S = np.zeros((2, BINS), np.int64)  # [unchanged, changed], values ascending

    def add(self, value: np.ndarray, is_changed: np.ndarray) -> None:
        """Flat arrays of one length; values that are NaN are left out."""
        known = ~np.isnan(value)
        index = ((np.clip(value[known], -LIMIT, LIMIT) + LIMIT) * (BINS / (2 * LIMIT))).astype(np.int64)
        index, changed = np.minimum(index, BINS - 1), is_changed[known]
        for row, chosen in enumerate((index[~changed], index[changed])):
            self.pixels_2S[row] += np.bincount(chosen, minlength=BINS)

    def fit(self, whose: str) -> tuple[float, float]:
        """(scale >= 0, bias) of the largest likelihood (section 2.2). Raises RequestError, that names `whose`, for one class."""
        unchanged, changed = (int(n) for n in self.pixels_2S.sum(axis=1))
        if not unchanged or not changed:
            raise RequestError(
                f"{whose} has {changed} changed and {unchanged} unchanged pixels that are labelled and seen; what is left out "
                "needs both: with three groups of sites or more put the site together with another in evaluation.groups, or "
                "leave it out of source.sites; with fewer add labelled sites"
            )
        used = self.pixels_2S.any(axis=0)
        value_S = ((np.arange(BINS) + 0.5) * (2 * LIMIT / BINS) - LIMIT)[used]
        weight_2S = self.pixels_2S[:, used].astype(np.float64)
        return _maximise(value_S, weight_2S, np.array([1 / (unchanged + 2), (changed + 1) / (changed + 2)]))


def _maximise(value_S: np.ndarray, weight_2S: np.ndarray, target_2: np.ndarray) -> tuple[float, float]:
    """Newton steps, halved while they make the likelihood smaller; the bias alone where the scale would be negative."""
    total_S, wanted_S = weight_2S.sum(axis=0), target_2 @ weight_2S
    rate = wanted_S.sum() / total_S.sum()
    flat = np.array([0.0, math.log(rate / (1 - rate))])
    design_2S = np.stack([value_S, np.ones_like(value_S)])

    def loss(numbers: np.ndarray) -> float:
        logit_S = numbers @ design_2S
        return float(np.sum(total_S * np.logaddexp(0, logit_S) - wanted_S * logit_S))

    numbers, least = flat, loss(flat)
    for _ in range(STEPS):
        p_S = 1 / (1 + np.exp(-(numbers @ design_2S)))
        gradient = design_2S @ (total_S * p_S - wanted_S)
        hessian = (design_2S * (total_S * p_S * (1 - p_S))) @ design_2S.T + 1e-9 * np.eye(2)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while (tried := loss(numbers - size * step)) > least and size > 1e-6:
            size /= 2
        if tried >= least - 1e-12 * abs(least):
            break
        numbers, least = numbers - size * step, tried
    return (float(numbers[0]), float(numbers[1])) if numbers[0] > 0 else (0.0, float(flat[1]))
