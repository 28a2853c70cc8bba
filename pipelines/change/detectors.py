"""A detector of labelled change: networks that each leave out one group of sites, calibrated and fused on what they left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.change.decision import fit_decision
from pipelines.change.metrics import Threshold
from pipelines.change.networks import Do, Recipe, TrainedNetwork, train_networks
from pipelines.change.site_scores import SiteScores
from pipelines.predictors import ChangeDetector


def train_detector(
    scores: SiteScores, recipe: Recipe, folder: Path, do: Do
) -> tuple[ChangeDetector, Threshold, list[TrainedNetwork]]:
    """The detector that is published: a network without each group, below `folder`, fitted on the groups left out."""
    sites = scores.sites
    networks = train_networks(sites, recipe, [(g,) for g in range(len(sites.grouping))], folder, do)
    members = list(networks.values())
    detector, threshold = do("calibrate and fuse", lambda _: fit_detector(scores, recipe, members, range(len(members))))
    return detector, threshold, members


def fit_detector(
    scores: SiteScores, recipe: Recipe, networks: Sequence[TrainedNetwork], groups: Sequence[int]
) -> tuple[ChangeDetector, Threshold]:
    """(detector, threshold): network i is calibrated on group `groups[i]`, which it has not seen, the threshold on all of these.

    Raises RequestError where one of the groups holds one class only.
    """
    detector = recipe.build_detector([one.detector.members[0] for one in networks])
    detector.eval()
    held_out = [scores.held_out(network, recipe.fused, group) for network, group in zip(networks, groups, strict=True)]
    return detector, fit_decision(detector, held_out, recipe.log_score)
